"""Products of matrices of f32 through the public interface.

    python -m tools.bench matmul             1024 x 1024 x 1024, packing included, against the peak
    python -m tools.bench matmul --peer      squares and layers' shapes beside PyTorch's (MKL)

The first pairs each call with a measurement of the multiply-add peak on the same threads just
before and after it, because the speed of a shared machine drifts; medians of the times and of the
ratios are printed. The second compares compiled functions with PyTorch's eager calls, by turns:
"product" has two arguments, "linear" a weight that stays, as layers have (packed ahead by us).
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import graphtorch as torch
from _timing import medians_in_turn, row
from contraction import peak_kernel

SIZE, PAIRS, GOAL = 1024, 61, 0.85


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(threads: int) -> None:
    """Print speed and share of the peak on this many threads."""
    torch.set_num_threads(threads)
    x, y = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    compiled = torch.compile(lambda a, b: a @ b)
    compiled(x, y)
    # about 2 ms: a call's own cost disappears
    limit, flops = peak_kernel(threads, rounds=1_000_000)
    limit()
    times, peaks = [], [seconds(limit)]
    for _ in range(PAIRS):
        times.append(seconds(lambda: compiled(x, y)))
        peaks.append(seconds(limit))
    around = [2 / (1 / a + 1 / b) for a, b in itertools.pairwise(peaks)]
    share = statistics.median(
        2 * SIZE**3 / t / (flops / p) for t, p in zip(times, around, strict=True)
    )
    row(
        f"matmul {SIZE}^3 f32, {threads} thread{'s' * (threads > 1)}",
        f"{2 * SIZE**3 / statistics.median(times) / 1e9:.1f} GFLOP/s",
        f"{share:.1%} of {flops / statistics.median(peaks) / 1e9:.0f}",
        share >= GOAL,
    )


SQUARES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
# rows, depth, columns of BERT-base's layers (128 tokens) and of ViT-S/16's (197)
LAYERS = {
    "bert-base, attention's layers": (128, 768, 768),
    "bert-base, first of two": (128, 768, 3072),
    "bert-base, second of two": (128, 3072, 768),
    "vit-s, queries, keys, values": (197, 384, 1152),
    "vit-s, result of attention": (197, 384, 384),
    "vit-s, first of two": (197, 384, 1536),
    "vit-s, second of two": (197, 1536, 384),
}
# heads, rows, depth, columns
HEADS = {
    "bert-base, scores": (12, 128, 64, 128),
    "bert-base, weighted values": (12, 128, 128, 64),
    "vit-s, scores": (6, 197, 64, 197),
    "vit-s, weighted values": (6, 197, 197, 64),
}


class Product(NamedTuple):
    """A product's name, shapes and kind: "product" or "linear"."""

    name: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    kind: str

    @property
    def flops(self) -> int:
        return 2 * math.prod(self.left) * self.right[0 if self.kind == "linear" else -1]


def products() -> list[Product]:
    squares = [Product(f"square of {n}", (n, n), (n, n), "product") for n in SQUARES]
    layers = [
        Product(name, (m, k), (n, k) if kind == "linear" else (k, n), kind)
        for name, (m, k, n) in LAYERS.items()
        for kind in ("product", "linear")
    ]
    heads = [Product(name, (h, m, k), (h, k, n), "product") for name, (h, m, k, n) in HEADS.items()]
    return squares + layers + heads


def compared(case: Product, rounds: int) -> tuple[float, float]:
    """Seconds of ours and of PyTorch's."""
    import torch as peer

    x, y = peer.randn(case.left), peer.randn(case.right)
    a, b = torch.from_numpy(x.numpy()), torch.from_numpy(y.numpy())
    if case.kind == "linear":
        layer = torch.nn.Linear(case.left[1], case.right[0], bias=False)
        layer.weight.data.copy_(b)
        function = torch.compile(layer.eval(), dynamic=False)
        calls = {
            "ours": lambda: function(a),
            "peer": lambda: peer.nn.functional.linear(x, y),
        }
    else:
        product = torch.compile(lambda left, right: left @ right, dynamic=False)
        calls = {"ours": lambda: product(a, b), "peer": lambda: x @ y}
    with torch.no_grad(), peer.inference_mode():
        error = (peer.from_numpy(calls["ours"]().numpy()) - calls["peer"]()).abs().max()
        assert error < 1e-3 * math.sqrt(case.left[-1]), f"{case.name}: {error}"
        seconds = medians_in_turn(calls, rounds, 0.1)
    return seconds["ours"], seconds["peer"]


def beside_peer(rounds: int) -> None:
    """Print every product's time beside PyTorch's, and the geometric mean of the ratios."""
    import torch as peer

    threads = torch.get_num_threads()
    peer.set_num_threads(threads)
    print(f"PyTorch {peer.__version__}, {threads} threads; ratio: PyTorch's time over ours")
    ratios = []
    for case in products():
        ours, theirs = compared(case, rounds)
        ratios.append(theirs / ours)
        speeds = f"{case.flops / ours / 1e9:6.0f} {case.flops / theirs / 1e9:6.0f} GFLOP/s"
        print(f"{case.name:32} {case.kind:8} {ours * 1e3:9.4f} ms {speeds} {theirs / ours:6.2f}")
    mean = math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
    print(f"geometric mean {mean:.3f}, least {min(ratios):.2f}")


def against_peak() -> None:
    available = torch.get_num_threads()
    for threads in dict.fromkeys((1, available)):
        measure(threads)
    torch.set_num_threads(available)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench matmul")
    parser.add_argument("--peer", action="store_true", help="beside PyTorch's products")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    beside_peer(options.rounds) if options.peer else against_peak()


if __name__ == "__main__":
    main()
