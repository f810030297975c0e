"""Names of the package that are no operations: devices' modules, events, private functions
libraries call."""

from __future__ import annotations

import importlib
from typing import Any

from .. import _settings, _types
from .._deferred.failures import OutOfMemoryError
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, METHODS
from .._ops.orders import row_major
from ..autograd.keeps import keeps_as_one
from .absent import class_without_instances

Event = class_without_instances(
    "Event",
    "torch",
    "An event on an accelerator.",
    "there is no accelerator; measure time with time.perf_counter()",
)
Stream = class_without_instances(
    "Stream",
    "torch",
    "A queue of work on an accelerator.",
    "there is no accelerator to queue work for: leave streams, and the offloading of caches to the "
    "CPU, out",
)


def get_device_module(device: Any = None) -> Any:
    """The module of a device, such as ``torch.cpu``; that of the CPU by default.

    Raises:
        RuntimeError: a device of which there is no module.
    """
    kind = "cpu" if device is None else _types.device(device).type
    if kind not in ("cpu", "cuda"):
        raise RuntimeError(
            f"Device '{kind}' does not have a corresponding module registered as 'torch.{kind}'."
        )
    return importlib.import_module(f"graphtorch.{kind}")


def get_deterministic_debug_mode() -> int:
    """0; 2 where `use_deterministic_algorithms` is on."""
    return 2 if _settings.deterministic() else 0


def detach(input: Tensor) -> Tensor:
    """``input.detach()``."""
    return input.detach()


@keeps_as_one("grad_output output")
@row_major
def _softmax_backward_data(
    grad_output: Tensor, output: Tensor, dim: int, input_dtype: Any
) -> Tensor:
    """The gradient of a softmax from what it gave."""
    weighted = grad_output * output
    return (weighted - output * weighted.sum(dim, keepdim=True)).to(input_dtype)


def _shape_as_tensor(self: Tensor) -> Tensor:
    """The sizes as a vector, i64."""
    return FUNCTIONS["tensor"](list(self.shape))  # type: ignore[no-any-return]


def _sample_dirichlet(self: Tensor, generator: Any = None) -> Tensor:
    """Draws of Dirichlet distributions with concentrations [*, K]."""
    parts = FUNCTIONS["_standard_gamma"](self, generator)
    return parts / parts.sum(-1, keepdim=True)  # type: ignore[no-any-return]


def _grouped_mm(
    mat_a: Tensor,
    mat_b: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: Any = None,
) -> Tensor:
    """Products of groups of rows with a matrix each.

    Args:
        mat_a: [M, K]; or [G, M, K].
        mat_b: [G, K, N].
        offs: i32 [G]: where each group of rows of a matrix `mat_a` ends.

    Returns:
        [M, N], rows beyond the last group zero; or [G, M, N].
    """
    if bias is not None:
        raise RuntimeError("grouped_mm: bias is not supported, as in PyTorch; add it to the result")
    if mat_a.dim() == 3 and mat_b.dim() == 3 and offs is None:
        found = FUNCTIONS["bmm"](mat_a, mat_b)
    elif mat_a.dim() == 2 and mat_b.dim() == 3 and offs is not None:
        rows = FUNCTIONS["arange"](mat_a.shape[0], dtype=offs.dtype, device=offs.device).unsqueeze(
            1
        )
        ends = offs.unsqueeze(0)
        starts = FUNCTIONS["cat"]([offs.new_zeros(1), offs[:-1]]).unsqueeze(0)
        belongs = ((rows >= starts) & (rows < ends)).to(mat_a.dtype)  # [M, G]
        found = FUNCTIONS["einsum"]("mg,mk,gkn->mn", belongs, mat_a, mat_b)
    else:
        raise RuntimeError(
            f"grouped_mm: expected [M, K] and [G, K, N] with offs, or two batches without, got "
            f"{list(mat_a.shape)} and {list(mat_b.shape)}"
        )
    return found if out_dtype is None else METHODS["to"](found, out_dtype)  # type: ignore[no-any-return]


PUBLIC: dict[str, Any] = {
    "Event": Event,
    "OutOfMemoryError": OutOfMemoryError,
    "Stream": Stream,
    "_grouped_mm": _grouped_mm,
    "_sample_dirichlet": _sample_dirichlet,
    "_shape_as_tensor": _shape_as_tensor,
    "_softmax_backward_data": _softmax_backward_data,
    "detach": detach,
    "get_deterministic_debug_mode": get_deterministic_debug_mode,
    "get_device_module": get_device_module,
    "legacy_contiguous_format": _types.contiguous_format,
}
