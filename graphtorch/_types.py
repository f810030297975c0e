"""What describes a tensor beside its elements: dtype, device, layout, Size, numeric limits."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import ml_dtypes
import numpy as np

from graphtorch.backends.gpu import devices
from graphtorch.ir import dtype as ir_dtype
from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import SymInt
from graphtorch.ir.shape import numel as _numel


class dtype:
    """An element type as users see it, ``torch.float32``. One object for each, compared by
    identity."""

    __slots__ = ("ir", "name")
    _of: ClassVar[dict[DType, dtype]] = {}

    def __init__(self, ir: DType):
        self.ir = ir
        self.name = ir.torch_name
        dtype._of[ir] = self

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> Any:
        return _dtype_named, (self.name,)

    def __deepcopy__(self, memo: dict[int, Any]) -> dtype:
        return self

    @property
    def is_floating_point(self) -> bool:
        return self.ir.is_floating_point

    @property
    def is_complex(self) -> bool:
        return self.ir.is_complex

    @property
    def is_signed(self) -> bool:
        return self.ir.signed

    @property
    def itemsize(self) -> int:
        return self.ir.itemsize

    def to_complex(self) -> dtype:
        """The complex dtype whose components have this precision."""
        return COMPLEX32 if self.ir is ir_dtype.f16 else dtype._of[self.ir.complex]

    def to_real(self) -> dtype:
        """The dtype of one component of a complex dtype."""
        return dtype._of[ir_dtype.f16 if self is COMPLEX32 else self.ir.real]


# Facts only: PyTorch's CPU hardly computes with it either, and no op here takes it.
COMPLEX32 = dtype(
    DType(
        "c32",
        "complex32",
        ir_dtype.Kind.COMPLEX,
        4,
        np.dtype([("real", np.float16), ("imag", np.float16)]),
    )
)
# Likewise: PyTorch has them for weights of eight bits and their scales.
EIGHT_BITS = {
    f"float8_{kind}": dtype(
        DType(
            f"f8{kind}",
            f"float8_{kind}",
            ir_dtype.f16.kind,
            1,
            np.dtype(getattr(ml_dtypes, f"float8_{kind}")),
        )
    )
    for kind in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
}
DTYPES: dict[str, dtype] = {d.torch_name: dtype(d) for d in ir_dtype.ALL}
DTYPES["complex32"] = COMPLEX32
DTYPES.update(EIGHT_BITS)
ALIASES = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "chalf": "complex32",
    "short": "int16",
    "int": "int32",
    "long": "int64",
}
DTYPES.update({alias: DTYPES[name] for alias, name in ALIASES.items()})


def _dtype_named(name: str) -> dtype:
    return DTYPES[name]


def to_ir(given: Any) -> DType:
    """The IR dtype of a user's `dtype` argument: a torch dtype, or float/int/bool/complex."""
    if type(given) is dtype:
        if given is COMPLEX32:
            raise RuntimeError(
                "tensors of torch.complex32 are not implemented for 'ComplexHalf': use "
                "torch.complex64"
            )
        if given in EIGHT_BITS.values():
            raise RuntimeError(
                f"tensors of {given} are not implemented: use torch.bfloat16 or torch.int8"
            )
        return given.ir
    found = OF_PYTHON.get(given) if isinstance(given, type) else None
    if found is None:
        raise TypeError(
            f"dtype must be a torch.dtype such as torch.float32, not {given!r} of type "
            f"{type(given).__name__}"
        )
    return found


# of Python's types as `dtype` arguments: not those of Python's numbers
OF_PYTHON: dict[type, DType] = {
    bool: ir_dtype.boolean,
    int: ir_dtype.i64,
    float: ir_dtype.f64,
    complex: ir_dtype.c128,
}

defaults = [ir_dtype.f32]  # of Python floats


def default_dtype() -> DType:
    """The dtype of Python floats."""
    return defaults[0]


def set_default_dtype(d: Any) -> None:
    """Set the dtype of Python floats and of factory functions: float16, bfloat16, float32 or
    float64."""
    ir = to_ir(d)
    if type(d) is not dtype or not ir.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    defaults[0] = ir


def get_default_dtype() -> dtype:
    """The dtype that a Python float becomes."""
    return dtype._of[defaults[0]]


class device:
    """Where a tensor lives: ``device('cpu')``, ``device('cuda', 1)``, ``device('cuda:1')``."""

    __slots__ = ("index", "type")
    KINDS = ("cpu", "cuda", "meta", "mps", "xpu")

    type: str
    index: int | None

    def __init__(self, kind: Any, index: int | None = None):
        if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
            raise TypeError(
                f"device(): argument 'index' (position 2) must be int, not {type(index).__name__}"
            )
        if isinstance(kind, device):
            kind, index = kind.type, kind.index
        elif isinstance(kind, int) and not isinstance(kind, bool):
            kind, index = "cuda", kind
        if index is not None and index < 0:
            raise RuntimeError(f"Device index must not be negative, but got {index}")
        if not isinstance(kind, str):
            raise TypeError(f"device(): argument 'type' must be str, not {type(kind).__name__}")
        name, _, number = kind.partition(":")
        if name not in device.KINDS or (number and not number.isdigit()):
            raise RuntimeError(
                f"Invalid device string: '{kind}': expected one of {', '.join(device.KINDS)}, "
                "with an optional index as in 'cuda:0'"
            )
        if number and index is not None:
            raise RuntimeError(
                "type (string) must not include an index because index was passed explicitly: "
                f"{kind}"
            )
        self.type = name
        self.index = int(number) if number else index

    def __repr__(self) -> str:
        return f"device(type='{self.type}'" + (
            f", index={self.index})" if self.index is not None else ")"
        )

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> Any:
        return device, (self.type, self.index)

    if TYPE_CHECKING:  # `_ops.devices` attaches these

        def __enter__(self) -> device: ...
        def __exit__(self, *exc: object) -> None: ...


