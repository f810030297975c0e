"""Contractions on GPUs: by tiles of blocks of threads, on tensor cores or not; what is small by
loops."""

from __future__ import annotations

from collections.abc import Sequence

from ...cpu.contraction.choice import guess
from ...cpu.contraction.lower import contract as by_tasks
from ...cpu.contraction.lower import lower_loop_nest
from ...kernels.contraction.problem import Contraction, extent_of, is_affine, stride
from ...kernels.contraction.residues import dense
from ...kernels.program.lowering import Lowering, Region
from ..machine import gpu_of
from . import matrices, products, warpgroups
from .epilogue import extra
from .packing import laid
from .products import Size, lower_for_sizes, regroup, takes, tile_of

MANY = 1 << 24  # multiply-adds, most of them by zeros, that take longer than a few more launches
NARROW, SHORT = 2, 64  # columns, and steps of k, that are not worth a tile


def contract(p: Contraction, region: Region, lowering: Lowering) -> None:
    """The launches of a contraction."""
    if takes(p) or p.a.gates or p.b.gates:
        many = guess(extent_of(p.axes())) >= MANY
        for part in dense(p) if many else [p]:
            lower_blocks(part, region, lowering)
    else:
        by_tasks(p, region, lowering)


def lower_blocks(p: Contraction, region: Region, lowering: Lowering) -> None:
    """The launches of a contraction by blocks of threads, on tensor cores where they multiply its
    dtype.

    Tiles of a depthwise convolution would be all but empty: there each thread sums what one result
    takes. So it does where there is nothing to sum, as between the pixels that a strided
    convolution of one tap has read: zeros, and what is done with them.
    """
    regroup(p)
    gpu = gpu_of(lowering)
    m, n, k = (guess(extent_of(axes)) for axes in (p.m, p.n, p.k))
    if not takes(p) or not k or (min(m, n) <= NARROW and k <= SHORT):
        lower_loop_nest(p if n <= m else p.swapped(), region, lowering)
        return
    p = along_columns(p)
    way = products
    if matrices.matrix_dtype(p, gpu) is not None:
        way = warpgroups if gpu.warpgroups else matrices
    if way is warpgroups:
        laid(p, region, lowering)
    tiles: Sequence[Size] = way.tiles_of(p)
    if way is products and not gpu.warpgroups:
        tiles = products.shallow(products.tiles_of(p), p)
    if way is warpgroups:
        tile: Size = warpgroups.tile_of(p, extra(p, region), gpu.multiprocessors)
    else:
        long = products.LONG if way is products else matrices.LONG
        tile = tile_of(p, tiles, long, gpu.multiprocessors)
    lower_for_sizes(p, region, lowering, tiles[0], tile, way.emit)


def along_columns(p: Contraction) -> Contraction:
    """The same with rows and columns exchanged where results that are neighbours in memory are
    rows, as channels of channels-last images: neighbouring threads have neighbouring columns."""
    rows, columns = (
        is_affine(p.address, (axes[-1],)) and stride(p.address, axes[-1]) == 1
        for axes in (p.m, p.n)
    )
    return p.swapped() if rows and not columns else p
