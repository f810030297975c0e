"""``torch.ops.aten``: PyTorch's own operators, as the functions of graphtorch that they are.

An operator is found under its name among the package's functions, the methods of `Tensor` and
``nn.functional``.
Those whose arguments differ from the function's are listed below.
https://docs.pytorch.org/docs/stable/torch.compiler_ir.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import nn
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS, METHODS
from .._torch.assertions import _assert_async
from .operators import Entry

# Names of signatures that operators have; a signature does not choose between functions here.
OVERLOADS = (
    "default",
    "Tensor",
    "Scalar",
    "Tensor_Scalar",
    "Scalar_Tensor",
    "Tensor_Tensor",
    "Tensor_mode",
    "Scalar_mode",
    "Dimname",
    "dim",
    "dims",
    "dim_IntList",
    "dim_max",
    "dim_min",
    "self",
    "ScalarSelf",
    "ScalarOther",
    "int",
    "self_int",
    "self_Tensor",
    "out",
    "start",
    "start_step",
    "start_Step",
    "low",
    "generator",
    "p",
    "dtype",
    "device",
    "other",
    "dtype_layout",
    "vec",
    "sizes",
    "size",
    "value",
    "src",
    "reduce",
    "value_reduce",
    "two",
    "stable",
    "correction",
    "unary_out",
    "other_int",
    "IntList",
    "msg",
    "input",
    "padding",
    "order",
)


def _slice(self: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    where: list[Any] = [slice(None)] * self.ndim
    where[dim] = slice(start, None if end == 2**63 - 1 else end, step)
    return self[tuple(where)]


def _to_copy(
    self: Tensor, *, dtype: Any = None, memory_format: Any = None, **options: Any
) -> Tensor:
    return METHODS["to"](self, dtype=dtype or self.dtype, copy=True)  # type: ignore[no-any-return]


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor:
    dims = weight.ndim - 2
    if transposed:
        transpose = getattr(nn.functional, f"conv_transpose{dims}d")
        return transpose(input, weight, bias, stride, padding, output_padding, groups, dilation)  # type: ignore
    return getattr(nn.functional, f"conv{dims}d")(  # type: ignore[no-any-return]
        input, weight, bias, stride, padding, dilation, groups
    )


def _index(self: Tensor, indices: Any) -> Tensor:
    return self[tuple(slice(None) if i is None else i for i in indices)]


def _softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return nn.functional.softmax(self, dim)


def _log_softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return nn.functional.log_softmax(self, dim)


def _scalar_tensor(s: Any, **options: Any) -> Tensor:
    return FUNCTIONS["full"]((), s, **options)  # type: ignore[no-any-return]


def _sym_size(self: Tensor, dim: int | None = None) -> Any:
    return self.shape if dim is None else self.shape[dim]


def _sym_numel(self: Tensor) -> Any:
    return self.numel()


def _local_scalar_dense(self: Tensor) -> Any:
    return self.item()


def _is_all_true(self: Tensor) -> Tensor:
    return METHODS["all"](self)  # type: ignore[no-any-return]


def _alias(self: Tensor) -> Tensor:
    return METHODS["view"](self, self.shape)  # type: ignore[no-any-return]


def _rsub(self: Tensor, other: Any, alpha: Any = 1) -> Tensor:
    return other - alpha * self  # type: ignore[no-any-return]


def _mm(self: Tensor, mat2: Tensor, out_dtype: Any = None) -> Tensor:
    found = (
        FUNCTIONS["mm"](self, mat2)
        if out_dtype is None
        else FUNCTIONS["mm"](self.to(out_dtype), mat2.to(out_dtype))
    )
    return found  # type: ignore[no-any-return]


def _upsample(mode: str, corners: bool) -> Callable[..., Tensor]:
    def upsample(input: Tensor, output_size: Any = None, *options: Any, **named: Any) -> Tensor:
        more = dict(zip(("align_corners",) if corners else (), options, strict=False))
        align = (
            bool(named.get("align_corners", more.get("align_corners", False))) if corners else None
        )
        scales = named.get("scale_factors")
        return nn.functional.interpolate(input, output_size, scales, mode, align)

    return upsample


OWN: dict[str, Callable[..., Any]] = {
    "_assert_async": _assert_async,
    "_is_all_true": _is_all_true,
    "_local_scalar_dense": _local_scalar_dense,
    "_log_softmax": _log_softmax,
    "_softmax": _softmax,
    "_to_copy": _to_copy,
    "_unsafe_view": METHODS["reshape"],
    "alias": _alias,
    "convolution": _convolution,
    "index": _index,
    "mm": _mm,
    "rsub": _rsub,
    "scalar_tensor": _scalar_tensor,
    "slice": _slice,
    "sym_numel": _sym_numel,
    "sym_size": _sym_size,
    "upsample_bicubic2d": _upsample("bicubic", True),
    "upsample_bilinear2d": _upsample("bilinear", True),
    "upsample_linear1d": _upsample("linear", True),
    "upsample_nearest1d": _upsample("nearest", False),
    "upsample_nearest2d": _upsample("nearest", False),
    "upsample_nearest3d": _upsample("nearest", False),
    "upsample_trilinear3d": _upsample("trilinear", True),
}


def _function(name: str) -> Callable[..., Any] | None:
    if name in OWN:
        return OWN[name]
    if name.endswith("_copy") and name[:-5] in METHODS:  # of a view: `slice_copy`
        view = METHODS[name[:-5]]
        return lambda *args, **kwargs: view(*args, **kwargs).clone()
    found = FUNCTIONS.get(name) or METHODS.get(name) or nn.functional.public.FUNCTIONS.get(name)
    if found is None:
        found = getattr(nn.functional, name, None)
    return found if callable(found) else None


def find(name: str) -> Entry | None:
    """The operator ``aten::name``; None where graphtorch has no such function."""
    function = _function(name)
    if function is None:
        return None
    made = Entry(f"aten::{name}", overloads=OVERLOADS, differentiable=True)
    made.implementations["CompositeImplicitAutograd"] = function
    return made
