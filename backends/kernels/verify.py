"""Says whether a kernel is one: run on every lowered program under tests.

Each rule has a name, which the message shows; `RULES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32, i32, u32
from graphtorch.ir.shape import Dim

from ..dataclass import dataclass
from . import ir as k
from .extents import Extents
from .program.program import Launch, Program, Slot, flat
from .text import print_expr, print_kernel, print_statement
from .uniform import WARP, Varying

RULES = {
    "name": "a name is declared once, before it is used, in a block that is still open",
    "buffer": "a buffer is a parameter, or private memory that was declared before in a block "
    "still open",
    "access": "what is only read is not written to, and what is only written is not read",
    "type": "operands have the dtypes and lanes that an expression, a store or an assignment takes",
    "index": "indices, bounds and offsets are integers, bounds and offsets one number each",
    "bounds": "no element beyond the ends of a buffer is read or written",
    "op": "an operation is one of the kernel IR",
    "loop": "a loop is of a known kind, parallel or block only at the top level, and its step is "
    "positive",
    "nested": "a loop for the target's vectoriser has no other one inside",
    "threads": "blocks have 32 to 1024 threads, whole warps; their loops and memory stand in a "
    "block loop",
    "barrier": "barriers stand in block loops, where all threads of the block come by alike",
    "warp": "a warp's values are combined in block loops, where all its threads come by alike",
    "matrix": "matrices go from shared memory to registers and are multiplied there, 2 bytes an "
    "element",
    "register": "only registers are assigned to, and in the task that declared them",
    "call": "a call passes what the kernel's parameters take, and that kernel has no parallel or "
    "block loop",
    "launch": "a launch passes a slot of its dtype, or of numbers whose words a kernel reads, for "
    "each buffer, and a size for each size",
    "writes": "a launch writes to memory that is the program's to write, given to it once",
}
TASKS = ("parallel", "block")
LOOPS = frozenset(["serial", "vector", "unroll", "rolled", "single", "thread", *TASKS])
SPACES = ("private", "shared")
MASK = k.KType(boolean)


@dataclass
class Alike:
    """Whether threads come by alike: those of a block, or those of a warp."""

    varying: Varying
    apart: bool = False


class KernelError(RuntimeError):
    """A kernel that breaks a rule: a defect of the lowering that made it, not of the user's code.

    Attributes:
        rule: a key of `RULES`.
    """

    def __init__(self, rule: str, kernel: k.Kernel, detail: str, at: k.Stmt | None = None):
        where = "" if at is None else f"\n  in: {_readable(print_statement, at)}"
        super().__init__(
            f"kernel {kernel.name} breaks the rule '{rule}' ({RULES[rule]}): {detail}{where}\n"
            f"{_readable(print_kernel, kernel)}"
        )
        self.rule = rule


def _readable(text: Callable[..., str], what: object) -> str:
    """The text of a part of a kernel that may hold what has no text."""
    try:
        return text(what)
    except (TypeError, KeyError, AttributeError) as error:
        return f"<no text: {error}>"


def verify_program(program: Program) -> None:
    """Check the kernels of a program and what its launches pass.

    Raises: KernelError
    """
    extents = {kernel: verify(kernel) for kernel in program.kernels()}
    donated = {id(s.alias) for s in program.outputs if s.alias is not None}
    for launch in flat((*program.prologue, *program.launches)):
        _verify_launch(launch, donated, extents[launch.kernel])


def _verify_launch(launch: Launch, donated: set[int], extents: Extents) -> None:
    kernel = launch.kernel
    given = [s.dtype.name for s in launch.slots], len(launch.sizes)
    taken = [b.dtype.name for b in kernel.buffers], len(kernel.sizes)
    fits = len(launch.slots) == len(kernel.buffers) and given[1] == taken[1]
    if not (fits and all(map(_is_taken, launch.slots, kernel.buffers))):
        raise KernelError(
            "launch",
            kernel,
            f"gets buffers of {given[0]} and {given[1]} sizes, takes {taken[0]} and {taken[1]}",
        )
    for buffer, slot in zip(kernel.buffers, launch.slots, strict=True):
        if buffer.access != "read":
            if slot.kind == "constant" or (slot.kind == "input" and id(slot) not in donated):
                what = f"{slot.kind} {slot.name or slot.index}"
                raise KernelError("writes", kernel, f"{buffer.name} is the {what}")
            if launch.slots.count(slot) > 1:
                raise KernelError("writes", kernel, f"{buffer.name} is given a second time")
        last, size = extents.last.get(buffer, -1), _room(slot)
        size = size * slot.dtype.itemsize // buffer.dtype.itemsize
        if isinstance(size, int) and last >= size:
            raise KernelError(
                "bounds",
                kernel,
                f"element {last} of {buffer.name} is touched; in the launch "
                f"{launch.label!r} it has {size}",
            )


def _is_taken(slot: Slot, buffer: k.Buffer) -> bool:
    """Whether a kernel's buffer may be a slot: of its dtype, or the words of narrow numbers."""
    words = buffer.dtype is i32 and buffer.access == "read" and slot.dtype in k.NARROW
    return slot.dtype is buffer.dtype or words


