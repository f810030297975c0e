"""Names beside the tensors and layers that programs written for PyTorch touch."""

from __future__ import annotations

import pickle

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F


def test_complex32_is_a_dtype_without_tensors() -> None:
    half = torch.complex32
    assert (repr(half), half.itemsize) == ("torch.complex32", 4)
    assert half.is_complex and not half.is_floating_point
    assert torch.chalf is half and torch.float16.to_complex() is half and half.to_real() is torch.float16
    assert pickle.loads(pickle.dumps(half)) is half and torch.finfo(half).bits == 16
    with pytest.raises(RuntimeError, match="complex64"):
        torch.zeros(2, dtype=half)


def test_private_names() -> None:
    torch._C._log_api_usage_once("a.module")
    parsed = torch._C._nn._parse_to("cpu", torch.float64, True, memory_format=torch.channels_last)
    assert parsed == (torch.device("cpu"), torch.float64, True, torch.channels_last)
    parsed = torch._C._nn._parse_to(torch.zeros(1, dtype=torch.float16))
    assert parsed[:2] == (torch.device("cpu"), torch.float16)
    with pytest.raises(TypeError, match="invalid combination"):
        torch._C._nn._parse_to(3.5, "float")


def test_jit_answers_and_explains() -> None:
    assert not isinstance(nn.ReLU(), torch.jit.ScriptModule) and not torch.jit.is_scripting()
    seen = []
    torch.compile(lambda x: seen.append(torch.jit.is_tracing()) or x + 1)(torch.zeros(2))
    assert seen[0] is True and torch.jit.is_tracing() is False

    @torch.jit.ignore
    def one() -> int:
        return 1

    for decorator in (torch.jit.ignore(drop=True), torch.jit.unused, torch.jit.export):
        assert decorator(one)() == 1
    for call, instead in ((torch.jit.ScriptModule, "compile"), (torch.jit.ScriptFunction, "compile")):
        with pytest.raises(RuntimeError, match=instead):
            call()
    with pytest.raises(AttributeError, match=r"use graphtorch\.trace or graphtorch\.compile"):
        _ = torch.jit.trace


def test_cpu_and_versions_and_switches() -> None:
    assert torch.cpu.is_available() and torch.cpu.device_count() == 1 and torch.cpu.current_device() == "cpu"
    torch.cpu.set_device(0)
    torch.cpu.synchronize()
    assert torch.version.cuda is None and torch.version.__version__
    cudnn = torch.backends.cudnn
    with cudnn.flags(benchmark=True):
        assert cudnn.benchmark
    assert not cudnn.benchmark and not cudnn.is_available() and cudnn.version() is None
    torch.backends.cuda.matmul.allow_tf32 = True
    assert not torch.backends.mps.is_available()


def test_distributed_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dist = torch.distributed
    layer = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="not been initialized"):
        nn.parallel.DistributedDataParallel(layer)
    with pytest.raises(RuntimeError, match="2 processes"):
        dist.init_process_group("gloo", world_size=2, rank=0)
    with pytest.raises(ValueError, match="rank 1"):
        dist.init_process_group("gloo", world_size=1, rank=1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    dist.init_process_group("gloo")
    try:
        assert dist.is_initialized() and (dist.get_rank(), dist.get_world_size()) == (0, 1)
        assert dist.get_backend() == "gloo"
        with pytest.raises(ValueError, match="twice"):
            dist.init_process_group()
        _train_distributed(layer)
        with pytest.raises(RuntimeError, match="any parameter"):
            nn.parallel.DistributedDataParallel(nn.ReLU())
        with pytest.raises(ValueError, match="single element"):
            nn.parallel.DistributedDataParallel(layer, device_ids=[0, 1])
        _exchange(dist)
    finally:
        dist.destroy_process_group()
    assert not dist.is_initialized()


def _train_distributed(layer: nn.Linear) -> None:
    model = nn.parallel.DistributedDataParallel(layer)
    x = torch.ones(3, 2)
    assert torch.equal(model(x), layer(x)) and list(model.state_dict()) == ["module.weight", "module.bias"]
    with model.no_sync():
        model(x).sum().backward()
    model(x).sum().backward()
    assert layer.weight.grad.tolist() == [[6, 6]]


def _exchange(dist: object) -> None:
    x, places = torch.arange(3.0), [torch.zeros(3)]
    for exchange in ("all_reduce", "reduce", "broadcast"):
        getattr(dist, exchange)(x)
    dist.all_gather(places, x)  # type: ignore[attr-defined]
    dist.barrier()  # type: ignore[attr-defined]
    assert x.tolist() == places[0].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="rank 3"):
        dist.broadcast(x, 3)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="Tensor"):
        dist.all_reduce(3)  # type: ignore[attr-defined]


