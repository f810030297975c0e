"""Which nodes kernels for GPUs take whole, and how large their regions may become."""

from __future__ import annotations

from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Node
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.shape import UNBOUNDED

from ..cpu.supports import supports as shared
from .machine import LARGE, Gpu
from .schedules import attention, attention_grad

# Passes over rows of any length read again what they need: a row in between, in memory, is one
# more to write and to read, and mostly of wider elements. Rows are cut where there are few of them.
LIMITS = Limits(row=UNBOUNDED, few_rows=0, neighbours=1, winograd=False, floats=(f32, f32))
# Kernels made of vectors, or of blocks that one thread owns.
LEFT_OUT = frozenset(
    {
        "max_pool_input_grad",
        "narrow_linear",
        "winograd_conv",
        "winograd_image",
        "winograd_result",
        "winograd_result_grad",
    }
)
# Worth turning images for where tiles of them are multiplied whose lines are copied.
CHANNELS_LAST = frozenset(
    {
        "channels_last_conv",
        "channels_last_conv_transpose",
        "channels_last_conv_weight_grad",
    }
)
CHOSEN = {
    "attention": attention.fits,
    "attention_grad": attention_grad.fits,
    "dropped_attention": attention.fits,
    "dropped_attention_grad": attention_grad.fits,
    # without windows to look into it is a sum at computed positions
    "max_pool_grad": lambda node: bool(node.attrs.kernel),
}


def supports(node: Node, gpu: Gpu = LARGE) -> bool:
    """What kernels for CPUs take, but for those that blocks of threads do better in parts."""
    name = node.op.name
    if name in CHOSEN:
        return CHOSEN[name](node)
    if name in CHANNELS_LAST and not (gpu.warpgroups and multiplied(node, gpu)):
        return False
    return name not in LEFT_OUT and shared(node)


def multiplied(node: Node, gpu: Gpu) -> bool:
    """Whether tensor cores multiply the factors of a convolution."""
    dtype = node.types[0].dtype
    return dtype.itemsize == 2 or (dtype is f32 and gpu.rounds_factors(node))
