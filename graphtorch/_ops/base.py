"""What the operation tables share: applying IR functions to tensors, Python numbers, names and
variants."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.dtype import (
    ALL,
    SCALAR_NAMES,
    DType,
    bf16,
    boolean,
    f16,
    f32,
    i64,
    number_dtype,
    result_type,
)
from graphtorch.ir.graph import Value, located
from graphtorch.ir.literal import Literal
from graphtorch.ir.ops.require import FAILURES, breaks
from graphtorch.ir.shape import SymInt, normalize_axis

from .. import _types
from .._deferred.at_once import check_64_bits, element
from .._deferred.device_storage import DeviceStorage
from .._deferred.door import Buffer, is_quick
from .._deferred.making import wrap
from .._deferred.memory_order import order_of
from .._deferred.running import flush, locate, settle, user_line
from .._deferred.storage import Leaf, Storage, number_in_all, overlaps, recorder
from .._deferred.tensor import Tensor
from .._deferred.write import assign, cast_tensor, check_overlap, forget_target
from .._settings import warn_user
from .._types import CPU, to_ir
from ..autograd.grad_mode import modes
from ..autograd.nodes import new_number

FLOATS = frozenset(d for d in ALL if d.is_differentiable)
SHORT = frozenset({f16, bf16})
DENSE: set[type] = {Tensor}  # classes that have no behaviour of their own; Parameter is added to it
Number = (bool, int, float, complex, np.number, np.bool_)

FUNCTIONS: dict[str, Callable[..., Any]] = {}  # names in the package: torch.add
METHODS: dict[str, Any] = {}  # names on Tensor: functions and properties


class SparseOperand(NotImplementedError):
    """Raised where the elements of a sparse tensor are asked for as one array.

    Operations that sparse tensors have catch it, so that dense ones pay nothing for them.
    """

    def __init__(self, tensor: Any):
        super().__init__(
            "Could not run this operation with arguments from the 'SparseCPU' backend: it needs a "
            "dense tensor; call .to_dense() on the sparse one first"
        )
        self.tensor = tensor


# ------------------------------------------------------------------------------------- registration


def register(
    *names: str,
    function: bool = True,
    method: bool = True,
    inplace: bool = False,
    out: bool = False,
    fills: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Publish a definition as function, method, in-place form and with ``out=``, under each of
    `names`."""

    def publish(define: Callable[..., Any]) -> Callable[..., Any]:
        for name in names or (define.__name__,):
            if function:
                FUNCTIONS[name] = with_out(name, define) if out else define
            if method:
                METHODS[name] = define
            if inplace:
                FUNCTIONS[name + "_"] = METHODS[name + "_"] = in_place(name + "_", define, fills)
        return define

    return publish


