"""A contraction as index algebra, and the helper that turns such algebra into kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, Shape, SymInt, evaluate

from ..body.space import Space, coefficient, depends, name_of
from ..builder import Builder
from ..ir import Buffer, Const, Expr, Kernel, Name, binary, select
from ..machine import SERIAL_WORK
from ..program.lowering import Lowering
from ..program.program import Slot


@dataclass(frozen=True)
class Axis:
    """A loop of the iteration space: its variable and the number of values it takes."""

    variable: SymInt
    extent: Dim

    @property
    def name(self) -> str:
        return name_of(self.variable)


def axis(space: Space, extent: Dim) -> Axis:
    return Axis(space.opaque(extent), extent)


@dataclass(frozen=True)
class Gate:
    """A coordinate of an operand that may lie outside of it, or between its elements: zeros are
    there.

    Attributes:
        coordinate: affine in the axes; elements lie at 0, step, 2 step, ..., of which there are
            `extent`.
        stride: what an element of it adds to the address, where `step` is not 1; else the address
            has it.
    """

    coordinate: Dim
    extent: Dim
    step: int = 1
    stride: Dim = 0

    @property
    def reach(self) -> Dim:
        """One more than the greatest coordinate of an element."""
        return (self.extent - 1) * self.step + 1


@dataclass(frozen=True)
class Source:
    """An operand: the slot it is read from, the polynomial address, and casts to apply to what is
    loaded.

    `stable`: seldom another between calls; `reused`: in a loop, the same in all steps; `gates`:
    where it is not read, but zero.
    """

    slot: Slot
    dtype: DType
    address: Dim
    casts: tuple[DType, ...] = ()
    stable: bool = False
    reused: bool = False
    gates: tuple[Gate, ...] = ()

    def at(self, address: Dim) -> Source:
        return replace(self, address=address)

    def mapped(self, change: Callable[[Dim], Dim]) -> Source:
        """The same with another address, and other coordinates."""
        gates = tuple(replace(g, coordinate=change(g.coordinate)) for g in self.gates)
        return replace(self, address=change(self.address), gates=gates)

    @property
    def polynomials(self) -> tuple[Dim, ...]:
        """The address, and the coordinates of the gates."""
        return self.address, *(g.coordinate for g in self.gates)


@dataclass
class Contraction:
    """``result[index] = sum over k of a * b``, all addresses polynomials in the axes' variables.

    Attributes:
        batch, m, n, k: axes from outermost to innermost; `a` does not depend on n, nor `b` on m.
        index: the result's index in those variables (without k); `address` its row-major position.
        acc: dtype of the sums.
        limits: by name of a k axis a size that its extent is cut to.
        channel: the dimension of the result that a bias runs along.
    """

    node: Node
    space: Space
    batch: list[Axis]
    m: list[Axis]
    n: list[Axis]
    k: list[Axis]
    a: Source
    b: Source
    index: tuple[Dim, ...]
    address: Dim
    shape: Shape
    acc: DType
    limits: dict[str, Dim] = field(default_factory=dict)
    channel: int = 1

    @property
    def gated(self) -> bool:
        """Whether an operand has zeros that are not in memory."""
        return bool(self.a.gates or self.b.gates)

    def swapped(self) -> Contraction:
        """The same with the operands' roles exchanged."""
        return replace(self, m=self.n, n=self.m, a=self.b, b=self.a)

    def axes(self) -> list[Axis]:
        return [*self.batch, *self.m, *self.n, *self.k]


def extent_of(axes: Sequence[Axis]) -> Dim:
    total: Dim = 1
    for a in axes:
        total = total * a.extent
    return total


def flat(axes: Sequence[Axis]) -> Dim:
    """The row-major position among `axes`."""
    total: Dim = 0
    for a in axes:
        total = total * a.extent + a.variable
    return total


def stride(address: Dim, a: Axis) -> Dim:
    step = coefficient(address, a.name)
    if step is None:
        raise TypeError(f"internal: address {address} is not affine in {a.variable}")
    return step


def is_affine(address: Dim, axes: Sequence[Axis]) -> bool:
    """Whether `address` is a constant stride times each variable, plus what does not depend on
    them."""
    steps = [coefficient(address, a.name) for a in axes]
    return all(s is not None and not any(depends(s, o.name) for o in axes) for s in steps)


def merge_axes(p: Contraction) -> None:
    """Join neighbouring axes that every address crosses as one: fewer loops, longer vectors."""
    for group in ("batch", "m", "n", "k"):
        axes: list[Axis] = list(getattr(p, group))
        axes = [a for a in axes if a.extent != 1 or not _drop(p, a)]
        position = len(axes) - 1
        while position > 0:
            if _mergeable(p, axes[position - 1], axes[position]):
                axes[position - 1 : position + 1] = [_merge(p, axes[position - 1], axes[position])]
            position -= 1
        setattr(p, group, axes)


def _drop(p: Contraction, a: Axis) -> bool:
    """Take an axis of one value out of all polynomials."""
    _substitute(p, {a.name: 0})
    return True


def _addresses(p: Contraction) -> tuple[Dim, ...]:
    return *p.a.polynomials, *p.b.polynomials, p.address


def _mergeable(p: Contraction, outer: Axis, inner: Axis) -> bool:
    return all(
        is_affine(x, (outer, inner)) and stride(x, outer) == stride(x, inner) * inner.extent
        for x in _addresses(p)
    )


