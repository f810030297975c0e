"""The recording of one entry of a batch, for `vmap`; what stands for it where there are all
entries.

A function is called once, on stand-ins for one entry. What it records is mapped by the rules of the
ops (`ir.passes.batch`), and so are the nodes of the autograd graph that it made: a result has the
history that it would have had, with the same detached parts, and gradients flow to the arguments
and to the tensors that the function read from around it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from graphtorch.ir import ops
from graphtorch.ir.graph import Value
from graphtorch.ir.passes.batch import Batch

from .._deferred import running
from .._deferred.device_storage import stored
from .._deferred.making import from_value
from .._deferred.storage import Storage, Version, recorder
from .._deferred.tensor import Tensor
from .._ops.base import METHODS
from .._random.draw import OPERANDS
from .._settings import FOLDER
from ..autograd.function import Function
from ..autograd.nodes import AccumulateGrad, Edge, GradNode, new_number
from .capture import rebuild, tensors_in
from .control import Recording
from .vmap_dims import out_places

ITEM = (
    "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling "
    ".item() on a Tensor, please try to rewrite what you're doing with other operations: its "
    "elements differ from entry to entry"
)
BRANCH = (
    "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow. We "
    "don't support that: entries would take different paths. Use torch.where, or torch.cond"
)
NEEDED = (
    "vmap: the elements of a Tensor are needed in Python, or decide the shape of a result. We do "
    "not support that: they differ from entry to entry. Use operations on tensors whose shapes are "
    "known before"
)
IN_PLACE = (
    "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor "
    "`other` in extra_args that has more elements than `self`. This happened due to `other` being "
    "vmapped over but `self` not being vmapped over. Please try to use out-of-place operators "
    "instead of inplace arithmetic, or map over `self` too. A module that keeps running "
    "statistics: set `track_running_stats` to be False, call it in eval mode, or map over its "
    "buffers"
)
RANDOM = (
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or "
    "'different' randomness flags on vmap or perform the randomness operation out of vmap"
)
BACKWARD = (
    "backward() called inside a functorch transform. This is not supported, please use "
    "functorch.grad or functorch.vjp instead or call backward() outside of functorch transforms."
)


# ---------------------------------------------------------------------------------------- one entry


class Entry(Recording):
    """In the place of a capture while a function is recorded for one entry.

    Attributes:
        batch: what stands for the values of one entry where there are all.
    """

    def __init__(self, batch: Batch, randomness: str, histories: Histories, outer: Any):
        super().__init__("vmap", outer)
        self.batch = batch
        self.randomness = randomness
        self.histories = histories

    @property
    def level(self) -> int:
        """1 for the outermost `vmap`."""
        outer = self.outer
        while outer is not None and not isinstance(outer, Entry):
            outer = getattr(outer, "outer", None)
        return 1 if outer is None else outer.level + 1

    @property
    def numbers_vary(self) -> bool:
        """Numbers of the program are what they are around this."""
        return self.outer is None or bool(self.outer.numbers_vary)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is recorded inside is no part of this."""
        recorder.capture = self.outer
        try:
            yield
        finally:
            recorder.capture = self

    # -- what Python asks for

    def maps(self, tensor: Tensor) -> bool:
        """Whether the elements of `tensor` differ from entry to entry."""
        return self.batch.maps(tensor._value())

    def reveal(self, tensor: Tensor, caller: Any = None) -> Any:
        """Elements that are the same for all entries are known, or not, as they are around this."""
        if self.maps(tensor):
            if caller is None:
                raise RuntimeError(f"{NEEDED} (at {running.user_line()})")
            raise RuntimeError(f"{BRANCH if _decides(caller) else ITEM} (at {running.user_line()})")
        value = tensor._value() if self.owns(tensor._storage) else None
        with self.outside():
            return (tensor if value is None else from_value(value, tensor.device))._array()

    def all_entries(self, tensor: Tensor) -> tuple[Tensor, bool]:
        """All entries of `tensor`, along a new first dimension, and True; or itself, where all
        share it."""
        value, edge = tensor._value(), tensor._edge() if tensor.requires_grad else None
        mapped = self.batch.maps(value)
        if not mapped and not self.owns(tensor._storage):
            return tensor, False
        with self.outside():
            whole = from_value(self.batch.of(value), tensor.device)
            return _with_history(whole, self.histories.of(edge)), mapped

    def text(self, tensor: Tensor) -> str | None:
        whole, mapped = self.all_entries(tensor)
        if not mapped:
            return None
        with self.outside():
            inner = textwrap.indent(repr(whole), "    ")
        return f"BatchedTensor(lvl={self.level}, bdim=0, value=\n{inner}\n)"

    def exposed(self, tensor: Tensor) -> Any:
        whole, mapped = self.all_entries(tensor)
        if mapped:
            raise RuntimeError(f"{NEEDED} (at {running.user_line()})")
        with self.outside():
            return whole.numpy()

    def call_off(self, always: bool = False) -> bool:
        """What is around this may end; this goes on."""
        if not always:
            raise RuntimeError(f"{NEEDED} (at {running.user_line()})")
        with self.outside():
            return self.outer is None or bool(self.outer.call_off(True))

    # -- what it changes

    def write(self, storage: Storage, value: Value) -> bool:
        """Into a tensor from outside goes what is the same for all entries."""
        if self.owns(storage):
            return False
        if self.batch.maps(value):
            raise RuntimeError(f"{IN_PLACE} (at {running.user_line()})")
        with self.outside():
            running.store(storage, value)
        return True

    def counts(self, tensor: Tensor) -> None:
        if self.outer is not None and not self.owns(tensor._storage):
            self.outer.counts(tensor)

    def grad_set(self, tensor: Tensor) -> None:
        raise RuntimeError(BACKWARD)

    def reseeded(self) -> None:
        if self.outer is not None:
            self.outer.reseeded()

    def draw(self, generator: Any, method: str, arguments: tuple[Any, ...]) -> Value:
        """Random numbers: one entry's for all, or at once those of all of them, as one tensor's."""
        if self.randomness == "error":
            raise RuntimeError(RANDOM)
        values = [v for v in arguments if isinstance(v, Value)]
        if self.randomness == "same":
            if any(map(self.batch.maps, values)):
                raise RuntimeError(
                    "vmap: randomness='same' draws the same numbers for all entries, but the "
                    "parameters of the numbers differ: use randomness='different'"
                )
            with self.outside():
                return generator.draw(
                    method,
                    OPERANDS,
                    *[self.batch.of(v) if isinstance(v, Value) else v for v in arguments],
                )  # type: ignore[no-any-return]
        with self.outside():
            whole = self._all_drawn(generator, method, arguments)
        entry = Value(whole.type.with_shape(whole.shape[1:]), name="drawn")
        self.batch.map(entry, whole)
        return entry

    def _all_drawn(self, generator: Any, method: str, arguments: tuple[Any, ...]) -> Value:
        size = self.batch.size
        if method == "permutation":
            if not isinstance(size, int):
                raise RuntimeError("vmap: randperm() of entries needs their number to be known")
            rows = [generator.draw(method, OPERANDS, *arguments) for _ in range(size)]
            return ops.concat(*[ops.reshape(r, shape=(1, *r.shape)) for r in rows], dim=0)  # type: ignore[no-any-return]
        if any(isinstance(v, Value) for v in arguments):
            return generator.draw(method, OPERANDS, *map(self._of_all, arguments))  # type: ignore[no-any-return]
        # the one tuple among them is the shape
        shaped = [(size, *a) if isinstance(a, tuple) else a for a in arguments]
        return generator.draw(method, OPERANDS, *shaped)  # type: ignore[no-any-return]

    def _of_all(self, argument: Any) -> Any:
        if not isinstance(argument, Value):
            return argument
        found = self.batch.of(argument)
        if self.batch.maps(argument):
            return found
        return ops.expand(found, shape=(self.batch.size, *found.shape))

    # -- tensors of one entry

    def stand_in(self, entries: Tensor) -> Tensor:
        """One of the entries that `entries` has along its first dimension."""
        with self.outside():
            whole = entries._value()
            edge = entries._edge() if entries.requires_grad else None
        value = Value(whole.type.with_shape(whole.shape[1:]), name="entry")
        self.batch.map(value, whole)
        made: Tensor = object.__new__(Tensor)
        made._storage, made._counter = stored(value, entries._storage.place), Version()
        self.adopt(made._storage)
        if edge is not None and entries.is_leaf:
            made._rg = True
        elif edge is not None:
            made._fn = Boundary(value, whole, edge)
            made._fn.place = entries.device
        if edge is not None:
            self.histories.ends[made._edge()] = edge  # type: ignore[index]
        return made

    def applied(self, function: Any, args: tuple[Any, ...]) -> Any:
        """By its own `vmap`; one that leaves the rule to be made is recorded as usual."""
        mapped = [isinstance(a, Tensor) and self.maps(a) for a in args]
        name = function.__name__
        if not any(mapped) or function.of_operator or function.__module__.startswith(_OURS):
            return NotImplemented
        if function.setup_context is Function.setup_context:
            raise RuntimeError(
                "In order to use an autograd.Function with functorch transforms (vmap, grad, jvp, "
                f"jacrev, ...), it must override the setup_context staticmethod: {name} does not"
            )
        if function.vmap is Function.vmap:
            if function.generate_vmap_rule:
                return NotImplemented
            raise RuntimeError(
                f"You tried to vmap over {name}, but it does not have vmap support. Please "
                "override and implement the vmap staticmethod or set generate_vmap_rule=True."
            )
        return self.by_rule(function.vmap, args, {})

    def _dim(self, given: Any) -> Any:
        """The mapped dimension of an argument, or None; of several tensors those of each."""
        if isinstance(given, (tuple, list)) and tensors_in(given):
            return [self._dim(x) for x in given]
        return 0 if isinstance(given, Tensor) and self.maps(given) else None

    def about_to_replace(self, modules: Iterable[Any]) -> None:
        if self.outer is not None:
            self.outer.about_to_replace(modules)

    def by_rule(self, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a rule of the user's makes of all entries."""
        if not any(self.maps(t) for t in tensors_in((args, kwargs))):
            return NotImplemented
        in_dims = tuple([self._dim(a) for a in args])
        given, named = rebuild((args, kwargs), lambda t: self.all_entries(t)[0])
        with self.outside():
            info = VmapInfo(self.batch.size, self.randomness)
            result, out_dims = rule(info, in_dims, *given, **named)
        places = iter(out_places(rule, out_dims, result))

        def one(tensor: Tensor) -> Tensor:
            place = next(places)
            if place is None:
                return tensor
            with self.outside():
                front = tensor if place == 0 else tensor.movedim(place, 0)
            return self.stand_in(front)

        return rebuild(result, one)

    def apart(self, outputs: list[Any], args: tuple[Any, ...]) -> list[Any]:
        """Each entry of mapped arguments has results of its own: though they be equal, gradients
        may not."""
        if not any(isinstance(a, Tensor) and self.maps(a) for a in args):
            return outputs
        return [
            self._apart(o) if isinstance(o, Tensor) and not self.maps(o) else o for o in outputs
        ]

    def _apart(self, tensor: Tensor) -> Tensor:
        value = tensor._value()
        with self.outside():
            entries = from_value(
                ops.expand(value, shape=(self.batch.size, *value.shape)), tensor.device
            )
        return self.stand_in(entries)


_OURS = __package__.split(".")[0] + "."


class VmapInfo(NamedTuple):
    """What the `vmap` of an `autograd.Function` is told."""

    batch_size: Any
    randomness: str


def _decides(frame: FrameType | None) -> bool:
    """Whether an ``if`` asks for an element, as far as our own lines say."""
    while frame is not None and frame.f_code.co_filename.startswith(FOLDER):
        if frame.f_code.co_name == "is_nonzero":
            return True
        frame = frame.f_back
    return False


class Boundary(GradNode):
    """The history of a stand-in: that of all entries."""

    def __init__(self, value: Value, whole: Value, edge: Edge):
        super().__init__("VmapBackward0", (value,), (whole,), (edge,), (None,))

    def pull(self, cotangents: Sequence[Value | None]) -> list[Value | None]:
        raise RuntimeError(
            "vmap: autograd.grad() inside the function asks for the gradient of a tensor from "
            "around it, through a mapped argument. Use torch.func.grad of the argument, or call "
            "grad outside of vmap"
        )


# ---------------------------------------------------------------------------------------- histories


class Histories:
    """The autograd graph of one entry, and what stands for its nodes where there are all entries.

    Attributes:
        ends: where the gradients of stand-ins go.
    """

    def __init__(self, batch: Batch, randomness: str):
        self.batch = batch
        self.randomness = randomness
        self.ends: dict[tuple[GradNode, int], Edge] = {}
        self.start = new_number()  # of the first node that belongs to the recording
        self.made: dict[GradNode, GradNode] = {}

    def of(self, edge: Edge) -> Edge:
        """Where a gradient goes that went along `edge`."""
        if edge is None or edge in self.ends:
            return None if edge is None else self.ends[edge]
        waiting = [edge[0]]
        while waiting:
            missing = [n for n in self._before(waiting[-1]) if n not in self.made]
            if missing:
                waiting += missing
            else:
                node = waiting.pop()
                if node not in self.made:
                    self.made[node] = self._node(node)
        return self.made[edge[0]], edge[1]

    def _before(self, node: GradNode) -> list[GradNode]:
        if node.sequence < self.start or isinstance(node, AccumulateGrad):
            return []
        return [e[0] for e in node.edges if e is not None and e not in self.ends]

    def _node(self, node: GradNode) -> GradNode:
        if node.sequence < self.start or isinstance(node, AccumulateGrad):
            return node
        edges = tuple(
            [
                None if e is None else self.ends[e] if e in self.ends else (self.made[e[0]], e[1])
                for e in node.edges
            ]
        )
        if node.in_python:
            return node if edges == node.edges else InPython(node, edges, self)
        operands = tuple([self.batch.of(v) for v in node.operands])
        outputs = tuple([self.batch.of(v) for v in node.outputs])
        if edges == node.edges and operands == node.operands and outputs == node.outputs:
            return node
        made: GradNode = object.__new__(type(node))
        made.__dict__.update(
            node.__dict__,
            edges=edges,
            operands=operands,
            outputs=outputs,
            retained=None,
            types=[v.type for v in outputs],
        )
        running.remember(made)
        return made


# ----------------------------------------------------------------------------------------- the call


def for_all(
    function: Callable[[list[Tensor]], Any], entries: Sequence[Tensor], histories: Histories
) -> tuple[Any, Callable[[Tensor], tuple[Tensor, bool]]]:
    """Call `function` once, for one entry.

    Args:
        entries: tensors with all entries along their first dimension; the function gets one of
            each.

    Returns:
        What the function returned for one entry, and what gives, for a tensor in it, the same of
        all entries along a new first dimension and True, or a tensor that all share and False.
    """
    entry = Entry(histories.batch, histories.randomness, histories, recorder.capture)
    recorder.capture = entry
    try:
        stands = [entry.stand_in(t) for t in entries]
        first = [s._storage.value for s in stands]
        result = function(stands)
        written = [
            (s, t)
            for s, t, v in zip(stands, entries, first, strict=True)
            if s._storage.value is not v
        ]
        found = {
            id(t): entry.all_entries(t) for t in (*tensors_in(result), *(s for s, _ in written))
        }
    finally:
        recorder.capture = entry.outer
    for stand, entries_of_it in written:
        METHODS["copy_"](entries_of_it, found[id(stand)][0])
    return result, lambda tensor: found[id(tensor)]


def _with_history(tensor: Tensor, edge: Edge) -> Tensor:
    # the entries of a leaf as they are
    if edge is not None and isinstance(edge[0], AccumulateGrad):
        value = tensor._value()
        fn = GradNode("AliasBackward0", (value,), (value,), (edge,), (None,))
        fn.place = tensor.device
        edge = fn, 0
    if edge is not None:
        tensor._fn, tensor._nr = edge
    return tensor


class InPython(GradNode):
    """All entries of a node whose backward is a function of Python: that is recorded for one entry,
    too."""

    def __init__(self, node: GradNode, edges: tuple[Edge, ...], histories: Histories):
        super().__init__(node._name, (), (), edges, ())
        self.node, self.histories = node, histories
        self.types = [histories.batch.of(v).type for v in node.shown]
        self.place = node.place

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        batch, node = self.histories.batch, self.node
        several = [
            c is not None and batch.maps(v) for c, v in zip(cotangents, node.shown, strict=True)
        ]

        def backward(stands: list[Tensor]) -> Any:
            left = iter(stands)
            one = [next(left) if m else c for c, m in zip(cotangents, several, strict=True)]
            return node.apply(one, task)  # type: ignore[attr-defined]

        mapped = [c for c, m in zip(cotangents, several, strict=True) if m]
        found, whole = for_all(backward, mapped, self.histories)
        return [
            None if g is None or new is None else self._fitted(*whole(g), old, new)
            for g, old, new in zip(found, node.edges, self.edges, strict=True)
        ]

    def _fitted(self, gradient: Tensor, mapped: bool, old: Edge, new: Edge) -> Tensor:
        """Of what all entries share the sum of their gradients."""
        assert old is not None and new is not None
        size, shared = self.histories.batch.size, old[0].types[old[1]] is new[0].types[new[1]]
        if shared == mapped:
            return gradient.sum(0) if shared else gradient.expand((size, *gradient._type.shape))
        return gradient * size if shared else gradient
