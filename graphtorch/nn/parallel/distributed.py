"""A module trained by a group of processes; here the group has one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ... import distributed
from ..modules import Module


class DistributedDataParallel(Module):
    """Runs `module`; gradients are averaged over the processes of the group, which is one.

    The wrapped module is ``.module`` and its state's keys begin with ``module.``, as in PyTorch.

    Args:
        module: with at least one parameter that requires a gradient.
        device_ids: None or one device.

    Raises:
        ValueError: no group (``torch.distributed.init_process_group`` comes first), or several
            devices.
        RuntimeError: no parameter requires a gradient.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: int | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        **kwargs: Any,
    ):
        super().__init__()
        distributed.get_world_size()
        if not any(p.requires_grad for p in module.parameters()):
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any "
                "parameter that requires a gradient."
            )
        if device_ids is not None and len(device_ids) > 1:
            raise ValueError("device_ids can only be None or contain a single element.")
        self.module = module
        self.dim = dim
        self.device_ids, self.output_device = device_ids, output_device
        self.broadcast_buffers, self.find_unused_parameters = (
            broadcast_buffers,
            find_unused_parameters,
        )
        self.require_backward_grad_sync = True

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients add up without being averaged over the processes."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before
