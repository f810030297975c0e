"""The gradient of `scan`: a scan in the other direction over the gradient of its body.

What the gradient of a step needs of the step itself is read from the scan's stacked results where
the body returns it, and computed again from the step's inputs where not. So a body that returns
what its contractions gave never has them computed twice. Carries are handed on from step to step;
the value that a step started from is the one that the step before returned, also read from the
stacked results.

A gradient with respect to what is the same in all steps (weights) is a sum over steps. Where the
contribution of a step is a product of matrices, its factors are stacked and multiplied once, after
the loop, instead of a matrix being added to in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from ..dataclass import dataclass, field
from ..graph import Graph, Node, Value, topological
from ..op import Attrs
from ..passes.autodiff import vjp
from ..shape import Dim, numel
from .checks import attrs_of
from .common import ops, zeros, zeros_like

# a contribution is stacked for a sum after the loop where it is at most so many times larger
SUM_LIMIT = 4


@dataclass(frozen=True)
class ScanAttrs(Attrs):
    """body's inputs are the carries, one slice of each stacked operand, and the other operands; its
    outputs are the carries and one slice of each stacked result. `reverse` starts at the last
    slice."""

    body: Graph
    carries: int
    stacked: int
    length: Dim
    reverse: bool = False


# a sum over steps, given stacked values
Total: TypeAlias = Callable[[Callable[[Value], Value]], Value]


def scan_vjp(node: Node, *cotangents: Value | None) -> tuple[Value | None, ...]:
    attrs = attrs_of(node, ScanAttrs)
    plan = _plan(attrs, tuple(c is not None for c in cotangents))
    if any(i not in plan.emitted for i in plan.started):
        # computes the forward loop again, now keeping what each step starts from
        node = _with_carries(node)
        attrs = attrs_of(node, ScanAttrs)
        plan = _plan(attrs, tuple(c is not None for c in cotangents) + (False,) * attrs.carries)
    return plan.apply(node, cotangents)


def _with_carries(node: Node) -> Node:
    """The same scan with its carries as further stacked results."""
    attrs = attrs_of(node, ScanAttrs)
    body = attrs.body
    longer = Graph(body.name, body.inputs, (*body.outputs, *body.outputs[: attrs.carries]))
    return ops.scan.node(
        node.operands, ScanAttrs(longer, attrs.carries, attrs.stacked, attrs.length, attrs.reverse)
    )


@lru_cache(maxsize=256)
def _plan(attrs: ScanAttrs, given: tuple[bool, ...]) -> Plan:
    return Plan(attrs, given)


class Plan:
    """How the gradient of scans with the same body is computed.

    Attributes:
        emitted: for each carry that the body also returns as a stacked result, which result that
            is.
        started: the carries whose value at the start of each step is read.
    """

    def __init__(self, attrs: ScanAttrs, given: tuple[bool, ...]):
        self.attrs = attrs
        body, n = attrs.body, attrs.carries
        self.active = [i for i in range(n) if body.outputs[i].dtype.is_differentiable]
        self.given = [
            i for i in range(n, len(given)) if given[i] and body.outputs[i].dtype.is_differentiable
        ]
        self.emitted = {
            i: j
            for j in range(len(body.outputs) - 1, n - 1, -1)
            for i in range(n)
            if body.outputs[j] == body.outputs[i]
        }
        self.saved = {
            v: j
            for j, v in reversed(list(enumerate(body.outputs)))
            if j >= n and v.node is not None
        }
        self._differentiate()
        self._sum_up()
        self._assemble()

    # -- the gradient of one step

    def _differentiate(self) -> None:
        body, first = self.attrs.body, self.attrs.carries
        self.cotangents = {
            i: Value(body.outputs[i].type, name=f"d{i}") for i in (*self.active, *self.given)
        }
        wrt = [v for v in body.inputs if v.dtype.is_differentiable]
        outputs = [body.outputs[i] for i in self.cotangents]
        found = dict(zip(wrt, vjp(outputs, list(self.cotangents.values()), wrt), strict=True))
        last = first + self.attrs.stacked
        self.next = [found[body.inputs[i]] or zeros_like(body.inputs[i]) for i in self.active]
        self.slices = {
            i: g for i in range(first, last) if (g := found.get(body.inputs[i])) is not None
        }
        self.fixed = {
            i: g
            for i in range(last, len(body.inputs))
            if (g := found.get(body.inputs[i])) is not None
        }

    def _sum_up(self) -> None:
        """Which values of a step are stacked, and which sums are carried along."""
        body, (first, last) = (
            self.attrs.body,
            (self.attrs.carries, self.attrs.carries + self.attrs.stacked),
        )
        varying = {*body.inputs[:last], *self.cotangents.values(), *self.saved}
        self.stacks = list(dict.fromkeys((*self.slices.values(), *self.next)))
        sums = Sums(varying, {*varying, *self.stacks})
        self.totals: dict[int, Total] = {}
        self.added: dict[int, Value] = {}
        # biases read the
        for i, gradient in sorted(self.fixed.items(), key=lambda item: -item[1].rank):
            # weights' factors
            total = sums.of(gradient)
            if total is None:
                self.added[i] = gradient
            else:
                self.totals[i] = total
        stacked = {*body.inputs[first:last], *(self.cotangents[i] for i in self.given), *self.saved}
        self.stacks += [v for v in sums.stacked if v not in stacked and v not in body.inputs]
        self.sources = sums.stacked

    # -- the scan over it

    def _assemble(self) -> None:
        body, n, last = self.attrs.body, self.attrs.carries, self.attrs.carries + self.attrs.stacked
        before = {i: Value(g.type, name=f"sum{i}") for i, g in self.added.items()}
        after = [ops.add(before[i], g) for i, g in self.added.items()]
        outputs = [*self.next, *after, *self.stacks]
        nodes = topological(outputs, frozenset(self.saved))
        read = {v for node in nodes for v in node.operands} | set(outputs) | set(self.sources)
        self.started = [i for i in range(n) if body.inputs[i] in read]
        self.kept = [v for v in self.saved if v in read]
        stacked = [
            *(self.cotangents[i] for i in self.given),
            *(body.inputs[i] for i in self.started),
            *(body.inputs[i] for i in range(n, last)),
            *self.kept,
        ]
        carried = [*(self.cotangents[i] for i in self.active), *before.values()]
        inputs = [*carried, *stacked, *body.inputs[last:]]
        self.body = _closed(f"{body.name}_grad", inputs, outputs, nodes)
        self.carried = len(carried)
        self.stacked = stacked

    def apply(self, node: Node, cotangents: Sequence[Value | None]) -> tuple[Value | None, ...]:
        """The gradients of a scan's operands."""
        attrs, operands = self.attrs, node.operands
        last = attrs.carries + attrs.stacked
        initial = [cotangents[i] or zeros(node.types[i]) for i in self.active]
        sums = [zeros_like(operands[i]) for i in self.added]
        at = dict(zip(self.stacked, self._stacked(node, cotangents), strict=True))
        made = ops.scan.node(
            (*initial, *sums, *at.values(), *operands[last:]),
            ScanAttrs(self.body, self.carried, len(at), attrs.length, not attrs.reverse),
        ).results()
        at.update(zip(self.stacks, made[self.carried :], strict=True))
        found: dict[int, Value] = dict(zip(self.active, made, strict=False))
        found.update(zip(self.added, made[len(self.active) : self.carried], strict=True))
        found.update((i, at[g]) for i, g in self.slices.items())
        table = dict(zip(attrs.body.inputs[last:], operands[last:], strict=True))
        found.update(
            (i, total(lambda v: at[v] if v in at else _outside(v, table)))
            for i, total in self.totals.items()
        )
        return tuple(found.get(i) for i in range(len(operands)))

    def _stacked(self, node: Node, cotangents: Sequence[Value | None]) -> list[Value]:
        n, last = self.attrs.carries, self.attrs.carries + self.attrs.stacked
        arriving = [cotangents[i] for i in self.given]
        started = [self._starts(node, i) for i in self.started]
        kept = [node.result(self.saved[v]) for v in self.kept]
        return [*(c for c in arriving if c is not None), *started, *node.operands[n:last], *kept]

    def _starts(self, node: Node, carry: int) -> Value:
        """The carry as each step found it: the first operand, then what the steps before
        returned."""
        ends, first = node.result(self.emitted[carry]), node.operands[carry]
        whole = ops.reshape(first, shape=(1, *first.shape))
        joined = ops.concat(*((ends, whole) if self.attrs.reverse else (whole, ends)), dim=0)
        zero, one = (0,) * joined.rank, (1,) * joined.rank
        skip = int(self.attrs.reverse)
        return ops.slice(
            joined, start=(skip, *zero[1:]), stop=(self.attrs.length + skip, *first.shape), step=one
        )


