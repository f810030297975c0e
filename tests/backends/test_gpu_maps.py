"""Pointwise kernels for GPUs on the emulated device, beside the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu import compiler
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.emulated import EmulatedDevice
from graphtorch.backends.gpu.emulated import compiler as cxx
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import Gpu
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32, f64, i64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Shape, Symbol, SymInt

pytestmark = pytest.mark.skipif(
    cxx() is None, reason="the emulated CUDA device needs a C++ compiler"
)

Make = Callable[..., Value]
Case = tuple[Make, Sequence[tuple[Shape, DType]]]
BIG = (64, 520)


def plane(*shapes: Shape, dtype: DType = f32) -> Sequence[tuple[Shape, DType]]:
    return [(shape, dtype) for shape in shapes]


# What is read and written: side by side, shifted, broadcast, backwards, masked, by index, other
# dtypes, and sizes that vectors do not divide.
CASES: dict[str, Case] = {
    "one line": (lambda x, y: ops.add(ops.mul(x, y), x), plane(BIG, BIG)),
    "odd": (ops.mul, plane((181, 183), (181, 183))),
    "a row": (ops.add, plane(BIG, (520,))),
    "a column": (ops.mul, plane(BIG, (64, 1))),
    "odd rows": (ops.add, plane((260, 127), (127,))),
    "rows of 6": (ops.add, plane((6000, 6), (6,))),
    "bf16": (ops.mul, plane(BIG, BIG, dtype=bf16)),
    "f16": (ops.add, plane((33, 1001), (33, 1001), dtype=f16)),
    "f64": (ops.mul, plane(BIG, BIG, dtype=f64)),
    "i64": (ops.add, plane(BIG, (520,), dtype=i64)),
    "bool": (ops.logical_and, plane(BIG, BIG, dtype=boolean)),
    "compared": (ops.lt, plane(BIG, BIG)),
    "cast": (lambda x: ops.cast(x, dtype=bf16), plane(BIG)),
    "chosen": (ops.where, [(BIG, boolean), (BIG, f32), (BIG, f32)]),
    "shifted": (
        lambda x: ops.neg(ops.slice(x, start=(0, 3), stop=(64, 523), step=(1, 1))),
        plane((64, 530)),
    ),
    "every second": (
        lambda x: ops.neg(ops.slice(x, start=(0, 0), stop=(64, 1040), step=(1, 2))),
        plane((64, 1040)),
    ),
    "backwards": (lambda x: ops.neg(ops.flip(x, dims=(1,))), plane(BIG)),
    "padded": (lambda x: ops.pad(x, low=(1, 2), high=(0, 1), value=2.0), plane(BIG)),
    "joined": (lambda x, y: ops.concat(ops.neg(x), y, dim=1), plane(BIG, (64, 600))),
    "turned": (lambda x: ops.permute(ops.neg(x), dims=(1, 0)), plane(BIG)),
    "by index": (lambda x, i: ops.index_select(x, i, dim=0), [((50, 520), f32), ((70,), i64)]),
    "turned inside": (
        lambda x, y: ops.add(ops.permute(x, dims=(0, 2, 1)), y),
        plane((3, 130, 90), (3, 90, 130)),
    ),
    "two turned": (
        lambda x, y: ops.add(ops.permute(x, dims=(1, 0)), y),
        plane((200, 170), (170, 200)),
    ),
    "turned bf16": (lambda x: ops.permute(x, dims=(1, 0)), plane((190, 181), dtype=bf16)),
    "channels last": (lambda x: ops.permute(x, dims=(0, 2, 3, 1)), plane((2, 40, 20, 21))),
}


def numbers(shape: Shape, dtype: DType) -> np.ndarray:
    rng = np.random.default_rng(len(shape))
    if dtype is boolean:
        return rng.random(shape) < 0.5
    found = rng.standard_normal(shape) if dtype.is_floating_point else rng.integers(0, 50, shape)
    return found.astype(dtype.numpy)


def graph_of(case: Case) -> Graph:
    make, types = case
    inputs = [Value(Type(dtype, shape), name=f"x{i}") for i, (shape, dtype) in enumerate(types)]
    return Graph("map", inputs, [make(*inputs)])


def wrong(
    case: Case, executable: Executable, device: EmulatedDevice, arrays: Sequence[Any]
) -> bool:
    found = executable([DeviceBuffer.of(x, device) for x in arrays])[0].numpy()
    want = compile_reference(graph_of(case), "reference")([Buffer.of(x) for x in arrays])[0].numpy()
    return found.dtype != want.dtype or found.tobytes() != want.tobytes()


def test_maps() -> None:
    """Each element is what the reference makes of it, to the bit."""
    device, unit = EmulatedDevice(), Unit()
    built = [compiler.build(graph_of(case), unit) for case in CASES.values()]
    module = device.load(unit.pieces(device.compilers))
    faults = [
        name
        for (name, case), made in zip(CASES.items(), built, strict=True)
        if wrong(case, Executable(made, module, device), device, [numbers(*t) for t in case[1]])
    ]
    assert not faults


# Transposes of elements of 1 and 2 bytes, which threads take 4 and 2 at a time: what is read, and
# what is written (planes), across the square; ends of loops within a square; odd edges.
TURNED: dict[str, Case] = {
    "f16": (lambda x: ops.permute(x, dims=(1, 0)), plane((256, 192), dtype=f16)),
    "ends": (lambda x: ops.permute(x, dims=(1, 0)), plane((150, 202), dtype=bf16)),
    "planes": (lambda x: ops.permute(ops.neg(x), dims=(0, 2, 1)), plane((3, 70, 130), dtype=bf16)),
    "added": (
        lambda x, y: ops.add(ops.permute(x, dims=(1, 0)), y),
        plane((192, 130), (130, 192), dtype=bf16),
    ),
    "added to a row": (
        lambda x, y: ops.mul(ops.permute(x, dims=(1, 0)), y),
        plane((192, 130), (192,), dtype=f16),
    ),
    "bool": (lambda x: ops.permute(x, dims=(1, 0)), plane((132, 260), dtype=boolean)),
    "odd": (lambda x: ops.permute(x, dims=(1, 0)), plane((255, 192), dtype=f16)),
    "cast": (
        lambda x: ops.cast(ops.permute(x, dims=(1, 0)), dtype=f32),
        plane((256, 192), dtype=f16),
    ),
}


def test_transposes_of_short_elements() -> None:
    device, unit, small = EmulatedDevice(traced=True), Unit(), Gpu(multiprocessors=2)
    built = [compiler.build(graph_of(case), unit, (), small) for case in TURNED.values()]
    words = [
        text.count("_words[") > 0 for text in map(unit.functions.__getitem__, unit.exports.values())
    ]
    assert words == [name not in ("odd", "cast") for name in TURNED]
    module = device.load(unit.pieces(device.compilers))
    faults = [
        name
        for (name, case), made in zip(TURNED.items(), built, strict=True)
        if wrong(case, Executable(made, module, device), device, [numbers(*t) for t in case[1]])
    ]
    assert not faults
    for kernel, found in device.counts.items():
        if kernel.startswith("permute"):
            assert found.turns == found.shared and found.sectors <= 1.1 * found.ideal, kernel


def test_sizes_known_at_run_time() -> None:
    device, rows = EmulatedDevice(), SymInt.atom(Symbol("rows", 1))
    case = ops.sub, plane((rows, 33), (rows, 33))
    executable = compiler.compile(graph_of(case), device)
    for count in (1, 40, 1200):
        assert not wrong(case, executable, device, [numbers((count, 33), f32)] * 2)


def test_memory_that_is_not_aligned() -> None:
    """Inputs may begin anywhere: elements are read one by one there."""
    device, case = EmulatedDevice(), CASES["one line"]
    whole = DeviceBuffer.of(numbers((64 * 520 + 1,), f32), device)
    shifted = DeviceBuffer(device, f32, BIG, whole.memory, whole.address + 4)
    found = compiler.compile(graph_of(case), device)([shifted, shifted])[0].numpy()
    x = whole.numpy()[1:].reshape(BIG)
    assert (found == x * x + x).all()


def test_what_is_side_by_side_is_one_access() -> None:
    for name, count in (("one line", 4), ("bf16", 8), ("f64", 2), ("rows of 6", 2)):
        unit = Unit()
        compiler.build(graph_of(CASES[name]), unit)
        assert (
            unit.text().count(f"gt_take<{count}>") == 2
            and unit.text().count(f"gt_give<{count}>") == 1
        )


def test_an_update_stays_in_place() -> None:
    """Sizes that vectors do not divide keep one store of each element, as taking over memory asks
    for."""
    for size in (40000, 40002):
        x, y = (Value(Type(f32, (size,)), name=n) for n in "xy")
        graph = Graph("update", (x, y), (ops.sub(x, y),), donates=((0, 0),))
        device = EmulatedDevice()
        arrays = [DeviceBuffer.of(numbers((size,), f32), device) for _ in "xy"]
        assert compiler.compile(graph, device)(arrays)[0].address == arrays[0].address
        assert not arrays[0].numpy().any()


FEW = ("a row", "bf16", "compared", "by index", "turned")


def test_accesses_are_as_few_as_can_be() -> None:
    """Sectors of memory within 5 % of what is touched, and no two rows of a tile in one bank."""
    device, unit = EmulatedDevice(traced=True), Unit()
    built = [compiler.build(graph_of(CASES[name]), unit) for name in FEW]
    module = device.load(unit.pieces(device.compilers))
    for name, made in zip(FEW, built, strict=True):
        Executable(made, module, device)(
            [DeviceBuffer.of(numbers(*t), device) for t in CASES[name][1]]
        )
    assert len(device.counts) >= len(FEW) - 1
    for kernel, found in device.counts.items():
        assert found.sectors <= 1.05 * found.ideal and found.turns == found.shared, kernel


def put(x: Value, i: Value, y: Value) -> Value:
    return ops.index_put(x, y, i, dims=(0,), accumulate=True)


UPDATES: dict[str, Case] = {
    "rows": (put, [((50, 7), f32), ((60,), i64), ((60, 7), f32)]),
    "elements": (put, [((50,), f32), ((90,), i64), ((90,), f32)]),
    "set": (
        lambda x, i, y: ops.scatter(x, i, y, dim=1),
        [((6, 50), f32), ((6, 90), i64), ((6, 90), f32)],
    ),
    "added": (
        lambda x, i, y: ops.scatter_add(x, i, y, dim=0),
        [((50, 6), bf16), ((90, 6), i64), ((90, 6), bf16)],
    ),
}


@pytest.mark.parametrize("name", UPDATES)
def test_updates_are_shared_and_stay_in_order(name: str) -> None:
    """Threads have the places of an update each: sums are the same to the bit, and the last write
    wins."""
    case = UPDATES[name]
    unit = Unit()
    compiler.build(graph_of(case), unit, machine=Gpu(ordered=True))
    assert "v_share" in unit.text()
    for order in (0, 2):
        device = EmulatedDevice(order, traced=True)
        executable = compiler.compile(graph_of(case), device, ordered=True)
        assert not wrong(case, executable, device, [numbers(*t) for t in case[1]])
