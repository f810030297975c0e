"""The loop-level kernel IR: what a fused region becomes before a target turns it into code.

    kernel ::= "kernel" name "(" param* ")" "{" stmt* "}"
    param  ::= buffer | size                     buffer: elements of one dtype; size: an i64 scalar
    stmt   ::= "for" var "in" lo ".." hi "step" n kind "{" stmt* "}"
             | "let" x "=" expr              a name for a value, never reassigned
             | "var" x "=" expr | x "=" expr  a register: declared once, assigned in loops
             | "store" buffer "[" expr "]" "=" expr ("if" mask)
             | "stream" buffer "[" expr ":" expr "]" "=" scratch   past the caches
             | "add" buffer "[" expr "]" "+=" expr    at once, whatever other threads add to it
             | ("scratch" | "shared") buffer ":" dtype "[" n "]"   of this task, or of its block
             | "copy" shared "[" expr "]" "=" buffer "[" expr ":" lanes "]" "if" mask  not awaited
             | "await" n                     until all but the last n groups of copies have arrived
             | "matrices" x "[" expr "]" "=" shared "[" expr "]"  of 8 x 8, into registers
             | "multiply" x "[" expr "]" "+=" x "[" expr "]" x "[" expr "]"  of matrices, by a warp
             | "tiles" x ("+=" | "=") left shared "[" expr "]"  by four warps, not awaited
             | "settle" n                    until all but the last n products of tiles are added
             | "publish"                     what is written, tiles that are multiplied later show
             | "barrier"                     no thread of the block goes on before all have come
             | "if" expr "{" stmt* "}" ("else" "{" stmt* "}")
             | "while" expr "{" stmt* "}"    expr is of registers and memory that the body changes
             | "call" kernel "(" arg* ")"    arg: expr, or buffer + offset
             | "fail" expr                   report a data-dependent error, of a site, and go on
    expr   ::= const | x | "load" buffer "[" expr "]" | unary | binary | "exact_"? "fma" | "dot"
             | "select" | "cast" | "splat" | "reduce" | "shuffle" | "warp" | "pair"
             | "aligned" buffer
    left   ::= shared "[" expr "]" | x "[" expr "]"
    kind   ::= serial | parallel | vector | unroll | rolled | single
             | block threads ("resident" int)? | thread

Every expression has a dtype and a number of lanes; more than one lane means an explicit vector.
`vector` on a loop asks the target's own vectoriser to do it; contractions write explicit lanes
instead. `parallel` loops stand only at the top level of a kernel: their iterations are tasks in any
order. For targets with blocks of threads, the iterations of a `block` loop, at the top level too,
are run by a block each, in any order. All threads of the block run the statements in it alike, each
with registers and scratch memory of its own; the iterations of `thread` loops in it are dealt out
to them, also in any order. Indices are i64 counts of elements. Buffers of a kernel never overlap; a
buffer that is read and written in place is one parameter. Expressions are trees: a value used twice
is named with `let`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, Union

from graphtorch.ir.dtype import DType, bf16, boolean, f32, i8, i16, i32, i64, u8, u32

from ..dataclass import dataclass, field


class KType:
    """Element dtype and number of vector lanes (1: a scalar). There is one object for each such
    pair."""

    __slots__ = ("dtype", "lanes")
    dtype: DType
    lanes: int

    def __new__(cls, dtype: DType, lanes: int = 1) -> KType:
        found = _TYPES.get((dtype, lanes))
        if found is None:
            made = object.__new__(cls)
            made.dtype, made.lanes = dtype, lanes
            found = _TYPES.setdefault((dtype, lanes), made)
        return found

    def __repr__(self) -> str:
        return f"KType({self})"

    def __str__(self) -> str:
        return str(self.dtype) if self.lanes == 1 else f"{self.dtype}x{self.lanes}"


_TYPES: dict[tuple[DType, int], KType] = {}
INDEX = KType(i64)

# Binary operations keep the type of their operands, comparisons give bool. Names ending in _u read
# the operands as unsigned. `rounded` is its operand, rounded by itself: a product that never fuses
# with an addition. `min`/`max` propagate NaN as PyTorch's minimum/maximum do; `minnum`/`maxnum`
# return the other operand. Integer div/rem truncate and never trap (x/0 = 0, x%0 = 0, MIN/-1
# wraps).
ARITHMETIC = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "rem",
        "div_u",
        "rem_u",
        "min",
        "max",
        "minnum",
        "maxnum",
        "pow",
        "atan2",
        "fmod",
        "copysign",
        "nextafter",
        "and",
        "or",
        "xor",
        "shl",
        "shr",
        "shr_u",
        "mulhi_u",
    }
)
COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "lt_u"})
UNARY = frozenset(
    {
        "neg",
        "not",
        "abs",
        "sqrt",
        "rsqrt",
        "floor",
        "ceil",
        "trunc",
        "round",
        "exp",
        "exp2",
        "near_exp2",
        "exp_negative",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "erfc",
        "erfinv",
        "normal_cdf",
        "lgamma",
        "digamma",
        "sigmoid",
        "half_exp",
        "isnan",
        "bitcast_int",
        "bitcast_float",
        "rounded",
    }
)
REDUCTIONS = frozenset({"add", "mul", "min", "max", "and", "or"})


class Expr:
    """A value, never changed. Python operators build expressions and fold what is constant
    (indices)."""

    __slots__ = ()
    type: KType

    def __add__(self, other: Operand) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return binary("mul", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        """Truncating division: right for the non-negative indices it is meant for."""
        return binary("div", self, other)

    def __mod__(self, other: Operand) -> Expr:
        return binary("rem", self, other)

    def __truediv__(self, other: Operand) -> Expr:
        return binary("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return binary("div", other, self)

    def __neg__(self) -> Expr:
        return unary("neg", self)


Operand: TypeAlias = Union[Expr, int, float, bool]


@dataclass(unsafe_hash=True, slots=True)
class Const(Expr):
    """A number, the same in every lane."""

    value: int | float | bool
    type: KType = INDEX


@dataclass(eq=False, slots=True)
class Name(Expr):
    """A loop variable, a `let`, a size parameter or a register (`var`)."""

    name: str
    type: KType = INDEX


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory seen by a kernel: a parameter or private scratch. `align` in bytes is guaranteed."""

    name: str
    dtype: DType
    access: str = "read"  # read | write | readwrite
    align: int = 1


