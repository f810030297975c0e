"""How public functions take their arguments: PyTorch's other spellings of keywords, and its
exception types.

A call that succeeds pays for one Python frame; all else happens after an exception.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphtorch.ir.shape import SymInt

from .._deferred.tensor import Tensor
from .._types import dtype
from .base import Number, write_out
from .overriding import (
    NOBODY,
    hand_over,
    overridden,
    overridden_by_mode,
    overriding,
    overriding_arguments,
)

# https://docs.pytorch.org/docs/stable/torch.html: names that NumPy users write
_NUMPY = {
    "axis": "dim",
    "keepdims": "keepdim",
    "x": "input",
    "a": "input",
    "x1": "input",
    "x2": "other",
}
_OWN = {
    "broadcast_to": {"shape": "size"},
    "constant_pad_nd": {"input": "x"},
    "copy_": {"other": "src"},
    "dsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
    "matrix_norm": {"input": "A"},
    "norm": {"input": "A"},
    "vector_norm": {"input": "x"},
    "hsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
    "resize_as_": {"the_template": "other"},
    "result_type": {"tensor": "tensor1", "other": "tensor2"},
    "searchsorted": {"values": "input", "self": "input"},
    "split": {"split_size": "split_size_or_sections", "split_sizes": "split_size_or_sections"},
    "swapaxes": {"axis0": "dim0", "axis1": "dim1"},
    "swapaxes_": {"axis0": "dim0", "axis1": "dim1"},
    "tensor_split": {
        "sections": "indices_or_sections",
        "indices": "indices_or_sections",
        "tensor_indices_or_sections": "indices_or_sections",
    },
    "vsplit": {"sections": "indices_or_sections", "indices": "indices_or_sections"},
}
# Functions with an ``out=`` that their definitions leave to the caller.
_OUT = frozenset(
    {"aminmax", "conj_physical", "isneginf", "isposinf", "masked_select", "multinomial", "renorm"}
)
# to which a tensor is data like any other
_OF_DATA = frozenset({"as_tensor", "is_tensor", "tensor"})
# keywords for what is else *sizes
_LISTED = frozenset({"size", "sizes", "shape", "dims", "repeats"})

# what a public function has of its definition, beside its own name
_SHARED = tuple(a for a in functools.WRAPPER_ASSIGNMENTS if "name" not in a and "mod" not in a)


def accepting(
    name: str, function: Callable[..., Any], module: str, owner: str = ""
) -> Callable[..., Any]:
    """`function` as users call it, under ``module.name`` or as a method of the class `owner`."""
    if not inspect.isfunction(function):
        return function  # a class such as ``autocast``
    ask = overridden_by_mode if name in _OF_DATA else overridden
    flags: Any = None  # not looked for before a keyword is given

    @functools.wraps(function, _SHARED)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal flags
        if overriding:
            answer = ask(call, args, kwargs)
            if answer is not NOBODY:
                return answer
        if flags is None and kwargs:
            flags = _flags(function)
        for key in kwargs:
            # what Python takes for true is refused
            if key in flags and type(kwargs[key]) is not bool:
                wrong = fault(name, function, args, kwargs)
                if wrong is not None:
                    raise wrong
        try:
            # without keywords, as most calls are, in less time
            return function(*args, **kwargs) if kwargs else function(*args)
        except Exception as error:
            if not overriding and (found := overriding_arguments((*args, *kwargs.values()))):
                return hand_over(call, found, args, kwargs)  # no tensor, but it knows the operation
            spelled = _with_ints(name, function, args, kwargs)
            if spelled is None and isinstance(error, TypeError):
                spelled = _respelled(name, function, args, kwargs)
            if spelled is None:
                wrong = _first_fault(name, function, args, kwargs, error)
                if wrong is None:
                    raise
                raise wrong from None
        args, kwargs = spelled
        if name in _OUT and "out" in kwargs:
            out = kwargs.pop("out")
            return write_out(name, call(*args, **kwargs), out)
        return call(*args, **kwargs)

    # pickles find it there
    call.__module__, call.__name__, call.__qualname__ = module, name, owner + name
    return call


def _flags(function: Callable[..., Any]) -> frozenset[str]:
    """The parameters that take a bool and nothing else."""
    annotations = inspect.unwrap(function).__annotations__
    return frozenset(k for k, kind in annotations.items() if kind == "bool" and k not in _PYTHONS)


def accepting_all(methods: Mapping[str, Any], owner: type) -> dict[str, Any]:
    """Methods of `owner`. Those behind Python's operators stay as they are: nobody calls them by
    name."""
    for name, method in methods.items():
        if name.startswith("__") and getattr(method, "__name__", "") in ("call", "<lambda>"):
            method.__name__ = name  # which ``__torch_function__`` is shown
    return {
        name: method
        if name.startswith("_") or isinstance(method, property)
        else accepting(name, method, owner.__module__, f"{owner.__name__}.")
        for name, method in methods.items()
    }


def _respelled(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The call with the keywords that `function` knows; None where it knows them all, or not
    another one."""
    if not kwargs:
        return None
    parameters = inspect.signature(function).parameters
    listed = [n for n, p in parameters.items() if p.kind is inspect.Parameter.VAR_POSITIONAL]
    other = {**_NUMPY, **_OWN.get(name, {})}
    found: dict[str, Any] = {}
    changed = False
    for key, value in kwargs.items():
        known = (key in parameters or key == "out") and key not in listed
        target = key if known else other.get(key)
        if target in found or (not known and target in kwargs):
            raise TypeError(f"{name}() got both {target!r} and {key!r}, which are one argument")
        if target in parameters or known:
            found[target] = value  # type: ignore[index]
        elif key == "pin_memory" and not value:
            pass  # as it is on CPUs
        elif listed and key in _LISTED:
            args = (*args, *value) if isinstance(value, (tuple, list)) else (*args, value)
        else:
            return None
        changed |= not known or (key == "out" and name in _OUT)
    return (args, found) if changed else None


