"""``torch.distributed.algorithms`` and others below it: names for several processes; using one is
an error."""

from __future__ import annotations

from .._torch.absent import attribute_of
from ._parts import parts

globals().update(
    parts(
        "torch.distributed.algorithms",
        classes="Join Joinable JoinHook",
        functions="checkpoint_wrapper apply_activation_checkpointing",
    )
)
__getattr__ = attribute_of(__name__)