@dataclass(eq=False, slots=True)
class Load(Expr):
    """Elements ``index .. index + lanes - 1``, or with a vector `index` one element for each lane.

    Lanes whose `mask` is false read nothing and are zero. `aligned`: where they begin, and where a
    store puts them, are known to be multiples of 16 bytes.
    """

    buffer: Buffer
    index: Expr
    type: KType
    mask: Expr | None = None
    aligned: bool = False


@dataclass(eq=False, slots=True)
class Aligned(Expr):
    """Whether a buffer begins at a multiple of 16 bytes."""

    buffer: Buffer
    type: KType


@dataclass(eq=False, slots=True)
class Unary(Expr):
    op: str
    x: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Binary(Expr):
    op: str
    a: Expr
    b: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Fma(Expr):
    """``a * b + c``, rounded once where the target has an instruction for it; `exact`: anywhere."""

    a: Expr
    b: Expr
    c: Expr
    type: KType
    exact: bool = False


# What a word of 32 bits holds, by kind of `Dot`, and what the products are summed in.
WORDS: dict[str, tuple[DType, DType, DType]] = {
    "i16": (i16, i16, i32),
    "i8": (i8, i8, i32),
    "u8_i8": (u8, i8, i32),
    "i8_u8": (i8, u8, i32),
    "bf16": (bf16, bf16, f32),
}
NARROW = frozenset(dtype for kind in WORDS.values() for dtype in kind[:2])


