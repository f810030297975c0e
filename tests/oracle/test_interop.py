"""Memory shared with NumPy and PyTorch, copies and pickles of tensors, modules, optimizers and
generators."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)
DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "uint16",
    "uint32",
    "uint64",
]
RECORDS = np.zeros(4, [("x", np.float32), ("y", np.int8)])  # x lies 5 bytes apart


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("source", "target"), [BOTH, BOTH[::-1]], ids=["from torch", "to torch"])
def test_dlpack_shares_memory(source: Any, target: Any, dtype: str) -> None:
    given = source.ones(2, 3).to(getattr(source, dtype))
    for exported in (given, source.utils.dlpack.to_dlpack(given)):
        got = target.from_dlpack(exported)
        assert str(got.dtype) == f"torch.{dtype}" and tuple(got.shape) == (2, 3)
        given[0, 1] = 0
        assert got[0, 1].item() == 0
        got[1, 2] = 0
        assert given[1, 2].item() == 0
        given.fill_(1)
    view = target.from_dlpack(given.t()[1:])
    assert tuple(view.stride()) == (1, 3) and view.numel() == 4
    assert target.from_dlpack(given[:, :0]).numel() == 0
    own = target.from_dlpack(given, copy=True)
    given.zero_()
    assert own[0, 0].item() == 1


def test_dlpack_keeps_memory_alive() -> None:
    kept = [t.from_dlpack(o.full((1000,), 3.0)) for t, o in (BOTH, BOTH[::-1])]
    gc.collect()
    other = [t.full((1000,), 4.0) for t in BOTH]
    assert all((k == 3).all() for k in kept) and other


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.from_dlpack(3),
        lambda t: t.ones(1, requires_grad=True).__dlpack__(),
        lambda t: t.from_dlpack(t.ones(1, requires_grad=True)),
        lambda t: t.ones(1).__dlpack__(stream=1),
        lambda t: np.asarray(t.ones(1, requires_grad=True)),
        lambda t: t.ones(1, dtype=t.bfloat16).numpy(),
        lambda t: t.from_numpy([1]),
        lambda t: t.from_numpy(np.arange(3)[::-1]),
        lambda t: t.from_numpy(np.array("a")),
        lambda t: t.from_numpy(RECORDS["x"]),
        lambda t: t.ones(1).__cuda_array_interface__,
        lambda t: np.ones(2) + t.ones(2),
    ],
)
def test_refusals(call: Any) -> None:
    kinds = []
    for t in BOTH:
        with pytest.raises(Exception) as caught:
            call(t)
        kinds.append(caught.type)
    assert kinds[0] is kinds[1]


def test_numpy_shares_memory() -> None:
    for t in BOTH:
        array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
        x = t.from_numpy(array.T)
        array[1, 2] = 9
        x.mul_(2)
        assert x[2, 1] == 18 and array[1, 2] == 18 and tuple(x.stride()) == (1, 3)
        fortran = np.asfortranarray(array[:, ::2])
        t.from_numpy(fortran).zero_()
        t.from_numpy(array[:, 1:])[0].fill_(5)
        assert not fortran.any() and (array[0, 1:] == 5).all()
        back = x.numpy()
        back[0, 0] = -1
        assert x[0, 0] == -1 and np.shares_memory(back, array)
        assert t.ones(1, requires_grad=True).numpy(force=True) == 1
        assert np.asarray(t.ones(2), dtype=np.int32).dtype == np.int32
        assert (
            type(np.float64(2) * t.ones(2)) is t.Tensor
            and (t.ones(2) + np.ones(2)).dtype is t.float64
        )
        assert type(np.sin(t.ones(2))) is t.Tensor


ROUND_TRIPS = [
    lambda x: pickle.loads(pickle.dumps(x)),
    lambda x: pickle.loads(pickle.dumps(x, 2)),
    copy.deepcopy,
]


@pytest.mark.parametrize("trip", [0, 1, 2])
def test_copies_and_pickles(trip: int) -> None:
    for t in BOTH:
        again = ROUND_TRIPS[trip]
        base = t.arange(12.0).reshape(3, 4)
        base.note = "n"
        leaf = t.ones(2, requires_grad=True)
        leaf.grad = t.ones(2)
        given = {
            "base": base,
            "row": base[1],
            "turned": base.t(),
            "leaf": leaf,
            "half": t.ones(1).half(),
            "parameter": t.nn.Parameter(t.ones(2), requires_grad=False),
            "size": base.shape,
            "dtype": t.int8,
            "device": t.device("cpu"),
            "flag": t.tensor(True),
        }
        got = again(given)
        assert got["base"].note == "n" and type(got["parameter"]) is t.nn.Parameter
        assert got["leaf"].requires_grad and not got["parameter"].requires_grad
        assert got["dtype"] is t.int8 and got["size"] == base.shape and type(got["size"]) is t.Size
        assert tuple(got["turned"].stride()) == (1, 4) and t.equal(got["turned"], base.t())
        got["base"][1] = -1
        assert base[1, 0] == 4
        if t is graphtorch or trip == 2:  # PyTorch's pickles of tensors hold each storage by itself
            assert (got["row"] == -1).all() and (got["turned"][:, 1] == -1).all()
        assert (got["leaf"].grad is None) == (trip != 2)


def test_what_cannot_be_copied() -> None:
    for t in BOTH:
        result = t.ones(2, requires_grad=True) * 2
        with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
            copy.deepcopy(result)
        assert pickle.loads(pickle.dumps(result)).requires_grad


def test_modules_optimizers_and_generators() -> None:
    for t in BOTH:
        net = t.nn.Sequential(t.nn.Linear(2, 2), t.nn.BatchNorm1d(2), t.nn.Dropout(0.5))
        optimizer = t.optim.Adam(net.parameters(), lr=0.1)
        net(t.ones(4, 2)).sum().backward()
        optimizer.step()
        schedule = t.optim.lr_scheduler.StepLR(optimizer, 1)
        other_net, other = copy.deepcopy((net, optimizer))
        assert other.param_groups[0]["params"][0] is other_net[0].weight
        assert len(other.state[other_net[0].weight]) == 3
        loaded_net, loaded = pickle.loads(pickle.dumps((net, optimizer)))
        assert loaded.param_groups[0]["params"][0] is loaded_net[0].weight
        assert t.equal(loaded_net.eval()(t.ones(1, 2)), net.eval()(t.ones(1, 2)))
        assert schedule.state_dict()["last_epoch"] == 0
        generator = t.Generator().manual_seed(5)
        t.rand(3, generator=generator)
        for same in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
            state = generator.get_state()
            assert t.equal(t.rand(2, generator=same), t.rand(2, generator=generator))
            generator.set_state(state)


def test_subclasses() -> None:
    for t in BOTH:
        kind = type("Kind", (t.Tensor,), {"__module__": __name__})
        globals()["Kind"] = kind
        made = t.ones(2, requires_grad=True).as_subclass(kind)
        made.note = 1
        got = pickle.loads(pickle.dumps(made))
        assert type(got) is kind and got.note == 1
        made.sum().backward()
        with pytest.raises(TypeError):
            t.ones(1).as_subclass(int)
