"""``torch.cuda.CUDAGraph`` on the emulated device: what a capture leaves alone, and what replays
do, against the same lines run one by one."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from emulated_gpu import emulated_gpu
from graphtorch import nn
from graphtorch.backends.gpu import emulated
from graphtorch.nn import functional as F

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated device needs a compiler"
)


@pytest.fixture(autouse=True, scope="module")
def gpu() -> Iterator[None]:
    with emulated_gpu():
        yield


def close(x: Any, y: Any) -> None:
    torch.testing.assert_close(x, y)


def test_nothing_runs_at_the_capture() -> None:
    x, y = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    g = torch.cuda.CUDAGraph()
    assert not torch.cuda.is_current_stream_capturing()
    with torch.cuda.graph(g):
        assert torch.cuda.is_current_stream_capturing()
        y += x
        made = y * 2
    assert not torch.cuda.is_current_stream_capturing()
    assert y.tolist() == [0] * 3 and made.tolist() == [0] * 3
    g.replay()
    assert y.tolist() == [1] * 3 and made.tolist() == [2] * 3
    x.fill_(10)
    g.replay()
    g.replay()
    assert y.tolist() == [21] * 3 and made.tolist() == [42] * 3
    y.zero_()
    g.replay()
    assert y.tolist() == [10] * 3 and (made + 1).tolist() == [21] * 3


def test_views_of_static_tensors() -> None:
    memory = torch.arange(6.0, device="cuda").reshape(2, 3)
    row, column = memory[0], memory.t()[1]
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        row.add_(column.sum())
        part = memory[1:] * 1
        shown = part[0, :2]
    g.replay()
    assert memory.tolist() == [[5, 6, 7], [3, 4, 5]] and shown.tolist() == [3, 4]
    column.copy_(torch.ones(2, device="cuda"))
    g.replay()
    assert row.tolist() == [7, 3, 9] and shown.tolist() == [3, 1]


def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, capturable=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_whole_steps_of_training(kind: str) -> None:
    """The example of PyTorch's notes, against steps that run line by line."""
    plain = net().cuda()
    model = copy.deepcopy(plain)
    optimizers = [OPTIMIZERS[kind](m.parameters()) for m in (plain, model)]
    data = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1)).cuda()
    targets = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(2)).cuda()

    def step(of: Any, optimizer: Any, x: Any, y: Any) -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = F.mse_loss(of(x), y)
        loss.backward()
        optimizer.step()
        return loss

    static = torch.zeros_like(data[0]), torch.zeros_like(targets[0])
    for x, y in zip(data[:1], targets[:1], strict=True):
        step(plain, optimizers[0], x, y)
        step(model, optimizers[1], x, y)
    optimizers[1].zero_grad(set_to_none=True)
    g = torch.cuda.CUDAGraph()
    before = [p.tolist() for p in model.parameters()]
    with torch.cuda.graph(g):
        loss = F.mse_loss(model(static[0]), static[1])
        loss.backward()
        optimizers[1].step()
    assert [p.tolist() for p in model.parameters()] == before
    for x, y in zip(data[1:], targets[1:], strict=True):
        want = step(plain, optimizers[0], x, y)
        static[0].copy_(x)
        static[1].copy_(y)
        g.replay()
        close(loss, want)
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            close(ours, theirs)
            close(ours.grad, theirs.grad)


def test_gradients_that_are_there_are_added_to() -> None:
    weight = torch.ones(3, device="cuda", requires_grad=True)
    x = torch.ones(3, device="cuda")
    (weight * x).sum().backward()
    gradient = weight.grad
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        (weight * x).sum().backward()
    assert weight.grad is gradient and gradient.tolist() == [1] * 3
    x.fill_(2)
    g.replay()
    g.replay()
    assert gradient.tolist() == [5] * 3


def test_random_numbers_go_on() -> None:
    """Each replay draws the numbers that the lines would draw next."""
    x = torch.ones(1000, device="cuda")
    torch.manual_seed(3)
    want = [(F.dropout(x, 0.5), torch.rand(4, device="cuda")) for _ in range(3)]
    torch.manual_seed(3)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        dropped, drawn = F.dropout(x, 0.5), torch.rand(4, device="cuda")
    for theirs in want:
        g.replay()
        close((dropped, drawn), theirs)
    torch.manual_seed(3)
    g.replay()
    close(drawn, want[0][1])


def test_several_graphs() -> None:
    x = torch.ones(2, device="cuda")
    first, second = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(first):
        y = x + 1
    with torch.cuda.graph(second, pool=first.pool()):
        z = y * 10
    first.replay()
    second.replay()
    assert z.tolist() == [20, 20]
    x.fill_(4)
    second.replay()
    assert z.tolist() == [20, 20]
    first.replay()
    second.replay()
    assert z.tolist() == [50, 50]


def test_what_nobody_holds_is_not_kept() -> None:
    x = torch.ones(2, device="cuda")
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        y, z = x + 1, x + 2
    del y
    gc.collect()
    g.replay()
    assert z.tolist() == [3, 3]


