"""Replays PyTorch's own operator samples on graphtorch: results, gradients and second gradients.

    python tools/oracle/opinfo.py                         float32, every entry that graphtorch has
    python tools/oracle/opinfo.py --every 7               one sample in 7 of each
    python tools/oracle/opinfo.py --dtype float64 --second
    python tools/oracle/opinfo.py --dtype others          integers, bool, 16-bit floats, complex64
    python tools/oracle/opinfo.py --dtype float16 --ends  both ends of a 16-bit range
    python tools/oracle/opinfo.py --op linalg.norm -v     one entry, every failing sample
    python tools/oracle/opinfo.py --surface names.tsv     only entries for the names in a table's
                                                          first column
    python tools/oracle/opinfo.py --compiled              each sample in a compiled function as
                                                          well, which is called three times;
                                                          --every 40: one sample in 40
    python tools/oracle/opinfo.py --device cuda --most 2  on a GPU (GRAPHTORCH_CUDA=emulated: on the
                                                          emulated one), the first two samples of
                                                          each, of up to 4,096 elements
    python tools/oracle/opinfo.py --mapped                each sample under vmap as well, beside the
                                                          function on each entry; --every as above

The samples, the dtypes an operator takes, and the expected values are those of ``torch.testing``'s
operator database. Every sample that differs is listed with the reason; of compiled functions those
samples count whose plain results (and gradients) are PyTorch's. `GRAPHTORCH_TARGET=reference`
spares the time that compiling takes. Needs ``pip install -e ".[oracle]"``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import types
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import exact
import numpy as np
import torch
from conversion import Place, brief, difference, elements, ours, tensors, to_array, use
from torch.testing._internal.common_methods_invocations import op_db

import graphtorch
from graphtorch._captured.capture import rebuild

# relative and absolute tolerance of results; gradients get ten times that
TOLERANCE = {
    "float64": (1e-10, 1e-11),
    "float32": (1e-4, 1e-5),
    "complex64": (1e-4, 1e-5),
    "complex128": (1e-10, 1e-11),
    "bfloat16": (1.6e-2, 1e-2),
    "float16": (2e-3, 1e-3),
}
OTHERS = (
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "bfloat16",
    "float16",
    "complex64",
)
RANDOM = ("normal", "bernoulli", "multinomial", "nn.functional.rrelu")
UNINITIALISED = ("empty", "new_empty")
MOST_ELEMENTS = 4096  # of the samples that run on a GPU
TENSOR_METHODS = {"add": "__add__", "sub": "__sub__", "mul": "__mul__", "div": "__truediv__"}


SEEDED = "wrapper_set_seed"  # what entries that draw numbers are wrapped in


def is_random(op: Any) -> bool:
    """Whether results are drawn from any seed or left as memory was: nothing to compare but
    shapes."""
    name, code = op.name, getattr(op.op, "__code__", None)
    if name.startswith(UNINITIALISED):
        return True
    if code and SEEDED in code.co_names:
        return Place.name != "cpu"  # a GPU's stream is not the CPU's
    return name in RANDOM or any(word in name for word in ("dropout", "rand", "fractional"))


# ------------------------------------------------------------------------------------- the database


def lookup(op: Any) -> Any:
    """The function of ours that an entry of the database names; None where there is none."""
    found: Any = graphtorch
    for part in op.name.split("."):
        found = getattr(found, part, None)
    # a method only, or shadowed by a dtype (float, double)
    if not callable(found) and "." not in op.name:
        found = getattr(graphtorch.Tensor, op.name, None)
    if found is not None and isinstance(op.op, functools.partial):
        return functools.partial(found, *op.op.args, **op.op.keywords)
    if found is not None and getattr(op.op, "__name__", "") == "<lambda>":
        return on_ours(op.op)
    return found


def on_ours(function: Any) -> Any:
    """A function of the database that calls PyTorch's, calling ours."""
    known = {**function.__globals__, "torch": graphtorch, SEEDED: seeded}
    code, defaults = function.__code__, function.__defaults__
    return types.FunctionType(code, known, "ours", defaults, function.__closure__)


def seeded(function: Any, *args: Any, **kwargs: Any) -> Any:
    """As the database's `wrapper_set_seed`."""
    with graphtorch.random.fork_rng(devices=[]):
        graphtorch.manual_seed(42)
        return function(*args, **kwargs)