def _closed(
    name: str, inputs: Sequence[Value], outputs: Sequence[Value], nodes: Sequence[Node]
) -> Graph:
    """A graph of its own over copies of `nodes`; `inputs` may be results of nodes."""
    table: dict[Value, Value] = {v: Value(v.type, name=f"x{i}") for i, v in enumerate(inputs)}
    for node in nodes:
        made = node.with_operands(tuple(table[v] for v in node.operands))
        for old, new in zip(node.results(), made.results(), strict=True):
            table.setdefault(old, new)
    return Graph(name, [table[v] for v in inputs], [table[v] for v in outputs])


def _outside(value: Value, table: dict[Value, Value]) -> Value:
    """A value that is the same in all steps, computed once."""
    for node in topological([value], frozenset(table)):
        made = node.with_operands(tuple(table[v] for v in node.operands))
        table.update(zip(node.results(), made.results(), strict=True))
    return table[value]


@dataclass
class Sums:
    """Sums over steps that are computed after the loop.

    Attributes:
        varying: values that differ from step to step; those computed from them are added.
        at_hand: values that are stacked anyway.
        stacked: values whose stacks the sums read, in order.
    """

    varying: set[Value]
    at_hand: set[Value]
    stacked: list[Value] = field(default_factory=list)

    def varies(self, value: Value) -> bool:
        for node in topological([value], self.varying):
            if any(v in self.varying for v in node.operands):
                self.varying.update(node.results())
        return value in self.varying

    def of(self, value: Value) -> Total | None:
        """The sum of `value` over the steps; None where it has to be added up step by step."""
        node = value.node
        if value in self.at_hand:
            self._stack(value)
            return lambda at: ops.sum(at(value), dims=(0,), keepdim=False)
        if node is None or not self.varies(value):
            return None
        match node.op.name:
            case "add" if all(v.shape == value.shape for v in node.operands):
                return self._apply(node)
            case "permute" | "reshape" | "neg" | "cast":
                return self._apply(node)
            case "pad" if node.attrs.value == 0:  # type: ignore[attr-defined]
                return self._apply(node)
            case "sum":
                return self._reduced(node)
            case "matmul" if all(v.rank == 2 for v in node.operands):
                return self._product(node)
        return None

    def _apply(self, node: Node) -> Total | None:
        """A linear op of sums."""
        parts = [self.of(v) for v in node.operands]
        found = [p for p in parts if p is not None]
        if len(found) < len(parts):
            return None
        return lambda at: node.with_operands(tuple(p(at) for p in found)).result()

    def _reduced(self, node: Node) -> Total | None:
        x, dims = node.operands[0], node.attrs.dims  # type: ignore[attr-defined]
        size, result = numel(x.shape), numel(node.types[0].shape)
        small = isinstance(size, int) and isinstance(result, int) and size <= SUM_LIMIT * result
        if x not in self.at_hand and not small:
            return None
        self._stack(x)
        keepdim = node.attrs.keepdim  # type: ignore[attr-defined]

        def total(at: Callable[[Value], Value]) -> Value:
            whole = ops.sum(self._stacked(x, at), dims=(0, *(d + 1 for d in dims)), keepdim=keepdim)
            return ops.reshape(whole, shape=node.types[0].shape) if keepdim else whole

        return total

    def _product(self, node: Node) -> Total:
        """The sum of products of matrices as one product over steps and columns."""
        a, b = node.operands
        if not self.varies(a):
            return self._factor(b, lambda total, at: ops.matmul(at(a), total))
        if not self.varies(b):
            return self._factor(a, lambda total, at: ops.matmul(total, at(b)))
        self._stack(a)
        self._stack(b)

        def total(at: Callable[[Value], Value]) -> Value:
            left, right = self._stacked(a, at), self._stacked(b, at)
            steps, rows, depth = left.shape
            wide = ops.reshape(ops.permute(left, dims=(1, 0, 2)), shape=(rows, steps * depth))
            return ops.matmul(wide, ops.reshape(right, shape=(steps * depth, right.shape[2])))

        return total

    def _factor(
        self, value: Value, finish: Callable[[Value, Callable[[Value], Value]], Value]
    ) -> Total:
        inner = self.of(value)
        if inner is not None:
            return lambda at: finish(inner(at), at)
        self._stack(value)
        return lambda at: finish(ops.sum(self._stacked(value, at), dims=(0,), keepdim=False), at)

    def _stack(self, value: Value) -> None:
        root = _unviewed(value)[0]
        if root not in self.stacked:
            self.stacked.append(root)
        self.at_hand.add(root)

    def _stacked(self, value: Value, at: Callable[[Value], Value]) -> Value:
        root, views = _unviewed(value)
        found = at(root)
        for node in views:
            dims = node.attrs.dims  # type: ignore[attr-defined]
            found = ops.permute(found, dims=(0, *(d + 1 for d in dims)))
        return found


def _unviewed(value: Value) -> tuple[Value, list[Node]]:
    """What `value` is a permutation of, and the permutations: these are cheaper after the loop."""
    views: list[Node] = []
    while value.node is not None and value.node.op is ops.permute:
        views.append(value.node)
        value = value.node.operands[0]
    return value, views[::-1]
