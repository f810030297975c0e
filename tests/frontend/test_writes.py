"""Gradients of what a write replaced: zeros, not nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch._deferred.storage import Leaf

WRITES: dict[str, Callable[[Any], Any]] = {
    "fill_": lambda y: y.fill_(3.0),
    "zero_": lambda y: y.zero_(),
    "copy_": lambda y: y.copy_(torch.ones(3)),
    "ellipsis": lambda y: y.__setitem__(..., 2.0),
    "none": lambda y: y.__setitem__(None, 2.0),
    "slice": lambda y: y.__setitem__(slice(None), torch.ones(3)),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_was_replaced_gets_zeros(name: str) -> None:
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    WRITES[name](y)
    assert y.requires_grad
    (y * y).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]


def test_what_was_copied_gets_its_gradient() -> None:
    x, source = (torch.ones(3, requires_grad=True) for _ in range(2))
    y = x * 2
    y.copy_(source)
    (y * 3).sum().backward()
    assert (x.grad.tolist(), source.grad.tolist()) == ([0, 0, 0], [3, 3, 3])


def test_writes_to_tensors_without_elements() -> None:
    y = torch.ones(5, 0)
    y[::2] = torch.ones(3, 0)
    y[()] = torch.zeros(5, 0)
    assert y.shape == (5, 0)


def test_ten_thousand_writes_record_nothing() -> None:
    x = torch.zeros(10_000)
    for i in range(10_000):
        x[i] = i
    assert type(x._storage.value) is Leaf
    assert x.tolist() == list(range(10_000))


def test_a_captured_write_is_part_of_the_graph() -> None:
    state = torch.zeros(3)
    state[0] = 1  # in memory from here on

    @torch.compile
    def f(x: Any) -> Any:
        y = torch.zeros(3)
        y[1] = 5
        x[0] = 7
        state[2] += 1
        return x + y

    for turn in range(3):
        x = torch.ones(3) * turn
        assert f(x).tolist() == [7, turn + 5, turn]
        assert x.tolist() == [7, turn, turn]
    assert state.tolist() == [1, 0, 3]


def test_a_compiled_function_sees_writes_to_its_weights() -> None:
    layer = torch.nn.Linear(16, 16, bias=False)
    f = torch.compile(layer)
    x = torch.eye(16)
    with torch.no_grad():
        for value in (2.0, 3.0, 4.0):
            layer.weight[0, 0] = value
            assert f(x)[0, 0].item() == value


def test_parts_in_memory_belong_to_whom_they_were_copied_for() -> None:
    x = torch.zeros(3, 2)
    x[0, 0] = 1
    copy = x[0].clone()
    copy.numpy()[1] = 9
    copy[0] = 5
    assert x.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert copy.tolist() == [5, 9]


def test_a_constant_of_a_program_is_not_written_to() -> None:
    def ones() -> Any:
        return torch.ones(3).exp().log().round()

    for _ in range(4):
        x = ones()
        x.sum().item()
        x[0] = 5
        assert x.tolist() == [5, 1, 1]


def test_a_loop_of_writes_to_pending_elements_does_not_grow_a_graph() -> None:
    x = torch.ones(100) * 2
    for i in range(100):
        x[i] += i
    assert x.tolist() == [2 + i for i in range(100)]
    y = x * 2
    for i in range(100):
        y[i] = i
    assert type(y._storage.value) is Leaf
    assert y.tolist() == list(range(100))


def test_a_part_of_shared_memory_is_read_without_the_rest() -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    x = torch.from_numpy(array)
    row, column, wide = x[1] + 0, x[:, 2] * 1, x[2:, :1].expand(2, 9) + 0
    assert [v.shape for v in row._storage.value.node.operands] == [(3,), ()]
    array[:] = -1
    assert row.tolist() == [3, 4, 5]
    assert column.tolist() == [2, 5, 8, 11]
    assert wide.sum().item() == (6 + 9) * 9


@pytest.mark.parametrize("pending", [False, True])
@pytest.mark.parametrize("detached", [False, True])
def test_a_write_to_one_of_several_repeats_is_seen_by_all(pending, detached):
    base = torch.arange(6.0).view(3, 2).clone()
    base = base * 1 if pending else base
    repeats = base.expand(2, 3, 2)
    repeats = repeats.detach() if detached else repeats
    repeats[1] = repeats.sum()
    assert base.tolist() == [[30, 30]] * 3 and repeats.tolist() == [[[30, 30]] * 3] * 2
    repeats[0, 1:].mul_(2)
    assert base.tolist() == [[30, 30], [60, 60], [60, 60]]
    repeats.transpose(0, 1)[2, 1, 0] = 7
    assert base.tolist() == [[30, 30], [60, 60], [7, 60]]


def test_the_gradient_of_a_write_to_one_of_several_repeats():
    x = torch.arange(4.0).requires_grad_()
    base = x * 1
    source = torch.tensor([5.0, 6.0], requires_grad=True)
    base.expand(3, 4)[1, 1:3] = source * source
    assert base.tolist() == [0, 25, 36, 3]
    base.mul(torch.tensor([1.0, 2, 3, 4])).sum().backward()
    assert x.grad.tolist() == [1, 0, 0, 4] and source.grad.tolist() == [20, 36]
