"""graphtorch: PyTorch-style code, recorded as a static graph and compiled to native code.

``import graphtorch as torch`` and write as for PyTorch. See README.md.
"""

from __future__ import annotations

# ruff: noqa: E402, F401, I001 - names are exported by importing them; the order is that of
# dependence

import gc as _gc
import math as _math
from builtins import range as _range  # torch.range hides it below
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any


class _Pause:
    """No garbage is collected while it lives, also where the import fails: nothing made here is
    garbage."""

    def __init__(self) -> None:
        self.was_on = _gc.isenabled()
        _gc.disable()

    def __del__(self) -> None:
        if self.was_on:
            _gc.enable()


_pause = _Pause()

from . import _settings, _types
from ._deferred import programs as _programs
from ._torch import absent as _absent, backend_flags as _backend_flags
from ._types import (
    DTYPES as _DTYPES,
)
from ._types import (
    Size,
    channels_last,
    channels_last_3d,
    contiguous_format,
    device,
    dtype,
    finfo,
    get_default_dtype,
    iinfo,
    layout,
    memory_format,
    preserve_format,
    set_default_dtype,
    sparse_coo,
    sparse_csr,
    strided,
)
from ._deferred.tensor import Tensor  # isort: skip
from ._ops import FUNCTIONS as _FUNCTIONS  # isort: skip
from ._ops import METHODS as _METHODS
from ._ops.accept import accepting as _accepting
from ._ops.accept import accepting_all as _accepting_all
from ._ops import autocast as _autocast, creation as _creation, devices as _devices
from ._ops import overriding as _overriding, ranges as _ranges, sparse as _sparse
from ._deferred import printing as _printing
from ._files import dlpack as _dlpack, pickling as _pickling, shared as _shared
from ._torch import legacy as _legacy
from . import autograd, linalg, random  # isort: skip
from .autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .autograd.anomaly_mode import is_anomaly_check_nan_enabled, is_anomaly_enabled
from ._deferred.collection import suit_recording as _suit_recording
from ._ops.sparse import sparse_coo_tensor, sparse_csr_tensor
from ._deferred.printing import set_printoptions
from ._ops.storages import TypedStorage, UntypedStorage
from .random import Generator, default_generator

from .version import __version__

pi, e, inf, nan, newaxis = _math.pi, _math.e, _math.inf, _math.nan, None

autograd.load()
globals().update(_DTYPES)
_FUNCTIONS.update(_creation.PUBLIC)
_FUNCTIONS.update(_ranges.PUBLIC)
_FUNCTIONS.update(random.PUBLIC)
_FUNCTIONS.update(_settings.PUBLIC)
globals().update(_devices.PUBLIC)
_FUNCTIONS.update(_autocast.PUBLIC)
_FUNCTIONS["no_grad"] = no_grad
_HOMES = _absent.homes_of(
    {
        "graphtorch._captured.compile": ("compile",),
        "graphtorch._captured.control": ("cond", "scan", "while_loop"),
        "graphtorch._captured.tracing": ("Dim", "TracedGraph", "trace"),
        "graphtorch._files.records": ("PyTorchFileReader",),
        "graphtorch._ops.quantize": (
            "fake_quantize_per_channel_affine",
            "fake_quantize_per_tensor_affine",
        ),
        "graphtorch._ops.segments": ("segment_reduce",),
        "graphtorch._torch.install": ("install_as_torch",),
        "graphtorch.amp": ("GradScaler",),
        "graphtorch.func": ("vmap",),
        "graphtorch.jit": ("ScriptFunction", "ScriptModule"),
        "graphtorch.serialization": ("load", "load_safetensors", "save", "save_safetensors"),
    }
)
_INTERNAL = frozenset({"no_grad", "full_number", *_HOMES})  # `trace` is no sum of a diagonal
globals().update(
    {k: _accepting(k, v, __name__) for k, v in _FUNCTIONS.items() if k not in _INTERNAL}
)
globals().update(_legacy.LEGACY_TYPES)
set_default_tensor_type = _legacy.set_default_tensor_type
_METHODS["__repr__"] = _printing.tensor_text
Tensor._take_over(_overriding.asking())
Tensor._take_over(_accepting_all(_METHODS, Tensor))

from . import nn, return_types, utils  # isort: skip
from .nn.functional import public as _public  # isort: skip

globals().update({k: _accepting(k, v, __name__) for k, v in _public.FUNCTIONS.items()})
from ._ops import foreach as _lists, number_theory as _number_theory  # isort: skip

globals().update(_lists.PUBLIC)
globals().update({k: _accepting(k, v, __name__) for k, v in _number_theory.PUBLIC.items()})
Tensor._take_over(_accepting_all(_number_theory.METHODS, Tensor))
from ._torch import assertions as _assertions, names as _names  # isort: skip
from ._torch import symbols as _symbols  # isort: skip

globals().update(_assertions.PUBLIC)
globals().update(_names.PUBLIC)
globals().update(_symbols.PUBLIC)
Tensor._take_over(_accepting_all(_public.METHODS, Tensor))


if _TYPE_CHECKING:
    from . import func, optim, serialization
    from ._captured.compile import compile
    from ._captured.control import cond, scan, while_loop
    from ._captured.tracing import Dim, TracedGraph, trace
    from ._files.records import PyTorchFileReader
    from ._torch.install import install_as_torch
    from .func import vmap
    from .jit import ScriptFunction, ScriptModule
    from .serialization import load, load_safetensors, save, save_safetensors

_LAZY = frozenset(
    {  # modules that cost time to import and that not every program uses
        "_C",
        "__config__",
        "_dynamo",
        "_higher_order_ops",
        "_inductor",
        "accelerator",
        "ao",
        "amp",
        "aot",
        "compiler",
        "cpu",
        "cuda",
        "distributed",
        "distributions",
        "fft",
        "func",
        "fx",
        "hub",
        "jit",
        "library",
        "masked",
        "multiprocessing",
        "onnx",
        "ops",
        "optim",
        "overrides",
        "profiler",
        "serialization",
        "signal",
        "sparse",
        "special",
        "testing",
        "types",
        "xpu",
    }
)

__getattr__ = _absent.attribute_of(__name__, _LAZY, _HOMES)
_backend_flags.install()
_absent.explain(nn.functional, nn.init)
_absent.explain(autograd, linalg, utils)
_suit_recording()
if _programs.REPORTS:
    from ._deferred import report as _report
__all__ = [*(_name for _name in globals() if not _name.startswith("_")), *_HOMES, "optim"]
del _pause
