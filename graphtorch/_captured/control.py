"""Control flow in a graph: `cond`, `while_loop` and `scan`.

Each calls its functions once, on stand-ins, and records what they do as a graph of its own; the
tensors that they read from around them become operands, and gradients flow to those as well. This
works line by line, in `compile` and in `trace` alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean
from graphtorch.ir.graph import Graph, Node, Type, Value, located, topological
from graphtorch.ir.op import Weight
from graphtorch.ir.ops.control import CondAttrs, WhileAttrs
from graphtorch.ir.ops.scan_grad import ScanAttrs

from .._deferred.making import from_value, wrap
from .._deferred.memory_order import Order, own_order, view_of
from .._deferred.running import locate, user_line
from .._deferred.storage import Leaf, Storage, Version, recorder
from .._deferred.tensor import Tensor
from ..autograd.grad_mode import modes
from ..autograd.nodes import Edge, GradNode
from .capture import rebuild, tensors_in

# --------------------------------------------------------------------------------- recording a body


class Recording:
    """In the place of a capture while the body of a loop or branch is recorded.

    What the body reads from outside is taken as it is; changing anything outside is refused, since
    it would happen once and not in each step.
    """

    def __init__(self, what: str, outer: Any):
        self.what = what
        self._outer = outer
        self.own: dict[int, Any] = {}  # storages that were made inside, by their ids

    @property
    def outer(self) -> Any:
        """What watches around this, if anything does (any more)."""
        outer = self._outer
        return None if outer is None or getattr(outer, "off", False) else outer

    @property
    def numbers_vary(self) -> bool:
        """Numbers of the program are constants of the body."""
        return False

    @property
    def writes(self) -> dict[Storage, Value]:
        return {} if self.outer is None else self.outer.writes  # type: ignore[no-any-return]

    def owns(self, storage: Storage) -> bool:
        """Whether `storage` was made inside."""
        ref = self.own.get(id(storage))
        return ref is not None and ref() is storage

    def adopt(self, storage: Storage) -> None:
        self.own[id(storage)] = weakref.ref(storage)

    def read(self, storage: Storage) -> Value:
        if self.owns(storage) and not isinstance(storage.value, Leaf):
            return storage.value
        recorder.capture = self.outer
        try:
            return storage.read()
        finally:
            recorder.capture = self

    def exposed(self, tensor: Tensor) -> Any:
        """The elements of a tensor as NumPy's, over the same memory, where they are known."""
        return None

    def text(self, tensor: Tensor) -> str | None:
        """What is shown of a tensor that has no elements of its own to show."""
        return None

    def applied(self, function: Any, args: tuple[Any, ...]) -> Any:
        """What a function with a gradient of the user's own gives where it is not recorded as
        usual."""
        return NotImplemented

    def about_to_replace(self, modules: Iterable[Any]) -> None:
        if self.outer is not None:
            self.outer.about_to_replace(modules)

    def by_rule(self, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator with a rule for `vmap` gives where it is not recorded as usual."""
        return NotImplemented

    def apart(self, outputs: list[Any], args: tuple[Any, ...]) -> list[Any]:
        """The results of such a function on `args`, as its gradient has to see them."""
        return outputs

    def seen(self, tensor: Tensor) -> None:
        if self.outer is not None and not self.owns(tensor._storage):
            self.outer.seen(tensor)

    def value_read(self, storage: Storage) -> None:
        if self.outer is not None and not self.owns(storage):
            self.outer.value_read(storage)

    def reveal(self, tensor: Tensor, caller: Any = None) -> None:
        """Nothing is known in the body of a loop or branch."""

    def call_off(self, always: bool = False) -> bool:
        return False

    def reseeded(self) -> None:
        self._refuse("seeds a generator: do it outside")

    def varies(self, storage: Storage) -> bool:
        return self.outer is not None and self.outer.varies(storage)

    def counts(self, tensor: Tensor) -> None:
        pass  # a tensor of the body's own

    def local(self, storage: Storage) -> None:
        self.adopt(storage)
        if self.outer is not None:
            self.outer.local(storage)

    def write(self, storage: Storage, value: Value) -> bool:
        if not self.owns(storage):
            self._refuse("writes into a tensor from outside: return the new value instead")
        return False

    def aliased(self, made: Tensor, source: Tensor) -> None:
        if self.outer is not None and not self.owns(source._storage):
            self.outer.aliased(made, source)

    def viewed(self, made: Tensor) -> None:
        if self.outer is not None and not self.owns(made._storage):
            self.outer.viewed(made)

    def turned(self, tensor: Tensor) -> None:
        if self.outer is not None and not self.owns(tensor._storage):
            self.outer.turned(tensor)

    def watched(self, tensor: Tensor) -> None:
        if not self.owns(tensor._storage):
            self._refuse("registers a hook on a tensor from outside: register it before")

    def grad_set(self, tensor: Tensor) -> None:
        self._refuse("sets a .grad: call backward() after it, or use autograd.grad")

    def grad_read(self, tensor: Tensor) -> None:
        if self.outer is not None:
            self.outer.grad_read(tensor)

    def rebound(self, tensor: Tensor) -> None:
        self._refuse("assigns .data: return the new value instead")

    def draw(self, generator: Any, method: str, arguments: Any) -> Any:
        self._refuse(
            "draws random numbers, which would be the same in each step: draw them before it, all "
            "steps at once, and pass them in"
        )

    def _refuse(self, problem: str) -> None:
        raise RuntimeError(f"{self.what}: the function {problem} (at {user_line()})")


class Body:
    """A function recorded on stand-ins for `like`.

    Attributes:
        result: what it returned; `tensors` are the tensors in it, `values` what they hold, and
            `orders` those of their memory.
        inputs: the stand-ins' values.
        nodes: those that depend on them, and constants; producers first.
        outside: values that these read from around the function, with where their gradients go.
    """

    def __init__(
        self,
        what: str,
        function: Callable[..., Any],
        like: Sequence[Type],
        call: Callable[..., Any],
        gradients: Sequence[bool],
        orders: Sequence[Order | None],
    ):
        self.inputs = [Value(t, name=f"x{i}") for i, t in enumerate(like)]
        with _recording(what) as recording:
            stands = [
                _stand_in(recording, *each)
                for each in zip(self.inputs, gradients, orders, strict=True)
            ]
            self.result = call(function, stands)
            self.tensors = tensors_in(self.result)
            self.values = [t._value() for t in self.tensors]
            self.orders = [own_order(t) for t in self.tensors]
        self.nodes = self._inner_nodes()
        self.outside = self._outside(_edges(self.tensors, self.values, stands))

    def _inner_nodes(self) -> list[Node]:
        """Nodes that depend on the stand-ins, and those that depend on nothing at all."""
        moving, closed, found = set(self.inputs), set[Value](), []
        for node in topological(self.values):
            depends = any(v in moving for v in node.operands)
            constant = not node.operands or all(v in closed for v in node.operands)
            if depends or constant:
                (moving if depends else closed).update(node.results())
                found.append(node)
        return found

    def _outside(self, edges: dict[Value, Edge]) -> dict[Value, Edge]:
        known = set(self.inputs) | {r for n in self.nodes for r in n.results()}
        read = [v for n in self.nodes for v in n.operands] + self.values
        return {v: edges.get(v) for v in dict.fromkeys(read) if v not in known}

    def graph(
        self, name: str, outside: Sequence[Value], outputs: Sequence[Value] | None = None
    ) -> Graph:
        """The body as a closed graph: stand-ins, then one input for each of `outside`."""
        with located(None):
            table = {v: Value(v.type, name=v.name) for v in self.inputs}
            table.update((v, Value(v.type, name=f"k{i}")) for i, v in enumerate(outside))
            inputs = list(table.values())
            for node in self.nodes:
                operands = tuple(table[v] for v in node.operands)
                made = Node(node.op, operands, node.attrs, node.types, node.location)
                table.update(zip(node.results(), made.results(), strict=True))
            return Graph(
                name, inputs, [table[v] for v in (self.values if outputs is None else outputs)]
            )


@contextmanager
def _recording(what: str) -> Iterator[Recording]:
    outer = recorder.capture
    recorder.capture = recording = Recording(what, outer)
    try:
        yield recording
    finally:
        recorder.capture = outer


def _stand_in(recording: Recording, value: Value, gradient: bool, order: Order | None) -> Tensor:
    made = object.__new__(Tensor)
    made._storage = Storage(value if order is None else ops.permute(value, dims=order))
    made._counter = Version()
    if order is not None:
        made._view = view_of(value.type, order)
        made._cached = made._storage.value, value
    made._rg = gradient
    recording.adopt(made._storage)
    return made


def _edges(
    tensors: Sequence[Tensor], values: Sequence[Value], stands: Sequence[Tensor]
) -> dict[Value, Edge]:
    """Where the gradient of each value goes that the body's operations read: an operation of its
    own for what it computed from tensors around it, an earlier one for those tensors themselves."""
    own = {e[0] for e in (t._edge() for t in stands if t._rg) if e is not None}
    found: dict[Value, Edge] = {}
    waiting: list[GradNode] = []
    for tensor, value in zip(tensors, values, strict=True):
        edge = tensor._edge()
        if edge is not None:
            found.setdefault(value, edge)
            waiting.append(edge[0])
    seen = set(own)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for value, edge in zip(node.operands, node.edges, strict=True):
            if edge is not None and edge[0] not in own:
                found.setdefault(value, edge)
            if edge is not None:
                waiting.append(edge[0])
    return found


def _holder(value: Value, edge: Edge) -> Tensor:
    """A tensor of `value` whose gradient goes along `edge`."""
    made = from_value(value)
    if edge is not None:
        made._fn, made._nr = edge
    return made


def _apply(
    name: str,
    node: Node,
    tensors: Sequence[Tensor],
    outside: dict[Value, Edge],
    orders: Sequence[Order | None],
) -> tuple[Tensor, ...]:
    """The results of a node on `tensors` and on what its body reads from outside, in `orders` of
    memory."""
    holders = [*tensors, *(_holder(v, e) for v, e in outside.items())]
    found = wrap(name, node.results(), holders, node.operands, orders)
    return found  # type: ignore[no-any-return]


def _kept(before: Iterable[Order | None], after: Iterable[Order | None]) -> list[Order | None]:
    """Orders of memory where both ways to a result agree; else it is row-major."""
    return [a if a == b else None for a, b in zip(before, after, strict=True)]


def _needs_gradient(tensors: Iterable[Tensor], outside: dict[Value, Edge]) -> bool:
    return modes.grad and (any(t.requires_grad for t in tensors) or any(outside.values()))


# ------------------------------------------------------------------------------------------ scan


def scan(
    combine_fn: Callable[..., Any], init: Any, xs: Any, *, dim: int = 0, reverse: bool = False
) -> Any:
    """A loop over the slices of tensors that carries a state along, as one loop in the graph.

    Args:
        combine_fn: ``(carry, x) -> (next carry, y)`` on tensors, or nests of them in tuples, lists
            and dicts. A carry keeps its structure, shapes and dtypes.
        init: the first carry.
        xs: what is cut into slices along `dim`; all sizes there are equal.
        reverse: from the last slice to the first; the y of a slice stands at its place all the
            same.

    Returns:
        The last carry, and the ys stacked along a new dimension `dim`.

    Raises:
        RuntimeError: `xs` holds no tensors or their sizes along `dim` differ; the function needs a
            value in Python, writes to a tensor from outside or draws random numbers.
        TypeError: the function does not return a pair, or its carry has other types than `init`.
    """
    locate()
    carried, stacked = tensors_in(init), [x.movedim(dim, 0) for x in tensors_in(xs)]
    if not stacked:
        raise RuntimeError(
            "scan() operator requires xs: give it a tensor with one slice for each step"
        )
    lengths = {x.shape[0] for x in stacked}
    if len(lengths) > 1:
        raise RuntimeError(
            f"scan: all xs must have the same size along dim {dim}, but got {sorted(lengths)}"
        )
    body = _step_of(combine_fn, init, xs, carried, stacked)
    count = len(carried)
    after, outputs = body.values[:count], body.values[count:]
    kept: list[Value] = []
    # what the gradient reads instead of computing it
    if _needs_gradient([*carried, *stacked], body.outside):
        kept = [
            *after,
            *(r for n in body.nodes if n.op.weight >= Weight.COSTLY for r in n.results()),
        ]
    graph = body.graph("scan_body", list(body.outside), [*after, *outputs, *kept])
    operands = [t._value() for t in (*carried, *stacked)] + list(body.outside)
    attrs = ScanAttrs(graph, count, len(stacked), lengths.pop(), reverse)
    orders = _kept(map(own_order, carried), body.orders[:count]) + [None] * (
        len(outputs) + len(kept)
    )
    found = _apply(
        "Scan", ops.scan.node(tuple(operands), attrs), [*carried, *stacked], body.outside, orders
    )
    results = iter(found)
    carry, ys = body.result
    return rebuild(carry, lambda _: next(results)), rebuild(
        ys, lambda _: next(results).movedim(0, dim)
    )


def _step_of(
    function: Callable[..., Any],
    init: Any,
    xs: Any,
    carried: Sequence[Tensor],
    stacked: Sequence[Tensor],
) -> Body:
    def call(step: Callable[..., Any], stands: Sequence[Tensor]) -> Any:
        given = iter(stands)
        found = step(rebuild(init, lambda _: next(given)), rebuild(xs, lambda _: next(given)))
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise TypeError(
                "scan: the function must return the next carry and a y, but it returned "
                f"{type(found).__name__}"
            )
        return found

    like = [t._type for t in carried] + [x._type.with_shape(x._type.shape[1:]) for x in stacked]
    orders = [own_order(t) for t in carried] + [None] * len(stacked)
    body = Body(
        "scan", function, like, call, [t.requires_grad for t in (*carried, *stacked)], orders
    )
    given, types = (
        [t._type for t in carried],
        [v.type for v in body.values[: len(tensors_in(body.result[0]))]],
    )
    if given != types:
        raise TypeError(
            f"scan: the carry is {given} before a step and {types} after it: it must keep its "
            "structure, shapes and dtypes"
        )
    return body


# --------------------------------------------------------------------------------- cond, while_loop


def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()
) -> Any:
    """``true_fn(*operands)`` where `pred` holds, else ``false_fn(*operands)``; only one of them is
    computed.

    Args:
        pred: a bool, or a bool tensor of one element, whose value need not be known yet.
        true_fn, false_fn: functions of tensors that return the same structure, shapes and dtypes.

    Raises:
        RuntimeError: `pred` is no bool, or the functions return different types; as `scan` for the
            rest.
    """
    locate()
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    if not callable(true_fn) or not callable(false_fn):
        raise RuntimeError("Expect both branches to be callable.")
    if not isinstance(pred, Tensor) or pred._type.dtype is not boolean or pred.numel() != 1:
        raise RuntimeError(
            f"Expected pred to be bool or single-element bool tensor, but got {pred}."
        )
    tensors = tensors_in(operands)
    like, needs, orders = _kinds(tensors)
    then, orelse = (
        Body("cond", f, like, _on(operands), needs, orders) for f in (true_fn, false_fn)
    )
    types, other = ([v.type for v in b.values] for b in (then, orelse))
    if types != other:
        raise RuntimeError(
            f"cond: true_fn returns {types} and false_fn {other}: both must return the same "
            "shapes and dtypes"
        )
    outside = {**then.outside, **orelse.outside}
    outside.update((v, e) for v, e in then.outside.items() if e is not None)
    graphs = [b.graph(n, list(outside)) for b, n in ((then, "true"), (orelse, "false"))]
    predicate = pred.reshape(())
    values = [t._value() for t in (predicate, *tensors)] + list(outside)
    node = ops.cond.node(tuple(values), CondAttrs(*graphs))
    kept = _kept(then.orders, orelse.orders)
    results = iter(_apply("Cond", node, [predicate, *tensors], outside, kept))
    return rebuild(then.result, lambda _: next(results))


def _kinds(tensors: Sequence[Tensor]) -> tuple[list[Type], list[bool], list[Order | None]]:
    """What stand-ins for tensors have of them: types, whether gradients flow, orders of memory."""
    return (
        [t._type for t in tensors],
        [t.requires_grad for t in tensors],
        [own_order(t) for t in tensors],
    )


def _on(operands: Any) -> Callable[..., Any]:
    """Calls a function with the structure of `operands`, on stand-ins."""

    def call(function: Callable[..., Any], stands: Sequence[Tensor]) -> Any:
        given = iter(stands)
        return function(*rebuild(tuple(operands), lambda _: next(given)))

    return call


def while_loop(
    cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Any
) -> Any:
    """``carried = body_fn(*carried)`` for as long as ``cond_fn(*carried)`` holds. It has no
    gradient.

    Args:
        cond_fn: returns a bool tensor of one element.
        body_fn: returns tensors of the structure, shapes and dtypes of `carried_inputs`.

    Raises:
        RuntimeError: one of them returns something else; as `scan` for the rest. `backward` through
            it says that a loop of unknown length cannot be differentiated.
    """
    locate()
    tensors = tensors_in(carried_inputs)
    like, needs, orders = _kinds(tensors)
    test, body = (
        Body("while_loop", f, like, _on(carried_inputs), needs, orders) for f in (cond_fn, body_fn)
    )
    if (
        len(test.values) != 1
        or test.values[0].dtype is not boolean
        or test.values[0].type.numel != 1
    ):
        raise RuntimeError(
            "while_loop: cond_fn must return a bool tensor of one element, but it returned "
            f"{[v.type for v in test.values]}"
        )
    if [v.type for v in body.values] != like:
        raise RuntimeError(
            f"while_loop: body_fn must return what is carried, {like}, but it returned "
            f"{[v.type for v in body.values]}"
        )
    outside = {**test.outside, **body.outside}
    graphs = [_flat(test.graph("test", list(outside))), body.graph("body", list(outside))]
    values = [t._value() for t in tensors] + list(outside)
    node = ops.while_loop.node(tuple(values), WhileAttrs(graphs[0], graphs[1], len(tensors)))
    results = iter(_apply("WhileLoop", node, tensors, outside, _kept(orders, body.orders)))
    return rebuild(tuple(carried_inputs), lambda _: next(results))


def _flat(test: Graph) -> Graph:
    """A test whose result has no dimensions."""
    (flag,) = test.outputs
    return test if flag.rank == 0 else Graph(test.name, test.inputs, [ops.reshape(flag, shape=())])


__all__ = ["cond", "scan", "while_loop"]