@dataclass(eq=False, slots=True)
class Dot(Expr):
    """``c`` plus the products of the numbers that each lane of `a` and `b`, words of 32 bits as
    i32, holds: pairs of 16 bits or quads of 8, of the dtypes that WORDS has for `kind`.

    Sums of integers wrap; what f32 sums are rounded to on the way is the target's.
    """

    kind: str
    a: Expr
    b: Expr
    c: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Select(Expr):
    condition: Expr
    a: Expr
    b: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Cast(Expr):
    """Conversion of value: float to integer as the op `cast` has it, anything to bool is ``!=
    0``."""

    x: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Splat(Expr):
    """A scalar in every lane."""

    x: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Reduce(Expr):
    """All lanes of a vector combined by `op` (one of REDUCTIONS) to a scalar."""

    op: str
    x: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Shuffle(Expr):
    """Lanes picked from the concatenation of `a` and `b` by constant `lanes` (transposes,
    deinterleaving)."""

    a: Expr
    b: Expr
    lanes: tuple[int, ...]
    type: KType


@dataclass(eq=False, slots=True)
class WarpReduce(Expr):
    """`x` of neighbouring threads combined by `op` (one of REDUCTIONS), in each of them, in a fixed
    order.

    The neighbours are `width` of the 32 threads of a warp, a power of two, from a multiple of it
    on; all threads of the warp come here together.
    """

    op: str
    x: Expr
    width: int
    type: KType


@dataclass(eq=False, slots=True)
class FromLane(Expr):
    """`x` of the thread number `lane`, 0 to 31, of the warp, whose threads come here together."""

    x: Expr
    lane: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Pair(Expr):
    """Two numbers of f32, rounded to the 2-byte float `dtype`, as a u32, `low` in its lower half.

    That is how `MultiplyMatrices` takes neighbours.
    """

    dtype: DType
    low: Expr
    high: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Tf32(Expr):
    """A number of f32 as a u32, its fraction rounded to 10 bits: to nearest, ties away from 0.

    That is how `MultiplyMatrices` takes numbers of f32.
    """

    x: Expr
    type: KType


@dataclass(eq=False, slots=True)
class Lanes(Expr):
    """The vector 0, 1, 2, ... of an integer type."""

    type: KType


@dataclass(eq=False, slots=True)
class For:
    """`kind`: serial, parallel or block (top level only), thread (inside of a block loop), vector
    (asks the target's vectoriser), unroll, rolled, single.

    A rolled loop stays a loop: its body was made to fill the registers, and many copies of it would
    spill. Of a single one there is not even a second copy: neighbouring iterations load the same
    elements, and what is kept of one for the next takes the registers of its sums. The blocks of a
    block loop have `threads` threads, a multiple of 32 up to 1024. `resident`: how many blocks a
    multiprocessor is to have at a time, which bounds the registers of a thread; with 1 none are
    spilled for the sake of more blocks; 0: the compiler chooses.
    """

    var: Name
    lo: Expr
    hi: Expr
    step: Expr
    kind: str
    body: list[Stmt] = field(default_factory=list)
    threads: int = 0
    resident: int = 0


@dataclass(eq=False, slots=True)
class Let:
    name: Name
    value: Expr


@dataclass(eq=False, slots=True)
class Var:
    """Declares a register and gives it its first value."""

    name: Name
    value: Expr


@dataclass(eq=False, slots=True)
class Assign:
    name: Name
    value: Expr


@dataclass(eq=False, slots=True)
class Store:
    """Stores the lanes of `value` at ``index ..``, or lane by lane with a vector `index`."""

    buffer: Buffer
    index: Expr
    value: Expr
    mask: Expr | None = None


@dataclass(eq=False, slots=True)
class Stream:
    """Copies the first `count` elements of a task's scratch memory to `index` and on, past the
    caches where the target can: nobody reads them soon. Memory is written without being read first.
    """

    buffer: Buffer
    index: Expr
    count: Expr
    source: Buffer


@dataclass(eq=False, slots=True)
class AtomicAdd:
    """Adds to an element of memory, which other threads of a GPU may add to at the same time.

    It has 4 or 8 bytes; nothing else of the kernel reads or writes what is added to.
    """

    buffer: Buffer
    index: Expr
    value: Expr


@dataclass(eq=False, slots=True)
class Scratch:
    """Memory of `size` elements (a constant), not initialised.

    `space`: private to a task or thread, 64-byte aligned; or shared by a block's threads, aligned
    as the buffer says.
    """

    buffer: Buffer
    size: int
    space: str = "private"


@dataclass(eq=False, slots=True)
class Barrier:
    """The threads of a block wait for each other; what they wrote before, all of them read after
    it."""


