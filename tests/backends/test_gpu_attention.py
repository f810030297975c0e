"""Attention by blocks of threads on the emulated device, beside NumPy in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from graphtorch.backends.gpu import nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build, target_of
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import LARGE, Gpu
from graphtorch.backends.gpu.supports import supports
from graphtorch.backends.gpu.traces import Counts
from graphtorch.backends.gpu.unit import Unit
from graphtorch.backends.kernels.text import print_kernel
from graphtorch.backends.target import lowered
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Dim, Symbol, SymInt

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

SCALE = 0.3
LENGTH, SIZE = (SymInt.atom(Symbol(name, 1, 500)) for name in ("length", "size"))
KNOWN = {LENGTH: 70, SIZE: 90}  # queries and keys in the calls
F64 = DType.named("f64")
TOLERANCE = {F64: 1e-12, f32: 5e-6, f16: 2e-3, bf16: 1.5e-2}


@dataclass(frozen=True)
class Case:
    """Shapes of queries, keys, values and perhaps of a mask, and how they are seen."""

    dtype: DType
    q: tuple[Dim, ...]
    k: tuple[Dim, ...]
    v: tuple[Dim, ...]
    mask: tuple[DType, tuple[Dim, ...]] | None = None
    causal: bool = False
    scale: float = SCALE
    turned: bool = False  # heads lie beside each other in memory, and the operands are views

    def inputs(self, dtype: DType | None = None) -> list[Value]:
        given = [(dtype or self.dtype, s) for s in (self.q, self.k, self.v)]
        if self.mask is not None:
            kind, shape = self.mask
            given.append((kind if dtype is None or kind is boolean else dtype, shape))
        return [
            Value(Type(d, swapped(s) if self.turned and i < 3 else s), name=n)
            for i, ((d, s), n) in enumerate(zip(given, "qkvm", strict=False))
        ]

    def operands(self, inputs: Sequence[Value]) -> list[Value]:
        def heads(x: Value) -> Value:
            dims = [*range(x.rank)]
            return ops.permute(x, dims=(*dims[:-3], dims[-2], dims[-3], dims[-1]))

        return [heads(x) if self.turned and i < 3 else x for i, x in enumerate(inputs)]

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        found = []
        for value in self.inputs():
            shape = [KNOWN.get(d, d) for d in value.shape]  # type: ignore[call-overload]
            if value.dtype is boolean:
                seen = rng.random(shape) > 0.5
                seen[..., min(4, seen.shape[-2] - 1), :] = False  # a row that sees nothing
                seen[..., -1:, :66] = False  # and one whose first block sees nothing
                found.append(seen)
            else:
                found.append(rng.standard_normal(shape).astype(value.dtype.numpy))
        if self.scale < 0:  # among large scores
            found[0][2, 1] = np.nan
        return found


def swapped(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return (*shape[:-3], shape[-2], shape[-3], shape[-1])


CASES = {
    "edges, added mask": Case(
        f32, (2, 2, 37, 20), (2, 2, 75, 20), (2, 2, 75, 12), (f32, (2, 37, 75))
    ),
    "causal": Case(bf16, (200, 64), (200, 64), (200, 64), causal=True),
    "sizes of the call": Case(f32, (1, LENGTH, 32), (1, SIZE, 32), (1, SIZE, 32), causal=True),
    "seldom seen": Case(
        bf16, (2, 2, 10, 16), (2, 2, 140, 16), (2, 2, 140, 24), (boolean, (2, 1, 10, 140))
    ),
    "grouped": Case(bf16, (2, 2, 3, 9, 16), (2, 2, 1, 17, 16), (2, 2, 1, 17, 16), (bf16, (1, 17))),
    "heads of a projection": Case(f16, (2, 2, 40, 16), (2, 2, 40, 16), (2, 2, 40, 16), turned=True),
    "doubles": Case(F64, (2, 37, 20), (2, 75, 20), (2, 75, 12), (F64, (37, 75))),
    "wide doubles": Case(F64, (20, 128), (30, 128), (30, 66), causal=True),
    "wide floats": Case(f32, (20, 200), (30, 200), (30, 256)),
    "odd heads, large scores, a NaN": Case(f16, (5, 7), (3, 7), (3, 5), scale=-40.0),
    "a mask of whole tiles": Case(
        bf16, (2, 128, 64), (2, 192, 64), (2, 192, 64), (boolean, (2, 128, 192)), causal=True
    ),
}


def forward(case: Case, dtype: DType | None = None) -> Graph:
    inputs = case.inputs(dtype)
    results = ops.attention(*case.operands(inputs), scale=case.scale, is_causal=case.causal)
    assert dtype is not None or supports(results[0].node)
    return Graph("attention", inputs, list(results))


def run(
    graphs: Sequence[Graph],
    arrays: Sequence[Sequence[np.ndarray]],
    device: EmulatedDevice,
    machine: Gpu = LARGE,
) -> Any:
    """The results of graphs, whose kernels are compiled as one unit."""
    unit = Unit()
    made = [build(graph, unit, (), machine) for graph in graphs]
    module = device.load(unit.pieces(device.compilers))
    return [
        [
            x.numpy().astype(np.float64)
            for x in Executable(one, module, device)([DeviceBuffer.of(x, device) for x in given])
        ]
        for one, given in zip(made, arrays, strict=True)
    ]


def exact(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of a graph of float64 on the same numbers."""
    wide = [x if x.dtype == bool else x.astype(np.float64) for x in arrays]
    return [np.asarray(x) for x in evaluate(graph, wide)]


