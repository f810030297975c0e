"""Recording one call of a function as a closed graph.

While a `Capture` is in progress nothing runs. Storages that existed before become inputs of the graph when
they are read; those written become outputs. Tensors given as arguments are replaced by stand-ins, whose
sizes may be symbolic.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Graph, Node, Type, Value, topological
from graphtorch.ir.literal import Literal

from . import _record
from .random import signed
from .storage import Leaf, RuntimeScalar, Storage, Version
from .tensor import Tensor

Source = tuple[
    str, Any
]  # where an input's elements come from: ("argument", i), ("storage", s), ("grad", t), ("scalar", leaf)


class Capture:
    """A recording in progress, and afterwards what it recorded."""

    def __init__(self, constants: bool):
        """Args: constants: whether numbers that a replay would read again become constants (trace)."""
        self.constants = constants
        self.created: list[weakref.ref[Storage]] = []
        self.inputs: dict[Storage, Value] = {}
        self.locals: dict[Storage, Value | None] = {}
        self.writes: dict[Storage, Leaf] = {}
        self.grads: dict[Tensor, Any] = {}  # tensors whose grad was set: the grad before
        self.grad_guards: dict[Tensor, bool] = {}  # tensors whose grad was read: whether it was None
        self.grad_sources: dict[Storage, Tensor] = {}
        self.generators: dict[Any, tuple[int, int]] = {}  # state at the start
        self.value_guards: dict[Storage, int] = {}  # read in Python: their writes so far
        self.stand_ins: list[Value] = []

    # -- what happens during the call

    def read(self, storage: Storage) -> Value:
        value = storage.value
        if not isinstance(value, Leaf):
            return value
        if isinstance(value, RuntimeScalar):
            return _constant(value) if self.constants else value
        if storage in self.locals:
            made = self.locals[storage]
            if made is None:
                made = self.locals[storage] = _constant(value)
            return made
        place = self.inputs.get(storage)
        if place is None:
            place = self.inputs[storage] = Value(value.type, name=f"state{len(self.inputs)}")
        return place

    def value_read(self, storage: Storage) -> None:
        """Elements were read in Python: a replay needs them unchanged."""
        if storage not in self.locals:
            self.value_guards.setdefault(storage, storage.epoch)

    def local(self, storage: Storage) -> None:
        if not isinstance(storage.value, RuntimeScalar):
            self.locals[storage] = None

    def written(self, storage: Storage) -> None:
        value = storage.value
        if isinstance(value, Leaf) and storage not in self.locals:
            self.writes.setdefault(storage, value)
        self.locals.pop(storage, None)

    def grad_set(self, tensor: Tensor) -> None:
        self.grads.setdefault(tensor, tensor._grad)

    def grad_read(self, tensor: Tensor) -> None:
        if tensor not in self.grads and tensor not in self.grad_guards:
            self.grad_guards[tensor] = tensor._grad is None
            if tensor._grad is not None:
                self.grad_sources[tensor._grad._storage] = tensor

    def rebound(self, tensor: Tensor) -> None:
        raise RuntimeError(
            f"tensor.data is assigned at {_record.user_line()} inside a captured function: write the "
            f"elements "
            "with copy_() instead, so that a replay can do it again"
        )

    def random(self, generator: Any, used: int) -> tuple[Value, Value]:
        start = self.generators.setdefault(generator, generator.__getstate__())
        ahead = generator._offset - start[1]
        seed, offset = generator._seed, generator._offset
        generator._offset = offset + used
        if self.constants:
            return ops.constant(value=Literal.of(signed(seed), i64)), ops.constant(
                value=Literal.of(offset, i64)
            )
        return (
            RuntimeScalar(lambda: signed(generator._seed), i64),
            RuntimeScalar(lambda: generator._offset + ahead, i64),
        )

    def stand_in(self, tensor: Tensor, shape: tuple[Any, ...], name: str) -> Tensor:
        """A tensor in the place of an argument."""
        value = Value(Type(tensor._type.dtype, shape), name=name)
        self.stand_ins.append(value)
        made = object.__new__(Tensor)
        made._storage, made._counter = Storage(value), Version()
        made._rg = tensor.requires_grad
        return made

    # -- the call

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` while this capture watches; what it changed is put back afterwards by `restore`."""
        if Storage.capture is not None:
            return function()
        _record.flush()
        Storage.capture = self
        try:
            return function()
        except BaseException:
            Storage.capture = None
            self.restore()
            raise
        finally:
            Storage.capture = None

    def restore(self) -> None:
        """Put storages, gradients and generators back to where they were before the call."""
        for storage, leaf in self.writes.items():
            storage.value = leaf
        for tensor, grad in self.grads.items():
            tensor._grad = grad
        for generator, state in self.generators.items():
            generator.__setstate__(state)

    def escaped(self, kept: Iterable[Storage]) -> list[Storage]:
        """Storages made during the call that outlive it, other than `kept`: new state."""
        known = set(kept) | set(self.writes)
        found = self._alive(known)
        if found:
            del found
            gc.collect()
            found = self._alive(known)
        return found

    def _alive(self, known: set[Storage]) -> list[Storage]:
        found = [r() for r in self.created]
        return [
            s
            for s in dict.fromkeys(found)
            if s is not None and s not in known and not isinstance(s.value, Leaf)
        ]


