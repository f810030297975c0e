"""Memory and gradients of compiled functions: overlapping arguments, results that are views,
history."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends.llvm.executable import Packed
from sampling import sampled

from ..helpers.both_ways import Compile, agrees, filled, vector

TOOLS = Path(__file__).parent.parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
fuzz = importlib.import_module("fuzz_compile")
sys.path.remove(str(TOOLS))

# ---------------------------------------------------------------------------------------- arguments


def one_tensor_twice(compile: Compile) -> Any:
    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return a + b, a is b

    run, s, found = compile(f), torch.zeros(3), []
    for _ in range(2):
        found += [
            run(s, s),
            s.clone(),
            run(torch.zeros(3), torch.ones(3)),
            run(s, s.view(3)),
            run(s[:], s),
        ]
    return found


def overlapping_views(compile: Compile) -> Any:
    def f(a: Any, b: Any) -> Any:
        a.mul_(2)
        b.add_(1)
        return a.sum() + b

    def refused(a: Any, b: Any) -> Any:
        return b.add_(a)

    run, other, found = compile(f), compile(refused), []
    for _ in range(3):
        t = torch.arange(5.0)
        found += [run(t[:4], t[1:]), t, run(torch.ones(4), t[1:]), run(t[1:], t[1:])]
        found.append(other(torch.ones(4), t[1:]))
        try:
            other(t[:4], t[1:])
        except RuntimeError as error:
            found.append("single memory location" in str(error))
    return found


def an_argument_that_is_a_global(compile: Compile) -> Any:
    w, found = torch.ones(3), []

    def reads(x: Any) -> Any:
        x.add_(1)
        return w * 2 + x

    def writes(x: Any) -> Any:
        w.add_(x)
        return w * 2 + x

    for f in (reads, writes):
        run = compile(f)
        for x in (torch.ones(3), w, torch.ones(3), w[:], w.detach(), torch.ones(3), w):
            found += [run(x), w.clone()]
    return found


def parts_that_are_written(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        x.add_(1)
        return x * 2

    run, found = compile(f), []
    for _ in range(2):
        x, y, z = torch.zeros(6), torch.zeros(2, 3), torch.zeros(2, 3)
        found += [run(x[1:4]), x, run(y.t()), y, run(z[:, 1:]), z]
    return found


def changed_arguments(compile: Compile) -> Any:
    def flag(x: Any) -> Any:
        x.requires_grad_()
        return x * 2

    def turn(x: Any) -> Any:
        x.t_()
        return x * 2

    def data(x: Any) -> Any:
        x.data = torch.ones(2, 2)
        return x * 2

    def size(x: Any) -> Any:
        x.resize_(3)
        x.fill_(2.0)
        return x.sum()

    def gradient(x: Any) -> Any:
        x.grad = torch.ones(2, 3) * 3
        return x * 2

    found = []
    for f in (flag, turn, data, size, gradient):
        run = compile(f)
        for _ in range(3):
            x = torch.arange(6.0).reshape(2, 3).clone()
            y = run(x)
            found += [y, x.detach(), list(x.shape), x.requires_grad, y.requires_grad, x.grad]
    return found


def counted_writes(compile: Compile) -> Any:
    buffer = torch.ones(2)

    def f(x: Any) -> Any:
        x.add_(1)
        buffer.mul_(2)
        return x.sum()

    run, found = compile(f), []
    for _ in range(3):
        x, w = torch.ones(2), torch.ones(2, requires_grad=True)
        losses = (x * w).sum(), (buffer * w).sum()
        run(x)
        found += [x._version, buffer._version]
        for loss in losses:
            try:
                loss.backward()
            except RuntimeError as error:
                found.append("modified by an inplace operation" in str(error))
    return found


def memory_of_numpy(compile: Compile) -> Any:
    array = np.zeros(3, np.float32)
    t = torch.from_numpy(array)

    def f(x: Any) -> Any:
        t.add_(x)
        return t * 2

    def g(x: Any) -> Any:
        return x * float(x.numpy().sum())

    run, other, found = compile(f), compile(g), []
    for k in range(3):
        found += [run(torch.ones(3)), array.tolist(), other(torch.full((2,), float(k)))]
        array[0] = 10
    return found


# ------------------------------------------------------------------------------------------ results


def views_of_arguments(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        return x[1:], x.view(2, 2), x.view(2, 2).t(), x.detach(), x, x.data

    run, found = compile(f), []
    for _ in range(3):
        for x in (torch.arange(4.0), torch.arange(8.0)[2:6]):
            results = run(x)
            for i, one in enumerate(results):
                one.add_(i + 1)
            found += [x, list(results), results[4] is x, results[2].stride(), results[0]._version]
    return found


def views_of_views(compile: Compile) -> Any:
    run, found = compile(lambda x: x[1:]), []
    for _ in range(3):
        a, b = torch.arange(8.0), torch.arange(8.0).view(2, 4)
        run(a[2:7]).add_(1), run(b.t()).add_(1), run(b[:, 1:]).add_(1)
        found += [a, b]
    return found


def views_of_state(compile: Compile) -> Any:
    model, cache = nn.Linear(2, 2), torch.zeros(4)
    run, found = (
        compile(lambda x: (model.weight, model.weight.t(), model.weight.detach(), cache[1:])),
        [],
    )
    for _ in range(3):
        a, b, c, d = run(torch.ones(1))
        d.add_(3)
        c.fill_(5.0)
        found += [a is model.weight, b.requires_grad, c.requires_grad, model.weight, cache]
    return found


def views_of_each_other(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        h = x * 2
        return h, h[1:], h.detach(), h, (x + 1).view(2, 2).t(), torch.zeros(2, 3).chunk(3, 1)

    run, found = compile(f), []
    for _ in range(3):
        x = torch.arange(4.0, requires_grad=True)
        a, b, c, again, turned, parts = run(x)
        b.mul_(3)
        parts[0].add_(1)
        found += [a, c, a is again, turned.stride(), list(parts), c.requires_grad]
        (a.sum() + turned[0].sum()).backward()
        found.append(x.grad)
    return found


def gradients_of_views(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        return x.view(2, 2), (x * 2)[1:], (x * 3).view(2, 2).t(), (x * 4).squeeze()

    run, found = compile(f), []
    for _ in range(3):
        x = torch.arange(4.0, requires_grad=True)
        a, b, c, d = run(x)
        (a.sum() + b.sum() * 2 + c[0].sum() + d.sum()).backward()
        found += [
            x.grad,
            [t.requires_grad for t in (a, b, c, d)],
            [t.is_leaf for t in (a, b, c, d)],
        ]
    return found


class Pair(NamedTuple):
    a: Any
    b: Any


def kinds_of_containers(compile: Compile) -> Any:
    run, found = (
        compile(lambda x: (OrderedDict(a=x * 2), Pair(x + 1, 3), [x], {"k": (x, None)})),
        [],
    )
    for _ in range(3):
        results = run(vector(1))
        found += [type(r).__name__ for r in results] + [results[0]["a"], results[1].a, results[1].b]
    return found


# ---------------------------------------------------------------------------------------- gradients


def history_of_arguments(compile: Compile) -> Any:
    twice, summed, found = compile(lambda x: x * 2), compile(lambda x: (x * x).sum()), []
    for _ in range(3):
        w = torch.ones(3, 2, requires_grad=True)
        h = twice(twice(w * 3))
        (summed(h[0]) + summed(h[1]) + summed(w)).backward()
        found.append(w.grad)
    return found


def backward_inside(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        loss = (x * x).sum()
        loss.backward()
        return loss

    def g(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad * 2

    run, read, w, found = compile(f), compile(g), torch.ones(3, requires_grad=True), []
    for _ in range(3):
        found += [read(w), w.grad.clone()]
        for x in (w, w * 3):
            loss = run(x)
            found += [w.grad.clone(), loss.requires_grad]
            try:
                loss.backward()
            except RuntimeError as error:
                found.append("second time" in str(error))
    w.grad = None
    return [*found, read(w)]


def backward_twice(compile: Compile) -> Any:
    model = filled(nn.Linear(2, 1, bias=False))

    def f(x: Any) -> Any:
        model.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward(retain_graph=True)
        return loss

    run, found = compile(f), []
    for _ in range(3):
        loss = run(torch.ones(1, 2))
        found.append(model.weight.grad.clone())
        loss.backward()
        found.append(model.weight.grad.clone())
    return found


def parts_of_a_freed_graph(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        h = x.exp()
        h.sum().backward()
        return h * 2, x * 3

    run, found = compile(f), []
    for _ in range(3):
        x = torch.ones(2, requires_grad=True)
        gone, fresh = run(x)
        fresh.sum().backward()
        found += [x.grad, gone.requires_grad]
        try:
            gone.sum().backward()
        except RuntimeError as error:
            found.append("second time" in str(error))
    return found


def second_derivatives(compile: Compile) -> Any:
    w = torch.tensor([0.5, 2.0], requires_grad=True)
    run, found = compile(lambda x: ((x**3 * w).sin(), x[1:] * w[0])), []
    for _ in range(2):
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        y, z = run(x)
        first = torch.autograd.grad(y.sum() + z.sum() ** 2, (x, w), create_graph=True)
        found += [first, torch.autograd.grad(sum(g.square().sum() for g in first), (x, w))]
    return found


def writes_with_a_history(compile: Compile) -> Any:
    w, buffer = torch.ones(2, requires_grad=True), torch.zeros(2)

    def f(x: Any) -> Any:
        x.mul_(w)
        buffer.copy_(x * w)
        return x.sum()

    run, found = compile(f), []
    for k in range(3):
        x = torch.full((2,), k + 1.0)
        y = run(x)
        w.grad = None
        (x.sum() + y + buffer.sum()).backward()
        found += [x.requires_grad, buffer.requires_grad, w.grad]
        buffer.detach_()
    return found


def hooks_on_older_tensors(compile: Compile) -> Any:
    weight = vector(1, 2).requires_grad_()
    seen: list[Any] = []

    def hooked(x: Any) -> Any:
        x.register_hook(lambda g: g * 2)
        return x

    def kept(x: Any) -> Any:
        x.retain_grad()
        return x * 3

    def noted(x: Any) -> Any:
        weight.register_hook(lambda g: seen.append(g.sum().item()))
        return x * weight

    def node(x: Any) -> Any:
        x.grad_fn.register_hook(lambda inputs, outputs: seen.append(outputs[0].sum().item()))
        return x + 1

    found: list[Any] = []
    runs = [compile(f) for f in (hooked, kept, noted, node)]
    for run in runs:
        for _ in range(3):
            leaf = vector(1, 2).requires_grad_()
            x = leaf * 2
            (run(x).sum() + x.sum()).backward()
            found += [leaf.grad, x.grad, weight.grad]
    return found, seen


def sparse_gradients_outside(compile: Compile) -> Any:
    table = nn.Embedding(5, 2, sparse=True)
    with torch.no_grad():
        table.weight.copy_(torch.arange(10.0).reshape(5, 2) / 10)
    optimizer = torch.optim.SparseAdam(list(table.parameters()), lr=0.1)
    run, found = compile(lambda i: table(i).square().sum()), []
    for k in range(4):
        optimizer.zero_grad()
        run(torch.tensor([k, k, 1])).backward()
        found += [table.weight.grad.is_sparse, table.weight.grad.to_dense()]
        optimizer.step()
    return found, table.weight


def aliases_of_older_tensors(compile: Compile) -> Any:
    weight, buffer = vector(1, 2).requires_grad_(), vector(3, 4)
    found: list[Any] = []
    for f in (
        lambda: weight.detach(),
        lambda: weight.data,
        lambda: buffer.detach(),
        lambda: buffer[1:].detach(),
        lambda: buffer,
        lambda: weight.detach().detach()[1:],
        lambda: buffer.detach().requires_grad_(),
    ):
        run = compile(f)
        results = [run() for _ in range(3)]
        results[0].requires_grad_()
        found += [
            len({id(r) for r in results}),
            [r.requires_grad for r in results],
            buffer.requires_grad,
        ]
        with torch.no_grad():
            results[1].mul_(2)
        buffer.requires_grad_(False)
        found += [results[2], weight, buffer, weight._version, buffer._version]
    return found


def writes_through_data_before_the_gradient(compile: Compile) -> Any:
    weight, found = vector(1, 2).requires_grad_(), []
    run = compile(lambda x: (x * weight).sin().sum() + weight.square().sum())
    for which in range(4):
        x = vector(3, 4).requires_grad_()
        given = x if which < 3 else x[:]
        loss = run(given)
        if which == 1:
            weight.data.mul_(2)
        if which > 1:
            given.data[0] = 7.0
        weight.grad = None
        loss.backward()
        found += [x.grad, weight.grad]

    def inside(x: Any) -> Any:
        made = x * weight
        weight.data.mul_(0.9)
        return made

    again = compile(inside)
    for _ in range(3):
        weight.grad = None
        again(weight * 2).sum().backward()
        found += [weight.grad, weight]
    return found


def hooks_inside(compile: Compile) -> Any:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        h = x * 2
        h.register_hook(lambda g: g * 10)
        h.retain_grad()
        kept.append(h)
        return h * 3

    run, found = compile(f), []
    for _ in range(4):
        x = torch.ones(2, requires_grad=True)
        run(x).sum().backward()
        found += [x.grad, kept[-1].grad]
    return found


def complex_numbers(compile: Compile) -> Any:
    run = compile(lambda x: torch.view_as_real(torch.view_as_complex(x) * 1j))
    return [run(torch.tensor([[1.0, 2.0]])) for _ in range(3)]


def values_and_parts(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        x.add_(1)
        if x.sum() > 3:
            x.mul_(2)
        return x[1:]

    run, found = compile(f), []
    for _ in range(3):
        x = torch.zeros(6)
        run(x[1:5]).add_(1)
        found.append(x)
    return found


def leaves_over_arguments(compile: Compile) -> Any:
    run, found = compile(lambda x: (x.detach().requires_grad_(), x.detach())), []
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        x = vector(1, 2)
        for _ in range(2):
            with mode():
                leaf, plain = run(x)
            found += [leaf.requires_grad, plain.requires_grad, leaf.is_leaf, leaf]
    (leaf * 2).sum().backward()
    leaf.detach().mul_(3)
    return [*found, leaf.grad, x]


def changed_before_backward(compile: Compile) -> Any:
    """What a gradient reads must not have been written to in place since; what it does not may
    have."""
    layer, found = filled(nn.Linear(2, 2)), []

    def f(x: Any, w: Any) -> Any:
        return layer(x).exp(), (x * w).sum(), x + 1

    def outcome(y: Any) -> Any:
        try:
            y.sum().backward()
        except RuntimeError as error:
            return "inplace operation" in str(error)
        return layer.weight.grad, layer.bias.grad

    run = compile(f)
    for which in range(6):
        layer.zero_grad()
        x, w = vector(1, 2).requires_grad_(), vector(3, 4)
        a, b, c = run(x, w)
        with torch.no_grad():
            if which == 0:
                layer.weight.add_(1)
            if which == 1:
                w.mul_(2)
            if which == 2:
                a.mul_(2)
            if which == 3:
                c.mul_(2)
            if which == 4:
                layer.bias.add_(1)
        found += [outcome(a + b), x.grad is None]
    return found


PROGRAMS = [
    one_tensor_twice,
    overlapping_views,
    an_argument_that_is_a_global,
    parts_that_are_written,
    changed_arguments,
    counted_writes,
    memory_of_numpy,
    views_of_arguments,
    views_of_views,
    views_of_state,
    views_of_each_other,
    gradients_of_views,
    kinds_of_containers,
    history_of_arguments,
    backward_inside,
    backward_twice,
    parts_of_a_freed_graph,
    second_derivatives,
    writes_with_a_history,
    hooks_inside,
    hooks_on_older_tensors,
    writes_through_data_before_the_gradient,
    sparse_gradients_outside,
    aliases_of_older_tensors,
    complex_numbers,
    values_and_parts,
    changed_before_backward,
    leaves_over_arguments,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_memory_and_gradients(program: Callable[[Compile], Any]) -> None:
    agrees(program)


def test_a_sample_of_random_programs() -> None:
    for seed in range(40):
        assert fuzz.failure(seed) is None, str(fuzz.program(seed))


@pytest.mark.parametrize("first", sampled(range(1000, 1500, 50), 3))
def test_random_programs(first: int) -> None:
    """Recorded and replayed as ever; what is replayed runs op by op, which spares the time for
    compiling."""
    command = [sys.executable, TOOLS / "fuzz_compile.py", "--count", "50", "--first", str(first)]
    run = subprocess.run(
        command,
        env={**os.environ, "GRAPHTORCH_TARGET": "reference"},
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    "change",
    [
        "data",
        "written",
        "data and written",
        "of the argument",
        "and back",
        "the old one written",
        "counted",
    ],
)
def test_data_set_before_the_backward_pass(change: str) -> None:
    """What was saved counts, unless its memory was written to: as without `compile`."""

    def program(compile: Compile) -> Any:
        w, x = vector(1, 2, 3).requires_grad_(), vector(1, 1, 2).requires_grad_()
        f, found = compile(lambda x: (x * w).exp().sum()), []
        for k in range(3):
            w.grad = x.grad = None
            y, old, new = f(x), w.data, vector(0.5, 1, 2) + k
            if change == "written":
                w.data.copy_(new)
            elif change == "of the argument":
                x.data = new
            else:
                w.data = new
            if change == "data and written":
                w.data.add_(1)
            elif change == "and back":
                w.data = old
            elif change == "the old one written":
                old.mul_(0.5)
            elif change == "counted":
                with torch.no_grad():
                    w.add_(1)
            try:
                y.backward()
            except RuntimeError as error:
                found.append("modified by an inplace operation" in str(error))
            found += [x.grad, w.grad]
        return found

    agrees(program)


def test_an_older_view_is_returned_as_itself() -> None:
    base = torch.arange(6.0)
    view = base.view(2, 3)
    for function in (
        lambda: view,
        lambda: view.mul_(1),
        lambda: (view.view(3, 2).add_(0), view)[1],
        lambda: (base.add_(0), view, view[0])[1],
    ):
        compiled = torch.compile(function)
        assert all(compiled() is view for _ in range(3)) and compiled.recorded == 1
    shown = torch.compile(lambda: view[0])
    assert shown() is not shown() and shown()._base is base


def test_an_older_view_is_turned_at_each_call() -> None:
    for turn in (lambda v: v.t_(), lambda v: (v.t_(), v * 2)[1], lambda v: v.unsqueeze_(0)):
        found = []
        for wrap in (torch.compile, lambda f: f):
            view = torch.arange(6.0).view(2, 3)
            function = wrap(lambda turn=turn, view=view: turn(view))
            found.append([(function().tolist(), view.stride(), view.tolist()) for _ in range(2)])
        assert found[0] == found[1]


def test_weights_that_were_looked_at_are_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is packed anew at each call for as long as an array outside may write to it, and no
    longer."""
    packed = 0

    def counted(self: Packed, *arguments: Any) -> Any:
        nonlocal packed
        packed += 1
        return make(self, *arguments)

    make = Packed._make
    monkeypatch.setattr(Packed, "_make", counted)
    net = nn.Linear(40, 24, bias=False).eval()
    run, x = torch.compile(net), torch.ones(8, 40)

    def called() -> float:
        with torch.no_grad():
            return run(x)[0, 0].item()

    before = net.weight.detach().numpy().sum(1)[0]
    for _ in range(4):
        assert called() == pytest.approx(before, abs=1e-5)
    assert packed == 1
    outside = net.weight.detach().numpy()
    for value in (1.0, 2.0, 3.0):
        outside[:] = value
        assert called() == pytest.approx(40 * value)
    assert packed == 4
    del outside
    for _ in range(4):
        assert called() == pytest.approx(120.0)
    assert packed <= 5