CPU, META = device("cpu"), device("meta")
_gpus: dict[int, device] = {}  # one object for each, compared by identity


class CurrentGPU(threading.local):
    """Of a thread: the GPU that "cuda" without a number stands for."""

    index = 0


current_gpu = CurrentGPU()


def gpu(index: int | None = None) -> device:
    """The GPU of a number, or the present one.

    Raises:
        AssertionError: there is none at all. RuntimeError: none of that number.
    """
    index = current_gpu.index if index is None else index
    found = _gpus.get(index)
    if found is None:
        try:
            devices.device(index)
        except RuntimeError as error:
            if devices.available():
                raise
            raise AssertionError(
                f"Torch not compiled with CUDA enabled: {error}. Test "
                "torch.cuda.is_available() before asking for 'cuda'"
            ) from None
        found = _gpus[index] = device("cuda", index)
    return found


def check_device(given: Any) -> device:
    """`given` as a device that exists here: the object that stands for it; None is the CPU.

    "meta" is where tensors have shapes and dtypes, but no elements.
    """
    if given is None or given is CPU:
        return CPU
    found = given if isinstance(given, device) else device(given)
    if found.type == "cuda":
        return gpu(found.index)
    if found.type == "meta":
        return META
    if found.type != "cpu":
        raise RuntimeError(
            f"device {str(found)!r} is not available: graphtorch runs on 'cpu' and 'cuda'"
        )
    return CPU


class layout:
    """How elements are stored. Only `strided` exists."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> Any:
        return self.name


class memory_format(layout):
    """Which stride order a copy takes."""

    __slots__ = ()


strided = layout("strided")
sparse_coo = layout("sparse_coo")
sparse_csr = layout("sparse_csr")
preserve_format = memory_format("preserve_format")
contiguous_format = memory_format("contiguous_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")


def _checked_size(entry: tuple[int, Any]) -> Any:
    size = entry[1]
    if type(size) is int or type(size) is SymInt:
        return size
    try:
        return operator.index(size)
    except TypeError:
        raise TypeError(
            f"torch.Size() takes an iterable of 'int' (item {entry[0]} is '{type(size).__name__}')"
        ) from None


class Size(tuple):
    """A shape. A tuple of ints that prints as ``torch.Size([2, 3])``."""

    __slots__ = ()

    def __new__(cls, sizes: Iterable[Any] = ()) -> Size:
        return tuple.__new__(cls, map(_checked_size, enumerate(sizes)))

    @classmethod
    def of(cls, shape: tuple[Any, ...]) -> Size:
        """The shape of a type, whose sizes nobody has to look at."""
        return tuple.__new__(cls, shape)

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def numel(self) -> Any:
        """The product of the sizes."""
        return _numel(tuple(self))

    def __add__(self, other: Iterable[Any]) -> Size:  # type: ignore[override]
        return Size(tuple.__add__(self, tuple(other)))

    def __mul__(self, times: Any) -> Size:
        return Size(tuple.__mul__(self, times))

    def __getitem__(self, key: Any) -> Any:
        found = tuple.__getitem__(self, key)
        return Size(found) if isinstance(key, slice) else found

    def __reduce__(self) -> Any:
        return Size, (tuple(self),)


class _Info:
    def __repr__(self) -> str:
        shown = [
            f"{k}={v}" if k == "dtype" else f"{k}={v:g}"
            for k, v in self.__dict__.items()
            if k != "bits"
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]


class finfo(_Info):
    """Limits of a floating-point dtype: resolution, min, max, eps, smallest_normal, tiny, bits."""

    def __init__(self, type: Any = None):
        if type is None:
            ir = default_dtype()
        else:  # facts, which dtypes without tensors have too
            ir = (
                type.to_real().ir if type is COMPLEX32 else getattr(type, "ir", None) or to_ir(type)
            )
        if not ir.is_floating_point and not ir.is_complex:
            raise TypeError(
                f"torch.finfo() requires a floating point input type. Use torch.iinfo to handle "
                f"'torch.{ir.torch_name}'"
            )
        info = ml_dtypes.finfo(ir.real.numpy)
        self.resolution = 10.0 ** round(math.log10(info.resolution))
        self.min, self.max = float(info.min), float(info.max)
        self.eps = float(info.eps)
        self.smallest_normal = self.tiny = float(info.smallest_normal)
        self.bits = ir.real.bits
        self.dtype = ir.real.torch_name


class iinfo(_Info):
    """Limits of an integer dtype: min, max, bits."""

    def __init__(self, type: Any):
        ir = to_ir(type)
        if not ir.is_integer:
            raise TypeError(
                f"torch.iinfo() requires an integer input type. Use torch.finfo to handle "
                f"'torch.{ir.torch_name}'"
            )
        info = np.iinfo(ir.numpy)
        self.min, self.max, self.bits = int(info.min), int(info.max), ir.bits
        self.dtype = ir.torch_name
