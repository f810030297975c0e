"""`trace`: a function as a graph. `compile`: a function recorded once and replayed with next to no Python."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any
from weakref import WeakValueDictionary

from graphtorch.ir.failure import InternalError
from graphtorch.ir.generalize import Hints
from graphtorch.ir.graph import Graph, Value, _location
from graphtorch.ir.op import forget_types
from graphtorch.ir.ops.require import RAISED
from graphtorch.ir.shape import (
    Condition,
    SizeNeeded,
    SymInt,
    assuming,
    bounds,
    is_judged,
    symbol,
    without_implied,
)

from .._deferred.storage import Version, recorder
from .._deferred.tensor import Tensor
from .._ops.autocast import state as autocast_state
from .._ops.base import FUNCTIONS
from .._types import default_dtype
from ..autograd.grad_mode import modes
from ..nn.modules._call import _global_tables as global_tables
from ..nn.modules.module import Module
from ..utils.hooks import changes
from .capture import Capture, Closed, rebuild, tensors_in
from .checks import Checks, sign_of
from .guards import Watch
from .replay import OTHER, Entry, Failed, record
from .segments import LEAVES, Known, Segment, is_refuted
from .status import BACKENDS, MODES, InvalidBackend, compiled, status

SIGNATURES_BOUND = 128  # kinds of call that a function keeps recordings of; the oldest goes first
ENTRIES_BOUND = 8  # recordings of one kind of call, for different states
VAIN = 3  # recordings in vain after which a kind of call runs line by line


class Dim:
    """A size that may differ from call to call, within ``min..max``: ``Dim("batch", min=1, max=64)``.

    Dims of one name are one size. Sizes 0 and 1 are not special.

    Raises:
        ValueError: `name` is not an identifier, or min > max.
    """

    def __init__(self, name: str, *, min: int = 0, max: int | None = None):
        self.name = name
        self.min, self.max = min, max
        self.size: SymInt = symbol(name, min, max)

    def __repr__(self) -> str:
        limit = "" if self.max is None else f", max={self.max}"
        return f"Dim({self.name!r}, min={self.min}{limit})"


class TracedGraph:
    """What `trace` returns.

    Attributes:
        graph: the graph; its inputs are the tensor arguments by their names, then `parameters` by theirs.
        parameters: tensors that the function read beside its arguments, by input name: ``conv1.weight`` for
            those of a module, ``state0`` and so on for others.
        inputs: names of the inputs that are arguments, in order.
        conditions: what the sizes of the arguments have to be, beside the ranges of their `Dim`s:
            expressions that are at least 0. Comparisons that the ranges leave open went as those of the
            example did.
    """

    def __init__(self, graph: Graph, parameters: dict[str, Tensor], inputs: tuple[str, ...], structure: Any,
                 conditions: Sequence[Condition] = ()):
        self.graph = graph
        self.conditions = tuple(conditions)
        self.parameters = parameters
        self.inputs = inputs
        self._structure = structure

    def print(self) -> None:
        """Print the graph in its text form."""
        self.graph.print()

    def __str__(self) -> str:
        return str(self.graph)


def trace(
    function: Callable[..., Any],
    *args: Any,
    dynamic: Mapping[Any, Mapping[int, Dim]] | None = None,
    **kwargs: Any,
) -> TracedGraph:
    """The graph that `function` computes, recorded by one call. (Of a matrix: the sum of its diagonal.)

    Args:
        function: a function or module of tensors. What it reads beside its arguments becomes `parameters`;
            numbers in it become constants.
        args, kwargs: example arguments; tensors become inputs, others are fixed.
        dynamic: for an argument (by name or position) its axes that may vary, ``{"x": {0: Dim("batch")}}``.

    Returns:
        A `TracedGraph`. In-place updates of module buffers are not part of it: trace modules in ``eval()``.

    Raises:
        RuntimeError: the function needs a tensor's value in Python; the message names the line.
    """
    if isinstance(function, Tensor):  # ``torch.trace`` of PyTorch: the sum of a matrix's diagonal
        return FUNCTIONS["trace"](function)  # type: ignore[no-any-return]
    if not dynamic or is_judged():
        return _traced(function, args, kwargs, dynamic)
    forget_types()
    try:
        with assuming(Hints(example_sizes(function, args, kwargs, dynamic))) as hints:
            traced = _traced(function, args, kwargs, dynamic)
    finally:
        forget_types()
    traced.conditions = tuple(without_implied(hints.conditions))
    return traced


def trace_but_for_numbers(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], dynamic: Any
) -> TracedGraph:
    """`trace`, where sizes that are needed as numbers of Python stay as the example's, with a warning."""
    names = argument_names(function, args, kwargs)
    dims = dynamic_axes(dynamic, names, args)
    while True:
        try:
            return trace(function, *args, dynamic=dims, **kwargs)
        except SizeNeeded as needed:
            left = {name: {axis: dim for axis, dim in axes.items() if dim.name not in needed.names}
                    for name, axes in dims.items()}
            if left == dims:
                raise
            kept = ", ".join(sorted(needed.names))
            warnings.warn(f"{needed}. {kept} stays the example's size", stacklevel=4)
            dims = left


