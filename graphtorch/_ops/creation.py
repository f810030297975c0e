"""Making tensors: from data, filled, ranges, and the legacy constructors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import BY_NUMPY, SCALAR_NAMES, DType, i64, number_dtype, promote, u64
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import SymInt

from .. import _types
from .._deferred.at_once import element
from .._deferred.door import Buffer, check_room, uploaded
from .._deferred.making import from_buffer, from_value, over_array
from .._deferred.memory_order import order_asked, view_of
from .._deferred.storage import Leaf, MetaLeaf, recorder
from .._deferred.tensor import Tensor
from .._files.gpu_memory import INTERFACE, of_interface
from .._settings import warn_once, warn_user
from .._types import CPU, META, check_device, sparse_coo, to_ir
from ..autograd.grad_mode import modes
from .base import (
    FUNCTIONS,
    METHODS,
    Number,
    number_given,
    shape_of,
    size_value,
    small_constant,
    write_out,
)


def from_array(
    array: np.ndarray, requires_grad: bool = False, place: _types.device = CPU
) -> Tensor:
    """A tensor of the elements of `array`: on the CPU it owns the array (pass a fresh one)."""
    return _made(leaf_on(array, place), requires_grad, place=place)


def leaf_on(array: np.ndarray, place: _types.device) -> Leaf:
    """An array as a value in the memory of a device."""
    if place is CPU:
        return Leaf.of(array)
    array = np.asarray(array)
    if place is META:
        return MetaLeaf(Type(DType.of(array.dtype), array.shape))
    return Leaf(uploaded(array, place))


# ---------------------------------------------------------------------------------------- from data


def tensor(
    data: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A copy of `data`: a number, nested sequences, a NumPy array, a tensor, or an array of another
    library on the GPU (``__cuda_array_interface__``), where the copy is too.

    Raises:
        ValueError: rows of different lengths. TypeError: elements that are not numbers.
        RuntimeError: `requires_grad` for integers.
    """
    place = check_device(device)
    wanted = None if dtype is None else to_ir(dtype)
    if isinstance(data, SymInt):
        return _made(
            size_value(data, i64 if wanted is None else wanted), requires_grad, place=place
        )
    data = _on_gpu(data)
    if isinstance(data, Tensor):
        warn_user(
            "To copy construct from a tensor, it is recommended to use "
            "sourceTensor.detach().clone() or sourceTensor.detach().clone().requires_grad_(True), "
            "rather than torch.tensor(sourceTensor)."
        )
        plain = data if type(data) is Tensor else data._as(Tensor)
        made = plain.detach().clone()
        made = (
            made
            if wanted is None or wanted is made._type.dtype
            else made.to(_types.dtype._of[wanted])
        )
        made = made if device is None else made.to(place)
        return made.requires_grad_() if requires_grad else made
    array = array_from(data, wanted)
    if pin_memory:
        return METHODS["pin_memory"](from_array(array, place=place)).requires_grad_(requires_grad)
    return from_array(array.copy() if place is CPU else array, requires_grad, place)


def warn_of_scalar() -> None:
    """Warn, where gradients are recorded, that a number read out of a tensor that requires grad
    does not."""
    if not modes.grad:
        return
    warn_once(
        "Converting a tensor with requires_grad=True to a scalar may lead to unexpected behavior.\n"
        "Consider using tensor.detach() first."
    )


def _on_gpu(data: Any) -> Any:
    """An array of another library on the GPU as a tensor over its memory; all else as it is."""
    if isinstance(data, (Tensor, list, tuple)) or not hasattr(data, INTERFACE):
        return data
    return of_interface(data)


def array_from(data: Any, wanted: DType | None) -> np.ndarray:
    """`data` as an array of the dtype that PyTorch infers, or of `wanted`."""
    if isinstance(data, Tensor):
        array = data.detach()._array()
        return array if wanted is None else _converted(array, wanted)
    if not isinstance(data, np.ndarray) and not isinstance(data, np.generic):
        if hasattr(data, "__array__") and not isinstance(data, (list, tuple)):
            data = np.asarray(data)
        else:
            return _from_python(data, wanted)
    array = np.asarray(data)
    _check_byte_order(array)
    try:
        DType.of(array.dtype)
    except TypeError:
        raise TypeError(
            f"can't convert np.ndarray of type {array.dtype}. The only supported types are: "
            "float64, float32, float16, complex64, complex128, int64, int32, int16, int8, uint64, "
            "uint32, uint16, uint8, and bool."
        ) from None
    return array if wanted is None else _converted(array, wanted)


