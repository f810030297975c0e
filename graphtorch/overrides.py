"""``torch.overrides``: classes and modes that say what operations on their instances are.

https://docs.pytorch.org/docs/stable/torch.overrides.html
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._deferred.tensor import Tensor
from ._ops.base import FUNCTIONS, METHODS
from ._ops.overriding import hand_over, overriding, overriding_arguments, state, take_over
from ._torch.absent import attribute_of
from .autograd.grad_mode import modes

__all__ = [
    "TorchFunctionMode",
    "enable_reentrant_dispatch",
    "get_default_nowrap_functions",
    "get_ignored_functions",
    "get_overridable_functions",
    "get_testing_overrides",
    "handle_torch_function",
    "has_torch_function",
    "is_tensor_like",
    "is_tensor_method_or_property",
    "resolve_name",
    "wrap_torch_function",
]


def has_torch_function(relevant_args: Iterable[Any]) -> bool:
    """Whether one of the arguments, or a mode, overrides operations."""
    if not state.everybody:
        return False
    return bool(state.modes) or (state.subclasses and bool(overriding_arguments(relevant_args)))


def has_torch_function_unary(t: Any) -> bool:
    """`has_torch_function` of one argument."""
    return has_torch_function((t,))


def has_torch_function_variadic(*args: Any) -> bool:
    """`has_torch_function` of the arguments given."""
    return has_torch_function(args)


def handle_torch_function(
    public_api: Callable[..., Any], relevant_args: Iterable[Any], *args: Any, **kwargs: Any
) -> Any:
    """What the classes of `relevant_args` make of ``public_api(*args, **kwargs)``.

    Raises:
        TypeError: none of them has an answer.
    """
    return hand_over(public_api, overriding_arguments(relevant_args), args, kwargs)


def wrap_torch_function(dispatcher: Callable[..., Iterable[Any]]) -> Callable[[Any], Any]:
    """A decorator that makes a function one that may be overridden.

    Args:
        dispatcher: takes what the function takes, and gives the arguments that may override it.
    """

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            relevant = list(dispatcher(*args, **kwargs))
            if has_torch_function(relevant):
                return handle_torch_function(call, relevant, *args, **kwargs)
            return func(*args, **kwargs)

        return call

    return decorate


def is_tensor_like(inp: Any) -> bool:
    """Whether `inp` is a tensor or has a ``__torch_function__``."""
    return type(inp) is Tensor or hasattr(inp, "__torch_function__")


# ------------------------------------------------------------------------------- lists of functions


def get_default_nowrap_functions() -> set[Any]:
    """Properties whose results do not become the subclass: they are another tensor's."""
    return {getattr(Tensor, name).__get__ for name in ("grad",)}


def get_ignored_functions() -> set[Any]:
    """Functions that cannot be overridden: they take no tensors, or make the first one."""
    graphtorch = sys.modules[__package__]
    return {
        getattr(graphtorch, name)
        for name in FUNCTIONS
        if hasattr(graphtorch, name) and not _takes_tensors(FUNCTIONS[name])
    }


def get_overridable_functions() -> dict[Any, list[Any]]:
    """For each namespace (the package, ``Tensor``, ``nn.functional``) what can be overridden."""
    graphtorch = sys.modules[__package__]
    functional = graphtorch.nn.functional
    return {
        graphtorch: [
            getattr(graphtorch, n)
            for n, f in FUNCTIONS.items()
            if hasattr(graphtorch, n) and _takes_tensors(f)
        ],
        functional: [
            f for n in functional.__all__ if inspect.isfunction(f := getattr(functional, n))
        ],
        Tensor: [
            getattr(Tensor, n)
            for n in METHODS
            if not n.startswith("_") and callable(getattr(Tensor, n, None))
        ],
    }


def get_testing_overrides() -> dict[Any, Any]:
    """For each overridable function one of the same signature that returns -1."""
    found: dict[Any, Any] = {}
    for functions in get_overridable_functions().values():
        for one in functions:
            found[one] = functools.wraps(one)(lambda *args, **kwargs: -1)
    return found


def _takes_tensors(function: Any) -> bool:
    if not inspect.isfunction(function):
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and first.name in (
        "input",
        "self",
        "tensors",
        "tensor",
        "condition",
        "x",
        "A",
    )


def is_tensor_method_or_property(func: Callable[..., Any]) -> bool:
    """Whether `func` belongs to the class Tensor."""
    owner = getattr(func, "__self__", None)
    if isinstance(owner, property):
        return owner in vars(Tensor).values()
    return getattr(Tensor, getattr(func, "__name__", ""), None) is func


def resolve_name(f: Any) -> str | None:
    """``"torch.add"`` for ``torch.add``: where users find a function; None where they do not."""
    owner = getattr(f, "__self__", None)
    if isinstance(owner, property):
        name = next((n for n, p in vars(Tensor).items() if p is owner), None)
        return name and f"torch.Tensor.{name}.{f.__name__}"
    if name := next((n for n, p in vars(Tensor).items() if p is f), None):
        return f"torch.Tensor.{name}"
    module = getattr(f, "__module__", None)
    if not module or not module.startswith(("graphtorch", "torch")):
        return None
    return "torch" + module.removeprefix("graphtorch").removeprefix("torch") + f".{f.__qualname__}"


# ------------------------------------------------------------------------------------------ modes


class TorchFunctionMode:
    """Inside a ``with`` block, all operations ask the mode's ``__torch_function__`` first."""

    inner: TorchFunctionMode

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        take_over()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise NotImplementedError(
            f"{type(self).__name__}: define __torch_function__(self, func, types, args, kwargs)"
        )

    def __enter__(self) -> TorchFunctionMode:
        overriding.append(self)
        state.modes.append(self)
        modes.watchers += 1
        return self

    def __exit__(self, *exc: object) -> None:
        state.modes.pop()
        modes.watchers -= 1
        overriding.remove(self)

    @classmethod
    def push(cls, *args: Any, **kwargs: Any) -> TorchFunctionMode:
        """An instance, for ``with``."""
        return cls(*args, **kwargs)


class BaseTorchFunctionMode(TorchFunctionMode):
    """The mode that changes nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def enable_reentrant_dispatch() -> Iterator[None]:
    """Operations inside ask subclasses again."""
    before, state.subclasses = state.subclasses, True
    try:
        yield
    finally:
        state.subclasses = before


__getattr__ = attribute_of(__name__)
