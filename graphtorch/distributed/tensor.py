"""``torch.distributed.tensor``: how a tensor lies over several processes. Such tensors do not exist
here.

The placements, which plans for models are written with, are plain data.
"""

from __future__ import annotations

from typing import Any

from .._torch.absent import attribute_of
from .._torch.dataclass import dataclass
from ._parts import parts


class Placement:
    """How a tensor lies over one dimension of a mesh of processes."""

    def is_shard(self, dim: int | None = None) -> bool:
        """Whether it is cut, along `dim` where that is given."""
        return isinstance(self, Shard) and dim in (None, self.dim)

    def is_replicate(self) -> bool:
        """Whether each process has all of it."""
        return isinstance(self, Replicate)

    def is_partial(self, reduce_op: str | None = None) -> bool:
        """Whether the tensor is a reduction of what the processes have."""
        return isinstance(self, Partial) and reduce_op in (None, self.reduce_op)


@dataclass(frozen=True)
class Shard(Placement):
    """Cut along a dimension."""

    dim: int

    @staticmethod
    def local_shard_size_and_offset(
        curr_local_size: int, num_chunks: int, rank: int
    ) -> tuple[int, int]:
        """The size of one of `num_chunks` parts of a dimension, and where it begins."""
        whole = -(-curr_local_size // num_chunks)
        start = min(curr_local_size, whole * rank)
        return min(curr_local_size, start + whole) - start, start


@dataclass(frozen=True)
class _StridedShard(Shard):
    """Cut along a dimension that was cut before by another mesh dimension."""

    split_factor: int = 1


@dataclass(frozen=True)
class Replicate(Placement):
    """All of it in each process."""


@dataclass(frozen=True)
class Partial(Placement):
    """To be reduced over the processes."""

    reduce_op: str = "sum"


DTensor: Any
globals().update(
    parts(
        "torch.distributed.tensor",
        classes="DTensor DeviceMesh",
        functions="distribute_tensor distribute_module compute_local_shape_and_global_offset "
        "init_device_mesh",
    )
)
__getattr__ = attribute_of(__name__)
