"""Functions of f32 on GPUs, by the library and by a GPU's approximations; short floats in pairs."""

from __future__ import annotations

import numpy as np
import pytest

from accuracy import CORNERS, EXACT, TIGHT, sample, special, ulps
from graphtorch.backends.gpu import compiler
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.emulated import EmulatedDevice
from graphtorch.backends.gpu.emulated import compiler as cxx
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f16, f32
from graphtorch.ir.graph import Graph, Type, Value

pytestmark = pytest.mark.skipif(
    cxx() is None, reason="the emulated CUDA device needs a C++ compiler"
)


def computed(graph: Graph, *arrays: np.ndarray) -> tuple[list[np.ndarray], str]:
    """The results of a graph on the emulated device, and its kernels."""
    device, unit = EmulatedDevice(), Unit()
    built = compiler.build(graph, unit)
    executable = Executable(built, device.load(unit.pieces(device.compilers)), device)
    found = executable([DeviceBuffer.of(x, device) for x in arrays])
    return [x.numpy() for x in found], unit.text()


def values(*types: tuple[tuple[int, ...], DType]) -> list[Value]:
    return [Value(Type(dtype, shape), name=f"x{i}") for i, (shape, dtype) in enumerate(types)]


def test_functions_are_within_their_bounds() -> None:
    """As the functions of CPUs (test_maths.py), but for arguments of lgamma that SciPy bends."""
    numbers = sample(20_000)
    (x,) = values((numbers.shape, f32))
    found, _ = computed(Graph("maths", [x], [getattr(ops, op)(x) for op in EXACT]), numbers)
    for op, got in zip(EXACT, found, strict=True):
        with np.errstate(all="ignore"):
            exact = EXACT[op](numbers.astype(np.float64))
        if op == "lgamma":
            exact = np.where(numbers > -1e6, exact, got)
        error = ulps(got, exact)
        worst = int(error.argmax())
        bound = 2 if op in TIGHT else 4
        assert error[worst] <= bound, f"{op}({numbers[worst]!r}): {error[worst]} ULP"


def test_silu() -> None:
    numbers = sample(20_000)
    (x,) = values((numbers.shape, f32))
    (got,), text = computed(Graph("silu", [x], [ops.silu(x)]), numbers)
    with np.errstate(all="ignore"):
        exact = numbers.astype(np.float64) * special.expit(numbers.astype(np.float64))
    exact[numbers == -np.inf] = np.nan
    assert "gt_half_exp" in text
    assert ulps(got, exact)[(numbers > -89) & (np.abs(numbers) > 1e-37)].max() <= 4
    assert (np.abs(got[(numbers < -89) & (numbers > -np.inf)]) < 1e-36).all()


@pytest.mark.parametrize("size", [1, -1, 2.0**-80, 2.0**110, -(2.0**-120)])
def test_quotients_by_the_same_number(size: float) -> None:
    """What a loop divides by: to nearest, or nearly so, unless the dividend is next to nothing."""
    rng = np.random.default_rng(2)
    with np.errstate(over="ignore"):
        below = np.concatenate([CORNERS, rng.uniform(1, 2, 300) * size]).astype(np.float32)
    above = np.resize(sample(16 * len(below)), (len(below), 256))
    x, y = values((above.shape, f32), ((len(below), 1), f32))
    (got,), text = computed(Graph("div", [x, y], [ops.div(x, y)]), above, below[:, None])
    assert "gt_quotient" in text
    with np.errstate(all="ignore"):
        exact = above.astype(np.float64) / below[:, None].astype(np.float64)
        nearest = exact.astype(np.float32)
    error, tiny = ulps(got, exact), (np.abs(above) < 2.0**-102) & (above != 0)
    assert error[~tiny].max() <= 0.501 and error.max() <= 2
    zero = (nearest == 0) & (got == 0) & ~tiny
    assert (np.signbit(got) == np.signbit(nearest))[zero].all()
    assert ((got == nearest) | np.isnan(nearest))[~tiny].mean() > 0.9999


@pytest.mark.parametrize("dtype", [f16, bf16])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_pairs_of_short_floats(dtype: DType, shift: int) -> None:
    """Widened and narrowed as single ones are, from and to memory that is aligned or is not."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    device, (x,) = EmulatedDevice(), values(((1 << 16,), dtype))
    whole = DeviceBuffer.of(np.concatenate([bits[:shift], bits]).view(dtype.numpy), device)
    given = DeviceBuffer(device, dtype, x.shape, whole.memory, whole.address + 2 * shift)
    graph = Graph("pairs", [x], [ops.mul(x, x), ops.cast(x, dtype=f32)])
    squares, wide = (r.numpy() for r in compiler.compile(graph, device)([given]))
    exact = bits.view(dtype.numpy).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = (exact * exact).astype(dtype.numpy)
    assert np.array_equal(wide, exact, equal_nan=True)
    same = (squares == expected) | (np.isnan(exact) & (squares != squares))
    assert same.all()
