"""Which tensors an operation keeps for its gradient, on PyTorch and on graphtorch.

    python tools/oracle/saved.py                     float32, two samples of every entry
    python tools/oracle/saved.py --most 8            more samples
    python tools/oracle/saved.py --op linalg.solve   one entry
    python tools/oracle/saved.py --dtype complex64
    python tools/oracle/saved.py --compiled          the operation in a compiled function

PyTorch refuses a backward pass ("one of the variables needed for gradient computation has been
modified by an inplace operation") exactly where a tensor that an operation saved was written to
since. For each entry of ``torch.testing``'s operator database that has a gradient, this writes to
each tensor operand and to each result in turn, between the forward and the backward pass, and
compares who refuses. Disagreements are printed by their kind. Needs ``pip install -e ".[oracle]"``.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from conversion import brief, ours, tensors
from opinfo import compiled, entries, lookup
from torch.testing._internal.common_methods_invocations import op_db  # noqa: F401

import graphtorch

MODIFIED = "modified by an inplace operation"
ALLOWED, REFUSED = "allowed", "refused"
OURS_REFUSES, OURS_ALLOWS = "refused by us alone", "allowed by us alone"
TOO_BIG = 100_000  # elements of a sample: what is saved does not depend on its size


class Place(NamedTuple):
    """A tensor to write to: an operand or a result, and its number."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"


@dataclass
class Tally:
    """Counts of outcomes, and the samples of each disagreement."""

    counts: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[tuple[str, str], list[str]]] = field(default_factory=dict)

    def note(self, entry: str, place: Place, theirs: str, mine: str, sample: str) -> None:
        """Outcomes of one write on PyTorch and on us."""
        if mine not in (ALLOWED, REFUSED):
            self.counts["failed"] += 1
            self._add(f"failed: {mine}", entry, place, sample)
            return
        self.counts["compared"] += 1
        if mine == theirs:
            self.counts["equal"] += 1
            self.counts[f"equal {mine}"] += 1
        else:
            self._add(OURS_REFUSES if mine == REFUSED else OURS_ALLOWS, entry, place, sample)

    def _add(self, kind: str, entry: str, place: Place, sample: str) -> None:
        self.found.setdefault(kind, {}).setdefault((entry, str(place)), []).append(sample)

    def report(self, shown: bool) -> None:
        """Print them, by their kind."""
        total, equal = self.counts["compared"], self.counts["equal"]
        print(f"{equal} of {total} outcomes agree ({100 * equal / max(total, 1):.2f} %)")
        print(
            f"  (both refuse: {self.counts['equal refused']}; "
            f"not comparable: {self.counts['failed']})"
        )
        for kind, places in sorted(self.found.items()):
            print(f"{kind}: {sum(map(len, places.values()))}")
            for (entry, place), samples in sorted(places.items()):
                print(f"    {entry}: {place}, {len(samples)} x")
                for sample in samples if shown else ():
                    print(f"        {sample}")


class Side(NamedTuple):
    """PyTorch or us: the module, an entry's function, and how arguments become ours or theirs."""

    library: Any
    function: Callable[..., Any]
    convert: Callable[[Any], Any]

    def outcome(self, sample: Any, place: Place) -> str:
        """What a backward pass says after a write to `place`.

        Raises: Impossible: nothing can be written there, or nothing differentiated.
        """
        leaves, operands, results = self.forward(sample)
        outs = [r for r in results if r.requires_grad]
        if not outs or not leaves:
            raise Impossible("no gradient")
        targets = operands if place.kind == "operand" else results
        if place.number >= len(targets):
            raise Impossible("no such tensor")
        seeds = [self.library.ones_like(r) for r in outs]
        with self.library.no_grad():
            self.write(targets[place.number])
        try:
            self.library.autograd.grad(outs, leaves, seeds, allow_unused=True)
        except RuntimeError as error:
            if MODIFIED in str(error):
                return REFUSED
            raise Impossible(str(error)) from error
        return ALLOWED

    def forward(self, sample: Any) -> tuple[list[Any], list[Any], list[Any]]:
        """Leaves that require grad, the operands of the operation, and its results."""
        leaves: list[Any] = []
        operands: list[Any] = []

        def fresh(x: Any) -> Any:
            made = self.convert(x.detach())
            if x.requires_grad:
                leaves.append(made.requires_grad_())
            operands.append(made.clone())
            return operands[-1]

        args, kwargs = rebuilt([(sample.input, *sample.args), sample.kwargs], fresh)
        if self.library is graphtorch:
            args, kwargs = ours_besides_tensors(args), ours_besides_tensors(kwargs)
        return leaves, operands, tensors(self.function(*args, **kwargs), self.library.Tensor)

    def write(self, target: Any) -> None:
        try:
            target.copy_(target.detach().clone())
        except (RuntimeError, NotImplementedError) as error:
            raise Impossible(f"write: {error}") from error


