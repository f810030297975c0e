"""Which nodes the code-generating backends take whole; everything else is decomposed."""

from __future__ import annotations

from graphtorch.ir.dtype import bf16, f32, i8, i16, u8
from graphtorch.ir.graph import Node
from graphtorch.ir.passes.limits import Limits

from ..kernels.body.pointwise import is_pointwise
from ..kernels.contraction.matmul import WORD_BYTES
from ..kernels.machine import Machine
from .attention import backward as attention_grad
from .attention import forward as attention
from .contraction.lower import PROBLEMS, WITHOUT_SUMS
from .pooling.disjoint import fits_vectors
from .whole.table import OPAQUE


def limits(machine: Machine) -> Limits:
    """Those of passes: a core's. A number from beyond its cache takes it 1.6 cycles (8 GB/s, as
    measured while both cores of an AVX2 machine multiplied)."""
    return Limits(
        reading=1.6 * machine.lanes(4) * machine.multiply_adds,
        integers=(u8, i8) if machine.quads else (i16, i16),
        floats=(bf16, bf16) if machine.bfloat else (f32, bf16),
    )


def _keeps_elements(node: Node) -> bool:
    """Whether a bitcast changes no sizes; bytes are cast."""
    source, target = node.operands[0].dtype, node.types[0].dtype
    return source.itemsize == target.itemsize > 1


def _has_whole_words(node: Node) -> bool:
    """Whether rows of narrow numbers are words of 32 bits."""
    x, w = (v.type for v in node.operands)
    return x.dtype is f32 or (
        isinstance(w.shape[1], int) and w.shape[1] * w.dtype.itemsize % WORD_BYTES == 0
    )


CHOSEN = {
    "narrow_linear": _has_whole_words,
    "bitcast": _keeps_elements,
    "attention": attention.fits,
    "attention_grad": attention_grad.fits,
    "max_pool_input_grad": fits_vectors,
}  # taken whole where this says so


def has_kernel(node: Node) -> bool:
    """Whether there is a kernel for just this op, which is better than one for what it decomposes
    into."""
    name = node.op.name
    known = is_pointwise(node) or name in OPAQUE or name in PROBLEMS or name in WITHOUT_SUMS
    return known and (name not in CHOSEN or CHOSEN[name](node))


def supports(node: Node) -> bool:
    """Core ops, and composites that have a kernel of their own, on real types."""
    if not (node.op.is_core or has_kernel(node)):
        return False
    for value in node.operands:
        if value.type.dtype.is_complex:
            return False
    return not any(t.dtype.is_complex for t in node.types)