@dataclass(eq=False, slots=True)
class Publish:
    """What the thread wrote to shared memory before, `MultiplyTiles` reads behind a barrier that
    follows. The thread waits for all that it has begun to read and to write."""


@dataclass(eq=False, slots=True)
class Copy:
    """`lanes` elements from `index` of `source` on, or zeros where `mask` is false, into shared
    memory.

    Nobody waits for them before an `Await` of the thread, which ends the group of copies begun
    since the last one. Where both ends are aligned to 16 bytes, or known to be by `aligned`, this
    takes no registers.
    """

    buffer: Buffer
    at: Expr
    source: Buffer
    index: Expr
    lanes: int
    mask: Expr
    aligned: bool = False


@dataclass(eq=False, slots=True)
class Await:
    """Ends a group of the thread's copies; all groups but the last `groups` have arrived after
    it."""

    groups: int


@dataclass(eq=False, slots=True)
class LoadMatrices:
    """Four matrices of 8 rows of 16 bytes, which a warp together takes from shared memory.

    Thread i of a warp says at `index` where row i % 8 of matrix i // 8 begins, a multiple of 16
    bytes. Of matrix j it gets the 4 bytes number i % 4 of row i // 4 as ``target[at + j]``: an
    element of 4 bytes, or two of 2 bytes, the first in its lower half. Those of 2 bytes may be
    `transposed`: then it gets elements 2 (i % 4) and the next of column i // 4.
    """

    target: Buffer
    at: Expr
    source: Buffer
    index: Expr
    transposed: bool


@dataclass(eq=False, slots=True)
class MultiplyMatrices:
    """A matrix of 16 x 8 sums plus the product of one of 16 x 16 and one of 16 x 8 of `dtype`, by a
    warp; those of f32, of which it takes what `Tf32` leaves, are 16 x 8 and 8 x 8.

    Of the sums the thread has ``sums[at ..]``: rows i // 4 and 8 more, two columns from 2 (i % 4)
    on. It has ``a[a_at .. + 4]`` and ``b[b_at .. + 2]`` as `LoadMatrices` gives them: upper and
    lower 8 rows of the first half of the columns of the left one, then of the others; upper and
    lower half of the rows of the right one transposed.
    """

    dtype: DType
    sums: Buffer
    at: Expr
    a: Buffer
    a_at: Expr
    b: Buffer
    b_at: Expr


TILE = 64  # rows of the left tile of a product
DEPTH = 128  # bytes of each of its rows


@dataclass(eq=False, slots=True)
class Tile:
    """`rows` x depth elements of shared memory, 128 bytes deep, as `MultiplyTiles` takes them.

    The tile begins at element `at`, which like the buffer is a multiple of 1024 bytes. It is made
    of lines of 128 bytes: a row each; or, `turned`, which 2-byte elements may be, the elements of
    64 rows at one depth, those of one depth after another, and then those of the next 64 rows. The
    eight parts of 16 bytes of line i stand in the order of their numbers xor i % 8, so that what is
    read at once lies in different banks.
    """

    buffer: Buffer
    at: Expr
    rows: int
    turned: bool


FRAGMENT = DEPTH // 8  # registers of a thread for a left tile of 64 rows


@dataclass(eq=False, slots=True)
class Fragment:
    """A left tile of `MultiplyTiles`, of 2-byte elements, in registers.

    For each 16 steps of its depth, one after another, the thread has four of ``buffer[at ..]``, as
    `MultiplyMatrices` takes a left matrix of the 16 rows that the sums of its warp have. Pairs of
    sums that are neighbours are in these places themselves (`Pair`).
    """

    buffer: Buffer
    at: Expr


@dataclass(eq=False, slots=True)
class MultiplyTiles:
    """A matrix of 64 sums for each row of `b` plus the product of `a`, of 64 rows, and `b`
    transposed, by a group of four warps whose first one has a number that four divides.

    Of the sums the thread has ``sums[4 j ..]``: rows 16 w + i // 4 (w: its warp in the group, i:
    its place in the warp) and 8 more, two columns from 8 j + 2 (i % 4) on. `fresh`: there are none
    yet, and what is there does not count. Nobody waits: a `Settle` of the thread ends it, and until
    then neither its sums, nor registers of `a`, nor the tiles may be touched. What threads wrote
    into the tiles they have to `Publish`.
    """

    dtype: DType
    sums: Buffer
    a: Tile | Fragment
    b: Tile
    fresh: bool = False