def _room(slot: Slot) -> Dim:
    """Elements from the first of a slot on: the rows of a piece lie apart, up to the end of the
    whole."""
    return _room(slot.parts[0]) - slot.offset if slot.kind == "piece" else slot.elements


def verify(kernel: k.Kernel) -> Extents:
    """Check one kernel and those that it calls.

    Returns: how far each buffer is read or written for certain, for who knows how long it is.
    Raises: KernelError: it breaks one of `RULES`, whose name the message shows.
    """
    verifier = _Verifier(kernel)
    verifier.run()
    return verifier.extents


class _Verifier:
    """Walks a kernel once, with what is declared in the open blocks."""

    def __init__(self, kernel: k.Kernel, callers: tuple[k.Kernel, ...] = ()):
        self.kernel = kernel
        self.callers = (*callers, kernel)
        self.names = set(kernel.sizes)  # declared, in a block that is open
        self.buffers = set(kernel.buffers)
        self.registers: set[k.Name] = set()
        self.used = {n.name for n in kernel.sizes} | {b.name for b in kernel.buffers}
        self.has_tasks = False
        # in a block loop: of its threads, and of the threads of a warp
        self.alike: list[Alike] = []
        self.in_threads = False
        self.spaces: dict[k.Buffer, str] = {}
        self.certain = True  # whether what stands here runs at each launch
        self.extents = Extents()
        self.at: k.Stmt | None = None

    def run(self) -> None:
        if len(self.used) != len(self.kernel.sizes) + len(self.kernel.buffers):
            self.refuse("name", "two parameters share a name")
        self.block(self.kernel.body, 0, False)

    def refuse(self, rule: str, detail: str) -> NoReturn:
        raise KernelError(rule, self.kernel, detail, self.at)

    # -- statements

    def block(self, body: Sequence[k.Stmt], depth: int, vector: bool) -> None:
        """A block, `vector` where a loop for the vectoriser is around."""
        names, buffers, registers = self.names, self.buffers, self.registers
        self.names, self.buffers, self.registers = names.copy(), buffers.copy(), registers.copy()
        for stmt in body:
            self.at = stmt
            check = _STATEMENTS.get(type(stmt))
            if check is not None:
                check(self, stmt)
            elif type(stmt) is k.For:
                self.loop(stmt, depth, vector)
            elif type(stmt) is k.If:
                self.condition(stmt.condition)
                with self.apart(stmt):
                    self.maybe(stmt.then, depth, vector)
                    self.maybe(stmt.orelse, depth, vector)
            elif type(stmt) is k.While:
                self.condition(stmt.condition)
                with self.apart(stmt):
                    self.maybe(stmt.body, depth, vector)
            else:
                self.refuse("op", f"no statement {type(stmt).__name__}")
        self.names, self.buffers, self.registers = names, buffers, registers

    def maybe(self, body: Sequence[k.Stmt], depth: int, vector: bool) -> None:
        """A block that need not run."""
        before, self.certain = self.certain, False
        self.block(body, depth + 1, vector)
        self.certain = before

    def loop(self, stmt: k.For, depth: int, vector: bool) -> None:
        for bound in (stmt.lo, stmt.hi, stmt.step):
            self.scalar(bound)
        if stmt.kind not in LOOPS:
            self.refuse("loop", f"{stmt.var.name} is {stmt.kind!r}")
        if stmt.kind in TASKS and depth > 0:
            self.refuse("loop", f"the {stmt.kind} loop over {stmt.var.name} stands inside a block")
        self.threads(stmt)
        if type(stmt.step) is k.Const and stmt.step.value <= 0:
            self.refuse("loop", f"{stmt.var.name} advances by {stmt.step.value}")
        if vector and stmt.kind == "vector":
            self.refuse("nested", f"the loop over {stmt.var.name} stands in another one")
        self.has_tasks |= stmt.kind in TASKS
        names, registers = self.names, self.registers
        self.names = names.copy()
        if stmt.kind in TASKS:
            self.registers = set()  # tasks run in any order, on any threads
        if stmt.kind == "block":
            self.alike = [Alike(Varying(stmt, False)), Alike(Varying(stmt, True))]
        in_threads, self.in_threads = self.in_threads, self.in_threads or stmt.kind == "thread"
        self.declare(stmt.var)
        certain, self.certain = self.certain, self.extents.loop(stmt) and self.certain
        with self.apart(stmt):
            self.block(stmt.body, depth + 1, vector or stmt.kind == "vector")
        self.names, self.registers, self.certain, self.in_threads = (
            names,
            registers,
            certain,
            in_threads,
        )
        if stmt.kind == "block":
            self.alike = []

    # -- blocks of threads

    @contextmanager
    def apart(self, stmt: k.For | k.If | k.While) -> Iterator[None]:
        """The statements in `stmt`, to which perhaps some threads come only, or come at different
        times."""
        before = [a.apart for a in self.alike]
        for a in self.alike:
            a.apart |= (
                a.varying.loop_varies(stmt, False)
                if isinstance(stmt, k.For)
                else a.varying.varies(stmt.condition)
            )
        yield
        for a, was in zip(self.alike, before, strict=True):
            a.apart = was

    def threads(self, stmt: k.For) -> None:
        count = stmt.threads
        if stmt.kind == "block" and not (WARP <= count <= 1024 and count % WARP == 0):
            self.refuse("threads", f"the blocks of {stmt.var.name} have {count} threads")
        if stmt.kind == "thread" and (not self.alike or self.in_threads):
            where = "in another one" if self.in_threads else "in no block loop"
            self.refuse("threads", f"the thread loop over {stmt.var.name} stands {where}")

    def barrier(self, stmt: k.Barrier) -> None:
        if not self.alike:
            self.refuse("barrier", "there is no block loop around it")
        if self.alike[0].apart:
            self.refuse("barrier", "threads may come here at different times, or not at all")

    def declare(self, name: k.Name) -> None:
        if name.name in self.used:
            self.refuse("name", f"{name.name} is declared twice")
        self.used.add(name.name)
        self.names.add(name)

    def let(self, stmt: k.Let) -> None:
        self.expression(stmt.value)
        self.fits("type", stmt.name.type, stmt.value.type, stmt.name.name)
        self.declare(stmt.name)
        if self.certain and stmt.name.type is k.INDEX:
            self.extents.let(stmt)

    def var(self, stmt: k.Var) -> None:
        self.expression(stmt.value)
        self.fits("type", stmt.name.type, stmt.value.type, stmt.name.name)
        self.declare(stmt.name)
        self.registers.add(stmt.name)

    def assign(self, stmt: k.Assign) -> None:
        if stmt.name not in self.registers:
            self.refuse("register", f"{stmt.name.name} is no register of this task")
        self.expression(stmt.value)
        self.fits("type", stmt.name.type, stmt.value.type, stmt.name.name)

    def scratch(self, stmt: k.Scratch) -> None:
        name = stmt.buffer.name
        if name in self.used:
            self.refuse("name", f"{name} is declared twice")
        if not isinstance(stmt.size, int) or stmt.size <= 0:
            self.refuse("buffer", f"{name} has {stmt.size} elements")
        if stmt.space not in SPACES:
            self.refuse("buffer", f"{name} lies in {stmt.space!r}")
        if stmt.space == "shared" and (not self.alike or self.in_threads):
            self.refuse("threads", f"{name}, which a block shares, is not declared by the block")
        self.used.add(name)
        self.buffers.add(stmt.buffer)
        self.spaces[stmt.buffer] = stmt.space
        self.extents.sizes[stmt.buffer] = stmt.size

    def store(self, stmt: k.Store) -> None:
        self.memory(stmt.buffer, "read", "written to")
        lanes = stmt.value.type.lanes
        self.place(stmt.buffer, stmt.index, stmt.mask, lanes)
        self.expression(stmt.value)
        if stmt.value.type.dtype is not stmt.buffer.dtype:
            self.refuse(
                "type",
                f"{stmt.value.type} is stored into {stmt.buffer.name} of {stmt.buffer.dtype}",
            )

    def stream(self, stmt: k.Stream) -> None:
        self.memory(stmt.buffer, "read", "written to")
        self.memory(stmt.source, "", "used")
        self.scalar(stmt.index)
        self.scalar(stmt.count)
        if stmt.buffer in self.spaces or self.spaces.get(stmt.source) != "private":
            self.refuse(
                "buffer",
                f"{stmt.buffer.name} gets {stmt.source.name}: not memory what scratch has",
            )
        if stmt.source.dtype is not stmt.buffer.dtype:
            self.refuse(
                "type",
                f"{stmt.source.dtype} is copied to {stmt.buffer.name} of {stmt.buffer.dtype}",
            )
        if isinstance(stmt.count, k.Const):
            self.place(stmt.source, k.Const(0), None, int(stmt.count.value))
            self.place(stmt.buffer, stmt.index, None, int(stmt.count.value))

    def atomic_add(self, stmt: k.AtomicAdd) -> None:
        self.store(k.Store(stmt.buffer, stmt.index, stmt.value))
        if stmt.buffer in self.spaces or stmt.buffer.access != "readwrite":
            self.refuse(
                "buffer", f"{stmt.buffer.name}, which threads add to, is no readwrite parameter"
            )
        if stmt.value.type.lanes > 1 or stmt.value.type.dtype.itemsize not in (4, 8):
            self.refuse(
                "type",
                f"{stmt.value.type} is added to {stmt.buffer.name} at once: 4 or 8 bytes are",
            )

    def copy(self, stmt: k.Copy) -> None:
        self.part(stmt.buffer, "shared", stmt.at, stmt.lanes)
        self.memory(stmt.source, "write", "read")
        self.scalar(stmt.index)
        self.condition(stmt.mask)
        if (
            stmt.source.dtype is not stmt.buffer.dtype
            or stmt.lanes * stmt.buffer.dtype.itemsize != 16
        ):
            self.refuse(
                "type",
                f"{stmt.lanes} elements of {stmt.source.dtype} are copied to "
                f"{stmt.buffer.dtype}, which should be 16 bytes",
            )

    def await_copies(self, stmt: k.Await) -> None:
        if not self.alike or stmt.groups < 0:
            self.refuse(
                "threads", f"{stmt.groups} groups of copies are awaited, or there is no block loop"
            )

    def part(self, buffer: k.Buffer, space: str, at: k.Expr, count: int) -> None:
        """`count` elements of scratch memory."""
        if self.spaces.get(buffer) != space:
            self.refuse("matrix", f"{buffer.name} is no {space} memory")
        self.memory(buffer, "", "used")
        self.scalar(at)
        self.place(buffer, at, None, count)

    def together(self) -> None:
        """The threads of a warp come here together."""
        if not self.alike or self.alike[1].apart:
            self.refuse(
                "warp",
                "threads of a warp may come here at different times, or not at all"
                if self.alike
                else "there is no block loop around it",
            )

    def load_matrices(self, stmt: k.LoadMatrices) -> None:
        self.together()
        self.part(stmt.target, "private", stmt.at, 4)
        size = stmt.source.dtype.itemsize
        self.part(stmt.source, "shared", stmt.index, 16 // size)
        if stmt.target.dtype is not u32 or size not in (2, 4) or (size == 4 and stmt.transposed):
            self.refuse("matrix", f"{stmt.source.dtype} to {stmt.target.dtype}")

    def multiply_matrices(self, stmt: k.MultiplyMatrices) -> None:
        self.together()
        for buffer, at, count, dtype in (
            (stmt.sums, stmt.at, 4, f32),
            (stmt.a, stmt.a_at, 4, u32),
            (stmt.b, stmt.b_at, 2, u32),
        ):
            self.part(buffer, "private", at, count)
            if buffer.dtype is not dtype or stmt.dtype not in (f16, bf16, f32):
                self.refuse("matrix", f"a product of {stmt.dtype}; {buffer.name} is {buffer.dtype}")

    def multiply_tiles(self, stmt: k.MultiplyTiles) -> None:
        self.barrier(k.Barrier())
        columns, size = stmt.b.rows, stmt.dtype.itemsize
        if stmt.dtype not in (f16, bf16, f32) or stmt.sums.dtype is not f32:
            self.refuse("matrix", f"a product of {stmt.dtype} with sums of {stmt.sums.dtype}")
        if not (0 < columns <= 4 * k.TILE) or columns % k.TILE:
            self.refuse("matrix", f"a product of {columns} columns")
        self.part(stmt.sums, "private", k.Const(0), columns // 2)
        self.tile(stmt.b, stmt.dtype)
        if isinstance(stmt.a, k.Tile):
            self.tile(stmt.a, stmt.dtype)
            if stmt.a.rows != k.TILE:
                self.refuse("matrix", f"a product of {stmt.a.rows} rows")
            return
        self.part(stmt.a.buffer, "private", stmt.a.at, k.FRAGMENT)
        if stmt.a.buffer.dtype is not u32 or size != 2:
            self.refuse("matrix", f"{stmt.a.buffer.name} of {stmt.a.buffer.dtype} as {stmt.dtype}")

    def tile(self, tile: k.Tile, dtype: DType) -> None:
        """A tile of a product of `dtype`."""
        name, size = tile.buffer.name, dtype.itemsize
        self.part(tile.buffer, "shared", tile.at, tile.rows * k.DEPTH // size)
        if tile.buffer.dtype is not dtype or tile.buffer.align % 1024:
            self.refuse("matrix", f"{name} of {tile.buffer.dtype} as a tile")
        if tile.turned and size != 2:
            self.refuse("matrix", f"{name} of {size}-byte elements is turned")

    def publish(self, stmt: k.Publish) -> None:
        if not self.alike:
            self.refuse("threads", "there is no block loop around what is published")

    def settle(self, stmt: k.Settle) -> None:
        self.barrier(k.Barrier())
        if stmt.groups < 0:
            self.refuse("threads", f"{stmt.groups} groups of products are awaited")
        if stmt.registers is not None:
            self.part(stmt.registers, "private", k.Const(0), 1)
            if stmt.registers.dtype not in (f32, u32):
                self.refuse("type", f"{stmt.registers.name} of {stmt.registers.dtype} is awaited")

    def call(self, stmt: k.Call) -> None:
        name = stmt.kernel.name
        if stmt.kernel in self.callers:
            self.refuse("call", f"{name} calls itself")
        inner = _Verifier(stmt.kernel, self.callers)
        inner.run()
        if inner.has_tasks:
            self.refuse("call", f"{name} has a parallel or block loop")
        taken: list[k.Buffer | k.Name] = [*stmt.kernel.buffers, *stmt.kernel.sizes]
        if len(taken) != len(stmt.args):
            self.refuse("call", f"{name} takes {len(taken)} arguments, gets {len(stmt.args)}")
        for parameter, argument in zip(taken, stmt.args, strict=True):
            if isinstance(parameter, k.Buffer):
                self.passed(name, parameter, argument)
            elif isinstance(argument, k.Ref):
                self.refuse(
                    "call",
                    f"{name} takes a number as {parameter.name}, gets {argument.buffer.name}",
                )
            else:
                self.expression(argument)
                self.fits("call", parameter.type, argument.type, f"{name}'s {parameter.name}")

    def passed(self, name: str, parameter: k.Buffer, argument: k.Ref | k.Expr) -> None:
        """A buffer of a call."""
        if not isinstance(argument, k.Ref):
            self.refuse(
                "call", f"{name} takes a buffer as {parameter.name}, gets {print_expr(argument)}"
            )
        self.scalar(argument.offset)
        if argument.buffer.dtype is not parameter.dtype:
            self.refuse(
                "call",
                f"{name} takes {parameter.dtype} as {parameter.name}, gets {argument.buffer.dtype}",
            )
        if parameter.access != "write":
            self.memory(argument.buffer, "write", "read")
        if parameter.access != "read":
            self.memory(argument.buffer, "read", "written to")

    def memory(self, buffer: k.Buffer, denied: str, use: str) -> None:
        if buffer not in self.buffers:
            self.refuse("buffer", f"{buffer.name} is not declared here")
        if buffer.access == denied:
            self.refuse("access", f"{buffer.name}, declared {denied}, is {use}")

    def fail(self, stmt: k.Fail) -> None:
        self.scalar(stmt.site)

    # -- expressions

    def condition(self, e: k.Expr) -> None:
        self.expression(e)
        if e.type is not MASK:
            self.refuse("type", f"the condition {print_expr(e)} is {e.type}")

    def scalar(self, e: k.Expr) -> None:
        """A bound, a step, an offset or an error site."""
        self.expression(e)
        if e.type is not k.INDEX:
            self.refuse("index", f"{print_expr(e)} is {e.type}")

    def place(self, buffer: k.Buffer, index: k.Expr, mask: k.Expr | None, lanes: int) -> None:
        """Where `lanes` elements are read or written."""
        self.expression(index)
        if index.type is not k.INDEX and (
            not index.type.dtype.is_integer or index.type.lanes not in (1, lanes)
        ):
            self.refuse(
                "index", f"{lanes} lanes of {buffer.name} at {print_expr(index)}: {index.type}"
            )
        if mask is not None:
            self.expression(mask)
            self.fits("type", k.KType(boolean, lanes), mask.type, f"the mask of {buffer.name}")
        elif self.certain and index.type is k.INDEX:
            first, last = self.extents.touch(buffer, index, lanes)
            size = self.extents.sizes.get(buffer)
            if first < 0 or (size is not None and last >= size):
                has = "" if size is None else f", which has {size}"
                self.refuse(
                    "bounds", f"elements {first} to {last} of {buffer.name} are touched{has}"
                )

    def fits(self, rule: str, wanted: k.KType, given: k.KType, what: str) -> None:
        if wanted is not given:
            self.refuse(rule, f"{what} is {wanted}, gets {given}")

    def expression(self, e: k.Expr) -> None:
        if type(e) is k.Name:  # most are
            if e not in self.names:
                self.refuse("name", f"{e.name} is not declared here")
            return
        check = _EXPRESSIONS.get(type(e))
        if check is None:
            self.refuse("op", f"no expression {type(e).__name__}")
        check(self, e)

    def constant(self, e: k.Const) -> None:
        kind = type(e.value)
        if kind is not float and kind is not int:
            fits = kind is bool and (e.type.dtype is boolean or e.type.dtype.is_integer)
        else:
            fits = e.type.dtype is not boolean and (kind is int or e.type.dtype.is_floating_point)
        if not fits:
            self.refuse("type", f"{e.value!r} is no {e.type.dtype}")

    def load(self, e: k.Load) -> None:
        self.memory(e.buffer, "write", "read")
        self.place(e.buffer, e.index, e.mask, e.type.lanes)
        if e.type.dtype is not e.buffer.dtype:
            self.refuse("type", f"{e.buffer.name} of {e.buffer.dtype} is read as {e.type}")
        if e.aligned and e.type.lanes * e.type.dtype.itemsize % 16:
            self.refuse(
                "type", f"{e.type} of {e.buffer.name} is not 16 bytes, or some times as many"
            )

    def aligned(self, e: k.Aligned) -> None:
        self.memory(e.buffer, "", "used")
        if e.type is not k.KType(boolean):
            self.refuse("type", f"whether {e.buffer.name} is aligned is a bool, not {e.type}")

    def unary(self, e: k.Unary) -> None:
        if e.op not in k.UNARY:
            self.refuse("op", f"no unary operation {e.op!r}")
        self.expression(e.x)
        if e.op.startswith("bitcast"):  # one kind of float may have the bits of another's
            made, want = e.type.dtype, k.unary(e.op, e.x).type
            if (
                made.is_floating_point != want.dtype.is_floating_point
                or made.bits != want.dtype.bits
            ):
                self.fits("type", want, e.type, e.op)
            return
        same = e.op != "isnan"
        if not same or e.x.type is not e.type:
            self.fits("type", e.x.type if same else k.unary(e.op, e.x).type, e.type, e.op)

    def binary(self, e: k.Binary) -> None:
        self.expression(e.a)
        self.expression(e.b)
        if e.a.type is not e.b.type:
            self.refuse("type", f"{e.op} of {e.a.type} and {e.b.type}")
        if e.op in k.ARITHMETIC:
            if e.a.type is not e.type:
                self.refuse("type", f"{e.op} is {e.a.type}, gets {e.type}")
        elif e.op in k.COMPARISONS:
            self.fits("type", k.KType(boolean, e.a.type.lanes), e.type, e.op)
        else:
            self.refuse("op", f"no binary operation {e.op!r}")

    def fma(self, e: k.Fma) -> None:
        for x in (e.a, e.b, e.c):
            self.expression(x)
            if x.type is not e.type:
                self.refuse("type", f"fma is {e.type}, gets {x.type}")
        if not e.type.dtype.is_floating_point:
            self.refuse("type", f"fma of {e.type}")

    def dot(self, e: k.Dot) -> None:
        for x in (e.a, e.b, e.c):
            self.expression(x)
        if e.kind not in k.WORDS:
            self.refuse("op", f"no products of words of {e.kind!r}")
            return
        word = k.KType(i32, e.type.lanes)
        for x, want in ((e.a, word), (e.b, word), (e.c, e.type)):
            self.fits("type", want, x.type, "dot")
        self.fits("type", k.KType(k.WORDS[e.kind][2], e.type.lanes), e.type, "dot")

    def select(self, e: k.Select) -> None:
        for x in (e.condition, e.a, e.b):
            self.expression(x)
        self.fits(
            "type", k.KType(boolean, e.type.lanes), e.condition.type, "the condition of select"
        )
        self.fits("type", e.type, e.a.type, "select")
        self.fits("type", e.type, e.b.type, "select")

    def cast(self, e: k.Cast) -> None:
        self.expression(e.x)
        if e.x.type.lanes != e.type.lanes:
            self.refuse("type", f"a cast from {e.x.type} to {e.type}")

    def splat(self, e: k.Splat) -> None:
        self.expression(e.x)
        if e.x.type.lanes != 1 or e.x.type.dtype is not e.type.dtype:
            self.refuse("type", f"splat of {e.x.type} to {e.type}")

    def reduce(self, e: k.Reduce) -> None:
        if e.op not in k.REDUCTIONS:
            self.refuse("op", f"no reduction {e.op!r}")
        self.expression(e.x)
        self.fits("type", k.KType(e.x.type.dtype), e.type, f"reduce_{e.op}")

    def warp_reduce(self, e: k.WarpReduce) -> None:
        if e.op not in k.REDUCTIONS:
            self.refuse("op", f"no reduction {e.op!r}")
        if e.width not in (2, 4, 8, 16, 32):
            self.refuse("warp", f"{e.width} neighbours of a warp")
        self.together()
        self.expression(e.x)
        self.fits("type", e.x.type, e.type, f"warp_{e.op}")
        self.fits("type", k.KType(e.type.dtype), e.type, f"warp_{e.op}")

    def from_lane(self, e: k.FromLane) -> None:
        self.together()
        self.expression(e.x)
        self.scalar(e.lane)
        self.fits("type", k.KType(e.x.type.dtype), e.type, "from_lane")

    def pair(self, e: k.Pair) -> None:
        for x in (e.low, e.high):
            self.expression(x)
            self.fits("type", k.KType(f32), x.type, "pair")
        if e.dtype not in (f16, bf16) or e.type is not k.KType(u32):
            self.refuse("matrix", f"a pair of {e.dtype} as {e.type}")

    def tf32(self, e: k.Tf32) -> None:
        self.expression(e.x)
        self.fits("type", k.KType(f32), e.x.type, "tf32")
        self.fits("type", k.KType(u32), e.type, "tf32")

    def shuffle(self, e: k.Shuffle) -> None:
        self.expression(e.a)
        self.expression(e.b)
        self.fits("type", e.a.type, e.b.type, "shuffle")
        count = e.a.type.lanes + e.b.type.lanes
        if min(e.lanes) < 0 or max(e.lanes) >= count:
            self.refuse("type", f"lanes {e.lanes} of {count}")
        self.fits("type", k.KType(e.a.type.dtype, len(e.lanes)), e.type, "shuffle")

    def lanes(self, e: k.Lanes) -> None:
        if not e.type.dtype.is_integer:
            self.refuse("type", f"lanes of {e.type}")


_STATEMENTS: dict[type, Callable[..., None]] = {
    k.Let: _Verifier.let,
    k.Var: _Verifier.var,
    k.Assign: _Verifier.assign,
    k.Scratch: _Verifier.scratch,
    k.Copy: _Verifier.copy,
    k.Await: _Verifier.await_copies,
    k.LoadMatrices: _Verifier.load_matrices,
    k.MultiplyMatrices: _Verifier.multiply_matrices,
    k.MultiplyTiles: _Verifier.multiply_tiles,
    k.Settle: _Verifier.settle,
    k.Publish: _Verifier.publish,
    k.Barrier: _Verifier.barrier,
    k.Store: _Verifier.store,
    k.Stream: _Verifier.stream,
    k.AtomicAdd: _Verifier.atomic_add,
    k.Call: _Verifier.call,
    k.Fail: _Verifier.fail,
}
_EXPRESSIONS: dict[type, Callable[..., None]] = {
    k.Const: _Verifier.constant,
    k.Load: _Verifier.load,
    k.Unary: _Verifier.unary,
    k.Binary: _Verifier.binary,
    k.Fma: _Verifier.fma,
    k.Dot: _Verifier.dot,
    k.Select: _Verifier.select,
    k.Cast: _Verifier.cast,
    k.Splat: _Verifier.splat,
    k.Reduce: _Verifier.reduce,
    k.WarpReduce: _Verifier.warp_reduce,
    k.FromLane: _Verifier.from_lane,
    k.Pair: _Verifier.pair,
    k.Tf32: _Verifier.tf32,
    k.Aligned: _Verifier.aligned,
    k.Shuffle: _Verifier.shuffle,
    k.Lanes: _Verifier.lanes,
}
