"""Gradient modes: no_grad, enable_grad, set_grad_enabled, inference_mode. Each thread has its
own."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

_SPECIAL = frozenset({"inference", "anomaly", "saving", "mutable"})


class _Modes(threading.local):
    grad = True
    inference = False
    # whether nodes of the autograd graph remember their call, and backward says which failed
    anomaly = False
    check_nan = True  # whether NaN is a failure
    # pack and unpack saved tensors
    saving: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    no_saving: str | None = None  # why there must not be such hooks
    mutable = False  # whether saved tensors may be written to
    watchers = 0  # blocks that see each line: compiled functions inside run line by line
    special = False  # whether one of `_SPECIAL` is on: operations are not recorded in machine code

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _SPECIAL:
            on = self.inference or self.anomaly or self.saving is not None or self.mutable
            super().__setattr__("special", bool(on))


modes = _Modes()


def is_grad_enabled() -> bool:
    """Whether operations are recorded for differentiation in this thread."""
    return modes.grad


def is_inference_mode_enabled() -> bool:
    """Whether inference mode is on in this thread."""
    return modes.inference


class _Mode:
    """A context manager that also decorates functions and generator functions."""

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(self, *exc: object) -> None:
        raise NotImplementedError

    def clone(self) -> _Mode:
        return type(self)()

    def __call__(self, function: Callable[..., Any]) -> Any:
        if inspect.isclass(function):
            return function
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return function(*args, **kwargs)

        return inside

    def _around_generator(self, function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            sent = None
            while True:
                with self.clone():
                    try:
                        item = generator.send(sent)
                    except StopIteration as stop:
                        return stop.value
                sent = yield item

        return inside


class _GradMode(_Mode):
    value = False

    def __enter__(self) -> None:
        self._before = modes.grad
        # nothing is recorded there, whatever is asked for
        modes.grad = self.value and not modes.inference

    def __exit__(self, *exc: object) -> None:
        modes.grad = self._before


class no_grad(_GradMode):
    """Operations inside are not recorded for differentiation. Context manager or decorator."""

    def __new__(cls, function: Any = None) -> Any:
        made = super().__new__(cls)
        return made if function is None else made(function)


class enable_grad(no_grad):
    """Operations inside are recorded, also within `no_grad`. Context manager or decorator."""

    value = True


class set_grad_enabled(_GradMode):
    """Turn recording on or off: at once when called as a function, until the end as a context
    manager."""

    def __init__(self, mode: bool):
        if not isinstance(mode, bool):
            raise TypeError(
                "set_grad_enabled(): argument 'enabled' (position 1) must be bool, not "
                f"{type(mode).__name__}"
            )
        self._before = modes.grad
        self.value = mode
        modes.grad = mode and not modes.inference

    def __enter__(self) -> None:
        modes.grad = self.value and not modes.inference

    def clone(self) -> _Mode:
        return type(self)(self.value)

    def __call__(self, function: Callable[..., Any]) -> Any:
        modes.grad = self._before  # used as a decorator: only calls of the function are meant
        return super().__call__(function)


class inference_mode(_Mode):
    """As `no_grad`; tensors made inside can never enter a differentiated computation."""

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if callable(mode):
            made.mode = True
            return made(mode)
        return made

    def __init__(self, mode: Any = True):
        self.mode = True if callable(mode) else bool(mode)

    def __enter__(self) -> None:
        self._before = modes.grad, modes.inference
        modes.inference = self.mode
        if self.mode:
            modes.grad = False

    def __exit__(self, *exc: object) -> None:
        modes.grad, modes.inference = self._before

    def clone(self) -> _Mode:
        return type(self)(self.mode)
