"""How pending graphs run: op by op at first, as compiled programs where that pays.

Recordings of one structure (`Walk.key`) share a `Structure`, whatever their sizes. What running it
op by op has taken so far is added up, by the estimates of `backends.effort`; when it reaches what
compiling would take, it is compiled: so no program takes more than about twice the time of the best
choice made in hindsight,
and a graph that never comes back costs no more than running it. Sizes that change from recording to
recording become symbols of one program (`ir.generalize`); sizes that come back get a program of
their own.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from graphtorch.backends.effort import LOAD_NS, compiling_ns, stepping_ns
from graphtorch.backends.llvm import debug
from graphtorch.backends.locks import lock_across_forks
from graphtorch.backends.reference.steps import run_steps
from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean
from graphtorch.ir.evaluate import Plan, places_of
from graphtorch.ir.failure import InternalError
from graphtorch.ir.generalize import Variant, generalize, scalar_arrays
from graphtorch.ir.graph import Graph, Location, Value, topological
from graphtorch.ir.shape import Condition
from graphtorch.ir.structure import Number, split_attrs, split_type

from .. import _settings
from .._types import CPU, device
from .door import CHOSEN, Buffer, captured_program, on_gpu, pending_program
from .storage import Leaf
from .walk import Walk

STRUCTURES_BOUND = 4096  # structures remembered; the oldest goes first
PROGRAMS_BOUND = 64  # programs of one structure for fixed sizes
SIZES_BOUND = 256  # sizes of one structure whose time is added up one by one
AGAIN = 0.3  # sizes that came so often are a loop, which has most likely the larger part before it
SOON = 0.4  # the same for sizes that change all the time
HISTORY = 6  # recordings of one structure that a guess of its symbols rests on
RECORDINGS = 3  # so many of different sizes are needed for a guess
LONG = 1 << 14  # numbers of a recording beyond which its sizes are not remembered

# the patience that makes compiled functions guess at their second and third sizes
GUESS_AT_ONCE = 0.5

_compiling = lock_across_forks()  # what is counted of structures, and their compilation

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
        walk: Walk | Captured,
        about: str,
        conditions: Sequence[Condition] = (),
        extra: Callable[[Sizes], list[Buffer]] | None = None,
        place: device = CPU,
    ):
        start = time.perf_counter()
        if isinstance(walk, Captured):
            self.run = captured_program(
                graph, walk.stable, conditions or walk.conditions, place, tune=walk.tune
            )
        else:
            self.run = pending_program(graph, conditions, place)
        self.seconds = time.perf_counter() - start
        self.lines = [n.location for n in walk.nodes]
        self.about = about
        self.extra = extra
        self.runs = 0


class Serving(NamedTuple):
    """Which sizes a program of a compiled function may serve, and how it is made.

    Attributes:
        dynamic: whether others than its recording's: False: no; True: from the first on; None: once
            they change.
        owner: of the function, a number. Only what differs between its own recordings changes: two
            models of one structure keep the sizes of their weights.
        precision: of products with what seldom changes (`ir.passes.precision`); None: that of their
            operands.
        tune: seconds for measuring schedules of its kernels; 0: none are.
    """

    dynamic: bool | None = None
    owner: int = 0
    precision: str | None = None
    tune: float = 0.0


ANY_SIZES = Serving()


class Structure:
    """What is known of the recordings of one structure."""

    __slots__ = (
        "costs",
        "fixed",
        "history",
        "key",
        "kinds",
        "lines",
        "patience",
        "place",
        "plan",
        "spent",
        "steps",
        "symbolic",
        "total",
        "worth",
    )

    def __init__(self, walk: Walk | Captured, patience: float, place: device = CPU) -> None:
        self.place = place  # where the programs run
        self.lines = _span(walk)
        # op and skeleton of each node
        self.kinds = [(row[0], row[1]) for row in walk.rows] if REPORTS else []
        self.steps = 0  # runs op by op
        # kept once there is a program: it must not be found by a hash alone
        self.key: object = None
        self.fixed: dict[Sizes, Program] = {}
        self.symbolic: list[tuple[Variant, Program]] = []
        self.spent: dict[Sizes, float] = {}  # ns of running op by op, by sizes
        self.costs: dict[Sizes, float] = {}  # ns of one run op by op, by sizes
        self.worth = 0.0  # ns of compiling it
        # of the last run op by op, and what it was for
        self.plan: tuple[object, Plan] | None = None
        self.total = 0.0  # ns of running op by op since the last guess
        # the last recordings of different sizes, and whose they were
        self.history: dict[Sizes, int] = {}
        # how much of the cost of compiling is spent (how many new sizes of a compiled function
        # come) before the next guess
        self.patience = patience

    def find(self, sizes: Sizes, dynamic: bool = True) -> Program | None:
        """The program for these sizes, one that serves others as well if `dynamic`."""
        program = self.fixed.get(sizes)
        if program is not None or not dynamic:
            return program
        for variant, program in reversed(self.symbolic):
            if variant.match(sizes):
                return program
        return None

    def sizes_of(self, owner: int) -> list[Sizes]:
        """Of the last recordings of a compiled function; 0: of all that belong to none."""
        return [sizes for sizes, by in self.history.items() if by == owner]

    def note(self, sizes: Sizes, ns: float, owner: int = 0) -> float:
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
            self.history[sizes] = owner
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


def find(walk: Walk, outputs: Sequence[Value], place: device = CPU) -> Found:
    """How to run a pending graph on a device: on GPUs there always is a program."""
    key, sizes = walk.key(outputs)
    if place is not CPU:
        key = on_gpu(place, key)
    structure = _structure(hash(key), walk, place=place)
    program = structure.find(sizes) if structure.key == key else None
    if program is None:
        program = _consider(structure, key, sizes, walk, outputs)
    return Found(structure, key, sizes, program)


def run(found: Found, walk: Walk, outputs: Sequence[Value]) -> list[Leaf]:
    """The outputs of a pending graph, by its program or (then perhaps more than `find` knew of) op
    by op."""
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
    if structure.plan is not None and structure.plan[0] == key and not walk.spares:
        return structure.plan[1]
    plan = Plan([row[2:] for row in walk.rows], walk.count, wanted)
    if structure.steps > 1 and not walk.spares:  # else the graph is a part of the structure's
        structure.plan = key, plan
    return plan


class Repeated:
    """What runs a small graph of one input again and again: op by op until a program pays, as for
    pending graphs."""

    __slots__ = ("_inputs", "_outputs", "_place", "_plan", "_walk", "program")

    def __init__(self, outputs: Sequence[Value], given: Leaf):
        """Args: given: stands for the input in what was recorded; other leaves stay what they
        are."""
        self._walk = Walk(outputs)
        self._outputs = outputs
        self._place = self._walk.leaves.index(given)
        self._inputs = [leaf.buffer for leaf in self._walk.leaves]
        self._plan: Plan | None = None
        self.program: Program | None = None

    def __call__(self, given: Buffer) -> list[Buffer]:
        """The outputs."""
        program = self.program or self._look()
        inputs = self._inputs.copy()
        inputs[self._place] = given
        if program is None:
            assert self._plan is not None
            return run_steps(self._walk.nodes, self._plan, inputs, [v.type for v in self._outputs])
        program.runs += 1
        return program.run(inputs)

    def _look(self) -> Program | None:
        walk = self._walk
        found = find(walk, self._outputs)
        if self._plan is None:
            self._plan = Plan(
                [row[2:] for row in walk.rows],
                walk.count,
                [walk.reference(v) for v in self._outputs],
            )
        program = found.program
        if program is not None and program.extra is not None:
            self._inputs += program.extra(found.sizes)
        self.program = program
        return program


# ------------------------------------------------------------------------------- compiled functions


class Captured:
    """A graph that a compiled function recorded, in the form in which programs are found (as
    `Walk`)."""

    __slots__ = (
        "_closed",
        "conditions",
        "fixed",
        "leaves",
        "nodes",
        "rows",
        "sizes",
        "stable",
        "tune",
        "wanted",
    )

    def __init__(
        self,
        graph: Graph,
        stable: Sequence[int],
        conditions: Sequence[Condition] = (),
        tune: float = 0.0,
    ):
        """Args: stable, conditions, tune: as `backends.compile` takes them."""
        self._closed = graph
        self.tune = tune
        self.conditions = tuple(conditions)
        self.leaves = graph.inputs
        self.nodes = graph.nodes
        places, self.wanted = places_of(graph)
        self.stable = tuple(stable)
        self.rows: list[tuple[Any, ...]] = []
        self.sizes: list[Number] = []
        # sizes that are part of the structure: all, where some are symbols
        self.fixed: list[Any] = []
        has_symbols = bool(graph.symbols())
        if has_symbols:
            self.fixed += [d for v in self.leaves for d in v.shape]
        for node, row in zip(self.nodes, places, strict=True):
            rest, sizes = split_attrs(node.attrs)
            self.rows.append((node.op, rest, *row))
            self.sizes += sizes
            if has_symbols and node.op is not ops.constant:
                self.fixed += sizes

    def key(self) -> tuple[object, Sizes]:
        """As `Walk.key`. A program that keeps packed copies of weights is not one that does not,
        nor is one that was tuned, for a number of threads, one that was not."""
        kinds = [split_type(v.type) for v in self.leaves]
        key = (
            self.stable,
            _settings.deterministic(),
            self.tune and (self.tune, _settings.get_num_threads()),
            self.conditions,
            tuple(self.fixed),
            tuple([k for k, _ in kinds]),
            tuple(self.rows),
            tuple(self.wanted),
            self._closed.donates,
        )
        return key, (*[n for _, sizes in kinds for n in sizes], *self.sizes)

    def graph(self, outputs: Sequence[Value]) -> Graph:
        """The graph itself: `outputs` are always all of them."""
        return self._closed


def graph_key(graph: Graph) -> object:
    """What graphs that compute the same in the same way have in common."""
    return Captured(graph, ()).key()


def recorded_program(
    graph: Graph,
    stable: Sequence[int] = (),
    serving: Serving = ANY_SIZES,
    conditions: Sequence[Condition] = (),
    places: Sequence[device] = (),
) -> Any:
    """What runs a graph of a compiled function: called with buffers, and ``explain()``.

    Args:
        stable: positions of inputs that seldom change.
        serving: which sizes its program may serve.
        conditions: what the graph assumes of its symbols; whoever calls tests it.
        places: the devices of the outputs; none said: the CPU. What is computed on the CPU there
            has no operands elsewhere.
    """
    if serving.precision is not None:
        precision = importlib.import_module("graphtorch.ir.passes.precision")  # seldom asked for
        graph = precision.run(graph, {graph.inputs[i] for i in stable}, serving.precision)
    found = list(dict.fromkeys(places)) or [CPU]
    if len(found) == 1:
        return Recorded(graph, stable, serving, conditions, found[0])
    return Divided(graph, stable, serving, conditions, places)


def refuse_gpu(buffers: Sequence[Any]) -> None:
    """Raise RuntimeError where an operand of a program for the CPU is in the memory of a GPU, which
    native code must not touch: an operation gave its result no device."""
    found = next((b for b in buffers if not isinstance(b, Buffer)), None)
    if found is not None:
        raise RuntimeError(
            "internal error: an operation on a GPU made a tensor that is said to be on the "
            f"CPU, of {found}: please report it; .cpu() before that operation "
            "avoids it"
        )


class Divided:
    """What runs a graph whose outputs are on several devices: a program for each."""

    def __init__(
        self,
        graph: Graph,
        stable: Sequence[int],
        serving: Serving,
        conditions: Sequence[Condition],
        places: Sequence[device],
    ):
        self._count = len(places)
        self._parts: list[tuple[Recorded, list[int], list[int]]] = []
        for place in dict.fromkeys(places):
            wanted = [i for i, p in enumerate(places) if p is place]
            outputs = [graph.outputs[i] for i in wanted]
            nodes = topological(outputs)
            used = {v for n in nodes for v in n.operands} | set(outputs)
            fed = [
                i for i, v in enumerate(graph.inputs) if v in used or (place is not CPU and v.shape)
            ]
            part = Graph(graph.name, [graph.inputs[i] for i in fed], outputs, nodes)
            kept = [n for n, i in enumerate(fed) if i in set(stable)]
            self._parts.append((Recorded(part, kept, serving, conditions, place), fed, wanted))

    def __call__(self, inputs: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
        given = [*inputs, *more]
        results: list[Any] = [None] * self._count
        for program, fed, wanted in self._parts:
            operands = [given[i] for i in fed]
            if program.place is CPU:
                refuse_gpu(operands)
            for i, made in zip(wanted, program(operands), strict=True):
                results[i] = made
        return results

    def explain(self) -> str:
        """What runs, device by device."""
        return "".join(program.explain() for program, *_ in self._parts)


class Recorded:
    """What runs one graph of a compiled function: a program for its sizes alone, or for changing
    ones.

    The first two recordings of a structure that differ in sizes or Python numbers make a guess of
    what changes; one that later recordings refute is never used for them (`Variant.match`).
    """

    __slots__ = ("_captured", "_extra", "_owner", "_plan", "_ran", "_waits", "place", "program")

    def __init__(
        self,
        graph: Graph,
        stable: Sequence[int],
        serving: Serving,
        conditions: Sequence[Condition] = (),
        place: device = CPU,
    ):
        if serving.tune and place is not CPU:
            raise NotImplementedError(
                f"compile(tune=...) measures kernels of CPUs, and this function runs on {place}: "
                "kernels of GPUs are not tuned; leave tune= out"
            )
        self._captured = Captured(graph, stable, conditions, serving.tune)
        self.place = place
        self.program: Program | None = None
        self._extra: list[Buffer] = []
        self._plan: Plan | None = None  # for running op by op
        self._ran = False
        self._owner, dynamic = serving.owner, serving.dynamic
        if _settings.deterministic():  # the bits are not to depend on what came before
            dynamic = False
        # for a second run, or other sizes; on a GPU nothing runs op by op
        self._waits = dynamic is True and not graph.symbols() and place is CPU
        self._find(dynamic is not False)

    def __call__(self, inputs: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
        """Run it; `more`: inputs after these, see `backends.Executable`."""
        program = self.program
        if program is None:
            program = self._second_try()
            if program is None:
                return self._step([*inputs, *more])
        program.runs += 1
        return (
            program.run([*inputs, *more, *self._extra])
            if self._extra
            else program.run(inputs, more)
        )

    @property
    def takes_more(self) -> bool:
        """Whether the program has inputs that no call brings: its sizes."""
        return bool(self._extra)

    def _second_try(self) -> Program | None:
        """The program, if waiting for one has come to an end."""
        if self._waits and self._ran:
            self._waits = False
            self._find(True)
        self._ran = True
        return self.program

    def _find(self, dynamic: bool) -> None:
        captured = self._captured
        key, sizes = captured.key()
        if self.place is not CPU:
            key = on_gpu(self.place, key)
        structure = _structure(hash(key), captured, GUESS_AT_ONCE, self.place)
        with _compiling:
            program = self._made(structure, key, sizes, dynamic)
        self.program = program
        if program is not None and program.extra is not None:
            self._extra = program.extra(sizes)

    def _made(
        self, structure: Structure, key: object, sizes: Sizes, dynamic: bool
    ) -> Program | None:
        captured, outputs = self._captured, self._captured._closed.outputs
        program = structure.find(sizes, dynamic) if structure.key == key else None
        if program is None and dynamic:
            owner = self._owner
            structure.note(sizes, 1.0, owner)
            if structure.total >= structure.patience and len(structure.sizes_of(owner)) > 1:
                program = _generalized(structure, key, sizes, captured, outputs, owner)
        if program is None and not self._waits:
            program = _compiled(structure, key, sizes, captured, outputs)
        return program

    def _step(self, inputs: Sequence[Buffer]) -> list[Buffer]:
        captured = self._captured
        if self._plan is None:
            count = sum(len(n.types) for n in captured.nodes)
            self._plan = Plan([row[2:] for row in captured.rows], count, captured.wanted)
        return run_steps(
            captured.nodes, self._plan, inputs, [v.type for v in captured._closed.outputs]
        )

    def explain(self) -> str:
        """What runs."""
        return "op by op" if self.program is None else self.program.run.explain()


def _structure(
    number: int, walk: Walk | Captured, patience: float = SOON, place: device = CPU
) -> Structure:
    found = _structures.get(number)
    if found is None:
        if len(_structures) >= STRUCTURES_BOUND:
            with suppress(KeyError, RuntimeError):  # another thread was faster
                _structures.pop(next(iter(_structures)))
        found = _structures.setdefault(number, Structure(walk, patience, place))
    return found


def _consider(
    structure: Structure, key: object, sizes: Sizes, walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    """A program for the recording, if it is worth one by now.

    While another thread compiles this one does not wait: its graph runs op by op, and is not
    counted.
    """
    needed = CHOSEN is not None or structure.place is not CPU or _settings.deterministic()
    if not _compiling.acquire(blocking=needed):
        return None
    try:
        return _considered(structure, key, sizes, walk, outputs)
    finally:
        _compiling.release()


def _considered(
    structure: Structure, key: object, sizes: Sizes, walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    if CHOSEN is not None or _settings.deterministic():
        structure.note(sizes, 0.0)
        return _compiled(structure, key, sizes, walk, outputs)
    if structure.place is not CPU:
        return _compiled_at_once(structure, key, sizes, walk, outputs)
    ns = structure.costs.get(sizes)
    if ns is None:
        ns = stepping_ns(walk.nodes)
    spent = structure.note(sizes, ns)
    if structure.total < LOAD_NS:
        return None
    worth = structure.worth
    if not worth:
        worth = structure.worth = compiling_ns(walk.rows, [n.types for n in walk.nodes])
    if spent >= worth * AGAIN:
        return _compiled(structure, key, sizes, walk, outputs)
    if structure.total >= worth * structure.patience and len(structure.history) >= RECORDINGS:
        return _generalized(structure, key, sizes, walk, outputs)
    return None


def _compiled_at_once(
    structure: Structure, key: object, sizes: Sizes, walk: Walk, outputs: Sequence[Value]
) -> Program:
    """A program where nothing runs op by op: for these sizes, from the third ones on for changing
    ones."""
    structure.note(sizes, 1.0)
    if len(structure.history) >= RECORDINGS and structure.total >= RECORDINGS * structure.patience:
        program = _generalized(structure, key, sizes, walk, outputs)
        if program is not None:
            return program
    return _compiled(structure, key, sizes, walk, outputs)


def _prepare(structure: Structure, key: object) -> None:
    """From now on the structure is known by its key."""
    if structure.key != key:  # another structure had this hash
        structure.key = key
        structure.fixed.clear()
        structure.symbolic.clear()


def _compiled(
    structure: Structure, key: object, sizes: Sizes, walk: Walk | Captured, outputs: Sequence[Value]
) -> Program:
    """A program for these sizes alone."""
    _prepare(structure, key)
    if len(structure.fixed) >= PROGRAMS_BOUND:
        structure.fixed.pop(next(iter(structure.fixed)))
    program = structure.fixed[sizes] = Program(
        walk.graph(outputs), walk, "fixed sizes", place=structure.place
    )
    return program


def _generalized(
    structure: Structure,
    key: object,
    sizes: Sizes,
    walk: Walk | Captured,
    outputs: Sequence[Value],
    owner: int = 0,
) -> Program | None:
    """A program for the changing sizes of a compiled function, or of recordings that belong to
    none, if a rule for them is found."""
    structure.total = 0.0
    # a guess that fails, or that later sizes refute, makes the next one wait longer
    structure.patience *= 2
    _prepare(structure, key)
    vectors = [*(v for v in structure.sizes_of(owner) if v != sizes), sizes]
    places = [row[2:] for row in walk.rows]
    wanted = walk.wanted if isinstance(walk, Captured) else [walk.reference(v) for v in outputs]
    name = walk._closed.name if isinstance(walk, Captured) else "main"
    given = walk.conditions if isinstance(walk, Captured) else ()
    leaves = [leaf.type for leaf in walk.leaves]
    variant = generalize(walk.nodes, places, leaves, wanted, vectors, name, given)
    if variant is None:
        return None

    def extra(numbers: Sizes) -> list[Buffer]:
        scalars = [Buffer.of(a) for a in scalar_arrays(variant, numbers)]
        # never read: their sizes are what counts
        return scalars + [
            Buffer(0, boolean, (int(numbers[p]) // unit,), None) for p, unit in variant.carried
        ]

    about = f"sizes {', '.join(s.name for s in variant.graph.symbols())}"
    has_extra = variant.scalars or variant.carried
    try:
        program = Program(
            variant.graph,
            walk,
            about,
            variant.conditions,
            extra if has_extra else None,
            structure.place,
        )
    except (InternalError, NotImplementedError, TypeError):
        return None  # a pass or a kernel that needs to know the sizes
    structure.symbolic.append((variant, program))
    return program


def _span(walk: Walk | Captured) -> tuple[Location | None, Location | None]:
    """The first and the last line of a recording."""
    lines = [n.location for n in walk.nodes if n.location is not None]
    return (lines[0], lines[-1]) if lines else (None, None)
