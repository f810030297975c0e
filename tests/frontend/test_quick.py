"""What is recorded in machine code is what the functions in Python record."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import graphtorch as torch
from graphtorch._deferred import quick
from graphtorch._deferred.running import recorder
from graphtorch._deferred.walk import Walk
from graphtorch._ops import base
from graphtorch.ir import ops
from graphtorch.ir.graph import located
from graphtorch.ir.op import Op
from graphtorch.ir.passes.autodiff import Template

NATIVE = quick.recording(base._record, base.DENSE)
# methods in machine code, and those in Python that they stand for
METHODS = {
    (Op, "__call__"): (Op.__dict__["__call__"], quick.IN_PYTHON["__call__"]),
    (Walk, "_visit"): (Walk.__dict__["_visit"], quick.IN_PYTHON["_visit"]),
    (Template, "made"): (Template.__dict__["made"], quick.IN_PYTHON["made"]),
}


def use(native: bool) -> None:
    base.record = NATIVE if native else base._record
    for (kind, name), choice in METHODS.items():
        type.__setattr__(kind, name, choice[not native])


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    use(True)
    yield
    use(True)


def both(program: Callable[[], Any]) -> Any:
    """What a program gives, which is the same either way. (The first time some of it runs op by op,
    which keeps more.)"""
    found = []
    for native in (False, False, True):
        use(native)
        torch.manual_seed(3)
        with located(None):  # some operations leave out to say where they are
            found.append(program())
    assert found[1] == found[2]
    return found[1]


def shown(tensors: list[Any]) -> Any:
    """Structure of the pending graph and of the autograd graph, and the numbers."""
    values = [t._value() for t in tensors]
    walk = Walk(values)
    lines = [(n.op.name, n.attrs, n.types, n.location and n.location.line) for n in walk.nodes]
    history = [edges(t.grad_fn) for t in tensors]
    kinds = [(t.requires_grad, t.is_leaf, t.output_nr, t.stride(), t._version) for t in tensors]
    numbers = repr([t.tolist() for t in tensors])  # in which NaN is equal to itself
    return walk.key(values)[1], lines, history, kinds, numbers


def edges(fn: Any, depth: int = 6) -> Any:
    if fn is None or not depth:
        return None
    return fn.name(), [(edges(one, depth - 1), number) for one, number in fn.next_functions]


STEPS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: a - 0.25 * b,
    lambda a, b: a * a,
    lambda a, b: torch.tanh(a) @ b,
    lambda a, b: a.t() * 2,
    lambda a, b: a.t() @ b[:, :4],
    lambda a, b: a.reshape(2, 8).sum(1, keepdim=True).expand(2, 8).reshape(4, 4),
    lambda a, b: a.max(1)[0] + b,
    lambda a, b: torch.where(a > b, a, b),
    lambda a, b: torch.cat([a, b.detach()])[2:6],
    lambda a, b: a.softmax(-1),
    lambda a, b: (a[0] * b[1]).unsqueeze(0) + a,
    lambda a, b: a.argmax(1, keepdim=True) + b,
    lambda a, b: torch.nn.functional.linear(a, b, b[0]),
    lambda a, b: a.clone().mul_(b),
    lambda a, b: a.transpose(0, 1).exp().contiguous(),
    lambda a, b: sum((a, b, a, b)),
]


@pytest.mark.parametrize("seed", range(40))
def test_programs(seed: int) -> None:
    def program() -> Any:
        choice = random.Random(seed)
        tensors = [torch.randn(4, 4), torch.randn(4, 4, requires_grad=True), torch.ones(4, 4)]
        tensors += [torch.nn.Parameter(torch.randn(4, 4)), tensors[1] * 1]
        for _ in range(choice.randint(3, 25)):
            with torch.set_grad_enabled(choice.random() < 0.8):
                a, b = choice.choice(tensors), choice.choice(tensors)
                tensors.append(choice.choice(STEPS)(a, b))
            if choice.random() < 0.1:
                tensors[-1].tolist()
        return shown(tensors)

    both(program)


def test_gradients() -> None:
    def program() -> Any:
        net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        step = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(4):
            step.zero_grad()
            loss = net(torch.randn(3, 4)).square().mean()
            loss.backward()
            step.step()
            losses.append(loss.item())
        return losses, [p.tolist() for p in net.parameters()]

    both(program)


def test_errors_pass_through() -> None:
    a, b = torch.randn(4, 4), torch.randn(3, 4)

    def program() -> Any:
        found = []
        for wrong in (lambda: a + b, lambda: a @ b, lambda: ops.add(a._value(), 3)):
            with pytest.raises(Exception) as caught:
                wrong()
            found.append((caught.type, str(caught.value)))
        return found

    assert [kind for kind, _ in both(program)] == [RuntimeError, RuntimeError, AttributeError]


def test_a_write_is_noticed() -> None:
    """The records of what tensors looked like say whether memory was written to since."""

    def program() -> str:
        w = torch.ones(3, requires_grad=True)
        y = w * 2
        z = y * y
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
            z.sum().backward()
        return str(caught.value)

    both(program)


def test_many_operands_and_deep_graphs() -> None:
    def program() -> Any:
        x = torch.zeros(2)
        for _ in range(900):
            x = x + 1
        return shown([torch.cat([x] * 12), torch.stack([x, x + 1])])

    both(program)


def test_op_calls() -> None:
    a = torch.randn(4, 4)._value()

    def program() -> Any:
        made = [
            ops.add(a, a),
            ops.reshape(a, shape=(16,)),
            ops.sum(a, dims=(1,), keepdim=True),
            ops.concat(*[a] * 20, dim=0),
            *ops.sort(a, dim=1, descending=False),
        ]
        return [(v.type, v.index, v.node.op, v.node.attrs, v.node.operands) for v in made]

    both(program)


def test_gradients_of_all_kinds() -> None:
    def program() -> Any:
        x = torch.randn(4, 4, requires_grad=True)
        found = []
        for step in STEPS:
            leaf = torch.randn(4, 4, requires_grad=True)
            y = step(x * 1, leaf * 1)
            found += torch.autograd.grad(y.square().sum(), [x, leaf], allow_unused=True)
        return shown([g for g in found if g is not None])

    both(program)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda a, w: a + a,
    "leaf": lambda a, w: w + a,
    "view": lambda a, w: a.view(2, 8) + 1,
    "transposed": lambda a, w: a.t().exp(),
    "gradient of a view": lambda a, w: w.view(-1) * 2,
    "several results": lambda a, w: w.max(1),
    "number": lambda a, w: (a * 0.5) @ w,
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_kept(name: str) -> None:
    a, w = torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)
    type_ = a._value().type

    def counts() -> list[int]:
        gc.collect()
        shared = [None, 0, True, "", type_, torch.Tensor]
        return [len(gc.get_objects()), *[sys.getrefcount(x) for x in (a, w, *shared)]]

    def calls(count: int) -> None:
        for _ in range(count):
            CALLS[name](a, w)
            recorder.pending.clear()
            recorder.differentiable.clear()

    calls(20)
    gc.freeze()  # what other tests left need not be looked at
    before = counts()
    calls(300)
    assert all(after - one < 100 for after, one in zip(counts(), before, strict=True))


def test_threads_record_their_own() -> None:
    """Python code that recording calls lets other threads record in between."""

    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x / 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g / 2

    def work(number: int, found: dict[int, Any]) -> None:
        x = torch.full((3, 3), float(number), requires_grad=True)
        for _ in range(60):
            with torch.set_grad_enabled(number % 2 == 0):
                y = (x.t() @ torch.eye(3)).reshape(9)
                for _ in range(5):
                    y = torch.max(torch.stack([y, -y]), 0)[0] * 1.5 - y
                z = Halved.apply(y)
            if number % 2 == 0:
                x.grad = None
                z.sum().backward()
                found[number] = (y.tolist(), x.grad.tolist())
            else:
                assert not y.requires_grad
                found[number] = (y.tolist(), None)

    results: list[dict[int, Any]] = [{}, {}]
    for number in range(4):
        work(number, results[0])
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(n, results[1])) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert results[0] == results[1] and len(results[1]) == 4


def test_interpreters_that_it_is_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    made = quick.recording(base._record, base.DENSE)
    assert made is not None and made is not base._record  # so that nobody asks again
    monkeypatch.setattr(base, "record", made)
    x = torch.ones(3, requires_grad=True)
    (x * 2 + x).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0, 3.0]
