"""Generators: states that are values, in plain and compiled code, in files and between threads."""

from __future__ import annotations

import copy
import io
import math
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred import programs
from graphtorch._random import quick
from graphtorch.nn import functional as F
from graphtorch.utils.checkpoint import checkpoint


@pytest.fixture
def philox() -> Iterator[None]:
    torch.set_random_stream("philox")
    yield
    torch.set_random_stream("mersenne")


def numbers(function: Callable[..., Any], calls: int = 4) -> list[np.ndarray]:
    """What calls give whose numbers are mixed with draws between them, and the state after all."""
    torch.manual_seed(3)
    found = []
    for i in range(calls):
        x = torch.arange(6.0).reshape(2, 3).requires_grad_()
        results = function(x)
        results = results if isinstance(results, tuple) else (results,)
        total = sum(r.sum() for r in results if r.requires_grad)
        if isinstance(total, torch.Tensor):
            total.backward()
            found.append(x.grad.numpy())
        found += [r.detach().numpy() for r in results]
        found.append(torch.rand(i + 1).numpy())
    return [*found, torch.get_rng_state().numpy()]


def unused(x: torch.Tensor) -> torch.Tensor:
    torch.randn(40)
    return x * 2


def counted(x: torch.Tensor) -> torch.Tensor:
    return torch.poisson(x.detach() + 3) + x


