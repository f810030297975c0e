"""Random numbers against PyTorch, in turn in one run: plain calls whose numbers are read, and
compiled ones.

    python tools/bench random
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import graphtorch as gt
from _timing import medians_in_turn, row

SIZES = (1_000, 1_000_000)
Draw = Callable[[Any, int], Any]
DRAWS: dict[str, Draw] = {
    "rand": lambda t, n: t.rand(n),
    "randn": lambda t, n: t.randn(n),
    "randperm": lambda t, n: t.randperm(n),
}


def reading(t: Any, draw: Draw, n: int) -> Callable[[], object]:
    return lambda: draw(t, n).numpy()


def dropping(t: Any, n: int, compiled: bool = False) -> Callable[[], object]:
    """Dropout forward and backward."""
    x = t.ones(n, requires_grad=True)
    drop = t.nn.functional.dropout
    call = t.compile(lambda x: drop(x, 0.3)) if compiled else lambda x: drop(x, 0.3)

    def step() -> object:
        x.grad = None
        call(x).sum().backward()
        return x.grad.numpy()

    return step


def compared(name: str, calls: dict[str, Callable[[], object]]) -> None:
    times = medians_in_turn(calls)
    theirs = times.pop("torch")
    for way, seconds in times.items():
        row(
            f"{name} {way}",
            f"{seconds * 1e6:.1f} us",
            f"PyTorch {theirs * 1e6:.1f} us  {theirs / seconds:.2f}x",
            theirs >= seconds,
        )


def main() -> None:
    torch.set_num_threads(gt.get_num_threads())
    for n in SIZES:
        for name, draw in DRAWS.items():
            compiled = gt.compile(lambda n, draw=draw: draw(gt, n))
            compared(
                f"{name} [{n}]",
                {
                    "plain": reading(gt, draw, n),
                    "compiled": lambda c=compiled, n=n: c(n).numpy(),
                    "torch": reading(torch, draw, n),
                },
            )
        compared(
            f"dropout and its gradient [{n}]",
            {
                "plain": dropping(gt, n),
                "compiled": dropping(gt, n, True),
                "torch": dropping(torch, n),
            },
        )


if __name__ == "__main__":
    main()
