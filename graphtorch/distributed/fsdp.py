"""``torch.distributed.fsdp``: names for several processes; using one is an error."""

from __future__ import annotations

from .._torch.absent import attribute_of
from ._parts import parts

globals().update(
    parts(
        "torch.distributed.fsdp",
        classes="FullyShardedDataParallel FSDPModule CPUOffloadPolicy MixedPrecisionPolicy "
        "OffloadPolicy MixedPrecision CPUOffload ShardingStrategy BackwardPrefetch StateDictType "
        "FullStateDictConfig FullOptimStateDictConfig ShardedStateDictConfig "
        "ShardedOptimStateDictConfig",
        functions="fully_shard",
    )
)
__getattr__ = attribute_of(__name__)
