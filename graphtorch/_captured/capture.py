"""Recording one call of a function as a closed graph.

While a `Capture` is in progress nothing runs. Storages that existed before become inputs of the
graph when they are read; those written become outputs. Tensors given as arguments are replaced by
stand-ins, whose sizes may be symbolic.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Type, Value, topological
from graphtorch.ir.literal import Literal

from .._deferred import running
from .._deferred.device_storage import stored
from .._deferred.door import Buffer, DeviceBuffer
from .._deferred.storage import (
    Leaf,
    MetaLeaf,
    RuntimeScalar,
    Storage,
    Version,
    is_contiguous,
    recorder,
)
from .._deferred.tensor import Tensor
from .._deferred.walk import stand_for
from .._types import CPU, Size, device
from ..autograd.nodes import GradNode
from .segments import FEW, READS, Read, Restart, comparison, goes_out, key_of


class Boundary(GradNode):
    """In the place of what made a tensor before the call: where gradients leave the captured
    function."""

    def __init__(self, tensor: Tensor, edge: tuple[GradNode, int]):
        super().__init__(edge[0]._name, (), (), (edge,), ())
        self.types = [tensor._type]
        self.variable = tensor

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        """What arrives goes on to the graph outside: a backward pass that does so is no
        replay's."""
        if isinstance(recorder.capture, Capture):
            recorder.capture.call_off(True)
        return cotangents

    def free(self, gradients: Any, cotangents: Any) -> None:
        pass

    def register_hook(self, hook: Any) -> Any:
        """Of the node in whose place this one is: it would have to be done at every call."""
        return self._older().register_hook(hook)

    def register_prehook(self, hook: Any) -> Any:
        """As `register_hook`."""
        return self._older().register_prehook(hook)

    def _older(self) -> GradNode:
        if isinstance(recorder.capture, Capture):
            recorder.capture.call_off(True)
        return self.edges[0][0]  # type: ignore[index]


class _Exactly:
    """In the place of an array of one element, whose ``item`` is this very object."""

    def __init__(self, number: Any):
        self._number = number

    def item(self) -> Any:
        return self._number


class Known(NamedTuple):
    """A tensor that is older than the call, as it was found."""

    storage: Storage
    view: Any
    leaf: bool  # whether it is a leaf that requires grad
    fn: GradNode | None
    nr: int


