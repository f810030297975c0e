"""nn.Module: what it registers, how it is called, cast, trained, saved and loaded; hooks;
containers."""

from collections import OrderedDict

import numpy as np

import graphtorch as torch
from graphtorch import nn
from surface import covers, raises


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 3)
        self.two = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def forward(self, x):
        return self.two(self.one(x))


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was expected")


@covers(
    "torch.nn.Module.__init__",
    "torch.nn.Module.__setattr__",
    "torch.nn.Module.__call__",
    "torch.nn.Module",
)
def check_registration():
    module = nn.Module()
    module.register_parameter(name="test param", param=nn.Parameter(torch.zeros(2)))
    module.register_parameter("nothing", None)
    module.register_buffer(name="kept", tensor=torch.ones(1))
    module.register_buffer("passing", torch.ones(1), persistent=False)
    module.add_module(name="first", module=nn.ReLU())
    module.register_module(name="second", module=nn.Tanh())
    module.third = nn.Sigmoid()
    assert list(module._parameters) == ["test param", "nothing"] and list(module._buffers) == [
        "kept",
        "passing",
    ]
    assert (
        list(module._modules)
        == ["first", "second", "third"]
        == [n for n, _ in module.named_children()]
    )
    assert list(module.state_dict()) == ["test param", "kept"]
    refused(KeyError, module.register_buffer, "", None)
    refused(KeyError, module.register_buffer, "a.b", None)
    refused(TypeError, module.register_buffer, 3, None)
    refused(TypeError, module.register_buffer, "text", "text")
    refused(NotImplementedError, module.forward, torch.ones(1))
    assert Net()(torch.ones(4, 2)).shape == (4, 3) and Net().forward(torch.ones(4, 2)).shape == (
        4,
        3,
    )


def check_parameters():
    weight = nn.Parameter(torch.Tensor([2]))
    assert (
        isinstance(weight, torch.nn.parameter.Parameter) and weight.requires_grad and weight.is_leaf
    )
    assert repr(weight).startswith("Parameter containing:")
    assert torch.nn.parameter.Parameter(torch.ones(2), requires_grad=False).requires_grad is False
    waiting = torch.nn.parameter.UninitializedParameter()
    waiting.materialize((2, 3))
    assert isinstance(waiting, nn.Parameter) and waiting.shape == (2, 3)
    waiting = torch.nn.parameter.UninitializedBuffer()
    waiting.materialize((2,))
    assert waiting.shape == (2,) and not waiting.requires_grad


def check_iteration():
    net = Net()
    names = ["one.weight", "one.bias", "two.0.weight", "two.0.bias", "two.1.weight", "two.1.bias"]
    assert [n for n, _ in net.named_parameters()] == names
    assert [n for n, _ in net.named_parameters(prefix="p", recurse=True)] == [
        "p." + n for n in names
    ]
    assert len(list(net.parameters())) == 6 and list(net.parameters(recurse=False)) == []
    assert (
        len(list(net.buffers())) == 3 and next(iter(net.named_buffers()))[0] == "two.1.running_mean"
    )
    assert [type(m).__name__ for m in net.children()] == ["Linear", "Sequential"]
    assert [n for n, _ in net.named_modules()] == ["", "one", "two", "two.0", "two.1"]
    assert len(list(net.modules())) == 5 and net.get_submodule("two.1") is net.two[1]
    members = net._named_members(lambda m: m._parameters.items(), prefix="", recurse=True)
    assert [n for n, _ in members] == names
    seen = []
    assert net.apply(fn=lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "Linear", "BatchNorm1d", "Sequential", "Net"]


def check_modes():
    net = Net()
    assert net.training and net.train(mode=False) is net and not net.two[1].training
    assert net.train(mode=True).training and not net.eval().two.training
    net.training = True
    assert net.training
    assert net.requires_grad_(requires_grad=False) is net and not any(
        p.requires_grad for p in net.parameters()
    )


