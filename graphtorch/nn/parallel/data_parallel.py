"""A module on several GPUs of one process; without GPUs, the module itself."""

from __future__ import annotations

from typing import Any

from ..._captured.capture import rebuild
from ..._types import gpu
from ...cuda import device_count
from ...cuda._gpu import index_of
from ..modules import Module


class DataParallel(Module):
    """Calls `module` on the first of the GPUs, to which it and the tensors of its arguments are
    moved.

    PyTorch splits the batch over all of them; one computes the same, unless the module looks at its
    batch as a whole (batch norm does). Where there is no GPU, the module is called as it is, as in
    PyTorch.

    The wrapped module is ``.module`` and its state's keys begin with ``module.``.
    """

    def __init__(
        self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ):
        super().__init__()
        self.module = module
        given = range(device_count()) if device_ids is None else device_ids
        self.device_ids: list[int] = [index_of(d) for d in given] if device_count() else []
        self.dim = dim
        if self.device_ids:
            self.output_device = index_of(
                self.device_ids[0] if output_device is None else output_device
            )
            self.src_device_obj = gpu(self.device_ids[0])
            module.to(self.src_device_obj)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.device_ids:
            inputs, kwargs = rebuild((inputs, kwargs), lambda t: t.to(self.src_device_obj))
        return self.module(*inputs, **kwargs)
