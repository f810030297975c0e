"""Schedules that were chosen by measurement, and the kernels of a graph that have a choice.

Two things are measured: by which of its `offers` a contraction runs, and whether a 3 x 3
convolution goes by way of Winograd's tiles, and which. Both are asked for while a graph becomes a
program, by a *key*: a digest of what is computed. `Choices` answers from what is known, leaves the
rest to the cost model, and notes what was asked, so that it can be measured.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.ops.control import RegionAttrs
from graphtorch.ir.ops.winograd import FORMS
from graphtorch.ir.passes.limits import Exactness, Limits
from graphtorch.ir.passes.winograd import GAIN as WORTH
from graphtorch.ir.printer import print_graph

from ..dataclass import dataclass
from ..kernels.contraction.problem import Contraction, extent_of
from ..kernels.machine import Machine
from ..kernels.program.lowering import Lowering, Region, region_of
from ..kernels.program.program import Program
from ..kernels.program.repeat import structure
from .contraction.choice import guess
from .contraction.lower import contract, lower_scheduled
from .contraction.offers import offers
from .lower import SCHEDULES, lower

# Of the time of what is taken without measurement, that another schedule has to take: what two
# measurements of one kernel differ by.
GAIN = 0.97


@dataclass(frozen=True)
class Tunable:
    """What has a choice.

    Attributes:
        key: of what is computed, whatever computes it.
        label: what it is, for people.
        offers: names of schedules; the first is what is taken without measurement.
        work: multiply-adds of all its calls.
        graph: computes it alone: of regions for a contraction, as recorded for a convolution.
        stable: positions of the graph's inputs that seldom change.
        by_tiles: it is a convolution that could go by tiles; else a contraction.
        handicaps: factors on the offers' times, for what else speaks against them.
    """

    key: str
    label: str
    offers: tuple[str, ...]
    work: float
    graph: Graph
    stable: tuple[int, ...]
    by_tiles: bool
    handicaps: tuple[float, ...]

    def best(self, times: Sequence[float]) -> str:
        """The offer to take where these are their times."""
        pairs = zip(times, self.handicaps, self.offers, strict=True)
        return min(((time * factor, name) for time, factor, name in pairs), key=lambda x: x[0])[1]


class Choices:
    """Answers which schedules to take, and notes what was asked."""

    def __init__(self, chosen: Mapping[str, str], exact: Exactness = Exactness.NONE):
        """Args: chosen: offers by key. exact: what results have to be alike with: bits do not
        depend on a choice where they count."""
        self.chosen = dict(chosen)
        self.met: dict[str, Tunable] = {}
        self._bits = exact is Exactness.BITS
        self._counts: Counter[object] = Counter()

    def lower(self, graph: Graph, machine: Machine, stable: Sequence[int]) -> Program:
        """As the target lowers it, with contractions as chosen."""
        regions = [region_of(n) for n in graph.nodes if n.op.name != "constant"]
        # equal ones are lowered once
        self._counts = Counter(structure(r) for r in regions if r.kind == "contraction")
        return lower(graph, machine, stable, replace(SCHEDULES, contract=self._contract))

    def used(self) -> list[dict[str, str]]:
        """What was asked for and chosen, as data that JSON can hold."""
        return [
            {"key": t.key, "kernel": t.label, "schedule": self.chosen[t.key]}
            for t in self.met.values()
            if t.key in self.chosen
        ]

    def check(self) -> None:
        """Raise ValueError where something was chosen that nobody asked for, or that there is
        not."""
        for key, name in self.chosen.items():
            known = self.met.get(key)
            if known is None or name not in known.offers:
                what = "of a kernel that is not there" if known is None else f"for {known.label}"
                raise ValueError(
                    f"schedule {name!r} {what}: schedules belong to the model, the machine and the "
                    "version of graphtorch that they were measured with"
                )

    def describe(self) -> str:
        """How many kernels run by a measured schedule, and how many of these by another one than
        the cost model's."""
        measured = [t for t in self.met.values() if t.key in self.chosen]
        other = sum(self.chosen[t.key] != t.offers[0] for t in measured)
        left = len(self.met) - len(measured)
        return (
            f"tuned: {len(measured)} kernels by measurement, {other} of them otherwise than by the "
            f"cost model; {left} not measured"
        )

    def limits(self, limits: Limits) -> Limits:
        """The target's, with convolutions by tiles as chosen."""
        return replace(limits, tile=self._tile)

    def _asked(self, tunable: Tunable) -> str:
        """What to take; the cost model's where nothing is known, or what there is not."""
        self.met.setdefault(tunable.key, tunable)
        name = self.chosen.get(tunable.key)
        return name if name in tunable.offers else tunable.offers[0]

    def _contract(self, problem: Contraction, region: Region, lowering: Lowering) -> Any:
        if not is_tunable(problem, lowering):
            return contract(problem, region, lowering)
        there = {str(o.schedule): o for o in offers(problem, lowering.machine, self._bits)}
        if len(there) == 1:
            return contract(problem, region, lowering)
        name = self._asked(self._tunable(problem, region, lowering, tuple(there)))
        return lower_scheduled(*there[name], region, lowering)

    def _tunable(
        self, p: Contraction, region: Region, lowering: Lowering, names: tuple[str, ...]
    ) -> Tunable:
        graph, stable = alone(region, lowering)
        which = [f"{a.extent} " for a in p.axes()] + [
            str(x) for x in (p.a, p.b) for x in x.polynomials
        ]
        work = guess(extent_of(p.axes())) * max(1, self._counts[structure(region)])
        key = _key(print_graph(graph, lambda _: False), repr(stable), *which, repr(names))
        handicaps = (GAIN, *[1.0] * (len(names) - 1))
        return Tunable(key, region.label, names, work, graph, stable, False, handicaps)

    def _tile(self, node: Node, kept: bool, default: int) -> int:
        """The tile of a convolution; 0 where it stays as it is."""
        if self._bits or not all(v.type.is_static for v in (*node.operands, *node.results())):
            return default
        names = {tile: _form(tile) for tile in (default, 0, *FORMS)}
        inputs = [Value(v.type, name=f"x{i}") for i, v in enumerate(node.operands)]
        made = node.with_operands(tuple(inputs))
        graph = Graph(node.op.name, inputs, made.results(), [made])
        stable = tuple(range(1, len(inputs))) if kept else ()
        key = _key(print_graph(graph, lambda _: False), repr(stable), repr(names))
        handicaps = [_digits(tile) * (GAIN if tile == default else 1.0) for tile in names]
        label, offers = f"{node.op.name} 3 x 3", tuple(names.values())
        name = self._asked(
            Tunable(key, label, offers, _work(made), graph, stable, True, tuple(handicaps))
        )
        return next(tile for tile, offer in names.items() if offer == name)


