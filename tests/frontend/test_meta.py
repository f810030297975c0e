"""Tensors on the device "meta": shapes, dtypes and gradients' shapes; no elements, and no memory
for them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

META = torch.device("meta")
LARGE = 1 << 40  # elements: no machine of ours has memory for them


def meta(*shape: int, **options: Any) -> torch.Tensor:
    return torch.empty(shape, device="meta", **options)


def facts(x: torch.Tensor) -> tuple[Any, ...]:
    return tuple(x.shape), x.dtype, x.device


# ------------------------------------------------------------------------------------------ making


@pytest.mark.parametrize(
    ("make", "shape", "dtype"),
    [
        (lambda: torch.zeros(LARGE, device="meta"), (LARGE,), torch.float32),
        (lambda: torch.full((2, 3), 1, device=META), (2, 3), torch.int64),
        (lambda: torch.arange(LARGE, device="meta:0"), (LARGE,), torch.int64),
        (lambda: torch.linspace(0, 1, 5, dtype=torch.float64, device="meta"), (5,), torch.float64),
        (lambda: torch.eye(3, device="meta"), (3, 3), torch.float32),
        (lambda: torch.tensor([[1, 2]], device="meta"), (1, 2), torch.int64),
        (lambda: torch.as_tensor(torch.ones(2).half(), device="meta"), (2,), torch.float16),
        (lambda: torch.rand(LARGE, device="meta"), (LARGE,), torch.float32),
        (lambda: torch.randint(5, (4,), device="meta"), (4,), torch.int64),
        (lambda: torch.randperm(4, device="meta"), (4,), torch.int64),
        (lambda: torch.normal(0.0, 1.0, (3,), device="meta"), (3,), torch.float32),
        (lambda: torch.empty_strided((2, 3), (1, 2), device="meta"), (2, 3), torch.float32),
        (lambda: torch.tril_indices(3, 3, device="meta"), (2, 6), torch.int64),
        (lambda: torch.hann_window(7, device="meta"), (7,), torch.float32),
        (lambda: torch.fft.fftfreq(6, device="meta"), (6,), torch.float32),
        (lambda: meta(2).new_zeros(3), (3,), torch.float32),
        (lambda: torch.ones_like(meta(2, dtype=torch.bool)), (2,), torch.bool),
        (lambda: torch.randn_like(meta(2)), (2,), torch.float32),
        (lambda: torch.ones(2, 2).to("meta").t(), (2, 2), torch.float32),
    ],
)
def test_factories_make_tensors_without_elements(
    make: Callable[[], torch.Tensor], shape: tuple[int, ...], dtype: Any
) -> None:
    x = make()
    assert facts(x) == (shape, dtype, META)
    assert x.is_meta and not x.is_cpu and x.data_ptr() == 0


def test_what_has_no_elements_moves_no_stream() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    x = meta(100).normal_()
    nn.functional.dropout(x, 0.5)
    nn.functional.rrelu(x, training=True)
    torch.bernoulli(x)
    torch.multinomial(x, 2)
    torch.poisson(x)
    nn.Linear(3, 4, device="meta")
    nn.functional.gumbel_softmax(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_large_one_is_printed_by_its_facts() -> None:
    x = meta(LARGE, dtype=torch.int64)
    assert repr(x) == f"tensor(..., device='meta', size=({LARGE},), dtype=torch.int64)"
    assert f"{meta()}" == "tensor(..., device='meta', size=())"
    assert x.type() == "torch.meta.LongTensor"
    assert str(x.untyped_storage()).endswith(f"(device=meta) of size {8 * LARGE}]")


# ---------------------------------------------------------------------------------------- computing


@pytest.mark.parametrize(
    "compute",
    [
        lambda x, w: (x @ w).relu().sum(1),
        lambda x, w: nn.functional.cross_entropy(x @ w, (x @ w).argmax(1)),
        lambda x, w: torch.cat([x, w.t()]).softmax(-1)[:, ::2],
        lambda x, w: torch.where(x > 0, x, 0.5).cumsum(0),
        lambda x, w: torch.linalg.inv(x[:, :3] @ w[:3]) + torch.tensor(1.0),
        lambda x, w: nn.functional.interpolate(x[None, None], scale_factor=2, mode="bilinear"),
        lambda x, w: x.unfold(1, 2, 1).std(-1),
        lambda x, w: x.clone().index_fill_(0, (x.sum(1) * 0).long(), 1.0),
    ],
)
def test_operations_infer_what_they_compute_elsewhere(compute: Callable[..., torch.Tensor]) -> None:
    x, w = torch.rand(3, 4), torch.rand(4, 3)
    wanted = compute(x, w)
    a, b = (t.to("meta").requires_grad_() for t in (x, w))
    found = compute(a, b)
    assert facts(found) == (tuple(wanted.shape), wanted.dtype, META)
    found.sum().backward()
    assert a.grad is not None and facts(a.grad) == facts(a)


def test_second_derivatives_have_shapes() -> None:
    x = meta(3, requires_grad=True)
    (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert facts(second) == facts(x)


def test_writes_and_views_stay_there() -> None:
    x = meta(2, 3)
    row = x[0]
    row.copy_(torch.ones(3))
    x.t()[1] = 2.0
    x.add_(1).zero_()
    assert row.is_meta and x.is_meta and x._version == 4
    x.resize_(4)
    assert x.is_meta and x.shape == (4,)


def test_a_training_step_needs_no_memory() -> None:
    layer = nn.Linear(1 << 18, 1 << 18, device="meta")
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(meta(2, 1 << 18)).square().mean().backward()
    optimizer.step()
    assert facts(layer.weight) == ((1 << 18, 1 << 18), torch.float32, META)


def test_compiled_functions_take_them() -> None:
    double = torch.compile(lambda x: x * 2)
    assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))
    assert double(meta(2)).is_meta
    held = nn.Linear(2, 2, device="meta")
    assert torch.compile(lambda x: held.weight + held.bias)(1).is_meta


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: x[0].item(), RuntimeError, "cannot be called on meta tensors"),
        (lambda x: bool(x[0]), RuntimeError, "cannot be called on meta tensors"),
        (lambda x: float(x[0]), RuntimeError, "cannot be called on meta tensors"),
        (lambda x: x.tolist(), NotImplementedError, "Cannot copy out of meta tensor; no data!"),
        (lambda x: x.to("cpu"), NotImplementedError, "Cannot copy out of meta tensor; no data!"),
        (lambda x: x.cpu(), NotImplementedError, "Cannot copy out of meta tensor; no data!"),
        (
            lambda x: torch.ones(2).copy_(x),
            NotImplementedError,
            "Cannot copy out of meta tensor; no data!",
        ),
        (lambda x: x.nonzero(), NotImplementedError, "no data!"),
        (lambda x: x.numpy(), TypeError, "can't convert meta device type tensor to numpy"),
        (lambda x: torch.from_dlpack(x), ValueError, "meta"),
        (lambda x: x.pin_memory(), RuntimeError, "pin"),
        (lambda x: x.share_memory_(), RuntimeError, "only available on CPU"),
        (
            lambda x: x + torch.ones(2),
            RuntimeError,
            "device cpu is not on the expected device meta!",
        ),
        (
            lambda x: torch.ones(2) + x,
            RuntimeError,
            "device meta is not on the expected device cpu!",
        ),
        (lambda x: x.sum() + torch.ones(2), RuntimeError, "not on the expected device"),
        (lambda x: torch.cat([x, torch.ones(2)]), RuntimeError, "not on the expected device"),
        (lambda x: nn.Linear(2, 2)(x), RuntimeError, "not on the expected device"),
        (lambda x: setattr(x, "data", torch.ones(2)), RuntimeError, "incompatible tensor type"),
        (lambda x: setattr(x, "grad", torch.ones(2)), RuntimeError, "device type 'cpu'"),
        (lambda x: torch.Tensor(2, device="meta"), RuntimeError, "legacy constructor"),
        (lambda x: torch.Generator(device="meta"), RuntimeError, "META"),
        (lambda x: nn.Linear(2, 2, device="meta").to("cpu"), NotImplementedError, "to_empty"),
        (
            lambda x: torch.compile(lambda y: y + x, fullgraph=True)(torch.ones(2)),
            RuntimeError,
            "meta",
        ),
    ],
)
def test_reading_what_is_not_there_is_refused(
    use: Callable[[torch.Tensor], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(meta(2))
    assert torch.ones(2).sum().item() == 2.0  # nothing was left behind


# ------------------------------------------------------------------------------------------ places


def test_a_block_chooses_the_device_of_what_names_none() -> None:
    with META:
        assert torch.get_default_device() == META
        assert torch.zeros(2).is_meta and nn.LSTM(2, 3).weight_ih_l0.is_meta
        assert nn.BatchNorm1d(2).running_mean.is_meta
        assert torch.ones(2, device="cpu").tolist() == [1.0, 1.0]
        with torch.device("cpu"):
            x = torch.arange(4.0)
        # what operations make for themselves is where their operands are
        assert x.median().item() == 1.0
        assert torch.zeros_like(x).tolist() == [0.0] * 4
    assert torch.get_default_device() == torch.device("cpu") and not torch.zeros(2).is_meta


def test_the_default_device_is_set_and_taken_back() -> None:
    torch.set_default_device("meta")
    try:
        assert torch.tensor([1]).is_meta and nn.Linear(2, 2).bias.is_meta
        with torch.device("cpu"):
            assert not torch.empty(2).is_meta
    finally:
        torch.set_default_device(None)
    assert not torch.tensor([1]).is_meta


def test_modules_get_elements_by_to_empty_or_by_a_state() -> None:
    wanted = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with META:
        made = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert all(t.is_meta for t in made.state_dict().values())
    other = copy.deepcopy(made).to_empty(device="cpu")
    other.load_state_dict(wanted.state_dict())
    made.load_state_dict(wanted.state_dict(), assign=True)
    x = torch.rand(4, 3)
    assert torch.equal(made(x), wanted(x)) and made[0].weight.requires_grad
    assert torch.equal(other[0].weight, wanted[0].weight)


def test_parameters_are_made_of_what_others_keep() -> None:
    p = nn.Parameter(torch.ones(2))
    assert type(p)(p.to("meta"), **vars(p)).is_meta
    with pytest.raises(TypeError, match="unexpected keyword argument 'color'"):
        nn.Parameter(torch.ones(2), color=1)


def test_files_and_copies_keep_the_facts() -> None:
    x = {"a": meta(2, 3).t(), "p": nn.Parameter(meta(LARGE))}
    file = io.BytesIO()
    torch.save(x, file)
    assert len(file.getvalue()) < 10_000
    file.seek(0)
    for again in (torch.load(file), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert facts(again["a"]) == facts(x["a"]) and again["a"].stride() == (1, 3)
        assert facts(again["p"]) == facts(x["p"]) and type(again["p"]) is nn.Parameter
    file = io.BytesIO()
    torch.save(torch.ones(2, 3), file)
    file.seek(0)
    assert facts(torch.load(file, map_location="meta")) == ((2, 3), torch.float32, META)