def entries(only: str | None, surface: set[str] | None) -> list[Any]:
    """The entries to replay."""
    return [
        op
        for op in op_db
        if op.supported_dtypes("cpu")
        and (only is None or op.name == only)
        and (surface is None or names_of(op) & surface)
    ]


def names_of(op: Any) -> set[str]:
    """The names under which a table of the surface may list an entry."""
    found = set()
    for name in {op.name, *(a.name for a in op.aliases)}:
        last = name.rsplit(".", 1)[-1]
        found |= {f"torch.{name}", f"torch.Tensor.{last}", f"torch.Tensor.{last}_"}
        if name in TENSOR_METHODS:
            found.add(f"torch.Tensor.{TENSOR_METHODS[name]}")
        if name.startswith("nn.functional."):
            found.add("torch.nn." + "".join(p.title() for p in last.split("_")))
    return found


KINDS = (
    "forward",
    "gradient",
    "second gradient",
    "compiled forward",
    "compiled gradient",
    "mapped forward",
    "mapped gradient",
    "trajectory",
)


@dataclass
class Tally:
    """Counts, and the reason of each sample that differs."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, kind: str, entry: str, reason: str | None) -> None:
        self.counts[kind] += 1
        if reason is None:
            self.counts[kind + " equal"] += 1
        else:
            self.reasons.setdefault(f"{entry} {kind}", Counter())[reason[:160]] += 1

    def report(self) -> None:
        for kind in KINDS:
            total, equal = self.counts[kind], self.counts[kind + " equal"]
            if total:
                print(f"  {kind}: {equal} of {total} samples equal ({100 * equal / total:.2f} %)")
        for name in ("no such name", "random", "no sample", "refused by vmap"):
            if self.counts[name]:
                print(f"  {name}: {self.counts[name]} entries")
        if self.counts["compiled forward"]:
            print(f"  compiled functions that were replayed: {self.counts['replayed']}")
        for entry, reasons in sorted(self.reasons.items()):
            for reason, count in reasons.most_common():
                print(f"    {entry}: {count} x {reason}")


class Replay:
    """One entry at one dtype."""

    def __init__(
        self, op: Any, dtype: torch.dtype, tally: Tally, second: bool, shown: bool = False
    ):
        self.op, self.dtype, self.tally, self.second = op, dtype, tally, second
        self.function = lookup(op)
        self.unique: Any = None  # what a sample makes of results before they are compared
        self.shown = shown

    def run(self) -> None:
        if self.function is None:
            self.tally.counts["no such name"] += 1
        elif is_random(self.op):
            self.tally.counts["random"] += 1
        else:
            for sample in self.samples():
                self.sample(sample)

    def samples(self) -> Iterator[Any]:
        grad = (
            self.op.supports_autograd
            and (self.dtype.is_floating_point or self.dtype.is_complex)
            and self.dtype in self.op.supported_backward_dtypes("cpu")
        )
        torch.manual_seed(0)
        try:
            yield from self.op.sample_inputs("cpu", self.dtype, requires_grad=grad)
        except Exception:  # some generators cannot make samples of every dtype they list
            self.tally.counts["no sample"] += 1

    def sample(self, sample: Any) -> None:
        args = (sample.input, *sample.args)
        try:
            theirs = self.op(*args, **sample.kwargs)
        except Exception:
            self.tally.counts["refused by PyTorch"] += 1
            return
        self.unique = sample.output_process_fn_grad
        wanted = [to_array(t) for t in tensors(self.unique(theirs))]
        wrong = self.caught(lambda: self.forward(args, sample.kwargs, wanted))
        if wrong is not None and wrong.startswith("relative error"):
            wrong = self.caught(lambda: self.result(sample, wanted, wrong))
        self.tally.note("forward", self.op.full_name, wrong)
        if wrong is not None and self.shown:
            print(f"    {self.op.full_name} {brief(args)} {brief(sample.kwargs)}: {wrong}")
        if wrong is None and not self.op.name.endswith("_"):
            self.gradients(sample, args, theirs)

    def caught(self, check: Any) -> str | None:
        try:
            return check()
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"

    def forward(self, args: Any, kwargs: Any, wanted: list[np.ndarray]) -> str | None:
        result = self.function(*ours(args), **ours(kwargs))
        got = [elements(t) for t in self.told(result)]
        return self.compare(got, wanted, 1)

    def result(self, sample: Any, wanted: list[np.ndarray], wrong: str) -> str | None:
        """What is wrong with results that are `wrong`; None where they are better than
        PyTorch's."""
        result = self.function(*ours((sample.input, *sample.args)), **ours(sample.kwargs))
        got = [elements(t) for t in self.told(result)]
        exact_ones = functools.partial(exact.results, self.op, sample)
        return None if self.better(got, wanted, exact_ones, 1) else wrong

    def told(self, result: Any) -> list[Any]:
        """The tensors of a result of ours; of factors that are not unique, what a sample says
        is."""
        return tensors(self.unique(result), graphtorch.Tensor)

    def compare(self, got: list[np.ndarray], wanted: list[np.ndarray], loosen: float) -> str | None:
        if len(got) != len(wanted):
            return f"{len(got)} results instead of {len(wanted)}"
        found = (
            difference(g, w, self.tolerance(w, loosen)) for g, w in zip(got, wanted, strict=True)
        )
        return next((d for d in found if d), None)

    def tolerance(self, wanted: np.ndarray, loosen: float) -> tuple[float, float]:
        """That of the sample's dtype; of the result's where the sample is of integers."""
        given = TOLERANCE.get(str(self.dtype).split(".")[1])
        relative, absolute = given or TOLERANCE.get(str(wanted.dtype), (1e-300, 0.0))
        return relative * loosen, absolute * loosen

    def gradients(self, sample: Any, args: Any, theirs: Any) -> None:
        outs = [t for t in tensors(sample.output_process_fn_grad(theirs)) if t.requires_grad]
        leaves = [t for t in tensors([args, sample.kwargs]) if t.requires_grad]
        if not outs or not leaves:
            return
        seeds = [torch.randn_like(o) for o in outs]
        again = self.second and self.op.supports_gradgrad
        try:
            found = torch.autograd.grad(outs, leaves, seeds, allow_unused=True, create_graph=again)
        except RuntimeError:
            self.tally.counts["gradient refused by PyTorch"] += 1
            return
        state: dict[str, Any] = {}
        wrong = self.caught(lambda: self.first_order(args, sample, seeds, found, again, state))
        self.tally.note("gradient", self.op.full_name, wrong)
        if wrong is not None and self.shown:
            print(f"    {self.op.full_name} {brief(args)} {brief(sample.kwargs)}: gradient {wrong}")
        if again and wrong is None:
            wrong = self.caught(lambda: self.second_order(leaves, found, state))
            if wrong != "none":
                self.tally.note("second gradient", self.op.full_name, wrong)

    def first_order(
        self, args: Any, sample: Any, seeds: Any, found: Any, again: bool, state: dict[str, Any]
    ) -> str | None:
        leaves: list[Any] = []
        result = self.function(*ours(args, leaves), **ours(sample.kwargs, leaves))
        outs = [t for t in self.told(result) if t.requires_grad]
        if len(outs) != len(seeds):
            return f"{len(outs)} results require grad instead of {len(seeds)}"
        got = graphtorch.autograd.grad(
            outs, leaves, [ours(s) for s in seeds], allow_unused=True, create_graph=again
        )
        state.update(leaves=leaves, gradients=got)
        theirs = [t for t in tensors([args, sample.kwargs]) if t.requires_grad]
        filled = [self.filled(g, x) for g, x in zip(got, leaves, strict=True)]
        wanted = self.wanted(found, theirs)
        wrong = self.compare(filled, wanted, 10)
        exact_ones = functools.partial(exact.gradients, self.op, sample, seeds)
        return None if wrong and self.better(filled, wanted, exact_ones, 10) else wrong

    def better(self, mine: Any, theirs: Any, exact_ones: Any, loosen: float) -> bool:
        """Whether what differs from PyTorch's is at least as near to the exact results."""
        same = [
            a.shape == b.shape and a.dtype == b.dtype for a, b in zip(mine, theirs, strict=True)
        ]
        if self.dtype not in (torch.float32, torch.float64) or not all(same):
            return False
        relative, absolute = self.tolerance(theirs[0], loosen)
        return exact.nearer(mine, theirs, exact_ones(), absolute / relative)

    def wanted(self, found: Any, leaves: list[torch.Tensor]) -> list[np.ndarray]:
        return [
            to_array(torch.zeros_like(x) if g is None else g)
            for g, x in zip(found, leaves, strict=True)
        ]

    def filled(self, gradient: Any, leaf: Any) -> np.ndarray:
        return elements(graphtorch.zeros_like(leaf) if gradient is None else gradient)

    def second_order(self, leaves: Any, found: Any, state: dict[str, Any]) -> str | None:
        theirs = [g for g in found if g is not None and g.requires_grad]
        if not theirs:
            return "none"
        pairs = [(g, o) for g, o in zip(found, state["gradients"], strict=True) if g is not None]
        pairs = [(g, o) for g, o in pairs if g.requires_grad]
        seeds = [torch.randn_like(g) for g in theirs]
        wanted = torch.autograd.grad(theirs, leaves, seeds, allow_unused=True)
        kept = [
            (o, s)
            for (_, o), s in zip(pairs, seeds, strict=True)
            if o is not None and o.requires_grad
        ]
        got = [None] * len(leaves)
        if kept:
            got = graphtorch.autograd.grad(
                [o for o, _ in kept], state["leaves"], [ours(s) for _, s in kept], allow_unused=True
            )
        filled = [self.filled(g, x) for g, x in zip(got, state["leaves"], strict=True)]
        return self.compare(filled, self.wanted(wanted, leaves), 100)


