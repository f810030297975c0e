"""Where results lie in memory: strides as PyTorch's, and what is drawn, written and viewed in that
order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

ORDERS: dict[str, Callable[[Any], Any]] = {
    "swapped": lambda x: x.transpose(1, 2),
    "reversed": lambda x: x.permute(3, 2, 1, 0),
    "channels last": lambda x: x.permute(0, 3, 1, 2),
    "every other": lambda x: x.transpose(1, 3)[:, ::2],
    "repeated": lambda x: x[:1].expand(3, 4, 5, 6).permute(1, 0, 3, 2),
}
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda t, x: t.relu(x),
    "number": lambda t, x: x * 2 + 1,
    "row": lambda t, x: x + t.ones(x.shape[-1]),
    "column": lambda t, x: t.ones(x.shape[0], 1, 1, 1) * x,
    "two orders": lambda t, x: t.ones(x.shape) - x,
    "compared": lambda t, x: x > 0.5,
    "where": lambda t, x: t.where(x > 0.5, x, 0.0),
    "special": lambda t, x: t.i0(x),
    "of two": lambda t, x: t.igamma(x + 1, x + 2),
    "cast": lambda t, x: x.double(),
    "clone": lambda t, x: x.clone(),
    "zeros_like": lambda t, x: t.zeros_like(x),
    "rand_like": lambda t, x: t.rand_like(x),
    "contiguous": lambda t, x: x.contiguous(),
    "gelu": lambda t, x: t.nn.functional.gelu(x),
    "sum": lambda t, x: x.sum(1),
    "softmax": lambda t, x: x.softmax(1),
    "masked_fill": lambda t, x: x.masked_fill(x > 0.5, 0),
    "sort": lambda t, x: x.sort(1)[0],
    "flip": lambda t, x: x.flip(1),
    "cat": lambda t, x: t.cat([x, x], 1),
    "pool": lambda t, x: t.nn.functional.max_pool2d(x, 2),
    "conv": lambda t, x: t.nn.functional.conv2d(x, t.ones(3, x.shape[1], 1, 1)),
    "norm": lambda t, x: t.nn.BatchNorm2d(x.shape[1])(x),
    "dropout": lambda t, x: t.nn.functional.dropout(t.relu(x)),
    "alpha dropout": lambda t, x: t.nn.functional.alpha_dropout(x * 2, training=True),
    "bernoulli": lambda t, x: t.bernoulli(x.abs().clamp(max=1)),
    "normal_": lambda t, x: (x * 2).normal_(),
}


def seen(x: Any) -> tuple[int, ...]:
    return tuple(s for s, n in zip(x.stride(), x.shape, strict=True) if n > 1)


def equal(mine: Any, theirs: Any) -> None:
    assert seen(mine) == seen(theirs)
    np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), 1e-5, 1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_order_of_results(name: str, order: str) -> None:
    found = []
    for t in (graphtorch, torch):
        t.manual_seed(3)
        x = ORDERS[order](t.arange(360.0).reshape(3, 4, 5, 6) / 360)
        found.append(FUNCTIONS[name](t, x))
    equal(*found)


PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {
    "in place": lambda t, x: x.mul_(0.2).add_(1).sigmoid_(),
    "part": lambda t, x: x[:, 1].mul_(3) + 1,
    "filled": lambda t, x: x.zero_(),
    "copied": lambda t, x: x.copy_(t.arange(24.0).reshape(x.shape)),
    "viewed": lambda t, x: x.transpose(0, 1).reshape(-1).view(3, -1) * 2,
    "detached": lambda t, x: (x.detach().add_(1), x * 1)[1],
    "data": lambda t, x: (x.data.mul_(4), x * 1)[1],
}


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_writes_and_gradients(name: str, compiled: bool) -> None:
    """The result of a pointwise operation is written to, viewed and differentiated like any
    tensor."""
    found = []
    for t in (graphtorch, torch):

        def program(a: Any, t: Any = t) -> tuple[Any, Any]:
            x = a.t() * 3
            return x, PROGRAMS[name](t, x)

        call = graphtorch.compile(program) if compiled and t is graphtorch else program
        for turn in range(3):
            a = (t.arange(24.0).reshape(6, 4) / 24 + turn).requires_grad_()
            x, made = call(a)
            if made.requires_grad:
                (made * t.arange(float(made.numel())).reshape(made.shape)).sum().backward()
            found.append((x, made, a.grad))
    for (x, made, grad), (their_x, theirs, their_grad) in zip(found[:3], found[3:], strict=True):
        equal(x, their_x)
        equal(made, theirs)
        assert (grad is None) == (their_grad is None)
        if grad is not None:
            equal(grad, their_grad)


def test_a_view_that_memory_does_not_allow_is_refused() -> None:
    for t in (graphtorch, torch):
        with pytest.raises(RuntimeError, match="view size is not compatible"):
            t.relu(t.rand(3, 4).t()).view(-1)


@pytest.mark.parametrize("outer", [False, True], ids=["argument", "result"])
def test_a_compiled_function_tells_orders_apart(outer: bool) -> None:
    """The same sizes in another order are another call: what comes out lies, and is drawn,
    otherwise."""

    def dropped(t: Any, x: Any) -> Any:
        return t.nn.functional.dropout(t.relu(x.t() if outer else x), 0.5)

    call = graphtorch.compile(lambda x: dropped(graphtorch, x))
    for turned in (False, True, True, False, True):
        found = []
        for t in (graphtorch, torch):
            t.manual_seed(1)
            x = t.arange(16.0).reshape(4, 4) + 1
            x = x.t() if turned else x
            found.append(call(x) if t is graphtorch else dropped(t, x))
        equal(*found)


def test_channels_last_goes_through_a_net() -> None:
    found = []
    for t in (graphtorch, torch):
        t.manual_seed(0)
        layers = [
            t.nn.Conv2d(3, 8, 3, padding=1),
            t.nn.BatchNorm2d(8),
            t.nn.ReLU(),
            t.nn.MaxPool2d(2),
        ]
        net = t.nn.Sequential(
            *layers, t.nn.Dropout(0.3), t.nn.Upsample(scale_factor=2), t.nn.ZeroPad2d(1)
        )
        net = net.to(memory_format=t.channels_last)
        x = t.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8) / 400
        made = net(x.to(memory_format=t.channels_last))
        made.square().mean().backward()
        found.append((made, net[0].weight.grad))
    equal(found[0][0], found[1][0])
    assert found[0][0].is_contiguous(memory_format=graphtorch.channels_last)
    np.testing.assert_allclose(found[0][1].numpy(), found[1][1].numpy(), 1e-3, 1e-4)


def test_formats_are_asked_for_as_in_pytorch() -> None:
    for t in (graphtorch, torch):
        x = t.zeros(2, 3, 4, 5)
        last = x.contiguous(memory_format=t.channels_last)
        assert last.stride() == (60, 1, 15, 3) and last.clone().stride() == last.stride()
        assert last.clone(memory_format=t.contiguous_format).is_contiguous()
        assert t.empty_like(x, memory_format=t.channels_last).stride() == last.stride()
        assert not t.zeros(2, 3, 4).is_contiguous(memory_format=t.channels_last)
        with pytest.raises(RuntimeError, match="preserve memory format is unsupported"):
            last.contiguous(memory_format=t.preserve_format)
        with pytest.raises(RuntimeError, match="required rank 4 tensor"):
            t.zeros(2, 3).contiguous(memory_format=t.channels_last)
