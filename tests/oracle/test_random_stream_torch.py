"""The oracle of PyTorch's random numbers (tests/helpers/torch_random.py) is PyTorch's own stream."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from torch_random import Stream

torch = pytest.importorskip("torch")
KINDS = {"f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16}
SIZES = (1, 7, 15, 16, 17, 31, 32, 1000)
# steps of rounding that log, sin and cos of another library may differ by, relative to the largest number
STEPS = {"f32": 4e-7, "f64": 8e-16, "f16": 5e-4, "bf16": 4e-3}  # of 16 bits: one step, seldom


def check(theirs: Callable[[], Any], ours: Callable[[Stream], Any], tolerance: float = 0.0,
          seed: int = 9) -> None:
    torch.manual_seed(seed)
    expected = theirs()
    state = torch.get_rng_state().numpy().tobytes()
    stream = Stream(seed)
    found = np.asarray(ours(stream))
    values = expected.numpy() if not expected.is_floating_point() else expected.double().numpy()
    if tolerance:
        np.testing.assert_allclose(found, values.reshape(found.shape), rtol=0,
                                   atol=tolerance * max(1.0, np.abs(values).max(initial=0.0)))
    else:
        np.testing.assert_array_equal(found, values.reshape(found.shape))
    assert stream.state() == state


@pytest.mark.parametrize("kind", KINDS)
def test_floats(kind: str) -> None:
    dtype = KINDS[kind]
    for n in SIZES:
        new = partial(torch.empty, n, dtype=dtype)
        check(lambda n=n: torch.rand(n, dtype=dtype), lambda s, n=n: s.uniform(n, kind))
        check(lambda new=new: new().uniform_(-2, 5), lambda s, n=n: s.uniform(n, kind, -2, 5))
        check(lambda n=n: torch.randn(n, dtype=dtype), lambda s, n=n: s.normal(n, kind), STEPS[kind])
        check(lambda new=new: new().normal_(2, 3), lambda s, n=n: s.normal(n, kind, 2.0, 3.0), STEPS[kind])


def test_views_are_filled_in_the_order_of_memory() -> None:
    check(lambda: torch.empty(6, 6).t().uniform_().t(), lambda s: s.uniform(36))
    check(lambda: torch.empty(4, 3, 5)[:, :2].permute(2, 0, 1).uniform_().permute(1, 2, 0),
          lambda s: s.uniform(40))
    check(lambda: torch.empty(6, 6).t()[:, ::2].normal_().t(), lambda s: s.normal(18, contiguous=False))
    check(lambda: torch.view_as_real(torch.randn(20, dtype=torch.complex64)),
          lambda s: s.normal(40, std=0.5**0.5), STEPS["f32"])


@pytest.mark.parametrize(("low", "high"), [
    (0, 10), (-5, 100), (0, 2**28 - 1), (0, 2**28), (-5, 2**31), (0, 2**32), (-3, 2**40)])
def test_integers(low: int, high: int) -> None:
    check(lambda: torch.randint(low, high, (20,)), lambda s: s.integers(20, low, high))


def test_permutations() -> None:
    for n in (0, 1, 2, 7, 1000):
        check(lambda n=n: torch.randperm(n), lambda s, n=n: s.permutation(n))


@pytest.mark.parametrize("n", [8, 1000])
def test_transforms(n: int) -> None:
    new = partial(torch.empty, n, dtype=torch.float64)
    check(lambda: new().exponential_(2.0), lambda s: s.exponential(n, 2.0), 1e-15)
    check(lambda: new().geometric_(0.3), lambda s: s.geometric(n, 0.3))
    check(lambda: new().cauchy_(1, 2), lambda s: s.cauchy(n, 1.0, 2.0), 1e-14)
    check(lambda: new().log_normal_(1, 0.5), lambda s: s.log_normal(n, 1.0, 0.5), 1e-14)
    check(lambda: torch.empty(n).bernoulli_(0.3), lambda s: s.bernoulli(0.3, n))
    chances = torch.linspace(0, 1, n)
    check(lambda: torch.bernoulli(chances), lambda s: s.bernoulli(chances.numpy()))


def test_draws() -> None:
    weights = torch.tensor([[0.3, 0.1, 0.9, 0.5], [0.0, 2.0, 1.0, 0.25]])
    check(lambda: torch.multinomial(weights, 2), lambda s: s.multinomial(weights.numpy(), 2))
    check(lambda: torch.multinomial(weights, 1, True), lambda s: s.multinomial(weights.numpy(), 1, True))
    check(lambda: torch.multinomial(weights, 9, True), lambda s: s.multinomial(weights.numpy(), 9, True))
    rates = torch.linspace(0, 60, 40, dtype=torch.float64)
    check(lambda: torch.poisson(rates), lambda s: [s.poisson(r) for r in rates.tolist()])
    shapes = torch.linspace(0.05, 3, 40)
    check(lambda: torch._standard_gamma(shapes), lambda s: [s.gamma(a) for a in shapes.tolist()], 3e-7)
