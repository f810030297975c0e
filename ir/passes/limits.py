"""How large regions may become, and what is worth a detour: facts of the machine that a graph is
compiled for, which a target states."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from ..dataclass import dataclass
from ..dtype import DType, bf16, i8
from ..graph import Node
from ..op import Weight


class Exactness(IntEnum):
    """What a graph's results have to be alike with.

    NONE: nothing: algorithms may be taken that lose digits (Winograd's)
    ALGORITHM: the same nodes by themselves, up to the order of sums: what else is recorded, and how
        often a line has run, makes no difference beyond that
    BITS: the same nodes by themselves, to the last bit
    """

    NONE = 0
    ALGORITHM = 1
    BITS = 2


def as_estimated(node: Node, kept: bool, tile: int) -> int:
    """The tile that an estimate takes."""
    return tile


@dataclass(frozen=True)
class Limits:
    """What a target's kernels can be made of; the defaults suit any.

    Attributes:
        nodes: of a region: beyond it registers spill and compile time grows.
        buffers: inputs and results of a region: its code grows with the square of what may overlap.
        row: elements reduced at a time that stay in a core's cache between two passes.
        lone_row: the same where so few rows exist that one pass has to be parallel itself.
        few_rows: less rows than so many are few.
        strided: weights of ops whose kernels read operands with strides where they lie.
        reading: multiply-adds of 32-bit floats in the time in which one of these is read from
            beyond the cache next to a core.
        neighbours: channels that are read, and summed, at a time where those of a pixel lie next to
            each other; 1 where few of them take no longer each than many.
        winograd: whether it has kernels for Winograd's transforms.
        integers: the dtypes of quantised numbers that it multiplies best, as `narrow_linear` takes
            them.
        floats: the dtypes of numbers rounded to bf16 that it multiplies best.
        tile: the side of their tiles for a convolution that could be made by them, 0 for none; it
            is given the node, whether its filters seldom change, and what an estimate takes.
    """

    nodes: int = 128
    buffers: int = 32
    row: int = 1 << 17
    lone_row: int = 1 << 14
    few_rows: int = 4
    strided: frozenset[Weight] = frozenset((Weight.CONTRACTION,))
    reading: float = 26.0
    neighbours: int = 8
    winograd: bool = True
    integers: tuple[DType, DType] = (i8, i8)
    floats: tuple[DType, DType] = (bf16, bf16)
    tile: Callable[[Node, bool, int], int] = as_estimated