def _check_byte_order(array: np.ndarray) -> None:
    if not array.dtype.isnative:
        raise ValueError(
            "given numpy array has byte order different from the native byte order. Conversion "
            "between byte orders is currently not supported: use "
            "array.astype(array.dtype.newbyteorder('='))"
        )


def _converted(array: np.ndarray, wanted: DType) -> np.ndarray:
    if array.dtype == wanted.numpy:
        return array
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return array.astype(wanted.numpy)


def _from_python(data: Any, wanted: DType | None) -> np.ndarray:
    kind = type(data)
    if wanted is None and (kind is float or kind is bool):  # as most are
        return np.array(data, _inferred({kind}).numpy)
    shape, flat = [], [data]
    first = data
    while isinstance(first, (Sequence, np.ndarray)) and not isinstance(first, (str, bytes)):
        shape.append(len(first))
        if len(first) == 0:
            break
        first = first[0]
    for depth, size in enumerate(shape):
        flat = _level(flat, size, depth)
    for x in flat:
        if isinstance(x, (str, bytes)):
            if not shape or x is not first or isinstance(x, bytes):
                raise TypeError(
                    f"new(): invalid data type '{type(x).__name__}': data are numbers, or nested "
                    "lists of them"
                )
            raise ValueError("too many dimensions 'str': data are numbers, or nested lists of them")
        if isinstance(x, Tensor) and x.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
    given = flat
    if any(isinstance(x, Tensor) and x.requires_grad for x in flat):
        warn_of_scalar()
    flat = [
        x.item() if isinstance(x, (Tensor, np.generic)) or hasattr(x, "item") else x for x in given
    ]
    dtype = wanted or _inferred(
        {
            type(x if isinstance(x, np.generic) else plain)
            for x, plain in zip(given, flat, strict=True)
        }
    )
    if dtype.is_integer:
        return _integers(flat if wanted is None else [int(x) for x in flat], dtype).reshape(shape)
    try:
        # a number too large for the dtype becomes inf, as in PyTorch
        with np.errstate(over="ignore"):
            return np.array(flat, dtype.numpy).reshape(shape)
    except OverflowError:
        raise RuntimeError(
            f"value cannot be converted to type {dtype.torch_name} without overflow"
        ) from None


def _integers(flat: list[int], dtype: DType) -> np.ndarray:
    if dtype is u64:  # the others are read as int64, and unsigned ones wrap
        try:
            return np.array(flat, np.uint64)
        except OverflowError:
            raise OverflowError(
                "can't convert an int that is negative or does not fit 64 bits to uint64"
            ) from None
    try:
        array = np.array(flat, np.int64 if flat else dtype.numpy)
    except OverflowError:
        raise ValueError("Overflow when unpacking long long: an int does not fit int64") from None
    low, high = dtype.ends
    lowest = low if dtype.signed else -high
    if dtype is not i64 and array.size and (array.max() > high or array.min() < lowest):
        raise RuntimeError(f"value cannot be converted to type {dtype.torch_name} without overflow")
    return array.astype(dtype.numpy)


def _level(rows: list[Any], size: int, depth: int) -> list[Any]:
    result: list[Any] = []
    for row in rows:
        if not isinstance(row, (Sequence, np.ndarray, Tensor)) or isinstance(row, (str, bytes)):
            raise TypeError(
                f"not a sequence: {row!r} at depth {depth}, where other entries are sequences"
            )
        if len(row) != size:
            raise ValueError(f"expected sequence of length {size} at dim {depth} (got {len(row)})")
        result.extend(row)
    return result