def _traced(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], dynamic: Any
) -> TracedGraph:
    names = argument_names(function, args, kwargs)
    dims = dynamic_axes(dynamic, names, args)
    capture = Capture(constants=True)
    known = {t._storage: path for path, t in _members(function)}
    taken = set(known.values())
    stands: list[str] = []

    def stand_in(name: str, tensor: Tensor, axes: Mapping[int, Dim]) -> Tensor:
        label = name if name not in taken else name + "_input"
        stands.append(label)
        return capture.stand_in(tensor, _symbolic(tensor, axes, name), label)

    given = _stand_ins(names, args, kwargs, dims, stand_in)
    result = capture.call(lambda: function(*given[0], **given[1]))
    outputs = tensors_in(result)
    values = [_value_within(capture, t) for t in outputs]
    capture.restore()
    _location.set(None)  # what is built by hand from here on is not of the function's last line
    order = {storage: i for i, storage in enumerate(known)}  # of the module, whichever was read first
    storages = sorted(capture.inputs, key=lambda s: order.get(s, len(order)))
    for storage in storages:
        capture.inputs[storage].name = known.get(storage, capture.inputs[storage].name)
    closed = Closed("main", [*capture.stand_ins, *(capture.inputs[s] for s in storages)], values)
    parameters = {capture.inputs[s].name: _holder(function, s) for s in storages}
    return TracedGraph(closed.graph, parameters, tuple(stands), result)


def _value_within(capture: Capture, tensor: Tensor) -> Value:
    recorder.capture = capture
    try:
        return tensor._value()
    finally:
        recorder.capture = None


def _holder(function: Any, storage: Any) -> Tensor:
    for _, tensor in _members(function):
        if tensor._storage is storage:
            return tensor
    made = object.__new__(Tensor)
    made._storage, made._counter = storage, Version()
    return made


def _members(function: Any) -> list[tuple[str, Tensor]]:
    module = function if isinstance(function, Module) else getattr(function, "__self__", None)
    if not isinstance(module, Module):
        return []
    return [*module.named_parameters(), *module.named_buffers()]


# ------------------------------------------------------------------------------------------ arguments


