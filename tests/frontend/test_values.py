"""Where PyTorch looks at elements and raises, so do we: in the call itself where they are in
memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch._deferred.running import flush
from graphtorch.nn import functional as F

DIVISIONS: dict[str, Callable[[Any, Any], Any]] = {
    "//": lambda x, y: x // y,
    "%": lambda x, y: x % y,
    "fmod": torch.fmod,
    "remainder": torch.remainder,
    "div floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "div trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "//=": lambda x, y: x.clone().floor_divide_(y),
    "%=": lambda x, y: x.clone().remainder_(y),
}


@pytest.mark.parametrize("name", DIVISIONS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integers_are_not_divided_by_zero(name: str, dtype: Any) -> None:
    divide = DIVISIONS[name]
    x, zero, one = (torch.tensor(v, dtype=dtype) for v in ([7, 0, 3], [2, 0, 1], [2, 5, 1]))
    for divisor in (zero, zero[1:2], torch.zeros(3, dtype=dtype), 0, np.int64(0)):
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            divide(x, divisor)
    computed = divide(x, zero * 1)
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError.*test_values.py"):
        computed.tolist()
    compiled = torch.compile(divide)
    assert compiled(x, one).tolist() == divide(x, one).tolist()
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError.*test_values.py"):
        compiled(x, zero)
    assert compiled(x, one).tolist() == divide(x, one).tolist(), "the next call works"


def test_division_of_floats_by_zero_is_infinite() -> None:
    assert (torch.tensor([1.0]) // torch.tensor([0])).item() == float("inf")
    for divide in (DIVISIONS["//"], DIVISIONS["%"]):
        with pytest.raises(NotImplementedError, match="Bool"):
            divide(torch.tensor([True]), torch.tensor([True]))


@pytest.mark.parametrize("value", [1.5, -0.25, float("nan")])
@pytest.mark.parametrize("side", ["input", "target"])
def test_cross_entropy_of_what_is_no_probability(value: float, side: str) -> None:
    good, bad = torch.tensor([0.5, 0.25]), torch.tensor([0.5, value])
    call = (
        (lambda x: F.binary_cross_entropy(x, good))
        if side == "input"
        else (lambda x: F.binary_cross_entropy(good, x))
    )
    with pytest.raises(RuntimeError, match=f"elements of {side} should be between 0 and 1"):
        call(bad)
    late = call(bad * 1)
    with pytest.raises(RuntimeError, match=rf"elements of {side} .*test_values.py"):
        late.item()
    compiled = torch.compile(call)
    assert compiled(good).item() == pytest.approx(call(good).item())
    with pytest.raises(RuntimeError, match=f"elements of {side}"):
        compiled(bad)


def test_a_check_of_computed_values_does_not_split_the_graph() -> None:
    w = torch.randn(4, requires_grad=True)
    loss = F.binary_cross_entropy((w * 2).sigmoid(), torch.ones(4))
    assert loss._storage.value.node is not None, "nothing has run"
    (grad,) = torch.autograd.grad(loss, w)
    assert torch.allclose(grad, ((w * 2).sigmoid() - 1) / 2)


OUTSIDE: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "cross_entropy": (IndexError, lambda i: F.cross_entropy(torch.zeros(2, 3), i)),
    "nll_loss": (IndexError, lambda i: F.nll_loss(torch.zeros(2, 3), i)),
    "multi_margin_loss": (RuntimeError, lambda i: F.multi_margin_loss(torch.zeros(2, 3), i)),
    "embedding": (IndexError, lambda i: F.embedding(i, torch.zeros(3, 2))),
    "one_hot": (RuntimeError, lambda i: F.one_hot(i, 3)),
    "gather": (RuntimeError, lambda i: torch.zeros(3).gather(0, i)),
    "scatter_add": (RuntimeError, lambda i: torch.zeros(3).scatter_add(0, i, torch.ones(2))),
    "index_select": (IndexError, lambda i: torch.zeros(3).index_select(0, i)),
    "index_add": (IndexError, lambda i: torch.zeros(3).index_add(0, i, torch.ones(2))),
    "index_fill": (IndexError, lambda i: torch.zeros(3).index_fill(0, i, 1.0)),
    "x[i]": (IndexError, lambda i: torch.zeros(3)[i]),
    "take": (IndexError, lambda i: torch.zeros(3).take(i)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_places_outside_are_found_in_the_call(name: str) -> None:
    kind, call = OUTSIDE[name]
    call(torch.tensor([0, 2]))
    for wrong in ([0, 3], [-4, 1]):
        with pytest.raises(kind, match=r"-4|3"):
            call(torch.tensor(wrong))


def test_ignored_targets_are_no_classes() -> None:
    loss = F.cross_entropy(torch.zeros(2, 3), torch.tensor([-100, 1]))
    assert loss.item() == pytest.approx(np.log(3))
    assert (
        F.cross_entropy(torch.zeros(2, 3), torch.tensor([7, 1]), ignore_index=7).item()
        == loss.item()
    )


WEIGHTS = {
    "negative": [-1.0, 2.0],
    "nan": [float("nan"), 2.0],
    "inf": [float("inf"), 1.0],
    "nothing": [0.0, 0.0],
}


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_cannot_be_drawn_with(name: str, replacement: bool) -> None:
    weights = torch.tensor(WEIGHTS[name])
    with pytest.raises(RuntimeError, match="probabilit"):
        torch.multinomial(weights, 1, replacement)
    flush()  # else what other tests left may be so much that all of it runs in the next line
    late = torch.multinomial(weights * 1, 1, replacement)
    with pytest.raises(RuntimeError, match="probabilit"):
        late.item()


def test_parameters_of_draws() -> None:
    x = torch.zeros(2)
    for call in (
        lambda: torch.bernoulli(x + 2),
        lambda: torch.bernoulli(torch.tensor([-0.5])),
        lambda: x.bernoulli_(torch.tensor([2.0])),
        lambda: torch.bernoulli(x, 1.5),
        lambda: torch.normal(0.0, torch.tensor([-1.0])),
        lambda: torch.normal(x, torch.tensor([float("nan")] * 2)),
        lambda: x.exponential_(0.0),
        lambda: x.geometric_(1.5),
        lambda: x.geometric_(p=0.0),
        lambda: x.cauchy_(0.0, -1.0),
        lambda: F.interpolate(torch.zeros(1, 1, 4, 4), size=0),
        lambda: F.interpolate(torch.zeros(1, 1, 4, 4), scale_factor=0.1, mode="bilinear"),
    ):
        with pytest.raises(RuntimeError):
            call().tolist()
    with pytest.raises(ValueError, match="negative"):
        F.gaussian_nll_loss(x, x, torch.tensor([1.0, -1.0]))


def test_a_failure_leaves_nothing_else_undone() -> None:
    torch.manual_seed(0)
    kept, bad = torch.rand(3) * 2, torch.tensor([4]) // (torch.tensor([0]) * 1)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        bad.item()
    assert kept._storage.value.node is None, "it was computed all the same"
    torch.manual_seed(0)
    assert torch.equal(kept, torch.rand(3) * 2)
