"""The base class of everything with parameters."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ._call import (
    Calls,
    register_module_backward_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
    register_module_full_backward_hook,
    register_module_full_backward_pre_hook,
)
from ._cast import Casts
from ._state import _EXTRA_STATE_KEY_SUFFIX as _EXTRA_STATE_KEY_SUFFIX  # libraries look for it here
from ._state import StateDict, _IncompatibleKeys

__all__ = [
    "Module",
    "_IncompatibleKeys",
    "register_module_backward_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]

_TABLES = (
    "_parameters",
    "_buffers",
    "_modules",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_LATER_TABLES = (
    "_backward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Module(StateDict, Calls, Casts):
    """Base of all layers and models: override `__init__` (calling ``super().__init__()`` first) and
    `forward`.

    Parameters, buffers and modules assigned as attributes are registered under the attribute's
    name.
    """

    training: bool
    call_super_init: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not self.call_super_init and (args or kwargs):
            given = (
                f"got an unexpected keyword argument '{next(iter(kwargs))}'"
                if kwargs
                else f"takes 1 positional argument but {len(args) + 1} were given"
            )
            raise TypeError(f"{type(self).__name__}.__init__() {given}")
        own = self.__dict__
        own["training"] = True
        for table in _TABLES:
            own[table] = OrderedDict() if "hooks" in table else {}
        own["_non_persistent_buffers_set"] = set()
        own["_is_full_backward_hook"] = None
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for table in _LATER_TABLES:  # pickles of older versions lack some
            self.__dict__.setdefault(table, OrderedDict())
        self.__dict__.setdefault("_non_persistent_buffers_set", set())
        self.__dict__.setdefault("_is_full_backward_hook", None)

    def train(self, mode: bool = True) -> Any:
        """Set training mode (or, with `mode` False, evaluation mode) here and in all modules
        below."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Any:
        """Set evaluation mode: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Whether autograd records operations on the parameters."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or (`set_to_none` False) fill them with zeros."""
        for param in self.parameters():
            if param.grad is None:
                continue
            if set_to_none:
                param.grad = None
            else:
                param.grad = param.grad.detach().requires_grad_(False)
                param.grad.zero_()

    def apply(self, fn: Callable[[Any], None]) -> Any:
        """Call `fn(module)` on all modules below, then on this one."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Replace this module's `forward` by its compiled form, in place; arguments as
        ``compile``."""
        compiling = importlib.import_module("graphtorch._captured.compile")  # built on modules
        self.__dict__["forward"] = compiling.compile(self.forward, *args, **kwargs)

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What `repr` prints between the parentheses; a subclass overrides it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({n}): {indent(repr(m), 2)}" for n, m in self._modules.items()]
        return layout_repr(self._get_name(), lines, children)


def layout_repr(name: str, extra: list[str], children: list[str]) -> str:
    """``Name(extra)`` on one line, or one line each where there are several parts."""
    if len(extra) == 1 and not children:
        return f"{name}({extra[0]})"
    if not extra and not children:
        return f"{name}()"
    return f"{name}(\n  " + "\n  ".join(extra + children) + "\n)"


def indent(text: str, spaces: int) -> str:
    """Indent all lines but the first."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line for line in rest)])
