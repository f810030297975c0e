"""Contractions by blocks of threads on the emulated device, beside NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.unit import Unit
from graphtorch.backends.kernels.block_products import TILES
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Symbol, SymInt

pytestmark = pytest.mark.skipif(compiler() is None, reason="the emulated CUDA device needs a C++ compiler")

ROWS = SymInt.atom(Symbol("rows", 1, 1000))
# shapes of a and b, their dtype, which of them are transposed
CASES: list[tuple[tuple[Any, ...], tuple[Any, ...], str, tuple[bool, bool]]] = [
    ((1, 1), (1, 1), "f32", (False, False)), ((3, 7), (7, 5), "f32", (False, False)),
    ((65, 33), (33, 40), "f32", (True, False)), ((34, 50), (50, 33), "f32", (False, True)),
    ((2, 3, 9, 20), (3, 20, 31), "f32", (False, False)), ((9, 1500), (1500, 35), "f32", (False, False)),
    ((20, 40), (40, 33), "f64", (True, True)), ((20, 40), (40, 33), "bf16", (False, False)),
    ((20, 40), (40, 33), "f16", (False, True)), ((ROWS, 12), (12, 6), "f32", (False, False)),
]


def turned(v: Value) -> Value:
    return ops.permute(v, dims=(*range(v.rank - 2), v.rank - 1, v.rank - 2))


def graph(case: Any) -> Graph:
    a, b, name, (left, right) = case
    dtype = DType.named(name)
    x, y = (Value(Type(dtype, (*s[:-2], s[-1], s[-2]) if t else s), name=n)
            for s, t, n in ((a, left, "a"), (b, right, "b")))
    product = ops.matmul(turned(x) if left else x, turned(y) if right else y)
    return Graph("product", [x, y], [ops.tanh(product)])


def test_products() -> None:
    """Edges, transposed operands, batches, a long k in parts, narrow floats, sizes known in the call."""
    device, unit, rng = EmulatedDevice(order=1), Unit(), np.random.default_rng(0)
    built = [build(graph(case), unit) for case in CASES]
    module = device.load(unit.pieces(1))
    for (a, b, name, (left, right)), made in zip(CASES, built, strict=True):
        dtype = DType.named(name)
        shapes = [[70 if d is ROWS else d for d in s] for s in (a, b)]
        arrays = [(rng.standard_normal(s) / 4).astype(dtype.numpy) for s in shapes]
        want = np.tanh(arrays[0].astype(np.float64) @ arrays[1].astype(np.float64))
        given = [np.swapaxes(x, -1, -2) if t else x for x, t in zip(arrays, (left, right), strict=True)]
        found = Executable(made, module, device)([DeviceBuffer.of(x, device) for x in given])[0].numpy()
        tolerance = {"f64": 1e-14, "bf16": 8e-3, "f16": 1e-3}.get(name, 1e-5)
        np.testing.assert_allclose(found.astype(np.float64), want, tolerance, tolerance, err_msg=name)


def test_a_long_k_is_cut_into_parts() -> None:
    unit = Unit()
    made = build(graph(CASES[5]), unit)
    assert [name for name in made.record.launches.functions if "sum" in name] == ["sum_parts"]


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile(tile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile gives the same. Four neighbours that a GPU's thread reads at once are read one by one here,
    where every eighth thread has the same bank: two turns; nothing takes more."""
    monkeypatch.setattr("graphtorch.backends.kernels.block_products.tile_of", lambda p: tile)
    device, unit, rng = EmulatedDevice(traced=True), Unit(), np.random.default_rng(1)
    depth = 2 * tile.depth + 1
    case = ((tile.rows + 3, depth), (depth, tile.columns - 1), "f32", (True, False))
    made = build(graph(case), unit)
    arrays = [rng.standard_normal(s).astype(np.float32) / 4 for s in case[:2]]
    given = [DeviceBuffer.of(x, device) for x in (np.ascontiguousarray(arrays[0].T), arrays[1])]
    found = Executable(made, device.load(unit.pieces(1)), device)(given)[0].numpy()
    np.testing.assert_allclose(found, np.tanh(arrays[0] @ arrays[1]), 1e-5, 1e-5)
    (counts,) = device.counts.values()
    assert counts.turns <= 2 * counts.shared
