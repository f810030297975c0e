#!/usr/bin/env python3
"""Random calls, each made five times in one process on tiers mixed by chance: do they give the same
answer?

    python3 tools/fuzz_tiers.py [--count 10000] [--first 0] [--deterministic] [--show 20]

A tier is a way to run what was recorded: line by line (which changes its mind with the number of
calls), by the NumPy references, as native code for these sizes or for symbolic ones, inside a
larger graph, and under `torch.compile`. Results are equal up to rounding, within `TOLERANCE`;
indices, the order of equal elements, signs and whatever does not round are equal. With
--deterministic native code runs on one thread and on two: equal to the bit. A seed names a call:
`--first SEED --count 1` replays it.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure()

import argparse
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

import graphtorch as torch
from graphtorch.backends import Buffer, compile
from graphtorch.ir.graph import Graph

REPEATS = 5
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e30, 2.5, -3e9]
# What rounding may change, by what a call does: of an element and of the largest element of all
# results (a gradient may be what is left of terms that cancel).
TOLERANCE = {
    "exact": {},
    "pointwise": {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2},
    "sum": {"float64": 1e-11, "float32": 5e-5, "float16": 2e-2, "bfloat16": 1e-1},
    "spectral": {"float64": 1e-6, "float32": 1e-3},  # vectors: rounding over the gap of two values
}
FLOATS = ("float32",) * 4 + ("float64",) * 2 + ("float16", "bfloat16")
INTS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
SIZES = {"h": (5, 6, 9, 12), "w": (5, 8, 11), "l": (2, 3, 7), "z": (0, 1, 4)}
ANY_SIZE = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 70)


@dataclass(frozen=True)
class Call:
    """`text` of x, y and z, which are `inputs`: ``f:bm`` is a float tensor [b, m]; letters are
    sizes.

    Kinds: f any float, F f32 or f64, i integer, n any number, ? bool, ``k<m`` an index into m.
    `net`: a module that the text calls. `smooth`: its gradients are compared as well.
    """

    text: str
    inputs: str
    kind: str = "pointwise"
    smooth: bool = False
    net: str = ""


def calls(kind: str, smooth: bool, table: str) -> list[Call]:
    """Lines of ``text | inputs [| net]``."""
    rows = [[part.strip() for part in line.split("|")] for line in table.strip().splitlines()]
    return [Call(row[0], row[1], kind, smooth, *row[2:]) for row in rows]


CALLS = [
    *calls(
        "pointwise",
        True,
        """
torch.exp(x) * torch.tanh(y) | f:bm f:m
torch.sin(x) + torch.cos(x) * 2 | f:bm
torch.sigmoid(x) / (1 + x * x) | f:bhw
F.gelu(x) + F.silu(y) | f:bm f:b1
F.softplus(x) - F.elu(y) | f:m f:m
torch.sqrt(x * x + 1) | f:bm
torch.log1p(x * x) | f:bm
torch.erf(x) * torch.atan(x) | f:m
torch.lerp(x, y, 0.3) | f:bm f:bm
torch.addcmul(x, y, y, value=0.5) | f:bm f:m
torch.where(x > 0, x, y * 0.1) | f:bm f:bm
torch.hypot(x, y) + torch.logaddexp(x, y) | F:bm F:bm
F.hardswish(x) + F.mish(x) | f:bm
F.smooth_l1_loss(x, y, reduction='none') | f:bm f:bm
""",
    ),
    *calls(
        "exact",
        False,
        """
