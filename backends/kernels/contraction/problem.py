"""A contraction as index algebra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphtorch.ir.dtype import DType, i32
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, Shape, SymInt, evaluate, unit

from ...dataclass import dataclass, field
from ..body.space import Space, coefficient, depends, name_of
from ..ir import Expr, dot, fma
from ..program.program import Slot

# Rows that are worth reading all columns for: matrices of fewer are better one large matrix.
LEAST_PART = 32


@dataclass(frozen=True)
class Axis:
    """A loop of the iteration space: its variable and the number of values it takes."""

    variable: SymInt
    extent: Dim

    @property
    def name(self) -> str:
        return name_of(self.variable)

    @property
    def loop(self) -> tuple[Dim, Dim]:
        """As `Scope.nested` takes it."""
        return self.extent, self.variable


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
    where it is not read, but zero; `rounded`: its numbers have no more digits than are multiplied.
    """

    slot: Slot
    dtype: DType
    address: Dim
    casts: tuple[DType, ...] = ()
    stable: bool = False
    reused: bool = False
    gates: tuple[Gate, ...] = ()
    rounded: bool = False

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
        words: the kind of `Dot` that multiplies words of narrow numbers, of which k counts; "" for
            numbers that are multiplied as `acc`.
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
    words: str = ""

    @property
    def factor(self) -> DType:
        """The dtype of what is multiplied."""
        return i32 if self.words else self.acc

    @property
    def gated(self) -> bool:
        """Whether an operand has zeros that are not in memory."""
        return bool(self.a.gates or self.b.gates)

    def swapped(self) -> Contraction:
        """The same with the operands' roles exchanged."""
        words = "_".join(reversed(self.words.split("_")))
        return replace(self, m=self.n, n=self.m, a=self.b, b=self.a, words=words)

    def multiply_add(self, a: Expr, b: Expr, total: Expr) -> Expr:
        """`total` plus the product of elements, or vectors, of the operands."""
        return dot(self.words, a, b, total) if self.words else fma(a, b, total)

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
        setattr(p, group, _merged(p, [a for a in axes if a.extent != 1 or not _drop(p, a)]))


def merge_steps(p: Contraction, a_copied: bool, b_copied: bool) -> Contraction:
    """The contraction whose operands, where they are copied, lie in the order of the steps of k:
    these are fewer loops where the other's do so too."""
    if p.limits:
        return p
    a, b = (
        Source(x.slot, x.dtype, flat(p.k)) if copied else x
        for x, copied in ((p.a, a_copied), (p.b, b_copied))
    )
    made = replace(p, a=a, b=b)
    made.k = _merged(made, list(p.k))
    return replace(made, a=p.a if a_copied else made.a, b=p.b if b_copied else made.b)


def _merged(p: Contraction, axes: list[Axis]) -> list[Axis]:
    """The axes of a group, neighbours joined."""
    position = len(axes) - 1
    while position > 0:
        if _mergeable(p, axes[position - 1], axes[position]):
            axes[position - 1 : position + 1] = [_merge(p, axes[position - 1], axes[position])]
        position -= 1
    return axes


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


def part_axes(p: Contraction) -> None:
    """Make two axes of each of m and n whose extent is an unknown number times a known one, such as
    the pixels of a batch: the schedule of one image then is that of images of known number."""
    for group in ("m", "n"):
        axes: list[Axis] = getattr(p, group)
        setattr(p, group, [part for a in axes for part in _parted(p, a)])


def _parted(p: Contraction, a: Axis) -> list[Axis]:
    inner = unit(a.extent)
    if isinstance(a.extent, int) or inner < LEAST_PART:
        return [a]
    outer, within = axis(p.space, a.extent // inner), axis(p.space, inner)
    _substitute(p, {a.name: outer.variable * inner + within.variable})
    return [outer, within]


def _substitute(p: Contraction, values: dict[str, Dim]) -> None:
    p.a, p.b = (x.mapped(lambda dim: evaluate(dim, values)) for x in (p.a, p.b))
    p.address = evaluate(p.address, values)
    p.index = tuple(evaluate(i, values) for i in p.index)
