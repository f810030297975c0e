"""Gradients that somebody asks for in the middle of a chain of views."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch


def chain(history: bool) -> tuple[Any, Any, Any, Any]:
    """A base with six elements, a view of it, and two views of that one."""
    leaf = torch.arange(6.0).requires_grad_()
    base = leaf * 1 if history else leaf
    view = base.view(2, 3)
    return leaf, base, view, view.t()


@pytest.mark.parametrize("history", [False, True])
def test_the_gradient_of_a_view_counts_what_its_own_views_pass_on(history: bool) -> None:
    _, base, view, turned = chain(history)
    loss = (turned[0] * 2).sum() + view.sum() + 5 * base[3]
    of_view, of_turned, of_base = torch.autograd.grad(loss, [view, turned, base])
    assert of_view.tolist() == [[3, 1, 1], [3, 1, 1]]
    assert of_turned.tolist() == [[2, 2], [0, 0], [0, 0]]
    assert of_base.tolist() == [3, 1, 1, 8, 1, 1]


@pytest.mark.parametrize("history", [False, True])
def test_hooks_of_a_view_see_and_change_what_its_views_pass_on(history: bool) -> None:
    leaf, _, view, turned = chain(history)
    seen: list[Any] = []
    view.register_hook(lambda g: seen.append(g.tolist()) or g * 10)
    view.retain_grad()
    (turned[1] * 3).sum().backward()
    assert seen == [[[0, 3, 0], [0, 3, 0]]]
    assert view.grad.tolist() == [[0, 30, 0], [0, 30, 0]]
    assert leaf.grad.tolist() == [0, 30, 0, 0, 30, 0]


def test_a_hook_stays_when_its_tensor_goes() -> None:
    leaf = torch.arange(6.0).requires_grad_()
    view = leaf.view(2, 3)
    view.register_hook(lambda g: g * 10)
    view = view[1]
    view.sum().backward()
    assert leaf.grad.tolist() == [0, 0, 0, 10, 10, 10]


def test_after_a_write_gradients_go_to_the_base() -> None:
    leaf, base, view, turned = chain(True)
    base.mul_(2)
    row = view[0]  # of the new elements
    assert torch.autograd.grad(turned.sum(), leaf, retain_graph=True)[0].tolist() == [2] * 6
    assert torch.autograd.grad((row * row).sum(), [view, leaf])[0].tolist() == [
        [0, 4, 8],
        [0, 0, 0],
    ]


def test_second_order_through_a_view_of_everything() -> None:
    x = torch.tensor([0.3, -0.7, 1.1])

    def twice(through_view: bool) -> list[float]:
        leaf = x.clone().requires_grad_()
        point = leaf.view_as(leaf) if through_view else leaf
        value = (point.sin() * point.roll(1)).sum()
        (first,) = torch.autograd.grad(value, point, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), leaf)[0].tolist()

    assert twice(True) == pytest.approx(twice(False))


def test_a_long_chain_of_views() -> None:
    leaf = torch.ones(3000, requires_grad=True)
    views = [leaf * 2]
    for _ in range(2000):
        views.append(views[-1][1:])
    (of_middle,) = torch.autograd.grad(views[-1].sum(), views[1000])
    assert of_middle.sum().item() == 1000
