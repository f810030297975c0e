"""``torch._assert`` and ``torch._check``: conditions that library code states about its
arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._ops.base import METHODS
from .._ops.overriding import NOBODY, overridden, overriding


def _assert(condition: Any, message: str) -> None:
    """Raise AssertionError unless `condition`, a bool or a tensor of one element, holds."""
    if overriding and overridden(_assert, (condition, message), {}) is not NOBODY:
        return  # a value of a symbolic trace
    if not condition:
        raise AssertionError(message)


def _assert_async(
    condition: Tensor, message: str = "Expected Tensor with single nonzero value, but got zero"
) -> None:
    """Raise RuntimeError unless the one element of `condition` is not zero. Nothing while a graph
    is captured."""
    if recorder.capture is None and not condition:
        raise RuntimeError(message)


def _text(message: Callable[[], str] | str | None) -> str:
    if message is None:
        return (
            "Expected cond to be True, but got False. (Could this error message be improved? If "
            "so, please report an enhancement request to PyTorch.)"
        )
    return str(message() if callable(message) else message)


def _check_with(error_type: type[Exception], cond: Any, message: Any = None) -> None:
    """Raise `error_type` unless `cond` is True."""
    if isinstance(cond, Tensor):
        raise TypeError(f"cond must be a bool, but got {type(cond)}")
    if not cond:
        raise error_type(_text(message))


def _of(name: str, error: type[Exception]) -> Callable[..., None]:
    def check(cond: Any, message: Any = None) -> None:
        _check_with(error, cond, message)

    check.__name__ = check.__qualname__ = name
    check.__doc__ = (
        f"Raise {error.__name__} unless `cond` is True; `message` is a text or a function that "
        "gives it."
    )
    return check


def _check_is_size(i: Any, message: Any = None, *, max: Any = None) -> None:
    """Raise RuntimeError unless ``0 <= i``, and ``i <= max`` where that is given."""
    _check_with(RuntimeError, i >= 0 and (max is None or i <= max), message)


def _check_tensor_all_with(error_type: type[Exception], cond: Tensor, message: Any = None) -> None:
    """Raise `error_type` unless all elements of the bool tensor `cond` are True."""
    if not isinstance(cond, Tensor) or not cond._type.dtype.is_bool:
        kind = cond.dtype if isinstance(cond, Tensor) else type(cond)
        raise TypeError(f"cond must be a bool tensor, but got {kind}")
    _check_with(error_type, bool(METHODS["all"](cond)), message)


def _check_tensor_all(cond: Tensor, message: Any = None) -> None:
    """Raise RuntimeError unless all elements of the bool tensor `cond` are True."""
    _check_tensor_all_with(RuntimeError, cond, message)


PUBLIC: dict[str, Callable[..., Any]] = {
    "_assert": _assert,
    "_assert_async": _assert_async,
    "_check": _of("_check", RuntimeError),
    "_check_is_size": _check_is_size,
    "_check_index": _of("_check_index", IndexError),
    "_check_not_implemented": _of("_check_not_implemented", NotImplementedError),
    "_check_tensor_all": _check_tensor_all,
    "_check_tensor_all_with": _check_tensor_all_with,
    "_check_type": _of("_check_type", TypeError),
    "_check_value": _of("_check_value", ValueError),
    "_check_with": _check_with,
}
