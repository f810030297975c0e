"""Ops that read and write whole values: each has a lowering of its own, found here by name."""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.ir.graph import Node

from ..attention.backward import lower_attention_grad
from ..attention.forward import lower_attention
from ..loops.places import Places
from ..pooling.by_rows import by_rows, lower_pool
from ..pooling.disjoint import lower_max_pool_input_grad
from ..pooling.gradients import grad_by_rows, lower_avg_pool_grad, lower_max_pool_grad
from ..pooling.regions import REGIONS, lower_regions
from .factor import KERNELS, lower_factor, lower_require
from .mersenne import DRAWS, lower_draw, lower_permutation
from .running import SCANS, lower_scan
from .sampling import lower_sample, lower_sample_grad
from .scatter import SCATTERS, lower_scatter
from .sort import lower_sort
from .suppression import lower_nms
from .winograd import lower_winograd_image, lower_winograd_result_grad

Lower = Callable[[Places, Node], None]
OPAQUE: dict[str, Lower] = {
    **dict.fromkeys(SCANS, lower_scan),
    **dict.fromkeys(SCATTERS, lower_scatter),
    "attention": lower_attention,
    "attention_grad": lower_attention_grad,
    "max_pool_grad": lower_max_pool_grad,
    "max_pool_input_grad": lower_max_pool_input_grad,
    "sort": lower_sort,
    **dict.fromkeys(("max_pool", "avg_pool"), lower_pool),
    "avg_pool_grad": lower_avg_pool_grad,
    **dict.fromkeys(KERNELS, lower_factor),
    "require": lower_require,
    **dict.fromkeys(DRAWS, lower_draw),
    "permutation": lower_permutation,
    **dict.fromkeys(REGIONS, lower_regions),
    "sample_bilinear": lower_sample,
    "sample_bilinear_grad": lower_sample_grad,
    "nms": lower_nms,
    "winograd_image": lower_winograd_image,
    "winograd_result_grad": lower_winograd_result_grad,
}
CHOSEN: dict[str, Callable[[Node], bool]] = {
    "max_pool": by_rows,
    "avg_pool": by_rows,
    "avg_pool_grad": grad_by_rows,
}


def is_opaque(node: Node) -> bool:
    """Whether a node is lowered by what OPAQUE lists; small pools are computed where they are
    used."""
    name = node.op.name
    return name in OPAQUE and (name not in CHOSEN or CHOSEN[name](node))
