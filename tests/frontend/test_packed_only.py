"""Weights of compiled models that are in packed memory only: all that asks for them finds them."""

from __future__ import annotations

import copy
import ctypes
import io
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends.llvm import prologue
from graphtorch.backends.packed_only import PackedOnly

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there pages are given back")

WIDTH = 192


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """All these tests have one program."""
    monkeypatch.setattr(prologue, "RETURNS", 1 << 30)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH + 5), nn.ReLU()
    ).eval()


class Case:
    """A compiled model whose weights were put away, what it gives for `x`, and what they were."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        made = net()
        self.weights = {k: v.numpy().copy() for k, v in made.state_dict().items()}
        file = io.BytesIO()
        torch.save(made.state_dict(), file)
        file.seek(0)
        with torch.device("meta"):
            self.model = net()
        self.model.load_state_dict(torch.load(file), assign=True)
        self.x = torch.randn(16, WIDTH)
        self.compiled = torch.compile(self.model)
        self.want = self.run()
        assert self.away() == 2

    def run(self) -> np.ndarray:
        with torch.no_grad():
            return self.compiled(self.x).numpy().copy()

    def away(self, model: nn.Module | None = None) -> int:
        weights = (model or self.model).parameters()
        return sum(type(p._storage.value.buffer) is PackedOnly for p in weights)

    def check(self, model: nn.Module | None = None) -> None:
        for name, weight in (model or self.model).state_dict().items():
            np.testing.assert_array_equal(weight.numpy(), self.weights[name])


@pytest.fixture
def case() -> Case:
    return Case()


def test_calls_leave_them_where_they_are(case):
    for _ in range(3):
        np.testing.assert_array_equal(case.run(), case.want)
    assert case.away() == 2


READS: dict[str, Callable[[Case], Any]] = {
    "numpy": lambda case: case.model[0].weight.detach().numpy(),
    "tolist": lambda case: case.model[0].weight.tolist(),
    "asarray": lambda case: np.asarray(case.model[0].weight.detach()),
    "dlpack": lambda case: np.from_dlpack(case.model[0].weight.detach()),
    "recorded": lambda case: (case.model[0].weight + 0).detach().numpy(),
    "clone": lambda case: case.model[0].weight.detach().clone().numpy(),
    "view": lambda case: case.model[0].weight.detach().t().numpy().T,
    "part": lambda case: case.model[0].weight.detach()[:].numpy(),
    "storage": lambda case: np.array(case.model[0].weight.storage().tolist()).reshape(WIDTH, -1),
    "flipped": lambda case: case.model[0].weight.detach().flip(0).numpy()[::-1],
}


@pytest.mark.parametrize("name", READS)
def test_reads(case, name):
    np.testing.assert_array_equal(READS[name](case), case.weights["0.weight"])
    assert case.away() == 1
    np.testing.assert_array_equal(case.run(), case.want)


def test_other_calls_of_the_model(case):
    with torch.no_grad():
        np.testing.assert_allclose(case.model(case.x).numpy(), case.want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(case.run(), case.want)
    case.check()


def test_saving_and_pickling(case, tmp_path):
    torch.save(case.model.state_dict(), tmp_path / "weights.pt")
    case.check(_with(torch.load(tmp_path / "weights.pt")))
    case = Case()
    made = pickle.loads(pickle.dumps(case.model))
    case.check(made)


def _with(state: Any) -> nn.Module:
    made = net()
    made.load_state_dict(state)
    return made


def test_copies_share_until_one_is_written(case):
    made = copy.deepcopy(case.model)
    assert case.away() == case.away(made) == 2
    with torch.no_grad():
        made[0].weight.mul_(2)
    np.testing.assert_array_equal(made[0].weight.detach().numpy(), 2 * case.weights["0.weight"])
    case.check()
    np.testing.assert_array_equal(case.run(), case.want)


@pytest.mark.parametrize("whole", [True, False])
def test_writes_in_place(case, whole):
    want = case.weights["0.weight"].copy()
    with torch.no_grad():
        weight = case.model[0].weight if whole else case.model[0].weight[2:5, ::2]
        weight.mul_(-0.5)
    part = want if whole else want[2:5, ::2]
    part *= -0.5
    np.testing.assert_array_equal(case.model[0].weight.detach().numpy(), want)
    found = case.run()
    with torch.no_grad():
        np.testing.assert_allclose(found, case.model(case.x).numpy(), rtol=1e-5, atol=1e-6)
    assert not np.array_equal(found, case.want)


def test_other_weights(case):
    case.model.load_state_dict({k: torch.from_numpy(2 * v) for k, v in case.weights.items()})
    found = case.run()
    with torch.no_grad():
        np.testing.assert_allclose(found, case.model(case.x).numpy(), rtol=1e-5, atol=1e-6)
    case.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in case.weights.items()})
    np.testing.assert_array_equal(case.run(), case.want)
    case.check()


def test_training_between_calls(case):
    torch.manual_seed(0)
    plain = _with({k: torch.from_numpy(v.copy()) for k, v in case.weights.items()})
    steps = [torch.optim.SGD(m.parameters(), 0.1) for m in (case.model, plain)]
    for _ in range(4):
        for model, step in zip((case.compiled, plain), steps, strict=True):
            step.zero_grad()
            model(case.x).square().mean().backward()
            step.step()
        with torch.no_grad():
            want = plain(case.x).numpy()
        np.testing.assert_allclose(case.run(), want, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(case.model.parameters(), plain.parameters(), strict=True):
        np.testing.assert_allclose(
            ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-4, atol=1e-5
        )


def test_gradients_through_a_compiled_call(case):
    x = case.x.clone().requires_grad_()
    case.compiled(x).sum().backward()
    want = case.x.clone().requires_grad_()
    case.model(want).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), want.grad.numpy(), rtol=1e-4, atol=1e-5)
    case.check()


def test_a_second_program_has_them_where_they_were(case):
    other = torch.compile(lambda x: case.model(x) + case.model[0].weight.sum())
    with torch.no_grad():
        found = other(case.x[:7]).numpy()
        want = (case.model(case.x[:7]) + case.model[0].weight.sum()).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(case.run(), case.want)
    with torch.no_grad():
        np.testing.assert_array_equal(other(case.x[:7]).numpy(), found)
    case.check()


def test_sizes_in_turn(case):
    compiled = torch.compile(case.model, dynamic=True)
    with torch.no_grad():
        want = case.model(case.x).numpy()
        for rows in (16, 3, 16, 9, 3, 11):
            found = compiled(case.x[:rows]).numpy()
            np.testing.assert_allclose(found, want[:rows], rtol=1e-5, atol=1e-6)
    case.check()


def test_what_code_outside_has_stays_in_place(case):
    model = _with({k: torch.from_numpy(v.copy()) for k, v in case.weights.items()})
    array = model[0].weight.detach().numpy()
    address = model[2].weight.data_ptr()
    compiled = torch.compile(model)
    with torch.no_grad():
        compiled(case.x)
    assert case.away(model) == 0
    found = ctypes.string_at(address, case.weights["2.weight"].nbytes)
    assert found == case.weights["2.weight"].tobytes()
    np.testing.assert_array_equal(array, case.weights["0.weight"])


def test_data_ptr_of_one_that_was_put_away(case):
    weight = case.model[2].weight
    found = ctypes.string_at(weight.data_ptr(), weight.numel() * 4)
    assert found == case.weights["2.weight"].tobytes()


def test_threads(case):
    problems: list[Any] = []

    def calls() -> None:
        for _ in range(20):
            if not np.array_equal(case.run(), case.want):
                problems.append("another result")

    def reads() -> None:
        for name, weight in case.model.state_dict().items():
            if not np.array_equal(weight.numpy(), case.weights[name]):
                problems.append(name)

    workers = [threading.Thread(target=f) for f in (calls, reads, reads, calls, reads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not problems


def test_threads_that_read_while_they_are_put_away():
    problems: list[Any] = []
    for _ in range(8):
        case = Case.__new__(Case)
        torch.manual_seed(1)
        made = net()
        case.weights = {k: v.numpy().copy() for k, v in made.state_dict().items()}
        file = io.BytesIO()
        torch.save(made.state_dict(), file)
        file.seek(0)
        case.model = net()
        case.model.load_state_dict(torch.load(file), assign=True)
        case.x = torch.ones(16, WIDTH)
        case.compiled = torch.compile(case.model)
        with torch.no_grad():
            want = made(case.x).numpy()
        begin = threading.Barrier(3)

        def calls(case=case, want=want, begin=begin) -> None:
            begin.wait()
            if not np.allclose(case.run(), want, rtol=1e-5, atol=1e-6):
                problems.append("another result")

        def reads(case=case, begin=begin) -> None:
            begin.wait()
            for _ in range(50):
                for name, weight in case.model.state_dict().items():
                    copied = (weight + 0).numpy()
                    if not np.array_equal(copied, case.weights[name]):
                        problems.append(name)

        workers = [threading.Thread(target=f) for f in (calls, reads, calls)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not problems


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes that begin as copies")
def test_forked_processes(case):
    child = os.fork()
    if not child:
        status = 1
        try:
            case.check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert case.away() == 2
    case.check()


def test_a_signal_saves_the_weights(case, tmp_path):
    def save(*_: Any) -> None:
        torch.save(case.model.state_dict(), tmp_path / "last.pt")

    before = signal.signal(signal.SIGUSR1, save)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        np.testing.assert_array_equal(case.run(), case.want)
    finally:
        signal.signal(signal.SIGUSR1, before)
    case.check(_with(torch.load(tmp_path / "last.pt")))


def test_memory_goes(tmp_path: Path):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    width = 2048  # 16 MiB of weights
    torch.save(nn.Linear(width, width).state_dict(), tmp_path / "weights.pt")
    with torch.device("meta"):
        model = nn.Linear(width, width).eval()
    x = torch.randn(64, width)
    compiled = torch.compile(model)
    model.load_state_dict(torch.load(tmp_path / "weights.pt"), assign=True)
    with torch.no_grad():
        compiled(x)  # compiles, and puts away
        del compiled
        model.load_state_dict(torch.load(tmp_path / "weights.pt"), assign=True)
        before = resident()
        again = torch.compile(model)
        again(x)
    assert resident() - before < 8 << 20
