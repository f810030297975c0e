"""Running reductions on a GPU by threads that share lines, on the emulated device beside NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_reference
from graphtorch.backends.cpu.whole.lines import Lines
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.device import DeviceError
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.lower import lower
from graphtorch.backends.gpu.machine import LARGE, Gpu
from graphtorch.backends.gpu.schedules import running
from graphtorch.backends.gpu.supports import supports
from graphtorch.backends.gpu.unit import Unit
from graphtorch.backends.kernels.text import print_kernel
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import pipeline
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import Dim, symbol

needs_compiler = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)
SIZE = symbol("size")
NAMES = ("cumsum", "cumprod", "cummax", "cummin")
DTYPES: list[Any] = [
    *(np.float32, np.float64, np.float16, ml_dtypes.bfloat16),
    *(np.int64, np.int32, np.uint8, np.int8, np.uint64, np.bool_),
]
Case = tuple[Graph, list[np.ndarray], float]


def scan(name: str, shape: Sequence[Dim], dim: int, dtype: DType = f32) -> Graph:
    x = Value(Type(dtype, tuple(shape)), name="x")
    made = getattr(ops, name)(x, dim=dim)
    return Graph(name, [x], list(made) if isinstance(made, tuple) else [made])


def numbers(name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers, whose sums are exact in f32 in any order; powers of 2 for products; ties."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype) == bool:
        return rng.random(shape) < 0.1
    whole = rng.integers(-4, 5, shape)
    return (np.exp2(np.sign(whole)) * np.sign(whole + 0.5) if name == "cumprod" else whole).astype(
        dtype
    )


def check(cases: Sequence[Case], machine: Gpu = LARGE, **options: Any) -> EmulatedDevice:
    """Every program gives what the reference gives, but for a relative error."""
    unit, device = Unit(), EmulatedDevice(**options)
    built = [build(graph, unit, machine=machine) for graph, _, _ in cases]
    module = device.load(unit.pieces(device.compilers))
    for (graph, arrays, tolerance), made in zip(cases, built, strict=True):
        found = Executable(made, module, device)([DeviceBuffer.of(x, device) for x in arrays])
        wanted = compile_reference(graph, "reference")([Buffer.of(x) for x in arrays])
        for mine, expected in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                mine.numpy().astype(np.float64),
                expected.numpy().astype(np.float64),
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{graph.name} {graph.inputs[0].type}",
            )
    return device


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str) -> None:
    """Lines of a few threads, of a block, in pieces, and side by side: exact in every dtype."""
    cases: list[Case] = []
    for dtype in DTYPES:
        if np.dtype(dtype) != bool or name in ("cummax", "cummin"):
            for shape, dim in (((3, 40), 1), ((2, 1160), 1), ((130, 9), 0)):
                x = numbers(name, dtype, shape)
                cases.append((scan(name, shape, dim, DType.of(x.dtype)), [x], 0.0))
    check(cases, Gpu(multiprocessors=2), order=1)


SHAPES: list[tuple[tuple[int, ...], int]] = [
    *(((), 0), ((1,), 0), ((0,), 0), ((5, 0), 1), ((0, 5), 1), ((7,), 0), ((2, 1, 3), 1)),
    *(((3, 37), 1), ((37, 3), 0), ((2, 9, 70), 1), ((300, 41), 0), ((2, 700, 3), 1)),
    *(((5, 2047), 1), ((9, 515), 1), ((1, 9000), 1), ((1200, 8), 0)),
]


@needs_compiler
def test_shapes() -> None:
    check(
        [
            (scan(name, shape, dim), [numbers(name, np.float32, shape)], 0.0)
            for name in ("cumsum", "cummax")
            for shape, dim in SHAPES
        ],
        order=2,
    )


@needs_compiler
def test_symbolic_sizes() -> None:
    """One program for all sizes of the lines, their number, and how far their elements lie apart:
    cut into pieces too, some of which are empty."""
    for size in (0, 1, 37, 3000):
        cases: list[Case] = []
        for shape, dim in (((2, SIZE), 1), ((SIZE, 5), 1), ((SIZE, 3), 0), ((4, SIZE), 0)):
            given = tuple(size if d is SIZE else int(d) for d in shape)
            for name in ("cumsum", "cummin"):
                x = numbers(name, np.float32, given)
                cases.append((scan(name, shape, dim), [x], 0.0))
        check(cases)


@needs_compiler
def test_special_values() -> None:
    """NaN goes on, also as an extremum; infinities; the last of ties; -0.0 as sum of such."""
    line = np.array([-0.0, 1, 1, np.nan, 5, np.nan, np.inf, -np.inf, 0.0, 2], np.float32)
    x = np.stack([line, line[::-1], np.full(10, -np.inf), np.full(10, np.nan), np.zeros(10) * -1])
    long = np.zeros((2, 1100), np.float32)
    long[:, 700], long[1, 1050] = np.nan, 3
    cases: list[Case] = []
    for name in NAMES:
        for given, dim in ((x, 1), (x, 0), (long, 1)):
            array = given.astype(np.float32)
            cases.append((scan(name, array.shape, dim), [array], 0.0))
    check(cases)
    x = np.full((3, 40), -0.0, np.float32)
    value = Value(Type(f32, x.shape), name="x")
    signs = Graph("signs", [value], [ops.reciprocal(ops.cumsum(value, dim=1))])
    check([(signs, [x], 0.0)])


@needs_compiler
@pytest.mark.parametrize(("shape", "dim"), [((60000, 8), 0), ((1, 60000), 1), ((2, 30000, 9), 1)])
def test_long_lines_of_alike_numbers(shape: tuple[int, ...], dim: int) -> None:
    """Walked by a thread each, whole or in pieces, or shared: no sum loses more digits than its
    last."""
    cases: list[Case] = []
    for name, number in (("cumsum", 0.1), ("cumprod", 1 + 2**-15)):
        x = np.full(shape, number, np.float32)
        cases.append((scan(name, shape, dim), [x], 1e-6 if name == "cumsum" else 2e-5))
    for machine in (LARGE, Gpu(multiprocessors=1)):
        check(cases, machine)


@needs_compiler
def test_only_positions_and_what_stands_around() -> None:
    x = Value(Type(f32, (4, 300)), name="x")
    graphs = [
        Graph("places", [x], [ops.cummax(x, dim=1)[1]]),
        Graph("values", [x], [ops.cummin(x, dim=1)[0]]),
        Graph("between", [x], [ops.exp(ops.cumsum(ops.sin(x), dim=1))]),
    ]
    array = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    check([(graph, [array], 1e-5) for graph in graphs])


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    made = scan(name, (3, 600), 1)
    g = Value(made.outputs[0].type, name="g")
    (gradient,) = vjp([made.outputs[0]], [g], [made.inputs[0]])
    assert gradient is not None
    rng = np.random.default_rng(0)
    x = rng.permutation(1800).reshape(3, 600) / 1e3 - 0.9
    if name == "cumprod":
        x = np.exp2(np.round(x)) * np.sign(x)
    arrays = [x.astype(np.float32), rng.standard_normal((3, 600)).astype(np.float32)]
    check([(Graph("gradient", [made.inputs[0], g], [gradient]), arrays, 1e-4)])


@needs_compiler
@pytest.mark.parametrize(
    ("name", "shape", "dim"),
    [
        ("cumsum", (64, 512), 1),
        ("cumsum", (2, 16384), 1),
        ("cumsum", (256, 64), 0),
        ("cummax", (6, 2048), 1),
    ],
)
def test_what_memory_moves(name: str, shape: tuple[int, ...], dim: int) -> None:
    """Whole sectors, each once a kernel; no two threads of a warp meet in a bank."""
    x = numbers(name, np.float32, shape)
    device = check([(scan(name, shape, dim), [x], 0.0)], traced=True)
    assert device.counts
    for kernel, counts in device.counts.items():
        assert counts.sectors <= 1.05 * counts.ideal, kernel
        assert counts.turns == counts.least, kernel


@needs_compiler
def test_both_halves_of_shared_memory_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one half a warp may overwrite what a slower one still reads, which is found."""
    across = running.BlockLines.across_warps

    def in_one_half(self: Any, inclusive: Any, before: Any, lane: Any, half: Any) -> Any:
        return across(self, inclusive, before, lane, running.Const(0))

    monkeypatch.setattr(running.BlockLines, "across_warps", in_one_half)
    x = numbers("cumsum", np.float32, (2, 2048))
    with pytest.raises(DeviceError, match="with no barrier between"):
        check([(scan("cumsum", (2, 2048), 1), [x], 0.0)])


