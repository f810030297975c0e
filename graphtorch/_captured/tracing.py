"""`trace`: a function as a graph; names and sizes of arguments."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

from graphtorch.ir.generalize import Hints
from graphtorch.ir.graph import Graph, Value, _location
from graphtorch.ir.judge import assuming, judge_here
from graphtorch.ir.shape import (
    Condition,
    SizeNeeded,
    SymInt,
    bounds,
    symbol,
    without_implied,
)

from .._deferred.storage import Version, recorder
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from ..nn.modules.module import Module
from .capture import Capture, Closed, rebuild, tensors_in


class Dim:
    """A size that may differ from call to call, within ``min..max``: ``Dim("batch", min=1,
    max=64)``.

    Dims of one name are one size. Sizes 0 and 1 are not special.

    Raises:
        ValueError: `name` is not an identifier, or min > max.
    """

    def __init__(self, name: str, *, min: int = 0, max: int | None = None):
        self.name = name
        self.min, self.max = min, max
        self.size: SymInt = symbol(name, min, max)
        self.marker = name  # what stands for the size in the signature of a call

    def __repr__(self) -> str:
        limit = "" if self.max is None else f", max={self.max}"
        return f"Dim({self.name!r}, min={self.min}{limit})"


class Unnamed(Dim):
    """A size that is a symbol without having been given a name."""

    def __init__(self, name: str, *, min: int, max: int | None):
        super().__init__(name, min=min, max=max)
        self.marker = "*"


class TracedGraph:
    """What `trace` returns.

    Attributes:
        graph: the graph; its inputs are the tensor arguments by their names, then `parameters` by
            theirs.
        parameters: tensors that the function read beside its arguments, by input name:
            ``conv1.weight`` for those of a module, ``state0`` and so on for others.
        inputs: names of the inputs that are arguments, in order.
        conditions: what the sizes of the arguments have to be, beside the ranges of their `Dim`s:
            expressions that are at least 0. Comparisons that the ranges leave open went as those of
            the example did.
        differentiates: whether gradients are computed in the function.
    """

    differentiates = False

    def __init__(
        self,
        graph: Graph,
        parameters: dict[str, Tensor],
        inputs: tuple[str, ...],
        structure: Any,
        conditions: Sequence[Condition] = (),
    ):
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
    """The graph that `function` computes, recorded by one call. (Of a matrix: the sum of its
    diagonal.)

    Args:
        function: a function or module of tensors. What it reads beside its arguments becomes
            `parameters`; numbers in it become constants.
        args, kwargs: example arguments; tensors become inputs, others are fixed.
        dynamic: for an argument (by name or position) its axes that may vary, ``{"x": {0:
            Dim("batch")}}``.

    Returns:
        A `TracedGraph`. In-place updates of module buffers are not part of it: trace modules in
        ``eval()``.

    Raises:
        RuntimeError: the function needs a tensor's value in Python; the message names the line.
    """
    if isinstance(function, Tensor):  # ``torch.trace`` of PyTorch: the sum of a matrix's diagonal
        return FUNCTIONS["trace"](function)  # type: ignore[no-any-return]
    if not dynamic or judge_here() is not None:
        return _traced(function, args, kwargs, dynamic)
    with assuming(Hints(example_sizes(function, args, kwargs, dynamic))) as hints:
        traced = _traced(function, args, kwargs, dynamic)
    traced.conditions = tuple(without_implied(hints.conditions))
    return traced


def trace_but_for_numbers(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], dynamic: Any
) -> TracedGraph:
    """`trace`, where sizes that are needed as numbers of Python stay as the example's, with a
    warning."""
    names = argument_names(function, args, kwargs)
    dims = dynamic_axes(dynamic, names, args)
    while True:
        try:
            return trace(function, *args, dynamic=dims, **kwargs)
        except SizeNeeded as needed:
            left = {
                name: {axis: dim for axis, dim in axes.items() if dim.name not in needed.names}
                for name, axes in dims.items()
            }
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
        return capture.stand_in(tensor, symbolic(tensor, axes, name), label)

    given = stand_ins(names, args, kwargs, dims, stand_in)
    result = capture.call(lambda: function(*given[0], **given[1]))
    outputs = tensors_in(result)
    values = [_value_within(capture, t) for t in outputs]
    capture.restore()
    _location.set(None)  # what is built by hand from here on is not of the function's last line
    # of the module, whichever was read first
    order = {storage: i for i, storage in enumerate(known)}
    storages = sorted(capture.inputs, key=lambda s: order.get(s, len(order)))
    for storage in storages:
        capture.inputs[storage].name = known.get(storage, capture.inputs[storage].name)
    closed = Closed("main", [*capture.stand_ins, *(capture.inputs[s] for s in storages)], values)
    parameters = {capture.inputs[s].name: _holder(function, s) for s in storages}
    traced = TracedGraph(closed.graph, parameters, tuple(stands), result)
    traced.differentiates = capture.differentiates
    return traced


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


def dynamic_axes(
    dynamic: Any, names: Sequence[str], args: Sequence[Any]
) -> dict[str, dict[int, Dim]]:
    """`dynamic` with names for positions and axes counted from the front.

    Raises:
        ValueError: no such argument. TypeError: an axis is not marked with a Dim. IndexError: no
            such axis.
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
                    f"dynamic: axis {axis} of {name!r} must be marked with a Dim, not "
                    f"{type(dim).__name__}"
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


def symbolic(tensor: Tensor, axes: Mapping[int, Dim], name: str) -> tuple[Any, ...]:
    shape = list(tensor._type.shape)
    for axis, dim in axes.items():
        if not -len(shape) <= axis < len(shape):
            raise IndexError(f"dynamic: argument {name!r} of shape {shape} has no axis {axis}")
        size = shape[axis]
        low, high = bounds(dim.size)
        if not low <= size <= high:
            raise RuntimeError(
                f"dynamic: argument {name!r} has size {size} at axis {axis}, outside {dim!r}"
            )
        shape[axis] = dim.size
    return tuple(shape)


def stand_ins(
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

    check_names(dims, names, kwargs)
    return [replaced(n, a) for n, a in zip(names, args, strict=True)], {
        k: replaced(k, v) for k, v in kwargs.items()
    }


def check_names(dims: Mapping[str, Any], names: Sequence[str], kwargs: Mapping[str, Any]) -> None:
    """Raise where Dims are of arguments that are not there."""
    unknown = set(dims) - set(names) - set(kwargs)
    if unknown:
        raise ValueError(
            f"dynamic: there is no argument {sorted(unknown)[0]!r}: the function takes "
            f"{[*names, *kwargs]}"
        )


def check_sizes(dims: Mapping[str, Mapping[int, Dim]], given: Mapping[str, Any]) -> None:
    """Raise where sizes are not what the Dims say: out of range, or different for one Dim."""
    found: dict[str, tuple[str, Tensor, int]] = {}
    for name, axes in dims.items():
        for tensor in tensors_in(given.get(name)):
            symbolic(tensor, axes, name)
            for axis, dim in axes.items():
                first, other, place = found.setdefault(dim.name, (name, tensor, axis))
                if other._type.shape[place] != tensor._type.shape[axis]:
                    raise RuntimeError(
                        f"sizes that were given one Dim must be equal: {first} has shape "
                        f"{list(other._type.shape)}, {name} has shape {list(tensor._type.shape)}, "
                        f"with Dim {dim.name!r} at axis {place} and {axis}"
                    )
