"""Products on tensor cores, on the emulated device beside NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.device import DeviceError
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.schedules.matrices import TILES, Tile
from graphtorch.backends.gpu.unit import Unit
from graphtorch.backends.kernels import ir as k
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.verify import KernelError, verify
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f16, f32, f64, u32
from graphtorch.ir.graph import Graph, Type, Value

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)


def product(a: tuple[int, ...], b: tuple[int, ...], dtype: DType, left: bool, right: bool) -> Graph:
    """``relu(a @ b)`` of operands that are given transposed where `left`, `right` say so."""
    shapes = [(*s[:-2], s[-1], s[-2]) if t else s for s, t in ((a, left), (b, right))]
    x, y = (Value(Type(dtype, s), name=n) for s, n in zip(shapes, "ab", strict=True))
    turned = [
        ops.permute(v, dims=(*range(v.rank - 2), v.rank - 1, v.rank - 2)) if t else v
        for v, t in ((x, left), (y, right))
    ]
    return Graph("product", [x, y], [ops.relu(ops.matmul(*turned))])


def check(
    device: EmulatedDevice,
    a: tuple[int, ...],
    b: tuple[int, ...],
    dtype: DType,
    left: bool = False,
    right: bool = False,
) -> None:
    unit, rng = Unit(), np.random.default_rng(0)
    made = build(product(a, b, dtype, left, right), unit)
    arrays = [(rng.standard_normal(s) / 4).astype(dtype.numpy) for s in (a, b)]
    given = [
        DeviceBuffer.of(np.swapaxes(x, -1, -2) if t else x, device)
        for x, t in zip(arrays, (left, right), strict=True)
    ]
    module = device.load(unit.pieces(device.compilers))
    found = Executable(made, module, device)(given)[0].numpy().astype(np.float64)
    want = np.maximum(arrays[0].astype(np.float64) @ arrays[1].astype(np.float64), 0)
    tolerance = 4e-3 if dtype is bf16 else 5e-4  # one rounding of the result
    np.testing.assert_allclose(found, want, tolerance, tolerance)


SHAPES: list[tuple[Any, ...]] = [
    ((1, 1), (1, 1), bf16),
    ((3, 7), (7, 5), f16),
    ((65, 129), (129, 33), bf16, False, True),
    ((72, 40), (40, 80), f16, True, False),
    ((2, 3, 9, 24), (3, 24, 32), bf16),
    ((8, 1504), (1504, 24), bf16),
]


@pytest.mark.parametrize("case", SHAPES, ids=lambda c: f"{c[0]}{c[1]}")
def test_products(case: Any) -> None:
    """Edges, neighbours side by side or not, batches, a long k in parts."""
    check(EmulatedDevice(order=1), *case)


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_every_tile(tile: Tile, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile gives the same; a warp's 512 bytes of shared memory take the four turns that they
    need."""
    monkeypatch.setattr("graphtorch.backends.gpu.schedules.matrices.tiles_of", lambda _: (tile,))
    device = EmulatedDevice(traced=True)
    depth = tile.stages * tile.depth + 8
    check(device, (tile.rows + 8, depth), (depth, tile.columns - 8), bf16, turned, turned)
    (counts,) = device.counts.values()
    assert counts.turns == 4 * counts.shared > 0


def kernel(*statements: k.Stmt) -> k.Kernel:
    """A block of a warp with shared memory `s`, `wide` and registers `x`, `y`, `sums`, then
    `statements`."""
    b = Builder()
    with b.block_loop(1, 32):
        for s in (*DECLARED, *statements):
            b.emit(s)
    return k.Kernel("planted", (GIVEN,), (), b.body)


GIVEN = k.Buffer("given", f16, "read", 64)
S, WIDE, X, Y, SUMS = (
    k.Buffer(name, dtype, "readwrite", 64)
    for name, dtype in (("s", f16), ("wide", f32), ("x", u32), ("y", u32), ("sums", f32))
)
DECLARED = (
    k.Scratch(S, 512, "shared"),
    k.Scratch(WIDE, 64, "shared"),
    k.Scratch(X, 4),
    k.Scratch(Y, 2),
    k.Scratch(SUMS, 4),
)
ZERO, YES = k.Const(0), k.Const(True, k.KType(DType.named("bool")))
ONE = k.Const(1.0, k.KType(f32))


@pytest.mark.parametrize(
    "statement, rule",
    [
        (k.LoadMatrices(X, ZERO, X, ZERO, False), "matrix"),
        (k.LoadMatrices(SUMS, ZERO, S, ZERO, False), "matrix"),
        (k.LoadMatrices(Y, ZERO, S, ZERO, False), "bounds"),
        (k.LoadMatrices(X, ZERO, S, k.Const(505), True), "bounds"),
        (k.MultiplyMatrices(f64, SUMS, ZERO, X, ZERO, Y, ZERO), "matrix"),
        (k.MultiplyMatrices(f16, SUMS, ZERO, Y, ZERO, X, ZERO), "bounds"),
        (k.Copy(S, ZERO, GIVEN, ZERO, 4, YES), "type"),
        (k.Copy(X, ZERO, GIVEN, ZERO, 8, YES), "matrix"),
        (k.Await(-1), "threads"),
        (k.Store(X, ZERO, k.pair(f32, ONE, ONE)), "matrix"),
        (k.Store(X, ZERO, k.pair(bf16, ONE, ZERO)), "type"),
        (k.Store(X, ZERO, k.tf32(ZERO)), "type"),
        (k.LoadMatrices(X, ZERO, WIDE, ZERO, True), "matrix"),
        (k.LoadMatrices(X, ZERO, WIDE, k.Const(61), False), "bounds"),
    ],
)
def test_planted_faults_of_matrices(statement: k.Stmt, rule: str) -> None:
    with pytest.raises(KernelError) as found:
        verify(kernel(statement))
    assert found.value.rule == rule


def test_copies_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated device finds a step that is read before it has arrived, and copies left
    behind."""

    def without(groups: int) -> None:
        monkeypatch.setattr(
            "graphtorch.backends.gpu.schedules.matrices.Await",
            lambda n: k.Await(9 if n == groups else n),
        )

    without(TILES[-1].stages - 2)
    with pytest.raises(DeviceError, match="with no barrier between"):
        check(EmulatedDevice(), (64, 64), (64, 64), bf16)
    without(0)
    with pytest.raises(DeviceError, match="copies are on their way"):
        check(EmulatedDevice(), (64, 24), (24, 64), bf16)