def close(found: np.ndarray, want: np.ndarray, dtype: DType) -> None:
    size = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
    np.testing.assert_allclose(found, want, TOLERANCE[dtype], TOLERANCE[dtype] * size)


def counts_of(name: str, device: EmulatedDevice) -> Counts:
    """What the kernel of a case did: kernels are in the order of the cases."""
    return list(device.counts.values())[list(CASES).index(name)]


@pytest.fixture(scope="module")
def forwards() -> tuple[list[list[np.ndarray]], EmulatedDevice]:
    """Results of all cases, from kernels that are compiled as one unit: a traced run finds no
    race."""
    device = EmulatedDevice(order=1, traced=True)
    found = run(
        [forward(case) for case in CASES.values()], [c.arrays() for c in CASES.values()], device
    )
    return found, device


@pytest.mark.parametrize("number, name", list(enumerate(CASES)))
def test_results(number: int, name: str, forwards: Any) -> None:
    """Edges of tiles, all masks, grouped heads, views, sizes of the call; rows that see nothing are
    0."""
    case, (out, lse) = CASES[name], forwards[0][number]
    want, rows = exact(forward(case, F64), case.arrays())
    close(out, want, case.dtype)
    close(lse, rows, F64 if case.dtype is F64 else f32)


@pytest.mark.parametrize("name", ["causal", "sizes of the call"])
def test_banks(name: str, forwards: Any) -> None:
    """No line of a kernel takes more turns than its bytes need: masks and edges included."""
    counts = counts_of(name, forwards[1])
    assert counts.turns == counts.least > 0


def test_blocks_that_nobody_sees_are_not_visited(forwards: Any) -> None:
    """Of 4 x 4 blocks 10 hold what is seen; each has a barrier, and one more each block of
    queries."""
    assert counts_of("causal", forwards[1]).barriers == 10 + 4


