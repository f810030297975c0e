"""A program's launches as the table that abi.py describes: kernels, buffers and sizes by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphtorch.ir.shape import Dim, bounds

from ...dataclass import dataclass, field
from ...record import Array, Launches, Rearranged, Record, Site
from ..ir import Kernel
from .abi import (
    BELOW,
    CALL,
    CONSTANTS,
    END,
    HALF,
    HEADER,
    JUMP,
    PART,
    PARTS,
    SET,
    STEP,
    STOP,
    TEST,
    ZERO,
)
from .plan import Plan
from .program import Branch, Item, Launch, Loop, Program, Slot, flat


@dataclass(frozen=True)
class Layout:
    """Where a frame has what the caller gives: inputs, outputs, arena, packed memory; registers
    follow."""

    inputs: int
    outputs: int

    @property
    def first_output(self) -> int:
        return HEADER + self.inputs

    @property
    def arena(self) -> int:
        return HEADER + self.inputs + self.outputs

    @property
    def packed(self) -> int:
        return self.arena + 1

    @property
    def registers(self) -> int:
        return self.arena + 2


@dataclass
class Table:
    """The launches of a program.

    Attributes:
        once: the numbers of kernels that only the prologue calls.
        launches, prologue: the instructions.
        kernels: each kernel with the pattern of its buffers (see ModuleEmitter.kernel), by number.
        sizes: what operands add to a word, over the program's symbols; the first is 0.
        constants: the bytes of all constants.
        read: positions of the inputs that launches outside the prologue read.
        words: length of a frame.
        operands: the most that a kernel has.
    """

    once: set[int] = field(default_factory=set)
    launches: list[int] = field(default_factory=list)
    prologue: list[int] = field(default_factory=list)
    kernels: list[tuple[Kernel, tuple[int, ...]]] = field(default_factory=list)
    sizes: list[Dim] = field(default_factory=lambda: [0])
    constants: bytes = b""
    read: set[int] = field(default_factory=set)
    words: int = HEADER
    operands: int = 1


def packed_layout(program: Program) -> tuple[dict[Slot, Dim], Dim]:
    """Byte offset of each packed slot, one after the other, and their total size."""
    offsets: dict[Slot, Dim] = {}
    total: Dim = 0
    for slot in program.packed():
        offsets[slot] = total
        total = total + (slot.elements * slot.dtype.itemsize + 63) // 64 * 64
    return offsets, total


def packed_bytes(program: Program) -> int:
    """The size of packed memory; what depends on weights only does not depend on symbols."""
    return int(bounds(packed_layout(program)[1])[1])


def tabulate(program: Program, plan: Plan) -> Table:
    """The table of `program` with its temporaries placed by `plan`."""
    writer = Writer(program, plan)
    table = writer.table
    for code, items in ((table.prologue, program.prologue), (table.launches, program.launches)):
        writer.code = code
        writer.items(items)
        code.append(END)
        if code is table.prologue:
            table.once = set(range(len(table.kernels)))
    return table


class Writer:
    """Writes instructions and gives out registers."""

    def __init__(self, program: Program, plan: Plan):
        self.table = Table()
        self.code = self.table.launches
        self.layout = Layout(len(program.inputs), len(program.outputs))
        self.table.words = self.layout.registers
        self._offsets: dict[Slot, Dim] = {**plan.offsets, **packed_layout(program)[0]}
        self._kernels: dict[tuple[Kernel, tuple[int, ...]], int] = {}
        self._sizes: dict[Dim, int] = {0: 0}
        self._constants: dict[Slot, int] = {}
        self._moving: dict[Slot, int] = {}  # registers that hold the addresses of slots that move
        self._in_part = False
        self._guarded = program.guarded

    def items(self, items: Iterable[Item]) -> None:
        for item in items:
            if item is self._guarded:
                self.code.append(STOP)
            if isinstance(item, Launch):
                self._launch(item)
            elif isinstance(item, Branch):
                self._branch(item)
            elif item.test is not None:
                self._while(item)
            elif item.parts > 1:
                self._parts(item)
            else:
                self._loop(item)

    def _launch(self, launch: Launch) -> None:
        places = [self._address(s) for s in launch.slots]
        operands = [*places, *((ZERO, self._size(d)) for d in launch.sizes)]
        kernel = self._kernel(launch.kernel, tuple(places.index(p) for p in places))
        self.table.operands = max(self.table.operands, len(operands))
        self.code += [CALL, kernel, len(operands), *(x for pair in operands for x in pair)]

    def _kernel(self, kernel: Kernel, memory: tuple[int, ...]) -> int:
        """The number of `kernel` where buffers of equal `memory` are the same (an update in
        place)."""
        key = kernel, memory
        if key not in self._kernels:
            self._kernels[key] = len(self.table.kernels)
            self.table.kernels.append(key)
        if self.code is self.table.launches:
            self.table.once.discard(self._kernels[key])
        return self._kernels[key]

    # ---- operands

    def _size(self, dim: Dim) -> int:
        if dim not in self._sizes:
            self._sizes[dim] = len(self.table.sizes)
            self.table.sizes.append(dim)
        return self._sizes[dim]

    def _register(self) -> int:
        self.table.words += 1
        return self.table.words - 1

    def _address(self, slot: Slot) -> tuple[int, int]:
        word, offset = self._place(slot)
        return word, self._size(offset)

    def _place(self, slot: Slot) -> tuple[int, Dim]:
        slot = slot.alias or slot
        if slot in self._moving:
            return self._moving[slot], 0
        match slot.kind:
            case "piece":
                word, offset = self._place(slot.parts[0])
                return word, offset + slot.offset * slot.dtype.itemsize
            case "input":
                if self.code is self.table.launches:
                    self.table.read.add(slot.index)
                return HEADER + slot.index, 0
            case "output":
                return self.layout.first_output + slot.index, 0
            case "packed":
                return self.layout.packed, self._offsets[slot]
            case "constant":
                return CONSTANTS, self._constant(slot)
        return self.layout.arena, self._offsets[slot]

    def _constant(self, slot: Slot) -> int:
        if slot not in self._constants:
            assert slot.literal is not None
            self._constants[slot] = len(self.table.constants)
            size = -(-int(slot.elements) * slot.dtype.itemsize // 64) * 64
            self.table.constants += slot.literal.data.ljust(size, b"\0")
        return self._constants[slot]

    def _piece(self, place: tuple[int, int], elements: Dim, slot: Slot) -> tuple[int, int]:
        """Where this part's piece of `elements` begins in memory that has one for each part."""
        if not self._in_part:
            return place
        register = self._register()
        self._set(register, place)
        self.code += [STEP, register, register, PART, self._size(elements * slot.dtype.itemsize)]
        return register, 0

    def _set(self, register: int, place: tuple[int, int]) -> None:
        if place != (register, 0):
            self.code += [SET, register, *place]

    # ---- loops and branches

    def _jump(self, *instruction: int) -> int:
        """An instruction whose last word, the jump, is filled in by `_here`."""
        self.code += [*instruction, 0]
        return len(self.code) - 1

    def _here(self, jump: int, length: int) -> None:
        """Let the instruction of `length` words that ends at `jump` go to the end of the code so
        far."""
        self.code[jump] = len(self.code) - (jump + 1 - length)

    def _back(self, to: int) -> None:
        self.code += [JUMP, to - len(self.code)]

    def _branch(self, branch: Branch) -> None:
        orelse = self._jump(TEST, *self._address(branch.predicate))
        self.items(branch.then)
        after = self._jump(JUMP)
        self._here(orelse, 4)
        self.items(branch.orelse)
        self._here(after, 2)

    def _loop(self, loop: Loop) -> None:
        """Pointers to what is carried move from step to step."""
        assert loop.count is not None
        self._enter(loop)
        step = self._count(ZERO, 0)
        place = self._count(ZERO, self._size(loop.count - 1)) if loop.reverse else step
        head = len(self.code)
        done = self._jump(BELOW, step, self._size(loop.count))
        self._body(loop, step, place)
        if loop.reverse:
            self.code += [SET, place, place, self._size(-1)]
        self._back(head)
        self._here(done, 4)
        for slot in loop.stored:
            place_of = self._address(slot.parts[0])
            self._moving[slot] = self._held(self._piece(place_of, slot.elements, slot))
        self.items(loop.after)

    def _while(self, loop: Loop) -> None:
        """A test before each step; the test reads the carries as well."""
        assert loop.test is not None
        self._enter(loop)
        step = self._count(ZERO, 0)
        head = len(self.code)
        self.items(loop.test[0])
        done = self._jump(TEST, *self._address(loop.test[1]))
        self._body(loop, step, step)
        self._back(head)
        self._here(done, 4)

    def _parts(self, loop: Loop) -> None:
        """Hands the parts of a loop to the pool."""
        after = self._jump(PARTS, loop.parts)
        self._in_part = True
        for slot in dict.fromkeys(
            s.whole for launch in flat([loop]) for s in launch.slots if s.whole.each
        ):
            self._moving[slot] = self._held(self._piece(self._address(slot), slot.each, slot))
        self._loop(loop)
        self._in_part = False
        self.code.append(END)
        self._here(after, 3)

    def _count(self, word: int, size: int) -> int:
        register = self._register()
        self.code += [SET, register, word, size]
        return register

    def _held(self, place: tuple[int, int]) -> int:
        """A register that holds an address."""
        register = self._register()
        self._set(register, place)
        return register

    def _enter(self, loop: Loop) -> None:
        """Registers for the carries, which point to the first ones."""
        for carry in loop.carries:
            first = self._piece(self._address(carry.now.parts[0]), carry.now.elements, carry.now)
            self._moving[carry.now] = self._moving[carry.final] = self._held(first)

    def _body(self, loop: Loop, step: int, place: int) -> None:
        """One step: slots move to its place, the launches run, the carries move on."""
        for slot in loop.moving:
            base = self._piece(self._address(slot.parts[0]), slot.elements, slot)
            register = self._moving[slot] = self._held(base)
            size = self._size(slot.stride * slot.dtype.itemsize)
            self.code += (
                [STEP, register, register, place, size]
                if slot.kind == "step"
                else [HALF, register, register, step, size]
            )
        self.items(loop.body)
        # one may be another's
        following = [self._held(self._address(c.next)) for c in loop.carries]
        for carry, register in zip(loop.carries, following, strict=True):
            self._set(self._moving[carry.now], (register, 0))
        self.code += [SET, step, step, self._size(1)]