class Capture:
    """A recording in progress, and afterwards what it recorded.

    Tensors from outside are used as they are: what is written to them is put back by `restore`.
    Where a replay could not do what the call does, the capture is called off: what it recorded then
    becomes ordinary pending work, and the call goes on line by line.
    """

    numbers_vary = False  # numbers of the program are constants
    differentiates = False  # whether gradients are computed in the call

    def __init__(self, constants: bool, fullgraph: bool = False):
        """Args:
        constants: whether numbers that a replay would read again become constants (trace).
        fullgraph: whether a value that is needed in Python is an error.
        """
        self.constants = constants
        self.fullgraph = fullgraph
        self.off = False
        self.place = CPU  # where the program is to run: on the GPU of the tensors it is about
        self.running = False  # whether the function runs
        # storages made during the call, by their ids
        self.created: dict[int, weakref.ref[Storage]] = {}
        self.inputs: dict[Storage, Value] = {}
        self.leaves: dict[Value, Leaf] = {}  # what the inputs hold
        self.locals: dict[Storage, Value | None] = {}
        # what was written to older ones, which stay as they are
        self.writes: dict[Storage, Value] = {}
        self.grads: dict[Tensor, Any] = {}  # tensors whose grad was set: the grad before
        # tensors whose grad was read: whether it was None
        self.grad_guards: dict[Tensor, bool] = {}
        self.grad_sources: dict[Storage, Tensor] = {}
        self.drawn: dict[Any, Storage] = {}  # generators, and where their states are
        self.value_guards: dict[Storage, int] = {}  # read in Python: their writes so far
        self.known: dict[Tensor, Known] = {}  # tensors from outside that were read or written
        self.counters: dict[Version, int] = {}  # of writes to tensors from outside: before the call
        self.arguments: dict[
            Storage, int
        ] = {}  # of tensors that are given as they are: the first one's number
        self.names: dict[Storage, str] = {}
        self.given: list[Tensor] = []  # arguments that are used as they are
        self.parts: dict[Tensor, Value] = {}  # views among them, and what they show at first
        self.stand_ins: list[Value] = []
        # stand-ins, and the arguments that they stand for
        self.stood: list[tuple[Tensor, Tensor]] = []
        self.stood_leaves: list[bool] = []  # whether the stand-ins were leaves that require grad
        self.why = ""  # it was called off
        # functions whose backward pass has to run before
        self.awaited: frozenset[type] = frozenset()
        self.reads: list[Read] = []  # of values that Python asked for
        self.numbers: list[tuple[Any, Value]] = []  # those that nothing but the result depends on
        self.root: CodeType | None = None  # what calls the function
        self.aliases: dict[Tensor, Tensor] = {}  # made inside, of older tensors
        self.views: set[int] = set()  # identities of those made inside, of older tensors
        # `created` before the gradient of its results
        self.forward: list[weakref.ref[Storage]] | None = None
        # around Python of the user's
        self.watching: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.meets: Callable[[Any], None] = lambda module: None  # called with modules that are read

    # -- what happens during the call

    def read(self, storage: Storage) -> Value:
        written = self.writes.get(storage)
        if written is not None:
            return written
        value = storage.value
        if type(value) is MetaLeaf:
            if not self.call_off(True):
                raise RuntimeError(
                    f"a tensor on the device 'meta' is read at {running.user_line()} in a "
                    "function that is being captured by compile(fullgraph=True) or "
                    "trace(): a graph computes with elements, which it has not"
                )
            return value
        if storage.place is not CPU:
            self.place = storage.place
        if not isinstance(value, Leaf):
            if self.owns(storage):
                return value
            running.settle_for(self, storage)  # another thread's work
            value = storage.value
            assert isinstance(value, Leaf)
        if isinstance(value, RuntimeScalar):
            return _constant(value) if self.constants else value
        if self.owns(storage):
            made = self.locals.get(storage)
            if made is None:
                made = self.locals[storage] = _constant(value)
            return made
        place = self.inputs.get(storage)
        if place is None:
            place = self.inputs[storage] = Value(
                value.type, name=self.names.get(storage, f"state{len(self.inputs)}")
            )
            self.leaves[place] = value
        return place

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
        """Parameters of these modules are exchanged for the time of a call: what counts is how they
        were."""
        for module in modules:
            self.meets(module)

    def by_rule(self, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator with a rule for `vmap` gives where it is not recorded as usual."""
        return NotImplemented

    def apart(self, outputs: list[Any], args: tuple[Any, ...]) -> list[Any]:
        """The results of such a function on `args`, as its gradient has to see them."""
        return outputs

    def seen(self, tensor: Tensor) -> None:
        """A tensor is about to be read."""
        if tensor._base is None and tensor not in self.known and not self.owns(tensor._storage):
            self.meet(tensor)

    def meet(self, tensor: Tensor) -> None:
        """A tensor that is older than the call: its history ends at the function's border."""
        fn = tensor._fn
        self.known[tensor] = Known(tensor._storage, tensor._view, tensor._rg, fn, tensor._nr)
        if self.constants or tensor._rg or not tensor.requires_grad:
            return
        edge = tensor._edge()
        if edge is not None:
            tensor._fn, tensor._nr = Boundary(tensor, edge), 0

    def counts(self, tensor: Tensor) -> None:
        """A tensor was written to, and is about to count that."""
        if tensor._storage in self.writes:
            self.counters.setdefault(tensor._counter, tensor._counter.number)
            base = tensor if tensor._base is None else tensor._base
            if base not in self.known:
                self.meet(base)

    def value_read(self, storage: Storage) -> None:
        """Elements were read in Python: a replay needs them unchanged."""
        if self.owns(storage):
            # numbers that the function put there; what it computed is refused, or calls this off
            return
        if storage in self.writes or self.varies(storage):
            if not self.call_off():
                running._refuse_in_capture()
            return
        if not isinstance(storage.value, Leaf):
            running.settle_for(self, storage)
        self.value_guards.setdefault(storage, storage.epoch)

    def reveal(self, tensor: Tensor, caller: Any = None) -> np.ndarray | None:
        """Elements that Python asks for, where the recording can go on: a replay looks at them and
        follows the path that they led to. None for others.

        Args:
            caller: the frame whose call ``tensor.item()`` is under way.
        """
        storage, type_ = tensor._storage, tensor._type
        if self.off or self.constants or self.fullgraph or self.stood or not type_.is_static:
            return None
        if (
            isinstance(storage.value, Leaf)
            if self.owns(storage)
            else (storage not in self.writes and not self.varies(storage))
        ):
            return None  # numbers that are the same in each call, or guarded
        compared = None
        if caller is not None and type_.dtype.is_floating_point:
            if self.root is not None and goes_out(caller, self.root):
                return self._handed_out(tensor)
            compared = comparison(caller)
        if type_.numel > FEW or (type_.dtype.is_differentiable and compared is None):
            return None  # they are others in nearly every call
        if len(self.reads) >= READS:
            return None
        value = tensor._value()
        buffer = self._computed(value, tensor.device)
        self.reads.append(Read(value, compared, key_of(buffer, compared)))
        return buffer.numpy().copy()

    def _handed_out(self, tensor: Tensor) -> Any:
        """The number of a tensor, made anew at each replay: nothing depends on it."""
        value = tensor._value()
        number = self._computed(value, tensor.device).numpy().item()
        self.numbers.append((number, value))
        return _Exactly(number)

    def _computed(self, value: Value, where: device) -> Buffer | DeviceBuffer:
        """The elements of a value in this call."""
        held = self.leaves.get(value)
        if held is not None:
            return held.buffer
        recorder.capture = None
        try:
            for place, leaf in self.leaves.items():
                stand_for(place, leaf)
            made = stored(value, where)
            running.settle(made)
        except BaseException:
            recorder.capture = self
            self.call_off(True)
            raise
        recorder.capture = self
        leaf_made = made.value
        assert isinstance(leaf_made, Leaf)
        return leaf_made.buffer

    def local(self, storage: Storage) -> None:
        if not isinstance(storage.value, RuntimeScalar):
            self.locals[storage] = None

    def owns(self, storage: Storage) -> bool:
        """Whether `storage` was made during the call."""
        made = self.created.get(id(storage))
        return (made is not None and made() is storage) or storage in self.locals

    def adopt(self, storage: Storage) -> None:
        """`storage`, just made, holds what the function computes."""
        if storage.place is not CPU:
            self.place = storage.place
        self.created[id(storage)] = weakref.ref(storage)

    def write(self, storage: Storage, value: Value) -> bool:
        """Keep what is written to a storage that is older than the call, if it is: others must not
        see it."""
        if self.owns(storage):
            self.locals.pop(storage, None)
            self.adopt(storage)
            return False
        storage.epoch += 1  # nodes of this thread look there for writes that `.data` did not count
        self.writes[storage] = value
        return True

    def aliased(self, made: Tensor, source: Tensor) -> None:
        """`made` is a new tensor over the memory that `source` shows."""
        if not self.owns(source._storage):
            self.aliases[made] = self.aliases.get(source, source)

    def viewed(self, made: Tensor) -> None:
        """`made` is a new view."""
        if not self.owns(made._storage):
            self.views.add(id(made))

    def turned(self, tensor: Tensor) -> None:
        """A tensor is about to show its memory in another way: an older view is compared
        afterwards, too."""
        if (
            tensor._base is not None
            and not self.owns(tensor._storage)
            and id(tensor) not in self.views
        ):
            self.known.setdefault(tensor, Known(tensor._storage, tensor._view, tensor._rg, None, 0))

    def watched(self, tensor: Tensor) -> None:
        """A hook is about to come to a tensor, or its gradient is to be kept: of older ones at
        every call."""
        if not self.owns(tensor._storage):
            self.call_off(True)

    def grad_set(self, tensor: Tensor) -> None:
        self.grads.setdefault(tensor, tensor._grad)

    def grad_read(self, tensor: Tensor) -> None:
        if tensor not in self.grads and tensor not in self.grad_guards:
            if tensor._grad is not None and tensor._grad.is_sparse and self.call_off(True):
                return  # indices and rows: no recording has such inputs
            self.grad_guards[tensor] = tensor._grad is None
            if tensor._grad is not None:
                self.grad_sources[tensor._grad._storage] = tensor

    def rebound(self, tensor: Tensor) -> None:
        """A tensor is about to use another storage."""
        if not self.call_off(True):
            raise RuntimeError(
                f"tensor.data is assigned at {running.user_line()} inside a traced function: write "
                "the elements with copy_() instead"
            )

    def draw(self, generator: Any, method: str, arguments: Any) -> Value:
        """Random numbers: the generator's state is read and written as a storage is."""
        self.drawn[generator] = generator._storage()
        return getattr(generator.stream, method)(generator, *arguments)  # type: ignore[no-any-return]

    def reseeded(self) -> None:
        """A generator is about to start another stream."""
        self.call_off(True)

    def stand_in(self, tensor: Tensor, shape: tuple[Any, ...], name: str) -> Tensor:
        """A tensor in the place of an argument."""
        value = Value(Type(tensor._type.dtype, shape), name=name)
        self.stand_ins.append(value)
        made = object.__new__(Tensor)
        made._storage, made._counter = stored(value, tensor.device), Version()
        self.adopt(made._storage)
        edge = tensor._edge() if tensor.requires_grad else None
        if edge is not None and not self.constants and not tensor._rg:
            made._fn = Boundary(made, edge)
        else:
            made._rg = tensor.requires_grad
        self.stood.append((made, tensor))
        self.stood_leaves.append(made._rg)
        return made

    def give(self, tensor: Tensor, number: int, name: str) -> None:
        """An argument that is used as it is."""
        storage = tensor._storage
        self.given.append(tensor)
        if tensor._view is None and storage not in self.arguments:
            self.arguments[storage] = number
            self.names[storage] = name
        if tensor not in self.known:
            self.meet(tensor)

    def varies(self, storage: Storage) -> bool:
        """Whether an argument uses it, so that elements read now say nothing of a later call."""
        return any(t._storage is storage for t in self.given)

    # -- the call

    def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` while this capture watches; what it changed is put back afterwards by
        `restore`."""
        if recorder.capture is not None:
            return function()
        running.flush()
        for tensor in self.given:
            running.settle(tensor._storage)
        recorder.capture = self
        try:
            for tensor in self.given:
                if tensor._view is not None:
                    self.parts[tensor] = tensor._value()
            self.running = True
            try:
                return function()
            finally:
                self.running = False
        except BaseException:
            if not self.off and not self.call_off(True):
                recorder.capture = None
                self.restore()
            raise
        finally:
            if recorder.capture is self:
                recorder.capture = None

    def call_off(self, always: bool = False) -> bool:
        """Stop recording: what was recorded becomes pending work, as if nobody had watched.

        Args:
            always: even if values needed in Python are errors.

        Returns:
            Whether the capture is over; one that must not be called off goes on.

        Raises:
            Restart: there are stand-ins in the function's hands, which cannot become what they
                stand for.
        """
        if self.off:
            return True
        self.why = "a call that a replay could not repeat"
        if not always:
            self.why = f"a value needed in Python at {running.user_line()}"
        if self.running and self.stood and not self.constants:
            raise Restart(f"the function cannot be recorded with symbols for sizes: {self.why}")
        if self.constants or self.stood or (self.fullgraph and not always):
            return False
        self.off = True
        if recorder.capture is self:
            recorder.capture = None
        for value, leaf in self.leaves.items():
            stand_for(value, leaf)
        # gradients of no particular cotangents are nobody's work
        created = self.created.values() if self.forward is None else self.forward
        for storage in [r() for r in created]:
            if storage is None or isinstance(storage.value, Leaf):
                continue
            held = self.leaves.get(storage.value)
            if held is not None:
                storage.put(held)
            else:
                running.pending(storage)
        for storage, value in self.writes.items():
            running.store(storage, self.leaves.get(value, value))
        self._uncut()
        return True

    def _uncut(self) -> None:
        for tensor, known in self.known.items():
            if isinstance(tensor._fn, Boundary):
                tensor._fn, tensor._nr = known.fn, known.nr

    def restore(self) -> None:
        """Put storages, gradients, generators and histories back to where they were before the
        call."""
        for tensor, grad in self.grads.items():
            tensor._grad = grad
        for counter, number in self.counters.items():
            counter.number = number
        self._uncut()

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
        found = [r() for r in self.created.values()]
        return [
            s
            for s in dict.fromkeys(found)
            if s is not None and s not in known and not isinstance(s.value, Leaf)
        ]


def buffer_of(tensor: Tensor) -> Buffer | DeviceBuffer:
    """The elements of a tensor, row-major; no copy where they lie so."""
    storage = tensor._storage
    running.settle(storage)
    buffer: Buffer = storage.value.buffer  # type: ignore[attr-defined]
    view: Any = tensor._view
    if view is None:
        return buffer
    if view.type.dtype is buffer.dtype and is_contiguous(view.type.shape, view.strides):
        return buffer.part(view.offset, view.type.shape)
    if storage.place is not CPU:
        return running.leaf_of(tensor._value(), storage.place).buffer
    return Buffer.of(tensor._array().copy())


def _constant(leaf: Leaf) -> Value:
    return ops.constant(value=Literal.of(leaf.buffer.numpy(), leaf.dtype))


# ---------------------------------------------------------------------------------- closing a graph


class Closed:
    """A graph between given inputs and outputs, made of what a capture recorded."""

    def __init__(
        self, name: str, inputs: Sequence[Value], outputs: Sequence[Value], scalars: bool = True
    ):
        """Args:
        inputs: values without a node that become the first inputs, in order.
        scalars: whether run-time scalars become further inputs.
        """
        table: dict[Value, Value] = {
            v: Value(v.type, name=v.name or f"saved{i}") for i, v in enumerate(inputs)
        }
        self.scalars: list[RuntimeScalar] = []
        self.constants: list[Leaf] = []  # elements that became part of the graph
        nodes: list[Node] = []
        for node in topological(outputs, frozenset(inputs)):
            operands = tuple([table.get(v) or self._leaf(v, table, nodes) for v in node.operands])
            made = Node(node.op, operands, node.attrs, node.types, node.location)
            nodes.append(made)
            for i, result in enumerate(made.results()):
                table[Value(node.types[i], node, i)] = result
        found = [table.get(v) or self._leaf(v, table, nodes) for v in outputs]
        self.table = table  # the graph's values, by the recorded ones
        extra = [table[s] for s in self.scalars]
        self.graph = Graph(name, [*[table[v] for v in inputs], *extra], found, nodes)

    def _leaf(self, value: Value, table: dict[Value, Value], nodes: list[Node]) -> Value:
        if isinstance(value, RuntimeScalar):
            made = Value(value.type, name=f"scalar{len(self.scalars)}")
            self.scalars.append(value)
        elif isinstance(value, Leaf):
            made = _constant(value)
            nodes.append(made.node)  # type: ignore[arg-type]
            self.constants.append(value)
        else:
            raise RuntimeError(
                f"a tensor made in another captured call is used here ({value.type}): return it "
                "from that function instead of keeping it"
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
        if type(tree) is dict:
            return {k: rebuild(v, replace) for k, v in tree.items()}
        made = copy.copy(tree)  # an OrderedDict, say
        for k, v in tree.items():
            made[k] = rebuild(v, replace)
        return made
    if isinstance(tree, (tuple, list)):
        return sequence_like(tree, [rebuild(v, replace) for v in tree])
    return tree


def sequence_like(tree: Any, parts: list[Any]) -> Any:
    """A list or tuple of the type of `tree`, named or not, of other parts; of a `Size` they may be
    what stands for sizes."""
    if type(tree) is Size:
        return Size.of(tuple(parts))
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