def test_memory_that_others_share() -> None:
    x, y = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    theirs = torch.from_dlpack(x.__dlpack__()), torch.from_dlpack(y.__dlpack__())
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        y.add_(x * 2)
    theirs[0].fill_(4)
    g.replay()
    assert theirs[1].tolist() == [8] * 3


def test_begin_and_end_by_hand(tmp_path: Path) -> None:
    x = torch.ones(2, device="cuda")
    g = torch.cuda.CUDAGraph(keep_graph=True)
    g.capture_begin(capture_error_mode="relaxed")
    y = x.exp() * 2
    g.capture_end()
    g.instantiate()
    g.replay()
    close(y, x.exp() * 2)
    g.debug_dump(str(tmp_path / "graph.txt"))
    assert "kernels" in (tmp_path / "graph.txt").read_text()
    with pytest.raises(RuntimeError, match="already owns a captured graph"):
        g.capture_begin()
    g.reset()
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        g.replay()


INSIDE: dict[str, Any] = {
    "a number": lambda x: x.sum().item(),
    "an old number": lambda x: x.tolist(),
    "a branch": lambda x: bool((x > 0).all()),
    "to the host": lambda x: x.cpu(),
    "from the host": lambda x: x.copy_(torch.ones(3)),
    "a size": lambda x: x.nonzero(),
    "a seed": lambda x: torch.manual_seed(0),
    "a capture": lambda x: torch.cuda.CUDAGraph().capture_begin(),
    "NumPy": lambda x: torch.from_dlpack(x.__dlpack__()),
}


@pytest.mark.parametrize("use", INSIDE)
def test_what_a_graph_cannot_hold(use: str) -> None:
    """And what was recorded until then is forgotten."""
    x, host = torch.ones(3, device="cuda"), torch.zeros(3)
    g = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="captur"), torch.cuda.graph(g):
        x.mul_(2)
        made = x + 1
        INSIDE[use](x if use != "from the host" else host.cuda())
    assert not torch.cuda.is_current_stream_capturing()
    assert x.tolist() == [1] * 3 and made.tolist() == [0] * 3
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        g.replay()


def test_gradients_do_not_leave_a_graph() -> None:
    weight = torch.ones(3, device="cuda", requires_grad=True)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        loss = (weight * weight).sum()
    g.replay()
    assert loss.item() == 3
    with pytest.raises(RuntimeError, match="no elements"):
        loss.backward()
        weight.grad.tolist()
    outside = weight.exp().sum()
    other = torch.cuda.CUDAGraph()
    weight.grad = None
    with pytest.raises(RuntimeError, match="forward pass together"), torch.cuda.graph(other):
        outside.backward()


def test_an_empty_graph_warns() -> None:
    g = torch.cuda.CUDAGraph()
    with pytest.warns(UserWarning, match="CUDA Graph is empty"), torch.cuda.graph(g):
        pass
    g.replay()


def test_graphed_callables() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.0)).cuda()
    plain = copy.deepcopy(model)
    sample = torch.randn(5, 3, device="cuda", requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(model, (sample,))
    assert graphed is model and all(p.grad is None for p in model.parameters())
    for _ in range(2):
        x = torch.randn(5, 3, device="cuda", requires_grad=True)
        y = x.detach().clone().requires_grad_()
        graphed(x).square().sum().backward()
        plain(y).square().sum().backward()
        close(x.grad, y.grad)
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            close(ours.grad, theirs.grad)
    with pytest.raises(RuntimeError, match="like its sample_args"):
        graphed(torch.randn(6, 3, device="cuda"))
    graphed.eval()
    assert graphed(torch.randn(6, 3, device="cuda")).shape == (6, 4)


def test_several_graphed_callables() -> None:
    x = torch.ones(2, device="cuda")
    double, sums = torch.cuda.make_graphed_callables(
        (lambda a: a * 2, lambda a, b: (a + b, a - b)), ((x,), (x, x)), num_warmup_iters=1
    )
    assert double(x + 1).tolist() == [4, 4]
    assert [y.tolist() for y in sums(x, x)] == [[2, 2], [0, 0]]
    hooked = nn.Linear(2, 2).cuda()
    hooked.register_forward_hook(lambda *given: None)
    with pytest.raises(AssertionError, match="hooks"):
        torch.cuda.make_graphed_callables(hooked, (x,))
    with pytest.raises(AssertionError, match="only Tensors"):
        torch.cuda.make_graphed_callables(lambda a: a, (1,))
    used = torch.ones(2, device="cuda", requires_grad=True)
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.cuda.make_graphed_callables(
            lambda a, b: a * 2, (used, used.detach().requires_grad_())
        )


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CUDA", "")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert not torch.cuda.is_current_stream_capturing()
    with pytest.raises(RuntimeError, match="no GPU"):
        torch.cuda.CUDAGraph()
