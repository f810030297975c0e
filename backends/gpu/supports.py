"""Which nodes kernels for GPUs take whole, and how large their regions may become."""

from __future__ import annotations

from graphtorch.ir.graph import Node
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.shape import UNBOUNDED

from ..cpu.supports import supports as shared
from .schedules import attention, attention_grad

# Passes over rows of any length read again what they need: a row in between, in memory, is one
# more to write and to read, and mostly of wider elements. Rows are cut where there are few of them.
LIMITS = Limits(row=UNBOUNDED, few_rows=0)
# Kernels made of vectors, or of blocks that one thread owns.
LEFT_OUT = frozenset(
    {
        "max_pool_input_grad",
        "channels_last_conv",
        "channels_last_conv_transpose",
        "channels_last_conv_weight_grad",
        "winograd_image",
        "winograd_result",
        "winograd_result_grad",
    }
)
CHOSEN = {"attention": attention.fits, "attention_grad": attention_grad.fits}


def supports(node: Node) -> bool:
    """What kernels for CPUs take, but for those that blocks of threads do better in parts."""
    name = node.op.name
    return CHOSEN[name](node) if name in CHOSEN else name not in LEFT_OUT and shared(node)
