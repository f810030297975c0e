"""Floating-point operations are counted as PyTorch counts them, in all and for each module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt
import graphtorch.utils.flop_counter

torch = pytest.importorskip("torch")


def _counted(t: Any, of: Callable[[Any], Any], **options: Any) -> dict[str, dict[str, int]]:
    with t.utils.flop_counter.FlopCounterMode(display=False, **options) as mode:
        of(t)
    assert mode.get_total_flops() == sum(mode.get_flop_counts()["Global"].values())
    return {
        m: {str(k): n for k, n in counts.items()} for m, counts in mode.get_flop_counts().items()
    }


def _both(of: Callable[[Any], Any]) -> list[dict[str, dict[str, int]]]:
    import torch.utils.flop_counter

    return [_counted(t, of) for t in (gt, torch)]


PRODUCTS: dict[str, Callable[[Any], Any]] = {
    "vectors": lambda t: (
        t.ones(2, 3) @ t.ones(3),
        t.ones(3) @ t.ones(3),
        t.ones(3) @ t.ones(3, 2),
    ),
    "matrices": lambda t: (t.ones(5, 2, 3) @ t.ones(3, 2), t.mm(t.ones(2, 3), t.ones(3, 1))),
    "batches": lambda t: (t.ones(5, 2, 3) @ t.ones(5, 3, 2), t.ones(4, 1, 2, 3) @ t.ones(5, 3, 2)),
    "sums": lambda t: (
        t.addmm(t.ones(2, 2), t.ones(2, 3), t.ones(3, 2)),
        t.baddbmm(t.ones(5, 2, 2), t.ones(5, 2, 3), t.ones(5, 3, 2)),
        t.addbmm(t.ones(2, 2), t.ones(5, 2, 3), t.ones(5, 3, 2)),
    ),
    "einsum": lambda t: (
        t.einsum("bij,bjk->bik", t.ones(5, 2, 3), t.ones(5, 3, 2)),
        t.einsum("i,j->ij", t.ones(3), t.ones(2)),
        t.einsum("i,i->", t.ones(3), t.ones(3)),
    ),
    "others": lambda t: (
        t.outer(t.ones(3), t.ones(3)),
        t.cdist(t.ones(30, 3), t.ones(40, 3)),
        t.nn.Bilinear(3, 4, 5)(t.ones(2, 3), t.ones(2, 4)),
        t.tensordot(t.ones(2, 3), t.ones(3, 4), 1),
    ),
    "recurrent": lambda t: (
        t.nn.GRU(3, 4)(t.ones(5, 2, 3)),
        t.nn.RNN(3, 4)(t.ones(5, 2, 3)),
        t.nn.LSTMCell(3, 4)(t.ones(2, 3)),
    ),
    "one gradient": lambda t: (t.ones(2, 3, requires_grad=True) @ t.ones(3, 4)).sum().backward(),
    "gradients": lambda t: t.nn.Linear(3, 4)(t.ones(5, 2, 3, requires_grad=True)).sum().backward(),
    "second": lambda t: _second(t, t.ones(2, 3, requires_grad=True)),
    "convs": lambda t: [
        layer(t.ones(2, 4, *[8] * dims)).sum().backward()
        for dims, layer in (
            (2, t.nn.Conv2d(4, 6, 3)),
            (1, t.nn.Conv1d(4, 6, 3, dilation=2)),
            (2, t.nn.Conv2d(4, 6, 3, groups=2, stride=2, padding=1)),
            (2, t.nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)),
        )
    ],
    "images": lambda t: (
        t.nn.Conv2d(4, 6, 3)(t.ones(2, 4, 8, 8, requires_grad=True)).sum().backward()
    ),
}


def _second(t: Any, x: Any) -> None:
    (g,) = t.autograd.grad((x @ t.ones(3, 3)).pow(2).sum(), x, create_graph=True)
    t.autograd.grad(g.sum(), x)


@pytest.mark.parametrize("name", PRODUCTS)
def test_functions_and_gradients(name: str) -> None:
    mine, other = _both(PRODUCTS[name])
    assert mine == other


def _residual(t: Any) -> Any:
    nn = t.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, given: int, made: int, stride: int):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(given, made, 3, stride, 1, bias=False),
                nn.BatchNorm2d(made),
                nn.ReLU(),
                nn.Conv2d(made, made, 3, 1, 1, bias=False),
                nn.BatchNorm2d(made),
            )
            self.short = nn.Conv2d(given, made, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.body(x) + self.short(x))

    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3),
        nn.MaxPool2d(2),
        Block(8, 8, 1),
        Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def _without(counts: dict[str, Any], *ends: str) -> dict[str, Any]:
    """Without modules that share their input with others: PyTorch gives them gradients of those,
    too."""
    return {name: count for name, count in counts.items() if not name.endswith(ends)}


def test_residual_net() -> None:
    def train(t: Any) -> None:
        _residual(t)(t.ones(2, 3, 32, 32)).sum().backward()

    mine, other = [_without(c, ".short") for c in _both(train)]
    assert mine == other
    assert len(mine) > 9


def _transformer(t: Any) -> Any:
    nn, f = t.nn, t.nn.functional

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = [nn.Linear(8, 8, bias=False) for _ in range(4)]
            self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)

        def forward(self, x: Any) -> Any:
            q, k, v = [p(x).unflatten(-1, (2, 4)).transpose(1, 2) for p in (self.q, self.k, self.v)]
            mixed = f.dropout(f.softmax(q @ k.transpose(-1, -2) / 2, -1), 0.1) @ v
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            return x + self.down(f.gelu(self.up(x)))

    return nn.Sequential(nn.Embedding(11, 8), Layer(), Layer(), nn.Linear(8, 11))


def test_transformer() -> None:
    def train(t: Any) -> None:
        scores = _transformer(t)(t.arange(12).reshape(2, 6) % 11)
        t.nn.functional.cross_entropy(scores.flatten(0, 1), t.arange(12) % 11).backward()

    mine, other = [_without(c, ".k", ".v") for c in _both(train)]
    assert mine == other


def test_fused_attention_counts_as_kernels_of_gpus_do() -> None:
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    def attend(t: Any) -> None:
        q, k = t.ones(2, 3, 4, 8, requires_grad=True), t.ones(2, 3, 5, 8)
        t.nn.functional.scaled_dot_product_attention(q, k, k).sum().backward()

    q, k = (2, 3, 4, 8), (2, 3, 5, 8)
    assert _counted(gt, attend)["Global"] == {
        "aten._scaled_dot_product_flash_attention": sdpa_flop_count(q, k, k),
        "aten._scaled_dot_product_flash_attention_backward": sdpa_backward_flop_count(q, q, k, k),
    }


def test_a_compiled_function_counts_as_the_plain_one() -> None:
    layer = gt.nn.Linear(3, 4)
    compiled = gt.compile(lambda x: layer(x).sum())
    x = gt.ones(2, 3)
    for _ in range(3):
        compiled(x)
    assert _counted(gt, lambda t: compiled(x))["Linear"] == {"aten.addmm": 48}


def test_operators_of_ones_own_and_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    def run(t: Any) -> Any:
        @t.library.custom_op(
            f"{t.__name__}_flops::twice", mutates_args=(), schema="(Tensor x) -> Tensor"
        )
        def twice(x: Any) -> Any:
            return x * 2

        def count(shape: Any, **kwargs: Any) -> int:
            return 7000 * shape[0]

        name = getattr(t.ops, f"{t.__name__}_flops").twice
        net = t.nn.Sequential(t.nn.Linear(20, 30), t.nn.Sequential(t.nn.Linear(30, 5)))
        with t.utils.flop_counter.FlopCounterMode(
            display=False, custom_mapping={name: count}
        ) as mode:
            twice(net(t.ones(8, 20)))
        return mode, {str(k).split(".")[-1]: n for k, n in mode.get_flop_counts()["Global"].items()}

    (mine, counts), (_, other) = run(gt), run(torch)
    assert counts == other == {"addmm": 12000, "twice": 56000}
    lines = mine.get_table().splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["Global", "68.000K"], ["-", "aten.addmm"]]
    assert "Sequential.1.0" not in mine.get_table() and "Sequential.1.0" in mine.get_table(depth=3)
    with gt.utils.flop_counter.FlopCounterMode():
        gt.ones(2, 2) @ gt.ones(2, 2)
    assert "16.000" in capsys.readouterr().out