# ------------------------------------------------------------------------------------- some samples


class Some(Replay):
    """One sample in so many of each entry, and no more than so many."""

    every = 1
    most: int | None = None

    def samples(self) -> Iterator[Any]:
        samples = super().samples()
        if Place.name != "cpu":
            samples = (
                s
                for s in samples
                if sum(t.numel() for t in tensors((s.input, s.args, s.kwargs))) <= MOST_ELEMENTS
            )
        first = zlib.crc32(self.op.full_name.encode()) % self.every
        return itertools.islice(itertools.islice(samples, first, None, self.every), self.most)

    def note(self, kind: str, wrong: str | None, args: Any, kwargs: Any) -> None:
        self.tally.note(kind, self.op.full_name, wrong)
        if wrong is not None and self.shown:
            print(f"    {self.op.full_name} {brief(args)} {brief(kwargs)}: {kind} {wrong}")


# ------------------------------------------------------------------------------------------ mapped

NEAR = 0.75  # what the elements of the second entry are multiplied by: they stay in any domain


class Mapped(Some):
    """Each sample as the first of two entries under `vmap`, in all operands, and in the first
    alone."""

    def forward(self, args: Any, kwargs: Any, wanted: list[np.ndarray]) -> str | None:
        wrong = super().forward(args, kwargs, wanted)
        if wrong is None and tensors([args, kwargs]):
            for alone in (False, True):
                found = self.caught(lambda a=alone: self.mapped(args, kwargs, a))
                if found is not None and " vmap: " in f" {found}":
                    self.tally.counts["refused by vmap"] += 1
                else:
                    self.note("mapped forward", found, args, kwargs)
        return wrong

    def gradients(self, sample: Any, args: Any, theirs: Any) -> None:
        pass  # those of the second entry are compared with the results

    def mapped(self, args: Any, kwargs: Any, alone: bool) -> str | None:
        leaves = [t.detach() for t in tensors(ours([args, kwargs]), graphtorch.Tensor)]
        floats = [t.dtype.is_floating_point or t.dtype.is_complex for t in leaves]
        leaves = [
            t.requires_grad_() if f and self.op.supports_autograd else t
            for t, f in zip(leaves, floats, strict=True)
        ]
        lines = [
            graphtorch.stack([t, t * NEAR if f else t]) for t, f in zip(leaves, floats, strict=True)
        ]
        dims = tuple(None if alone and i else 0 for i in range(len(leaves)))

        def function(*given: Any) -> Any:
            left = iter(given)
            call = rebuild(ours([args, kwargs]), lambda _: next(left))
            return tuple(tensors(self.function(*call[0], **call[1]), graphtorch.Tensor))

        pairs = list(zip(leaves, lines, dims, strict=True))
        each = [function(*(t if d is None else line[i] for t, line, d in pairs)) for i in range(2)]
        want = [graphtorch.stack(column) for column in zip(*each, strict=True)]
        given = [t if d is None else line for t, line, d in pairs]
        got = graphtorch.vmap(function, dims)(*given)
        wrong = self.compare([elements(t) for t in got], [elements(t) for t in want], 1)
        return wrong or self.slopes(got, want, leaves)

    def slopes(self, got: Any, want: Any, leaves: list[Any]) -> str | None:
        """The gradients of both."""
        inputs = [t for t in leaves if t.requires_grad]
        found = []
        for results in (got, want):
            total = sum(
                (r.real if r.dtype.is_complex else r).sin().sum()
                for r in results
                if r.requires_grad
            )
            known = inputs and not isinstance(total, int)
            grads = (
                graphtorch.autograd.grad(total, inputs, None, True, allow_unused=True)
                if known
                else []
            )
            found.append([self.filled(g, x) for g, x in zip(grads, inputs, strict=False)])
        wrong = self.compare(*found, 10)
        return wrong and f"gradient: {wrong}"


