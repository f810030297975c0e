"""DataLoader with worker processes: order, streams, errors, death, time limits, ends."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    get_worker_info,
)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Numbers(Dataset):
    """i, with what happens at some of them."""

    def __init__(self, count=10, at=None, act=None):
        self.count, self.at, self.act = count, at, act

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i == self.at:
            self.act()
        return torch.tensor(float(i)) * 2, i


def firsts(loader):
    return [y.tolist() for _, y in loader]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("options", [{}, {"drop_last": True}, {"prefetch_factor": 1}])
def test_same_batches_as_without_workers(workers, options):
    expected = firsts(DataLoader(Numbers(), batch_size=3, drop_last="drop_last" in options))
    assert firsts(DataLoader(Numbers(), num_workers=workers, batch_size=3, **options)) == expected
    loader = DataLoader(TensorDataset(torch.arange(7.0)), batch_size=2, num_workers=workers)
    assert [b[0].tolist() for b in loader] == [[0, 1], [2, 3], [4, 5], [6]]


def test_order_and_seeds_follow_the_generator():
    def run():
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(Seeds(), batch_size=2, shuffle=True, num_workers=2, generator=generator)
        return [[t.tolist() for t in batch] for batch in loader]

    first, second = run(), run()
    assert first == second
    drawn = [row for batch in first for row in zip(*batch, strict=True)]
    assert len(set(drawn)) == 8  # another stream in each worker, and in NumPy, random and torch


class Seeds(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return random.random(), np.random.rand(), torch.rand(()).item(), i


class Parts(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        if info is None:
            return iter(range(7))
        assert info.num_workers == 2 and info.dataset.__class__ is Parts
        return iter(range(info.id, 7, info.num_workers))


@pytest.mark.parametrize("persistent", [False, True])
def test_streams(persistent):
    loader = DataLoader(Parts(), batch_size=2, num_workers=2, persistent_workers=persistent)
    for _ in range(2):
        assert [b.tolist() for b in loader] == [[0, 2], [1, 3], [4, 6], [5]]
    assert get_worker_info() is None
    assert [b.tolist() for b in DataLoader(Parts(), batch_size=3, drop_last=True)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]


def test_persistent_workers_stay():
    loader = DataLoader(Pids(), batch_size=1, num_workers=2, persistent_workers=True)
    passes = [{int(p) for p in loader} for _ in range(2)]
    next(iter(loader))  # a pass that is given up
    passes.append({int(p) for p in loader})
    assert (
        passes[0] == passes[1] == passes[2] and len(passes[0]) == 2 and os.getpid() not in passes[0]
    )


class Pids(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return os.getpid()


def test_out_of_order():
    loader = DataLoader(Numbers(8), batch_size=2, num_workers=2, in_order=False)
    assert sorted(firsts(loader)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def fail():
    raise KeyError("lost")


@pytest.mark.parametrize(("act", "kind"), [(fail, KeyError), (lambda: 1 / 0, ZeroDivisionError)])
def test_errors_come_with_the_workers_traceback(act, kind):
    loader = DataLoader(Numbers(at=4, act=act), batch_size=2, num_workers=2)
    got = []
    told = r"(?s)Caught .*in DataLoader worker process 0.*Original Traceback.*test_workers"
    with pytest.raises(kind, match=told):
        got.extend(y.tolist() for _, y in loader)
    assert got == [[0, 1], [2, 3]]


def test_errors_while_starting():
    def init(number):
        raise ValueError(f"worker {number}")

    with pytest.raises(ValueError, match="worker 0"):
        next(iter(DataLoader(Numbers(), num_workers=1, worker_init_fn=init)))


def test_a_killed_worker_is_reported():
    loader = DataLoader(
        Numbers(at=5, act=lambda: os.kill(os.getpid(), signal.SIGKILL)), num_workers=2
    )
    with pytest.raises(
        RuntimeError, match=r"DataLoader worker \(pid\(s\) \d+\) exited unexpectedly"
    ):
        list(loader)


def test_time_limit():
    loader = DataLoader(Numbers(at=0, act=lambda: time.sleep(30)), num_workers=1, timeout=0.2)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"timed out after 0\.2 seconds"):
        next(iter(loader))
    assert time.monotonic() - start < 15


def test_compiled_code_works_after_the_fork():
    weight = torch.randn(64, 64)
    for _ in range(4):  # more calls than are interpreted
        expected = (weight @ weight).relu().sum()
        expected.item()
    pending = weight * 3  # not computed when the workers begin
    assert [x.item() for x in DataLoader(Products(weight), batch_size=None, num_workers=2)] == [
        expected.item()
    ] * 6
    assert torch.equal(pending, 3 * weight)


class Products(Dataset):
    def __init__(self, weight):
        self.weight = weight

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return (self.weight @ self.weight).relu().sum()


@pytest.mark.parametrize(
    "ending", ["break", "raise SystemExit(0)", "list(loader)", "loader = 1 / 0"]
)
def test_programs_end(ending):
    program = f"""