def _with_ints(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The call with ints where it has 0-d tensors for ints; None where it has none."""
    parameters = inspect.signature(function).parameters
    places = [p for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    changed = []

    def plain(value: Any, parameter: inspect.Parameter | None) -> Any:
        if parameter is None or _kind_of(name, parameter)[0] not in (_INT, _INTS):
            return value
        if type(value) in (tuple, list):
            return type(value)(plain(v, parameter) for v in value)
        if not isinstance(value, Tensor) or not _is_int(value):
            return value
        changed.append(value)
        return int(value.item())

    made = tuple(
        plain(v, places[min(i, len(places) - 1)] if places else None) for i, v in enumerate(args)
    )
    named = {k: plain(v, parameters.get(k)) for k, v in kwargs.items()}
    return (made, named) if changed else None


# ------------------------------------------------------------------------------------------ kinds


def _is_int(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.ndim == 0 and x._type.dtype.is_integer
    return (isinstance(x, (int, np.integer)) and not isinstance(x, bool)) or isinstance(x, SymInt)


def _is_number(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.ndim == 0
    return isinstance(x, (*Number, SymInt))


def _is_ints(x: Any) -> bool:
    return all(map(_is_int, x)) if isinstance(x, (tuple, list)) else _is_int(x)


def _is_tensors(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and all(isinstance(t, Tensor) for t in x)


Kind = tuple[str, Callable[[Any], bool]]
_TENSOR: Kind = "Tensor", lambda x: isinstance(x, Tensor)
_BOOL: Kind = "bool", lambda x: isinstance(x, (bool, np.bool_))
_INT: Kind = "int", _is_int
_FLOAT: Kind = "float", lambda x: _is_number(x) and not isinstance(x, complex)
_INTS: Kind = "tuple of ints", lambda x: x is None or isinstance(x, str) or _is_ints(x)
_OPERAND: Kind = "Tensor or Number", lambda x: x is None or isinstance(x, Tensor) or _is_number(x)
_NUMBER: Kind = "Number", lambda x: x is None or isinstance(x, str) or _is_number(x)
_DTYPE: Kind = "torch.dtype", lambda x: x is None or isinstance(x, (dtype, type))
_ANYTHING: Kind = "anything", lambda x: True  # the function looks at it itself
_DECLARED: dict[str, Kind] = {  # by annotation
    "Tensor": _TENSOR,
    "bool": _BOOL,
    "int": _INT,
    "float": _FLOAT,
    "str": ("str", lambda x: isinstance(x, str)),
    "Sequence[int]": _INTS,
    "dtype": _DTYPE,
}
_NAMED: dict[str, Kind] = {  # by name, where the annotation says nothing
    **dict.fromkeys(("input", "index", "source", "self"), _TENSOR),
    **dict.fromkeys(
        (
            "dim",
            "dims",
            "size",
            "sizes",
            "shape",
            "stride",
            "kernel_size",
            "padding",
            "dilation",
            "output_size",
            "pad",
            "shifts",
            "repeats",
            "output_padding",
            "normalized_shape",
        ),
        _INTS,
    ),
    **dict.fromkeys(("other", "value", "exponent", "min", "max", "src", "mean", "std"), _OPERAND),
    **dict.fromkeys(
        ("alpha", "beta", "start", "end", "step", "fill_value", "low", "high", "ord"), _NUMBER
    ),
    **dict.fromkeys(
        ("unbiased", "size_average", "reduce"), ("bool", lambda x: x is None or _BOOL[1](x))
    ),
    "dtype": _DTYPE,
    "tensors": ("tuple of Tensors", _is_tensors),
    "weight": ("Tensor", lambda x: x is None or isinstance(x, Tensor)),
}


_OF: dict[tuple[str, str], Kind | None] = {  # of one function
    ("interpolate", "mode"): None,
    ("upsample", "mode"): None,
    ("manual_seed", "seed"): None,
    ("dropout", "p"): None,
    ("randint", "high"): _ANYTHING,
    ("select", "index"): _ANYTHING,
    ("unique", "return_counts"): None,
    ("unique", "return_inverse"): None,
    ("relu", "inplace"): None,
    **{
        (name, key): ("Number", lambda x: isinstance(x, Tensor) or _NUMBER[1](x))
        for name in ("linspace", "logspace")
        for key in ("start", "end")
    },
    ("group_norm", "num_groups"): None,
    ("max", "dim"): _ANYTHING,
    ("min", "dim"): _ANYTHING,
    ("type", "dtype"): _ANYTHING,
    ("movedim", "source"): _INTS,
    ("moveaxis", "source"): _INTS,
    ("tensordot", "dims"): _ANYTHING,
    ("repeat_interleave", "repeats"): ("Tensor", lambda x: isinstance(x, Tensor) or _INTS[1](x)),
    ("einsum", "equation"): None,
    ("copy_", "src"): _OPERAND,
    ("set_", "source"): _ANYTHING,  # storages as well
    ("broadcast_tensors", "tensors"): _TENSOR,
    ("meshgrid", "tensors"): ("Tensor", lambda x: isinstance(x, Tensor) or _is_tensors(x)),
    ("lerp", "weight"): _OPERAND,
    ("view", "shape"): ("tuple of ints", lambda x: isinstance(x, dtype) or _INTS[1](x)),
}

# Functions that PyTorch writes in Python: what is no tensor there lacks the attribute they ask for
# first.
_ASKS = {
    **dict.fromkeys(
        (
            "adaptive_avg_pool2d",
            "adaptive_avg_pool3d",
            "binary_cross_entropy",
            "binary_cross_entropy_with_logits",
            "huber_loss",
            "instance_norm",
            "l1_loss",
            "mse_loss",
            "smooth_l1_loss",
        ),
        "size",
    ),
    **dict.fromkeys(("glu", "group_norm", "interpolate"), "dim"),
    "batch_norm": "size",
    "normalize": "norm",
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "split": "split",
    "norm": "layout",
}
# flags that such functions use as Python does
_PYTHONS = frozenset({"inplace", "training", "return_counts", "return_indices", "return_inverse"})

# ... and those of them that check sizes and options before kinds: ours do so in the same order.
_IN_ORDER = frozenset(
    {
        "embedding_bag",
        "fractional_max_pool2d",
        "fractional_max_pool3d",
        "fractional_max_pool2d_with_indices",
        "fractional_max_pool3d_with_indices",
        "multi_head_attention_forward",
    }
)


def _first_fault(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
) -> Exception | None:
    """What PyTorch says first about a call that ended with `error`; None where that is it."""
    if (type(error) is TypeError and name not in _ASKS) or name in _IN_ORDER:
        return None
    return fault(name, function, args, kwargs)


def fault(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Exception | None:
    """The error about the first argument that is not of the kind its parameter takes; None where
    all are.

    PyTorch looks at kinds before anything else, so this error goes before others.
    """
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    for position, (key, value) in enumerate(bound.arguments.items()):
        parameter = signature.parameters[key]
        kind, optional = _kind_of(name, parameter)
        if kind is None or (optional and value is None):
            continue
        many = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        for one in value if many else (value,):
            if not kind[1](one):
                return _refusal(name, key, position, kind[0], one)
    return None


def _refusal(name: str, key: str, position: int, wanted: str, given: Any) -> Exception:
    found = type(given).__name__
    if key == "reduction":
        return ValueError(f"{given} is not a valid value for reduction")
    if wanted == "Tensor" and name in _ASKS and key in ("input", "target", "tensor"):
        return AttributeError(
            f"'{found}' object has no attribute '{_ASKS[name]}': {name}(): argument "
            f"'{key}' (position {position + 1}) must be Tensor"
        )
    return TypeError(
        f"{name}(): argument '{key}' (position {position + 1}) must be {wanted}, not {found}"
    )


def _kind_of(name: str, parameter: inspect.Parameter) -> tuple[Kind | None, bool]:
    """What a parameter takes, and whether None too."""
    declared = str(parameter.annotation)
    plain = declared.removesuffix(" | None")
    own = _OF.get((name, parameter.name), _DECLARED.get(plain))
    return own or (_NAMED.get(parameter.name) if plain == "Any" else None), plain != declared
