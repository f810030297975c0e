"""Products of tiles by groups of four warps, on the emulated device beside NumPy in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphtorch
from emulated_gpu import emulated_gpu
from graphtorch.backends.gpu import devices
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.device import DeviceError, Launch
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import LARGE, Tf32
from graphtorch.backends.gpu.schedules import products, warpgroup_tiles, warpgroups
from graphtorch.backends.gpu.schedules.warpgroup_tiles import TILES, Tile
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
HOPPER = replace(LARGE, warpgroups=True, tf32=Tf32(True, True))
# relative: of results, and of a product's two factors; sums in f32 are not exact either
ROUNDED = {bf16: 2.0**-8, f16: 2.0**-11, f32: 2.0**-23}
FACTORS = {bf16: 1e-5, f16: 1e-5, f32: 2.1 * 2.0**-11}


def graph_of(a: Any, b: Any, dtype: DType, left: bool, right: bool) -> Graph:
    """``relu(a @ b)`` of operands that are given transposed where `left`, `right` say so."""
    shapes = [(*s[:-2], s[-1], s[-2]) if t else s for s, t in ((a, left), (b, right))]
    x, y = (Value(Type(dtype, s), name=n) for s, n in zip(shapes, "ab", strict=True))
    turned = [
        ops.permute(v, dims=(*range(v.rank - 2), v.rank - 1, v.rank - 2)) if t else v
        for v, t in ((x, left), (y, right))
    ]
    return Graph("product", [x, y], [ops.relu(ops.matmul(*turned))])


def check(
    a: Any, b: Any, dtype: DType, left: bool = False, right: bool = False, shift: int = 0
) -> str:
    """Compare a product, of operands that begin `shift` elements into their memory; its text."""
    unit, rng, device = Unit(), np.random.default_rng(0), EmulatedDevice(order=1)
    made = build(graph_of(a, b, dtype, left, right), unit, (), HOPPER)
    arrays = [(rng.standard_normal(s) / 4).astype(dtype.numpy) for s in (a, b)]
    given = []
    for x, turned in zip(arrays, (left, right), strict=True):
        x = np.ascontiguousarray(np.swapaxes(x, -1, -2) if turned else x)
        room = DeviceBuffer.of(np.concatenate([np.zeros(shift, x.dtype), x.ravel()]), device)
        address = room.address + shift * dtype.itemsize
        given.append(DeviceBuffer(device, dtype, x.shape, room.memory, address))
    module = device.load(unit.pieces(device.compilers))
    found = Executable(made, module, device)(given)[0].numpy().astype(np.float64)
    x, y = (v.astype(np.float64) for v in arrays)
    want = np.maximum(x @ y, 0)
    # roundings of the result, and of the factors
    limit = ROUNDED[dtype] * np.abs(want) + FACTORS[dtype] * (np.abs(x) @ np.abs(y))
    assert np.all(np.abs(found - want) <= limit)
    text = unit.text()
    assert "wgmma" in text
    return text


@pytest.mark.parametrize("dtype", [bf16, f32], ids=str)
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_every_tile_and_layout(tile: Tile, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (warpgroups, warpgroup_tiles):
        monkeypatch.setattr(module, "tiles_of", lambda _: (tile,))
    for left, right in itertools.product((False, True), repeat=2):
        check((tile.rows + 8, 200), (200, tile.columns - 8), dtype, left, right)


@pytest.mark.parametrize(
    "case",
    [
        ((70, 8), (8, 70), bf16),
        ((3, 7), (7, 5), f16),
        ((65, 129), (129, 33), bf16, False, True),
        ((72, 40), (40, 80), f16, True, False),
        ((2, 3, 9, 24), (3, 24, 32), bf16),
        ((8, 1504), (1504, 24), bf16),
        ((65, 129), (129, 33), f32, True, True),
        ((64, 640), (640, 64), f32),
    ],
    ids=lambda c: f"{c[0]}{c[1]}",
)
def test_products(case: Any) -> None:
    """Edges, neighbours side by side or not, batches, a long k in parts."""
    check(*case)


@pytest.mark.parametrize("dtype", [bf16, f32], ids=str)
def test_operands_that_are_not_aligned(dtype: DType) -> None:
    """Elements are brought one by one where parts of 16 bytes would not be aligned."""
    for left, right in ((False, False), (True, True)):
        check((64, 72), (72, 64), dtype, left, right, shift=1)


def test_operands_that_are_turned_once() -> None:
    """Where many tiles read an operand of f32 whose rows lie side by side, they read a copy."""
    assert "k_lay" in check((2048, 72), (72, 64), f32)
    assert "k_lay" in check((64, 72), (72, 2048), f32, left=True, right=True)
    assert "k_lay" not in check((2048, 72), (72, 64), f32, right=True)
    assert "k_lay" not in check((2048, 72), (72, 64), bf16)


@pytest.mark.parametrize("dtype", [bf16, f32], ids=str)
@pytest.mark.parametrize("reads", [1, 2, 5])
def test_results_that_are_made_of_other_arrays(reads: int, dtype: DType) -> None:
    """They are read ahead of all stores, some rows at a time, and not beyond the edges."""
    m, k, n = 130, 72, 104
    x, y, *rest = (
        Value(Type(dtype, s), name=f"x{i}")
        for i, s in enumerate([(m, k), (k, n), *[(m, n)] * reads])
    )
    value = ops.matmul(x, y)
    for i, other in enumerate(rest):
        value = ops.mul(value, other) if i % 2 else ops.add(value, other)
    unit, rng, device = Unit(), np.random.default_rng(1), EmulatedDevice(order=1)
    made = build(Graph("product", [x, y, *rest], [value]), unit, (), HOPPER)
    arrays = [(rng.standard_normal(v.shape) / 4).astype(dtype.numpy) for v in (x, y, *rest)]
    module = device.load(unit.pieces(device.compilers))
    given = [DeviceBuffer.of(array, device) for array in arrays]
    found = Executable(made, module, device)(given)[0].numpy().astype(np.float64)
    a, b, *others = (array.astype(np.float64) for array in arrays)
    want, limit = a @ b, np.abs(a) @ np.abs(b)
    for i, other in enumerate(others):
        want = want * other if i % 2 else want + other
        limit = limit * np.abs(other) if i % 2 else limit + np.abs(other)
    assert np.all(np.abs(found - want) <= (reads + 1) * max(ROUNDED[dtype], FACTORS[dtype]) * limit)


@pytest.mark.parametrize(
    ("shape", "reads", "tile"),
    [
        ((4096, 4096, 4096), 0, "128x256"),
        ((200704, 64, 256), 1, "128x128"),
        ((200704, 256, 64), 0, "128x64"),
        ((512, 64, 512), 0, "64x64"),
    ],
    ids=str,
)
def test_choice_of_tiles(
    shape: Any, reads: int, tile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones for a long k; where k is short, such as leave room for several blocks."""
    taken, made = [], warpgroups.emit

    def noted(e: Any, p: Any, tile: Tile, *rest: Any) -> None:
        taken.append(str(tile))
        made(e, p, tile, *rest)

    monkeypatch.setattr(warpgroups, "emit", noted)
    m, k, n = shape
    x, y, *rest = (
        Value(Type(f32, s), name=f"x{i}") for i, s in enumerate([(m, k), (n, k), *[(m, n)] * reads])
    )
    value = ops.matmul(x, ops.permute(y, dims=(1, 0)))
    for other in rest:
        value = ops.add(value, other)
    build(Graph("product", [x, y, *rest], [value]), Unit(), (), HOPPER)
    assert taken == [f"{tile} tiles"]


