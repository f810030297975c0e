"""Automatic casts: inside ``autocast`` contractions run in a 16-bit dtype and losses in float32.

Which functions are cast is what PyTorch's autocast casts on CPUs, and on GPUs, where it casts
others to float32; each says so where it is defined, or is in the list below. Inside a function that
is cast nothing more is. https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from graphtorch.ir.dtype import DType, bf16, f16, f32

from .._deferred.device_storage import DeviceStorage
from .._deferred.door import gpus
from .._deferred.tensor import Tensor
from .._deferred.write import cast_tensor
from .._settings import warn_user
from .._types import DTYPES, device, dtype

F = TypeVar("F", bound=Callable[..., Any])
_ELIGIBLE = frozenset({f16, bf16, f32})  # float64 stays what it is
_SUPPORTED = (DTYPES["bfloat16"], DTYPES["float16"])


class _State(threading.local):
    """What casts in this thread: `target` is the 16-bit dtype of CPU autocast, `on_gpus` that of
    tensors on GPUs; None while nothing is cast."""

    target: DType | None = None
    on_gpus: DType | None = None
    depth = 0
    cache = True

    def __init__(self) -> None:
        self.dtypes = {"cpu": DTYPES["bfloat16"], "cuda": DTYPES["float16"]}


state = _State()
_used = False  # whether any thread ever cast: programs without pay for nothing else


def _cast(x: Any, target: DType) -> Any:
    if isinstance(x, Tensor):
        ir = x._type.dtype
        return cast_tensor(x, target) if ir in _ELIGIBLE and ir is not target else x
    if type(x) in (tuple, list):
        return type(x)(_cast(v, target) for v in x)
    return x


def _any_on_gpu(given: Iterable[Any]) -> bool:
    """Whether there is a tensor on a GPU, also in lists and tuples."""
    return any(
        _any_on_gpu(x) if type(x) in (tuple, list) else isinstance(x, Tensor) and x.is_cuda
        for x in given
    )


# What a function's operands are cast to, of the 16-bit dtype and the operands; None: they are not.
Target = Callable[[DType, Iterable[Any]], DType] | None


def _casting(define: F, on_cpus: Target, on_gpus: Target) -> F:
    @functools.wraps(define)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _used or (state.target is None and state.on_gpus is None):
            return define(*args, **kwargs) if kwargs else define(*args)
        before = state.target, state.on_gpus
        gpu = DeviceStorage.used and _any_on_gpu((*args, *kwargs.values()))
        active, target_of = before[gpu], on_gpus if gpu else on_cpus
        if active is None or target_of is None:
            return define(*args, **kwargs)
        target = target_of(active, (*args, *kwargs.values()))
        state.target = state.on_gpus = None
        try:
            given = {k: _cast(v, target) for k, v in kwargs.items()}
            return define(*[_cast(a, target) for a in args], **given)
        finally:
            state.target, state.on_gpus = before

    return call  # type: ignore[return-value]


def _lower(active: DType, given: Iterable[Any]) -> DType:
    return active


def _single(active: DType, given: Iterable[Any]) -> DType:
    return f32


def _widest(active: DType, given: Iterable[Any]) -> DType:
    return f32 if any(isinstance(x, Tensor) and x._type.dtype is f32 for x in given) else active


def lower_precision(define: F) -> F:
    """Decorator: inside autocast `define` gets its floating-point tensors in the 16-bit dtype."""
    return _casting(define, _lower, _lower)


def lower_precision_on_gpus(define: F) -> F:
    """Decorator: as `lower_precision`, for tensors on GPUs alone."""
    return _casting(define, None, _lower)


def single_precision(define: F) -> F:
    """Decorator: inside autocast `define` gets 16-bit tensors as float32."""
    return _casting(define, _single, _single)


def single_precision_on_cpus(define: F) -> F:
    """Decorator: as `single_precision`, for tensors on CPUs alone."""
    return _casting(define, _single, None)


def single_precision_on_gpus(define: F) -> F:
    """Decorator: as `single_precision`, for tensors on GPUs alone."""
    return _casting(define, None, _single)


def promoted_on_gpus(define: F) -> F:
    """Decorator: inside autocast `define`, which takes one dtype, gets tensors on GPUs in the
    widest one."""
    return _casting(define, None, _widest)


# Of the tables of operations, what `single_precision_on_gpus` is for: exponentials, sums and
# powers, which leave the range of 16-bit floats (AT_FORALL_FP32, AT_FORALL_FP32_SET_OPT_DTYPE in
# ATen/autocast_mode.h).
SINGLE_ON_GPUS = frozenset(
    {
        "acos",
        "arccos",
        "arcsin",
        "asin",
        "cdist",
        "cosh",
        "cumprod",
        "cumsum",
        "dist",
        "erfinv",
        "exp",
        "expm1",
        "frobenius_norm",
        "log",
        "log10",
        "log1p",
        "log2",
        "log_softmax",
        "logsumexp",
        "norm",
        "nuclear_norm",
        "pow",
        "__pow__",
        "__rpow__",
        "reciprocal",
        "renorm",
        "rsqrt",
        "sinh",
        "softmax",
        "sum",
        "tan",
    }
)


LOWER_ON_GPUS = frozenset({"addmv", "addr", "mv"})  # and `lower_precision_on_gpus`
PROMOTED_ON_GPUS = frozenset({"cross", "dot", "index_put", "scatter_add", "tensordot", "vdot"})


def cast_on_gpus(operations: dict[str, Any]) -> None:
    """Let those of a table's `operations` that PyTorch casts on GPUs be cast."""
    for names, decorate in (
        (SINGLE_ON_GPUS, single_precision_on_gpus),
        (PROMOTED_ON_GPUS, promoted_on_gpus),
        (LOWER_ON_GPUS, lower_precision_on_gpus),
    ):
        for name in names & operations.keys():
            operations[name] = decorate(operations[name])