def argument_names(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """A name for each positional argument."""
    target = function.forward if isinstance(function, Module) else function
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    by_place = [p for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    taken = {p.name for p in parameters} | set(kwargs)
    names: list[str] = []
    for i in range(len(args)):
        parameter = by_place[min(i, len(by_place) - 1)] if by_place else None
        if parameter is not None and parameter.kind is not parameter.VAR_POSITIONAL:
            names.append(parameter.name)
            continue
        name = f"{parameter.name if parameter is not None else 'arg'}{i}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def dynamic_axes(dynamic: Any, names: Sequence[str], args: Sequence[Any]) -> dict[str, dict[int, Dim]]:
    """`dynamic` with names for positions and axes counted from the front.

    Raises:
        ValueError: no such argument. TypeError: an axis is not marked with a Dim. IndexError: no such axis.
    """
    found: dict[str, dict[int, Dim]] = {}
    for key, axes in (dynamic or {}).items():
        name = names[key] if isinstance(key, int) and -len(names) <= key < len(names) else key
        if isinstance(name, int):
            raise ValueError(f"dynamic: there is no argument {key}: got {len(names)}")
        if not isinstance(axes, Mapping):
            raise TypeError(
                f"dynamic: expected {{axis: Dim}} for argument {name!r}, got {type(axes).__name__}"
            )
        for axis, dim in axes.items():
            if not isinstance(dim, Dim):
                raise TypeError(
                    f"dynamic: axis {axis} of {name!r} must be marked with a Dim, not {type(dim).__name__}"
                )
        found[name] = dict(axes)
    return found


def example_sizes(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic: Any
) -> dict[str, Any]:
    """The sizes that the arguments have in the place of each `Dim`, by its name."""
    names = argument_names(function, tuple(args), dict(kwargs))
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return {
        dim.name: given[name].shape[axis]
        for name, axes in dynamic_axes(dynamic, names, args).items()
        if isinstance(given.get(name), Tensor)
        for axis, dim in axes.items()
        if -given[name].dim() <= axis < given[name].dim()
    }


def _symbolic(tensor: Tensor, axes: Mapping[int, Dim], name: str) -> tuple[Any, ...]:
    shape = list(tensor._type.shape)
    for axis, dim in axes.items():
        if not -len(shape) <= axis < len(shape):
            raise IndexError(f"dynamic: argument {name!r} of shape {shape} has no axis {axis}")
        size = shape[axis]
        low, high = bounds(dim.size)
        if not low <= size <= high:
            raise RuntimeError(f"dynamic: argument {name!r} has size {size} at axis {axis}, outside {dim!r}")
        shape[axis] = dim.size
    return tuple(shape)


def _stand_ins(
    names: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    dims: Mapping[str, Mapping[int, Dim]],
    make: Callable[[str, Tensor, Mapping[int, Dim]], Tensor],
) -> tuple[list[Any], dict[str, Any]]:
    def replaced(name: str, tree: Any) -> Any:
        found = tensors_in(tree)
        single = len(found) == 1 and tree is found[0]
        if not found:
            return tree
        axes = dims.get(name, {})
        made = [make(name if single else f"{name}{i}", t, axes) for i, t in enumerate(found)]
        if all(map(is_, made, found)):
            return tree  # itself, so that a list that is changed is the caller's
        position = iter(made)
        return rebuild(tree, lambda _: next(position))

    unknown = set(dims) - set(names) - set(kwargs)
    if unknown:
        raise ValueError(
            f"dynamic: there is no argument {sorted(unknown)[0]!r}: the function takes {[*names, *kwargs]}"
        )
    return [replaced(n, a) for n, a in zip(names, args, strict=True)], {
        k: replaced(k, v) for k, v in kwargs.items()
    }


# ------------------------------------------------------------------------------------------ compile


def _check_sizes(dims: Mapping[str, Mapping[int, Dim]], given: Mapping[str, Any]) -> None:
    """Raise where sizes are not what the Dims say: out of range, or different for one Dim."""
    found: dict[str, tuple[str, Tensor, int]] = {}
    for name, axes in dims.items():
        for tensor in tensors_in(given.get(name)):
            _symbolic(tensor, axes, name)
            for axis, dim in axes.items():
                first, other, place = found.setdefault(dim.name, (name, tensor, axis))
                if other._type.shape[place] != tensor._type.shape[axis]:
                    raise RuntimeError(
                        f"sizes that were given one Dim must be equal: {first} has shape "
                        f"{list(other._type.shape)}, {name} has shape {list(tensor._type.shape)}, with Dim "
                        f"{dim.name!r} at axis {place} and {axis}"
                    )


class Kind:
    """The recordings of calls of one kind, the latest first, and what finds the tensors of such calls."""

    __slots__ = ("entries", "matches")

    def __init__(self, entries: list[Entry]):
        self.entries = entries
        self.matches: Any = _UNKNOWN  # see `Compiled._matching`


_UNKNOWN = object()


class Compiled:
    """A function that is recorded at its first call with given types, and replayed from then on."""

    def __init__(self, function: Callable[..., Any], dynamic: Any = None, fullgraph: bool = False):
        self._function = function
        self._fullgraph = fullgraph
        self._dims = dynamic if isinstance(dynamic, Mapping) else None
        self._refused = False  # whether recording with symbols for sizes failed
        self._dynamic = None if isinstance(dynamic, Mapping) else dynamic
        self._entries: dict[Any, Kind] = {}
        self._segments: WeakValueDictionary[Any, Segment] = WeakValueDictionary()
        self._last: tuple[Any, Kind] | None = None  # what served last: a copy of its `matches`, and the kind
        self._vain: dict[Any, tuple[int, str]] = {}  # how often recording a kind of call was in vain, and why
        self._modules = _modules_of(function)
        self._look_at_modules()
        self.recorded = 0  # graphs recorded so far
        compiled.add(self)
        functools.update_wrapper(self, function if not isinstance(function, Module) else function.forward)
        self._torchdynamo_orig_callable = function

    def __reduce__(self) -> Any:
        """A copy is made of the function, and records anew; one that stands in a module is known by name."""
        name, place = getattr(self, "__qualname__", ""), sys.modules.get(getattr(self, "__module__", ""))
        if name and functools.reduce(lambda o, n: getattr(o, n, None), name.split("."), place) is self:
            return name
        return type(self), (self._function, self._dims or self._dynamic, self._fullgraph)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if recorder.capture is not None:  # called inside another captured function: part of it
            return self._function(*args, **kwargs)
        if status.stance != "default" and not self._may_serve():
            return self._function(*args, **kwargs)
        if self._seen != changes.count:
            self._check_modules()
        last = self._last
        if last is not None:
            given = last[0](args, kwargs)
            if given is not None:
                result = self._serve(last[1], given, args, kwargs)
                if result is not OTHER:
                    return result
        tensors: list[Tensor] = []
        key = self._key(args, kwargs, tensors)
        kind = self._entries.get(key)
        if kind is not None:
            result = self._serve(kind, tensors, args, kwargs)
            if result is not OTHER:
                if kind.matches is _UNKNOWN:
                    kind.matches = self._matching(args, kwargs)
                self._last = None if kind.matches is None else (kind.matches, kind)
                return result
        if key in self._vain and self._vain[key][0] >= VAIN:
            return self._line_by_line(args, kwargs)
        if status.stance in ("eager_on_recompile", "fail_on_recompile"):
            return self._unrecorded(args, kwargs)
        return self._record(key, tensors, args, kwargs)

    def _line_by_line(self, args: Any, kwargs: Any) -> Any:
        status.depth += 1
        try:
            return self._function(*args, **kwargs)
        finally:
            status.depth -= 1

    def _may_serve(self) -> bool:
        """Whether the stance of this thread lets calls be replayed."""
        return status.stance != "force_eager"

    def _unrecorded(self, args: Any, kwargs: Any) -> Any:
        """A call that no recording serves, where none is to be made."""
        if status.stance == "eager_on_recompile":
            return self._function(*args, **kwargs)
        code = getattr(inspect.unwrap(self._function), "__code__", None)
        raise RuntimeError(
            "Detected recompile when torch.compile stance is 'fail_on_recompile'. filename: "
            f"'{getattr(code, 'co_filename', '')}', function name: '{getattr(self, '__name__', '')}', "
            f"line number: {getattr(code, 'co_firstlineno', 0)}"
        )

    def reset(self) -> None:
        """Forget what was recorded."""
        self._entries.clear()
        self._vain.clear()
        self._last = None

    def _serve(self, kind: Kind, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        """The result of the first recording that fits; OTHER where none does."""
        known: Known = {}
        for entry in kind.entries:
            if known and is_refuted(entry.steps, known):
                continue
            state = entry.state(tensors)
            if state is None:
                continue
            try:
                result = entry.replay(tensors, state, known)
            except Failed as failure:
                return self._plainly(args, kwargs, failure.__cause__)
            if result is not OTHER:
                entry.ran = True
                return result
        return OTHER

    def _plainly(self, args: Any, kwargs: Any, error: BaseException | None) -> Any:
        """What the plain call gives where a program failed, and what it leaves behind: what it wrote before.

        Raises:
            The program's `error`, which names the line, in the place of one of its type.
        """
        try:
            return self._line_by_line(args, kwargs)
        except RAISED as own:
            if error is None or type(own) is not type(error):
                raise
        raise error

    def _key(self, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        key = (
            (tuple, *[_signature(a, tensors) for a in args]),
            _signature(kwargs, tensors) if kwargs else None,
            modes.grad,
            modes.inference,
            modes.anomaly,
            autocast_state.target,
            _default_dtypes(),
            self._training,
            _shared_by(tensors) if len(tensors) > 1 else None,
        )
        if self._dims is not None and not self._refused:
            return self._dynamic_key(key, args, kwargs)
        return key

    def _matching(self, args: Any, kwargs: Any) -> Any:
        """The tensors of arguments that have the key of these; None for others, or where there is no such
        function: it is one written for these arguments, a fraction of what `_key` takes."""
        if self._dims is not None:
            return None
        checks = Checks()
        try:
            names = write_signature(checks, args, kwargs)
        except NotImplementedError:
            return None
        for text, value in (
            (f"{checks.const(self)}._training", self._training),
            (f"{checks.const(modes)}.grad", modes.grad),
            (f"{checks.const(modes)}.inference", modes.inference),
            (f"{checks.const(modes)}.anomaly", modes.anomaly),
            (f"{checks.const(autocast_state)}.target", autocast_state.target),
            (f"{checks.const(default_dtype)}()", default_dtype()),
        ):
            checks.value(text, value)
        return checks.function("args, kwargs", [f"return [{', '.join(names)}]"], "None")

    def _check_modules(self) -> None:
        """Forget the recordings if a module got other members, attributes or hooks since."""
        state = _state_of(self._modules)
        if state != self._state:
            self._entries.clear()
            self._last = None
            self._modules = _modules_of(self._function)
        self._look_at_modules()

    def _look_at_modules(self) -> None:
        """Note what recordings made now depend on; valid until something is assigned to some module."""
        self._state = _state_of(self._modules)
        self._training = tuple([m.training for m in self._modules])
        self._seen = changes.count

    def _dynamic_key(self, key: Any, args: Any, kwargs: Any) -> Any:
        names = argument_names(self._function, args, kwargs)
        dims = dynamic_axes(self._dims, names, args)
        return (
            *[
                (_signature(a, [], dims.get(n)), n)
                for n, a in (*zip(names, args, strict=True), *kwargs.items())
            ],
            *key[2:],
        )

    def _record(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        names = argument_names(self._function, args, kwargs)
        dims = dynamic_axes(self._dims, names, args)
        if dims and not self._refused and _shared_by(tensors) is not None:
            self._refused = True  # what stands for arguments with symbols for sizes has memory of its own
            return self(*args, **kwargs)
        if dims and self._refused:
            _check_sizes(dims, dict(zip(names, args, strict=True)) | kwargs)
            dims = {}
        watch = Watch(self._function, (*args, *kwargs.values()), _state_of)
        before = {m: m.training for m in self._modules}
        capture = Capture(False, self._fullgraph)
        stands: dict[int, Tensor] = {}
        given = self._given(capture, stands, names, args, kwargs, dims)

        def call() -> Any:
            capture.root = call.__code__
            status.depth += 1
            watch.start()
            try:
                result = self._function(*given[0], **given[1])
            finally:
                watch.stop()
                status.depth -= 1
            if not capture.off and (
                watch.impure or not watch.knows(result) or not watch.is_unchanged()
                or self._key(args, kwargs, []) != key
            ) and not capture.call_off(True):
                raise RuntimeError("the function does something in Python that a replay could not repeat")
            return result

        try:
            made = record(capture, call, tensors, stands, self._dynamic, self._segments)
        except (TypeError, ValueError, RuntimeError, IndexError, InternalError) as error:
            if not dims or capture.off:
                raise
            self._refused = True  # if it is the user's fault, recording without them will tell
            warnings.warn(
                f"compile(): {str(error).splitlines()[0]}. The function is recorded for each size instead, "
                "and sizes that change are found by comparing the recordings",
                stacklevel=4 if isinstance(self._function, Module) else 3,
            )
            return self(*args, **kwargs)
        if capture.off:
            count = self._vain.pop(key, (0, ""))[0] + (VAIN if watch.impure or "Python" in capture.why else 1)
            if len(self._vain) >= SIGNATURES_BOUND:
                self._vain.pop(next(iter(self._vain)))
            self._vain[key] = count, f"calls {watch.impure}" if watch.impure else capture.why
            return made
        self.recorded += 1
        entry = made.entry
        try:
            result = made.first_run()
        except Failed as failure:
            return self._plainly(args, kwargs, failure.__cause__)
        reached = watch.reached()
        ids = set(map(id, reached))
        entry.shared.update((i, t._storage) for i, t in enumerate(tensors) if id(t) in ids)
        ids = set(map(id, tensors))
        entry.bind(t for t in reached if id(t) not in ids)
        entry.own |= frozenset(entry.shared.values())
        self._keep(key, entry, watch, before, args, kwargs)
        return result

    def _given(
        self, capture: Capture, stands: dict[int, Tensor], names: Any, args: Any, kwargs: Any, dims: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments to record with: themselves, or what stands for those whose sizes are symbols."""
        numbers = itertools.count()

        def stand_in(name: str, tensor: Tensor, axes: Mapping[int, Dim]) -> Tensor:
            number = next(numbers)
            if not dims:
                capture.give(tensor, number, name)
                return tensor
            made = stands[number] = capture.stand_in(tensor, _symbolic(tensor, axes, name), name)
            return made

        return _stand_ins(names, args, kwargs, dims, stand_in)

    def _keep(
        self, key: Any, entry: Entry, watch: Watch, before: dict[Any, bool], args: Any, kwargs: Any
    ) -> None:
        """Remember a recording for later calls."""
        new = {m: training for m, training in watch.modules.items() if m not in before}
        before.update(new)
        self._modules = [*self._modules, *new]
        self._look_at_modules()  # the call itself may have set some
        entry.bind(
            t for m in self._modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None
        )
        entry.guard(watch)
        if new:
            self._training, after = tuple(before.values()), self._training
            key = self._key(args, kwargs, [])
            self._training = after
        old = self._entries.pop(key, None)
        kept = [] if old is None else [e for e in old.entries if e.alive()]
        self._last = None
        if entry.steps and sum(bool(e.steps) for e in kept) >= LEAVES:
            self._give_up(key)
            return
        if len(kept) >= ENTRIES_BOUND and not any(e.ran for e in kept):
            self._vain[key] = VAIN, "what it reads in Python is another at each call"
            return
        if len(self._entries) >= SIGNATURES_BOUND:
            self._entries.pop(next(iter(self._entries)))
        self._entries[key] = Kind([entry, *kept][:ENTRIES_BOUND])

    def _give_up(self, key: Any) -> None:
        """From now on calls of a kind run line by line: values that Python reads lead to ever new paths."""
        self._vain[key] = VAIN, f"values that it reads in Python led to more than {LEAVES} paths"
        warnings.warn(
            f"compile(): {getattr(self, '__name__', 'the function')}() took more than {LEAVES} paths, by "
            "values of tensors that it reads in Python. It runs line by line from now on; torch.where, "
            "torch.cond and tensor arithmetic in the place of .item() keep it compiled",
            stacklevel=5,
        )

    def explain(self) -> str:
        """What was compiled: for each recorded graph its kernels, memory, FLOPs and bytes."""
        entries = [e for kind in self._entries.values() for e in kind.entries]
        texts = [e.explain() for e in entries]
        texts += [f"runs line by line: {why}" for _, why in self._vain.values()]
        return "\n".join(dict.fromkeys(texts)) or "nothing recorded yet: call the function once"

    @property
    def graphs(self) -> list[Graph]:
        """The recorded graphs, as recorded."""
        return [e.whole for kind in self._entries.values() for e in kind.entries]


class OptimizedModule(Module):
    """A module whose `forward` is compiled; parameters, buffers and state_dict are those of the module it
    wraps."""

    def __init__(self, module: Module, dynamic: Any = None, fullgraph: bool = False):
        super().__init__()
        del self.__dict__["training"]  # that of `module`
        self._orig_mod = module
        object.__setattr__(self, "_compiled", Compiled(module, dynamic, fullgraph))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._forward_pre_hooks or self._forward_hooks or self._backward_hooks or self._backward_pre_hooks:
            return super().__call__(*args, **kwargs)
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_orig_mod":
                raise
            return getattr(super().__getattr__("_orig_mod"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """What is set is set on the module that this one wraps."""
        if name == "_orig_mod":
            super().__setattr__(name, value)
        elif name in self.__dict__ or (hasattr(type(self), name) and name != "training"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        (super().__delattr__ if name in self.__dict__ else self._orig_mod.__delattr__)(name)

    @property
    def training(self) -> bool:  # type: ignore[override]
        """Whether the module that this one wraps is in training mode."""
        return self._orig_mod.training  # type: ignore[no-any-return]

    def explain(self) -> str:
        """What was compiled; see `Compiled.explain`."""
        return self._compiled.explain()

    @property
    def graphs(self) -> list[Graph]:
        """The recorded graphs."""
        return self._compiled.graphs

    @property
    def recorded(self) -> int:
        """Graphs recorded so far."""
        return self._compiled.recorded


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: Any = None,
    backend: Any = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
) -> Any:
    """A function or module that records one call and replays it with next to no Python.

    A compiled call gives what the plain call gives, or it is not replayed. A recording serves later calls for
    which what it depends on is as it was: dtypes, shapes and flags of tensors, other arguments, and what the
    function read in Python; another call records anew. Parameters, buffers, gradients and optimizer state
    that the function touches are inputs and outputs of the graph without being named. Values that Python asks
    for lead to paths, each with a recording; calls that use them otherwise, or change something in Python,
    run line by line.

    Args:
        model: a function or `Module`; None makes a decorator. Of a class, its instances' calls are compiled.
        fullgraph: whether a value that is needed in Python is an error.
        dynamic: None: sizes and Python numbers that change from call to call become symbols of one program.
            False: each size has a program of its own; True: sizes that come once have none. Or for an
            argument (by name or position) its axes that may vary, such as ``{"x": {0: Dim("batch",
            max=64)}}``; one recording then serves all sizes in the range.
        backend: a name of PyTorch's: all of them mean this compiler. A function is not called, which warns.
        mode, options: checked as PyTorch's, of which they choose between schedules; they change nothing here.
        disable: return `model` as it is.
        name, recompile_limit, isolate_recompiles, shapes_spec: accepted as PyTorch's.

    Raises:
        AssertionError: `model` cannot be called.
        TypeError: `dynamic` is none of these.
        InvalidBackend: (a RuntimeError) there is no backend of this name.
        RuntimeError: no such mode, or both `mode` and `options`; with `fullgraph`, at the first call, where
            the function needs a value in Python.
    """
    if model is None:
        return functools.partial(compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode,
                                 options=options, disable=disable)
    if mode is not None and options is not None:
        raise RuntimeError(
            "Either mode or options can be specified, but both can't be specified at the same time."
        )
    if not callable(model):
        raise AssertionError(f"A callable function is expected, but {type(model)} is provided.")
    _check_backend(backend, mode)
    if disable:
        return model
    if not (dynamic is None or isinstance(dynamic, (bool, Mapping))):
        raise TypeError(
            "compile(): dynamic must be True, False, None or {argument: {axis: Dim}}, not "
            f"{type(dynamic).__name__}"
        )
    if inspect.isclass(model):
        setattr(model, "__call__", Compiled(model.__call__, dynamic, fullgraph))  # noqa: B010
        return model
    return (OptimizedModule if isinstance(model, Module) else Compiled)(model, dynamic, fullgraph)


def _check_backend(backend: Any, mode: Any) -> None:
    if mode is not None and mode not in MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}")
    if isinstance(backend, str) and backend not in BACKENDS:
        raise InvalidBackend(backend)
    if callable(backend):
        warnings.warn(
            f"compile(): the backend {getattr(backend, '__name__', backend)!r} is not called: it works on "
            "graphs of torch.fx, and functions are compiled without them",
            stacklevel=3,
        )


def _signature(tree: Any, tensors: list[Tensor], axes: Mapping[int, Dim] | None = None) -> Any:
    """What must be equal for a recording to serve: types of tensors, values of other arguments."""
    if isinstance(tree, Tensor):
        tensors.append(tree)
        if axes:
            shape = list(tree._type.shape)
            for axis, dim in axes.items():
                if -len(shape) <= axis < len(shape) and dim.min <= shape[axis] <= (dim.max or shape[axis]):
                    shape[axis] = dim.name
            return tree._type.dtype, tuple(shape), tree.requires_grad
        if tree._base is None and tree._view is None:  # the common case, without the properties' calls
            if tree._hooks is None and tree._post_hooks is None:
                return type(tree), tree._storage.value.type, tree._rg, tree._fn is None, tree._inference
            return type(tree), tree._type, tree._rg, tree._fn is None, tree._inference, _hooks_of(tree)
        view = tree._view
        strides = None if view is None else view.strides
        return (type(tree), tree._type, tree.requires_grad, tree._rg, tree._inference, _hooks_of(tree),
                strides)
    if isinstance(tree, (tuple, list)):
        return type(tree), *[_signature(v, tensors, axes) for v in tree]
    if isinstance(tree, dict):
        return dict, *[(k, _signature(v, tensors, axes)) for k, v in tree.items()]
    kind = type(tree)
    if kind in _BY_VALUE:
        return kind, tree, sign_of(tree)
    return _Same(tree)


def write_signature(checks: Checks, args: Any, kwargs: Any) -> list[str]:
    """The conditions under which arguments have the `_signature` of these; the names of the tensors in them.

    Raises:
        NotImplementedError: for tensors that are views, that share memory or that have hooks.
    """
    names: list[str] = []
    tensors: list[Tensor] = []

    def write(text: str, tree: Any) -> None:
        kind = type(tree)
        if isinstance(tree, Tensor):
            _write_tensor(checks, f"(a{len(names)} := {text})", f"a{len(names)}", tree)
            names.append(f"a{len(names)}")
            tensors.append(tree)
        elif kind in (tuple, list):
            checks.add(f"type({text}) is {kind.__name__} and len({text}) == {len(tree)}")
            for i, one in enumerate(tree):
                write(f"{text}[{i}]", one)
        elif kind is dict:
            checks.add(f"type({text}) is dict and [*{text}] == {checks.const(list(tree))}")
            for key, one in tree.items():
                write(f"{text}[{checks.const(key)}]", one)
        elif isinstance(tree, (tuple, list, dict)):
            raise NotImplementedError
        else:
            checks.value(text, tree)

    checks.add(f"len(args) == {len(args)}")
    for i, one in enumerate(args):
        write(f"args[{i}]", one)
    if kwargs:
        write("kwargs", kwargs)
    else:
        checks.add("not kwargs")
    if _shared_by(tensors) is not None:
        raise NotImplementedError
    if len(names) > 1:
        storages = ", ".join(f"{n}._storage" for n in names)
        checks.add(f"len({{{storages}}}) == {len(names)}" if len(names) > 2 else
                   " is not ".join(storages.split(", ")))
    return names


def _write_tensor(checks: Checks, first: str, name: str, tensor: Tensor) -> None:
    plain = tensor._base is None and tensor._view is None
    if type(tensor) is not Tensor or not plain or tensor._hooks is not None or tensor._post_hooks is not None:
        raise NotImplementedError
    checks.add(f"type({first}) is {checks.const(Tensor)}")
    checks.add(f"{name}._storage.value.type is {checks.const(tensor._type)}")
    for attribute in ("_base", "_view", "_hooks", "_post_hooks"):
        checks.add(f"{name}.{attribute} is None")
    checks.add(f"{name}._rg is {tensor._rg}")
    checks.add(f"{name}._fn is {'' if tensor._fn is None else 'not '}None")
    checks.add(f"{name}._inference is {tensor._inference}")


_BY_VALUE = frozenset((int, float, bool, str, bytes, complex, type(None)))


def _hooks_of(tensor: Tensor) -> Any:
    return tuple(tensor._hooks or ()), tuple(tensor._post_hooks or ())


def _shared_by(tensors: Sequence[Tensor]) -> Any:
    """Which tensors are the same, and which use one storage; None where all is apart."""
    storages = [t._storage for t in tensors]
    if len(set(storages)) == len(storages):
        return None
    ids = [id(t) for t in tensors]
    return tuple(map(storages.index, storages)), tuple(map(ids.index, ids))


def _default_dtypes() -> Any:
    return default_dtype()


class _Same:
    """Equal to another one of the same object only; keeps it alive, so that no new object takes its id."""

    __slots__ = ("object",)

    def __init__(self, object: Any):
        self.object = object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.object is other.object

    def __hash__(self) -> int:
        return id(self.object)


def _state_of(modules: Sequence[Module]) -> list[Any]:
    """What recordings of these modules depend on beside tensors' elements: members, attributes and hooks."""
    state: list[Any] = [[list(table) for table in global_tables]]
    for module in modules:
        tables = (module._parameters, module._buffers, module._modules)
        state.append([[(name, _Same(member)) for name, member in table.items()] for table in tables])
        state.append({k: _kept(v) for k, v in module.__dict__.items() if k not in _APART})
        state.append([_hooks_of(t) for t in module._parameters.values() if t is not None])
    return state


_APART = frozenset(("training", "_parameters", "_buffers", "_modules"))


def _kept(value: Any) -> Any:
    """An attribute to compare with later: plain values and what is in tables of hooks; others by identity."""
    if isinstance(value, OrderedDict):
        return [(k, _Same(v)) for k, v in value.items()]
    if isinstance(value, (tuple, list)):
        return [_kept(v) for v in value]
    return (type(value), value, sign_of(value)) if type(value) in _BY_VALUE else _Same(value)


def _modules_of(function: Any) -> list[Module]:
    """Modules a function can reach: their ``training`` flags are guarded."""
    roots: list[Any] = [function, getattr(function, "__self__", None)]
    plain: Any = None if isinstance(function, Module) else \
        inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(plain, "__code__", None)
    if code is not None:
        for cell in plain.__closure__ or ():
            try:
                roots.append(cell.cell_contents)
            except ValueError:
                continue
        roots += [plain.__globals__[n] for n in code.co_names if n in plain.__globals__]
    found: dict[int, Module] = {}
    for root in roots:
        for one in root if isinstance(root, (list, tuple)) else (root,):
            if isinstance(one, Module):
                found.update({id(m): m for m in one.modules()})
    return list(found.values())