GRADIENTS = {
    "edges, added mask": Case(
        f32, (2, 3, 37, 20), (2, 3, 75, 20), (2, 3, 75, 12), (f32, (3, 37, 75))
    ),
    "causal": Case(bf16, (70, 64), (90, 64), (90, 64), causal=True),
    "grouped, seldom seen": Case(
        f16, (2, 2, 2, 70, 16), (2, 2, 1, 40, 16), (2, 2, 1, 40, 24), (boolean, (2, 1, 1, 70, 40))
    ),
    "wide": Case(f32, (40, 100), (20, 100), (20, 68)),
    "doubles": Case(F64, (2, 37, 20), (1, 45, 20), (1, 45, 12), (F64, (37, 45))),
    "wide doubles": Case(F64, (20, 112), (30, 112), (30, 66), causal=True),
    "wide floats": Case(f32, (20, 200), (30, 200), (30, 256)),
    "wide halves": Case(f16, (70, 256), (40, 256), (40, 136), causal=True),
    "grouped, sizes of the call": Case(
        f32, (2, LENGTH, 32), (1, SIZE, 32), (1, SIZE, 32), causal=True
    ),
}


def backward(case: Case, dtype: DType | None = None) -> Graph:
    inputs = case.inputs(dtype)
    q, k, v, *masks = inputs
    out, lse = ops.attention(q, k, v, *masks, scale=case.scale, is_causal=case.causal)
    types = {"g": out.type, "lse": lse.type, "delta": lse.type}
    rows = [Value(t, name=n) for n, t in types.items()]
    found = ops.attention_grad(q, k, v, *rows, *masks, scale=case.scale, is_causal=case.causal)
    assert dtype is not None or supports(found[0].node)
    return Graph("attention_grad", [q, k, v, *rows, *masks], list(found))


def arrived(case: Case) -> list[np.ndarray]:
    """The inputs of `backward`: those of a case with what arrives at its result, log-sum-exp and
    delta."""
    q, k, v, *masks = case.arrays()
    out, lse = exact(forward(case, F64), [q, k, v, *masks])
    g = np.random.default_rng(4).standard_normal(out.shape).astype(case.dtype.numpy)
    delta = (g.astype(np.float64) * out).sum(-1)
    rows = np.float64 if case.dtype is F64 else np.float32
    return [q, k, v, g, lse.astype(rows), delta.astype(rows), *masks]


@pytest.fixture(scope="module")
def backwards() -> tuple[list[list[np.ndarray]], EmulatedDevice]:
    """As `forwards`, of gradients: two kernels each."""
    device = EmulatedDevice(order=2, traced=True)
    cases = GRADIENTS.values()
    found = run([backward(case) for case in cases], [arrived(case) for case in cases], device)
    return found, device


@pytest.mark.parametrize("number, name", list(enumerate(GRADIENTS)))
def test_gradients(number: int, name: str, backwards: Any) -> None:
    """Of queries, keys and values, those that heads share summed; a row that sees nothing moves
    nothing."""
    case, found = GRADIENTS[name], backwards[0][number]
    want = exact(backward(case, F64), arrived(case))
    for mine, right in zip(found, want, strict=True):
        close(mine, right, case.dtype)


@pytest.mark.parametrize("name", ["causal", "grouped, sizes of the call"])
def test_banks_of_gradients(name: str, backwards: Any) -> None:
    first = sum(2 + x.startswith("wide ") for x in list(GRADIENTS)[: list(GRADIENTS).index(name)])
    counts = [*backwards[1].counts.values()][first:][:2]
    assert all(c.turns == c.least > 0 for c in counts)


def test_gradients_that_are_left_to_products() -> None:
    """Queries that heads share, and wider heads than a block's registers hold."""
    for case in (Case(f32, (8, 4), (2, 8, 4), (2, 8, 4)), Case(bf16, (8, 264), (8, 264), (8, 8))):
        q, k, v = case.inputs()
        out, lse = ops.attention(q, k, v, scale=1.0)
        assert not supports(ops.attention_grad(q, k, v, out, lse, lse, scale=1.0)[0].node)


@pytest.mark.parametrize(
    "case",
    [
        Case(f32, (8, 257), (9, 257), (9, 4)),
        Case(F64, (8, 130), (9, 130), (9, 4)),
        Case(bf16, (8, 4), (9, 4), (9, 300)),
        Case(f32, (1, 4), (9, 4), (9, 4)),
    ],
    ids=str,
)
def test_what_is_left_to_products_and_a_softmax(case: Case) -> None:
    assert not supports(ops.attention(*case.inputs(), scale=1.0)[0].node)