import graphtorch as torch
from graphtorch.utils.data import DataLoader, TensorDataset
data = TensorDataset(torch.randn(2000, 500))
loader = DataLoader(data, batch_size=100, num_workers=2, persistent_workers=True)
for batch in loader:
    print(batch[0].shape)
    {ending}
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == (1 if "1 / 0" in ending else 0), done.stderr
    assert "torch.Size([100, 500])" in done.stdout


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_workers": -1}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"prefetch_factor": 2}, ValueError),
        ({"persistent_workers": True}, ValueError),
        ({"multiprocessing_context": "fork"}, ValueError),
        ({"num_workers": 1, "multiprocessing_context": "thread"}, ValueError),
        ({"num_workers": 1, "multiprocessing_context": 3}, TypeError),
        ({"num_workers": 1, "prefetch_factor": -1}, ValueError),
        ({"batch_size": 0}, ValueError),
    ],
)
def test_arguments(options, error):
    with pytest.raises(error):
        DataLoader(Numbers(), **options)


def test_what_stays_fixed_and_what_is_said():
    loader = DataLoader(Numbers(), batch_size=2, pin_memory=True)
    with pytest.raises(ValueError, match="batch_size attribute should not be set"):
        loader.batch_size = 3
    with pytest.warns(UserWarning, match="pin_memory"):
        next(iter(loader))
    with pytest.warns(UserWarning, match="worker processes in total"):
        DataLoader(Numbers(), num_workers=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(DataLoader(Numbers())))


@pytest.mark.parametrize("drop_last", [False, True])
def test_distributed_sampler(drop_last):
    parts = [
        list(DistributedSampler(Numbers(10), 4, r, shuffle=False, drop_last=drop_last))
        for r in range(4)
    ]
    expected = (
        [[0, 4], [1, 5], [2, 6], [3, 7]]
        if drop_last
        else [[0, 4, 8], [1, 5, 9], [2, 6, 0], [3, 7, 1]]
    )
    assert parts == expected
    shuffled = DistributedSampler(Numbers(10), 2, 0, seed=1)
    before = list(shuffled)
    shuffled.set_epoch(1)
    assert len(shuffled) == 5 and list(shuffled) != before
    with pytest.raises(ValueError, match="Invalid rank"):
        DistributedSampler(Numbers(), 2, 2)


def test_shared_memory():
    x, net = torch.zeros(3), torch.nn.Linear(2, 1)
    part = x[1:]
    assert not x.is_shared()
    x.share_memory_()
    net.share_memory()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    before = net.weight.detach().clone()
    pid = os.fork()
    if pid == 0:  # the child trains, the parent sees it
        part.fill_(7)
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        os._exit(0)
    os.waitpid(pid, 0)
    assert x.tolist() == [0, 7, 7] and part.is_shared() and net.weight.is_shared()
    assert type(x.numpy()) is np.ndarray
    assert torch.allclose(before - net.weight, torch.full((1, 2), 0.5))
    x.add_(1)
    assert x.tolist() == [1, 8, 8] and not x.clone().is_shared()
    assert not torch.from_numpy(np.zeros(2)).is_shared()
