"""Groups of one process: what `torch.distributed` does where a program is its only member.

A script written for several processes runs, alone, as with ``world_size=1``. More than one is an
error.
"""

from __future__ import annotations

import os
from datetime import timedelta
from enum import Enum
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import METHODS
from .._torch.absent import attribute_of
from ._parts import parts

default_pg_timeout = timedelta(minutes=30)
_backend: str | None = None


class ReduceOp(Enum):
    """How `all_reduce` and `reduce` combine tensors. Over one process each of them changes
    nothing."""

    SUM = 0
    AVG = 1
    PRODUCT = 2
    MIN = 3
    MAX = 4
    BAND = 5
    BOR = 6
    BXOR = 7


ReduceOp.RedOpType = ReduceOp  # type: ignore[attr-defined]  # the name of PyTorch's C++ side


def is_available() -> bool:
    """Whether this module works: for one process it does."""
    return True


def is_initialized() -> bool:
    """Whether `init_process_group` was called."""
    return _backend is not None


def is_gloo_available() -> bool:
    return False


is_nccl_available = is_mpi_available = is_torchelastic_launched = is_gloo_available


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    **kwargs: Any,
) -> None:
    """Begin to be a group of one. World size and rank may come from the environment variables of
    torchrun.

    Raises:
        RuntimeError: more than one process is asked for. ValueError: called twice, or another rank
            than 0.
    """
    global _backend
    size = int(os.environ.get("WORLD_SIZE", "1")) if world_size == -1 else world_size
    own = int(os.environ.get("RANK", "0")) if rank == -1 else rank
    if size != 1:
        raise RuntimeError(
            f"init_process_group: {size} processes were asked for, but graphtorch trains in "
            "one; start the program once, with world_size=1"
        )
    if own != 0:
        raise ValueError(f"init_process_group: rank {own} in a group of one process: expected 0")
    if _backend is not None:
        raise ValueError("trying to initialize the default process group twice!")
    _backend = backend or "gloo"


def destroy_process_group(group: Any = None) -> None:
    """End the group."""
    global _backend
    _require()
    _backend = None


def _require() -> None:
    if _backend is None:
        raise ValueError(
            "Default process group has not been initialized, please make sure to call "
            "init_process_group."
        )


def get_backend(group: Any = None) -> str:
    """The name that was given to `init_process_group`."""
    _require()
    return _backend  # type: ignore[return-value]


def get_rank(group: Any = None) -> int:
    """0."""
    _require()
    return 0


def get_world_size(group: Any = None) -> int:
    """1."""
    _require()
    return 1


def barrier(group: Any = None, async_op: bool = False, device_ids: Any = None) -> None:
    """Wait for nobody."""
    _require()


def _check(name: str, *tensors: Any) -> None:
    _require()
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a Tensor, but got {type(tensor).__name__}")


def _only_rank(name: str, rank: int | None) -> None:
    if rank not in (0, None):
        raise ValueError(f"{name}: rank {rank} is not part of a group of one process")


def all_reduce(
    tensor: Tensor, op: Any = ReduceOp.SUM, group: Any = None, async_op: bool = False
) -> None:
    """Combine `tensor` over all processes, in place: over one it stays."""
    _check("all_reduce", tensor)


def reduce(
    tensor: Tensor,
    dst: int | None = 0,
    op: Any = ReduceOp.SUM,
    group: Any = None,
    async_op: bool = False,
) -> None:
    """Combine `tensor` over all processes at `dst`: over one it stays."""
    _check("reduce", tensor)
    _only_rank("reduce", dst)


def broadcast(
    tensor: Tensor, src: int | None = 0, group: Any = None, async_op: bool = False
) -> None:
    """Give all processes the `tensor` of `src`."""
    _check("broadcast", tensor)
    _only_rank("broadcast", src)


def all_gather(
    tensor_list: list[Tensor], tensor: Tensor, group: Any = None, async_op: bool = False
) -> None:
    """Write the tensor of every process into `tensor_list`, which has one place for each."""
    _check("all_gather", tensor, *tensor_list)
    if len(tensor_list) != 1:
        raise ValueError(f"all_gather: {len(tensor_list)} places for the tensors of one process")
    METHODS["copy_"](tensor_list[0], tensor)


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Write the object of every process into `object_list`."""
    _require()
    object_list[0] = obj


def broadcast_object_list(
    object_list: list[Any], src: int = 0, group: Any = None, device: Any = None
) -> None:
    """Give all processes the objects of `src`."""
    _require()
    _only_rank("broadcast_object_list", src)


class _Groups:
    """The group of all processes, ``torch.distributed.group.WORLD``, which is this one."""

    WORLD = None


group = GroupMember = _Groups


def get_process_group_ranks(group: Any = None) -> list[int]:
    """The ranks of a group: [0]."""
    return [0]


def new_group(ranks: Any = None, *args: Any, **options: Any) -> None:
    """A group of some of the processes: of this one, None. Raises ValueError: other ranks."""
    _require()
    for rank in ranks or ():
        _only_rank("new_group", rank)


globals().update(
    parts(
        "torch.distributed",
        classes="ProcessGroup Work Store TCPStore FileStore HashStore PrefixStore P2POp",
        functions="all_to_all all_to_all_single all_gather_into_tensor reduce_scatter "
        "reduce_scatter_tensor "
        "gather scatter gather_object scatter_object_list send recv isend irecv "
        "monitored_barrier batch_isend_irecv",
    )
)
__getattr__ = attribute_of(__name__, {"algorithms", "checkpoint", "device_mesh", "fsdp", "tensor"})