@dataclass(eq=False, slots=True)
class Settle:
    """Waits until all `MultiplyTiles` of the thread but the last `groups` are done; where these do
    not touch `registers`, they may be used from then on."""

    groups: int
    registers: Buffer | None = None


@dataclass(eq=False, slots=True)
class If:
    condition: Expr
    then: list[Stmt] = field(default_factory=list)
    orelse: list[Stmt] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class While:
    """Repeats its body as long as `condition`, evaluated before each time, holds."""

    condition: Expr
    body: list[Stmt] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Ref:
    """A buffer argument of a call, starting `offset` elements in."""

    buffer: Buffer
    offset: Expr


@dataclass(eq=False, slots=True)
class Call:
    """Calls a kernel that has no parallel and no block loop."""

    kernel: Kernel
    args: tuple[Ref | Expr, ...]


@dataclass(eq=False, slots=True)
class Fail:
    """Records error `site` (an index into the program's error table) in the call's status and goes
    on.

    The code after it must stay inside its buffers: clamp the index first. The site is a parameter
    of the kernel, so that kernels which fail at different lines are one.
    """

    site: Expr


Stmt: TypeAlias = Union[
    For,
    Let,
    Var,
    Assign,
    Store,
    Stream,
    AtomicAdd,
    Scratch,
    Copy,
    Await,
    LoadMatrices,
    MultiplyMatrices,
    MultiplyTiles,
    Settle,
    Publish,
    Barrier,
    If,
    While,
    Call,
    Fail,
]


@dataclass(eq=False, slots=True)
class Kernel:
    """A loop nest over its parameters: buffers first, then sizes. `text` is for text.py to
    remember."""

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[Name, ...]
    body: list[Stmt]
    text: str = field(default="", init=False, repr=False)


