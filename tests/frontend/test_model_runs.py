"""Whole models: the same bits for any number of threads, and from many Python threads, also in a
forked process."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
sys.path.insert(0, str(BENCH))
zoo = importlib.import_module("zoo")
sys.path.remove(str(BENCH))


@pytest.fixture
def deterministic() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@cache
def start(name: str) -> dict[str, torch.Tensor]:
    """Weights and statistics that a model begins with."""
    torch.manual_seed(0)
    source = zoo.MODELS[name]
    inputs = [torch.from_numpy(a) for a in source.arrays(True)]
    return zoo.lively(torch, source.build(torch, True), inputs).state_dict()


def lively(name: str) -> tuple[Any, list[torch.Tensor]]:
    torch.manual_seed(0)
    source = zoo.MODELS[name]
    model = source.build(torch, True).eval()
    model.load_state_dict(start(name))
    return model, [torch.from_numpy(a) for a in source.arrays(True)]


def as_bytes(tensors: Any) -> list[bytes]:
    return [t.detach().numpy().tobytes() for t in zoo.flat(tensors)]


NAMES = ["mobilenetv3", "convnext_t", "unet", "swin_t", "gpt2", "tcn"]


@pytest.mark.parametrize("name", NAMES)
def test_a_forward_pass_has_the_same_bits(name: str, deterministic: None) -> None:
    model, inputs = lively(name)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        with torch.no_grad():
            results += [as_bytes(torch.compile(model)(*inputs)) for _ in range(2)]
    assert all(r == results[0] for r in results[1:])


def trained(name: str) -> list[bytes]:
    """Losses and weights after two steps."""
    model, inputs = lively(name)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    @torch.compile
    def step(*inputs: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(t.square().mean() for t in zoo.flat(model(*inputs)))
        loss.backward()
        optimizer.step()
        return loss

    batch = [torch.cat([x, x.flip(-1)]) if x.ndim == 4 else x for x in inputs]
    losses = [step(*batch) for _ in range(2)]
    return as_bytes([*losses, *model.parameters(), *model.buffers()])


@pytest.mark.parametrize("name", ["mobilenetv3", "unet", "bertbase", "gpt2", "tcn"])
def test_training_has_the_same_bits(name: str, deterministic: None) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results += [trained(name) for _ in range(threads)]
    assert all(r == results[0] for r in results[1:])


SERVER = """
import os, sys, threading, time
import numpy as np
sys.path.insert(0, sys.argv[1])
import graphtorch as torch
import zoo

NAMES = ["mobilenetv3", "bertbase", "gpt2", "tcn"]
torch.set_num_threads(2)
calls, expected, failures = [], [], []
for name in NAMES:
    torch.manual_seed(0)
    source = zoo.MODELS[name]
    arrays = source.arrays(True)
    model = source.build(torch, True)
    model = zoo.lively(torch, model, [torch.from_numpy(a) for a in arrays])
    run = torch.compile(model)

    def call(run=run, arrays=arrays):
        with torch.no_grad():
            return [t.numpy() for t in zoo.flat(run(*map(torch.from_numpy, arrays)))]

    with torch.no_grad():
        plain = [t.numpy() for t in zoo.flat(model(*map(torch.from_numpy, arrays)))]
    calls.append(call)
    expected.append(call())
    assert zoo.error(expected[-1], plain) < 1e-5, name

def work(first):
    try:
        for i in range(first, first + 200):
            for found, wanted in zip(calls[i % 4](), expected[i % 4], strict=True):
                np.testing.assert_array_equal(found, wanted)
    except BaseException as error:
        failures.append(error)

def serve():
    workers = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for w in workers: w.start()
    for w in workers: w.join()
    if failures: raise failures[0]

def idle():
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.5)
    return time.process_time() - before

serve()
print("idle", idle(), flush=True)
child = os.fork()
if child == 0:
    status = 1
    try:
        serve()
        print("idle", idle(), flush=True)
        status = 0
    finally:
        os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
serve()
print("served")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_many_threads_then_a_fork() -> None:
    """Sixteen threads call four models 200 times each, then in a child as well: no hang, the same
    bits; and threads without work take no processor time."""
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", SERVER, str(BENCH)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *idle, last = done.stdout.splitlines()
    assert last == "served" and len(idle) == 2
    assert all(float(line.split()[1]) < 0.02 for line in idle), idle
