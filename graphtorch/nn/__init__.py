"""Neural networks: modules, parameters, functions, initialisation."""

from __future__ import annotations

from .._torch.absent import attribute_of
from . import attention, functional, init, modules, parallel, parameter, utils
from .modules import *  # noqa: F403
from .modules import __all__ as _modules
from .parallel import DataParallel
from .parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter

__all__ = [
    *_modules,
    "Buffer",
    "DataParallel",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "attention",
    "functional",
    "init",
    "modules",
    "parallel",
    "parameter",
    "utils",
]

__getattr__ = attribute_of(__name__, {"quantized": "graphtorch.ao.nn.quantized"})
