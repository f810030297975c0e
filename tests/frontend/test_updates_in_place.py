"""Compiled steps update weights and optimizer state in their own memory; who knew what was there
before still has it."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

SIZE = 160  # weights of 100 KiB


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SIZE, SIZE), nn.GELU(), nn.Linear(SIZE, SIZE))


def make_step(model, optimizer, compiled=True):
    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return torch.compile(step, dynamic=False) if compiled else step


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, eps=1e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, eps=1e-3),
}


class Run:
    """A model, its optimizer and a step, with data that are other ones at each call."""

    def __init__(self, optimizer="AdamW", compiled=True):
        self.model = net()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.step = make_step(self.model, self.optimizer, compiled)
        self.calls = 0

    def __call__(self, times=1):
        for _ in range(times):
            rng = np.random.default_rng(self.calls)
            x, y = (torch.tensor(rng.standard_normal((8, SIZE)), dtype=torch.float32) for _ in "xy")
            loss = self.step(x, y)
            self.calls += 1
        return loss.item()

    @property
    def weight(self):
        return self.model[0].weight

    def numbers(self):
        return [p.detach().numpy().copy() for p in self.model.parameters()]


def address(tensor):
    return tensor._storage.value.buffer.address


def expected(times, optimizer="AdamW"):
    """The weights after as many steps line by line."""
    run = Run(optimizer, compiled=False)
    if times:
        run(times)
    return run.numbers()


def check(found, wanted):
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-4, 1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_and_state_stay_where_they_are(optimizer):
    run = Run(optimizer)
    run(3)
    state = run.optimizer.state[run.weight]
    places = [run.weight, *[v for v in state.values() if torch.is_tensor(v) and v.dim()]]
    assert len(places) > 1
    before = [address(t) for t in places]
    run(3)
    assert [address(t) for t in places] == before
    check(run.numbers(), expected(6, optimizer))


def keep_clone(run):
    clone = run.weight.detach().clone()
    return lambda: clone.numpy()


def keep_pending_sum(run):
    sums = run.weight.detach() + 0
    return lambda: sums.numpy()


def keep_view_of_a_clone(run):
    part = run.weight.detach().clone()[3:90].t()
    return lambda: part.numpy()


def keep_in_another_tensor(run):
    other = torch.zeros(SIZE, SIZE)
    other.copy_(run.weight.detach())
    return lambda: other.numpy()


def keep_state_dict_copy(run):
    copies = {k: v.clone() for k, v in run.model.state_dict().items()}
    return lambda: copies["0.weight"].numpy()


def keep_graph(run):
    x = torch.ones(2, SIZE, requires_grad=True)
    out = F.linear(x, run.weight.detach().clone()).sum()

    def gradient():
        out.backward()
        return x.grad[0].numpy()  # sums of the old weight's columns

    return gradient


def keep_deepcopy(run):
    other = copy.deepcopy(run.model)
    return lambda: other[0].weight.detach().numpy()


@pytest.mark.parametrize(
    "keep",
    [
        keep_clone,
        keep_pending_sum,
        keep_view_of_a_clone,
        keep_in_another_tensor,
        keep_state_dict_copy,
        keep_graph,
        keep_deepcopy,
    ],
)
def test_who_knew_the_old_weights_keeps_them(keep):
    run = Run()
    run(3)
    same = Run()
    same(3)
    wanted, got = keep(same)(), keep(run)
    run(3)
    np.testing.assert_allclose(got(), wanted, 1e-4, 1e-5)
    check(run.numbers(), expected(6))


def test_arrays_over_a_weight_see_the_updates():
    run = Run()
    run(3)
    array = run.weight.detach().numpy()
    run(3)
    np.testing.assert_array_equal(array, run.weight.detach().numpy())
    check(run.numbers(), expected(6))


def test_evaluation_between_steps():
    run, other = Run(), Run(compiled=False)
    evaluate = torch.compile(lambda x: run.model(x), dynamic=False)
    x = torch.ones(4, SIZE)
    for _ in range(4):
        run(2)
        other(2)
        with torch.no_grad():
            first, wanted = evaluate(x), other.model(x)
            second = evaluate(x)
        np.testing.assert_allclose(first.numpy(), wanted.numpy(), 1e-3, 1e-4)
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_results_of_a_call_that_are_the_new_weights():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @torch.compile(dynamic=False)
    def step(x):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        return model[0].weight.detach().clone()

    x, found = torch.ones(2, SIZE) * 0.1, []
    for _ in range(4):
        found.append(step(x))
        found.append(model[0].weight.detach().clone())
    for returned, after in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(returned.numpy(), after.numpy())
    assert not np.array_equal(found[0].numpy(), found[-1].numpy())


def words(compiled):
    torch.manual_seed(0)
    table, head = nn.Embedding(64, SIZE * 4), nn.Linear(SIZE * 4, 96)
    parameters = [*table.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def step(i, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(head(table(i)), y)
        loss.backward()
        optimizer.step()
        return loss

    return parameters, optimizer, torch.compile(step, dynamic=False) if compiled else step


@pytest.mark.parametrize("bad", ["index", "target"])
def test_a_step_that_fails_changes_nothing(bad):
    i, y = torch.arange(32), torch.arange(32) * 2
    parameters, optimizer, step = words(True)
    others, _, plain = words(False)
    for _ in range(3):
        step(i, y), plain(i, y)
    state = [optimizer.state[p]["momentum_buffer"] for p in parameters]
    before = [t.detach().clone().numpy() for t in (*parameters, *state)]
    wrong_i, wrong_y = (i + 40, y) if bad == "index" else (i, y + 40)
    with pytest.raises(IndexError):
        step(wrong_i, wrong_y).item()
    for t, wanted in zip((*parameters, *state), before, strict=True):
        np.testing.assert_array_equal(t.detach().clone().numpy(), wanted)
    for _ in range(3):
        step(i, y), plain(i, y)
    check([p.detach().numpy() for p in parameters], [p.detach().numpy() for p in others])
    places = [address(t) for t in (parameters[0], state[0])]
    step(i, y)
    assert [address(t) for t in (parameters[0], state[0])] == places


def test_what_accumulates_is_updated_in_place():
    """A step that adds to gradients, which are not set to None."""
    model = net()

    @torch.compile(dynamic=False)
    def accumulate(x):
        model(x).sum().backward()

    x = torch.ones(2, SIZE) * 0.1
    accumulate(x)
    once = model[0].weight.grad.numpy().copy()
    for _ in range(4):
        accumulate(x)
    np.testing.assert_allclose(model[0].weight.grad.numpy(), 5 * once, 1e-4, 1e-5)