def _merge(p: Contraction, outer: Axis, inner: Axis) -> Axis:
    joined = axis(p.space, outer.extent * inner.extent)
    none: dict[str, Dim] = {outer.name: 0, inner.name: 0}

    def along(x: Dim) -> Dim:
        return evaluate(x, none) + stride(x, inner) * joined.variable

    p.a, p.b, p.address = p.a.mapped(along), p.b.mapped(along), along(p.address)
    parts: dict[str, Dim] = {
        outer.name: p.space.div(joined.variable, inner.extent),
        inner.name: p.space.mod(joined.variable, inner.extent),
    }
    p.index = tuple(evaluate(i, parts) for i in p.index)
    return joined


def _substitute(p: Contraction, values: dict[str, Dim]) -> None:
    p.a, p.b = (x.mapped(lambda dim: evaluate(dim, values)) for x in (p.a, p.b))
    p.address = evaluate(p.address, values)
    p.index = tuple(evaluate(i, values) for i in p.index)


class Emission:
    """One kernel under construction: its builder, buffers by slot, and sizes."""

    def __init__(self, lowering: Lowering, space: Space, hint: str):
        self.lowering = lowering
        self.space = space
        self.b = Builder()
        self.hint = hint
        self.masks = lowering.machine.masks
        self._buffers: dict[Slot, Buffer] = {}
        self._private: dict[Slot, Buffer] = {}
        self._sizes = {s.name: Name(self.b.fresh(s.name)) for s in lowering.program.symbols}
        space.env = dict(self._sizes)
        space.vector = None

    def buffer(self, slot: Slot, access: str = "read", hint: str = "") -> Buffer:
        """The parameter for `slot`, one even where it is both read and written."""
        if slot in self._private:
            return self._private[slot]
        slot = slot.alias or slot
        found = self._buffers.get(slot)
        if found is None:
            found = Buffer(self.b.fresh(hint or "x"), slot.dtype, access, _alignment(slot))
            self._buffers[slot] = found
        elif found.access != access:
            found.access = "readwrite"
        return found

    def scratch(self, dtype: DType, size: int, hint: str) -> Slot:
        """Private memory of a task, declared here, under a slot like any other operand."""
        slot = Slot("scratch", dtype, (size,), size)
        self._private[slot] = self.b.scratch(dtype, size, hint)
        return slot

    def launch(self, label: str, flops: Dim = 0, moved: Dim = 0, prologue: bool = False) -> None:
        used = names_used(self.b.body) if self._sizes else set()
        sizes = [n for n in self._sizes.values() if n in used]
        name = self.lowering.kernel_name(self.hint)
        kernel = Kernel(name, tuple(self._buffers.values()), tuple(sizes), self.b.body)
        symbols = {s.name: SymInt.atom(s) for s in self.lowering.program.symbols}
        values = tuple(symbols[n.name] for n in sizes)
        self.lowering.launch(
            kernel, tuple(self._buffers), values, label, flops, moved, prologue=prologue
        )

    def expr(self, dim: Dim) -> Expr:
        return self.space.base(dim)

    def loop_over(
        self, axes: Sequence[Axis], body: Callable[[], None], kind: str = "serial"
    ) -> None:
        """Nested loops over all of `axes`."""
        if not axes:
            body()
            return
        with self.b.loop(self.expr(axes[0].extent), kind, "i") as i:
            self.space.bind(axes[0].variable, i)
            self.loop_over(axes[1:], body)

    def tasks(
        self,
        levels: Sequence[tuple[Callable[[Expr], None], Dim | Expr]],
        body: Callable[[], None],
        parallel: bool = True,
        grain: int = 1,
        work: Dim = 0,
    ) -> None:
        """One loop over all combinations of `levels` (what to do with an index, count), the last
        innermost.

        `grain` combinations make one task, where one alone would not be worth handing out. Where
        the multiply-adds of all of them, `work`, depend on a symbol, the kernel sees whether they
        are worth threads.
        """
        names = [self.b.let(c if isinstance(c, Expr) else self.expr(c), "count") for _, c in levels]
        total: Expr = Const(1)
        for n in names:
            total = binary("mul", total, n)
        total = self.b.let(total, "total")
        kind = "parallel" if parallel else "serial"
        each: int | Expr = grain
        if parallel and not isinstance(work, int):
            small = binary("lt", self.expr(work), Const(SERIAL_WORK))
            each = self.b.let(select(small, binary("max", total, Const(1)), Const(grain)), "each")
        elif grain == 1:
            with self.b.loop(total, kind, "task") as task:
                self._decode(levels, names, task)
                body()
            return
        with self.b.loop((total + each - 1) // each, kind, "task") as task:
            first = self.b.let(task * each, "first")
            with self.b.loop(binary("min", first + each, total), name="part", lo=first) as part:
                self._decode(levels, names, part)
                body()

    def _decode(
        self,
        levels: Sequence[tuple[Callable[[Expr], None], Dim | Expr]],
        counts: Sequence[Expr],
        task: Expr,
    ) -> None:
        rest = task
        for position in reversed(range(len(levels))):
            index = rest if position == 0 else self.b.let(rest % counts[position], "t")
            levels[position][0](index)
            if position:
                rest = self.b.let(rest // counts[position], "t")

    def binder(self, a: Axis) -> Callable[[Expr], None]:
        return lambda index: self.space.bind(a.variable, index)


def _alignment(slot: Slot) -> int:
    return 64 if slot.kind in ("temporary", "packed") else slot.dtype.itemsize


def names_used(body: object) -> set[Name]:
    """Every name that occurs in the statements of `body`."""
    found: set[Name] = set()
    for item in _items(body):
        if isinstance(item, Name):
            found.add(item)
    return found


def _items(root: object) -> Iterator[object]:
    stack, seen = [root], set()
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple)):
            stack.extend(item)
        elif is_dataclass(item) and not isinstance(item, (Kernel, DType)) and id(item) not in seen:
            seen.add(id(item))
            yield item
            stack.extend(getattr(item, f.name) for f in fields(item))