# ----------------------------------------------------------------------------------------- compiled

CALLS = 3  # of each compiled function: the second and third replay what the first recorded


class Compiled(Some):
    """Each sample in a compiled function as well."""

    def forward(self, args: Any, kwargs: Any, wanted: list[np.ndarray]) -> str | None:
        wrong = super().forward(args, kwargs, wanted)
        if wrong is None:
            found = self.caught(lambda: self.replayed(args, kwargs, wanted))
            self.note("compiled forward", found, args, kwargs)
        return wrong

    def replayed(self, args: Any, kwargs: Any, wanted: list[np.ndarray]) -> str | None:
        function = compiled(self.function)
        wrong = None
        for _ in range(CALLS):
            result = function(ours(args), ours(kwargs))
            got = [elements(t) for t in self.told(result)]
            wrong = wrong or self.compare(got, wanted, 1)
        self.tally.counts["replayed"] += function.recorded > 0
        return wrong

    def first_order(
        self, args: Any, sample: Any, seeds: Any, found: Any, again: bool, state: dict[str, Any]
    ) -> str | None:
        wrong = super().first_order(args, sample, seeds, found, again, state)
        if wrong is None:
            plain, self.function = self.function, self.spread(compiled(self.function))
            first = super().first_order
            wrongs = [
                self.caught(lambda: first(args, sample, seeds, found, again, {}))
                for _ in range(CALLS)
            ]
            self.function = plain
            self.note(
                "compiled gradient", next((w for w in wrongs if w), None), args, sample.kwargs
            )
        return wrong

    def spread(self, function: Any) -> Any:
        return lambda *args, **kwargs: function(args, kwargs)