def test_how_lines_are_shared() -> None:
    """A thread's elements fill an access; pieces are whole tiles, and cover the line."""
    narrow = running.choose(Lines(100, 24, 1), 4, LARGE)
    assert (narrow.width, narrow.lanes, narrow.pieces) == (8, 4, 1)
    assert running.choose(Lines(100, 25, 1), 4, LARGE).lanes == 1
    assert running.choose(Lines(4096, 4096, 1), 8, LARGE).tile == 512
    long = running.choose(Lines(1, 1 << 20, 1), 2, LARGE)
    assert long.pieces > 100 and isinstance(long.size, int) and long.size % long.tile == 0
    assert (long.pieces - 1) * long.size < 1 << 20 <= long.pieces * long.size
    assert running.choose(Lines(1, 1 << 20, 1), 2, Gpu(multiprocessors=1)).pieces <= 4
    columns = running.choose(Lines(2, 4096, 64), 4, LARGE)
    assert (columns.threads, columns.pieces) == (0, running.MOST_WALKS)


def test_kernel_texts(golden: Callable[[str, str], None]) -> None:
    """Lines of four threads; and a long one in pieces, with positions."""
    texts = []
    for graph in (scan("cumsum", (50, 16), 1), scan("cummax", (1, 1 << 16), 1)):
        program = lower(pipeline.run(graph, supports, "cuda"), LARGE)
        texts += map(print_kernel, program.kernels())
    golden("gpu_running", "\n".join(texts))
