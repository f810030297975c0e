"""SiLU and softmax over a million floats against PyTorch, in turn in one run.

python tools/bench pointwise
"""

from __future__ import annotations

from collections.abc import Callable

import torch

import graphtorch as gt
from _timing import medians_in_turn, row

CASES: dict[str, tuple[tuple[int, ...], Callable[..., object], Callable[..., object]]] = {
    "silu [1000000]": ((1_000_000,), gt.nn.functional.silu, torch.nn.functional.silu),
    "softmax [1000, 1000]": (
        (1000, 1000),
        lambda x: gt.softmax(x, -1),
        lambda x: torch.softmax(x, -1),
    ),
    "softmax [1000000]": (
        (1_000_000,),
        lambda x: gt.softmax(x, -1),
        lambda x: torch.softmax(x, -1),
    ),
    "layer_norm [1000, 1000]": (
        (1000, 1000),
        lambda x: gt.nn.functional.layer_norm(x, (1000,)),
        lambda x: torch.nn.functional.layer_norm(x, (1000,)),
    ),
    "sum [1000000]": ((1_000_000,), lambda x: x.sum(), lambda x: x.sum()),
}


def main() -> None:
    torch.set_num_threads(gt.get_num_threads())
    for name, (shape, mine, theirs) in CASES.items():
        x = torch.randn(*shape)
        y = gt.from_numpy(x.numpy())
        compiled = gt.compile(mine)
        with torch.inference_mode(), gt.no_grad():
            times = medians_in_turn(
                {"graphtorch": lambda c=compiled, y=y: c(y), "torch": lambda f=theirs, x=x: f(x)}
            )
        ratio = times["torch"] / times["graphtorch"]
        row(
            name,
            f"{times['graphtorch'] * 1e6:.1f} us",
            f"PyTorch {times['torch'] * 1e6:.1f} us  {ratio:.2f}x",
            ratio >= 1,
        )


if __name__ == "__main__":
    main()