def compiled(function: Any) -> Any:
    """A compiled function of a sample's arguments, in a tuple and a dict."""
    return graphtorch.compile(lambda args, kwargs: function(*args, **kwargs))


# ---------------------------------------------------------------------------------------- both ends

# largest elements: near an end, or with squares beyond it
LARGEST = (30000.0, 300.0, 2.0**-9, 2.0**-13)
SAMPLES = 6  # of each entry
ROUNDED = (2e-2, 2.0**-23)  # tolerance: a few roundings to 16 bits; two of the smallest numbers


def scaled(x: Any, largest: float, sign: bool) -> Any:
    """`x` as a leaf whose largest element is `largest`, without signs where `sign` is False."""
    if (
        not isinstance(x, torch.Tensor)
        or not x.is_floating_point()
        or x.layout is not torch.strided
    ):
        return x
    plain = x.detach() if sign else x.detach().abs()
    top = plain.abs().max().item() if plain.numel() else 0.0
    if top and np.isfinite(top):
        plain = (plain.float() * (largest / top)).to(x.dtype)
    return plain.requires_grad_(x.requires_grad)


class Ends(Replay):
    """One entry with elements at both ends of a 16-bit dtype's range.

    PyTorch computes with f32 inside an operation: where its result is right, ours has to be right
    as well.
    """

    def samples(self) -> Iterator[Any]:
        for sample in itertools.islice(super().samples(), SAMPLES):
            for largest, sign in itertools.product(LARGEST, (True, False)):
                yield sample.transform(lambda x, a=largest, s=sign: scaled(x, a, s))

    def sample(self, sample: Any) -> None:
        try:
            theirs, wide = (self.theirs(s) for s in (sample, sample.transform(exact.doubled)))
        except Exception:
            self.tally.counts["refused by PyTorch"] += 1
            return
        for kind, given in (("forward", 0), ("gradient", 1)):
            if theirs[given]:
                wrong = self.caught(
                    lambda given=given: self.beside(
                        self.mine(sample)[given], theirs[given], wide[given]
                    )
                )
                self.tally.note(kind, self.op.full_name, wrong)
                if wrong is not None and self.shown:
                    shown = brief((sample.input, *sample.args)), brief(sample.kwargs)
                    print(f"    {self.op.full_name} {shown}: {kind} {wrong}")

    def theirs(self, sample: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        args = (sample.input, *sample.args)
        found = tensors(self.op(*args, **sample.kwargs))
        outs = [t for t in found if t.requires_grad]
        leaves = [t for t in tensors([args, sample.kwargs]) if t.requires_grad]
        got = (
            torch.autograd.grad(outs, leaves, [torch.ones_like(o) for o in outs], allow_unused=True)
            if outs and leaves
            else ()
        )
        gradients = self.wanted(got, leaves) if got else []
        return [to_array(t) for t in found if t.is_floating_point()], gradients

    def mine(self, sample: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        leaves: list[Any] = []
        args, kwargs = ours((sample.input, *sample.args), leaves), ours(sample.kwargs, leaves)
        found = tensors(self.function(*args, **kwargs), graphtorch.Tensor)
        outs = [t for t in found if t.requires_grad]
        seeds = [graphtorch.ones_like(o) for o in outs]
        got = (
            graphtorch.autograd.grad(outs, leaves, seeds, allow_unused=True)
            if outs and leaves
            else ()
        )
        gradients = [self.filled(g, x) for g, x in zip(got, leaves, strict=True)] if got else []
        return [elements(t) for t in found if t.is_floating_point()], gradients

    def beside(
        self, mine: list[np.ndarray], theirs: list[np.ndarray], wide: list[np.ndarray]
    ) -> str | None:
        """Where PyTorch's result is near the exact one and ours is not."""
        for a, b, c in zip(mine, theirs, wide, strict=True):
            a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
            with np.errstate(all="ignore"):  # where large elements cancel their roundings are left
                top = np.max(np.abs(c), initial=0, where=np.isfinite(c))
                most = ROUNDED[0] * np.abs(c) + ROUNDED[1] + torch.finfo(self.dtype).eps * top
                right, near = (~(np.abs(x - c) > most) & np.isfinite(x) for x in (b, a))
            wrong = np.flatnonzero(right & ~near)
            if wrong.size:
                i = wrong[0]
                return f"{a.flat[i]:.5g} instead of {b.flat[i]:.5g} (exactly {c.flat[i]:.5g})"
        return None


def replay(
    dtype: torch.dtype,
    only: str | None,
    surface: set[str] | None,
    second: bool,
    shown: bool = False,
    kind: type[Replay] = Replay,
) -> Tally:
    """All entries at one dtype."""
    tally = Tally()
    for op in entries(only, surface):
        if dtype in op.supported_dtypes("cpu"):
            kind(op, dtype, tally, second, shown).run()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--op", help="one entry of the database")
    parser.add_argument("--dtype", default="float32", help="a dtype's name, or 'others'")
    parser.add_argument("--second", action="store_true", help="second gradients too")
    parser.add_argument(
        "--ends", action="store_true", help="elements at both ends of a 16-bit range"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="each sample in a compiled function as well"
    )
    parser.add_argument("--mapped", action="store_true", help="each sample under vmap as well")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="where our tensors are"
    )
    parser.add_argument(
        "--every", type=int, default=1, help="one sample in so many (not with --ends)"
    )
    parser.add_argument("--most", type=int, help="samples of each entry (not with --ends)")
    parser.add_argument(
        "--surface", type=Path, help="a table whose first column names what to replay"
    )
    parser.add_argument("-v", action="store_true", help="the arguments of each sample that differs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    Some.every, Some.most = given.every, given.most
    use(given.device)
    surface = None
    if given.surface:
        surface = {
            line.split("\t")[0] for line in given.surface.read_text(encoding="utf8").splitlines()
        }
    for name in OTHERS if given.dtype == "others" else (given.dtype,):
        print(name, flush=True)
        kind = (
            Ends if given.ends else Compiled if given.compiled else Mapped if given.mapped else Some
        )
        replay(getattr(torch, name), given.op, surface, given.second, given.v, kind).report()


if __name__ == "__main__":
    main()
