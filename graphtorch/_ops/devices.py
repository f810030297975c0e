"""The device on which tensors are made that name none: ``with torch.device("meta"):``,
set_default_device.

As in PyTorch a mode looks at calls of the functions that make tensors, and names the device for
them; modules ask for it by `chosen`. What the library makes for its own use is not concerned.
See https://docs.pytorch.org/docs/stable/generated/torch.set_default_device.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .._types import CPU, check_device, device
from .overriding import overriding, state

# Of the functions that take ``device=``, those that make a tensor of nothing but their arguments.
FACTORIES = frozenset(
    {
        "arange",
        "as_tensor",
        "asarray",
        "bartlett_window",
        "blackman_window",
        "empty",
        "empty_permuted",
        "empty_strided",
        "eye",
        "fftfreq",
        "full",
        "hamming_window",
        "hann_window",
        "kaiser_window",
        "linspace",
        "logspace",
        "normal",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "range",
        "rfftfreq",
        "scalar_tensor",
        "sparse_coo_tensor",
        "sparse_csr_tensor",
        "tensor",
        "tril_indices",
        "triu_indices",
        "zeros",
    }
)


class _Place:
    """A mode in which factories make their tensors on a device."""

    def __init__(self, place: device):
        self.place = place

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in FACTORIES and kwargs.get("device") is None:
            kwargs["device"] = self.place
        return func(*args, **kwargs)


class _Default(threading.local):
    """Of a thread: the mode of `set_default_device`, and those of blocks, the innermost last."""

    mode: _Place | None = None

    def __init__(self) -> None:
        self.blocks: list[_Place] = []


_default = _Default()


def chosen(given: Any = None) -> Any:
    """`given`, or where that is None the device of the innermost block, or the default one."""
    if given is not None or not overriding:
        return given
    mode = _default.blocks[-1] if _default.blocks else _default.mode
    return None if mode is None else mode.place


def _enter(self: device) -> device:
    mode = _Place(check_device(self))
    _default.blocks.append(mode)
    state.modes.append(mode)
    overriding.append(mode)
    return self


def _exit(self: device, *exc: object) -> None:
    mode = _default.blocks.pop()
    state.modes.remove(mode)
    overriding.remove(mode)


device.__enter__, device.__exit__ = _enter, _exit  # type: ignore[method-assign]


def set_default_device(given: Any) -> None:
    """The device of factories and modules that name none: 'cpu', 'meta', or None for the usual
    one."""
    place = None if given is None else check_device(given)
    if _default.mode is not None:
        state.modes.remove(_default.mode)
        overriding.remove(_default.mode)
        _default.mode = None
    if place is not None and place is not CPU:
        _default.mode = _Place(place)
        state.modes.insert(0, _default.mode)  # outside all modes of the program
        overriding.append(_default.mode)


def get_default_device() -> device:
    """The device of factories and modules that name none."""
    return chosen() or CPU


PUBLIC = {f.__name__: f for f in (set_default_device, get_default_device)}
