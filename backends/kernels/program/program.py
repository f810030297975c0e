"""A lowered graph: kernels, the buffers they work on, and the order of their launches.

    program ::= slots, errors, kernels, launch*
    launch  ::= kernel "(" slot ... size ... ")"
              | "loop" count { launch* } | "loop while" { launch* } slot { launch* }
              | "if" slot { launch* } else { launch* }

Slots are inputs, outputs (each its own memory, given by the caller) and temporaries, which the
memory planner places in one arena. A `prologue` holds the launches whose results depend on stable
inputs only (packed weights): they run again only when such an input changes, and their results live
in slots of kind ``packed``, kept between calls.

Inside a loop three kinds of slots are places that change from step to step: ``step`` is the part of
another slot that belongs to the step, ``half`` the one half of another slot in even steps and the
other half in odd ones, and ``carry`` is what the step before left: a pointer that moves, so that
nothing is copied. After the loop ``final`` is where the last step left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, Union

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Location
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import Dim, Shape, Symbol

from ...dataclass import dataclass, field
from ...record import Part
from ..ir import Kernel


@dataclass(eq=False)
class Slot:
    """Memory of a call. `kind`: input, output, temporary, packed, constant; piece; step, half,
    carry, final.

    `shape` may be symbolic; `elements` is the number to allocate (more than numel where padded).
    `index` is the position among inputs or outputs. An output whose `alias` is set takes over that
    input slot's memory (a donated buffer). `parts` are the slots in whose memory the last four
    kinds lie: one for step and half; the initial one and that of the next step for carry and final.
    From one step to the next a step or half moves by `stride` elements. In a loop that runs in
    parts, a slot of `elements` is what one part has of a step, and a temporary that a step makes
    has `each` elements for each part. A piece is the part of another slot that begins `offset`
    elements in; its rows may lie apart there.
    """

    kind: str
    dtype: DType
    shape: Shape
    elements: Dim
    index: int = 0
    literal: Literal | None = None
    alias: Slot | None = None
    name: str = ""
    parts: tuple[Slot, ...] = ()
    stride: Dim = 0
    each: int = 0
    offset: Dim = 0

    @property
    def whole(self) -> Slot:
        """The slot that this one, as a piece, is part of; itself where it is none."""
        return self.parts[0].whole if self.kind == "piece" else self

    def roots(self) -> Iterator[Slot]:
        """The slots of the first five kinds in whose memory this one lies."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.roots()


@dataclass(eq=False)
class Launch:
    """One kernel call: a slot for each buffer parameter, a Dim for each size parameter.

    `flops` and `bytes` are what the kernel computes and moves at least; `label` says what it is
    for.
    """

    kernel: Kernel
    slots: tuple[Slot, ...]
    sizes: tuple[Dim, ...] = ()
    label: str = ""
    flops: Dim = 0
    bytes: Dim = 0


@dataclass(eq=False)
class Carry:
    """What a step hands to the next: `now` is read in the step, `next` written, `final` read
    afterwards."""

    now: Slot
    next: Slot
    final: Slot


@dataclass(eq=False)
class Loop:
    """The body repeated `count` times, or for as long as `test` leaves a true in its slot.

    `moving` are the slots of kind step and half that move with this loop; a reverse loop starts at
    the last slice of each step slot. With `parts` the whole loop runs for each part of the rows by
    itself, on any threads, and then `after` for that part, which writes to its piece of the slots
    `stored`.
    """

    body: list[Item]
    count: Dim | None = None
    reverse: bool = False
    carries: list[Carry] = field(default_factory=list)
    test: tuple[list[Item], Slot] | None = None
    moving: list[Slot] = field(default_factory=list)
    parts: int = 1
    after: list[Item] = field(default_factory=list)
    stored: list[Slot] = field(default_factory=list)

    def blocks(self) -> tuple[list[Item], ...]:
        return (self.body, self.after) if self.test is None else (self.test[0], self.body)

    def own_roots(self) -> dict[Slot, None]:
        """Slots that carry something from one step to another, or hold all steps."""
        slots = (*self.moving, *self.stored, *(c.now for c in self.carries))
        return dict.fromkeys(
            (*(r for s in slots for r in s.roots()), *([self.test[1]] if self.test else []))
        )


