"""`trace`: a function as a graph. `compile`: a function recorded once and replayed with next to no Python."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphtorch.ir.graph import Graph, Value, _location
from graphtorch.ir.shape import SymInt, bounds, symbol

from ._autocast import state as autocast_state
from ._capture import Capture, Closed, rebuild, tensors_in
from ._grad_mode import modes
from ._ops.base import FUNCTIONS
from ._replay import Entry, make_entry
from .nn.modules._members import changes
from .nn.modules.module import Module
from .storage import Storage, Version
from .tensor import Tensor


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
    """

    def __init__(self, graph: Graph, parameters: dict[str, Tensor], inputs: tuple[str, ...], structure: Any):
        self.graph = graph
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
        numbers in it
            become constants.
        args, kwargs: example arguments; tensors become inputs, others are fixed.
        dynamic: for an argument (by name or position) its axes that may vary, ``{"x": {0: Dim("batch")}}``.

    Returns:
        A `TracedGraph`. In-place updates of module buffers are not part of it: trace modules in ``eval()``.

    Raises:
        RuntimeError: the function needs a tensor's value in Python; the message names the line.
    """
    if isinstance(function, Tensor):  # ``torch.trace`` of PyTorch: the sum of a matrix's diagonal
        return FUNCTIONS["trace"](function)  # type: ignore[no-any-return]
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
    Storage.capture = capture
    try:
        return tensor._value()
    finally:
        Storage.capture = None


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
    names: list[str] = []
    for i in range(len(args)):
        parameter = parameters[i] if i < len(parameters) else parameters[-1] if parameters else None
        if parameter is None or (parameter.kind is parameter.VAR_POSITIONAL):
            names.append(f"{parameter.name if parameter is not None else 'arg'}{i}")
        else:
            names.append(parameter.name)
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
        number = iter(range(len(found)))
        return rebuild(
            tree, lambda t: make(name if single else f"{name}{next(number)}", t, dims.get(name, {}))
        )

    unknown = set(dims) - set(names) - set(kwargs)
    if unknown:
        raise ValueError(
            f"dynamic: there is no argument {sorted(unknown)[0]!r}: the function takes {[*names, *kwargs]}"
        )
    return [replaced(n, a) for n, a in zip(names, args, strict=True)], {
        k: replaced(k, v) for k, v in kwargs.items()
    }


# ------------------------------------------------------------------------------------------ compile


class Compiled:
    """A function that is recorded at its first call with given types, and replayed from then on."""

    def __init__(self, function: Callable[..., Any], dynamic: Any = None):
        self._function = function
        self._dynamic = dynamic
        self._entries: dict[Any, list[Entry]] = {}
        self._modules = _modules_of(function)
        self._look_at_modules()
        self._names: list[str] | None = None
        self.recorded = 0  # graphs recorded so far
        functools.update_wrapper(self, function if not isinstance(function, Module) else function.forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if Storage.capture is not None:  # called inside another captured function: part of it
            return self._function(*args, **kwargs)
        if self._seen != changes.count:
            self._check_modules()
        tensors: list[Tensor] = []
        key = (
            (tuple, *[_signature(a, tensors) for a in args]),
            _signature(kwargs, tensors) if kwargs else None,
            modes.grad,
            modes.inference,
            autocast_state.target,
            self._training,
        )
        if self._dynamic is not None:
            key = self._dynamic_key(key, args, kwargs)
        entries = self._entries.get(key)
        if entries is not None:
            for entry in entries:
                state = entry.state()
                if state is not None:
                    return entry.replay(tensors, state)
        return self._record(key, tensors, args, kwargs)

    def _check_modules(self) -> None:
        """Forget the recordings if a module got other members or attributes since."""
        modules = _modules_of(self._function)
        state = _state_of(modules)
        if state != self._state:
            self._entries.clear()
            self._modules = modules
        self._look_at_modules()

    def _look_at_modules(self) -> None:
        """Note what recordings made now depend on; valid until something is assigned to some module."""
        self._state = _state_of(self._modules)
        self._training = tuple([m.training for m in self._modules])
        self._seen = changes.count

    def _dynamic_key(self, key: Any, args: Any, kwargs: Any) -> Any:
        names = argument_names(self._function, args, kwargs)
        dims = dynamic_axes(self._dynamic, names, args)
        return (
            *[
                (_signature(a, [], dims.get(n)), n)
                for n, a in (*zip(names, args, strict=True), *kwargs.items())
            ],
            *key[2:],
        )

    def _record(self, key: Any, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        names = argument_names(self._function, args, kwargs)
        dims = dynamic_axes(self._dynamic, names, args)
        capture = Capture(constants=False)
        stands: list[Tensor] = []

        def stand_in(name: str, tensor: Tensor, axes: Mapping[int, Dim]) -> Tensor:
            made = capture.stand_in(tensor, _symbolic(tensor, axes, name), name)
            stands.append(made)
            return made

        given = _stand_ins(names, args, kwargs, dims, stand_in)
        entry, result = make_entry(capture, self._function, given, stands, tensors, self._modules)
        self.recorded += 1
        self._look_at_modules()  # the call itself may have set some
        if entry.replayable:
            kept = [e for e in self._entries.get(key, []) if e.alive()]
            self._entries[key] = [entry, *kept][:8]
        return result

    def explain(self) -> str:
        """What was compiled: for each recorded graph its kernels, memory, FLOPs and bytes."""
        entries = [e for group in self._entries.values() for e in group]
        if not entries:
            return "nothing recorded yet: call the function once"
        return "\n".join(dict.fromkeys(e.explain() for e in entries))  # recordings may share a program

    @property
    def graphs(self) -> list[Graph]:
        """The recorded graphs, as recorded."""
        return [e.graph for group in self._entries.values() for e in group]


class CompiledModule(Module):
    """A module whose `forward` is compiled; parameters, buffers and state_dict are those of the module it
    wraps."""

    def __init__(self, module: Module, dynamic: Any = None):
        super().__init__()
        self._orig_mod = module
        object.__setattr__(self, "_compiled", Compiled(module, dynamic))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)

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
    dynamic: Any = None,
    fullgraph: bool = True,
    backend: Any = None,
    mode: Any = None,
    options: Any = None,
    disable: bool = False,
) -> Any:
    """A function or module that records one call and replays it with next to no Python.

    A recording serves every later call with tensors of the same dtypes and shapes, equal other arguments, and
    the same ``training`` flags and gradient mode; another call records anew. Parameters, buffers, gradients
    and optimizer state that the function touches are inputs and outputs of the graph without being named.

    Args:
        model: a function or `Module`; None makes a decorator.
        dynamic: for an argument (by name or position) its axes that may vary, such as
            ``{"x": {0: Dim("batch", max=64)}}``; one recording then serves all sizes in the range.
        fullgraph, backend, mode, options: accepted as PyTorch's; the whole function is always one graph.
        disable: return `model` as it is.

    Raises:
        RuntimeError: at the first call, where the function needs a tensor's value in Python.
    """
    if model is None:
        return lambda f: compile(f, dynamic=dynamic, disable=disable)
    if disable:
        return model
    if not callable(model):
        raise TypeError(f"compile() takes a function or a Module, not {type(model).__name__}")
    dynamic = dynamic if isinstance(dynamic, Mapping) else None
    return CompiledModule(model, dynamic) if isinstance(model, Module) else Compiled(model, dynamic)


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
            return tree._storage.value.type, tree._rg or tree._fn is not None
        return tree._type, tree._rg or tree.requires_grad
    if isinstance(tree, (tuple, list)):
        return type(tree), *[_signature(v, tensors, axes) for v in tree]
    if isinstance(tree, dict):
        return dict, *[(k, _signature(v, tensors, axes)) for k, v in tree.items()]
    try:
        hash(tree)
    except TypeError:
        return id(tree)
    return type(tree), tree


class _Same:
    """Equal to another one of the same object only; keeps it alive, so that no new object takes its id."""

    __slots__ = ("object",)

    def __init__(self, object: Any):
        self.object = object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.object is other.object

    __hash__ = None  # type: ignore[assignment]


def _state_of(modules: Sequence[Module]) -> list[Any]:
    """What recordings of these modules depend on beside tensors' elements: members and plain attributes."""
    state: list[Any] = []
    for module in modules:
        tables = (module._parameters, module._buffers, module._modules)
        state.append([[(name, _Same(member)) for name, member in table.items()] for table in tables])
        state.append({k: v for k, v in module.__dict__.items() if k != "training" and _is_plain(v)})
    return state


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


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
