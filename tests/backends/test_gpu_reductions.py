"""Reductions by blocks of threads on the emulated device, beside the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.gpu import compiler
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.emulated import EmulatedDevice
from graphtorch.backends.gpu.emulated import compiler as cxx
from graphtorch.backends.gpu.executable import Built, Executable
from graphtorch.backends.gpu.machine import Gpu
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Shape, Symbol, SymInt

pytestmark = pytest.mark.skipif(
    cxx() is None, reason="the emulated CUDA device needs a C++ compiler"
)

Make = Callable[[Value], Sequence[Value]]


def reduced(*dims: int, keepdim: bool = False, op: str = "sum") -> Make:
    return lambda x: [getattr(ops, op)(x, dims=dims, keepdim=keepdim)]


def softmax(dim: int) -> Make:
    return lambda x: [ops.softmax(x, dim=dim)]


def normed(*dims: int) -> Make:
    """Mean, variance and what they make of x: two levels of sums, results of both shapes."""

    def make(x: Value) -> list[Value]:
        mean = ops.mean(x, dims=dims, keepdim=True)
        centered = ops.sub(x, mean)
        variance = ops.mean(ops.mul(centered, centered), dims=dims, keepdim=True)
        return [ops.mul(centered, ops.rsqrt(ops.exp(variance))), mean]

    return make


def logarithms(x: Value) -> list[Value]:
    return [ops.logsumexp(x, dims=(1,), keepdim=False), ops.exp(ops.log_softmax(x, dim=1))]


# Shapes for each way to share the work: a thread, some threads, a warp and a block for a row;
# pieces of rows and of columns; columns of a thread and of a block.
CASES: dict[str, tuple[Make, Shape, str]] = {
    "thread": (reduced(1), (70, 3), "f32"),
    "2 threads": (reduced(1), (70, 7), "f32"),
    "8 threads": (reduced(1, op="max"), (70, 31), "f32"),
    "warp": (reduced(1), (21, 129), "f64"),
    "warp of bf16": (reduced(1), (21, 300), "bf16"),
    "block": (reduced(1), (20, 1001), "f32"),
    "block of f16": (reduced(1, op="max"), (17, 600), "f16"),
    "odd block": (reduced(1), (17, 5000), "f32"),
    "i64": (reduced(1), (17, 513), "i64"),
    "bools": (reduced(1, op="any"), (17, 40), "bool"),
    "whole": (reduced(0, 1), (60, 101), "f32"),
    "whole bools": (reduced(0, 1, op="all"), (60, 101), "bool"),
    "few rows": (reduced(1, keepdim=True), (2, 9000), "f32"),
    "products": (reduced(1, op="prod"), (2, 40), "f32"),
    "minimum": (reduced(0, 1, op="min"), (3, 2000), "i32"),
    "columns": (reduced(0), (400, 33), "f32"),
    "5 columns": (reduced(0), (900, 5), "f32"),
    "columns of planes": (reduced(1), (3, 50, 40), "f32"),
    "rows of planes": (reduced(0, 2), (9, 4, 31), "f32"),
    "channels": (reduced(0, 2, 3), (5, 3, 20, 21), "f32"),
    "many columns": (reduced(0), (33, 1 << 15), "u8"),
    "softmax of a warp": (softmax(1), (9, 77), "f32"),
    "softmax of a block": (softmax(1), (3, 1500), "f32"),
    "long softmax": (softmax(1), (2, 9999), "f32"),
    "softmax down": (softmax(0), (90, 40), "f32"),
    "longest softmax": (softmax(1), (1, 40000), "f32"),
    "softmax of bf16": (softmax(1), (4, 700), "bf16"),
    "softmax of a warp of bf16": (softmax(1), (6, 96), "bf16"),
    "long softmax of f16": (softmax(1), (3, 40960), "f16"),
    "logarithms of sums": (logarithms, (20, 8200), "f32"),
    "rows of wide planes": (normed(0, 2), (3, 5, 48), "bf16"),
    "sum of transposed rows": (
        lambda x: [ops.sum(ops.exp(x), dims=(0, 2), keepdim=False), ops.exp(x)],
        (4, 3, 200),
        "f16",
    ),
    "layer norm": (normed(1), (5, 768), "f32"),
    "batch norm": (normed(0, 2), (6, 5, 49), "f32"),
    "column norm": (normed(0), (100, 20), "f32"),
    "nothing": (reduced(1), (0, 40), "f32"),
    "of nothing": (reduced(1), (40, 0), "f32"),
}


def numbers(shape: Shape, dtype: DType) -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype.is_bool:
        return rng.random(shape) < 0.9
    found = rng.standard_normal(shape) if dtype.is_floating_point else rng.integers(0, 9, shape)
    return found.astype(dtype.numpy)


def graph_of(make: Make, shape: Shape, dtype: DType) -> Graph:
    x = Value(Type(dtype, shape), name="x")
    return Graph("reduced", (x,), tuple(make(x)))


def check(
    name: str, executable: Executable, device: EmulatedDevice, make: Make, x: np.ndarray
) -> str:
    """What is wrong, if anything."""
    dtype = DType.of(x.dtype)
    found = executable([DeviceBuffer.of(x, device)])
    want = compile_reference(graph_of(make, x.shape, dtype), "reference")([Buffer.of(x)])
    error = {"bf16": 2.0**-7, "f16": 2.0**-10}.get(dtype.name, 1e-5)
    for ours, theirs in zip(found, want, strict=True):
        a, b = ours.numpy(), theirs.numpy()
        if a.dtype != b.dtype or not np.allclose(
            a.astype(np.float64), b.astype(np.float64), error, error
        ):
            return f"{name}: {a.ravel()[:4]} instead of {b.ravel()[:4]}"
    return ""


@pytest.mark.parametrize("order", [0, 2])
def test_reductions(order: int) -> None:
    device, unit = EmulatedDevice(order), Unit()
    built: dict[str, Built] = {}
    for name, (make, shape, dtype) in CASES.items():
        built[name] = compiler.build(graph_of(make, shape, DType.named(dtype)), unit)
    module = device.load(unit.pieces(device.compilers))
    wrong = []
    for name, (make, shape, dtype) in CASES.items():
        if order == 0 or np.prod(shape) < 10000:
            x = numbers(shape, DType.named(dtype))
            wrong.append(check(name, Executable(built[name], module, device), device, make, x))
    assert not [w for w in wrong if w]


@pytest.mark.parametrize("make", [softmax(1), reduced(0), reduced(0, 1), normed(1)])
def test_sizes_known_at_run_time(make: Make) -> None:
    device = EmulatedDevice()
    rows, columns = SymInt.atom(Symbol("rows", 1)), SymInt.atom(Symbol("columns", 1))
    executable = compiler.compile(graph_of(make, (rows, columns), f32), device)
    for shape in ((1, 1), (5, 300), (3, 9000), (700, 6)):
        assert not check(str(shape), executable, device, make, numbers(shape, f32))


def stages(make: Make, shape: Shape) -> list[int]:
    """The threads of the blocks of each launch."""
    built = compiler.build(graph_of(make, shape, f32), Unit())
    return [s.threads for kernel in built.kernels for s in kernel.stages]


def test_plans() -> None:
    """One launch where there are rows enough, and a second one where they are cut."""
    assert stages(reduced(1), (4096, 4)) == [0]
    assert stages(reduced(1), (4096, 100)) == [128]
    assert stages(softmax(1), (4096, 1024)) == [128]
    assert stages(normed(1), (4096, 1024)) == [128]
    assert stages(softmax(1), (4096, 50000)) == [512]
    assert stages(reduced(0), (4096, 1024))[0] == 256
    assert len(stages(reduced(0, 1), (4096, 1024))) == 2


def test_a_row_is_read_once() -> None:
    """Softmax and a norm load each element once, and keep it."""
    for make, shape in (
        (softmax(1), (512, 1000)),
        (normed(1), (512, 768)),
        (softmax(1), (512, 100)),
    ):
        unit = Unit()
        compiler.build(graph_of(make, shape, f32), unit)
        kernels = [unit.functions[i] for i in unit.exports.values()]
        assert len(kernels) == 1
        assert kernels[0].count("= GT_AT(") + kernels[0].count("gt_take<") == 1


def test_accesses_are_as_few_as_can_be() -> None:
    """Sectors of memory within 5 % of what is touched, and no conflicts of banks."""
    cases = [
        (reduced(0), (256, 64)),
        (reduced(0, 1), (5, 2048)),
        (softmax(1), (17, 768)),
        (softmax(1), (9, 64)),
        (normed(1), (3, 1024)),
    ]
    device, unit = EmulatedDevice(traced=True), Unit()
    built = [compiler.build(graph_of(make, shape, f32), unit) for make, shape in cases]
    module = device.load(unit.pieces(device.compilers))
    for made, (_, shape) in zip(built, cases, strict=True):
        Executable(made, module, device)([DeviceBuffer.of(numbers(shape, f32), device)])
    for kernel, found in device.counts.items():
        assert found.sectors <= 1.05 * found.ideal + 4 and found.turns == found.shared, kernel


def test_rows_are_read_and_written_16_bytes_at_a_time() -> None:
    """Also rows of 2-byte floats, those that are cut into pieces, and those not held in
    registers."""
    cases = [
        (softmax(1), (9, 512), "bf16"),
        (softmax(1), (2, 40960), "f16"),
        (normed(1), (5, 1024), "bf16"),
        (reduced(0, 1), (8, 2048), "f16"),
    ]
    for make, shape, dtype in cases:
        device, kind = EmulatedDevice(traced=True), DType.named(dtype)
        executable = compiler.compile(graph_of(make, shape, kind), device)
        executable([DeviceBuffer.of(numbers(shape, kind), device)])
        found = [c for c in device.counts.values() if c.touched > 64]
        sectors, ideal = sum(c.sectors for c in found), sum(c.ideal for c in found)
        assert sectors <= 1.05 * ideal, shape
        # 16 sectors a request, and what all elements need
        assert sum(c.requests for c in found) <= sectors / 8 + 64, shape


def test_maximum_and_sum_of_powers_in_one_pass() -> None:
    """Long rows are read twice, and infinities and NaN are what they are in two passes."""
    device, unit = EmulatedDevice(), Unit()
    inputs = [Value(Type(f32, (9, 20000)), name="x")]
    results = [ops.softmax(inputs[0], dim=1), ops.logsumexp(inputs[0], dims=(1,), keepdim=False)]
    graphs = [Graph("long", inputs, [result]) for result in results]
    small = Gpu(multiprocessors=4)  # which 9 rows are enough for
    built = [compiler.build(graph, unit, (), small) for graph in graphs]
    module = device.load(unit.pieces(device.compilers))
    x = numbers((9, 20000), f32) * 5
    inf = np.inf
    x[0], x[1, 5], x[2, 18000], x[3, 77] = -inf, inf, np.nan, -inf
    x[4], x[4, 4000] = -inf, 3.0
    x[5, :14100], x[6] = -inf, np.linspace(-100, 100, 20000)
    x[7, 3:5], x[8] = inf, inf
    kernels = [unit.functions[i] for i in unit.exports.values()]
    assert [kernel.count("gt_take<") for kernel in kernels] == [2, 1]
    for made, graph in zip(built, graphs, strict=True):
        found = Executable(made, module, device)([DeviceBuffer.of(x, device)])[0].numpy()
        with np.errstate(invalid="ignore"):
            want = compile_reference(graph, "reference")([Buffer.of(x)])[0].numpy()
        np.testing.assert_allclose(found, want, 1e-5, 1e-30)


@pytest.mark.parametrize(("shape", "dim"), [((1, 30000), 1), ((30, 3000), 1), ((3000, 33), 0)])
def test_long_products_keep_their_digits(shape: tuple[int, ...], dim: int) -> None:
    """Many threads have products near 1, each of which is rounded to the same side."""
    near = 1 + 1e-4 * np.random.default_rng(0).standard_normal(shape)
    x = near.astype(np.float32)
    device = EmulatedDevice()
    executable = compiler.compile(graph_of(reduced(dim, op="prod"), shape, f32), device)
    found = executable([DeviceBuffer.of(x, device)])[0].numpy()
    np.testing.assert_allclose(found, x.astype(np.float64).prod(dim), 2e-7)


def test_long_rows_are_read_again_rather_than_stored() -> None:
    """A softmax of few rows too long for registers: three times read, once written."""
    device, f16 = EmulatedDevice(traced=True), DType.named("f16")
    executable = compiler.compile(graph_of(softmax(1), (2, 40960), f16), device)
    executable([DeviceBuffer.of(numbers((2, 40960), f16), device)])
    touched = sum(c.touched for c in device.counts.values()) * 32
    assert touched <= 1.05 * 4 * (2 * 40960) * 2
