"""Kernels of a program that differ in a few numbers become one, which takes these as parameters.

Layers of a network are often the same but for a number of channels, or of pictures. Their kernels
then are equal up to bounds of loops and strides, and compiling one of them is enough. A number may
become a parameter where the code is as fast without knowing it: bounds of long loops, and index
arithmetic that stands outside the innermost loops or does not change in them. Whatever shapes the
code (sizes of tiles, trip counts that are unrolled or vectorised, strides in a vector loop,
divisors in inner loops) stays a constant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from ...dataclass import dataclass
from ..ir import (
    COMPARISONS,
    INDEX,
    Assign,
    AtomicAdd,
    Binary,
    Buffer,
    Cast,
    Const,
    Dot,
    Expr,
    Fma,
    For,
    If,
    Kernel,
    Let,
    Load,
    Name,
    Reduce,
    Select,
    Shuffle,
    Splat,
    Stmt,
    Store,
    Stream,
    Unary,
    Var,
    While,
    splat,
    walk,
)
from ..text import nameless
from .donation import loads
from .program import Program, flat

KINDS = frozenset(
    ("parallel", "serial", "rolled", "single", "vector")
)  # loops that are not written out
# Trip counts from which on an innermost loop need not know it: of vectors, and where LLVM makes the
# vectors.
LONG, VERY_LONG = 16, 512
FEW = 8  # parameters that an innermost loop may have to hold in registers
MOST = 16  # parameters that a kernel may get
NUMBER = re.compile(r"\d+")
HOLE = Name("#")
# a kernel, its common one, its numbers
Shared: TypeAlias = tuple[Kernel, tuple[Kernel, tuple[int, ...]]]


def share_kernels(program: Program) -> None:
    """Let launches of `program` whose kernels differ in numbers only call one kernel."""
    rough: dict[object, list[Kernel]] = {}
    for kernel in program.kernels():
        rough.setdefault(NUMBER.sub("", nameless(kernel)), []).append(kernel)
    shared: dict[Kernel, tuple[Kernel, tuple[int, ...]]] = {}
    for alike in rough.values():
        if len(alike) > 1:
            shared.update(_shared(alike))
    for launch in flat((*program.prologue, *program.launches)):
        found = shared.get(launch.kernel)
        if found is not None:
            launch.kernel, launch.sizes = found[0], (*launch.sizes, *found[1])


def _shared(kernels: Sequence[Kernel]) -> Iterator[Shared]:
    """Of kernels that look alike those that have a common one, with it and the numbers to pass to
    it."""
    groups: dict[object, list[tuple[Kernel, Found]]] = {}
    for kernel in kernels:
        found = Found()
        hollow = Numbers(found).kernel(kernel)
        key = nameless(hollow), tuple(b.align for b in kernel.buffers)
        groups.setdefault(key, []).append((kernel, found))
    for group in groups.values():
        yield from _common(group)


def _common(group: Sequence[tuple[Kernel, Found]]) -> Iterator[Shared]:
    """The kernel that all of `group` become; several where too many numbers differ."""
    if len(group) < 2:
        return
    columns = list(zip(*(found.numbers for _, found in group), strict=True))
    varying = list(dict.fromkeys(c for c in columns if len(set(c)) > 1))
    held = Counter(
        loop
        for loop, column in set(zip(group[0][1].loops, columns, strict=True))
        if loop is not None and len(set(column)) > 1
    )
    if len(varying) > MOST or any(count > FEW for count in held.values()):
        yield from _apart(group, min(varying, key=lambda c: len(set(c))))
        return
    common = _with_parameters(group[0][0], columns, varying)
    for i, (kernel, _) in enumerate(group):
        yield kernel, (common, tuple(c[i] for c in varying))


def _apart(group: Sequence[tuple[Kernel, Found]], column: tuple[int, ...]) -> Iterator[Shared]:
    """What the parts of `group` become that have the same number in `column`."""
    parts: dict[int, list[tuple[Kernel, Found]]] = {}
    for number, member in zip(column, group, strict=True):
        parts.setdefault(number, []).append(member)
    for part in parts.values():
        yield from _common(part)


def _with_parameters(
    kernel: Kernel, columns: Sequence[tuple[int, ...]], varying: Sequence[tuple[int, ...]]
) -> Kernel:
    """`kernel` with a parameter for each of `varying`; `columns` has what stands for its open
    numbers."""
    names = {c: Name(f"n{i}") for i, c in enumerate(varying)}
    left = iter(columns)
    common = Numbers(lambda number, loop: names.get(next(left), number)).kernel(kernel)
    return Kernel(kernel.name, kernel.buffers, (*kernel.sizes, *names.values()), common.body)


class Found:
    """The numbers of a kernel that may be parameters, and the innermost loops that hold them in
    registers."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.loops: list[int | None] = []

    def __call__(self, number: Const, loop: int | None) -> Expr:
        self.numbers.append(int(number.value))
        self.loops.append(loop)
        return HOLE


