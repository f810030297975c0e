"""``torch.distributed.device_mesh``: names for several processes; using one is an error."""

from __future__ import annotations

from .._torch.absent import attribute_of
from ._parts import parts

globals().update(
    parts("torch.distributed.device_mesh", classes="DeviceMesh", functions="init_device_mesh")
)
__getattr__ = attribute_of(__name__)