torch.maximum(x, y), torch.minimum(x, y), torch.fmax(x, y) | n:bm n:m
torch.clamp(x, -1, 1), torch.clamp(x, y, z) | f:bm f:m f:m
x.floor(), x.round(), x.trunc(), torch.sign(x) | f:bm
x // (y * 2 + 1), x % (y * 2 + 1), torch.fmod(x, y * 2 + 1) | i:bm i:bm
torch.div(x, y * 2 + 1, rounding_mode='trunc') | i:bm i:m
x << y, x >> y, x & y, x ^ y, ~x | i:bm i:bm
x ** 3, x * y - x, -x, abs(x) | i:bm i:m
torch.pow(x, y % 5) | i:m i:m
x.to(torch.int32), x.to(torch.uint8), x.to(torch.int64), x.bool() | f:bm
x.to(torch.float16), x.to(torch.float32), x.to(torch.bfloat16) | n:bm
x == y, x < y, x >= y, torch.isnan(x), torch.isfinite(x) | f:bm f:bm
torch.copysign(x, y), torch.signbit(x), torch.heaviside(x, y) | f:bm f:bm
torch.sort(x, dim=-1) | n:bm
torch.sort(x, dim=0, descending=True, stable=True) | n:bm
torch.argsort(x, dim=1) | n:bmh
torch.topk(x, 1, dim=-1) + torch.topk(x, 2, dim=0, largest=False) | n:hw
torch.argmax(x, 1), torch.argmin(x, 0), torch.argmax(x) | n:bm
torch.max(x, 1) + torch.min(x, 0) | n:bm
torch.amax(x, (0, 1)), torch.amin(x, 1) | n:bmh
torch.median(x, 1) + torch.nanmedian(x, 0) | f:bm
torch.mode(x, 1) | i:bm
torch.kthvalue(x, 2, 1) | n:bh
torch.cummax(x, 1) + torch.cummin(x, 0) | n:bm
torch.unique(x, return_inverse=True, return_counts=True) | i:bm
torch.searchsorted(torch.sort(x)[0], y), torch.bucketize(y, torch.sort(x)[0], right=True) | f:m f:bm
torch.isin(x, y), torch.nonzero(x) | i:bm i:m
F.max_pool2d(x, 2, return_indices=True) | f:bmhw
F.max_pool1d(x, 3, 2, 1, return_indices=True) | f:bmh
F.adaptive_max_pool2d(x, 2, return_indices=True) | f:bmhw
x.transpose(0, 1).reshape(-1), x.flip(0), torch.roll(x, 1, 1) | n:bmh
torch.cat([x, x.flip(1)], 1), torch.stack([x, x]), x.repeat(2, 1) | n:bm
torch.tril(x), torch.triu(x, 1), torch.diagonal(x) | n:bm
x.gather(1, y), x.index_select(0, z) | n:bm k<m:b3 k<b:h
x.scatter(1, y, z) | n:bm k<m:b3 n:b3
x[y], x.index_fill(0, z, 1) | n:bm k<b:h k<b:h
torch.masked_fill(x, y, 2), torch.where(y, x, x + 1) | i:bm ?:bm
x.any(1), x.all(0), x.logical_not() | ?:bm
x.sum(1), x.prod(0), x.cumsum(1) | i:bm
torch.bincount(x, minlength=3) | k<m:b
F.one_hot(x, m), F.pad(y, (1, 2), value=3) | k<m:b i:bm
""",
    ),
    *calls(
        "sum",
        True,
        """
torch.sum(x, 1) + torch.mean(x, 1) | f:bm
torch.sum(x, 0), torch.sum(x) | f:bm
torch.var(x, (0, 2), correction=0) | F:b7h
torch.logsumexp(x, 1) | f:bm
torch.softmax(x, -1), torch.log_softmax(x, 0) | f:bm
torch.cumsum(x, 1) | f:bm
torch.cumprod(torch.tanh(x), 0) | F:bm
torch.linalg.vector_norm(x + 3, dim=1) | f:bm
x @ y | f:bm f:mk
torch.relu(x @ y + z) | f:bm f:mk f:k
torch.bmm(x, x.transpose(1, 2)) | f:bmk
torch.einsum('bmk,kn->bn', x, y) | f:bmk f:kn
F.linear(x, y, z) | f:bhm f:km f:k
torch.addmm(x, y, z, beta=0.5) | f:k f:bm f:mk
F.conv1d(x, y, padding=1) | f:bmh f:km3
F.conv2d(x, y, z, stride=2) | f:bmhw f:km33 f:k
F.conv2d(x, y, padding=1, groups=m) | f:bmhw f:m133
F.conv_transpose2d(x, y) | f:bmhw f:mk22
F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 3) | f:bmhw
F.layer_norm(x, (m,), y, z) | f:bhm f:m f:m
F.group_norm(x, 1, y, z) | f:bmh f:m f:m
F.batch_norm(x, None, None, y, z, training=True) | f:7mh f:m f:m
F.rms_norm(x, (m,)) | f:bm
F.cross_entropy(x, y) | f:bm k<m:b
F.nll_loss(torch.log_softmax(x, 1), y, reduction='none') | f:bm k<m:b
F.mse_loss(x, y), F.huber_loss(x, y) | f:bm f:bm
F.kl_div(torch.log_softmax(x, 1), torch.softmax(y, 1), reduction='batchmean') | f:bm f:bm
F.binary_cross_entropy_with_logits(x, torch.sigmoid(y)) | f:bm f:bm
F.cosine_similarity(x, y + 1) | F:b7 F:b7
F.embedding(y, x) | f:mk k<m:bh
x.index_add(0, y, z) | f:bm k<b:h f:hm
x.scatter_add(0, y, z) | f:bm k<b:hm f:hm
x.index_put((y,), z, accumulate=True) | f:bm k<b:h f:hm
F.scaled_dot_product_attention(x, y, z, is_causal=True) | f:bhl8 f:bhl8 f:bhl8
F.interpolate(x, scale_factor=2, mode='bilinear') | f:bmhw
net(x)[0] | F:lbm | nn.LSTM(m, 3)
net(x)[0] | F:lbm | nn.GRU(m, 4)
net(x) | F:bm | nn.Sequential(nn.Linear(m, 9), nn.ReLU(), nn.LayerNorm(9), nn.Linear(9, 2))
""",
    ),
    *calls(
        "spectral",
        False,
        """