def walk(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Every statement, outer ones first."""
    for stmt in body:
        yield stmt
        if isinstance(stmt, (For, While)):
            yield from walk(stmt.body)
        elif isinstance(stmt, If):
            yield from walk(stmt.then)
            yield from walk(stmt.orelse)


def constant(value: float | int | bool, type: KType) -> Const:
    """A number as the kind that `type` holds: 0 is 0.0, or False."""
    kind = float if type.dtype.is_floating_point else bool if type.dtype.is_bool else int
    return Const(kind(value), type)


def as_expr(x: Operand, like: KType = INDEX) -> Expr:
    """`x` as an expression: a Python number becomes a constant of type `like`."""
    return x if isinstance(x, Expr) else Const(x, like)


def binary(op: str, a: Operand, b: Operand) -> Expr:
    """`op` on two operands of the same type (a scalar meeting a vector is splatted), constants
    folded."""
    like = a.type if isinstance(a, Expr) else b.type if isinstance(b, Expr) else INDEX
    x, y = as_expr(a, like), as_expr(b, like)
    lanes = max(x.type.lanes, y.type.lanes)
    x, y = splat(x, lanes), splat(y, lanes)
    if x.type != y.type:
        raise TypeError(f"kernel op {op} on {x.type} and {y.type}: cast one of them")
    folded = _fold_index(op, x, y)
    if folded is not None:
        return folded
    if op in COMPARISONS:
        return Binary(op, x, y, KType(boolean, lanes))
    if op not in ARITHMETIC:
        raise TypeError(f"unknown kernel op {op!r}")
    return Binary(op, x, y, x.type)


def _fold_index(op: str, x: Expr, y: Expr) -> Expr | None:
    """The simplifications that keep index arithmetic readable in golden texts; scalars of i64
    only."""
    if x.type != INDEX:
        return None
    a = x.value if isinstance(x, Const) else None
    b = y.value if isinstance(y, Const) else None
    if a is not None and b is not None and op in ("add", "sub", "mul"):
        return Const({"add": a + b, "sub": a - b, "mul": a * b}[op])
    if a is not None and b and op in ("div", "rem") and a >= 0 and b > 0:
        return Const(a // b if op == "div" else a % b)
    if (op in ("add", "sub") and b == 0) or (op in ("mul", "div") and b == 1):
        return x
    if (op == "add" and a == 0) or (op == "mul" and a == 1):
        return y
    if (op == "mul" and 0 in (a, b)) or (op == "rem" and b == 1) or (op == "div" and a == 0 and b):
        return Const(0)
    return None


def unary(op: str, x: Expr) -> Expr:
    """One of UNARY. `isnan` gives bool; `bitcast_int`/`bitcast_float` reinterpret the bits;
    `near_exp2` may be 0 where a power of 2 is denormal."""
    if op not in UNARY:
        raise TypeError(f"unknown kernel op {op!r}")
    dtype = x.type.dtype
    if op == "isnan":
        dtype = boolean
    elif op.startswith("bitcast"):
        dtype = DType.named(("i" if op == "bitcast_int" else "f") + str(dtype.bits))
    return Unary(op, x, KType(dtype, x.type.lanes))


def fma(a: Expr, b: Expr, c: Expr, exact: bool = False) -> Expr:
    """See `Fma`; `exact` is slow where there is no such instruction."""
    lanes = max(a.type.lanes, b.type.lanes, c.type.lanes)
    a, b, c = (splat(v, lanes) for v in (a, b, c))
    return Fma(a, b, c, c.type, exact)


def dot(kind: str, a: Expr, b: Expr, c: Expr) -> Expr:
    lanes = max(a.type.lanes, b.type.lanes, c.type.lanes)
    a, b, c = (splat(v, lanes) for v in (a, b, c))
    return Dot(kind, a, b, c, c.type)


def select(condition: Expr, a: Operand, b: Operand) -> Expr:
    like = a.type if isinstance(a, Expr) else b.type if isinstance(b, Expr) else INDEX
    x, y = as_expr(a, like), as_expr(b, like)
    lanes = max(condition.type.lanes, x.type.lanes, y.type.lanes)
    return Select(
        splat(condition, lanes), splat(x, lanes), splat(y, lanes), KType(x.type.dtype, lanes)
    )


def cast(x: Expr, dtype: DType) -> Expr:
    return x if x.type.dtype is dtype else Cast(x, KType(dtype, x.type.lanes))


def splat(x: Expr, lanes: int) -> Expr:
    """`x` in `lanes` lanes; a vector of that width stays as it is."""
    if x.type.lanes == lanes:
        return x
    if x.type.lanes != 1:
        raise TypeError(f"cannot widen {x.type} to {lanes} lanes")
    wide = KType(x.type.dtype, lanes)
    return Const(x.value, wide) if isinstance(x, Const) else Splat(x, wide)


def load(
    buffer: Buffer,
    index: Operand,
    lanes: int = 1,
    mask: Expr | None = None,
    aligned: bool = False,
) -> Expr:
    """`lanes` neighbours from `index` on, or a gather where `index` is a vector."""
    where = as_expr(index)
    return Load(buffer, where, KType(buffer.dtype, max(lanes, where.type.lanes)), mask, aligned)


def aligned(buffer: Buffer) -> Expr:
    return Aligned(buffer, KType(boolean))


def reduce(op: str, x: Expr) -> Expr:
    if op not in REDUCTIONS:
        raise TypeError(f"unknown kernel reduction {op!r}")
    return Reduce(op, x, KType(x.type.dtype))


def warp_reduce(op: str, x: Expr, width: int = 32) -> Expr:
    if op not in REDUCTIONS:
        raise TypeError(f"unknown kernel reduction {op!r}")
    return x if width == 1 else WarpReduce(op, x, width, x.type)


def from_lane(x: Expr, lane: Expr) -> Expr:
    return FromLane(x, lane, x.type)


def tf32(x: Expr) -> Expr:
    """A number of f32 as `MultiplyMatrices` takes it."""
    return Tf32(x, KType(u32))


def pair(dtype: DType, low: Expr, high: Expr) -> Expr:
    """Neighbours of a matrix of `dtype`, a 2-byte float, from two numbers of f32."""
    return Pair(dtype, low, high, KType(u32))