def refused_on_gpus(define: F) -> F:
    """Decorator: as `single_precision_on_cpus`; autocast on GPUs refuses `define`
    (binary_cross_entropy)."""
    cast = single_precision_on_cpus(define)

    @functools.wraps(define)
    def call(*args: Any, **kwargs: Any) -> Any:
        if state.on_gpus is not None and _any_on_gpu((*args, *kwargs.values())):
            raise RuntimeError(
                "torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to "
                "autocast.\nMany models use a sigmoid layer right before the binary cross entropy "
                "layer.\nIn this case, combine the two layers using "
                "torch.nn.functional.binary_cross_entropy_with_logits\nor "
                "torch.nn.BCEWithLogitsLoss.  binary_cross_entropy_with_logits and BCEWithLogits "
                "are\nsafe to autocast."
            )
        return cast(*args, **kwargs)

    return call  # type: ignore[return-value]


class autocast:
    """``with autocast("cpu"):`` runs contractions in 16 bits and losses in float32; also a
    decorator.

    Args:
        device_type: "cpu" or "cuda", which is disabled with a warning where there is no GPU.
        dtype: bfloat16 or float16; default that of the device, bfloat16 on CPUs, float16 on GPUs.
        cache_enabled: accepted. Equal casts of a weight are one operation of the graph either way.

    Raises: RuntimeError for an unknown device type.
    """

    def __init__(
        self,
        device_type: str,
        dtype: dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ):
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        self.device = device(device_type).type
        self.fast_dtype = (
            state.dtypes.get(self.device, DTYPES["float16"]) if dtype is None else dtype
        )
        self._cache_enabled = state.cache if cache_enabled is None else cache_enabled
        if enabled and not (self.device == "cpu" or (self.device == "cuda" and gpus())):
            warn_user(
                f"{self.device.upper()} is not available or torch_xla is imported. Disabling "
                "autocast.",
            )
            enabled = False
        if self.device == "cpu" and enabled and self.fast_dtype not in _SUPPORTED:
            warn_user(
                "In CPU autocast, but the target dtype is not supported. Disabling autocast.\nCPU "
                "Autocast only supports dtypes of torch.bfloat16, torch.float16 "
                "currently.",
            )
            enabled = False
        self._enabled = enabled

    def __enter__(self) -> autocast:
        self._before = state.target, state.on_gpus, dict(state.dtypes), state.cache
        state.depth += 1
        state.cache = self._cache_enabled
        set_autocast_dtype(self.device, self.fast_dtype)
        set_autocast_enabled(self.device, self._enabled)
        return self

    def __exit__(self, *exc: object) -> None:
        state.target, state.on_gpus, state.dtypes, state.cache = self._before
        state.depth -= 1

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether autocast is on for "cpu" or "cuda", the default."""
    return (state.target if device_type == "cpu" else state.on_gpus) is not None


def get_autocast_dtype(device_type: str) -> dtype:
    """The 16-bit dtype of a device's autocast."""
    kind = device(device_type).type
    return state.dtypes.get(kind, DTYPES["float16"])


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Turn autocast on or off for this thread."""
    global _used
    _used = True
    if enabled is None:
        device_type, enabled = "cuda", device_type
    if device_type == "cpu":
        state.target = state.dtypes["cpu"].ir if enabled else None
    elif device_type == "cuda":
        state.on_gpus = state.dtypes["cuda"].ir if enabled else None


def set_autocast_dtype(device_type: str, dtype: dtype) -> None:
    """Set the 16-bit dtype of a device's autocast."""
    state.dtypes[device(device_type).type] = dtype
    if is_autocast_enabled(device_type):
        set_autocast_enabled(device_type, True)


