"""The same call gives the same answer: on every tier up to rounding, natively to the bit for any
threads."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.backends import Buffer, compile

F = torch.nn.functional
TOOLS = Path(__file__).parent.parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
fuzz = importlib.import_module("fuzz_tiers")
sys.path.remove(str(TOOLS))


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_tiers_agree(first: int) -> None:
    outcomes = [fuzz.run(seed) for seed in range(first, first + 20)]
    assert not [f"{o.example}: {o.difference}" for o in outcomes if o.difference]
    assert not [f"{o.example}: {o.refused}" for o in outcomes if o.refused]


def test_native_tiers_agree_in_every_bit() -> None:
    torch.use_deterministic_algorithms(True)
    outcomes = [fuzz.run(seed, deterministic=True) for seed in range(500, 508)]
    assert not [f"{o.example}: {o.difference}" for o in outcomes if o.difference]


# ------------------------------------------------------------------------------------------ threads


def gradients(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The gradients of the first `count` arguments."""

    def run(*given: Any) -> Any:
        inputs = [t.detach().requires_grad_() for t in given[:count]]
        result = function(*inputs, *given[count:])
        return torch.autograd.grad((result * result).sum(), inputs)

    return run


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def places(limit: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(limit).integers(0, limit, shape)


def batch_norm(x: Any, w: Any) -> Any:
    return F.batch_norm(x, None, None, w, None, training=True)


def put(x: Any, i: Any, s: Any) -> Any:
    return x.index_put((i,), s, accumulate=True)


QUERY = normal(2, 4, 96, 16)
LARGE: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "full sum": (lambda x: (x.sum(), x.var(), x.norm()), [normal(900, 1100)]),
    "column sums": (lambda x: (x.sum(0), x.mean(0), x.amax(0)), [normal(20000, 33)]),
    "row sums": (lambda x: (x.sum(1), x.logsumexp(1)), [normal(3, 300000)]),
    "inner product": (lambda x, y: x @ y, [normal(24, 60000), normal(60000, 20)]),
    "product": (lambda x, y: x @ y, [normal(300, 500), normal(500, 400)]),
    "cumsum": (lambda x: (x.cumsum(0), x.cumsum(1)), [normal(600, 700)]),
    "scatter_add": (
        lambda x, i, s: x.scatter_add(0, i, s),
        [normal(50, 90), places(50, 4000, 90), normal(4000, 90)],
    ),
    "index_put": (put, [normal(40, 600), places(40, 3000), normal(3000, 600)]),
    "embedding": (
        gradients(lambda w, i: F.embedding(i, w), 1),
        [normal(100, 256), places(100, 64, 128)],
    ),
    "batch norm": (gradients(batch_norm, 2), [normal(16, 24, 28, 28), normal(24)]),
    "layer norm": (
        gradients(lambda x, w: F.layer_norm(x, (512,), w), 2),
        [normal(900, 512), normal(512)],
    ),
    "convolution": (
        gradients(lambda x, w: F.conv2d(x, w, padding=1), 2),
        [normal(8, 16, 24, 24), normal(16, 16, 3, 3)],
    ),
    "attention": (gradients(F.scaled_dot_product_attention, 3), [QUERY, QUERY + 1, QUERY - 1]),
    "cross entropy": (gradients(F.cross_entropy, 1), [normal(4000, 64), places(64, 4000)]),
    "sort": (lambda x: torch.sort(x, 0), [normal(5000, 40)]),
    "svd": (torch.linalg.svd, [normal(40, 12, 8)]),
    "pool": (gradients(lambda x: F.max_pool2d(x, 3, 2), 1), [normal(8, 16, 64, 64)]),
}


@pytest.mark.parametrize("name", LARGE)
def test_threads_do_not_change_a_bit(name: str) -> None:
    function, arrays = LARGE[name]
    traced = torch.trace(function, *map(torch.tensor, arrays))
    program = compile(traced.graph, "llvm")
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        results.append([b.numpy().tobytes() for b in program([Buffer.of(a) for a in arrays])])
    assert all(r == results[0] for r in results[1:])


def test_signs_and_order_do_not_depend_on_the_number_of_calls() -> None:
    matrix, line = torch.tensor(normal(6, 6)), torch.tensor([1.0, 0.0, 1.0, float("nan"), 0.0])

    def call() -> list[Any]:
        u, s, vh = torch.linalg.svd(matrix)
        values, vectors = torch.linalg.eigh(matrix + matrix.mT)
        return [u, s, vh, values, vectors, line.sort()[1], line.topk(3)[1], line.argmax()]

    first = call()
    for _ in range(4):
        for a, b in zip(first, call(), strict=True):
            assert torch.allclose(a.double(), b.double(), atol=1e-5)