def test_memory_formats() -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4).requires_grad_()
    last = x.contiguous(memory_format=torch.channels_last)
    assert last.stride() == (24, 1, 8, 2) and last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, x) and not last.is_contiguous() and last.contiguous().stride() == x.stride()
    (last * last.detach()).sum().backward()
    assert torch.equal(x.grad, x.detach())
    for made in (torch.clone(x, memory_format=torch.channels_last), x.to(memory_format=torch.channels_last),
                 x.double().to(torch.float32, memory_format=torch.channels_last),
                 x.double(memory_format=torch.channels_last)):
        assert made.stride() == last.stride() and made.detach().sum() == 276
    assert torch.zeros(1, 2, 2, 2, 2).clone(memory_format=torch.channels_last_3d).stride() == (16, 1, 8, 4, 2)
    for wrong in (torch.zeros(2), torch.zeros(1, 2, 2, 2, 2)):
        with pytest.raises(RuntimeError, match="required rank 4 tensor to use channels_last format"):
            wrong.clone(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match="memory_format"):
        x.clone(memory_format="channels_last")
    conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    assert conv.weight.stride() == (18, 1, 6, 2) and conv.bias.stride() == (1,) and conv.weight.is_leaf


def test_keywords_as_numpy_users_write_them() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    assert x.sum(axis=0).tolist() == torch.sum(x, axis=0).tolist() == [3, 5, 7]
    assert x.mean(axis=1, keepdims=True).tolist() == [[1], [4]] and torch.add(x1=x, x2=x)[1, 2] == 10
    assert x.softmax(axis=1).shape == (2, 3) and torch.cat([x, x], axis=1).shape == (2, 6)
    assert torch.zeros(size=(2, 3)).shape == x.view(size=(3, 2)).reshape(shape=(2, 3)).shape == (2, 3)
    assert torch.swapaxes(x, axis0=0, axis1=1).shape == (3, 2)
    assert len(torch.tensor_split(x, sections=2, dim=1)) == 2
    for wrong in (lambda: x.sum(along=0), lambda: x.sum(0, axis=0), lambda: torch.zeros(2, shapes=3)):
        with pytest.raises(TypeError):
            wrong()
    for function in (torch.relu, torch.sum, nn.functional.relu, torch.Tensor.add):
        assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize("call, kind, words", [
    (lambda: torch.sum(torch.ones(2), dim=0, keepdim=3), TypeError, "'keepdim'.*must be bool, not int"),
    (lambda: torch.linalg.norm(0, 2, dim=1), TypeError, "'A' .*must be Tensor, not int"),
    (lambda: torch.flip(torch.ones(2), torch.ones(2)), TypeError, "dim must be an int"),
    (lambda: torch.nn.Linear(4, torch.ones(2)), TypeError, "sizes to be ints"),
    (lambda: F.mse_loss(torch.ones(2), [1.5]), AttributeError, "'list' object .*'target'"),
    (lambda: F.mse_loss(torch.ones(2), torch.ones(2), reduction=1), ValueError, "reduction"),
    (lambda: torch.nn.ReLU()(object()), TypeError, "must be Tensor, not object"),
    (lambda: torch.ones(2).requires_grad_(99), TypeError, "must be bool"),
    (lambda: torch.ones(2).normal_(torch.ones(2), 1), TypeError, "'mean'.*must be float"),
    (lambda: torch.zeros(dtype=torch.int64), TypeError, "size"),
    (lambda: torch.normal(0.0, 1.0, (-7, 3)), RuntimeError, "negative dimension"),
    (lambda: torch.set_grad_enabled("no"), TypeError, "must be bool"),
], ids=range(12))
def test_arguments_of_the_wrong_kind(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_tensors_of_one_int_stand_for_ints():
    one = torch.tensor(1)
    assert torch.eye(one, 2).tolist() == [[1, 0]] and torch.ones(2, 3).sum(one).tolist() == [3, 3]
    assert torch.zeros(2).copy_(3).tolist() == [3, 3]
    assert torch.ones(2, 2).tril(one - 1).tolist() == [[1, 0], [1, 1]]


def test_out_and_pin_memory_where_definitions_lack_them():
    x, out = torch.tensor([1.0, -float("inf")]), torch.empty(2, dtype=torch.bool)
    assert torch.isneginf(x, out=out) is out and out.tolist() == [False, True]
    picked = torch.empty(0)
    assert torch.masked_select(x, out, out=picked) is picked and picked.tolist() == [-float("inf")]
    low, high = torch.empty(()), torch.empty(())
    assert torch.aminmax(torch.arange(3.0), out=(low, high))[0] is low and (low.item(), high.item()) == (0, 2)
    assert torch.eye(2, pin_memory=False).shape == torch.full((2, 2), 1, pin_memory=False).shape
    assert torch.linalg.vector_norm(input=torch.ones(4)) == torch.linalg.norm(input=torch.ones(4)) == 2
    with pytest.raises(TypeError):
        torch.isnan(x, out=out)