torch.linalg.svd(x, full_matrices=False) | F:hw
torch.linalg.svd(x) | F:lhk
torch.linalg.eigh(x + x.mT) | F:lhh
torch.linalg.qr(x) | F:hw
torch.linalg.qr(x, mode='complete') | F:lwh
torch.linalg.pinv(x) | F:hl
torch.linalg.lu_factor_ex(x) | F:lhh
torch.linalg.cholesky_ex(x @ x.mT) | F:lhh
torch.linalg.solve_ex(x, y) | F:hh F:hk
torch.linalg.inv_ex(x), torch.linalg.det(x), torch.linalg.slogdet(x) | F:lhh
torch.linalg.solve_triangular(x, y, upper=True) | F:hh F:hk
""",
    ),
]


# ------------------------------------------------------------------------------ a call by its seed


class Example:
    """The call of a seed: the function and its arguments."""

    def __init__(self, seed: int):
        self.seed = seed
        self.random, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.call = self.random.choice(CALLS)
        self.sizes: dict[str, int] = {}
        self.float = self.random.choice(FLOATS)
        self.integer, self.number = self.random.choice(INTS), self.random.choice(FLOATS + INTS)
        self.gradients = self.call.smooth and self.random.random() < 0.4
        self.special = (
            not self.call.smooth and self.call.kind == "exact" and self.random.random() < 0.3
        )
        self.layouts: list[tuple[int, ...] | None] = []
        self.tensors = [self.tensor(spec) for spec in self.call.inputs.split()]
        self.arrays = [_array(t) for t in self.tensors]
        torch.manual_seed(seed)
        self.net = eval(self.call.net, {"nn": torch.nn, **self.sizes}) if self.call.net else None
        if self.net is not None and self.tensors[0].dtype is torch.float64:
            self.net.double()

    def __str__(self) -> str:
        given = ", ".join(f"{t.dtype}{list(t.shape)}".removeprefix("torch.") for t in self.tensors)
        layouts = "".join(" strided" if layout else "" for layout in self.layouts)
        return f"{self.call.text}  of {given}{layouts}{' and gradients' * self.gradients}"

    def size(self, letter: str) -> int:
        if letter.isdigit():
            return int(letter)
        if letter not in self.sizes:
            self.sizes[letter] = self.random.choice(SIZES.get(letter, ANY_SIZE))
        return self.sizes[letter]

    def tensor(self, spec: str) -> Any:
        kind, letters = spec.split(":")
        shape = tuple(self.size(letter) for letter in letters)
        layout = None
        if len(shape) > 1 and self.random.random() < 0.3:
            layout = tuple(self.random.sample(range(len(shape)), len(shape)))
        self.layouts.append(layout)
        array, dtype = self.elements(kind, shape)
        return torch.tensor(
            array if layout is None else array.transpose(layout).copy(), dtype=dtype
        )

    def elements(self, kind: str, shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
        if kind.startswith("k"):
            return self.numbers.integers(0, self.size(kind[2]), shape), torch.int64
        if kind == "?":
            return self.numbers.random(shape) < 0.5, torch.bool
        wide = self.float if self.float in ("float32", "float64") else "float32"
        name = {"f": self.float, "F": wide, "i": self.integer, "n": self.number}[kind]
        dtype = getattr(torch, name)
        return (self.integers(name, shape) if name in INTS else self.floats(shape)), dtype

    def integers(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        limits = np.iinfo(name)
        if self.special:
            ends = [limits.min, limits.max, 0, 1, 2, limits.max - 1]
            return self.numbers.choice(np.array(ends, name), shape)
        return self.numbers.integers(max(limits.min, -4), 5, shape).astype(name)

    def floats(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.special:
            return self.numbers.choice(SPECIAL, shape)
        if not self.call.smooth and self.random.random() < 0.3:  # elements that are equal
            return self.numbers.choice([0.0, 1.0, -1.0, 2.0, 0.5], shape)
        return self.numbers.standard_normal(shape)

    # -- the function

    def function(self, *given: Any) -> list[Any]:
        """The call's results, and the gradients of its inputs."""
        laid_out = zip(given, self.layouts, strict=True)
        arguments = [t if p is None else t.permute(_inverse(p)) for t, p in laid_out]
        if self.gradients:
            arguments = [a.detach().requires_grad_(a.is_floating_point()) for a in arguments]
        names = {"torch": torch, "F": torch.nn.functional, "net": self.net, **self.sizes}
        names |= dict(zip("xyz", arguments, strict=False))
        results = _flat(eval(self.call.text, names))
        if not self.gradients:
            return results
        total = sum(((r.double() + 1) ** 2).mean() for r in results if r.is_floating_point())
        wanted = [a for a in arguments if a.requires_grad]
        return [r.detach() for r in results] + list(torch.autograd.grad(total, wanted))

    def within_more(self, *given: Any) -> list[Any]:
        """The same results in a graph that computes the arguments and uses the results."""
        results = self.function(*[_same(t) for t in given])
        uses = [r * 2 + 1 for r in results if r.dtype is not torch.bool]
        return [*results, *uses]