GROUPED = {
    "causal": Case(bf16, (2, 200, 64), (2, 200, 64), (2, 200, 64), causal=True),
    "many keys": Case(f16, (1, 70, 128), (1, 700, 128), (1, 700, 128)),
    "heads shared, added mask, edges": Case(
        bf16, (2, 2, 3, 9, 40), (2, 2, 1, 140, 40), (2, 2, 1, 140, 72), (bf16, (9, 140))
    ),
    "seldom seen": Case(
        f16, (2, 2, 130, 96), (2, 2, 140, 96), (2, 2, 140, 56), (boolean, (2, 1, 130, 140))
    ),
    "heads of a projection": Case(
        f16, (2, 2, 66, 64), (2, 2, 150, 64), (2, 2, 150, 64), turned=True
    ),
    "sizes of the call": Case(bf16, (1, LENGTH, 48), (1, SIZE, 48), (1, SIZE, 64), causal=True),
    "wide": Case(bf16, (2, 130, 256), (2, 330, 256), (2, 330, 192), causal=True),
    "odd heads, large scores, a NaN": Case(f16, (5, 35), (3, 35), (3, 37), scale=-40.0),
    "floats, many keys": Case(f32, (2, 70, 128), (2, 90, 128), (2, 90, 100), causal=True),
    "one block of keys": Case(bf16, (1, 128, 64), (1, 64, 64), (1, 64, 64)),
    "wide, causal and seldom seen": Case(
        bf16, (130, 250), (140, 250), (140, 256), (boolean, (130, 140)), causal=True
    ),
}


@pytest.fixture(scope="module", params=[1, 132], ids="{} multiprocessors".format)
def by_groups(request: Any) -> tuple[list[list[np.ndarray]], EmulatedDevice]:
    """As `forwards`, by groups of four warps: two in a block where there are multiprocessors
    enough."""
    device = EmulatedDevice(order=request.param % 3, traced=True)
    machine = replace(LARGE, warpgroups=True, multiprocessors=request.param)
    cases = GROUPED.values()
    found = run([forward(case) for case in cases], [c.arrays() for c in cases], device, machine)
    return found, device


@pytest.mark.parametrize("number, name", list(enumerate(GROUPED)))
def test_results_by_groups(number: int, name: str, by_groups: Any) -> None:
    case, (out, lse) = GROUPED[name], by_groups[0][number]
    want, rows = exact(forward(case, F64), case.arrays())
    close(out, want, case.dtype)
    close(lse, rows, f32)


def test_text(golden: Any) -> None:
    graph = forward(Case(bf16, (2, 64, 16), (2, 64, 16), (2, 64, 16)))
    program, _, _ = lowered(graph, target_of(Unit()))
    golden("gpu_attention", "\n".join(map(print_kernel, program.kernels())))


@pytest.mark.skipif(nvrtc.library() is None, reason="registers are told by NVRTC")
@pytest.mark.parametrize("causal", [False, True])
def test_masks_of_wide_heads_fit_in_registers(causal: bool) -> None:
    """Beside sums of 256 features there are few left: what is in whole tiles takes no tests."""
    heads = (2, 4, 1024, 256)
    case = Case(bf16, heads, heads, heads, (boolean, (2, 1, 1024, 1024)), causal=causal)
    unit = Unit()
    build(forward(case), unit, machine=replace(LARGE, warpgroups=True))
    (uses,) = nvrtc.resources(unit.text(), "sm_90a").values()
    assert not uses.spilled


def test_text_by_groups(golden: Any) -> None:
    graph = forward(Case(bf16, (2, 64, 64), (2, 128, 64), (2, 128, 64)))
    machine = replace(LARGE, warpgroups=True)
    program, _, _ = lowered(graph, target_of(Unit(), machine))
    golden("gpu_attention_groups", "\n".join(map(print_kernel, program.kernels())))