# ------------------------------------------------------------------------------------------ records


def record_of(
    program: Program,
    plan: Plan,
    table: Table,
    functions: Sequence[str],
    explanation: str,
    statistics: dict[str, int],
) -> Record:
    """The record of a lowered program, whose kernels are called `functions`."""
    read = sorted(
        {s.index for launch in program.prologue for s in launch.slots if s.kind == "input"}
    )
    errors = tuple(
        Site(
            e.op,
            e.message,
            e.location.file if e.location else "",
            e.location.line if e.location else 0,
            e.kind,
        )
        for e in program.errors
    )
    launches = Launches(
        tuple(table.launches),
        tuple(table.prologue),
        tuple(functions),
        tuple(table.sizes),
        table.words,
        table.operands,
    )
    return Record(
        program.name,
        _arrays(program.inputs),
        _arrays(program.outputs),
        program.symbols,
        plan.size,
        packed_layout(program)[1],
        tuple(read) if program.prologue else None,
        launches,
        _rearranged(program, table),
        errors,
        explanation,
        statistics,
    )


def _rearranged(program: Program, table: Table) -> tuple[Rearranged, ...]:
    """Of each input that only the prologue reads a copy of all elements, if there is one."""
    offsets = packed_layout(program)[0]
    found: dict[int, Rearranged] = {}
    for copy, (source, parts) in program.rearranged.items():
        offset = offsets.get(copy)
        plain = source in program.inputs and source.dtype is copy.dtype
        if plain and isinstance(offset, int) and source.index not in table.read:
            found.setdefault(source.index, Rearranged(source.index, offset, parts))
    return tuple(found.values())


def _arrays(slots: Sequence[Slot]) -> tuple[Array, ...]:
    return tuple(
        Array(s.dtype.name, s.shape, s.name, None if s.alias is None else s.alias.index)
        for s in slots
    )
