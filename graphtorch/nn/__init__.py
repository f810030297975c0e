"""Neural networks: modules, parameters, functions, initialisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._torch.absent import attribute_of
from . import functional, init, modules, parameter
from .modules import __all__ as _modules
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

if TYPE_CHECKING:
    from . import attention, parallel, utils
    from .modules import *  # noqa: F403
    from .parallel import DataParallel

__getattr__ = attribute_of(
    __name__,
    {
        "attention": "graphtorch.nn.attention",
        "parallel": "graphtorch.nn.parallel",
        "quantized": "graphtorch.ao.nn.quantized",
        "utils": "graphtorch.nn.utils",
    },
    {**dict.fromkeys(_modules, ".modules"), "DataParallel": ".parallel"},
)