def _inferred(kinds: set[type]) -> DType:
    """The dtype of data by the types of its numbers; those of NumPy have one of their own."""
    found: DType | None = None
    for kind in kinds:
        own = issubclass(kind, np.generic)
        if not own and not issubclass(kind, (bool, int, float, complex)):
            raise RuntimeError(
                f"Could not infer dtype of {kind.__name__}: pass numbers, or nested lists of them"
            )
        one = DType.of(kind) if own else number_dtype(kind, _types.default_dtype())
        found = one if found is None else promote(found, one)
    return found or _types.default_dtype()


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor that shares memory with it where it can (a NumPy array, a tensor of that
    dtype, an array of another library on the GPU by ``__cuda_array_interface__``)."""
    place = check_device(device)
    data = _on_gpu(data)
    if isinstance(data, Tensor):
        data = data if device is None else data.to(place)
        return data if dtype is None else data.to(dtype)
    if getattr(data, "is_storage", False) is True:  # its bytes
        data = np.asarray(data)
    if (
        isinstance(data, np.ndarray)
        and place is CPU
        and (dtype is None or to_ir(dtype).numpy == data.dtype)
    ):
        try:
            return from_numpy(data)
        except (TypeError, ValueError):
            pass
    return tensor(data, dtype=dtype, device=place)


asarray = as_tensor


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor over the memory of an array: writes on either side show on the other."""
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    _check_byte_order(ndarray)
    flags = ndarray.flags
    if flags.c_contiguous and flags.writeable:
        dtype = BY_NUMPY.get(ndarray.dtype)
        if dtype is not None and flags.aligned and recorder.capture is None:
            return over_array(ndarray, dtype)
        if dtype is not None:
            return shared(ndarray)
    array_from(ndarray[:0] if ndarray.ndim else ndarray, None)  # raises for unsupported dtypes
    if any(s < 0 for s in ndarray.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array with array.copy().)"
        )
    if not flags.writeable:
        warn_user(
            "The given NumPy array is not writable, and PyTorch does not support non-writable "
            "tensors. It was copied.",
        )
        return from_array(ndarray.copy())
    return _shared_strided(ndarray)


def shared(array: np.ndarray) -> Tensor:
    """A tensor over a row-major array that code outside holds as well."""
    buffer = Buffer.of(array)
    if recorder.capture is None:
        return from_buffer(buffer, array)
    made = from_value(Leaf(buffer))
    made._storage.host = array
    return made


