"""A module on several GPUs of one process; without GPUs, the module itself."""

from __future__ import annotations

from typing import Any

from ...cuda import device_count
from ..modules import Module


class DataParallel(Module):
    """Splits a batch over GPUs. Where there is none, calls `module` as it is, as PyTorch does.

    The wrapped module is ``.module`` and its state's keys begin with ``module.``.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0):
        super().__init__()
        self.module = module
        self.device_ids: list[int] = []
        if device_count():
            raise RuntimeError("DataParallel over GPUs is not supported: compile the module for one of them")

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
