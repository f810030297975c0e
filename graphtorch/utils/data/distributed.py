"""`DistributedSampler` under the name of PyTorch's module."""

from __future__ import annotations

from .sampler import DistributedSampler

__all__ = ["DistributedSampler"]
