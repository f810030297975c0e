"""What hooks, kept gradients and requests for gradients see around writes in place; as PyTorch has
it."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch


def doubled(*shape: int) -> tuple[Any, Any]:
    x = torch.ones(shape).requires_grad_()
    return x, x * 2


def test_what_is_asked_for_is_before_the_hooks_unless_the_pass_ends_there() -> None:
    x, y = doubled(2)
    y.register_hook(lambda g: g * 10)
    assert [g.tolist() for g in torch.autograd.grad(y.sum(), [y, x])] == [[1, 1], [20, 20]]
    x, y = doubled(2)
    y.register_hook(lambda g: g * 10)
    assert torch.autograd.grad(y.sum(), y)[0].tolist() == [10, 10]
    x.register_hook(lambda g: g * 3)
    assert torch.autograd.grad((x * 2).sum(), x)[0].tolist() == [6, 6]


def test_hooks_stay_with_the_contents_they_were_registered_for() -> None:
    x, y = doubled(2)
    y.register_hook(lambda g: g * 10)
    y.mul_(3)
    assert [g.tolist() for g in torch.autograd.grad(y.sum(), [y, x])] == [[1, 1], [60, 60]]


@pytest.mark.parametrize("through_base", [False, True])
def test_a_kept_gradient_is_of_the_contents_now(through_base: bool) -> None:
    x, y = doubled(2, 3)
    y.retain_grad()
    if through_base:
        y[0].mul_(3)
    else:
        y.mul_(3)
    y.sum().backward()
    assert y.retains_grad and y.grad.tolist() == [[1] * 3] * 2
    assert x.grad.tolist() == ([[6] * 3, [2] * 3] if through_base else [[6] * 3] * 2)


def test_a_view_that_is_written_to_keeps_its_gradient_once() -> None:
    x, y = doubled(2, 3)
    view = y.reshape(-1)
    view.retain_grad()
    view.relu_()
    (view * 5).sum().backward()
    assert view.grad.tolist() == [5] * 6 and x.grad.tolist() == [[10] * 3] * 2


def test_gradients_of_linear_functions_have_no_history() -> None:
    x, y = doubled(3)
    (first,) = torch.autograd.grad((y * 1.5).sum(), x, create_graph=True)
    assert not first.requires_grad
    (first,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    assert first.requires_grad and torch.autograd.grad(first.sum(), x)[0].tolist() == [8, 8, 8]
    weight = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (first,) = torch.autograd.grad((x * weight).sum(), x, create_graph=True)
    assert torch.autograd.grad((first * first).sum(), weight)[0].tolist() == [2, 4, 6]


def test_a_copy_of_itself_is_a_write() -> None:
    x = torch.ones(2, 3)
    x[0].copy_(x[0])
    x.copy_(x)
    assert x._version == 2 and x.tolist() == [[1] * 3] * 2
    leaf = torch.ones(2).requires_grad_()
    with pytest.raises(RuntimeError, match="leaf Variable"):
        leaf.copy_(leaf)
    for wrong in (torch.ones(2, 2, 3), torch.ones(3, 2), torch.ones(1, 2, 3)):
        with pytest.raises(RuntimeError):
            x.copy_(wrong)


def test_gradients_by_nothing_are_refused() -> None:
    _, y = doubled(2)
    with pytest.raises(RuntimeError, match="cannot be empty"):
        torch.autograd.grad(y.sum(), [])