def in_place(name: str, define: Callable[..., Any], fills: bool = False) -> Callable[..., Any]:
    """The form of an operation that writes its result into its first operand."""
    identical = name in SCATTERS

    @functools.wraps(define)
    def write(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_tensor(name, "input", self)
        if name in REPEATED and repeats(self):
            return REPEATED[name](self, *args, **kwargs)  # type: ignore[no-any-return]
        if not fills and name != "masked_fill_":  # which takes a number out of a tensor
            for x in (*args, *kwargs.values()) if kwargs else args:
                if isinstance(x, Tensor):
                    check_overlap(self, x, identical)
        start = new_number() if modes.grad else 0
        result = define(self, *args, **kwargs)
        if modes.grad and result._fn is not None:
            forget_target(self, result, start)
        return assign(self, result, fills, updates=True)

    write.__name__ = write.__qualname__ = name
    return write


def repeats(x: Tensor) -> bool:
    """Whether several elements of `x` certainly are one place in memory."""
    return x._view is not None and overlaps(x._type.shape, x._view.strides)


# What writes to a tensor that shows places in memory several times, where that is done at all.
REPEATED: dict[str, Callable[..., Any]] = {}
# In place these refuse to read any of the memory that they write to.
SCATTERS = frozenset(
    {
        "index_add_",
        "index_copy_",
        "index_put_",
        "index_reduce_",
        "put_",
        "scatter_",
        "scatter_add_",
        "scatter_reduce_",
    }
)
# Functions whose ``out=`` PyTorch does not compare with what they read.
UNCOMPARED = frozenset(
    {
        "all",
        "amax",
        "amin",
        "any",
        "addbmm",
        "addmm",
        "addmv",
        "addr",
        "baddbmm",
        "bmm",
        "dot",
        "inner",
        "logsumexp",
        "matmul",
        "mean",
        "mm",
        "mv",
        "nanmean",
        "nansum",
        "outer",
        "prod",
        "std",
        "sum",
        "var",
        "vdot",
    }
)


# Functions of one result whose ``out=`` is not cast to. Those of several are of this kind, too.
SAME_DTYPE = frozenset(
    {
        "addbmm",
        "addmm",
        "addmv",
        "all",
        "amax",
        "amin",
        "any",
        "argmax",
        "argmin",
        "baddbmm",
        "bitwise_not",
        "bmm",
        "bucketize",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "clip",
        "complex",
        "diag",
        "dot",
        "fix",
        "floor",
        "frac",
        "gather",
        "heaviside",
        "histc",
        "index_add",
        "index_copy",
        "index_select",
        "inner",
        "inverse",
        "isin",
        "isneginf",
        "isposinf",
        "log_softmax",
        "logcumsumexp",
        "masked_select",
        "matmul",
        "mm",
        "multinomial",
        "mv",
        "nan_to_num",
        "nanquantile",
        "neg",
        "negative",
        "nonzero",
        "norm",
        "polar",
        "quantile",
        "round",
        "scatter",
        "searchsorted",
        "sgn",
        "sign",
        "signbit",
        "softmax",
        "take",
        "take_along_dim",
        "tril",
        "triu",
        "trunc",
        "vdot",
        "where",
    }
)


# Functions that compute in the dtype of their ``out=`` where no ``dtype=`` is given, and whose
# ``dtype=`` has to be that of ``out=``.
IN_DTYPE_OF_OUT = frozenset({"cumprod", "cumsum", "nansum", "prod", "sum"})
OUT_OF_DTYPE = frozenset({"mean", *IN_DTYPE_OF_OUT})
# Functions that write into ``out=`` along a dimension only.
OUT_ALONG_DIM = frozenset({"median", "nanmedian", "prod", "sum"})


def with_out(name: str, define: Callable[..., Any]) -> Callable[..., Any]:
    """The form of an operation that takes ``out=``: a tensor, or a tuple of tensors, to write
    results to."""

    @functools.wraps(define)
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            return define(*args, **kwargs)
        if not isinstance(out, (Tensor, tuple, list)):
            raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
        if name in OUT_ALONG_DIM and len(args) < 2 and not kwargs.keys() & {"dim", "axis"}:
            raise TypeError(
                f"{name}() received an invalid combination of arguments - got (Tensor, out=Tensor)"
                ": out= needs dim; for all elements, write out.copy_(...)"
            )
        if isinstance(out, Tensor) and name not in UNCOMPARED:
            for x in args:
                for part in x if isinstance(x, (tuple, list)) else (x,):
                    if isinstance(part, Tensor):
                        check_overlap(out, part)
        if name in OUT_OF_DTYPE and isinstance(out, Tensor):
            kwargs = _in_dtype_of(name, out, kwargs)
        return write_out(name, define(*args, **kwargs), out)

    call.__name__ = call.__qualname__ = name
    return call


def _in_dtype_of(name: str, out: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = kwargs.get("dtype")
    if given is None:
        return {**kwargs, "dtype": out.dtype} if name in IN_DTYPE_OF_OUT else kwargs
    if given is not out.dtype:
        wanted, found = (c_name(to_ir(d)) for d in (given, out.dtype))
        raise RuntimeError(f"Expected out tensor to have dtype {wanted}, but got {found} instead")
    return kwargs


def write_out(name: str, result: Any, out: Any) -> Any:
    """Write `result` into `out`, resized where its shape differs."""
    if not isinstance(result, Tensor):
        if not isinstance(out, (tuple, list)) or len(out) != len(result):
            raise TypeError(
                f"{name}(): argument 'out' must be tuple of {len(result)} Tensors, not "
                f"{type(out).__name__}"
            )
        for one, target in zip(result, out, strict=True):
            _check_out_dtype(name, one, target)
            write_out(name, one, target)
        return type(result)(*out) if hasattr(result, "_fields") else tuple(out)
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if name in SAME_DTYPE or name.startswith("linalg."):
        _check_out_dtype(name, result, out)
    if modes.grad and (result.requires_grad or out.requires_grad):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    if DeviceStorage.used and out.device is not result.device:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{result.device} and {out.device}! ({name}: out= is on {out.device})"
        )
    if name == "range" and out.numel() == result.numel():
        result = METHODS["reshape"](result, out._type.shape)
    if out._type.shape != result._type.shape:
        if out.numel() and name not in ("factory", "range"):
            warn_user(
                "An output with one or more elements was resized since it had shape "
                f"{list(out.shape)}, which does not match the required output shape "
                f"{list(result.shape)}. This behavior is deprecated, and in a future PyTorch "
                "release outputs will not be resized unless they have zero elements. You can "
                "explicitly reuse an out tensor t by resizing it, inplace, to zero elements with "
                "t.resize_(0)."
            )
        METHODS["resize_"](out, result._type.shape)
    return assign(out, result)


def _check_out_dtype(name: str, result: Tensor, out: Any) -> None:
    wanted, given = result._type.dtype, getattr(out, "_type", result._type).dtype
    if wanted is given or (wanted is boolean and given.name == "u8"):
        return
    if name in ("amax", "amin"):
        raise RuntimeError(
            f"Expected the dtype for input and out to match, but got {result.dtype} for "
            f"input's dtype and {out.dtype} for out's dtype."
        )
    raise RuntimeError(
        f"Expected out tensor to have dtype {c_name(wanted)}, but got {c_name(given)} instead: "
        f"{name} does not cast its result"
    )


def c_name(dtype: DType) -> str:
    """What PyTorch's messages call the elements of a dtype."""
    names = {
        "float32": "float",
        "float64": "double",
        "float16": "c10::Half",
        "bfloat16": "c10::BFloat16",
        "int64": "long int",
        "int32": "int",
        "bool": "bool",
    }
    return names.get(dtype.torch_name, dtype.torch_name)


# ----------------------------------------------------------------------------------------- applying


def run(
    name: str, function: Callable[..., Any], *inputs: Tensor | Value | None, **attrs: Any
) -> Any:
    """Apply a function on IR values to tensors: the results as tensors, with one node in the
    autograd graph.

    Args:
        name: of the autograd node, as PyTorch's without ``Backward0``.
        function: takes one value (or None) for each input, and `attrs`.
        inputs: tensors, values made by `scalar`, or None.
    """
    return record(name, function, inputs, attrs)


def _record(
    name: str,
    function: Callable[..., Any],
    inputs: tuple[Tensor | Value | None, ...],
    attrs: dict[str, Any],
) -> Any:
    """As `run`. What is recorded most is so in machine code from some time on: see `quick`."""
    if record is _record and recorder.capture is None:
        _consider()
    locate()
    values: list[Any] = []
    left_out = viewed = False
    plain = recorder.capture is None
    for x in inputs:
        if isinstance(x, Tensor):
            storage = x._storage
            if plain and x._rg and storage.value.node is not None:
                flush()  # an updated parameter is read: here the iteration before ends
            if x._view is not None:
                viewed = True
                values.append(x._value())
            elif plain and storage.host is None:
                values.append(storage.value)
            else:
                values.append(x._value())
        elif isinstance(x, Value):
            values.append(x)
        elif x is None:
            values.append(None)
            left_out = True
        else:
            raise TypeError(f"{name.lower()}(): expected a Tensor, but got {type(x).__name__}")
    count = len(values)
    if count == 2 and modes.grad:
        a, b = values
        if a is b or (a is not None and a.node is not None and b is not None and a.node is b.node):
            _separate(values, inputs)
    elif count > 2 and modes.grad and _may_be_equal(values):
        _separate(values, inputs)
    outs = function(*values, **attrs)
    order = order_of(outs, inputs) if viewed else None
    if left_out:
        inputs = tuple([x for x, v in zip(inputs, values, strict=True) if v is not None])
        values = [v for v in values if v is not None]
    return wrap(name, outs, inputs, tuple(values), order)


# operations that pay for loading what is in the cache, and for making it
LOADED, COMPILED = 4000, 30000
_counted = 0


def _consider() -> None:
    """Go over to machine code where the process has some already, or the time that it saves has
    come to what it takes."""
    global _counted, record
    _counted += 1
    if is_quick() or _counted in (LOADED, COMPILED):
        quick = importlib.import_module("graphtorch._deferred.quick")
        record = quick.recording(_record, DENSE, _counted != LOADED) or _record


# what `run` calls; operators call it themselves, which saves them a frame
record: Callable[..., Any] = _record
NO_ATTRS: dict[str, Any] = {}


def _may_be_equal(values: list[Any]) -> bool:
    """Whether two values could be one; False costs a fraction of comparing them."""
    keys = [v if v is None else v.node or v for v in values]
    return len({id(k) for k in keys}) < len(keys)


def _separate(values: list[Any], inputs: tuple[Any, ...]) -> None:
    """One value in the place of two tensors, of which one is detached: gradients must not mix."""
    first: dict[Value, Any] = {}
    for i, value in enumerate(values):
        if value is not None and first.setdefault(value, inputs[i]) is not inputs[i]:
            values[i] = ops.reshape(value, shape=value.shape)


def check_tensor(name: str, argument: str, x: Any, position: int = 1) -> None:
    """Raise PyTorch's TypeError unless `x` is a tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}(): argument '{argument}' (position {position}) must be Tensor, not "
            f"{type(x).__name__}"
        )


def refuse(name: str, dtype: DType, *kinds: str) -> None:
    """Raise PyTorch's error for elements that a function does not take.

    Args:
        kinds: of "bool", "integer" (bool is none) and "complex".
    """
    found = (
        ("bool" in kinds and dtype.is_bool)
        or ("integer" in kinds and dtype.is_integer)
        or ("complex" in kinds and dtype.is_complex)
    )
    if found:
        raise NotImplementedError(
            f"\"{name}\" not implemented for '{SCALAR_NAMES[dtype]}': convert the input with "
            ".to(dtype) first"
        )


def number_given(name: str, argument: str, x: Any, position: int) -> Any:
    """The number that a parameter takes: `x` itself, or the element of a tensor of no dimensions.

    Raises: TypeError: a tensor that requires grad, whose gradient would be lost, or has dimensions.
    """
    if not isinstance(x, Tensor):
        return x
    if not is_number_tensor(x):
        what = "Tensor that requires grad" if x.requires_grad else "Tensor"
        raise TypeError(
            f"{name}(): argument '{argument}' (position {position}) must be Number, not {what}"
            + ("; use .item() or .detach()" if x.requires_grad and not x.ndim else "")
        )
    return x.item()


def is_number_tensor(x: Tensor) -> bool:
    """Whether PyTorch takes a tensor in the place of a number."""
    return not x._type.shape and not x.requires_grad


def scalar(number: Any, dtype: DType) -> Value:
    """A Python number as a 0-d value.

    Floats become run-time scalars, so that a program that uses another number (a learning rate, a
    loop counter) finds the same compiled graph. In a captured graph they are constants.
    """
    kind: Any = type(number)
    capture = recorder.capture
    if (capture is None or capture.numbers_vary) and (
        kind is float or (kind is int and not -1 <= number <= 2) or isinstance(number, np.generic)
    ):
        # each use is a leaf of its own: numbers that are equal by chance must not shape the graph
        return Leaf(
            _number_buffer(number, dtype)
            if _has_one_sign(number, kind)
            else Buffer.of(np.array(number, dtype.numpy))
        )
    return (
        small_constant(_fits(number, dtype), kind, dtype)
        if _has_one_sign(number, kind) and kind is not complex
        else ops.constant(value=Literal.of(_fits(number, dtype), dtype))
    )


def _has_one_sign(number: Any, kind: Any) -> bool:
    """Whether no other number is equal to it and yet something else, as -0.0 is to 0.0."""
    return (
        bool(number)
        or kind is int
        or kind is bool
        or (kind is float and math.copysign(1.0, number) > 0.0)
    )


@functools.lru_cache(maxsize=4096)
def _number_buffer(number: Any, dtype: DType) -> Buffer:
    return Buffer.of(np.array(_fits(number, dtype), dtype.numpy))


@functools.lru_cache(maxsize=4096)
def small_constant(number: Any, kind: type, dtype: DType) -> Value:
    """A number other than a zero with a sign, of the type `kind`, as a constant."""
    with located(None):  # shared by whoever needs this number
        return ops.constant(value=Literal.of(number, dtype))


def fitting(number: Any, dtype: DType) -> Any:
    """A number to be put in the place of elements, which must be one of `dtype` where that holds no
    floats.

    Raises: RuntimeError where it is not; arithmetic wraps such numbers instead.
    """
    return (
        number if dtype.is_differentiable or isinstance(number, SymInt) else element(number, dtype)
    )


def _fits(number: Any, dtype: DType) -> Any:
    if dtype.is_integer and isinstance(number, int):  # wrap as PyTorch does
        bits = dtype.bits
        check_64_bits(number)
        number &= (1 << bits) - 1
        return number - (1 << bits) if dtype.signed and number >> (bits - 1) else number
    return number


def size_value(dim: Any, dtype: DType) -> Value:
    """A size, which may be symbolic, as a 0-d value."""
    if isinstance(dim, SymInt):
        flat = ops.iota(shape=(dim + 1,), dim=0, dtype=i64)
        last = ops.slice(flat, start=(dim,), stop=(dim + 1,), step=(1,))
        return ops.cast(ops.reshape(last, shape=()), dtype=dtype)
    return ops.constant(value=Literal.of(dim, dtype))


MASK = "keep all elements and use torch.where(mask, x, 0), masked_fill or sums weighted by the mask"


def elements_for_size(name: str, x: Tensor, instead: str) -> np.ndarray:
    """The elements of `x`, on which the size of a result of `name` depends.

    Raises:
        RuntimeError: they are not known, in a function that is being captured; `instead` says what
            to write.
    """
    known = recorder.capture is None or (
        isinstance(x._storage.now(), Leaf) and not recorder.capture.varies(x._storage)
    )
    if not known:
        shown = recorder.capture.reveal(x.detach())
        if shown is not None:
            return shown
    if not known and not recorder.capture.call_off():
        raise RuntimeError(
            f"{name}: the size of the result depends on the data, at {user_line()}, while it is "
            f"captured by compile() or trace(), whose graphs have sizes known before: {instead}; "
            "or move this line out of the captured function"
        )
    return x.detach()._array()


# --------------------------------------------------------------------------------- checks of values


def checked(x: Tensor, rule: str, message: str, kind: str = "runtime") -> Tensor:
    """`x`, all of whose elements have to obey a rule (see `ir.ops.within`).

    Elements in memory are looked at now. Those still to be computed are when the result is, and an
    error then names the line that records them: looking at them here would split the graph.
    """
    known = known_elements(x)
    if known is None:
        return run("Alias", ops.within, x, rule=rule, message=message, kind=kind)  # type: ignore[no-any-return]
    if breaks(rule, known):
        raise FAILURES[kind](message)
    return x


def check_places(
    index: Tensor, size: Any, message: str, kind: str = "index", lowest: int = 0, but: Any = None
) -> None:
    """Raise where elements of `index` in memory are outside lowest .. size - 1, and not `but`.

    Of those still to be computed the run that reads them takes care. `message` says ``{}`` for the
    element.
    """
    known = known_elements(index)
    if known is None or not known.size or not isinstance(size, int):
        return
    if lowest == 0 and known.dtype == np.int64:
        known = known.view(np.uint64)  # in which what is negative is beyond every size
        if known.max() < size:
            return
        known = known.view(np.int64)
    elif known.min() >= lowest and known.max() < size:
        return
    wrong = (known < lowest) | (known >= size)
    if but is not None:
        wrong &= known != but
    if wrong.any():
        raise FAILURES[kind](message.format(known[wrong].flat[0]))


OUTSIDE = "index {} is out of bounds for dimension %d with size %s"


def failing_now(found: Any, *operands: Tensor) -> Any:
    """`found`, a tensor or several, computed now where all elements of the operands are in memory.

    For what fails by its data: the error belongs to the call then, as PyTorch's does, where the
    program may wait for it. Of operands still to be computed the run takes care.
    """
    if recorder.capture is None and all(_at_hand(x._storage) for x in operands):
        settle((found[0] if isinstance(found, tuple) else found)._storage)
    return found


def _at_hand(storage: Storage) -> bool:
    """Whether its elements are in memory, or follow from numbers of the program alone
    (``-torch.eye(3)``)."""
    if storage.host is not None or type(storage.value) is Leaf:
        return True
    waiting, seen = [storage.value], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > FEW_NODES or (value.node is None and value.rank):
            return False
        waiting += value.node.operands if value.node is not None else ()
    return True


FEW_NODES = 16  # so many are looked at


def known_elements(x: Tensor) -> np.ndarray | None:
    """The elements of `x`, or the number that all are, where they are known without computing
    anything."""
    storage = x._storage
    if recorder.capture is not None or (storage.place is not CPU and type(storage.value) is Leaf):
        return None  # those on a GPU would have to be waited for: the run that reads them looks
    if storage.host is not None or type(storage.value) is Leaf:
        return x._array()
    return number_in_all(storage.value)


# ------------------------------------------------------------------------------------ 16-bit floats


def rounded_once(define: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for compositions: 16-bit floats are computed with in f32, results are rounded once.

    Else the squares, sums and quotients in between would overflow or vanish. Operands that meet in
    a wider dtype are left as they are.
    """

    @functools.wraps(define)
    def call(*args: Any, **kwargs: Any) -> Any:
        for x in (*args, *kwargs.values()) if kwargs else args:
            if isinstance(x, Tensor) and x._type.dtype in SHORT:
                break
        else:
            return define(*args, **kwargs)
        dtype = common_dtype(*[x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)])
        if dtype not in SHORT:
            return define(*args, **kwargs)
        wide = {k: _recast(x, SHORT, f32) for k, x in kwargs.items()}
        return _recast(
            define(*[_recast(x, SHORT, f32) for x in args], **wide), frozenset({f32}), dtype
        )

    return call