def check_gradients():
    net = Net()
    net(torch.ones(3, 2)).sum().backward()
    assert net.one.weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert not net.one.weight.grad.any()
    net.zero_grad()
    assert net.one.weight.grad is None


def check_casts():
    for method, dtype in (
        ("half", torch.float16),
        ("double", torch.float64),
        ("bfloat16", torch.bfloat16),
    ):
        assert getattr(Net(), method)().two[1].running_mean.dtype is dtype
    net = Net()
    assert net.double().half().bfloat16().float() is net
    assert net.two[1].num_batches_tracked.dtype is torch.int64
    assert net.type(dst_type=torch.float64).one.weight.dtype is torch.float64
    assert net.to(dtype=torch.float32).one.weight.dtype is torch.float32
    assert net.to(device="cpu") is net and net.cpu() is net
    assert net.to(tensor=torch.zeros(1, dtype=torch.float64)).one.weight.dtype is torch.float64
    conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    assert conv.weight.stride() == (18, 1, 6, 2)
    refused(TypeError, net.to, torch.int32)
    assert net.to_empty(device="cpu").one.weight.shape == (3, 2)
    assert net.share_memory() is net
    assert net._apply(fn=lambda t: t.float()).one.weight.dtype is torch.float32
    if not torch.cuda.is_available():
        with raises(AssertionError):
            net.cuda(device=0)
    else:
        before = net.one.weight.tolist()
        assert net.cuda(device=0) is net and all(t.is_cuda for t in net.state_dict().values())
        assert net.one.weight.tolist() == before and net.cpu().one.weight.device.type == "cpu"


def check_hooks():
    net, seen = Net(), []
    handles = [
        net.register_forward_pre_hook(hook=lambda m, args: seen.append("before")),
        net.register_forward_hook(hook=lambda m, args, out: seen.append("after")),
        net.register_full_backward_hook(hook=lambda m, gi, go: seen.append("gradient")),
        net.one.register_backward_hook(hook=lambda m, gi, go: seen.append("old")),
        net.register_load_state_dict_post_hook(hook=lambda m, keys: seen.append("loaded")),
    ]
    assert len(net._forward_pre_hooks) == len(net._forward_hooks) == len(net._backward_hooks) == 1
    x = torch.ones(3, 2, requires_grad=True)
    net(x).sum().backward()
    net.load_state_dict(net.state_dict())
    assert (
        seen[:2] == ["before", "after"]
        and set(seen[2:4]) == {"gradient", "old"}
        and seen[-1] == "loaded"
    )
    for handle in handles:
        handle.remove()
    seen.clear()
    net(x).sum().backward()
    assert seen == [] and not net._forward_hooks


def check_global_hooks():
    module, seen = torch.nn.modules.module, []
    x = torch.ones(1, 2, requires_grad=True)
    for register, name in (
        (module.register_module_full_backward_hook, "full"),
        (module.register_module_backward_hook, "old"),
    ):
        handles = [
            module.register_module_forward_pre_hook(lambda m, args: seen.append("before")),
            module.register_module_forward_hook(lambda m, args, out: seen.append("after")),
            register(lambda m, gi, go, name=name: seen.append(name)),
        ]
        nn.Linear(2, 1)(x).sum().backward()
        for handle in handles:
            handle.remove()
    both = (
        module.register_module_full_backward_hook(print),
        module.register_module_forward_hook(print),
    )
    for handle in both:
        handle.remove()
    handle = module.register_module_backward_hook(print)
    handle.remove()
    assert seen == ["before", "after", "full", "before", "after", "old"]