def _form(tile: int) -> str:
    return f"tiles of {tile} x {tile}" if tile else "sums"


def _digits(tile: int) -> float:
    """What a lost digit is worth in time, as the estimate has it: larger tiles lose more."""
    return WORTH ** -sum(other <= tile for other in FORMS)


def _work(node: Node) -> float:
    """Multiply-adds of a 3 x 3 convolution or a gradient of one: with p pixels, c channels and f
    filters the three values have p c, 9 c f and p f elements."""
    values = (*node.operands[:2], node.result())
    return 3.0 * math.sqrt(math.prod(guess(v.type.numel) for v in values))


def _key(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.encode())
    return digest.hexdigest()


def is_tunable(p: Contraction, lowering: Lowering) -> bool:
    """Whether a contraction is one that a measurement by itself tells something of: of known sizes,
    called once for each call of the program."""
    once = lowering.in_block or lowering.serial
    return not once and all(isinstance(a.extent, int) for a in p.axes())


def alone(region: Region, lowering: Lowering) -> tuple[Graph, tuple[int, ...]]:
    """The graph of a region by itself; positions of its inputs that seldom change, which are the
    last."""
    kept = [lowering.is_stable(v) for v in region.operands]
    order = sorted(range(len(kept)), key=lambda i: kept[i])
    inputs = [Value(v.type, name=f"x{i}") for i, v in enumerate(region.operands)]
    attrs = RegionAttrs(kind=region.kind, body=region.body)
    types = tuple(v.type for v in region.results)
    node = Node(ops.region, tuple(inputs), attrs, types)
    graph = Graph("kernel", [inputs[i] for i in order], node.results(), [node])
    return graph, tuple(range(kept.count(False), len(kept)))
