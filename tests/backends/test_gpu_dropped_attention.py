"""Attention whose shares are dropped: what a kernel draws is what the decomposition draws."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from emulated_gpu import emulated_gpu
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.compiler import build
from graphtorch.backends.gpu.emulated import EmulatedDevice, compiler
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import LARGE
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, boolean, f16, f32, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import Dim, Symbol, SymInt
from graphtorch.nn import functional as F

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)

SIZE = SymInt.atom(Symbol("size", 1, 500))
F64 = DType.named("f64")
TOLERANCE = {F64: 1e-11, f32: 1e-5, f16: 4e-3, bf16: 3e-2}
STATE = [np.array(1 << 40 | 7), np.array((1 << 32) - 3)]  # counters pass a word's end


@dataclass(frozen=True)
class Case:
    """Shapes of queries, and of keys and values; of a mask of this dtype, if there is one."""

    dtype: DType
    q: tuple[Dim, ...]
    k: tuple[Dim, ...]
    mask: DType | None = None
    causal: bool = False
    kept: float = 0.7
    warpgroups: bool = False

    def types(self, dtype: DType) -> list[Type]:
        found = [Type(dtype, s) for s in (self.q, self.k, self.k, self.q)] + [Type(i64)] * 2
        if self.mask is not None:
            kind = boolean if self.mask is boolean else dtype
            found.append(Type(kind, (self.q[-2], self.k[-2])))
        return found

    def graph(self, dtype: DType) -> Graph:
        """The result and the gradients of queries, keys and values."""
        inputs = [Value(t, name=n) for t, n in zip(self.types(dtype), "qkvgsom", strict=False)]
        q, k, v, g, *rest = inputs
        out, lse = ops.dropped_attention(
            q, k, v, *rest, scale=0.3, is_causal=self.causal, kept=self.kept
        )
        return Graph("dropped", inputs, [out, lse, *vjp([out], [g], [q, k, v])])

    def arrays(self) -> list[np.ndarray]:
        rng = np.random.default_rng(2)
        found = []
        for t in self.types(self.dtype):
            shape = [90 if d is SIZE else d for d in t.shape]
            if t.dtype is i64:
                found.append(STATE[len(found) - 4])
            elif t.dtype is boolean:
                found.append(rng.random(shape) > 0.3)
            else:
                found.append(rng.standard_normal(shape).astype(t.dtype.numpy))
        return found


CASES = {
    "pairs in a block": Case(bf16, (2, 40, 32), (2, 72, 32)),
    "rows of an odd size, added mask": Case(f16, (2, 37, 20), (2, 75, 20), f16, kept=0.1),
    "causal": Case(f32, (3, 70, 32), (3, 90, 32), causal=True),
    "heads that share, seldom seen": Case(f32, (2, 2, 9, 40), (2, 1, 33, 40), boolean),
    "doubles": Case(F64, (37, 20), (75, 20)),
    "sizes of the call": Case(f32, (1, 20, 16), (1, SIZE, 16), causal=True),
    "groups of warps": Case(bf16, (2, 130, 64), (2, 140, 64), causal=True, warpgroups=True),
    "groups of warps, wide": Case(f16, (70, 200), (142, 200), boolean, warpgroups=True),
    "nearly all are kept": Case(f32, (8, 16), (16, 16), kept=1 - 2.0**-30),
}


@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients(name: str) -> None:
    """By kernels alone, beside NumPy in float64."""
    case, device, unit = CASES[name], EmulatedDevice(order=1), Unit()
    built = build(case.graph(case.dtype), unit, (), replace(LARGE, warpgroups=case.warpgroups))
    # heads of more than 512 bytes have a kernel each for gradients of keys and of values
    count = 4 if case.q[-1] == 200 else 3
    assert sum("attention" in name for name in built.record.launches.functions) == count
    arrays = case.arrays()
    executable = Executable(built, device.load(unit.pieces(device.compilers)), device)
    found = executable([DeviceBuffer.of(x, device) for x in arrays])
    wide = [
        x.astype(np.float64) if x.dtype.kind == "f" or x.dtype == bf16.numpy else x for x in arrays
    ]
    for mine, want in zip(found, evaluate(case.graph(F64), wide), strict=True):
        bound = TOLERANCE[case.dtype]
        size = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(mine.numpy().astype(np.float64), want, bound, bound * size)


@pytest.fixture
def gpu() -> Iterator[None]:
    with emulated_gpu():
        yield


def attended(shapes: tuple[tuple[int, ...], ...], mask: Any, **how: Any) -> list[np.ndarray]:
    """The result, the gradients, and what is drawn after it."""
    torch.manual_seed(5)
    rng = np.random.default_rng(1)
    given = [
        torch.tensor(rng.standard_normal(s), dtype=torch.float32).cuda().requires_grad_()
        for s in shapes
    ]
    out = F.scaled_dot_product_attention(*given, mask, **how)
    out.cos().sum().backward()
    return [
        x.detach().cpu().numpy()
        for x in (out, *[t.grad for t in given], torch.rand(3, device="cuda"))
    ]


def test_what_is_dropped_does_not_depend_on_the_kernel(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, and the same place in the stream after them, as dropout of the scores."""
    calls: list[tuple[Any, Any, dict[str, Any]]] = [
        (((2, 2, 9, 8), (2, 2, 14, 8), (2, 2, 14, 6)), None, {"dropout_p": 0.4}),
        (
            ((2, 4, 8, 8), (2, 2, 8, 8), (2, 2, 8, 8)),
            None,
            {"dropout_p": 0.1, "is_causal": True, "enable_gqa": True},
        ),
        (((5, 8), (7, 8), (3, 7, 8)), None, {"dropout_p": 0.3}),  # values alone have a batch
    ]
    one = [attended(shapes, mask, **how) for shapes, mask, how in calls]
    monkeypatch.setattr(
        "graphtorch.nn.functional.attention._drawn_by_position", lambda *given: None
    )
    for found, (shapes, mask, how) in zip(one, calls, strict=True):
        for mine, want in zip(found, attended(shapes, mask, **how), strict=True):
            np.testing.assert_allclose(mine, want, 1e-5, 1e-5)


def test_a_compiled_step_draws_anew_each_time(gpu: None) -> None:
    """Its gradient drops what its result dropped: of all-equal values a result is the sum of its
    shares, which the gradient of values tells as well."""
    torch.manual_seed(1)
    q, k = (torch.randn(1, 1, 8, 16, device="cuda") for _ in range(2))
    v = torch.ones(1, 1, 8, 16, device="cuda", requires_grad=True)

    @torch.compile
    def step(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)

    sums = []
    for _ in range(3):
        v.grad = None
        out = step(q, k, v)
        out.sum().backward()
        sums.append(float(out.sum()))
        assert float(v.grad.sum()) == pytest.approx(sums[-1], rel=1e-5)
    assert len(set(sums)) == 3