def test_text(golden: Any) -> None:
    golden("gpu_warpgroups", check((64, 128), (128, 64), bf16))


@pytest.fixture
def hopper() -> Iterator[None]:
    """The emulated device as one that has groups of warps."""
    with emulated_gpu() as patch:
        device = devices.device()
        patch.setattr(device, "properties", replace(device.properties, capability=(9, 0)))
        yield


def test_convolutions_and_gradients(hopper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are turned so that lines of them are copied; results are those of the CPU."""
    nn, ways = graphtorch.nn, set()
    made = warpgroups.slice_of

    def noted(*given: Any) -> Any:
        found = made(*given)
        ways.add(type(found).__name__)
        return found

    monkeypatch.setattr(warpgroups, "slice_of", noted)
    graphtorch.set_float32_matmul_precision("high")
    monkeypatch.setattr(graphtorch.backends.cudnn.conv, "fp32_precision", "tf32")
    net = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.Tanh(),
    )
    x = graphtorch.randn(2, 8, 12, 12)
    try:
        results = []
        for place in ("cpu", "cuda"):
            net = net.to(place)
            net.zero_grad()
            given = x.detach().to(place).requires_grad_()
            y = graphtorch.compile(net)(given)
            (y * y).sum().backward()
            values = [y, given.grad, *(p.grad for p in net.parameters())]
            results.append([v.detach().cpu().numpy() for v in values])
    finally:
        graphtorch.set_float32_matmul_precision("highest")
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, 3e-3, 3e-3 * np.abs(a).max())
    assert {"_Lines", "_Blocks"} <= ways


@pytest.mark.parametrize("precision", ["high", "highest"])
@pytest.mark.parametrize("capability", [(9, 0), (8, 0)], ids=str)
def test_sizes_known_at_the_call(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One program for several sizes takes parts where they fit, else elements, and large tiles
    where there are enough of them."""
    tiles = set()
    made = products.lower_block_product

    def noted(p: Any, region: Any, lowering: Any, tile: Any, *rest: Any) -> None:
        tiles.add(str(tile))
        made(p, region, lowering, tile, *rest)

    monkeypatch.setattr(products, "lower_block_product", noted)
    graphtorch.set_float32_matmul_precision(precision)
    with emulated_gpu() as patch:
        device = devices.device()
        known = replace(device.properties, capability=capability, multiprocessors=4)
        patch.setattr(device, "properties", known)
        try:
            # a program of its own for each case
            scale = 1.0 + capability[0] + len(precision)
            product = graphtorch.compile(lambda x, y: x @ y * scale)
            for n in (64, 72, 81, 300):
                x, y = graphtorch.randn(n, n), graphtorch.randn(n, n)
                found = product(x.to("cuda"), y.to("cuda")).cpu().numpy()
                want = x.numpy().astype(np.float64) @ y.numpy().astype(np.float64) * scale
                np.testing.assert_allclose(found, want, 2e-3, 2e-3 * np.abs(want).max())
        finally:
            graphtorch.set_float32_matmul_precision("highest")
    assert len(tiles) > 1


GIVEN = k.Buffer("given", bf16, "read", 64)
A, B, SUMS, LOW = (
    k.Buffer(name, dtype, "readwrite", align)
    for name, dtype, align in (
        ("a", bf16, 1024),
        ("b", bf16, 1024),
        ("sums", f32, 64),
        ("low", bf16, 16),
    )
)


HELD = k.Buffer("held", u32, "readwrite", 64)
GOT = k.Buffer("got", f32, "write", 64)


def kernel(*statements: k.Stmt, threads: int = 128) -> k.Kernel:
    b = Builder()
    with b.block_loop(1, threads):
        for buffer, size in ((A, 4096), (B, 4096), (LOW, 4096)):
            b.emit(k.Scratch(buffer, size, "shared"))
        b.emit(k.Scratch(SUMS, 32))
        b.emit(k.Scratch(HELD, k.FRAGMENT))
        for s in statements:
            b.emit(s)
    return k.Kernel("planted", (GIVEN, GOT), (), b.body)


def multiply(dtype: DType = bf16, b: k.Buffer = B, rows: int = 64, at: int = 0) -> k.Stmt:
    left = k.Tile(A, k.Const(0), 64, False)
    return k.MultiplyTiles(dtype, SUMS, left, k.Tile(b, k.Const(at), rows, False))


def weigh(held: k.Buffer = HELD, at: int = 0, dtype: DType = bf16, fresh: bool = False) -> k.Stmt:
    right = k.Tile(B if dtype is bf16 else replace(B, dtype=dtype), k.Const(0), 64, True)
    return k.MultiplyTiles(dtype, SUMS, k.Fragment(held, k.Const(at)), right, fresh)


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (multiply(f64), "matrix"),
        (multiply(b=LOW), "matrix"),
        (multiply(rows=65), "matrix"),
        (multiply(rows=128), "bounds"),
        (multiply(at=64), "bounds"),
        (weigh(SUMS), "matrix"),
        (weigh(A), "matrix"),
        (weigh(at=8), "bounds"),
        (k.Settle(-1), "threads"),
        (k.Settle(0, A), "matrix"),
    ],
    ids=[
        *("dtype", "alignment", "rows", "sums", "end"),
        *("floats", "no registers", "registers", "groups", "settled"),
    ],
)
def test_refusals(statement: k.Stmt, rule: str) -> None:
    verify(kernel(multiply(), weigh(), k.Settle(1, SUMS), k.Settle(0, HELD)))
    with pytest.raises(KernelError) as error:
        verify(kernel(statement))
    assert error.value.rule == rule


