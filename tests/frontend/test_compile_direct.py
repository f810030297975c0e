"""Calls that one function makes from the third on: what it must notice, and what it returns."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn

SCALE = 1.0


class Net(nn.Module):
    """Reads what a change may be made to: lists, numbers, a global, children and their flags."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")
        self.norm, self.fc = nn.BatchNorm2d(2), nn.Linear(32, 3)
        self.factor = 2.0

    def forward(self, x: Any) -> Any:
        x = self.norm(self.conv(x)).relu() * self.factor * SCALE
        return self.fc(x.flatten(1))


def _net() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    net.norm.running_mean.fill_(0.3)
    return net


def _image(seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return torch.randn(1, 1, 4, 4)


def _warm(net: Any, x: Any) -> Any:
    """A compiled `net` whose calls with `x` are made by one function."""
    fast = torch.compile(net)
    for _ in range(3):
        fast(x)
    assert fast._compiled._direct is not None and fast.recorded == 1
    return fast


def _replaced(net: Net) -> None:
    net.fc._parameters["bias"] = nn.Parameter(torch.ones(3))


def _of_same_value(net: Net) -> None:
    net.fc._parameters["bias"] = nn.Parameter(net.fc.bias.detach().clone())
    with torch.no_grad():
        net.fc.bias += 1


def _hook_put_in(net: Net) -> None:
    net.norm._forward_hooks[0] = lambda module, given, out: out + 1


def _shared(net: Net) -> None:
    net.requires_grad_(False)
    net.fc.bias.numpy()[:] = 7.0


def _setter(name: str, value: Any) -> Callable[[Net], None]:
    return lambda net: net.__dict__.__setitem__(name, value)


CHANGES: dict[str, Callable[[Net], Any]] = {
    "parameter": _replaced,
    "parameter_of_same_value": _of_same_value,
    "data": lambda net: setattr(net.fc.bias, "data", torch.ones(3)),
    "in_place": lambda net: net.fc.bias.data.fill_(3.0),
    "shared_with_numpy": _shared,
    "hook": lambda net: net.fc.register_forward_hook(lambda m, i, o: o * 2),
    "hook_put_in": _hook_put_in,
    "module": lambda net: net._modules.__setitem__("norm", nn.Identity()),
    "buffer": lambda net: net.norm._buffers.__setitem__("running_mean", torch.ones(2)),
    "list_items": lambda net: net.conv._reversed_padding_repeated_twice.__setitem__(
        slice(0, 2), [0, 2]
    ),
    "attribute": lambda net: setattr(net, "factor", 5.0),
    "attribute_put_in": _setter("factor", 5.0),
    "attribute_added": _setter("extra", 1),
    "train": lambda net: net.train(),
    "global": lambda net: globals().__setitem__("SCALE", 3.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("grad", [True, False])
def test_changes_are_noticed(change: Callable[[Net], Any], grad: bool) -> None:
    net, other, x = _net(), _net(), _image()
    with torch.set_grad_enabled(grad):
        fast = _warm(net, x)
        try:
            for one in (net, other):
                change(one)
            for _ in range(3):
                torch.testing.assert_close(fast(x), other(x), rtol=1e-5, atol=1e-5)
        finally:
            globals()["SCALE"] = 1.0


def test_numbers_that_are_equal_record_nothing_anew() -> None:
    net, x = _net(), _image()
    with torch.no_grad():
        fast = _warm(net, x)
        net.__dict__["factor"] = float("2.0")  # another object
        fast(x)
    assert fast.recorded == 1


def test_modes_are_noticed() -> None:
    net, x = nn.Linear(4, 4), torch.ones(2, 4)
    with torch.no_grad():
        fast = _warm(net, x)
        assert not fast(x).requires_grad
    assert fast(x).requires_grad
    with torch.inference_mode():
        assert fast(x).is_inference()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert fast(x).dtype is torch.bfloat16
    with torch.no_grad():
        assert fast(x).dtype is torch.float32 and not fast(x).is_inference()


def test_default_dtype_is_noticed() -> None:
    run = torch.compile(lambda x: x + torch.zeros(2))
    for _ in range(3):
        run(torch.ones(2))
    torch.set_default_dtype(torch.float64)
    try:
        assert run(torch.ones(2, dtype=torch.float32)).dtype is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_arguments_of_other_kinds() -> None:
    net = nn.Linear(4, 4)
    x = torch.ones(2, 4)
    with torch.no_grad():
        fast = _warm(net, x)
        expected = net(x)
        for given in (
            x * 1.0,
            x.clone(),
            torch.ones(4, 2).t(),
            torch.from_numpy(np.ones((2, 4), "f")),
        ):
            torch.testing.assert_close(fast(given), expected)
        assert fast(torch.ones(3, 4)).shape == (3, 4)
        leaf = torch.ones(2, 4, requires_grad=True)
    fast(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, net.weight.detach().sum(0).expand(2, 4))


@pytest.mark.parametrize("width", [3, 300])  # memory of the interpreter's, and a block
def test_results_are_memory_of_their_own(width: int) -> None:
    net = nn.Linear(4, width)
    with torch.no_grad():
        fast = _warm(net, torch.ones(2, 4))
        results = [fast(torch.full((2, 4), float(i))) for i in range(5)]
        results[1].add_(100.0)
        results[2].numpy()[:] = 0.0
        for i in (0, 3, 4):
            torch.testing.assert_close(results[i], net(torch.full((2, 4), float(i))))
        assert float(results[2].abs().sum()) == 0.0
        assert all(results[i].data_ptr() % 64 == 0 for i in (0, 3, 4))


def test_errors_of_data_name_the_line() -> None:
    table = torch.arange(8.0).reshape(4, 2)
    run = torch.compile(lambda i: table[i])
    with torch.no_grad():
        for _ in range(3):
            run(torch.tensor([0, 3]))
        with pytest.raises(IndexError):
            run(torch.tensor([0, 9])).sum().item()
        assert run(torch.tensor([1])).tolist() == [[2.0, 3.0]]
        assert run(torch.tensor([3, 0])).tolist() == [[6.0, 7.0], [0.0, 1.0]]


def test_many_threads_call_few_models() -> None:
    nets = [
        nn.Sequential(nn.Linear(8, 8 * n), nn.ReLU(), nn.Linear(8 * n, 3)) for n in (1, 2, 3, 4)
    ]
    x = torch.ones(1, 8)
    with torch.no_grad():
        fast = [_warm(net, x) for net in nets]
        given = [np.full((1, 8), float(i), "f") for i in range(5)]
        expected = [[net(torch.from_numpy(g)).numpy().copy() for g in given] for net in nets]
    wrong: list[Any] = []

    def work(number: int) -> None:
        with torch.no_grad():
            for i in range(200):
                m, g = (i + number) % 4, (i * 3 + number) % 5
                found = fast[m](torch.from_numpy(given[g])).numpy()
                if not np.allclose(found, expected[m][g], rtol=1e-5, atol=1e-6):
                    wrong.append((number, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
