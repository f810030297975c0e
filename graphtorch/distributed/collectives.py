"""``torch.distributed._functional_collectives``: collectives that return their result; over one
process, the tensor."""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._torch.absent import attribute_of
from ._parts import parts


class AsyncCollectiveTensor:
    """The result of a collective that goes on: there are none over one process."""

    def __init__(self, *args: Any):
        raise RuntimeError(
            "AsyncCollectiveTensor: collectives over one process are done when they return"
        )


def wait_tensor(tensor: Tensor) -> Tensor:
    """The tensor: what was to be done is done."""
    return tensor


def all_reduce(self: Tensor, reduceOp: str = "sum", group: Any = None, tag: str = "") -> Tensor:
    """The tensor combined over all processes: itself."""
    return self


def all_gather_tensor(
    self: Tensor, gather_dim: int = 0, group: Any = None, tag: str = ""
) -> Tensor:
    """The tensors of all processes along a dimension: this one."""
    return self


globals().update(
    parts(
        "torch.distributed._functional_collectives",
        functions="all_to_all_single all_to_all_single_autograd reduce_scatter_tensor "
        "all_gather_into_tensor_coalesced",
    )
)
__getattr__ = attribute_of(__name__)
