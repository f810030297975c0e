"""How public functions take their arguments: PyTorch's other spellings of keywords, and its exception types.

A call that succeeds pays for one Python frame; all else happens after an exception.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

# https://docs.pytorch.org/docs/stable/torch.html: names that NumPy users write
_NUMPY = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}
_OWN = {
    "broadcast_to": {"shape": "size"},
    "constant_pad_nd": {"input": "x"},
    "copy_": {"other": "src"},
    "dsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
    "hsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
    "resize_as_": {"the_template": "other"},
    "result_type": {"tensor": "tensor1", "other": "tensor2"},
    "searchsorted": {"values": "input", "self": "input"},
    "split": {"split_size": "split_size_or_sections", "split_sizes": "split_size_or_sections"},
    "swapaxes": {"axis0": "dim0", "axis1": "dim1"},
    "swapaxes_": {"axis0": "dim0", "axis1": "dim1"},
    "tensor_split": {"sections": "indices_or_sections", "indices": "indices_or_sections",
                     "tensor_indices_or_sections": "indices_or_sections"},
    "vsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
}
_LISTED = frozenset({"size", "sizes", "shape", "dims", "repeats"})  # keywords for what is else *sizes


def accepting(name: str, function: Callable[..., Any], module: str, owner: str = "") -> Callable[..., Any]:
    """`function` as users call it, under ``module.name`` or as a method of the class `owner`."""
    if not inspect.isfunction(function):
        return function  # a class such as ``autocast``

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError:
            spelled = _respelled(name, function, args, kwargs) if kwargs else None
            if spelled is None:
                raise
        return function(*spelled[0], **spelled[1])

    call.__module__, call.__name__, call.__qualname__ = module, name, owner + name  # pickles find it there
    return call


def add_methods(cls: type, methods: dict[str, Callable[..., Any]]) -> None:
    """Attach methods. Those behind Python's operators stay as they are: nobody calls them by name."""
    for name, method in methods.items():
        plain = name.startswith("__")
        setattr(cls, name, method if plain else accepting(name, method, cls.__module__, f"{cls.__name__}."))


def _respelled(name: str, function: Callable[..., Any], args: tuple[Any, ...],
               kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The call with the keywords that `function` knows; None where it knows them all, or not another one."""
    parameters = inspect.signature(function).parameters
    listed = [n for n, p in parameters.items() if p.kind is inspect.Parameter.VAR_POSITIONAL]
    other = {**_NUMPY, **_OWN.get(name, {})}
    found: dict[str, Any] = {}
    changed = False
    for key, value in kwargs.items():
        known = (key in parameters or key == "out") and key not in listed
        target = key if known else other.get(key)
        if target in found or (not known and target in kwargs):
            raise TypeError(f"{name}() got both {target!r} and {key!r}, which are one argument")
        if target in parameters or known:
            found[target] = value  # type: ignore[index]
        elif listed and key in _LISTED:
            args = (*args, *value) if isinstance(value, (tuple, list)) else (*args, value)
        else:
            return None
        changed |= not known
    return (args, found) if changed else None