def _recast(x: Any, given: frozenset[DType], target: DType) -> Any:
    """`x`, a tensor or a tuple or list of some, with those of the `given` dtypes as `target`."""
    if isinstance(x, Tensor):
        return cast_tensor(x, target) if x._type.dtype in given else x
    if isinstance(x, (tuple, list)):
        parts = [_recast(v, given, target) for v in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


# ---------------------------------------------------------------------------------------- promotion


def _number_type(x: Any) -> type:
    """The type by which a number takes part in promotion: of integers beyond int64 that is
    uint64's."""
    if isinstance(x, (SymInt, np.integer)):
        return int
    return np.uint64 if type(x) is int and x >= 1 << 63 else type(x)


def common_dtype(*operands: Any) -> DType:
    """The dtype in which operands (tensors and Python numbers) meet."""
    if len(operands) == 2:
        a, b = operands
        if isinstance(a, Tensor):
            dtype = a._type.dtype
            if (
                (type(b) is float and dtype in FLOATS)
                or (type(b) is int and dtype is not boolean)
                or (isinstance(b, Tensor) and b._type.dtype is dtype)
            ):
                return dtype
    dims: list[DType] = []
    zero_dims: list[DType] = []
    numbers: list[type] = []
    for x in operands:
        if isinstance(x, Tensor):
            t = x._type
            (dims if t.shape else zero_dims).append(t.dtype)
        else:
            numbers.append(_number_type(x))
    return result_type(dims, zero_dims, numbers, _types.default_dtype())


def floating(dtype: DType) -> DType:
    """The dtype of a function into the reals: the default float for integers and bools."""
    return dtype if dtype.is_differentiable else _types.default_dtype()


def cast_value(value: Value, dtype: DType) -> Value:
    """`value` as `dtype`."""
    return value if value.type.dtype is dtype else ops.cast(value, dtype=dtype)


def operand(x: Any, dtype: DType) -> Tensor | Value:
    """A tensor as it is; a Python number as a value of `dtype`."""
    return x if isinstance(x, Tensor) else scalar(x, dtype)


def elementwise(
    name: str, op: Callable[..., Value], *operands: Any, dtype: DType | None = None, **attrs: Any
) -> Tensor:
    """Apply an op to operands brought to one dtype (their common one by default)."""
    first = operands[0]
    if dtype is None:
        dtype = common_dtype(*operands)
    if (
        len(operands) == 2
        and isinstance(first, Tensor)
        and first._type.dtype is dtype
        and type(operands[1]) in (float, int)
    ):
        return run(name, op, first, scalar(operands[1], dtype), **attrs)
    if all(isinstance(x, Tensor) and x._type.dtype is dtype for x in operands):
        return run(name, op, *operands, **attrs)
    given = [operand_(name, x, dtype) for x in operands]

    def apply(*values: Value, **attrs: Any) -> Value:
        return op(*[cast_value(v, dtype) for v in values], **attrs)

    return run(name, apply, *given, **attrs)


def operand_(name: str, x: Any, dtype: DType) -> Tensor | Value:
    if isinstance(x, (Tensor, *Number)):
        return operand(x, dtype)
    if isinstance(x, SymInt):
        return size_value(x, dtype)
    raise TypeError(f"{name.lower()}(): expected a Tensor or a number, but got {type(x).__name__}")


def is_operand(x: Any) -> bool:
    """Whether a Python operator may combine `x` with a tensor."""
    return isinstance(x, (Tensor, *Number, SymInt))


# ---------------------------------------------------------------------------------------- arguments


def dims_of(dim: Any, rank: int) -> tuple[int, ...]:
    """A `dim` argument (None, int or several) as axes counted from the front; None is every axis.

    Raises:
        IndexError: out of range. RuntimeError: one axis twice.
    """
    if dim is None or (isinstance(dim, (tuple, list)) and len(dim) == 0):
        return tuple(range(rank))
    given = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(axis_of(d, rank) for d in given)
    if len(set(axes)) != len(axes):
        twice = next(a for a in axes if axes.count(a) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    return () if rank == 0 else axes


def axis_of(dim: Any, rank: int) -> int:
    """One `dim` argument as an axis counted from the front."""
    if type(dim) is int:
        return normalize_axis(dim, rank)
    if isinstance(dim, Tensor) and not dim.ndim:
        dim = dim.item()
    if isinstance(dim, (bool, Tensor)) or not hasattr(dim, "__index__"):
        raise TypeError(f"dim must be an int, not {type(dim).__name__}")
    return normalize_axis(int(dim), rank)


def shape_of(sizes: Any) -> tuple[Any, ...]:
    """Sizes given as ``(2, 3)``, as ``((2, 3),)`` or as ``(Size,)``."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = sizes[0]
    for s in sizes:
        if type(s) is not int:
            break
    else:
        return tuple(sizes)
    # PyTorch looks at the first alone: True and False after it are 1 and 0
    return tuple(int(s) if i and isinstance(s, bool) else size_of(s) for i, s in enumerate(sizes))


def size_of(size: Any) -> Any:
    """One size: an int, a symbolic size, or a tensor of one integer."""
    if type(size) is int or isinstance(size, SymInt):
        return size
    if isinstance(size, Tensor):
        if size.numel() != 1 or not size._type.dtype.is_integer:
            raise TypeError(f"expected sizes to be ints, but got a tensor {size._type}")
        return int(size.item())
    if isinstance(size, bool) or not hasattr(size, "__index__"):
        raise TypeError(f"expected sizes to be ints, but got {type(size).__name__}: {size!r}")
    return int(size)


__all__ = [
    "FUNCTIONS",
    "MASK",
    "METHODS",
    "Number",
    "axis_of",
    "boolean",
    "cast_value",
    "check_tensor",
    "common_dtype",
    "dims_of",
    "elements_for_size",
    "elementwise",
    "floating",
    "i64",
    "is_operand",
    "number_dtype",
    "operand",
    "register",
    "run",
    "scalar",
    "shape_of",
    "size_of",
    "size_value",
    "write_out",
]
