"""Tensors on a GPU, on the emulated device: where things are, what refuses to mix, what moves.

Kernels for it take the C++ compiler a while, so these tests compute as little as they can.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest

import graphtorch as torch
from emulated_gpu import emulated_gpu
from graphtorch import nn
from graphtorch._deferred.making import from_value
from graphtorch.backends.gpu import emulated
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.ops import common
from graphtorch.nn import functional as F

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated device needs a compiler"
)


@pytest.fixture(autouse=True, scope="module")
def gpu() -> Iterator[None]:
    """The emulated device is there for this file."""
    with emulated_gpu():
        yield
        torch.set_default_device(None)


def there(*data: float) -> Any:
    return torch.tensor(data, dtype=torch.float32, device="cuda")


MIXED: dict[str, Any] = {
    "add": lambda a, g: a + g,
    "add in place": lambda a, g: a.add_(g),
    "a 0-d number of a GPU": lambda a, g: a + g[0],
    "matmul": lambda a, g: a @ g,
    "cat": lambda a, g: torch.cat([a, g]),
    "stack of numbers": lambda a, g: torch.stack([a[0], g[0]]),
    "where": lambda a, g: torch.where(g > 0, g, a),
    "places of a GPU": lambda a, g: a[g.long()],
    "index_select": lambda a, g: g.index_select(0, torch.tensor([0])),
    "repeat_interleave": lambda a, g: g.repeat_interleave(torch.tensor([1, 2, 0])),
    "loss": lambda a, g: F.mse_loss(a, g),
    "module": lambda a, g: nn.Linear(3, 2)(g),
    "out": lambda a, g: torch.add(g, 1, out=a),
    "gradient": lambda a, g: g.requires_grad_().mul(2).backward(a),
    "grad": lambda a, g: setattr(g, "grad", a),
    "sparse": lambda a, g: torch.sparse_coo_tensor(torch.tensor([[0, 1, 2]]), g),
    "generator": lambda a, g: torch.rand(2, device="cuda", generator=torch.Generator()),
}


@pytest.mark.parametrize("name", MIXED)
def test_devices_do_not_mix(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"cuda.*cpu|cpu.*cuda"):
        MIXED[name](torch.ones(3), there(1, 2, 0))


def test_numbers_and_places_of_the_cpu_mix() -> None:
    g = there(1, 2, 4)
    assert (g + torch.tensor(1.0)).device == g[torch.tensor([2, 0])].device == g.device
    g[1] = torch.tensor(7.0)
    g[2:] = torch.zeros(1)
    assert g.tolist() == [1, 7, 0]


def test_to_and_back() -> None:
    a, g = torch.tensor([1.5, 2.0]), there(1.5, 2.0)
    assert g.to("cuda") is g and g.cuda() is g and a.to("cpu") is a and g.to(g.device) is g
    assert a.to("cuda", torch.float16).dtype is torch.float16
    assert g.to("cuda", copy=True).data_ptr() != g.data_ptr() and a.to(g).device == g.device
    assert (g.get_device(), a.get_device()) == (
        0,
        -1,
    ) and g.cpu().tolist() == a.tolist() == g.tolist()
    assert torch.empty(2).copy_(g).tolist() == [1.5, 2] and "device='cuda:0'" in repr(g)
    with pytest.raises(TypeError, match="cuda:0 device type tensor to numpy"):
        g.numpy()
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        a.to("cuda:1")


def test_what_is_made_beside_a_tensor() -> None:
    g = there(1, 2, 3)
    made = [
        g.new_zeros(2),
        g.new([1, 2]),
        g.new_tensor([1]),
        torch.zeros_like(g),
        torch.randn_like(g),
        torch.cuda.FloatTensor([1]),
        torch.as_tensor([1], device="cuda"),
        copy.deepcopy(g),
        g.data,
        g[1:],
        nn.init.orthogonal_(g.new_empty(2, 2)),
        torch.distributions.Normal(g, 1.0).scale,
    ]
    assert {t.device for t in made} == {g.device}
    assert g.type() == "torch.cuda.FloatTensor" and g.type("torch.FloatTensor").is_cpu
    assert isinstance(g, torch.cuda.FloatTensor) and not isinstance(g, torch.FloatTensor)


def test_default_device() -> None:
    torch.set_default_device("cuda")
    assert torch.get_default_device() == torch.zeros(2).device == torch.device("cuda", 0)
    assert nn.Linear(2, 2).weight.is_cuda and torch.ones(1, device="cpu").is_cpu
    torch.set_default_device(None)
    with torch.device("cuda"):
        assert torch.arange(3).is_cuda and torch.distributions.Normal(0.0, 1.0).loc.is_cuda
    assert torch.zeros(2).is_cpu


def test_modules_move_in_place() -> None:
    net = nn.BatchNorm1d(3)
    net(torch.randn(4, 3)).sum().backward()
    before = list(net.parameters()), [p.grad for p in net.parameters()]
    net.cuda()
    parts = [*net.parameters(), *net.buffers(), *(p.grad for p in net.parameters())]
    assert all(t.is_cuda for t in parts)
    assert all(p is q and p.grad is g for p, q, g in zip(net.parameters(), *before, strict=True))
    assert net.load_state_dict(copy.deepcopy(net).cpu().state_dict()) and net.weight.is_cuda


def test_state_of_optimizers_follows_parameters() -> None:
    net = nn.Linear(2, 2)
    one = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    one.step()
    state = one.state_dict()
    two = torch.optim.Adam(net.cuda().parameters())
    two.load_state_dict(state)
    found = two.state[net.weight]
    assert found["exp_avg"].is_cuda and found["step"].is_cpu


@pytest.mark.parametrize(
    "where",
    [
        "cpu",
        torch.device("cpu"),
        {"cuda:0": "cpu"},
        lambda storage, location: storage,
    ],
    ids=["name", "device", "names", "function"],
)
def test_files_are_loaded_elsewhere(where: Any) -> None:
    file = io.BytesIO()
    torch.save({"a": there(1, 2), "b": torch.eye(2, device="cuda").to_sparse()}, file)
    file.seek(0)
    assert all(t.is_cuda for t in torch.load(file).values())
    file.seek(0)
    found = torch.load(file, map_location=where)
    assert found["a"].tolist() == [1, 2] and all(t.is_cpu for t in found.values())


def test_pinned_memory() -> None:
    x = torch.tensor([[1.0, 2.0]]).pin_memory()
    assert (
        x.is_pinned() and x[0].is_pinned() and x.pin_memory() is x and x.cuda().tolist() == [[1, 2]]
    )
    assert not x.clone().add(1).is_pinned() and torch.zeros(2, pin_memory=True).is_pinned()
    loader = torch.utils.data.DataLoader([{"x": torch.ones(2), "y": 1}] * 2, 2, pin_memory=True)
    assert all(v.is_pinned() for batch in loader for v in batch.values())
    with pytest.raises(RuntimeError, match="only dense CPU tensors can be pinned"):
        x.cuda().pin_memory()


def test_random_numbers_come_back() -> None:
    def both() -> tuple[list[float], list[float]]:
        return torch.rand(3, device="cuda").tolist(), torch.rand(2).tolist()

    torch.manual_seed(3)
    first = both()
    state = torch.cuda.get_rng_state()
    torch.manual_seed(3)
    with torch.random.fork_rng():
        both()
    assert both() == first
    later = torch.rand(3, device="cuda").tolist()
    torch.cuda.set_rng_state(state)
    assert torch.rand(3, device="cuda").tolist() == later


def test_checkpoint_draws_the_same_again() -> None:
    x = torch.ones(16, device="cuda", requires_grad=True)
    out = torch.utils.checkpoint.checkpoint(lambda t: F.dropout(t, 0.5), x, use_reentrant=False)
    out.sum().backward()
    assert x.grad.tolist() == out.tolist() and 0 < out.count_nonzero().item() < 16


def test_gradients_cross_devices() -> None:
    seen = []
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    g = w.cuda()
    g.register_hook(lambda grad: seen.append(grad.device.type))
    (first,) = torch.autograd.grad((g * g).cpu().sum(), w, create_graph=True)
    first.sum().backward()
    assert first.tolist() == [2, 4] and w.grad.tolist() == [2, 2] and set(seen) == {"cuda"}


@pytest.mark.parametrize("function", [torch.sign, torch.floor, torch.sum, torch.ones_like])
def test_gradients_that_are_constants_stay_with_their_device(function: Any) -> None:
    """What was computed on one device is not found for the other."""
    for name in ("cuda", "cuda", "cuda", "cpu", "cuda", "cpu"):
        x = torch.ones(3, device=name, requires_grad=True)
        loss = (function(x) + x).sum()
        loss.retain_grad()
        loss.backward()
        assert loss.grad.device.type == x.grad.device.type == name
        assert loss.grad.item() == 1 and x.grad.tolist() == [4 if function is torch.sum else 1] * 3


def test_constants_are_found_by_no_other_device() -> None:
    """Rules of gradients share them."""
    for place, other in (("cuda", "cpu"), ("cpu", "cuda")):
        for number in (0.0, 1.0, 2.0):
            made = from_value(common.full((), number, f32), torch.ones(1, device=place).device)
            assert made.item() == number and made.device.type == place
            beside = from_value(common.full((), number, f32), torch.ones(1, device=other).device)
            assert (beside + torch.ones((), device=other)).item() == number + 1


def test_mapped_functions() -> None:
    x = there(1, 2, 3)
    found = torch.vmap(lambda t: t * t)(x)
    slopes = torch.vmap(torch.func.grad(lambda t: t * t))(x)
    assert found.device == slopes.device == x.device and slopes.tolist() == [2, 4, 6]


def test_autocast_casts_what_pytorch_casts_on_gpus() -> None:
    h, f = torch.ones(2, 2, device="cuda", dtype=torch.float16), torch.ones(2, 2, device="cuda")
    single, half = torch.float32, torch.float16
    with torch.autocast("cuda"):
        wide = h.exp(), h.sum(), h**2, 1 / h, h.softmax(0), F.layer_norm(h, (2,))
        narrow = h + h, h.mean(), F.relu(h), f @ f, f.mv(f[0]), F.linear(f, f)
        assert {t.dtype for t in wide} == {single} and {t.dtype for t in narrow} == {half}
        assert F.mse_loss(h, h).dtype is torch.dot(h[0], f[0]).dtype is single
        # CPUs have an autocast of their own
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is single
        with pytest.raises(RuntimeError, match="unsafe to autocast"):
            F.binary_cross_entropy(h, h)
    with torch.autocast("cpu"):
        assert (f @ f).dtype is single and torch.ones(
            2, dtype=torch.bfloat16
        ).exp().dtype is torch.bfloat16


def test_wrong_indices_are_reported_when_the_gpu_is_waited_for() -> None:
    x, index = there(1, 2), torch.tensor([9], device="cuda")
    found = x[index]
    with pytest.raises(IndexError, match=r"size 2 \(index at .*test_gpu_tensors"):
        found.tolist()
    assert x.tolist() == [1, 2]  # the device goes on


def test_memory() -> None:
    before = torch.cuda.memory_allocated()
    x = torch.ones(1 << 12).cuda()
    assert torch.cuda.memory_allocated() - before >= x.nbytes
    del x
    assert torch.cuda.memory_allocated() == before
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        torch.arange(1 << 32, device="cuda").data_ptr()


def test_what_is_made_of_weights_follows_them() -> None:
    """A compiled net in evaluation, whose norm's factors are kept: weights that are written to,
    replaced or loaded count from the next call on."""
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU())
    net.eval()
    twin, x = copy.deepcopy(net).cuda(), torch.randn(2, 2, 6, 6)
    compiled, given = torch.compile(twin), x.cuda()

    def same() -> bool:
        return all(torch.allclose(compiled(given).cpu(), net(x), 1e-4, 1e-5) for _ in range(3))

    with torch.no_grad():
        assert same()
        for both in (net, twin):
            both[1].weight.mul_(3.0)
            both[1].running_var.add_(0.5)
        assert same()
        for both in (net, twin):
            both[0].weight = torch.nn.Parameter(both[0].weight.detach() - 0.25)
        assert same()
        state = {name: value + 1 for name, value in net.state_dict().items()}
        for both in (net, twin):
            both.load_state_dict(state)
        assert same()


def test_streams_are_names_of_one_queue() -> None:
    side, before = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(before)
    with torch.cuda.stream(side):
        x = there(1, 2) * 2
        x.record_stream(before)
        assert torch.cuda.current_stream() == side
    torch.cuda.set_stream(side)
    assert torch.cuda.current_stream() == side
    torch.cuda.set_stream(before)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.cuda.current_stream() == before and x.tolist() == [2, 4]
    with pytest.raises(NotImplementedError, match="'CPU' backend"):
        torch.ones(1).record_stream(side)
    with pytest.raises(TypeError, match=r"must be a torch\.cuda\.Stream, not str"):
        x.record_stream("side")


def test_data_parallel_on_one_gpu() -> None:
    net = nn.DataParallel(nn.Linear(2, 1))
    assert net.device_ids == [0] and net.module.weight.is_cuda and net(torch.ones(1, 2)).is_cuda


def test_nothing_of_a_gpu_is_computed_on_the_cpu() -> None:
    """A result that was given no device is an error: native code would read the GPU's memory as its
    own."""
    settled = torch.zeros(2).cuda()
    lost = from_value(ops.neg(settled._value()))
    with pytest.raises(RuntimeError, match="said to be on the CPU"):
        lost.tolist()