def _inverse(layout: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(layout))


def _same(t: Any) -> Any:
    """t by way of exact operations."""
    if t.is_floating_point():
        return torch.where(t == 3, t, t.neg().neg())
    return t.logical_not().logical_not() if t.dtype is torch.bool else t + 1 - 1


def _flat(results: Any) -> list[Any]:
    if isinstance(results, (tuple, list)):
        return [t for r in results for t in _flat(r)]
    return [results]


def _array(t: Any) -> np.ndarray:
    t = t.detach()
    return t.float().numpy() if t.dtype is torch.bfloat16 else t.numpy()


# ------------------------------------------------------------------------------ tiers


class Tiers:
    """The ways to run an example: each gives its results as arrays, bfloat16 as float32."""

    def __init__(self, example: Example):
        self.example = example
        self.inputs = [Buffer.of(np.array(_exact(t))) for t in example.tensors]
        self.compiled = torch.compile(example.function)

    def lines(self) -> list[np.ndarray]:
        return list(map(_array, self.example.function(*self.example.tensors)))

    def captured(self) -> list[np.ndarray]:
        return list(map(_array, self.compiled(*self.example.tensors)))

    def reference(self) -> list[np.ndarray]:
        return self.run(*self.graph, "reference")

    def native(self) -> list[np.ndarray]:
        return self.run(*self.graph, "llvm")

    def fused(self) -> list[np.ndarray]:
        graph, parameters = self.trace(self.example.within_more)
        return self.run(graph, parameters, "llvm")[: len(self.graph[0].outputs)]

    def symbolic(self) -> list[np.ndarray]:
        axes = self.symbolic_axes()
        return self.run(*self.trace(self.example.function, dynamic=axes), "llvm")

    def symbolic_axes(self) -> dict[int, dict[int, Any]]:
        """Axes of the batch size `b`, where tensors are laid out as the call names them."""
        letters = [spec.split(":")[1] for spec in self.example.call.inputs.split()]
        batch = torch.Dim("b", min=1)
        return {
            i: {a: batch for a, x in enumerate(names) if x == "b"}
            for i, names in enumerate(letters)
        }

    @cached_property
    def graph(self) -> tuple[Graph, list[Buffer]]:
        return self.trace(self.example.function)

    def trace(self, function: Callable[..., Any], **how: Any) -> tuple[Graph, list[Buffer]]:
        traced = torch.trace(function, *self.example.tensors, **how)
        return traced.graph, [Buffer.of(_exact(t)) for t in traced.parameters.values()]

    def run(self, graph: Graph, parameters: Sequence[Buffer], target: str) -> list[np.ndarray]:
        found = [b.numpy() for b in compile(graph, target)([*self.inputs, *parameters])]
        return [a.astype(np.float32) if a.dtype.name == "bfloat16" else a for a in found]

    def available(self) -> list[str]:
        example = self.example
        if any(name in example.call.text for name in ("unique", "nonzero", "bincount", "one_hot")):
            return ["lines"]  # sizes that depend on data: there is no graph
        named = "b" in example.call.inputs and not any(example.layouts)
        return ["lines", "lines", "captured", "reference", "native", "fused", *["symbolic"] * named]