def _shared_strided(array: np.ndarray) -> Tensor:
    """Over the memory from the array's first element to its last, seen with the array's strides."""
    size = array.itemsize
    if any(s % size for s in array.strides):
        raise ValueError(
            "given numpy array strides not a multiple of the element byte size. Copy the numpy "
            "array to reallocate the memory."
        )
    if array.size == 0:
        return from_array(array.copy())
    strides = [s // size for s in array.strides]
    last = sum((n - 1) * s for n, s in zip(array.shape, strides, strict=True))
    whole = shared(np.lib.stride_tricks.as_strided(array, (last + 1,), (size,)))
    return FUNCTIONS["as_strided"](whole, array.shape, strides)


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A tensor over the bytes of a buffer object."""
    array = np.frombuffer(buffer, to_ir(dtype).numpy, count, offset)
    made = from_numpy(array) if array.flags.writeable else from_array(array.copy())
    return made.requires_grad_() if requires_grad else made


# ------------------------------------------------------------------------------------------ filled


def full_value(shape: tuple[Any, ...], number: Any, dtype: DType) -> Value:
    """`number` repeated to `shape`."""
    small = type(number) is int and -1 <= number <= 2  # of which 0 is no -0.0
    one = (
        small_constant(number, int, dtype)
        if small
        else ops.constant(value=Literal.of(number, dtype))
    )
    return ops.expand(one, shape=tuple(shape)) if shape else one


def without_elements(shape: tuple[Any, ...], dtype: DType, requires_grad: bool = False) -> Tensor:
    """A tensor on the device "meta"."""
    made = from_value(MetaLeaf(Type(dtype, shape)))
    return made.requires_grad_() if requires_grad else made


def place_for(given: Any, out: Any) -> _types.device:
    """The device of what is made: `given`, or that of the tensor it is written to.

    Raises: RuntimeError: these differ.
    """
    if not isinstance(out, Tensor):
        return check_device(given)
    place = out.device if given is None else check_device(given)
    if place is not out.device:
        raise RuntimeError(f"device {place} does not match device of out parameter ({out.device})")
    return place


def dtype_for(given: Any, out: Any, default: DType) -> DType:
    """The dtype of what is made: `given`, or that of the tensor it is written to, or `default`.

    Raises: RuntimeError: the first two differ.
    """
    if not isinstance(out, Tensor):
        return default if given is None else to_ir(given)
    ir = out._type.dtype if given is None else to_ir(given)
    if ir is not out._type.dtype:
        raise RuntimeError(
            f"dtype {SCALAR_NAMES[ir]} does not match dtype of out parameter "
            f"({SCALAR_NAMES[out._type.dtype]})"
        )
    return ir


def _made(
    value: Value,
    requires_grad: bool,
    out: Tensor | None = None,
    place: _types.device = CPU,
    name: str = "factory",
) -> Tensor:
    check_room(value.type, place)
    made = from_value(value, place)
    if out is not None:
        return write_out(name, made, out)
    return made.requires_grad_() if requires_grad else made


def _filled(number: int, name: str, doc: str) -> Callable[..., Tensor]:
    def make(
        *size: Any,
        out: Tensor | None = None,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        pin_memory: bool = False,
        memory_format: Any = None,
        names: Any = None,
    ) -> Tensor:
        if layout is not None and not isinstance(layout, _types.layout):
            raise TypeError(
                f"{name}(): argument 'layout' must be torch.layout, not {type(layout).__name__}"
            )
        place = place_for(device, out)
        ir = dtype_for(dtype, out, _types.default_dtype())
        value = full_value(_sizes(name, size), number, ir)
        if pin_memory:
            return METHODS["pin_memory"](_made(value, False, out, place)).requires_grad_(
                requires_grad
            )
        return _made(value, requires_grad, out, place)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = doc
    return make


def _sizes(name: str, size: tuple[Any, ...]) -> tuple[Any, ...]:
    if not size:
        raise TypeError(f'{name}() missing 1 required positional arguments: "size"')
    for s in size:
        if type(s) is not int or s < 0:
            break
    else:
        return size  # what most calls give: all that follows is about others
    shape = shape_of(size)
    if any(isinstance(s, int) and s < 0 for s in shape):
        bad = next(s for s in shape if isinstance(s, int) and s < 0)
        raise RuntimeError(f"Trying to create tensor with negative dimension {bad}: {list(shape)}")
    return shape


zeros = _filled(0, "zeros", "A tensor of zeros.")
ones = _filled(1, "ones", "A tensor of ones.")
empty = _filled(0, "empty", "A tensor with unspecified contents (zeros here).")


def like(name: str, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function `name`: what `make` makes of the shape and dtype of a tensor, given first."""

    def made(
        input: Tensor,
        *args: Any,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        memory_format: Any = None,
        pin_memory: bool = False,
        generator: Any = None,
        **named: Any,
    ) -> Tensor:
        if not isinstance(input, Tensor):
            raise TypeError(
                f"{name}(): argument 'input' (position 1) must be Tensor, not "
                f"{type(input).__name__}"
            )
        if input.is_sparse and layout in (None, sparse_coo):
            return input._like(name, dtype)  # type: ignore[no-any-return]
        order = order_asked(name, memory_format, input)
        shape = tuple(input._type.shape)
        tensor = make(
            shape if order is None else tuple([shape[d] for d in order]),
            *args,
            dtype=input.dtype if dtype is None else dtype,
            device=input.device if device is None else device,
            requires_grad=requires_grad,
            **({} if generator is None else {"generator": generator}),
            **({"pin_memory": True} if pin_memory else {}),
            **named,
        )
        if order is not None:
            tensor._view = view_of(tensor._type.with_shape(shape), order)
        return tensor

    made.__name__ = made.__qualname__ = name
    made.__doc__ = f"As `{make.__name__}`, with the shape and dtype of `input`."
    return made


zeros_like, ones_like, empty_like = (
    like("zeros_like", zeros),
    like("ones_like", ones),
    like("empty_like", empty),
)


def full(
    size: Any,
    fill_value: Any,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `fill_value`, whose type decides the dtype.

    Raises: TypeError: `fill_value` is no number, or a tensor that requires grad; `size` no tuple.
    """
    place = place_for(device, out)
    if isinstance(fill_value, Tensor):
        dtype = fill_value.dtype if dtype is None else dtype
        fill_value = number_given("full", "fill_value", fill_value, 2)
    elif not isinstance(fill_value, (*Number, SymInt)):
        raise TypeError(
            "full(): argument 'fill_value' (position 2) must be Number, not "
            f"{type(fill_value).__name__}"
        )
    if not isinstance(size, (tuple, list)):
        raise TypeError(
            f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}"
        )
    ir = dtype_for(dtype, out, number_dtype(type(fill_value), _types.default_dtype()))
    return _made(
        full_value(_sizes("full", (size,)), element(fill_value, ir), ir), requires_grad, out, place
    )


full_like = like("full_like", full)


def scalar_tensor(
    s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A 0-d tensor."""
    return full(
        (), s, dtype=dtype or _types.get_default_dtype(), device=device, requires_grad=requires_grad
    )


def empty_strided(size: Any, stride: Any, *, requires_grad: bool = False, **options: Any) -> Tensor:
    """A tensor with unspecified contents and the given strides."""
    total = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if 0 not in size else 0
    made: Tensor = FUNCTIONS["as_strided"](empty(total, **options), size, stride)
    return made.detach().requires_grad_(requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    out: Tensor | None = None,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones on the diagonal of an n x m matrix, zeros elsewhere."""
    place = place_for(device, out)
    m = n if m is None else m
    if n < 0 or m < 0:
        raise RuntimeError(f"n must be greater or equal to 0, got {min(n, m)}")
    ir = dtype_for(dtype, out, _types.default_dtype())
    rows, columns = (ops.iota(shape=(n, m), dim=d, dtype=i64) for d in (0, 1))
    return _made(ops.cast(ops.eq(rows, columns), dtype=ir), requires_grad, out, place)


# ------------------------------------------------------------------------------------------ windows


def _line(line: Callable[[np.ndarray], np.ndarray], length: int, periodic: bool) -> np.ndarray:
    """`line` of places from -1 to 1; a periodic window leaves out the last of one more."""
    if length == 1:
        return np.ones(1)
    places = length if periodic else length - 1
    return line(np.arange(length) * (2 / max(places, 1)) - 1)


def _cosines(*terms: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: sum(c * np.cos(k * math.pi * (x + 1)) for k, c in enumerate(terms))  # type: ignore[return-value]


def _window(name: str, line: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Tensor]:
    def make(
        window_length: int,
        periodic: bool = True,
        *,
        dtype: Any = None,
        layout: Any = None,
        device: Any = None,
        requires_grad: bool = False,
    ) -> Tensor:
        ir, place = _window_type(name, window_length, dtype), check_device(device)
        made = _line(line, window_length, periodic)
        return from_array(np.asarray(made).astype(ir.numpy), requires_grad, place)

    make.__name__ = name
    make.__doc__ = f"The {name.replace('_', ' ')} of a length."
    return make


def _window_type(name: str, length: int, dtype: Any) -> Any:
    ir = _types.default_dtype() if dtype is None else to_ir(dtype)
    if length < 0:
        raise RuntimeError(
            f"{name} requires non-negative window_length, got window_length={length}"
        )
    if not (ir.is_floating_point or ir.is_complex):
        raise RuntimeError(f"{name} expects floating point dtypes, got: {ir}: pass a float dtype")
    return ir


def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """I0(beta sqrt(1 - x^2)) / I0(beta) for places x from -1 to 1: the larger `beta`, the narrower.

    Raises:
        RuntimeError: a negative length, or no floating dtype.
    """
    ir, place = _window_type("kaiser_window", window_length, dtype), check_device(device)

    def line(x: np.ndarray) -> np.ndarray:
        return np.i0(beta * np.sqrt(np.maximum(1 - x * x, 0))) / np.i0(beta)  # type: ignore[no-any-return]

    made = _line(line, window_length, periodic)
    return from_array(made.astype(ir.numpy), requires_grad, place)


hann_window = _window("hann_window", _cosines(0.5, -0.5))
hamming_window = _window("hamming_window", _cosines(0.54, -0.46))
blackman_window = _window("blackman_window", _cosines(0.42, -0.5, 0.08))
bartlett_window = _window("bartlett_window", lambda x: 1 - np.abs(x))


# ------------------------------------------------------------------------------------ new_*, legacy


def _new(make: Callable[..., Tensor], name: str) -> None:
    def new(
        self: Tensor,
        *args: Any,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        layout: Any = None,
        pin_memory: bool = False,
        **more: Any,
    ) -> Tensor:
        args = (more.pop("size"), *args) if "size" in more else args
        return make(
            *args,
            dtype=self.dtype if dtype is None else dtype,
            device=self.device if device is None else device,
            requires_grad=requires_grad,
            **more,
        )

    new.__name__ = new.__qualname__ = name
    new.__doc__ = f"As `{make.__name__}`, with the dtype of this tensor by default."
    METHODS[name] = new


for _make in (zeros, ones, empty, empty_strided, full):
    _new(_make, "new_" + _make.__name__)


def new_tensor(
    self: Tensor, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A copy of `data`, with the dtype of this tensor by default."""
    return tensor(
        data,
        dtype=self.dtype if dtype is None else dtype,
        device=self.device if device is None else device,
        requires_grad=requires_grad,
    )


METHODS["new_tensor"] = new_tensor


PUBLIC = {
    f.__name__: f
    for f in (
        tensor,
        as_tensor,
        from_numpy,
        frombuffer,
        zeros,
        ones,
        empty,
        full,
        zeros_like,
        ones_like,
        empty_like,
        full_like,
        scalar_tensor,
        empty_strided,
        eye,
        hann_window,
        hamming_window,
        bartlett_window,
        blackman_window,
        kaiser_window,
    )
} | {"asarray": as_tensor}
