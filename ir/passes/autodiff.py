"""Reverse-mode differentiation: ordinary nodes in, ordinary nodes out.

The rules are the ops' own (`Op.vjp`); this file only applies them in reverse order and adds up what
arrives at a value. The result can be optimised, printed, exported and differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from ..graph import Location, Node, Value, located, topological
from ..op import NO_ATTRS, OPS, ByDecomposition, Core, Kind, NoGradient

Cotangents = Sequence[Value | None]


def pullback(
    node: Node, cotangents: Cotangents, wanted: tuple[bool, ...] = ()
) -> tuple[Value | None, ...]:
    """The cotangents of a node's operands, given those of its results.

    Args:
        node: any node; a composite without its own rule is differentiated through `decompose`.
        cotangents: one for each result, of that result's type; None where no gradient arrives.
        wanted: for which operands a gradient is asked for; others may be None. Empty for all of
            them.

    Returns:
        One value of the operand's type for each operand, None where no gradient flows: integer
        operands, ops that are not differentiable. Where one value stands in several operand
        positions, the positions' cotangents add up to the gradient.
    """
    if isinstance(node.op.vjp, NoGradient):
        return (None,) * len(node.operands)
    for c in cotangents:
        if c is not None:
            break
    else:
        return (None,) * len(node.operands)
    key = _key(node, [c is not None for c in cotangents], wanted)
    template = _templates.get(key)
    if template is not None:
        return tuple(template.apply(node, cotangents))
    found = _pulled(node, cotangents)
    if key in _templates and not _plans(node):  # the second time: it may come often
        _templates[key] = _template(node, [c is not None for c in cotangents], wanted)
    else:
        if len(_templates) >= TEMPLATES_LIMIT:
            _templates.clear()
        _templates[key] = None
    return found


def _plans(node: Node) -> bool:
    """Whether the rule of an op keeps plans of its own."""
    return node.op.kind is Kind.CONTROL or node.op.name == "region"


def _key(node: Node, arrives: Iterable[bool], wanted: tuple[bool, ...]) -> tuple[object, ...]:
    """What `pullback` repeats the same nodes for."""
    attrs = None if node.attrs is NO_ATTRS else node.attrs
    return (node.op, attrs, *[v.type for v in node.operands], *arrives, wanted)


def template_of(
    node: Node, arrives: Iterable[bool], wanted: tuple[bool, ...] = ()
) -> Template | None:
    """What `pullback` repeats for nodes such as this one: None for those that it did not meet twice
    or makes anew each time.

    Args:
        arrives: for which results there is a cotangent.
        wanted: as for `pullback`.
    """
    return _templates.get(_key(node, arrives, wanted))


def pullback_of(
    node: Node, operands: Sequence[Value], results: Sequence[Value], cotangents: Cotangents
) -> tuple[Value | None, ...]:
    """`pullback` of a node as if its operands and results were these, of the same types."""
    template = _template(node, [c is not None for c in cotangents], ())
    given = [*operands, *results, *cotangents, *template.fixed]
    return tuple(template.made(given, node.location))


def _pulled(node: Node, cotangents: Cotangents) -> tuple[Value | None, ...]:
    """What the rule of the op makes."""
    with located(node.location):
        if isinstance(node.op.vjp, ByDecomposition):
            return _through_decomposition(node, cotangents)
        assert not isinstance(node.op.vjp, NoGradient)
        found = node.op.vjp(node, *cotangents)
    return tuple(_checked(node, i, g) for i, g in enumerate(found))


def _template(like: Node, arrives: Sequence[bool], wanted: Sequence[bool]) -> Template:
    """What the rule of a node makes."""
    # values of its own stand for all: those of `like` may be equal by chance
    node = Node(like.op, tuple([Value(v.type) for v in like.operands]), like.attrs, like.types)
    cotangents = [Value(t) if c else None for t, c in zip(node.types, arrives, strict=True)]
    found = _pulled(node, cotangents)
    if wanted:
        found = tuple([g if w else None for g, w in zip(found, wanted, strict=True)])
    return Template([*node.operands, *node.results(), *cotangents], found)


class Template:
    """The nodes that rules made once, to be made again for other values of the same types.

    Rules see the types and attributes of nodes only, so that the nodes they make are the same each
    time; to repeat them takes a fraction of what the rule, its algebra on wrapped values and type
    inference take.

    Attributes:
        fixed: operands that do not depend on the node or the cotangents (constants): shared by all.
        rows: op, attributes, types and operands of each node. Operands are positions in the list of
            the node's operands, its results, the cotangents, `fixed`, and the results of the rows
            before.
        gradients: positions of the gradients of the operands.
    """

    __slots__ = ("fixed", "gradients", "rows")

    def __init__(self, given: Sequence[Value | None], found: Sequence[Value | None]):
        """Args: given: stand for the operands, the results and the cotangents. found: what was made
        of them."""
        position: dict[Value, int] = {}
        for i, v in enumerate(given):
            if v is not None:
                position.setdefault(v, i)
        made = topological([g for g in found if g is not None], frozenset(position))
        depends: set[Node] = set()
        for n in made:
            if any(v in position or v.node in depends for v in n.operands):
                depends.add(n)
        for g in found:  # a gradient is the user's: what is kept of its node is not to be shared
            if g is not None and g not in position and g.node not in depends:
                depends.update(topological([g], frozenset(position)))
        self.fixed: list[Value] = []
        for v in (v for n in made if n in depends for v in n.operands):
            if v not in position and v.node not in depends:
                position[v] = len(given) + len(self.fixed)
                self.fixed.append(v)
        count = len(given) + len(self.fixed)
        self.rows = []
        for n in made:
            if n not in depends:
                continue
            self.rows.append((n.op, n.attrs, n.types, tuple([position[v] for v in n.operands])))
            for v in n.results():
                position[v] = count
                count += 1
        self.gradients = [None if g is None else position[g] for g in found]

    def apply(self, node: Node, cotangents: Cotangents) -> list[Value | None]:
        """The gradients for another node of the same op, attributes and types."""
        return self.made([*node.operands, *node.results(), *cotangents, *self.fixed], node.location)

    @classmethod
    def made_by(cls, make: Callable[..., list[Value | None]]) -> None:
        """From now on `make` does what `made` does."""
        cls.made = make  # type: ignore[method-assign]

    def made(self, values: list[Any], location: Location | None) -> list[Value | None]:
        """The gradients for these operands, results, cotangents and `fixed`; `values` grows."""
        for op, attrs, types, row in self.rows:
            made = Node(op, tuple([values[p] for p in row]), attrs, types, location)
            if len(types) == 1:
                values.append(Value(types[0], made))
            else:
                values += made.results()
        return [None if p is None else values[p] for p in self.gradients]


TEMPLATES_LIMIT = 4096
FEW = 16  # nodes of an operation
_templates: dict[object, Template | None] = {}  # None: met once


def vjp(
    outputs: Sequence[Value], cotangents: Cotangents, wrt: Sequence[Value]
) -> list[Value | None]:
    """Gradients with respect to `wrt` of the sum of ``outputs[i] * cotangents[i]``.

    Args:
        outputs: values of a floating-point or complex dtype.
        cotangents: one for each output, of its type; None counts as zero.
        wrt: values that the outputs were computed from; one may be computed from another, and then
            the gradient of the earlier includes what flows through the later.

    Returns:
        For each of `wrt` its gradient, or None where no output depends on it differentiably.

    Raises:
        TypeError: a cotangent does not have its output's type.
    """
    return _backward(outputs, cotangents, wrt, stop=frozenset())


def _through_decomposition(node: Node, cotangents: Cotangents) -> tuple[Value | None, ...]:
    if isinstance(node.op.decompose, Core):
        raise TypeError(f"op {node.op.name} is core, so its vjp cannot follow from a decomposition")
    return pullback_through(node.op.decompose(node), cotangents, node.operands)


def pullback_through(
    outputs: Sequence[Value], cotangents: Cotangents, operands: Sequence[Value]
) -> tuple[Value | None, ...]:
    """`pullback` of an operation made of several nodes: those between `operands` and `outputs`."""
    between = Between(outputs, operands)
    if not between.may_repeat:
        return _all_pulled(outputs, cotangents, operands)
    key = between.key(cotangents)
    template = _templates.get(key)
    if template is not None:
        values = [*between.given, *between.results, *cotangents, *template.fixed]
        return tuple(template.made(values, between.nodes[-1].location))
    if key in _templates:  # as in `pullback`
        _templates[key] = between.template([c is not None for c in cotangents])
    else:
        if len(_templates) >= TEMPLATES_LIMIT:
            _templates.clear()
        _templates[key] = None
    return _all_pulled(outputs, cotangents, operands)


def _all_pulled(
    outputs: Sequence[Value], cotangents: Cotangents, operands: Sequence[Value]
) -> tuple[Value | None, ...]:
    found = _backward(outputs, cotangents, operands, stop=frozenset(operands))
    # an operand that stands twice gets its whole gradient at the first place
    seen: set[Value] = set()
    result: list[Value | None] = []
    for operand, gradient in zip(operands, found, strict=True):
        result.append(None if operand in seen else gradient)
        seen.add(operand)
    return tuple(result)


def _id(value: Value) -> object:
    """What equal values have in common, and no others. (Their own hash, a Python function, takes
    longer.)"""
    node = value.node
    return id(value) if node is None else (id(node), value.index)


class Between:
    """The nodes of an operation, between its operands and its outputs.

    Attributes:
        given: the operands, and what else the nodes read.
        results: of the nodes, in their order.
    """

    __slots__ = ("_operands", "_outputs", "_places", "_rows", "given", "nodes", "results")

    def __init__(self, outputs: Sequence[Value], operands: Sequence[Value]):
        self.given = list(operands)
        self.results: list[Value] = []
        self.nodes: list[Node] = []
        self._rows: list[tuple[Any, ...]] = []
        # of operands and what else is given: its number; of results: -1 - number
        self._places: dict[object, int] = {}
        self._operands = tuple([self._places.setdefault(_id(v), i) for i, v in enumerate(operands)])
        for v in outputs:
            if v.node is not None and _id(v) not in self._places:
                self._visit(v.node)
        self._outputs = tuple([self._places.get(_id(v)) for v in outputs])

    def _visit(self, node: Node) -> None:
        """Append a node after those that it needs, until there are too many."""
        row, places = [], self._places
        for v in node.operands:
            key = _id(v)
            place = places.get(key)
            if place is None and v.node is None:
                place = places[key] = len(self.given)
                self.given.append(v)
            elif place is None and len(self.nodes) <= FEW:
                self._visit(v.node)  # type: ignore[arg-type]
                place = places.get(key)
            row.append(place)
        self._rows.append((node.op, node.attrs, node.types, tuple(row)))
        self.nodes.append(node)
        for v in node.results():
            self.results.append(v)
            places.setdefault(_id(v), -len(self.results))

    @property
    def may_repeat(self) -> bool:
        """Whether what their rules make is worth keeping: few nodes, whose rules have no plans of
        their own."""
        few = 0 < len(self.nodes) <= FEW and None not in self._outputs
        return few and not any(_plans(n) for n in self.nodes)

    def key(self, cotangents: Cotangents) -> tuple[object, ...]:
        """What `pullback_through` repeats the same nodes for."""
        types = tuple([v.type for v in self.given])
        arrives = tuple([c is not None for c in cotangents])
        return tuple(self._rows), types, self._operands, self._outputs, arrives

    def template(self, arrives: Sequence[bool]) -> Template:
        """What the rules make, for values that stand for all."""
        given = [Value(v.type) for v in self.given]
        made: list[Value] = []
        for op, attrs, types, row in self._rows:
            operands = tuple([given[p] if p >= 0 else made[-1 - p] for p in row])
            made += Node(op, operands, attrs, types).results()
        outputs = [given[p] if p >= 0 else made[-1 - p] for p in self._outputs]  # type: ignore[index, operator]
        cotangents = [Value(v.type) if c else None for v, c in zip(outputs, arrives, strict=True)]
        found = _all_pulled(outputs, cotangents, [given[p] for p in self._operands])
        return Template([*given, *made, *cotangents], found)


def _checked(node: Node, index: int, gradient: Value | None) -> Value | None:
    operand = node.operands[index]
    if gradient is None or not operand.dtype.is_differentiable:
        return None
    if gradient.type is not operand.type:
        raise TypeError(
            f"vjp of op {node.op.name} made a gradient {gradient.type} for operand {index} "
            f"of type {operand.type}" + (f" (recorded at {node.location})" if node.location else "")
        )
    return gradient


def _backward(
    outputs: Sequence[Value], cotangents: Cotangents, wrt: Sequence[Value], stop: Collection[Value]
) -> list[Value | None]:
    gradients: dict[Value, Value] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is None:
            continue
        if cotangent.type is not output.type:
            raise TypeError(
                f"cotangent of an output {output.type} has type {cotangent.type}: "
                "expected the same type"
            )
        _accumulate(gradients, output, cotangent)
    order, active = _active_nodes(outputs, wrt, stop)
    for node in reversed(order):
        # a value the walk stops at passes nothing on, even where another result of its node is read
        results = [None if r in stop else gradients.get(r) for r in node.results()]
        for operand, gradient in zip(node.operands, pullback(node, results), strict=True):
            if gradient is not None and operand in active:
                with located(node.location):
                    _accumulate(gradients, operand, gradient)
    return [gradients.get(v) for v in wrt]


def _accumulate(gradients: dict[Value, Value], value: Value, gradient: Value) -> None:
    before = gradients.get(value)
    gradients[value] = gradient if before is None else OPS["add"](before, gradient)


def _active_nodes(
    outputs: Iterable[Value], wrt: Sequence[Value], stop: Collection[Value]
) -> tuple[list[Node], set[Value]]:
    """Nodes through which a gradient can flow from `outputs` to `wrt`, producers first, and the
    values it passes. The walk does not look behind `stop`."""
    active = set(wrt)
    order: list[Node] = []
    for node in topological(outputs, stop):
        if isinstance(node.op.vjp, NoGradient):
            continue
        if any(v.dtype.is_differentiable and v in active for v in node.operands):
            order.append(node)
            active.update(r for r in node.results() if r.dtype.is_differentiable)
    return order, active
