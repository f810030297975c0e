"""Scaled dot product attention against PyTorch's, in turn, on the same threads.

    python tools/bench attention

Forward alone, and forward with the gradients of query, key and value, for f32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch as pytorch

import graphtorch as torch
from _timing import medians_in_turn, row

CASES = [
    ((8, 8, 256, 64), True),
    ((8, 8, 256, 64), False),
    ((1, 12, 128, 64), False),
    ((2, 8, 1024, 64), True),
]  # [batch, heads, length, size of a head], causal
FORWARD_GOAL, BACKWARD_GOAL = 1.0, 1.0


def forward(t: Any, arrays: list[Any], causal: bool) -> Callable[[], object]:
    q, k, v = (t.tensor(a) for a in arrays)

    def attend(*x: Any) -> Any:
        return t.nn.functional.scaled_dot_product_attention(*x, is_causal=causal)

    call = torch.compile(attend) if t is torch else attend
    return lambda: call(q, k, v)


def backward(t: Any, arrays: list[Any], causal: bool) -> Callable[[], object]:
    leaves = [t.tensor(a, requires_grad=True) for a in arrays]

    def step(*x: Any) -> Any:
        out = t.nn.functional.scaled_dot_product_attention(*x, is_causal=causal)
        return t.autograd.grad(out, x, out)

    call = torch.compile(step) if t is torch else step
    return lambda: call(*leaves)


def main() -> None:
    pytorch.set_num_threads(torch.get_num_threads())
    for shape, causal in CASES:
        arrays = [pytorch.randn(shape).numpy() for _ in range(3)]
        batch, heads, length, size = shape
        flops = 4 * batch * heads * length * length * size / (2 if causal else 1)
        case = f"{list(shape)}{' causal' * causal}"
        for what, make, share, goal in (
            ("forward", forward, 1.0, FORWARD_GOAL),
            ("and gradients", backward, 3.5, BACKWARD_GOAL),
        ):
            times = medians_in_turn(
                {
                    name: make(t, arrays, causal)
                    for name, t in (("ours", torch), ("theirs", pytorch))
                }
            )
            ratio = times["theirs"] / times["ours"]
            row(
                f"attention {case} {what}",
                f"{share * flops / times['ours'] / 1e9:.0f} GFLOP/s",
                f"{ratio:.2f}x PyTorch ({times['ours'] * 1e3:.2f} ms)",
                ratio >= goal,
            )


if __name__ == "__main__":
    main()