@dataclass
class Inside:
    """What decides about the numbers in an innermost loop.

    Attributes:
        number: of the loop.
        vectors: it has its vectors written out; else LLVM is to make them.
        changing: names that have another value in each iteration.
        single: buffers with one access, to whose address a number may be added ahead of the loop.
    """

    number: int
    vectors: bool
    changing: set[Name]
    single: set[Buffer]


class Numbers:
    """Copies a kernel with `change` of each number that may be a parameter, always in the same
    order.

    `change` also gets the number of the innermost loop that would have to hold the parameter, if
    any.
    """

    def __init__(self, change: Callable[[Const, int | None], Expr]):
        self.change = change
        self.depth = 0  # loops around
        self.divides = False  # a task is long: a division takes as long as a row of a short loop
        self.loops = 0  # innermost ones so far
        self.inside: Inside | None = None

    def kernel(self, kernel: Kernel) -> Kernel:
        return Kernel(kernel.name, kernel.buffers, kernel.sizes, self.block(kernel.body))

    def block(self, body: Sequence[Stmt]) -> list[Stmt]:
        return [self.statement(s) for s in body]

    def statement(self, s: Stmt) -> Stmt:
        match s:
            case For():
                return self.loop(s)
            case Let() | Var() | Assign():
                return type(s)(s.name, self.expr(s.value))
            case Store():
                value, mask = self.expr(s.value), None if s.mask is None else self.expr(s.mask)
                return Store(s.buffer, self.place(s.buffer, s.index), value, mask)
            case Stream():
                index, count = self.expr(s.index), self.expr(s.count)
                return Stream(s.buffer, index, count, s.source)
            case AtomicAdd():
                return AtomicAdd(s.buffer, self.place(s.buffer, s.index), self.expr(s.value))
            case If():
                return If(self.expr(s.condition), self.block(s.then), self.block(s.orelse))
            case While():
                return While(self.expr(s.condition), self.block(s.body))
        return s

    def loop(self, s: For) -> For:
        lo, hi = s.lo, s.hi
        # its numbers are those of threads, and divisors, which take long on GPUs
        if s.kind == "block":
            lo, hi = (self.bound(e, 2) for e in (lo, hi))
            return For(s.var, lo, hi, s.step, s.kind, s.body, s.threads, s.resident)
        innermost = not _loops(s.body)
        before, inside = self.inside, _inside(s, self.loops) if innermost else None
        if s.kind in KINDS and not _sums(s):
            free = inside is None or s.kind == "parallel"
            least = 2 if free else LONG if inside and inside.vectors else VERY_LONG
            lo, hi = (self.bound(e, least) for e in (lo, hi))
        if self.depth == 0:
            self.divides = any(_loops(x.body) for x in _loops(s.body))
        if innermost:
            self.inside = inside
            self.loops += 1
        self.depth += 1
        body = self.block(s.body)
        self.inside, self.depth = before, self.depth - 1
        return For(s.var, lo, hi, s.step, s.kind, body)

    def bound(self, e: Expr, least: int) -> Expr:
        if isinstance(e, Const):
            return self.change(e, None) if e.value >= least else e
        return self.expr(e)

    # ---- expressions

    def expr(self, e: Expr) -> Expr:
        if isinstance(e, (Name, Const)):
            return e
        match e:
            case Binary():
                return self.binary(e)
            case Load():
                mask = None if e.mask is None else self.expr(e.mask)
                return Load(e.buffer, self.place(e.buffer, e.index), e.type, mask)
            case Unary() | Reduce():
                return type(e)(e.op, self.expr(e.x), e.type)
            case Cast() | Splat():
                return type(e)(self.expr(e.x), e.type)
            case Fma():
                return Fma(self.expr(e.a), self.expr(e.b), self.expr(e.c), e.type, e.exact)
            case Dot():
                return Dot(e.kind, self.expr(e.a), self.expr(e.b), self.expr(e.c), e.type)
            case Select():
                return Select(self.expr(e.condition), self.expr(e.a), self.expr(e.b), e.type)
            case Shuffle():
                return Shuffle(self.expr(e.a), self.expr(e.b), e.lanes, e.type)
        return e

    def place(self, buffer: Buffer, index: Expr) -> Expr:
        """An address; a sum in it may be made ahead of an innermost loop."""
        if self.inside is not None and buffer in self.inside.single:
            return self.sum(index)
        return self.expr(index)

    def sum(self, e: Expr) -> Expr:
        if isinstance(e, Binary) and e.op in ("add", "sub"):
            a, b = (self.number(x) if isinstance(x, Const) else self.sum(x) for x in (e.a, e.b))
            return Binary(e.op, a, b, e.type)
        return self.expr(e)

    def binary(self, e: Binary) -> Expr:
        a, b = e.a, e.b
        if isinstance(a, Const) or isinstance(b, Const):
            free = self.free(e)
            a, b = [
                self.number(x) if isinstance(x, Const) and free else self.expr(x) for x in (a, b)
            ]
            return Binary(e.op, a, b, e.type)
        return Binary(e.op, self.expr(a), self.expr(b), e.type)

    def free(self, e: Binary) -> bool:
        """Whether the code is as good without knowing the numbers that `e` computes with."""
        if e.op in ("div", "rem"):
            return self.depth == 0 or (self.depth == 1 and self.divides)
        if self.inside is None or e.op in COMPARISONS:
            return True
        if self.inside.vectors:
            return e.op in ("add", "sub", "mul")
        return e.op == "mul" and all(isinstance(x, Const) or self.fixed(x) for x in (e.a, e.b))

    def fixed(self, e: Expr) -> bool:
        """Whether `e` is a name that is the same in each iteration of the innermost loop."""
        return isinstance(e, Name) and self.inside is not None and e not in self.inside.changing

    def number(self, e: Const) -> Expr:
        if e.type.dtype is not INDEX.dtype or -2 < e.value < 2:
            return e
        loop = None if self.inside is None else self.inside.number
        if e.type is INDEX:
            return self.change(e, loop)
        changed = self.change(Const(e.value), loop)
        return e if isinstance(changed, Const) else splat(changed, e.type.lanes)


def _loops(body: Sequence[Stmt]) -> list[For]:
    return [s for s in walk(body) if isinstance(s, For)]


def _sums(loop: For) -> bool:
    """Whether LLVM may split the sums of `loop` among lanes: in how many ways depends on its trip
    count."""
    return loop.kind not in ("rolled", "single") and any(
        isinstance(s, Assign) and s.name.type.lanes == 1 and s.name.type.dtype.is_floating_point
        for s in loop.body
    )


def _inside(loop: For, number: int) -> Inside:
    statements = list(walk(loop.body))
    changing = {loop.var, *(s.name for s in statements if isinstance(s, (Let, Var, Assign)))}
    if any(s.value.type.lanes > 1 for s in statements if isinstance(s, (Let, Assign, Store))):
        return Inside(number, True, changing, set())
    accesses = Counter(s.buffer for s in statements if isinstance(s, Store))
    accesses.update(x.buffer for s in statements for x in loads(s))
    return Inside(number, False, changing, {b for b, times in accesses.items() if times == 1})
