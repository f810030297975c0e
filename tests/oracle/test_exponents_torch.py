"""`frexp`, `ldexp`, `resize_as_` and gradients of `normal` against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch

torch: Any = pytest.importorskip("torch")
COUNT = 1 << 14


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("float16", "int16"), ("bfloat16", "int16"), ("float32", "int32"), ("float64", "int64")],
)
def test_frexp_of_any_bits(dtype: str, bits: str) -> None:
    """Subnormal numbers, infinities, NaN and both zeros among them; every 16-bit number."""
    range_ = np.iinfo(bits)
    drawn = np.random.default_rng(0).integers(range_.min, range_.max, COUNT, bits, True)
    ends = [0, range_.min, 1, 2, -1, 3 << 20]
    if bits == "int16":
        drawn = np.arange(range_.min, range_.max + 1).astype(bits)
    given = np.concatenate([drawn, np.array(ends, np.int64).astype(bits)])
    found = []
    for t in (torch, graphtorch):
        x = t.from_numpy(given.copy()).view(getattr(t, dtype))
        parts = t.frexp(x)
        assert type(parts).__name__ == "frexp" and parts.mantissa.dtype is x.dtype
        found.append((parts.mantissa.double().numpy(), parts.exponent.numpy()))
    for theirs, mine in zip(*found, strict=True):
        assert theirs.dtype == mine.dtype
        np.testing.assert_array_equal(mine, theirs)
        number = ~np.isnan(theirs)
        np.testing.assert_array_equal(np.signbit(mine)[number], np.signbit(theirs)[number])


def test_gradients_of_frexp_and_ldexp() -> None:
    found = []
    for t in (torch, graphtorch):
        x = t.tensor([3.0, -0.75, 1e-40, 1e38], requires_grad=True)
        y = t.tensor([1.5, -2.0, 3.0, 0.0], requires_grad=True)
        mantissa, exponent = x.frexp()
        assert not exponent.requires_grad
        found.append([*t.autograd.grad(mantissa.sum(), x)])
        found[-1] += t.autograd.grad(t.ldexp(x, y)[:3].sum(), (x, y))
        with pytest.raises(RuntimeError, match="only supports floating-point dtypes"):
            t.frexp(t.ones(2, dtype=t.int32))
    for theirs, mine in zip(*found, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), 1e-6)


def test_dtypes_of_ldexp() -> None:
    for t in (torch, graphtorch):
        half = t.tensor([1.0], dtype=t.float16)
        assert t.ldexp(half, t.tensor([1])).dtype is t.float16
        assert t.ldexp(t.tensor([1, 2]), t.tensor([1, 2])).dtype is t.float32
        assert t.ldexp(t.tensor(1.0, dtype=t.float64), t.tensor([1])).dtype is t.float64


def test_resize_as() -> None:
    found = []
    for t in (torch, graphtorch):
        last = t.ones(1, 2, 3, 4).to(memory_format=t.channels_last)
        flat = t.arange(24.0)
        made = [
            t.resize_as_(flat.clone(), last),
            flat.clone().resize_as_(last, memory_format=t.preserve_format),
            flat.clone().resize_(1, 2, 3, 4, memory_format=t.channels_last),
            t.resize_as_(flat.clone(), the_template=t.ones(2)),
        ]
        found.append([(x.stride(), x.tolist()) for x in made])
        made[2].add_(1)
        assert made[2][0, 1, 0, 1].item() == 4
        for wrong in (t.channels_last, t.preserve_format):
            with pytest.raises(RuntimeError):
                flat.clone().resize_(4, 6, memory_format=wrong)
    assert found[0] == found[1]


@pytest.mark.parametrize("which", ["mean", "std", "both"])
def test_gradients_of_normal_are_zero(which: str) -> None:
    found = []
    for t in (torch, graphtorch):
        t.manual_seed(3)
        mean = t.tensor([[1.0], [float("inf")]], requires_grad=True)
        std = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
        given = {"mean": (mean, 2.0), "std": (1.5, std), "both": (mean, std)}[which]
        drawn = t.normal(*given)
        assert drawn.grad_fn.name().startswith("NormalBackward")
        grads = t.autograd.grad(drawn.sum(), (mean, std), allow_unused=True)
        with t.no_grad():
            assert not t.normal(*given).requires_grad
        found.append([drawn.tolist(), *(g if g is None else g.tolist() for g in grads)])
    assert found[0] == found[1]
