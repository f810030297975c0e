"""Contractions by blocks of threads on the emulated device, beside NumPy in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from contracting import TOLERANCE, graph_of, sample
from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu import nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.schedules.parts import COPIED
from graphtorch.backends.gpu.schedules.products import TILES
from graphtorch.backends.gpu.traces import SECTOR, Counts
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f32, f64, i8, i64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.ops.common import cast_to
from graphtorch.ir.shape import Symbol, SymInt

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

ROWS = SymInt.atom(Symbol("rows", 1, 1000))
# shapes of a and b, their dtype, which of them are transposed
CASES: list[tuple[tuple[Any, ...], tuple[Any, ...], str, tuple[bool, bool]]] = [
    ((1, 1), (1, 1), "f32", (False, False)),
    ((3, 7), (7, 5), "f32", (False, False)),
    ((65, 33), (33, 40), "f32", (True, False)),
    ((34, 50), (50, 33), "f32", (False, True)),
    ((2, 3, 9, 20), (3, 20, 31), "f32", (False, False)),
    ((9, 1500), (1500, 35), "f32", (False, False)),
    ((20, 40), (40, 33), "f64", (True, True)),
    ((20, 40), (40, 33), "bf16", (False, False)),
    ((20, 40), (40, 33), "f16", (False, True)),
    ((ROWS, 12), (12, 6), "f32", (False, False)),
]


def turned(v: Value) -> Value:
    return ops.permute(v, dims=(*range(v.rank - 2), v.rank - 1, v.rank - 2))


def graph(case: Any) -> Graph:
    a, b, name, (left, right) = case
    dtype = DType.named(name)
    x, y = (
        Value(Type(dtype, (*s[:-2], s[-1], s[-2]) if t else s), name=n)
        for s, t, n in ((a, left, "a"), (b, right, "b"))
    )
    product = ops.matmul(turned(x) if left else x, turned(y) if right else y)
    return Graph("product", [x, y], [ops.tanh(product)])


def test_products() -> None:
    """Edges, transposed operands, batches, a long k in parts, narrow floats, sizes known in the
    call."""
    device, unit, rng = EmulatedDevice(order=1), Unit(), np.random.default_rng(0)
    built = [build(graph(case), unit) for case in CASES]
    module = device.load(unit.pieces(device.compilers))
    for (a, b, name, (left, right)), made in zip(CASES, built, strict=True):
        dtype = DType.named(name)
        shapes = [[70 if d is ROWS else d for d in s] for s in (a, b)]
        arrays = [(rng.standard_normal(s) / 4).astype(dtype.numpy) for s in shapes]
        want = np.tanh(arrays[0].astype(np.float64) @ arrays[1].astype(np.float64))
        given = [
            np.swapaxes(x, -1, -2) if t else x for x, t in zip(arrays, (left, right), strict=True)
        ]
        found = Executable(made, module, device)([DeviceBuffer.of(x, device) for x in given])[
            0
        ].numpy()
        tolerance = {"f64": 1e-14, "bf16": 8e-3, "f16": 1e-3}.get(name, 1e-5)
        np.testing.assert_allclose(
            found.astype(np.float64), want, tolerance, tolerance, err_msg=name
        )


def test_a_long_k_is_cut_into_parts() -> None:
    unit = Unit()
    made = build(graph(CASES[5]), unit)
    assert [name for name in made.record.launches.functions if "sum" in name] == ["sum_parts"]


PLAIN = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
CONVOLUTIONS: list[tuple[Any, dict[str, Any], list[tuple[int, ...]]]] = [
    (
        ops.conv,
        {"padding": ((1, 2), (0, 1)), "stride": (2, 1)},
        [(2, 3, 9, 11), (7, 3, 3, 3), (7,)],
    ),
    (ops.conv, {"groups": 2, "dilation": (1, 2)}, [(2, 6, 8, 9), (8, 3, 3, 3)]),
    (ops.conv, {"groups": 8, "padding": ((1, 1), (1, 1))}, [(2, 8, 9, 7), (8, 1, 3, 3)]),
    (
        ops.conv_transpose,
        {"stride": (2, 2), "groups": 2, "output_padding": (1, 0)},
        [(2, 8, 5, 6), (8, 3, 3, 3)],
    ),
    (ops.conv_weight_grad, {"kernel": (3, 3), "groups": 2}, [(4, 8, 14, 14), (4, 6, 12, 12)]),
]


@pytest.mark.parametrize("dtype", [f32, bf16])
def test_convolutions(dtype: DType) -> None:
    """Convolutions and their gradients are read in place; narrow groups are summed a result a
    thread."""
    device, unit, rng = EmulatedDevice(order=2), Unit(), np.random.default_rng(2)
    graphs = [
        graph_of(partial(op, **PLAIN | given), shapes, dtype) for op, given, shapes in CONVOLUTIONS
    ]
    built = [build(g, unit) for g in graphs]
    module = device.load(unit.pieces(device.compilers))
    for (op, given, shapes), made in zip(CONVOLUTIONS, built, strict=True):
        arrays = [(rng.standard_normal(s) / 4).astype(dtype.numpy) for s in shapes]
        found = Executable(made, module, device)([DeviceBuffer.of(x, device) for x in arrays])[
            0
        ].numpy()
        exact = compile_reference(
            graph_of(partial(op, **{**PLAIN, **given}), shapes, f64), "reference"
        )
        want = exact([Buffer.of(x.astype(np.float64)) for x in arrays])[0].numpy()
        tolerance = 1e-5 if dtype is f32 else 8e-3
        np.testing.assert_allclose(
            found.astype(np.float64), want, tolerance, tolerance, err_msg=str(given)
        )


@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile(tile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile gives the same, and takes no more turns of the banks than its bytes need."""
    monkeypatch.setattr("graphtorch.backends.gpu.schedules.products.tiles_of", lambda _: (tile,))
    device, unit, rng = EmulatedDevice(traced=True), Unit(), np.random.default_rng(1)
    depth = 2 * tile.depth + 1
    case = ((tile.rows + 3, depth), (depth, tile.columns - 1), "f32", (True, False))
    made = build(graph(case), unit)
    arrays = [rng.standard_normal(s).astype(np.float32) / 4 for s in case[:2]]
    given = [DeviceBuffer.of(x, device) for x in (np.ascontiguousarray(arrays[0].T), arrays[1])]
    found = Executable(made, device.load(unit.pieces(device.compilers)), device)(given)[0].numpy()
    np.testing.assert_allclose(found, np.tanh(arrays[0] @ arrays[1]), 1e-5, 1e-5)
    (counts,) = device.counts.values()
    assert counts.turns == counts.least > 0