def check_state_dicts():
    net, other = Net(), Net()
    own = OrderedDict()
    state = net.state_dict(destination=own, prefix="net.", keep_vars=True)
    assert state is own and state["net.one.weight"] is net.one.weight
    assert net.two[1]._version == 2 and net.state_dict()._metadata["two.1"]["version"] == 2
    result = other.load_state_dict(state_dict=net.state_dict(), strict=True)
    assert result.missing_keys == result.unexpected_keys == []
    assert torch.equal(other.one.weight, net.one.weight)
    result = other.load_state_dict({"extra": torch.ones(1)}, strict=False)
    assert "one.weight" in result.missing_keys and result.unexpected_keys == ["extra"]
    assert "extra" in refused(RuntimeError, other.load_state_dict, {"extra": torch.ones(1)})
    kept = {}
    net.one._save_to_state_dict(kept, "p.", False)
    assert list(kept) == ["p.weight", "p.bias"]


def check_state_dict_hooks_and_extra_state():
    net = nn.Linear(1, 1)
    net._state_dict_hooks[0] = lambda module, state, prefix, meta: state.update(more=torch.ones(1))
    assert "more" in net.state_dict()
    del net._state_dict_hooks[0]
    seen = []
    net._register_load_state_dict_pre_hook(lambda state, *rest: seen.append(len(state)))
    assert len(net._load_state_dict_pre_hooks) == 1
    net.load_state_dict(net.state_dict())
    assert seen == [2]

    class Extra(nn.Module):
        kept = 0

        def get_extra_state(self):
            return {"kept": self.kept}

        def set_extra_state(self, state):
            self.kept = state["kept"]

    first, second = Extra(), Extra()
    first.kept = 7
    second.load_state_dict(first.state_dict())
    assert second.kept == 7 and second.get_extra_state() == {"kept": 7}
    second.set_extra_state({"kept": 2})
    assert second.kept == 2 and refused(RuntimeError, nn.ReLU().get_extra_state)
    assert refused(RuntimeError, nn.ReLU().set_extra_state, {})


def check_repr():
    class Named(nn.Module):
        def extra_repr(self):
            return "size=3"

    assert repr(Named()) == "Named(size=3)" and nn.ReLU().extra_repr() == ""
    assert (
        repr(nn.Sequential(nn.Linear(1, 2))).splitlines()[1].endswith("out_features=2, bias=True)")
    )


def check_containers():
    first, second = nn.Linear(2, 2), nn.ReLU()
    plain = nn.Sequential(first, second)
    named = nn.Sequential(OrderedDict([("first", first), ("second", second)]))
    x = torch.randn(3, 2)
    assert torch.equal(plain(x), named(x)) and list(dict(named.named_children())) == [
        "first",
        "second",
    ]
    assert len(nn.ModuleList([first, second])) == 2 and nn.ModuleList([first])[0] is first
    table = nn.ModuleDict({"a": first})
    table["b"] = second
    assert list(table) == ["a", "b"] and len(list(table.parameters())) == 2
    weights = nn.ParameterList([torch.zeros(2), torch.ones(3)])
    assert len(list(weights.parameters())) == 2 and weights[1].shape == (3,)
    named_weights = nn.ParameterDict({"w": torch.zeros(2)})
    assert named_weights["w"].requires_grad and list(named_weights.keys()) == ["w"]
    assert torch.equal(nn.Identity(3, b=4)(x), x)


def check_linear_and_its_attributes():
    layer = nn.Linear(in_features=4, out_features=3, bias=True, device="cpu", dtype=torch.float64)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    expected = x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(x).detach().numpy(), expected)
    assert (
        layer.weight.shape == (3, 4)
        and layer.bias.shape == (3,)
        and layer.weight.abs().max() <= 0.5
    )
    assert nn.Linear(4, 3, bias=False).bias is None


def check_data_parallel():
    x, net = torch.ones(2, 2), nn.Linear(2, 3)
    wrapped = nn.DataParallel(net)
    # where there is a GPU the module is on it
    assert torch.equal(wrapped(x), net(x.to(net.weight.device)))
    assert list(wrapped.state_dict()) == ["module.weight", "module.bias"]


def check_distributed_data_parallel():
    x, net = torch.ones(2, 2), nn.Linear(2, 3)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(net)
        assert torch.equal(wrapped(x), net(x)) and wrapped.module is net
    finally:
        torch.distributed.destroy_process_group()
