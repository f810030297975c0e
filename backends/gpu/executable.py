"""Running compiled programs on a device: the table of launches (kernels/abi.py), walked from the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphtorch.ir.dtype import DType
from graphtorch.ir.evaluate import bind_sizes
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import evaluate

from ..kernels.abi import (
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
    TEST,
    ZERO,
)
from ..record import Record
from .device import Device, Memory, Module
from .unit import Stage

THREADS = 256  # of a block
MOST_BLOCKS = 1 << 20  # more are not launched: each thread takes several tasks then
UNKNOWN_BLOCKS = 256  # where the number of tasks is known to the device alone


@dataclass(frozen=True)
class Kernel:
    """A kernel as the host launches it: its stages, how many buffers it has, the C types of its sizes."""

    stages: tuple[Stage, ...]
    buffers: int
    sizes: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A compiled graph without its code: how it is called, its constants, its kernels by number."""

    record: Record
    constants: bytes
    kernels: tuple[Kernel, ...]


@dataclass
class Array:
    """Elements on a device, row-major."""

    dtype: DType
    shape: tuple[int, ...]
    memory: Memory
    offset: int = 0

    @property
    def address(self) -> int:
        return self.memory.address + self.offset

    @property
    def nbytes(self) -> int:
        count = self.dtype.itemsize
        for n in self.shape:
            count *= n
        return count


class Executable:
    """A compiled graph on one device: arrays in, arrays out."""

    def __init__(self, built: Built, module: Module, device: Device):
        """Args: module: the unit that `built` was written into, loaded on `device`."""
        record, constants = built.record, built.constants
        self.record = record
        self.device = device
        self._kernels = built.kernels
        self._module = module
        self._constants = device.allocate(len(constants))
        if constants:
            device.write(self._constants.address, constants)
        self._status = device.allocate(4)
        self._inputs = [Value(Type(DType.named(a.dtype), a.shape)) for a in record.inputs]

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs, in new memory or in that of the inputs that they take over.

        Raises:
            TypeError, RuntimeError: number, dtype or shape of an input is not what was compiled for.
            IndexError, LinAlgError: what the data is; names the op and the user's line.
            DeviceError: a kernel did what it must not.
        """
        record = self.record
        self._check(inputs)
        sizes = bind_sizes(self._inputs, [x.shape for x in inputs])
        outputs = [self._output(i, inputs, sizes) for i in range(len(record.outputs))]
        arena = self.device.allocate(int(evaluate(record.arena, sizes)))
        packed = self.device.allocate(int(evaluate(record.packed, sizes)))
        words = [int(evaluate(d, sizes)) for d in record.launches.sizes]
        walk = Walk(self, words)
        places = [(x.address, x.nbytes) for x in (*inputs, *outputs)]
        for place in (*places, (arena.address, arena.size), (packed.address, packed.size)):
            walk.give(*place)
        self.device.write(self._status.address, bytes(4))
        for code in (record.launches.prologue, record.launches.code):
            walk.run(code, 0)
        status = int.from_bytes(self.device.read(self._status.address, 4), "little", signed=True)
        if status:
            raise record.errors[status - 1].error()
        return outputs

    def _check(self, inputs: Sequence[Array]) -> None:
        if len(inputs) != len(self._inputs):
            raise TypeError(f"{self.record.name} takes {len(self._inputs)} inputs, but got {len(inputs)}")
        for i, (x, v) in enumerate(zip(inputs, self._inputs, strict=True)):
            if x.dtype is not v.dtype:
                raise TypeError(f"input {i} of {self.record.name} is {v.dtype}, but got {x.dtype}")
            if len(x.shape) != len(v.shape):
                raise RuntimeError(f"input {i} of {self.record.name} has shape {v.shape}, but got {x.shape}")

    def _output(self, i: int, inputs: Sequence[Array], sizes: dict[str, int]) -> Array:
        array = self.record.outputs[i]
        shape = tuple(int(evaluate(d, sizes)) for d in array.shape)
        made = Array(DType.named(array.dtype), shape, inputs[array.alias].memory if array.alias is not None
                     else self.device.allocate(0))
        if array.alias is not None:
            made.offset = inputs[array.alias].offset
        else:
            made.memory = self.device.allocate(made.nbytes)
        return made

    def launch(self, number: int, buffers: Sequence[tuple[int, int]], sizes: Sequence[int]) -> None:
        """Launch the stages of a kernel, one after the other."""
        kernel = self._kernels[number]
        given = list(zip(kernel.sizes, sizes, strict=True))
        for stage in kernel.stages:
            blocks, threads = 1, 1
            if stage.tasks is not None:
                count = stage.tasks.count(sizes)
                if count == 0:
                    continue
                threads = THREADS if count is None else min(THREADS, -(-count // 32) * 32)
                blocks = UNKNOWN_BLOCKS if count is None else min(-(-count // threads), MOST_BLOCKS)
            self._module.launch(stage.function, blocks, threads, buffers, given, self._status.address)


class Walk:
    """One call's walk of a table: its frame, in which addresses come with the end of their memory."""

    def __init__(self, owner: Executable, sizes: Sequence[int]):
        self._owner = owner
        self._sizes = sizes
        constants = owner._constants
        self._frame: dict[int, int] = {ZERO: 0, PART: 0, CONSTANTS: constants.address}
        self._ranges: list[tuple[int, int]] = [(constants.address, constants.address + constants.size)]
        self._next = HEADER

    def give(self, address: int, size: int) -> None:
        """The next word of the frame: memory that the caller gives."""
        self._frame[self._next] = address
        self._next += 1
        if size:
            self._ranges.append((address, address + size))

    def _place(self, word: int, size: int) -> int:
        return self._frame[word] + self._sizes[size]

    def _buffer(self, address: int) -> tuple[int, int]:
        """An address and how many bytes of its memory follow."""
        end = next((end for start, end in self._ranges if start <= address < end), address)
        return address, end - address

    def run(self, code: Sequence[int], at: int) -> None:
        """The instructions from `at` on, up to END."""
        frame = self._frame
        while (op := code[at]) != END:
            if op == CALL:
                kernel, count = code[at + 1 : at + 3]
                values = [self._place(code[at + 3 + 2 * i], code[at + 4 + 2 * i]) for i in range(count)]
                first = self._owner._kernels[kernel].buffers
                self._owner.launch(kernel, [self._buffer(a) for a in values[:first]], values[first:])
                at += 3 + 2 * count
            elif op == SET:
                frame[code[at + 1]] = self._place(code[at + 2], code[at + 3])
                at += 4
            elif op in (STEP, HALF):
                steps = frame[code[at + 3]] % (2 if op == HALF else 1 << 62)
                frame[code[at + 1]] = frame[code[at + 2]] + steps * self._sizes[code[at + 4]]
                at += 5
            elif op == BELOW:
                at += 4 if frame[code[at + 1]] < self._sizes[code[at + 2]] else code[at + 3]
            elif op == TEST:
                place = self._place(code[at + 1], code[at + 2])
                at += 4 if self._owner.device.read(place, 1) != b"\0" else code[at + 3]
            elif op == JUMP:
                at += code[at + 1]
            elif op == PARTS:
                for part in range(code[at + 1]):
                    frame[PART] = part
                    self.run(code, at + 3)
                frame[PART] = 0
                at += code[at + 2]
            else:
                raise ValueError(f"no instruction {op} in a table of launches")