def planted(*statements: k.Stmt) -> np.ndarray:
    """The first sums of all threads, of tiles of ones."""
    unit, device = Unit(), EmulatedDevice(order=1)
    fill = Builder()
    with fill.loop(4096, "thread", "t") as t:
        for buffer in (A, B):
            fill.store(buffer, t, k.Const(1.0, k.KType(bf16)))
    end = Builder()
    with end.loop(128, "thread", "t") as t:
        end.store(GOT, t, k.load(SUMS, 0))
    (stage,) = unit.kernel(kernel(*fill.body, *statements, *end.body), (0, 1))
    module = device.load(unit.pieces(1))
    buffers = [DeviceBuffer.of(np.zeros(128, np.int32), device) for _ in range(3)]
    launch = Launch(stage.function, 1, stage.threads, ((0, 0), (1, 0)), (), stage.shared)
    module.series([launch])([x.address for x in buffers], [x.nbytes for x in buffers])
    device.synchronize()
    return buffers[1].numpy().view(np.float32)


def hold(number: float) -> list[k.Stmt]:
    b, x = Builder(), k.Const(number, k.KType(f32))
    with b.loop(k.FRAGMENT, "unroll") as i:
        b.store(HELD, i, k.pair(bf16, x, x))
    return b.body


def test_factors_in_registers_are_read_until_the_product_is_settled() -> None:
    """What is there before does not count when sums are fresh; else they are added to."""
    both = weigh(fresh=True), weigh()
    found = planted(k.Barrier(), *hold(0.5), *both, k.Settle(0, HELD), *hold(4.0))
    assert np.all(found == 2 * 64 * 0.5)
    assert np.all(planted(k.Barrier(), *hold(0.5), *both, *hold(4.0), k.Settle(0)) == 2 * 64 * 4.0)


def test_emulator_finds_a_missing_barrier_and_products_left_open() -> None:
    text = "shared memory that another has (written|read) with no barrier"
    with pytest.raises(DeviceError, match=text):
        planted(multiply(), k.Settle(0))
    with pytest.raises(DeviceError, match="products of tiles are not done"):
        planted(k.Barrier(), multiply())