def is_autocast_cache_enabled() -> bool:
    """Whether `cache_enabled` is on."""
    return state.cache


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Set what `is_autocast_cache_enabled` says."""
    state.cache = bool(enabled)


def clear_autocast_cache() -> None:
    """Nothing is kept."""


def autocast_increment_nesting() -> int:
    """One more level of autocast; returns how many there are."""
    state.depth += 1
    return state.depth


def autocast_decrement_nesting() -> int:
    """One level of autocast less; returns how many there are."""
    state.depth -= 1
    return state.depth


def _deprecated(name: str, instead: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        warn_user(
            f"torch.{name} is deprecated. Please use torch.{instead} instead.",
            DeprecationWarning,
        )
        return function(*args)

    call.__name__ = call.__qualname__ = name.removesuffix("()")
    call.__doc__ = f"As ``torch.{instead}`` (deprecated)."
    return call


PUBLIC = {
    f.__name__: f
    for f in (
        autocast,
        is_autocast_enabled,
        get_autocast_dtype,
        set_autocast_enabled,
        set_autocast_dtype,
        is_autocast_cache_enabled,
        set_autocast_cache_enabled,
        clear_autocast_cache,
        autocast_increment_nesting,
        autocast_decrement_nesting,
        _deprecated(
            "get_autocast_cpu_dtype()",
            "get_autocast_dtype('cpu')",
            lambda: get_autocast_dtype("cpu"),
        ),
        _deprecated(
            "get_autocast_gpu_dtype()",
            "get_autocast_dtype('cuda')",
            lambda: get_autocast_dtype("cuda"),
        ),
        _deprecated(
            "is_autocast_cpu_enabled()",
            "is_autocast_enabled('cpu')",
            lambda: is_autocast_enabled("cpu"),
        ),
        _deprecated(
            "set_autocast_cpu_enabled()",
            "set_autocast_enabled('cpu', enabled)",
            lambda enabled: set_autocast_enabled("cpu", enabled),
        ),
        _deprecated(
            "set_autocast_cpu_dtype()",
            "set_autocast_dtype('cpu', dtype)",
            lambda dtype: set_autocast_dtype("cpu", dtype),
        ),
    )
}