def _exact(t: Any) -> np.ndarray:
    """The bytes of a tensor; bfloat16 as its own NumPy dtype."""
    t = t.detach()
    return t.float().numpy().astype(ml_dtypes.bfloat16) if t.dtype is torch.bfloat16 else t.numpy()


# ------------------------------------------------------------------------------ comparison


@dataclass
class Outcome:
    """What became of a call: the tiers it ran on, what differs between the first and another, and
    the exception where it is refused."""

    example: Example
    tiers: list[str]
    difference: str = ""
    refused: str = ""


def run(seed: int, deterministic: bool = False) -> Outcome:
    """The call of `seed`, five times."""
    example = Example(seed)
    tiers = Tiers(example)
    if deterministic:
        native = [name for name in tiers.available() if name in NATIVE]
        chosen = [FIRST, *example.random.choices(native, k=REPEATS - 1)]
    else:
        chosen = example.random.choices(tiers.available(), k=REPEATS)
    outcome = Outcome(example, chosen)
    results: dict[str, tuple[str, Found]] = {}
    for i, name in enumerate(chosen):
        if deterministic:
            torch.set_num_threads(1 + i % 2)
        found = _attempt(getattr(tiers, name))
        if name == "symbolic" and isinstance(found, str):
            continue  # not every call can be traced with a symbolic size
        outcome.refused = found if isinstance(found, str) else ""
        key = name if deterministic else ""
        first, expected = results.setdefault(key, (name, found))
        tolerance = {} if deterministic else TOLERANCE[example.call.kind]
        what = compare(expected, found, example, tolerance, exact_bits=deterministic)
        if what:
            outcome.difference = f"{first} and {name}: {what}"
            break
    return outcome


FIRST = "lines"
NATIVE = ("lines", "captured", "native", "fused", "symbolic")


def _attempt(way: Callable[[], list[np.ndarray]]) -> Found:
    """The results, or the type of the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return way()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


Found = list[np.ndarray] | str  # results, or the exception


def compare(
    a: Found, b: Found, example: Example, tolerance: dict[str, float], exact_bits: bool
) -> str:
    """What differs between two runs; nothing if they agree."""
    if isinstance(a, str) or isinstance(b, str):
        types = [r.split(":")[0] if isinstance(r, str) else "results" for r in (a, b)]
        return (
            "" if types[0] == types[1] else f"{a if isinstance(a, str) else 'results'} / {b}"[:300]
        )
    lowest = example.float if any(t.dtype is torch.bfloat16 for t in example.tensors) else ""
    scale = max((_largest(x) for x in a if x.dtype.kind == "f"), default=0.0)
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.shape != y.shape or x.dtype != y.dtype:
            return f"result {i} is {x.dtype}{list(x.shape)} / {y.dtype}{list(y.shape)}"
        limit = tolerance.get(lowest or x.dtype.name, 0.0) if x.dtype.kind == "f" else 0.0
        same = x.tobytes() == y.tobytes() if exact_bits else _close(x, y, limit, scale)
        if not same:
            return f"result {i} differs by {_distance(x, y):.3g}"
    return ""


def _largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x.astype(np.float64)), where=np.isfinite(x), initial=0.0))


def _close(x: np.ndarray, y: np.ndarray, limit: float, scale: float) -> bool:
    if limit == 0:
        return np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
    return bool(np.allclose(x, y, rtol=limit, atol=limit * scale, equal_nan=True))


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        apart = np.abs(x.astype(np.float64) - y.astype(np.float64))
    return float(np.nanmax(apart)) if apart.size and not np.isnan(apart).all() else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--show", type=int, default=20, help="differences to print")
    parser.add_argument("--deterministic", action="store_true")
    given = parser.parse_args()
    torch.use_deterministic_algorithms(given.deterministic)
    used: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    differences = 0
    for seed in range(given.first, given.first + given.count):
        outcome = run(seed, given.deterministic)
        used.update(outcome.tiers)
        if outcome.refused:
            refused[f"{outcome.example.call.text}: {outcome.refused[:120]}"] += 1
        if outcome.difference:
            differences += 1
            if differences <= given.show:
                print(f"seed {seed}: {outcome.example}\n    {outcome.difference}", flush=True)
    runs = ", ".join(f"{count} {name}" for name, count in used.most_common())
    for what, count in refused.most_common(given.show):
        print(f"refused {count} times: {what}")
    print(f"{given.count} calls, {sum(used.values())} runs ({runs})")
    print(f"{differences} differ, {sum(refused.values())} are refused by every tier")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
