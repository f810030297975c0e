"""How pending graphs run: op by op at first, as compiled programs where that pays.

Recordings of one structure (`Walk.key`) share a `Structure`, whatever their sizes. What running it op
by op has
taken so far is added up, by the estimates of `backends.effort`; when it reaches what compiling would
take, it is
compiled: so no program takes more than about twice the time of the best choice made in hindsight, and a graph
that never comes back costs no more than running it. Sizes that change from recording to recording
become symbols of one program (`ir.generalize`); sizes that come back get a program of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from graphtorch.backends.effort import LOAD_NS, compiling_ns, stepping_ns
from graphtorch.backends.llvm import debug
from graphtorch.backends.reference.steps import run_steps
from graphtorch.ir.dtype import boolean
from graphtorch.ir.evaluate import Plan
from graphtorch.ir.failure import InternalError
from graphtorch.ir.generalize import Variant, generalize, scalar_arrays
from graphtorch.ir.graph import Graph, Location, Value
from graphtorch.ir.shape import Condition
from graphtorch.ir.structure import Number

from . import _settings
from ._memory import CHOSEN, Buffer, pending_program
from ._walk import Walk
from .storage import Leaf

STRUCTURES_BOUND = 4096  # structures remembered; the oldest goes first
PROGRAMS_BOUND = 64  # programs of one structure for fixed sizes
SIZES_BOUND = 256  # sizes of one structure whose time is added up one by one
AGAIN = 0.3  # sizes that came so often are a loop, which has most likely the larger part before it
SOON = 0.4  # the same for sizes that change all the time
HISTORY = 6  # recordings of one structure that a guess of its symbols rests on
RECORDINGS = 3  # so many of different sizes are needed for a guess
LONG = 1 << 14  # numbers of a recording beyond which its sizes are not remembered

REPORTS = debug.reports_programs()

Sizes = tuple[Number, ...]

new_count = 0  # pairs of a structure and its sizes met for the first time in this process


class Program:
    """Compiled code for a structure.

    Attributes:
        lines: of the recording it was compiled from.
        extra: inputs beyond the leaves, from the sizes of a recording.
        about: of which sizes it is, for the report.
        seconds, runs: what making it took, and how often it ran.
    """

    __slots__ = ("about", "extra", "lines", "run", "runs", "seconds")

    def __init__(
        self,
        graph: Graph,
        walk: Walk,
        about: str,
        conditions: Sequence[Condition] = (),
        extra: Callable[[Sizes], list[Buffer]] | None = None,
    ):
        start = time.perf_counter()
        self.run = pending_program(graph, conditions)
        self.seconds = time.perf_counter() - start
        self.lines = [n.location for n in walk.nodes]
        self.about = about
        self.extra = extra
        self.runs = 0


class Structure:
    """What is known of the recordings of one structure."""

    __slots__ = (
        "costs", "fixed", "history", "key", "kinds", "lines", "native", "patience", "plan", "spent", "steps",
        "symbolic", "total", "worth",
    )

    def __init__(self, walk: Walk) -> None:
        self.lines = _span(walk)
        # op and skeleton of each node
        self.kinds = [(row[0], row[1]) for row in walk.rows] if REPORTS else []
        self.steps = 0  # runs op by op
        self.key: object = None  # kept once there is a program: it must not be found by a hash alone
        self.fixed: dict[Sizes, Program] = {}
        self.symbolic: list[tuple[Variant, Program]] = []
        self.spent: dict[Sizes, float] = {}  # ns of running op by op, by sizes
        self.costs: dict[Sizes, float] = {}  # ns of one run op by op, by sizes
        self.worth = 0.0  # ns of compiling it
        self.plan: tuple[object, Plan] | None = None  # of the last run op by op, and what it was for
        self.total = 0.0  # ns of running op by op since the last guess
        self.history: dict[Sizes, None] = {}  # the last recordings of different sizes
        self.native = True  # whether code can be generated for it
        self.patience = SOON  # how much of the cost of compiling is spent before the next guess

    def find(self, sizes: Sizes) -> Program | None:
        """The program for these sizes."""
        program = self.fixed.get(sizes)
        if program is not None:
            return program
        for variant, program in reversed(self.symbolic):
            if variant.match(sizes):
                return program
        return None

    def note(self, sizes: Sizes, ns: float) -> float:
        """Count a run op by op; what those with these sizes have taken."""
        global new_count
        spent = self.spent.get(sizes)
        if spent is None:
            new_count += 1
            if len(self.spent) >= SIZES_BOUND:
                oldest = next(iter(self.spent))
                del self.spent[oldest], self.costs[oldest]
            self.history.pop(sizes, None)
            if len(self.history) >= HISTORY:
                self.history.pop(next(iter(self.history)))
            self.history[sizes] = None
            spent = 0.0
        self.total += ns
        self.steps += 1
        if len(sizes) <= LONG:
            self.spent[sizes] = spent + ns
            self.costs[sizes] = ns
        return spent + ns


_structures: dict[int, Structure] = {}


def structures() -> Iterator[Structure]:
    """Every structure that is remembered, in the order in which they were met."""
    yield from list(_structures.values())


def clear() -> None:
    """Forget what has been run and compiled."""
    _structures.clear()


class Found(NamedTuple):
    """What is known of a pending graph: its program is None where it is to run op by op."""

    structure: Structure
    key: object
    sizes: Sizes
    program: Program | None


def find(walk: Walk, outputs: Sequence[Value]) -> Found:
    """How to run a pending graph."""
    key, sizes = walk.key(outputs)
    structure = _structure(hash(key), walk)
    program = structure.find(sizes) if structure.key == key else None
    if program is None:
        program = _consider(structure, key, sizes, walk, outputs)
    return Found(structure, key, sizes, program)


def run(found: Found, walk: Walk, outputs: Sequence[Value]) -> list[Leaf]:
    """The outputs of a pending graph, by its program or (then perhaps more than `find` knew of) op by op."""
    buffers = [leaf.buffer for leaf in walk.leaves]
    program = found.program
    if program is None:
        plan = _plan(found, walk, [walk.reference(v) for v in outputs])
        return [Leaf(b) for b in run_steps(walk.nodes, plan, buffers, [v.type for v in outputs])]
    program.runs += 1
    if program.extra is not None:
        buffers += program.extra(found.sizes)
    return [Leaf(b) for b in program.run(buffers)]


def _plan(found: Found, walk: Walk, wanted: list[int]) -> Plan:
    """The order of slots for running op by op; kept from the second time on."""
    structure = found.structure
    key = found.key, wanted
    if structure.plan is not None and structure.plan[0] == key:
        return structure.plan[1]
    plan = Plan([row[2:] for row in walk.rows], walk.count, wanted)
    if structure.steps > 1:
        structure.plan = key, plan
    return plan


def _structure(number: int, walk: Walk) -> Structure:
    found = _structures.get(number)
    if found is None:
        if len(_structures) >= STRUCTURES_BOUND:
            _structures.pop(next(iter(_structures)))
        found = _structures[number] = Structure(walk)
    return found


def _consider(
    structure: Structure, key: object, sizes: Sizes, walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    """A program for the recording, if it is worth one by now."""
    if CHOSEN is not None or _settings.deterministic():
        structure.note(sizes, 0.0)
        return _compiled(structure, key, sizes, walk, outputs) if structure.native else None
    ns = structure.costs.get(sizes)
    if ns is None:
        ns = stepping_ns(walk.nodes)
    spent = structure.note(sizes, ns)
    if not structure.native or structure.total < LOAD_NS:
        return None
    worth = structure.worth
    if not worth:
        worth = structure.worth = compiling_ns(walk.rows, [n.types for n in walk.nodes])
    if spent >= worth * AGAIN:
        return _compiled(structure, key, sizes, walk, outputs)
    if structure.total >= worth * structure.patience and len(structure.history) >= RECORDINGS:
        return _generalized(structure, key, sizes, walk, outputs)
    return None


def _prepare(structure: Structure, key: object, walk: Walk) -> bool:
    """Whether code can be generated; from now on the structure is known by its key."""
    if CHOSEN is None and not _has_native_types(walk):
        structure.native = False
        return False
    if structure.key != key:  # another structure had this hash
        structure.key = key
        structure.fixed.clear()
        structure.symbolic.clear()
    return True


def _compiled(
    structure: Structure, key: object, sizes: Sizes, walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    """A program for these sizes alone."""
    if not _prepare(structure, key, walk):
        return None
    if len(structure.fixed) >= PROGRAMS_BOUND:
        structure.fixed.pop(next(iter(structure.fixed)))
    program = structure.fixed[sizes] = Program(walk.graph(outputs), walk, "fixed sizes")
    return program


def _generalized(
    structure: Structure, key: object, sizes: Sizes, walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    """A program for changing sizes, if a rule for them is found."""
    structure.total = 0.0
    structure.patience *= 2  # a guess that fails, or that later sizes refute, makes the next one wait longer
    if not _prepare(structure, key, walk):
        return None
    vectors = [*(v for v in structure.history if v != sizes), sizes]
    places = [row[2:] for row in walk.rows]
    variant = generalize(walk.nodes, places, [leaf.type for leaf in walk.leaves], outputs, vectors)
    if variant is None:
        return None

    def extra(numbers: Sizes) -> list[Buffer]:
        scalars = [Buffer.of(a) for a in scalar_arrays(variant, numbers)]
        # never read: their sizes are what counts
        return scalars + [Buffer(0, boolean, (int(numbers[p]),), None) for p in variant.carried]

    about = f"sizes {', '.join(s.name for s in variant.graph.symbols())}"
    has_extra = variant.scalars or variant.carried
    try:
        program = Program(variant.graph, walk, about, variant.conditions, extra if has_extra else None)
    except (InternalError, NotImplementedError, TypeError):
        return None  # a pass or a kernel that needs to know the sizes
    structure.symbolic.append((variant, program))
    return program


def _span(walk: Walk) -> tuple[Location | None, Location | None]:
    """The first and the last line of a recording."""
    lines = [n.location for n in walk.nodes if n.location is not None]
    return (lines[0], lines[-1]) if lines else (None, None)


def _has_native_types(walk: Walk) -> bool:
    """Whether every value has a type that code is generated for."""
    return not any(t.dtype.is_complex for n in walk.nodes for t in n.types) and not any(
        leaf.type.dtype.is_complex for leaf in walk.leaves
    )
