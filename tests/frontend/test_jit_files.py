"""Traced modules and functions in files."""

from __future__ import annotations

import copy
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn


class Net(nn.Module):
    """Tied weights, a frozen one, buffers of both kinds, a nest of results, a helper."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.conv.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]), persistent=False)

    def scaled(self, x: Any) -> Any:
        return x * self.scale

    def forward(self, x: Any, factor: float = 1.0) -> Any:
        h = torch.relu(self.norm(self.conv(x))).mean((-2, -1))
        return self.scaled(self.one(h)) * factor, {"two": self.two(h), "rest": [h, 3, None]}


def saved(module: Any) -> Any:
    """`module` after it went through a file."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    return torch.jit.load(file)


def test_a_traced_module_is_one_of_the_same_tensors(tmp_path: Path) -> None:
    net, x = Net().eval(), torch.randn(4, 1, 6, 6)
    traced = torch.jit.trace(net, x)
    assert isinstance(traced, torch.jit.ScriptModule) and isinstance(traced, Net)
    assert traced.one.weight is net.one.weight and not isinstance(net, torch.jit.ScriptModule)
    assert torch.equal(traced(x)[0], net(x)[0]) and torch.equal(
        copy.deepcopy(traced)(x)[0], net(x)[0]
    )
    path = tmp_path / "net.pt"
    traced.save(str(path))
    assert list(torch.jit.load(path).state_dict()) == list(net.state_dict())
    assert list(torch.jit.load(str(path), map_location="cpu").state_dict()) == list(
        net.state_dict()
    )


def test_a_loaded_module_computes_the_same_for_other_sizes() -> None:
    net = Net().eval()
    loaded = saved(torch.jit.trace(net, torch.randn(4, 1, 6, 6)))
    for x in (torch.randn(4, 1, 6, 6), torch.randn(2, 1, 6, 6), torch.randn(3, 1, 9, 5)):
        got, expected = loaded(x), net(x)
        assert torch.equal(got[0], expected[0]) and torch.equal(got[1]["two"], expected[1]["two"])
        assert (
            type(got) is tuple and type(got[1]["rest"]) is list and got[1]["rest"][1:] == [3, None]
        )
    for wrong, message in (
        (torch.randn(2, 2, 6, 6), "traced with shape"),
        (torch.randn(4), "dimensions"),
        (torch.randn(4, 1, 6, 6).double(), "traced as f32"),
    ):
        with pytest.raises(RuntimeError, match=message):
            loaded(wrong)
    with pytest.raises(RuntimeError, match="takes 1 tensors"):
        loaded(torch.randn(4, 1, 6, 6), torch.randn(2))


def test_a_loaded_module_has_parameters_that_train_and_is_saved_again() -> None:
    net, x = Net().eval(), torch.randn(4, 1, 6, 6)
    loaded = saved(torch.jit.trace(net, x))
    assert [(n, p.requires_grad) for n, p in loaded.named_parameters()] == [
        (n, p.requires_grad) for n, p in net.named_parameters()
    ]
    assert loaded.two.weight is loaded.one.weight and not loaded.training
    for module in (loaded, net):
        module(x)[0].sum().backward()
    assert torch.allclose(loaded.one.weight.grad, net.one.weight.grad)
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    again = saved(loaded)
    assert torch.equal(again(x)[0], loaded(x)[0]) and not torch.equal(again(x)[0], net(x)[0])
    loaded.load_state_dict(net.state_dict())
    assert torch.equal(loaded(x)[0], net(x)[0])


def test_a_module_computes_as_in_the_mode_in_which_it_was_traced() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9)).eval(), torch.randn(2, 3)
    traced = torch.jit.trace(net, x)
    expected = net(x)
    net.train()
    loaded = saved(traced)
    assert net.training and net[1].training
    assert torch.equal(loaded(x), expected) and torch.equal(loaded.train()(x), expected)
    with pytest.raises(RuntimeError, match=r"draws random numbers.*eval\(\)"):
        saved(torch.jit.trace(net, x))


def test_functions_and_recurrent_nets_are_saved() -> None:
    product = torch.jit.trace(lambda a, b: a @ b + 1, (torch.ones(2, 3), torch.ones(3, 2)))
    assert isinstance(product, torch.jit.ScriptFunction)
    assert saved(product)(torch.ones(5, 3), torch.ones(3, 4)).tolist() == [[4.0] * 4] * 5
    assert "matmul" in product.code and str(product.graph) == product.code
    lstm, x = nn.LSTM(3, 4), torch.randn(7, 3, 3)
    assert torch.allclose(saved(torch.jit.trace(lstm, torch.randn(5, 2, 3)))(x)[0], lstm(x)[0])


def test_what_cannot_be_saved_or_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace\(module, example_inputs\)"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "x")
    branches = torch.jit.trace(lambda x: x if x.sum() > 0 else -x, torch.ones(2))
    with pytest.raises(RuntimeError, match="value is needed in Python"):
        branches.save(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("net/constants.pkl", b"")
    with pytest.raises(RuntimeError, match="TorchScript"):
        torch.jit.load(tmp_path / "other.pt")
    (tmp_path / "text").write_text("no zip")
    with pytest.raises(RuntimeError, match="no file of a traced module"):
        torch.jit.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        torch.jit.load(tmp_path / "nowhere")