def _constant(leaf: Leaf) -> Value:
    return ops.constant(value=Literal.of(leaf.buffer.numpy(), leaf.dtype))


# ------------------------------------------------------------------------------------------ closing a graph


class Closed:
    """A graph between given inputs and outputs, made of what a capture recorded."""

    def __init__(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value], scalars: bool = True):
        """Args:
        inputs: values without a node that become the first inputs, in order.
        scalars: whether run-time scalars become further inputs.
        """
        table: dict[Value, Value] = {
            v: Value(v.type, name=v.name or f"saved{i}") for i, v in enumerate(inputs)
        }
        self.scalars: list[RuntimeScalar] = []
        nodes: list[Node] = []
        for node in topological(outputs, frozenset(inputs)):
            operands = tuple([table.get(v) or self._leaf(v, table, nodes) for v in node.operands])
            made = Node(node.op, operands, node.attrs, node.types, node.location)
            nodes.append(made)
            for i, result in enumerate(made.results()):
                table[Value(node.types[i], node, i)] = result
        found = [table.get(v) or self._leaf(v, table, nodes) for v in outputs]
        extra = [table[s] for s in self.scalars]
        self.graph = Graph(name, [*[table[v] for v in inputs], *extra], found, nodes)

    def _leaf(self, value: Value, table: dict[Value, Value], nodes: list[Node]) -> Value:
        if isinstance(value, RuntimeScalar):
            made = Value(value.type, name=f"scalar{len(self.scalars)}")
            self.scalars.append(value)
        elif isinstance(value, Leaf):
            made = _constant(value)
            nodes.append(made.node)  # type: ignore[arg-type]
        else:
            raise RuntimeError(
                f"a tensor made in another captured call is used here ({value.type}): return it from that "
                "function instead of keeping it"
            )
        table[value] = made
        return made


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors of a nest of tuples, lists and dicts, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [t for v in tree.values() for t in tensors_in(v)]
    if isinstance(tree, (tuple, list)):
        return [t for v in tree for t in tensors_in(v)]
    return []


def rebuild(tree: Any, replace: Callable[[Tensor], Any]) -> Any:
    """The same nest with each tensor replaced, in order."""
    if isinstance(tree, Tensor):
        return replace(tree)
    if isinstance(tree, dict):
        return {k: rebuild(v, replace) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*[rebuild(v, replace) for v in tree])
    if isinstance(tree, (tuple, list)):
        return type(tree)([rebuild(v, replace) for v in tree])
    return tree
