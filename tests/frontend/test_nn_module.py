"""`nn.Module`: registration, state dicts, hooks, modes, text."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.head(self.body(x)) * self.scale


def test_names_and_state_dict():
    net = Net()
    names = ["body.0.weight", "body.0.bias", "head.weight", "head.bias"]
    assert [n for n, _ in net.named_parameters()] == names
    assert list(net.state_dict()) == ["scale", *names]
    assert net.state_dict()._metadata["body.0"] == {"version": 1}
    assert [n for n, _ in net.named_modules()] == ["", "body", "body.0", "body.1", "head"]
    assert net.get_submodule("body.0") is net.body[0]
    assert net.get_parameter("head.bias") is net.head.bias


def test_load_state_dict_reports_everything_at_once():
    state = Net().state_dict()
    state["head.weight"] = torch.zeros(5, 5)
    state["extra"] = state.pop("scale")
    with pytest.raises(RuntimeError) as caught:
        Net().load_state_dict(state)
    text = str(caught.value)
    assert 'Missing key(s) in state_dict: "scale". ' in text
    assert 'Unexpected key(s) in state_dict: "extra". ' in text
    assert (
        "size mismatch for head.weight: copying a param with shape torch.Size([5, 5]) from "
        "checkpoint, the shape in current model is torch.Size([2, 4])." in text
    )
    del state["head.weight"]
    keys = Net().load_state_dict(state, strict=False)
    assert keys.missing_keys == ["scale", "head.weight"] and keys.unexpected_keys == ["extra"]
    assert repr(Net().load_state_dict(Net().state_dict())) == "<All keys matched successfully>"
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        Net().load_state_dict([1])


@pytest.mark.parametrize(
    ("name", "error"), [("", KeyError), ("a.b", KeyError), ("forward", KeyError), (3, TypeError)]
)
def test_register_checks_names(name, error):
    net = Net()
    for register in (net.register_buffer, net.register_parameter, net.add_module):
        with pytest.raises(error):
            register(name, None)


def test_assignment_rules():
    net = Net()
    with pytest.raises(TypeError, match="cannot assign"):
        net.head = 3
    with pytest.raises(TypeError, match="as parameter 'weight'"):
        net.head.weight = torch.ones(2, 4)
    with pytest.raises(TypeError, match="as buffer 'scale'"):
        net.scale = 3
    net.head.bias = None
    assert "head.bias" not in net.state_dict()
    net.scale = nn.Parameter(torch.ones(1))
    assert "scale" in dict(net.named_parameters()) and "scale" not in net._buffers
    del net.scale
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'scale'"):
        _ = net.scale

    class Early(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(torch.ones(1))

    with pytest.raises(AttributeError, match=r"before Module\.__init__"):
        Early()


def test_modes_casts_and_freezing():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert net.train().training
    with pytest.raises(ValueError, match="expected to be boolean"):
        net.train("yes")
    assert {p.dtype for p in net.double().parameters()} == {torch.float64}
    assert net.scale.dtype is torch.float64
    assert {p.dtype for p in net.to(torch.float32).parameters()} == {torch.float32}
    with pytest.raises(TypeError, match="floating point or complex"):
        net.to(torch.int32)
    weight = net.head.weight
    assert net.half().head.weight is weight and weight.dtype is torch.float16
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


def test_zero_grad():
    net = Net()
    net(torch.ones(2, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(not p.grad.numpy().any() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_forward_hooks_in_order():
    seen = []
    net = nn.Linear(2, 2)
    net.register_forward_pre_hook(lambda m, a: seen.append("pre") or (a[0] * 0,))
    net.register_forward_hook(lambda m, a, out: seen.append("post") or out + 1)
    handle = net.register_forward_hook(lambda m, a, out: seen.append("first"), prepend=True)
    with nn.modules.module.register_module_forward_hook(lambda m, a, out: seen.append("global")):
        out = net(torch.ones(1, 2))
    np.testing.assert_allclose(out.detach().numpy()[0], net.bias.detach().numpy() + 1)
    assert seen == ["pre", "global", "first", "post"]
    handle.remove()
    seen.clear()
    net(torch.ones(1, 2))
    assert seen == ["pre", "post"]


def test_always_called_hook_runs_after_an_error():
    seen = []
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        net(torch.ones(1, 3))
    assert seen == [None]


def test_full_backward_hooks():
    seen = {}
    net = nn.Linear(2, 1, bias=False)
    net.register_full_backward_pre_hook(lambda m, go: (go[0] * 2,))
    net.register_full_backward_hook(lambda m, gi, go: seen.update(gi=gi, go=go) or (gi[0] * 10,))
    x = torch.ones(1, 2, requires_grad=True)
    net(x).sum().backward()
    weight = net.weight.detach().numpy()
    np.testing.assert_allclose(seen["go"][0].numpy(), [[2.0]])
    np.testing.assert_allclose(seen["gi"][0].numpy(), 2 * weight)
    np.testing.assert_allclose(x.grad.numpy(), 20 * weight, rtol=1e-6)
    np.testing.assert_allclose(net.weight.grad.numpy(), [[2.0, 2.0]])


def test_backward_hook_without_input_gradient():
    seen = []
    net = nn.Linear(2, 1)
    net.register_full_backward_hook(lambda m, gi, go: seen.append(gi))
    net(torch.ones(1, 2)).sum().backward()
    assert seen == [(None,)]


def test_state_dict_hooks():
    net = Net()
    net.register_state_dict_post_hook(lambda m, state, prefix, meta: state.__delitem__("scale"))
    assert "scale" not in net.state_dict()
    notes = []
    net.register_load_state_dict_post_hook(lambda m, keys: notes.append(list(keys.missing_keys)))
    net.load_state_dict(net.state_dict(), strict=False)
    assert notes == [["scale"]]


def test_extra_state():
    class Counting(nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    a, b = Counting(), Counting()
    a.count = 7
    b.load_state_dict(a.state_dict())
    assert b.count == 7


def test_copies_are_independent():
    net = Net()
    for made in (copy.deepcopy(net), pickle.loads(pickle.dumps(net.body))):
        for (_, mine), (_, theirs) in zip(
            net.named_parameters(), made.named_parameters(), strict=False
        ):
            assert mine is not theirs and theirs.requires_grad
            np.testing.assert_array_equal(mine.detach().numpy(), theirs.detach().numpy())
            with torch.no_grad():
                theirs.add_(1)
            assert not np.array_equal(mine.detach().numpy(), theirs.detach().numpy())


def test_text():
    assert (
        repr(Net())
        == """Net(
  (body): Sequential(
    (0): Linear(in_features=3, out_features=4, bias=True)
    (1): ReLU()
  )
  (head): Linear(in_features=4, out_features=2, bias=True)
)"""
    )
    assert (
        repr(nn.ModuleList([nn.Tanh() for _ in range(3)] + [nn.ReLU()]))
        == """ModuleList(
  (0-2): 3 x Tanh()
  (3): ReLU()
)"""
    )
    assert (
        repr(nn.Conv2d(1, 2, 3, padding=1, bias=False))
        == "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)"
    )


def test_containers():
    seq = nn.Sequential(OrderedDict(a=nn.Linear(2, 3), b=nn.ReLU()))
    assert seq.a is seq[0] and len(seq[:1]) == 1
    seq.append(nn.Linear(3, 1))
    assert tuple(seq(torch.ones(4, 2)).shape) == (4, 1)
    with pytest.raises(IndexError, match="out of range"):
        _ = seq[5]
    modules = nn.ModuleList([nn.ReLU()])
    modules += [nn.Tanh()]
    modules.insert(0, nn.Sigmoid())
    assert [type(m).__name__ for m in modules] == ["Sigmoid", "ReLU", "Tanh"]
    del modules[0]
    assert list(modules._modules) == ["0", "1"]
    table = nn.ModuleDict({"x": nn.ReLU()})
    table.update([("y", nn.Tanh())])
    assert list(table) == ["x", "y"] and table.pop("x") and len(table) == 1
    params = nn.ParameterList([nn.Parameter(torch.ones(1)), torch.ones(2)])
    assert len(list(params.parameters())) == 2
    named = nn.ParameterDict({"b": nn.Parameter(torch.ones(1)), "a": nn.Parameter(torch.ones(1))})
    assert list(named.keys()) == ["a", "b"] and "a" in named
    with pytest.raises(TypeError, match="is not a Module subclass"):
        modules.append(3)


def test_lazy_modules_take_the_shape_of_the_first_call():
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    assert isinstance(lazy[3].weight, nn.UninitializedParameter)
    with pytest.raises(RuntimeError, match="Can't access the shape of an uninitialized parameter"):
        _ = lazy[3].weight.shape
    out = lazy(torch.ones(2, 3, 5, 5))
    assert tuple(out.shape) == (2, 2) and type(lazy[3]) is nn.Linear and lazy[3].in_features == 36
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 2))
    fresh = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    fresh.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 5, 5)
    np.testing.assert_allclose(fresh(x).detach().numpy(), plain(x).detach().numpy(), rtol=1e-5)


def test_compile_in_place():
    net = nn.Linear(3, 2)
    x = torch.ones(1, 3)
    want = net(x).detach().numpy()
    net.compile()
    np.testing.assert_allclose(net(x).detach().numpy(), want)
