"""Calling a module: `forward` with the hooks around it, in PyTorch's order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..._deferred.tensor import Tensor
from ..._settings import warn_user
from ...utils.hooks import RemovableHandle, register
from ._backward_hooks import BackwardHooks
from ._members import Members

# Hooks that act on every module; the tables live here because `_call` reads them.
global_forward_pre_hooks: OrderedDict[int, Any] = OrderedDict()
global_forward_hooks: OrderedDict[int, Any] = OrderedDict()
global_forward_hooks_always_called: OrderedDict[int, bool] = OrderedDict()
global_forward_hooks_with_kwargs: OrderedDict[int, bool] = OrderedDict()
global_backward_pre_hooks: OrderedDict[int, Any] = OrderedDict()
global_backward_hooks: OrderedDict[int, Any] = OrderedDict()
# symbolic traces: the last has the call
interceptors: list[Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = []
_global_tables = (
    global_forward_pre_hooks,
    global_forward_hooks,
    global_backward_pre_hooks,
    global_backward_hooks,
    interceptors,
)


class Calls(Members):
    """`__call__` and the registration of forward and backward hooks."""

    _forward_pre_hooks: OrderedDict[int, Any]
    _forward_pre_hooks_with_kwargs: OrderedDict[int, bool]
    _forward_hooks: OrderedDict[int, Any]
    _forward_hooks_with_kwargs: OrderedDict[int, bool]
    _forward_hooks_always_called: OrderedDict[int, bool]
    _backward_pre_hooks: OrderedDict[int, Any]
    _backward_hooks: OrderedDict[int, Any]
    _is_full_backward_hook: bool | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; a subclass overrides it."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (
            self._forward_pre_hooks
            or self._forward_hooks
            or self._backward_hooks
            or self._backward_pre_hooks
            or any(_global_tables)
        ):
            return self.forward(*args, **kwargs)
        if interceptors:
            return interceptors[-1](self, args, kwargs)
        called: set[int] = set()
        try:
            return self._call_hooked(args, kwargs, called)
        except Exception:
            self._call_always(args, kwargs, called)
            raise

    def _call_hooked(self, args: tuple[Any, ...], kwargs: dict[str, Any], called: set[int]) -> Any:
        args, kwargs = self._run_pre_hooks(args, kwargs)
        backward = self._backward_scope()
        if backward is not None:
            args = backward.wrap_inputs(args)
        result = self.forward(*args, **kwargs)
        for key, hook, with_kwargs in self._after_hooks():
            called.add(key)
            new = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            if new is not None:
                result = new
        if backward is not None:
            result = backward.wrap_outputs(result)
        self._attach_old_style(result, args)
        return result

    def _run_pre_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        for key, hook in (*global_forward_pre_hooks.items(), *self._forward_pre_hooks.items()):
            if key in self._forward_pre_hooks_with_kwargs:
                new = hook(self, args, kwargs)
                if new is None:
                    continue
                if not (isinstance(new, tuple) and len(new) == 2):
                    raise RuntimeError(
                        "forward pre-hook must return None or a tuple of (new_args, "
                        f"new_kwargs), but got {new}."
                    )
                args, kwargs = new
            else:
                new = hook(self, args)
                if new is not None:
                    args = new if isinstance(new, tuple) else (new,)
        return args, kwargs

    def _after_hooks(self) -> list[tuple[int, Any, bool]]:
        everywhere = [
            (k, h, k in global_forward_hooks_with_kwargs) for k, h in global_forward_hooks.items()
        ]
        return everywhere + [
            (k, h, k in self._forward_hooks_with_kwargs) for k, h in self._forward_hooks.items()
        ]

    def _call_always(self, args: tuple[Any, ...], kwargs: dict[str, Any], called: set[int]) -> None:
        """After an error in `forward`, run the hooks that asked to run in any case."""
        for key, hook, with_kwargs in self._after_hooks():
            always = (
                key in global_forward_hooks_always_called
                or key in self._forward_hooks_always_called
            )
            if not always or key in called:
                continue
            try:
                hook(self, args, kwargs, None) if with_kwargs else hook(self, args, None)
            except Exception as error:
                warn_user(
                    f"module forward hook with ``always_call=True`` raised an exception that was "
                    "silenced as another error was raised in forward: "
                    f"{error}",
                )

    def _backward_scope(self) -> BackwardHooks | None:
        before = [*global_backward_pre_hooks.values(), *self._backward_pre_hooks.values()]
        after = list(global_backward_hooks.values()) if _global_full is True else []
        after += list(self._backward_hooks.values()) if self._is_full_backward_hook is True else []
        return BackwardHooks(self, after, before) if before or after else None

    def _attach_old_style(self, result: Any, args: tuple[Any, ...]) -> None:
        """Hooks of the deprecated `register_backward_hook` run when the output's gradient
        arrives."""
        hooks = list(global_backward_hooks.values()) if _global_full is False else []
        hooks += list(self._backward_hooks.values()) if self._is_full_backward_hook is False else []
        tensor = result
        while hooks and not isinstance(tensor, Tensor):
            tensor = next(iter(tensor.values())) if isinstance(tensor, dict) else tensor[0]
        if hooks and tensor.requires_grad:
            inputs = tuple(None for a in args if isinstance(a, Tensor))

            def run(grad: Tensor) -> Tensor | None:
                for hook in hooks:
                    hook(self, inputs, (grad,))
                return None

            tensor.register_hook(run)

    # -- registration --------------------------------------------------------------------------

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """``hook(module, args)`` (with `with_kwargs` also kwargs) runs before `forward` and may
        return other arguments."""
        handle = register(
            self._forward_pre_hooks,
            hook,
            prepend=prepend,
            extra=(self._forward_pre_hooks_with_kwargs,),
        )
        if with_kwargs:
            self._forward_pre_hooks_with_kwargs[handle.id] = True
        return handle

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """``hook(module, args, output)`` (with `with_kwargs` kwargs before the output) runs after
        `forward` and may return another output; `always_call` also after an error."""
        handle = register(
            self._forward_hooks,
            hook,
            prepend=prepend,
            extra=(self._forward_hooks_with_kwargs, self._forward_hooks_always_called),
        )
        if with_kwargs:
            self._forward_hooks_with_kwargs[handle.id] = True
        if always_call:
            self._forward_hooks_always_called[handle.id] = True
        return handle

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """``hook(module, grad_output)`` runs before the module's gradient and may return another
        one."""
        return register(self._backward_pre_hooks, hook, prepend=prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """``hook(module, grad_input, grad_output)`` runs when the gradients of the module's inputs
        are known and may return others for them."""
        self._set_full(True)
        return register(self._backward_hooks, hook, prepend=prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Deprecated by PyTorch in favour of `register_full_backward_hook`."""
        self._set_full(False)
        return register(self._backward_hooks, hook)

    def _set_full(self, full: bool) -> None:
        if self._is_full_backward_hook is (not full):
            raise RuntimeError(
                "Cannot use both regular backward hooks and full backward hooks on a single "
                "Module. Please use only one of them."
            )
        self._is_full_backward_hook = full


_global_full: bool | None = None


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, args)`` before every module's `forward`."""
    return register(global_forward_pre_hooks, hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """``hook(module, args, output)`` after every module's `forward`."""
    handle = register(
        global_forward_hooks,
        hook,
        extra=(global_forward_hooks_with_kwargs, global_forward_hooks_always_called),
    )
    if with_kwargs:
        global_forward_hooks_with_kwargs[handle.id] = True
    if always_call:
        global_forward_hooks_always_called[handle.id] = True
    return handle


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, grad_output)`` before every module's gradient."""
    return register(global_backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """``hook(module, grad_input, grad_output)`` with every module's gradients."""
    return _register_global_backward(hook, True)


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Deprecated by PyTorch in favour of `register_module_full_backward_hook`."""
    return _register_global_backward(hook, False)


def _register_global_backward(hook: Callable[..., Any], full: bool) -> RemovableHandle:
    global _global_full
    if _global_full is (not full) and global_backward_hooks:
        raise RuntimeError(
            "Cannot use both regular backward hooks and full backward hooks as a global "
            "Module hook. Please use only one of them."
        )
    _global_full = full
    return register(global_backward_hooks, hook)
