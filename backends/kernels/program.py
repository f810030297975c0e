"""A lowered graph: kernels, the buffers they work on, and the order of their launches.

    program ::= slots, errors, kernels, launches
    launch  ::= kernel "(" slot ("+" offset)? ... size ... ")"

Slots are inputs, outputs (each its own memory, given by the caller) and temporaries, which the memory
planner places in one arena. A `prologue` holds the launches whose results depend on stable inputs only
(packed weights): they run again only when such an input changes, and their results live in slots of
kind ``packed``, kept between calls.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Location
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import Dim, Shape, Symbol

from .ir import Kernel


@dataclass(eq=False)
class Slot:
    """Memory of a call. `kind`: input, output, temporary, packed, constant.

    `shape` may be symbolic; `elements` is the number to allocate (more than numel where padded).
    `index` is the position among inputs or outputs. An output whose `alias` is set takes over that
    input slot's memory (a donated buffer).
    """

    kind: str
    dtype: DType
    shape: Shape
    elements: Dim
    index: int = 0
    literal: Literal | None = None
    alias: Slot | None = None
    name: str = ""


@dataclass(eq=False)
class Launch:
    """One kernel call: a slot for each buffer parameter, a Dim for each size parameter.

    `flops` and `bytes` are what the kernel computes and moves at least; `label` says what it is for.
    """

    kernel: Kernel
    slots: tuple[Slot, ...]
    sizes: tuple[Dim, ...] = ()
    label: str = ""
    flops: Dim = 0
    bytes: Dim = 0


@dataclass(frozen=True)
class ErrorSite:
    """What a data-dependent failure is reported as: an IndexError naming op and line."""

    op: str
    message: str
    location: Location | None


@dataclass(eq=False)
class Program:
    """Everything a target needs to emit one entry function."""

    name: str
    symbols: tuple[Symbol, ...]
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    launches: list[Launch] = field(default_factory=list)
    prologue: list[Launch] = field(default_factory=list)
    errors: list[ErrorSite] = field(default_factory=list)

    def kernels(self) -> list[Kernel]:
        """Each kernel once, in the order of first use."""
        seen: dict[Kernel, None] = {}
        for launch in (*self.prologue, *self.launches):
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
        for launch in (*self.prologue, *self.launches):
            for slot in launch.slots:
                if slot.kind == kind:
                    seen.setdefault(slot)
        return list(seen)
