"""What must be equal for a recording to serve a call: its arguments, and the state of modules."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from .._deferred.storage import MetaLeaf
from .._deferred.tensor import Tensor
from ..nn.modules._call import _global_tables as global_tables
from ..nn.modules.module import Module
from .checks import Checks, sign_of
from .tracing import Dim


def signature(
    tree: Any, tensors: list[Tensor], axes: Mapping[int, Mapping[int, Dim]] | None = None
) -> Any:
    """What must be equal for a recording to serve: types of tensors, values of other arguments.

    Args:
        axes: of some tensors, by their ids, the axes whose sizes are symbols.
    """
    if isinstance(tree, Tensor):
        tensors.append(tree)
        if axes and axes.get(id(tree)):
            shape: list[Any] = list(tree._type.shape)
            for axis, dim in axes[id(tree)].items():
                shape[axis] = dim.marker
            return (
                type(tree),
                tree._type.dtype,
                tuple(shape),
                tree._storage.place,
                tree.requires_grad,
                tree._rg,
                tree._inference,
                _hooks_of(tree),
            )
        # the common case, without the properties' calls
        if tree._base is None and tree._view is None:
            if tree._hooks is None and tree._post_hooks is None:
                return (
                    type(tree),
                    tree._storage.value.type,
                    tree._storage.place,
                    tree._rg,
                    tree._fn is None,
                    tree._inference,
                )
            return (
                type(tree),
                tree._type,
                tree._storage.place,
                tree._rg,
                tree._fn is None,
                tree._inference,
                _hooks_of(tree),
            )
        view = tree._view
        strides = None if view is None else view.strides
        return (
            type(tree),
            tree._type,
            tree._storage.place,
            tree.requires_grad,
            tree._rg,
            tree._inference,
            _hooks_of(tree),
            strides,
        )
    if isinstance(tree, (tuple, list)):
        return type(tree), *[signature(v, tensors, axes) for v in tree]
    if isinstance(tree, dict):
        return dict, *[(k, signature(v, tensors, axes)) for k, v in tree.items()]
    kind = type(tree)
    if kind in _BY_VALUE:
        return kind, tree, sign_of(tree)
    return _Same(tree)


def write_signature(
    checks: Checks, args: Any, kwargs: Any, axes: Mapping[int, Mapping[int, Dim]]
) -> list[str]:
    """The conditions under which arguments have the `signature` of these; the names of the tensors
    in them.

    Raises:
        NotImplementedError: for tensors that are views, that share memory or that have hooks.
    """
    tensors: dict[str, Tensor] = {}
    checks.add(f"len(args) == {len(args)}")
    for i, one in enumerate(args):
        _write_argument(checks, f"args[{i}]", one, axes, tensors)
    if kwargs:
        _write_argument(checks, "kwargs", kwargs, axes, tensors)
    else:
        checks.add("not kwargs")
    if shared_by([*tensors.values()]) is not None:
        raise NotImplementedError
    names = list(tensors)
    if len(names) > 1:
        storages = ", ".join(f"{n}._storage" for n in names)
        checks.add(
            f"len({{{storages}}}) == {len(names)}"
            if len(names) > 2
            else " is not ".join(storages.split(", "))
        )
    return names


def _write_argument(
    checks: Checks,
    text: str,
    tree: Any,
    axes: Mapping[int, Mapping[int, Dim]],
    tensors: dict[str, Tensor],
) -> None:
    """Args: tensors: those found so far, by their names in the text; more are added."""
    kind = type(tree)
    if isinstance(tree, Tensor):
        name = f"a{len(tensors)}"
        _write_tensor(checks, f"({name} := {text})", name, tree, axes.get(id(tree)))
        tensors[name] = tree
    elif kind in (tuple, list):
        checks.add(f"type({text}) is {kind.__name__} and len({text}) == {len(tree)}")
        for i, one in enumerate(tree):
            _write_argument(checks, f"{text}[{i}]", one, axes, tensors)
    elif kind is dict:
        checks.add(f"type({text}) is dict and [*{text}] == {checks.const(list(tree))}")
        for key, one in tree.items():
            _write_argument(checks, f"{text}[{checks.const(key)}]", one, axes, tensors)
    elif isinstance(tree, (tuple, list, dict)):
        raise NotImplementedError
    else:
        checks.value(text, tree)


def _write_tensor(
    checks: Checks, first: str, name: str, tensor: Tensor, axes: Mapping[int, Dim] | None
) -> None:
    plain = tensor._base is None and tensor._view is None
    if (
        type(tensor) is not Tensor
        or not plain
        or tensor._hooks is not None
        or tensor._post_hooks is not None
    ):
        raise NotImplementedError
    checks.add(f"type({first}) is {checks.const(Tensor)}")
    if axes:
        _write_sizes(checks, f"{name}._storage.value.type", tensor, axes)
    else:
        checks.add(f"(v := {name}._storage.value).type is {checks.const(tensor._type)}")
        meta = checks.const(MetaLeaf)
        checks.add(f"not ({meta}.used and type({name}._storage.value) is {meta})")
    checks.add(f"{name}._storage.place is {checks.const(tensor._storage.place)}")
    for attribute in ("_base", "_view", "_hooks", "_post_hooks"):
        checks.add(f"{name}.{attribute} is None")
    checks.add(f"{name}._rg is {tensor._rg}")
    checks.add(f"{name}._fn is {'' if tensor._fn is None else 'not '}None")
    checks.add(f"{name}._inference is {tensor._inference}")


def _write_sizes(checks: Checks, text: str, tensor: Tensor, axes: Mapping[int, Dim]) -> None:
    """Dtype, rank, and the sizes that are no symbols; the others within their ranges."""
    shape = tensor._type.shape
    checks.add(
        f"(t := {text}).dtype is {checks.const(tensor._type.dtype)} and len(t.shape) == "
        f"{len(shape)}"
    )
    dims = {axis % len(shape): dim for axis, dim in axes.items()}
    for axis, size in enumerate(shape):
        dim = dims.get(axis)
        if dim is None:
            checks.add(f"{text}.shape[{axis}] == {size}")
        else:
            limit = "" if dim.max is None else f" <= {dim.max}"
            checks.add(f"{dim.min} <= {text}.shape[{axis}]{limit}")


_BY_VALUE = frozenset((int, float, bool, str, bytes, complex, type(None)))


def _hooks_of(tensor: Tensor) -> Any:
    return tuple(tensor._hooks or ()), tuple(tensor._post_hooks or ())


def shared_by(tensors: Sequence[Tensor]) -> Any:
    """Which tensors are the same, and which use one storage; None where all is apart."""
    storages = [t._storage for t in tensors]
    if len(set(storages)) == len(storages):
        return None
    ids = [id(t) for t in tensors]
    return tuple(map(storages.index, storages)), tuple(map(ids.index, ids))


class _Same:
    """Equal to another one of the same object only; keeps it alive, so that no new object takes its
    id."""

    __slots__ = ("object",)

    def __init__(self, object: Any):
        self.object = object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.object is other.object

    def __hash__(self) -> int:
        return id(self.object)


def state_of(modules: Sequence[Module]) -> list[Any]:
    """What recordings of these modules depend on beside tensors' elements: members, attributes and
    hooks."""
    state: list[Any] = [[list(table) for table in global_tables]]
    for module in modules:
        tables = (module._parameters, module._buffers, module._modules)
        state.append(
            [[(name, _Same(member)) for name, member in table.items()] for table in tables]
        )
        state.append({k: _kept(v) for k, v in module.__dict__.items() if k not in _APART})
        state.append([_hooks_of(t) for t in module._parameters.values() if t is not None])
    return state


_APART = frozenset(("training", "_parameters", "_buffers", "_modules"))


def _kept(value: Any) -> Any:
    """An attribute to compare with later: plain values and what is in tables of hooks; others by
    identity."""
    if isinstance(value, OrderedDict):
        return [(k, _Same(v)) for k, v in value.items()]
    if isinstance(value, (tuple, list)):
        return [_kept(v) for v in value]
    return (type(value), value, sign_of(value)) if type(value) in _BY_VALUE else _Same(value)


def modules_of(function: Any) -> list[Module]:
    """Modules a function can reach: their ``training`` flags are guarded."""
    roots: list[Any] = [function, getattr(function, "__self__", None)]
    plain: Any = (
        None
        if isinstance(function, Module)
        else inspect.unwrap(getattr(function, "__func__", function))
    )
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
