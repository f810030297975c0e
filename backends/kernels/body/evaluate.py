"""Values of a region's body at an index: the body read backwards from what a kernel stores.

A value at an index is the value of its operands at the indices its op asks for, so views cost
nothing and nothing is stored in between. What ends the recursion are *leaves*: values in memory, or
results a kernel holds in registers or scratch. Every step is emitted as far out in the loop nest as
its index allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphtorch.ir.dtype import boolean, i64
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.ops.index import PlacesAttrs
from graphtorch.ir.shape import Dim, bounds

from ...dataclass import dataclass
from ..ir import Const, Expr, KType, Stmt, binary, cast, constant, select
from ..program.program import Slot
from .pointwise import emit_op, is_pointwise, less
from .random import RANDOM, emit_random
from .scope import Scope
from .views import VIEWS, Index, broadcast_index, operand_index


class Unready(Exception):
    """A value of the body that the evaluator cannot compute at an index: it has to be stored
    first."""

    def __init__(self, value: Value):
        super().__init__(f"{value} is not available at this index")
        self.value = value


class Result(NamedTuple):
    """An expression and the nesting depth from which on it is known."""

    expr: Expr
    depth: int


@dataclass(eq=False)
class Mask:
    """Where an element is read at all: outside it, loads read nothing."""

    expr: Expr
    depth: int


Leaf = Callable[["Evaluator", Index, "Mask | None"], Result]


class Evaluator:
    """Emits values of a body into the innermost open loop of `scope` (or further out)."""

    def __init__(self, scope: Scope, leaves: dict[Value, Leaf]):
        self.scope = scope
        self.leaves = leaves
        self._memo: dict[tuple[Value, Index, Mask | None], tuple[Result, list[Stmt]]] = {}
        self._narrowed: dict[object, tuple[tuple[Expr | None, Mask | None], list[Stmt]]] = {}

    def at(self, value: Value, index: Index, mask: Mask | None = None) -> Expr:
        """The value at `index`, of the value's own dtype.

        Raises:
            Unready: it depends on a value that is not a leaf and is not computed element by
                element.
        """
        return self.result(value, index, mask).expr

    def result(self, value: Value, index: Index, mask: Mask | None = None) -> Result:
        key = (value, index, mask)
        found = self._memo.get(key)
        if found is not None and self.scope.b.is_open(found[1]):
            return found[0]
        result = self._compute(value, index, mask)
        self._memo[key] = result, self.scope.b.block(result.depth)
        return result

    def _compute(self, value: Value, index: Index, mask: Mask | None) -> Result:
        leaf = self.leaves.get(value)
        if leaf is not None:
            return leaf(self, index, mask)
        return self.compute(value, index, mask)

    def compute(self, value: Value, index: Index, mask: Mask | None) -> Result:
        """The value from its operands, even where it is a leaf."""
        node = value.node
        if node is None:
            raise Unready(value)
        if node.op.name in VIEWS:
            return self.result(node.operands[0], operand_index(self.scope.space, node, index), mask)
        special = SPECIAL.get(node.op.name)
        if special is not None:
            return special(self, value, index, mask)
        if is_pointwise(node):
            return self._pointwise(node, index, mask)
        raise Unready(value)

    def _pointwise(self, node: Node, index: Index, mask: Mask | None) -> Result:
        shape = node.types[0].shape
        operands = [
            self.result(v, broadcast_index(index, shape, v.shape), mask) for v in node.operands
        ]
        depth = max((r.depth for r in operands), default=0)
        with self.scope.b.hoisted(depth):
            return Result(emit_op(self.scope.b, node, [r.expr for r in operands]), depth)

    def load(self, slot: Slot, position: Dim, mask: Mask | None, depth: int = 0) -> Result:
        """One element of memory that is complete from nesting depth `depth` on."""
        depth = max(depth, self.scope.space.depth((position,)), mask.depth if mask else 0)
        with self.scope.b.hoisted(depth):
            expr = self.scope.read(slot, position, mask.expr if mask else None)
            return Result(self.scope.b.let(expr, "v"), depth)

    def within(
        self, mask: Mask | None, tests: Sequence[tuple[Dim, Dim, Dim]]
    ) -> tuple[Expr | None, Mask | None]:
        """Whether ``low <= i < high`` for all (i, low, high), None where that always holds, and the
        mask narrowed by that; the same ones while the block they are known in is open, so that what
        is read there is read once."""
        key = mask, tuple(tests)
        found = self._narrowed.get(key)
        if found is None or not self.scope.b.is_open(found[1]):
            condition, depth = inside(self, list(tests))
            narrowed = mask if condition is None else self.both(mask, condition, depth)
            block = self.scope.b.block(narrowed.depth if narrowed else 0)
            found = self._narrowed[key] = (condition, narrowed), block
        return found[0]

    def both(self, mask: Mask | None, expr: Expr, depth: int) -> Mask:
        """The mask narrowed by a condition known at `depth`."""
        if mask is None:
            return Mask(expr, depth)
        depth = max(depth, mask.depth)
        with self.scope.b.hoisted(depth):
            return Mask(self.scope.b.let(binary("and", mask.expr, expr), "mask"), depth)


def memory(slot: Slot, shape: tuple[Dim, ...]) -> Leaf:
    """The leaf of a value that lies row-major in `slot`."""

    def read(evaluator: Evaluator, index: Index, mask: Mask | None) -> Result:
        return evaluator.load(slot, evaluator.scope.space.linear(index, shape), mask)

    return read


# Ops that ask for their operands in a way of their own --------------------------------------------

Special = Callable[[Evaluator, Value, Index, "Mask | None"], Result]


def _constant(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    literal = node.attrs.value
    if literal.is_scalar:
        return Result(Const(literal.item(), KType(literal.dtype)), 0)
    return memory(e.scope.lowering.constant(literal), literal.shape)(e, index, mask)


def _iota(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    position = index[node.attrs.dim]
    depth = e.scope.space.depth((position,))
    with e.scope.b.hoisted(depth):
        return Result(
            e.scope.b.let(cast(e.scope.condition(position), node.attrs.dtype), "iota"), depth
        )


def _size(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    return Result(e.scope.expr(node.operands[0].shape[node.attrs.dim]), 0)


def _random(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    seed, offset = (e.result(v, (), None) for v in node.operands)
    position = e.scope.space.linear(index, node.types[0].shape)
    depth = max(seed.depth, offset.depth, e.scope.space.depth((position,)))
    with e.scope.b.hoisted(depth):
        where = e.scope.b.let(e.scope.condition(position), "n")
        return Result(emit_random(e.scope.b, node, seed.expr, offset.expr, where), depth)


def inside(e: Evaluator, tests: list[tuple[Dim, Dim, Dim]]) -> tuple[Expr | None, int]:
    """Whether ``low <= i < high`` for all (i, low, high); None where that always holds."""
    space = e.scope.space
    parts: list[tuple[str, Dim, Dim]] = []
    for i, low, high in tests:
        if bounds(i - low)[0] < 0:
            parts.append(("ge", i, low))
        if not space.within(i, high):
            parts.append(("lt", i, high))
    if not parts:
        return None, 0
    depth = space.depth([i for _, i, _ in parts])
    with e.scope.b.hoisted(depth):
        total: Expr | None = None
        for op, i, limit in parts:
            test = binary(op, e.scope.condition(i), e.scope.expr(limit))
            total = test if total is None else binary("and", total, test)
        assert total is not None
        return e.scope.b.let(total, "inside"), depth


def _choose(e: Evaluator, condition: Expr, depth: int, yes: Result, no: Result) -> Result:
    depth = max(depth, yes.depth, no.depth)
    with e.scope.b.hoisted(depth):
        return Result(e.scope.b.let(select(condition, yes.expr, no.expr), "v"), depth)


def _pad(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    (x,) = node.operands
    low = node.attrs.low
    tests = [(i, a, a + size) for i, a, size in zip(index, low, x.shape, strict=True)]
    condition, depth = inside(e, tests)
    inner = tuple(i - a for i, a in zip(index, low, strict=True))
    if condition is None:
        return e.result(x, inner, mask)
    value = e.result(x, inner, e.both(mask, condition, depth))
    around = Result(constant(node.attrs.value, KType(x.dtype)), 0)
    return _choose(e, condition, depth, value, around)


def _concat(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    dim = node.attrs.dim
    start: Dim = 0
    pieces = []
    for x in node.operands:
        stop = start + x.shape[dim]
        inner = tuple(i - start if d == dim else i for d, i in enumerate(index))
        condition, depth = inside(e, [(index[dim], start, stop)])
        if condition is None:
            return e.result(x, inner, mask)
        pieces.append((condition, depth, e.result(x, inner, e.both(mask, condition, depth))))
        start = stop
    total = pieces[-1][2]
    for condition, depth, value in reversed(pieces[:-1]):
        total = _choose(e, condition, depth, value, total)
    return total


def _slice_update(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    x, src = node.operands
    attrs, space = node.attrs, e.scope.space
    rows = list(zip(index, attrs.start, attrs.stop, attrs.step, strict=True))
    condition, depth = inside(e, [(i, start, stop) for i, start, stop, _ in rows])
    for i, start, _, step in rows:
        if step > 1:
            condition, depth = _on_grid(e, i - start, step, condition, depth)
    inner = tuple(space.div(i - start, step) for i, start, _, step in rows)
    if condition is None:
        return e.result(src, inner, mask)
    value = e.result(src, inner, e.both(mask, condition, depth))
    return _choose(e, condition, depth, value, e.result(x, index, mask))


def _on_grid(
    e: Evaluator, i: Dim, step: int, condition: Expr | None, depth: int
) -> tuple[Expr, int]:
    depth = max(depth, e.scope.space.depth((i,)))
    with e.scope.b.hoisted(depth):
        hit = binary("eq", binary("rem", e.scope.condition(i), Const(step)), Const(0))
        return e.scope.b.let(
            hit if condition is None else binary("and", condition, hit), "inside"
        ), depth


def bounded(
    e: Evaluator, node: Node, position: Result, size: Dim, dim: int, mask: Mask | None, wraps: bool
) -> tuple[Dim, Mask]:
    """A loaded position as an index below `size`, and where it is valid; elsewhere the call
    fails."""
    kind = node.attrs.kind if isinstance(node.attrs, PlacesAttrs) else "index"
    message = f"index is out of bounds for dimension {dim} with size {size}"
    site = e.scope.lowering.fail_site(node, message, kind)
    b, depth = e.scope.b, max(position.depth, mask.depth if mask else 0)
    with b.hoisted(depth):
        limit = e.scope.expr(size)
        raw = b.let(cast(position.expr, i64), "raw")
        if wraps:
            raw = b.let(select(binary("lt", raw, Const(0)), binary("add", raw, limit), raw), "raw")
        valid = b.let(binary("lt_u", raw, limit), "valid")
        bad = select(valid, Const(False, KType(boolean)), Const(True, KType(boolean)))
        e.scope.fails(bad if mask is None else binary("and", mask.expr, bad), site)
        at = b.let(select(valid, raw, Const(0)), "at")
        variable = e.scope.space.opaque(size)
        e.scope.space.bind(variable, at, depth)
    return variable, e.both(mask, valid, depth)


def _gather(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    x, positions = node.operands
    dim = node.attrs.dim
    at = e.result(positions, index, mask)
    variable, valid = bounded(e, node, at, x.shape[dim], dim, mask, wraps=False)
    return e.result(x, (*index[:dim], variable, *index[dim + 1 :]), valid)


def _index_select(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    x, positions = node.operands
    dim = node.attrs.dim
    at = e.result(positions, (index[dim],), mask)
    variable, valid = bounded(e, node, at, x.shape[dim], dim, mask, wraps=False)
    return e.result(x, (*index[:dim], variable, *index[dim + 1 :]), valid)


def _index(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    x, *positions = node.operands
    dims = node.attrs.dims
    common = tuple(node.types[0].shape[first_indexed(dims) :][: max(p.rank for p in positions)])
    first = first_indexed(dims)
    block = index[first : first + len(common)]
    rest = list(index[:first] + index[first + len(common) :])
    where: list[Dim] = []
    for axis, size in enumerate(x.shape):
        if axis not in dims:
            where.append(rest.pop(0))
            continue
        source = positions[dims.index(axis)]
        at = e.result(source, broadcast_index(block, common, source.shape), mask)
        variable, mask = bounded(e, node, at, size, axis, mask, wraps=True)
        where.append(variable)
    return e.result(x, tuple(where), mask)


def _searchsorted(e: Evaluator, node: Node, index: Index, mask: Mask | None) -> Result:
    """Binary search for the first boundary that is not before the value."""
    line, x = node.operands
    b, size = e.scope.b, line.shape[-1]
    value = e.at(x, index, mask)
    low, high = b.var(Const(0), "low"), b.var(e.scope.expr(size), "high")
    with b.loop(bounds(size)[1].bit_length()):
        middle = b.let(binary("div", binary("add", low, high), Const(2)), "middle")
        open_ = b.let(binary("lt", low, high), "open")
        at = e.scope.space.opaque(size)
        e.scope.space.bind(at, middle, b.depth)
        lead = index[:-1] if line.rank > 1 else ()
        found = e.at(line, (*lead, at), e.both(mask, open_, b.depth))
        passed = _comes_before(found, value, node.attrs.right)
        b.assign(
            low,
            select(
                b.let(binary("and", open_, passed), "passed"), binary("add", middle, Const(1)), low
            ),
        )
        below = binary("and", open_, binary("le", low, middle))
        b.assign(high, select(below, middle, high))
    return Result(low, b.depth)


def _comes_before(boundary: Expr, value: Expr, right: bool) -> Expr:
    """Whether a boundary is passed on the way to where `value` goes; NaN passes all."""
    if right:
        reached = less(value, boundary)
    elif boundary.type.dtype.is_floating_point:
        reached = binary("ge", boundary, value)
    else:
        return less(boundary, value)
    return select(reached, Const(False, KType(boolean)), Const(True, KType(boolean)))


def first_indexed(dims: tuple[int, ...]) -> int:
    """Where the dimensions of the index operands land in the result of advanced indexing."""
    return dims[0] if dims[-1] - dims[0] == len(dims) - 1 else 0


def _of_node(rule: Callable[[Evaluator, Node, Index, Mask | None], Result]) -> Special:
    """A rule for an op with one result."""

    def special(e: Evaluator, value: Value, index: Index, mask: Mask | None) -> Result:
        assert value.node is not None
        return rule(e, value.node, index, mask)

    return special


SPECIAL: dict[str, Special] = {
    name: _of_node(rule)
    for name, rule in {
        "constant": _constant,
        "iota": _iota,
        "size": _size,
        "pad": _pad,
        "concat": _concat,
        "slice_update": _slice_update,
        "gather": _gather,
        "index_select": _index_select,
        "index": _index,
        "searchsorted": _searchsorted,
        **dict.fromkeys(RANDOM, _random),
    }.items()
}
