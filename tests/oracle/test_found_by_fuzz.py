"""Faults that random programs found, as small programs against PyTorch, plain and compiled."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import graphtorch


def checkpoint_of(m: Any) -> Any:
    return importlib.import_module(f"{m.__name__}.utils.checkpoint").checkpoint


def checkpointed_inputs_with_hooks(m: Any, compile: Any) -> Any:
    """Of an input's gradient hooks run once; an input may have been computed from another one."""
    found = []
    for reentrant in (False, True):
        p, q = m.ones(3, requires_grad=True), m.ones(3, requires_grad=True)
        p.register_hook(lambda g: g * 0.5)
        q.register_hook(lambda g: g * 0.25)
        h = p * 2
        h.register_hook(lambda g: g * 10)
        checkpoint_of(m)(
            lambda a, b, q=q: a * b * q, p, h, use_reentrant=reentrant
        ).sum().backward()
        found += [p.grad, q.grad]
    return found


def checkpointed_arguments_that_are_written_to(m: Any, compile: Any) -> Any:
    """After the call an argument may change: an error, if the gradient reads what is computed from
    it."""
    found: list[Any] = []
    for reentrant, function in (
        (False, m.square),
        (True, m.square),
        (False, lambda x: x + 1),
        (True, m.neg),
    ):
        for write in (lambda h, p: h.mul_(p), lambda h, p: h.data.mul_(2)):
            p = m.tensor([1.0, 2.0], requires_grad=True)
            h = p * 2 if reentrant else m.tensor([0.5, 0.25])
            loss = checkpoint_of(m)(
                lambda x, p=p, f=function: f(x) * p, h, use_reentrant=reentrant
            ).sum()
            write(h, p)
            try:
                loss.backward()
                found.append(p.grad)
            except RuntimeError as error:
                found.append("inplace operation" in str(error))
    return found


def checkpointed_functions_that_read_around_them(m: Any, compile: Any) -> Any:
    """What a function reads from outside may have a history, be an argument as well, or have led to
    one."""
    found: list[Any] = []
    p = m.tensor([0.5, 1.5], requires_grad=True)
    h = (p * 3).square()
    h.register_hook(lambda g: found.append(g))
    run = compile(
        lambda x: checkpoint_of(m)(lambda x: x * h * p * x.square(), x, use_reentrant=False)
    )
    for x in (p, p * 2, h, h.detach()):
        p.grad = None
        (run(x).sum() + h.sum()).backward(retain_graph=True)
        found.append(p.grad)
    (first,) = m.autograd.grad(run(p * p).sum(), p, create_graph=True)
    return [*found, *m.autograd.grad(first.sum(), [p, h])]


def orders_of_memory_after_a_branch(m: Any, compile: Any) -> Any:
    x = m.arange(6.0).reshape(2, 3).t()

    def chosen(test: Any, then: Any, orelse: Any) -> Any:
        return (then if test else orelse)(x) if m is torch else m.cond(test, then, orelse, (x,))

    run = compile(lambda test: chosen(test, lambda v: v * 2, lambda v: v.square() + v))
    made = [run(m.tensor(test)) for test in (True, False, True)]
    return [(list(t.stride()), t + 1) for t in made]


def aliases_that_leave_inference_mode(m: Any, compile: Any) -> Any:
    with m.inference_mode():
        x = m.ones(3) * 2
        with m.enable_grad():
            recorded = (x * m.ones(3, requires_grad=True)).requires_grad
    x.detach()[...] = x.detach() * 3
    x.data.add_(1)
    found = x.tolist(), recorded, x.data.is_inference()
    for write in (lambda: x.add_(1), lambda: x.detach()[1:].add_(1), lambda: x.requires_grad_()):
        with pytest.raises(RuntimeError):  # PyTorch has written by then
            write()
    return found


def zeros_in_a_gradients_own_memory(m: Any, compile: Any) -> Any:
    p = m.nn.Parameter(m.ones(3))
    optimizer = m.optim.SGD([p], lr=0.1)
    (p * 2).sum().backward()
    held = p.grad
    p.data = m.ones(3, dtype=m.float64)
    optimizer.zero_grad(set_to_none=False)
    return held, p.grad is held


def defaults_of_a_nested_compiled_function(m: Any, compile: Any) -> Any:
    def scaled(x: Any, by: float = 1.0) -> Any:
        return x * by

    part = compile(scaled)
    whole = compile(lambda x: part(x) + 1)
    found = [whole(m.ones(2)), whole(m.ones(2))]
    scaled.__defaults__ = (3.0,)
    return [*found, whole(m.ones(2)), whole(m.ones(2))]


def backward_hooks_of_modules(m: Any, compile: Any) -> Any:
    net = m.nn.Linear(2, 2)
    net.load_state_dict({"weight": m.ones(2, 2), "bias": m.zeros(2)})
    run = compile(lambda x: net(x).sum())
    seen: list[Any] = []
    net.register_full_backward_hook(lambda module, into, out: seen.append(out[0].tolist()))
    net.register_full_backward_hook(lambda module, into, out: (into[0] * 2,))
    found = []
    for _ in range(3):
        x = m.ones(1, 2, requires_grad=True)
        run(x).backward()
        found += [x.grad, len(seen), net.weight.grad.clone()]
    return found, seen


def constants_as_results(m: Any, compile: Any) -> Any:
    run = compile(lambda x, end: (m.arange(0.0, end, 0.5), m.eye(2), x.sum()))
    return [run(m.ones(2), end) for end in (2.0, 2.0, 3.0, 2.0)]


def products_of_empty_batches(m: Any, compile: Any) -> Any:
    run = compile(lambda x: m.linalg.det(x).sum())
    x = m.zeros(0, 3, 3, requires_grad=True)
    return [m.autograd.grad(run(x), x)[0] for _ in range(2)]


PROGRAMS: list[Callable[[Any, Any], Any]] = [
    checkpointed_inputs_with_hooks,
    checkpointed_arguments_that_are_written_to,
    checkpointed_functions_that_read_around_them,
    orders_of_memory_after_a_branch,
    aliases_that_leave_inference_mode,
    zeros_in_a_gradients_own_memory,
    defaults_of_a_nested_compiled_function,
    backward_hooks_of_modules,
    constants_as_results,
    products_of_empty_batches,
]


def told(x: Any) -> Any:
    if isinstance(x, (torch.Tensor, graphtorch.Tensor)):
        return list(x.shape), str(x.dtype), x.tolist()
    return [told(v) for v in x] if isinstance(x, (tuple, list)) else x


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", PROGRAMS)
def test_as_in_pytorch(program: Callable[[Any, Any], Any]) -> None:
    expected = told(program(torch, lambda f: f))
    assert told(program(graphtorch, lambda f: f)) == expected
    assert told(program(graphtorch, graphtorch.compile)) == expected


def test_a_checkpointed_argument_that_requires_grad_later() -> None:
    """PyTorch takes what the second run saves for what the first did not, and gives 0.5."""
    p, h = graphtorch.ones(1, requires_grad=True), graphtorch.tensor([0.5])
    loss = checkpoint_of(graphtorch)(lambda x: x.sin() * p, h, use_reentrant=False).sum()
    h.requires_grad_()
    loss.backward()
    assert p.grad.tolist() == h.detach().sin().tolist() and h.grad is None