@dataclass(eq=False)
class Branch:
    """One of two blocks, by a bool in memory."""

    predicate: Slot
    then: list[Item]
    orelse: list[Item]

    def blocks(self) -> tuple[list[Item], ...]:
        return self.then, self.orelse


Item: TypeAlias = Union[Launch, Loop, Branch]


def flat(items: Iterable[Item]) -> Iterator[Launch]:
    """Every launch once, those in loops and branches included."""
    for item in items:
        if isinstance(item, Launch):
            yield item
        else:
            for block in item.blocks():
                yield from flat(block)


def counted(items: Sequence[Item], times: Dim = 1) -> Iterator[tuple[Launch, Dim]]:
    """Every launch and how often it runs; a loop whose length is unknown counts once."""
    for item in items:
        if isinstance(item, Launch):
            yield item, times
        else:
            for block in item.blocks():
                yield from counted(block, times * _repeats(item, block))


def _repeats(item: Loop | Branch, block: list[Item]) -> Dim:
    if isinstance(item, Branch):
        return 1
    return item.parts * (item.count if item.count is not None and block is item.body else 1)


def touched(item: Item) -> dict[Slot, None]:
    """The slots that an item reads or writes, as roots, in an order that is the same in every
    process."""
    found = dict.fromkeys(r for launch in flat([item]) for s in launch.slots for r in s.roots())
    if isinstance(item, Loop):
        found |= item.own_roots()
    elif isinstance(item, Branch):
        found |= dict.fromkeys(item.predicate.roots())
    if not isinstance(item, Launch):
        found |= dict.fromkeys(
            s for block in item.blocks() for inner in block for s in touched(inner)
        )
    return found


@dataclass(frozen=True)
class ErrorSite:
    """What a data-dependent failure is reported as: an error naming op and line.

    `kind`: index (an IndexError) or linalg (a LinAlgError: a matrix is singular or not
    positive-definite).
    """

    op: str
    message: str
    location: Location | None
    kind: str = "index"


@dataclass(eq=False)
class Program:
    """Everything a target needs to emit one entry function."""

    name: str
    symbols: tuple[Symbol, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    launches: list[Item] = field(default_factory=list)
    prologue: list[Launch] = field(default_factory=list)
    errors: list[ErrorSite] = field(default_factory=list)
    # packed slots that have all elements of another slot in another order: that one, and how
    rearranged: dict[Slot, tuple[Slot, tuple[Part, ...]]] = field(default_factory=dict)
    # the first item that changes an input, where nothing before it must have failed
    guarded: Item | None = None

    def take_types(self, graph: Graph) -> None:
        """Inputs and outputs get the types that a caller of `graph` knows: where kernels see pairs
        of reals he gives and gets complex numbers, whose bytes are the same."""
        for slots, values in ((self.inputs, graph.inputs), (self.outputs, graph.outputs)):
            for slot, value in zip(slots, values, strict=True):
                slot.dtype, slot.shape, slot.elements = value.dtype, value.shape, value.type.numel

    def kernels(self) -> list[Kernel]:
        """Each kernel once, in the order of first use."""
        seen: dict[Kernel, None] = {}
        for launch in flat((*self.prologue, *self.launches)):
            seen.setdefault(launch.kernel)
        return list(seen)

    def temporaries(self) -> list[Slot]:
        """Slots of kind temporary in the order of first use: what the arena holds."""
        return self._used("temporary")

    def packed(self) -> list[Slot]:
        """Slots the prologue fills, kept between calls."""
        return self._used("packed")

    def _used(self, kind: str) -> list[Slot]:
        seen: dict[Slot, None] = {}
        for launch in flat((*self.prologue, *self.launches)):
            for slot in launch.slots:
                seen.update((root, None) for root in slot.roots() if root.kind == kind)
        return list(seen)