class Impossible(Exception):
    """There is no such outcome."""


def rebuilt(x: Any, fresh: Callable[[Any], Any]) -> Any:
    """A nest of arguments with other tensors."""
    if isinstance(x, torch.Tensor):
        return fresh(x)
    if type(x) in (list, tuple):
        return type(x)(rebuilt(v, fresh) for v in x)
    if isinstance(x, dict):
        return {k: rebuilt(v, fresh) for k, v in x.items()}
    return x


def ours_besides_tensors(x: Any) -> Any:
    """A nest of arguments whose tensors are ours already."""
    if isinstance(x, graphtorch.Tensor):
        return x
    if type(x) in (list, tuple):
        return type(x)(ours_besides_tensors(v) for v in x)
    if isinstance(x, dict):
        return {k: ours_besides_tensors(v) for k, v in x.items()}
    return ours(x)


def samples_of(op: Any, dtype: torch.dtype, most: int | None) -> Iterator[Any]:
    """The first samples of an entry with a gradient."""
    torch.manual_seed(0)
    samples = op.sample_inputs("cpu", dtype, requires_grad=True)
    small = (s for s in samples if sum(t.numel() for t in tensors([s.input, s.args])) < TOO_BIG)
    return itertools.islice(small, most)


def compare(op: Any, dtype: torch.dtype, tally: Tally, most: int | None, replay: bool) -> None:
    """All writes around the samples of one entry."""
    function = lookup(op)
    if function is None or not op.supports_autograd:
        return
    if dtype not in op.supported_backward_dtypes("cpu"):
        return
    theirs = Side(torch, op, lambda x: x.clone())
    try:
        samples = list(samples_of(op, dtype, most))
    except Exception:  # some generators cannot make samples of every dtype they list
        tally.counts["no sample"] += 1
        return
    for sample in samples:
        mine = Side(graphtorch, spread(compiled(function)) if replay else function, ours)
        compare_sample(op.full_name, sample, theirs, mine, tally)


def spread(function: Any) -> Any:
    return lambda *args, **kwargs: function(args, kwargs)


def compare_sample(entry: str, sample: Any, theirs: Side, mine: Side, tally: Tally) -> None:
    try:
        _, operands, results = theirs.forward(sample)
    except Exception:
        tally.counts["refused by PyTorch"] += 1
        return
    shown = f"{brief((sample.input, *sample.args))} {brief(sample.kwargs)}"
    places = [Place("operand", i) for i in range(len(operands))]
    places += [Place("result", i) for i in range(len(results))]
    for place in places:
        try:
            wanted = theirs.outcome(sample, place)
        except Exception:
            tally.counts["refused by PyTorch"] += 1
            continue
        try:
            got = mine.outcome(sample, place)
        except Exception as error:
            got = f"{type(error).__name__} {(str(error).splitlines() or [''])[0][:80]}"
        tally.note(entry, place, wanted, got, shown)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--op", help="one entry of the database")
    parser.add_argument("--dtype", default="float32", help="a dtype's name")
    parser.add_argument("--most", type=int, default=2, help="samples of each entry")
    parser.add_argument("--every", type=int, default=1, help="one entry in so many")
    parser.add_argument("--compiled", action="store_true", help="in a compiled function")
    parser.add_argument("-v", action="store_true", help="the arguments of each disagreement")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    tally = Tally()
    for op in entries(given.op, None)[:: given.every]:
        compare(op, getattr(torch, given.dtype), tally, given.most, given.compiled)
    tally.report(given.v)


if __name__ == "__main__":
    main()
