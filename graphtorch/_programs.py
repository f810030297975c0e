"""How pending graphs run: op by op at first, as compiled programs where that pays.

Recordings of one structure (`Walk.key`) share a `Structure`, whatever their sizes. What running it op by op has
taken so far is added up, by the estimates of `backends.effort`; when it reaches what compiling would take, it is
compiled: so no program takes more than about twice the time of the best choice made in hindsight, and a graph
that never comes back costs no more than running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphtorch.backends.effort import LOAD_NS, compiling_ns, stepping_ns
from graphtorch.backends.reference.steps import run_steps
from graphtorch.ir.graph import Location, Value
from graphtorch.ir.structure import Number

from . import _settings
from ._memory import CHOSEN, Executable, pending_program
from ._walk import Walk
from .storage import Leaf

STRUCTURES_BOUND = 4096  # structures remembered; the oldest goes first
PROGRAMS_BOUND = 64  # programs of one structure

new_count = 0  # pairs of a structure and its sizes met for the first time in this process


class Program(NamedTuple):
    """Compiled code and the lines of the recording it was compiled from."""

    run: Executable
    lines: list[Location | None]


class Structure:
    """What is known of the recordings of one structure."""

    __slots__ = ("key", "native", "programs", "spent")

    def __init__(self) -> None:
        self.key: object = None  # kept once there is a program: it must not be found by a hash alone
        self.programs: dict[tuple[Number, ...], Program] = {}
        self.spent: dict[tuple[Number, ...], float] = {}  # ns of running op by op, by sizes
        self.native = True  # whether code can be generated for it


_structures: dict[int, Structure] = {}


def clear() -> None:
    """Forget what has been run and compiled."""
    _structures.clear()


def program_for(walk: Walk, outputs: Sequence[Value]) -> Program | None:
    """The program of a pending graph; None where it is to run op by op."""
    key, sizes = walk.key(outputs)
    structure = _structure(hash(key))
    program = structure.programs.get(sizes)
    if program is None or structure.key != key:
        program = _consider(structure, key, sizes, walk, outputs)
    return program


def run(program: Program | None, walk: Walk, outputs: Sequence[Value]) -> list[Leaf]:
    """The outputs of a pending graph, by its program or op by op."""
    buffers = [leaf.buffer for leaf in walk.leaves]
    if program is not None:
        return [Leaf(b) for b in program.run(buffers)]
    places = [row[2:] for row in walk.rows]
    wanted = [walk.reference(v) for v in outputs]
    return [Leaf(b) for b in run_steps(walk.nodes, places, buffers, wanted, [v.type for v in outputs])]


def _structure(number: int) -> Structure:
    found = _structures.get(number)
    if found is None:
        if len(_structures) >= STRUCTURES_BOUND:
            _structures.pop(next(iter(_structures)))
        found = _structures[number] = Structure()
    return found


def _consider(
    structure: Structure, key: object, sizes: tuple[Number, ...], walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    """A program for the recording, if it is worth one by now."""
    global new_count
    spent = structure.spent.get(sizes)
    if spent is None:
        new_count += 1
        spent = 0.0
    if CHOSEN is None and not _settings.deterministic():
        spent += stepping_ns(walk.nodes)
        structure.spent[sizes] = spent
        if not structure.native or spent < LOAD_NS:
            return None
        if spent < compiling_ns(walk.rows, [n.types for n in walk.nodes]):
            return None
    if not structure.native:
        return None
    return _compiled(structure, key, sizes, walk, outputs)


def _compiled(
    structure: Structure, key: object, sizes: tuple[Number, ...], walk: Walk, outputs: Sequence[Value]
) -> Program | None:
    if CHOSEN is None and not has_native_types(walk):
        structure.native = False
        return None
    if structure.key != key:  # another structure had this hash
        structure.key = key
        structure.programs.clear()
    if len(structure.programs) >= PROGRAMS_BOUND:
        structure.programs.pop(next(iter(structure.programs)))
    program = Program(pending_program(walk.graph(outputs)), [n.location for n in walk.nodes])
    structure.programs[sizes] = program
    return program


def has_native_types(walk: Walk) -> bool:
    """Whether every value has a type that code is generated for."""
    return not any(t.dtype.is_complex for n in walk.nodes for t in n.types) and not any(
        leaf.type.dtype.is_complex for leaf in walk.leaves
    )