def mixed(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x + torch.randn(3), torch.randperm(7), torch.randint(0, 9, (2,)), torch.randn(20) * 0.5


GIVEN = torch.Generator().manual_seed(11)
torch.manual_seed(2)
MODEL = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.4), nn.ReLU(), nn.Linear(8, 2), nn.Dropout(0.1))
FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "dropout": lambda x: F.dropout(x, 0.5),
    "model": MODEL,
    "unused": unused,
    "counted": counted,
    "mixed": mixed,
    "rrelu": lambda x: F.rrelu(x - 2, training=True),
    "given": lambda x: x * torch.rand(2, 3, generator=GIVEN) + torch.rand(2, 3),
    "filled": lambda x: x + torch.empty(3, 2).t().uniform_(-1, 1),
    "checkpoint": lambda x: checkpoint(
        lambda y: F.dropout(y, 0.5).square(), x, use_reentrant=False
    ),
    "chosen": lambda x: x * 2 if torch.rand(()) > 0.5 else x + torch.rand(()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("stream", ["mersenne", "philox"])
def test_compiled_draws_are_plain_ones(name: str, stream: str) -> None:
    torch.set_random_stream(stream)
    GIVEN.use(stream)
    try:
        results = []
        for function in (FUNCTIONS[name], torch.compile(FUNCTIONS[name])):
            GIVEN.manual_seed(11)
            results.append(numbers(function))
        for plain, compiled in zip(*results, strict=True):
            # sums with the numbers may round together: a few roundings of terms of the size of 1
            np.testing.assert_allclose(plain, compiled, 1e-6, 5e-7)
    finally:
        torch.set_random_stream("mersenne")
        GIVEN.use("mersenne")


def test_another_stream_is_another_recording() -> None:
    compiled = torch.compile(lambda: torch.rand(3))
    torch.manual_seed(0)
    first = compiled()
    torch.set_random_stream("philox")
    torch.manual_seed(0)
    other = compiled()
    torch.manual_seed(0)
    assert torch.equal(other, torch.rand(3)) and not torch.equal(other, first)
    torch.set_random_stream("mersenne")
    torch.manual_seed(0)
    assert torch.equal(compiled(), first)


def test_states_of_philox(philox: None) -> None:
    generator = torch.Generator().manual_seed(5)
    torch.rand(10, generator=generator)
    state = generator.get_state()
    assert state.shape == (16,) and generator.get_offset() == 6
    first = torch.rand(4, generator=generator)
    generator.set_state(state)
    assert torch.equal(first, torch.rand(4, generator=generator))
    generator.set_offset(6)
    assert torch.equal(first, torch.rand(4, generator=generator))


def test_unread_draws_move_the_stream() -> None:
    torch.manual_seed(1)
    for _ in range(300):
        torch.rand(5)
    found = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(found, torch.rand(302 * 5)[1500:1502])


def test_copies_and_files() -> None:
    generator = torch.Generator().manual_seed(2)
    torch.randn(3, generator=generator)  # one number is kept
    copies = [
        copy.deepcopy(generator),
        pickle.loads(pickle.dumps(generator)),
        generator.clone_state(),
    ]
    kept = io.BytesIO()
    torch.save({"rng": generator.get_state()}, kept)
    kept.seek(0)
    copies.append(torch.Generator().set_state(torch.load(kept)["rng"]))
    expected = torch.randn(5, generator=generator)
    for one in copies:
        assert one.initial_seed() == 2 and torch.equal(torch.randn(5, generator=one), expected)


def test_bad_states_are_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(TypeError, match="ByteTensor"):
        generator.set_state(torch.zeros(5056))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="5,056"):
        generator.set_state(torch.zeros(12, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="mt19937"):
        generator.set_state(torch.zeros(5056, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="philox state"):
        generator.set_state(torch.full((16,), 255, dtype=torch.uint8))
    with pytest.raises(ValueError, match="'mersenne', 'philox'"):
        torch.set_random_stream("pcg")
    with pytest.raises(TypeError, match="generator"):
        torch.rand(2, generator=3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="offset"):
        generator.get_offset()


def test_no_number_is_drawn_by_two_threads() -> None:
    found: list[float] = []

    def draw() -> None:
        for _ in range(50):
            found.extend(torch.rand(3).tolist())

    torch.manual_seed(8)
    threads = [threading.Thread(target=draw) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    torch.manual_seed(8)
    assert sorted(found) == sorted(torch.rand(600).tolist())


def test_bodies_of_loops_refuse_to_draw() -> None:
    with pytest.raises(RuntimeError, match="random numbers"):
        torch.while_loop(lambda i: i < 3, lambda i: (i + torch.rand(()),), (torch.zeros(()),))


DRAWS: list[Callable[[], torch.Tensor]] = [
    lambda: torch.rand(3),
    lambda: torch.randn(20),
    lambda: torch.randperm(5),
    lambda: torch.randint(0, 9, (4,)),
    lambda: torch.empty(2, 3).exponential_(),
    lambda: torch.randn(3, dtype=torch.float64),
    lambda: torch.empty(9).bernoulli_(0.3),
    lambda: F.dropout(torch.ones(5), 0.2),
]


@pytest.mark.parametrize("stream", ["mersenne", "philox"])
def test_draws_that_come_again_are_the_same(
    stream: str, philox: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded, run at once op by op, and as programs."""
    torch.set_random_stream(stream)
    for draw in DRAWS:
        found = []
        for way in ("recorded", "op by op", "compiled"):
            quick.programs.clear()
            quick.families.clear()
            monkeypatch.setattr(quick, "SMALL", 0 if way == "recorded" else 1 << 16)
            with monkeypatch.context() as patch:
                patch.setattr(programs, "_structures", {})  # what other tests made programs of
                patch.setattr(programs, "LOAD_NS", 0 if way == "compiled" else math.inf)
                patch.setattr(programs, "AGAIN", 0)
                torch.manual_seed(6)
                found.append(np.stack([draw().numpy().copy() for _ in range(8)]))
                found.append(torch.get_rng_state().numpy())
            native = [p.program is not None for p in quick.programs.values()]
            assert native == ([] if way == "recorded" else [way == "compiled"])
        for numbers, state in zip(found[2::2], found[3::2], strict=True):
            np.testing.assert_allclose(found[0], numbers, 1e-6)
            np.testing.assert_array_equal(found[1], state)


def test_draws_at_once_leave_other_readers_of_the_state_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        torch.rand(7, generator=generator)
    state, copied, marked = generator.get_state(), generator.clone_state(), generator.mark()
    first = torch.rand(7, generator=generator)
    assert torch.equal(first, torch.rand(7, generator=copied))
    generator.back_to(marked)
    assert torch.equal(first, torch.rand(7, generator=generator))
    generator.set_state(state)
    assert torch.equal(first, torch.rand(7, generator=generator))


def test_draws_go_on_from_a_state_that_waits() -> None:
    """After a draw too large to run at once comes one that is not."""
    parts = (3, 3, 3, quick.SMALL + 1, 3, 3)
    torch.manual_seed(9)
    expected = torch.rand(sum(parts))
    torch.manual_seed(9)
    assert torch.equal(torch.cat([torch.rand(n) for n in parts]), expected)
