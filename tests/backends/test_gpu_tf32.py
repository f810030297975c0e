"""Products and convolutions whose factors are rounded to TF32, beside factors that NumPy rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import EXACT, Gpu, Tf32
from graphtorch.backends.gpu.schedules.matrices import TF32_TILES, Tile
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.autodiff import vjp

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)


def rounded(x: np.ndarray) -> np.ndarray:
    """`x` in f64 as a multiple of the step between TF32's numbers of its size: to nearest, ties
    away from 0; what goes beyond the largest number of f32 is infinite."""
    exponent = np.maximum(np.frexp(x.astype(np.float64))[1], -125)
    steps = np.ldexp(x.astype(np.float64), 11 - exponent)
    near = np.ldexp(np.trunc(steps + np.copysign(0.5, steps)), exponent - 11)
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(x), near, x).astype(np.float32).astype(np.float64)


def run(graph: Graph, arrays: list[np.ndarray], tf32: Tf32, device: Any = None) -> list[np.ndarray]:
    unit, device = Unit(), device or EmulatedDevice(order=1)
    built = build(graph, unit, machine=Gpu(tf32=tf32))
    module = device.load(unit.pieces(device.compilers))
    found = Executable(built, module, device)([DeviceBuffer.of(x, device) for x in arrays])
    return [x.numpy().astype(np.float64) for x in found]


def product(a: tuple[int, ...], b: tuple[int, ...], left: bool, right: bool) -> Graph:
    """``a @ b`` of operands that are given transposed where `left`, `right` say so."""
    shapes = [(*s[:-2], s[-1], s[-2]) if t else s for s, t in ((a, left), (b, right))]
    x, y = (Value(Type(f32, s), name=n) for s, n in zip(shapes, "ab", strict=True))
    turned = [
        ops.permute(v, dims=(*range(v.rank - 2), v.rank - 1, v.rank - 2)) if t else v
        for v, t in ((x, left), (y, right))
    ]
    return Graph("product", [x, y], [ops.matmul(*turned)])


def check(
    a: tuple[int, ...],
    b: tuple[int, ...],
    left: bool = False,
    right: bool = False,
    device: Any = None,
) -> None:
    """The product is that of rounded factors, and as far from the exact one as they may be."""
    rng = np.random.default_rng(0)
    x, y = ((rng.standard_normal(s) / 4).astype(np.float32) for s in (a, b))
    given = [np.swapaxes(v, -1, -2) if t else v for v, t in ((x, left), (y, right))]
    (found,) = run(product(a, b, left, right), given, Tf32(products=True), device)
    x, y = x.astype(np.float64), y.astype(np.float64)
    sizes = np.abs(x) @ np.abs(y)
    assert (np.abs(found - rounded(x) @ rounded(y)) <= a[-1] * 2.0**-24 * sizes).all()
    error = np.abs(found - x @ y)
    assert (error <= 2.1 * 2.0**-11 * sizes).all() and error.max() > 1e-5


SHAPES: list[tuple[Any, ...]] = [
    ((3, 7), (7, 5)),
    ((65, 129), (129, 33), False, True),
    ((72, 40), (40, 80), True, False),
    ((2, 3, 9, 24), (3, 24, 32)),
    ((8, 1504), (1504, 24)),
]


@pytest.mark.parametrize("case", SHAPES, ids=lambda c: f"{c[0]}{c[1]}")
def test_products(case: Any) -> None:
    """Edges, neighbours side by side or not, batches, a long k in parts."""
    check(*case)


@pytest.mark.parametrize("tile", TF32_TILES, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_every_tile(tile: Tile, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile gives the same, and no two threads of a warp meet in a bank of shared memory.

    For one operand a warp reads matrices of 512 bytes, four turns, for the other single elements.
    """
    monkeypatch.setattr("graphtorch.backends.gpu.schedules.matrices.tiles_of", lambda _: (tile,))
    device = EmulatedDevice(traced=True)
    depth = tile.stages * tile.depth + 8
    check((tile.rows + 8, depth), (depth, tile.columns - 8), turned, turned, device)
    (counts,) = device.counts.values()
    assert counts.turns == counts.least > 0


def test_how_factors_are_rounded() -> None:
    """Ties, steps of the exponent, the least and the largest, infinities and NaN: each times 1."""
    bits = [0x3F801000, 0x3F802FFF, 0x3F803000, 0x3FFFF000, 1, 0x1000, 0x7F7FEFFF, 0x7F7FFFFF]
    x = np.array(bits, np.uint32).view(np.float32)
    assert (rounded(x) != x).all() and np.isinf(rounded(x)).sum() == 1
    x = np.concatenate([x, -x, np.array([np.inf, -np.inf, np.nan, 0.0], np.float32)])
    factors = [np.stack([x, np.zeros_like(x)], axis=1), np.ones((2, 8), np.float32)]
    (found,) = run(product((20, 2), (2, 8), False, False), factors, Tf32(products=True))
    np.testing.assert_array_equal(found, np.repeat(rounded(x)[:, None], 8, axis=1))


def test_few_results_are_exact() -> None:
    """What is too small for tiles is computed as without the switch."""
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(s).astype(np.float32) for s in ((2, 40), (40, 70))]
    graph = product((2, 40), (40, 70), False, False)
    (found,), (exact,) = (run(graph, given, Tf32(products=yes)) for yes in (True, False))
    np.testing.assert_array_equal(found, exact)


def convolution() -> Graph:
    """A convolution, and the gradients of image and weight."""
    x = Value(Type(f32, (2, 20, 9, 16)), name="x")
    w = Value(Type(f32, (24, 20, 3, 3)), name="w")
    y = ops.conv(x, w, stride=(2, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    g = Value(y.type, name="g")
    return Graph("convolution", [x, w, g], [y, *(v for v in vjp([y], [g], [x, w]) if v)])


def test_convolutions_round_by_a_switch_of_their_own() -> None:
    """All three products of a convolution are those of factors that were rounded before."""
    rng, graph = np.random.default_rng(1), convolution()
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    before = [rounded(x).astype(np.float32) for x in arrays]
    exact, same = run(graph, arrays, EXACT), run(graph, arrays, Tf32(products=True))
    found, wanted = run(graph, arrays, Tf32(convolutions=True)), run(graph, before, EXACT)
    for mine, expected, plain, kept in zip(found, wanted, exact, same, strict=True):
        scale = np.abs(plain).max()
        np.testing.assert_array_equal(plain, kept)
        assert np.abs(mine - expected).max() <= 2e-6 * scale
        assert 1e-5 * scale < np.abs(mine - plain).max() < 2e-3 * scale
