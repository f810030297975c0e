"""`autocast`, and how a custom autograd function meets it."""

from __future__ import annotations

import functools
from typing import Any

from .._ops.autocast import _cast, autocast, get_autocast_dtype, is_autocast_enabled

__all__ = ["autocast", "custom_bwd", "custom_fwd"]


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """Decorator of a `Function.forward`: its backward then runs under the same autocast (see
    `custom_bwd`).

    Args: cast_inputs: under autocast, tensors get this dtype, and autocast is off inside.
    """
    _check_type(device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def decorated(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx._dtype = get_autocast_dtype(device_type)
        enabled = is_autocast_enabled(device_type)
        ctx._fwd_used_autocast = enabled and cast_inputs is None
        if cast_inputs is None or not enabled:
            return fwd(ctx, *args, **kwargs)
        target = cast_inputs.ir
        with autocast(device_type, enabled=False):
            return fwd(
                ctx,
                *[_cast(a, target) for a in args],
                **{k: _cast(v, target) for k, v in kwargs.items()},
            )

    return decorated


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorator of a `Function.backward` whose forward has `custom_fwd`."""
    _check_type(device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def decorated(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, dtype=ctx._dtype, enabled=ctx._fwd_used_autocast):
            return bwd(ctx, *args, **kwargs)

    return decorated


def _check_type(device_type: Any) -> None:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