CASTS = [(bf16, f32), (i8, f32), (i64, f32), (f32, f64), (i8, f64)]


def cast_product(tile: Any, source: DType, acc: DType) -> tuple[Counts, int]:
    """What a product of operands that are cast, both along k, did to memory, and their sectors."""
    device, unit, shapes = (
        EmulatedDevice(traced=True),
        Unit(),
        [(tile.rows, 160), (160, tile.columns)],
    )
    a, b = (sample(s, source, i) for i, s in enumerate(shapes))
    given = [a, np.ascontiguousarray(b.T)]
    product = graph_of(
        lambda x, y: ops.matmul(cast_to(x, acc), cast_to(turned(y), acc)),
        [x.shape for x in given],
        source,
    )
    made = build(product, unit)
    executable = Executable(made, device.load(unit.pieces(device.compilers)), device)
    found = executable([DeviceBuffer.of(x, device) for x in given])[0].numpy()
    want, tolerance = a.astype(np.float64) @ b.astype(np.float64), TOLERANCE[acc.name]
    np.testing.assert_allclose(found, want, tolerance, tolerance)
    (counts,) = device.counts.values()
    return counts, sum(x.nbytes for x in given) // SECTOR


@pytest.mark.parametrize(("source", "acc"), CASTS, ids=str)
def test_what_is_cast_is_read_in_whole_sectors(
    source: DType, acc: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a tile is deep, with neighbours along k that are written across without conflicts
    of banks."""
    for tile in TILES if acc is f32 else TILES[1:]:
        monkeypatch.setattr(
            "graphtorch.backends.gpu.schedules.products.tiles_of", lambda _, tile=tile: (tile,)
        )
        counts, size = cast_product(tile, source, acc)
        wasted = max(1, SECTOR // (tile.depth * source.itemsize))
        # a thread's neighbours of 16 bytes are stored one by one
        written = (counts.ideal - size) * (COPIED // acc.itemsize)
        assert counts.sectors == size * wasted + written, tile
        assert counts.turns == counts.least > 0, tile


@pytest.mark.skipif(nvrtc.library() is None, reason="registers are told by NVRTC")
def test_products_of_any_size_keep_their_registers() -> None:
    """Transposed, all sizes told at the call, in the two tiles between which the call decides."""
    unit, (m, k, n) = Unit(), (SymInt.atom(Symbol(name, 0, 1 << 40)) for name in "mkn")
    build(graph(((m, k), (k, n), "f32", (True, False))), unit)
    uses = nvrtc.resources(unit.text(), "sm_80")
    assert len(uses) == 2 and not any(u.spilled for u in uses.values())


@pytest.mark.skipif(nvrtc.library() is None, reason="registers are told by NVRTC")
@pytest.mark.parametrize("name", ["f32", "i8"])
def test_large_tiles_keep_their_registers(name: str) -> None:
    """Sums, elements on their way and addresses leave none of 128, by the newest assembler too."""
    unit, source = Unit(), DType.named(name)
    shapes = [(4096, 4096), (4096, 4096)] if source is f32 else [(2048, 257), (257, 2048)]
    build(
        graph_of(lambda a, b: ops.matmul(*(cast_to(x, f32) for x in (a, b))), shapes, source), unit
    )
    for architecture in ("sm_80", f"sm_{max(nvrtc.architectures())}"):
        (use,) = nvrtc.resources(unit.text(), architecture).values()
        assert use.registers <= 128 and not use.spilled, architecture


STEPS = SymInt.atom(Symbol("steps", 1, 1000))


@pytest.mark.parametrize("name", ["f32", "f64"])
def test_operands_read_in_parts(name: str) -> None:
    """16 bytes at once where they lie together: along k or along rows, aligned or not, also where
    the call tells whether they do."""
    dtype, bounds = DType.named(name), {"f32": 1e-5, "f64": 1e-13}
    sides = [(a, b) for a in (False, True) for b in (False, True)]
    cases = [
        *(((68, 36), (36, 72), name, s) for s in sides),
        *(((ROWS, STEPS), (STEPS, 40), name, s) for s in sides),
    ]
    device, unit, rng = EmulatedDevice(order=3), Unit(), np.random.default_rng(3)
    built = [build(graph(case), unit) for case in cases]
    module = device.load(unit.pieces(device.compilers))
    for case, made in zip(cases, built, strict=True):
        executable = Executable(made, module, device)
        sizes = [(68, 36), (70, 36), (68, 35)] if ROWS in case[0] else [(68, 36)]
        for rows, depth in sizes:
            known = {ROWS: rows, STEPS: depth}
            a, b = (
                (rng.standard_normal([known.get(d, d) for d in s]) / 4).astype(dtype.numpy)
                for s in case[:2]
            )
            given = [x.T if t else x for x, t in zip((a, b), case[3], strict=True)]
            for offset in (0, 1):
                buffers = []
                for x in given:
                    memory = np.concatenate([np.full(offset, np.nan, dtype.numpy), x.ravel()])
                    buffers.append(DeviceBuffer.of(memory, device).part(offset, x.shape))
                want, tolerance = np.tanh(a.astype(np.float64) @ b.astype(np.float64)), bounds[name]
                np.testing.assert_allclose(
                    executable(buffers)[0].numpy(), want, tolerance, tolerance, err_msg=str(case)
                )
