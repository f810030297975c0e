"""Running compiled programs on a device: the table of launches (kernels/abi.py), walked from the host."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from graphtorch.ir.dtype import DType
from graphtorch.ir.evaluate import bind_sizes
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import evaluate

from ..buffer import Buffer
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
from .buffer import DeviceBuffer
from .device import Device, Module
from .unit import Stage

ALIGNMENT = 256  # bytes: of what is copied to the device
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


class Executable:
    """A compiled graph on one device: buffers in, buffers out."""

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

    def __call__(self, inputs: Sequence[DeviceBuffer | Buffer],
                 more: Sequence[DeviceBuffer | Buffer] = ()) -> list[DeviceBuffer]:
        """The outputs, in new memory or in that of the inputs that they take over.

        Args: inputs, more: as `backends.Executable` takes them; what is in the host's memory is copied first.

        Raises:
            TypeError, RuntimeError: number, dtype or shape of an input is not what was compiled for.
            IndexError, LinAlgError: what the data is; names the op and the user's line.
            DeviceError: a kernel did what it must not.
        """
        record = self.record
        given = [*inputs, *more]
        self._check(given)
        sizes = bind_sizes(self._inputs, [x.shape for x in given])
        arrays = self._on_device(given)
        outputs = [self._output(i, arrays, sizes) for i in range(len(record.outputs))]
        arena = self.device.allocate(int(evaluate(record.arena, sizes)))
        packed = self.device.allocate(int(evaluate(record.packed, sizes)))
        words = [int(evaluate(d, sizes)) for d in record.launches.sizes]
        walk = Walk(self, words)
        places = [(x.address, x.nbytes) for x in (*arrays, *outputs)]
        for place in (*places, (arena.address, arena.size), (packed.address, packed.size)):
            walk.give(*place)
        self.device.write(self._status.address, bytes(4))
        for code in (record.launches.prologue, record.launches.code):
            walk.run(code, 0)
        status = int.from_bytes(self.device.read(self._status.address, 4), "little", signed=True)
        if status:
            raise record.errors[status - 1].error()
        return outputs

    def explain(self) -> str:
        """What runs: the kernels by their names, and what memory they need."""
        record = self.record
        lines = [f"{record.name} on {self.device.properties.name}: {len(self._kernels)} kernels, "
                 f"arena {record.arena} bytes"]
        lines += [f"  {name}: {len(kernel.stages)} launches"
                  for name, kernel in zip(record.launches.functions, self._kernels, strict=True)]
        return "\n".join(lines) + "\n"

    def _check(self, inputs: Sequence[DeviceBuffer | Buffer]) -> None:
        if len(inputs) != len(self._inputs):
            raise TypeError(f"{self.record.name} takes {len(self._inputs)} inputs, but got {len(inputs)}")
        for i, (x, v) in enumerate(zip(inputs, self._inputs, strict=True)):
            if x.dtype is not v.dtype:
                raise TypeError(f"input {i} of {self.record.name} is {v.dtype}, but got {x.dtype}")
            if len(x.shape) != len(v.shape):
                raise RuntimeError(f"input {i} of {self.record.name} has shape {v.shape}, but got {x.shape}")

    def _on_device(self, given: Sequence[DeviceBuffer | Buffer]) -> list[DeviceBuffer]:
        """The inputs on the device; those of the host, which are many numbers, in one copy."""
        host = [x for x in given if isinstance(x, Buffer)]
        if not host:
            return list(given)  # type: ignore[arg-type]
        starts, total = [], 0
        for x in host:
            starts.append(total)
            total += -(-(x.nbytes if x.address else 0) // ALIGNMENT) * ALIGNMENT
        memory, staged = self.device.allocate(total), bytearray(total)
        made = []
        for x, start in zip(host, starts, strict=True):
            if x.address:  # else only its sizes count
                staged[start: start + x.nbytes] = ctypes.string_at(x.address, x.nbytes)
            made.append(DeviceBuffer(self.device, x.dtype, x.shape, memory, memory.address + start))
        if total:
            self.device.write(memory.address, staged)
        copied = iter(made)
        return [next(copied) if isinstance(x, Buffer) else x for x in given]

    def _output(self, i: int, inputs: Sequence[DeviceBuffer], sizes: dict[str, int]) -> DeviceBuffer:
        array = self.record.outputs[i]
        shape = tuple(int(evaluate(d, sizes)) for d in array.shape)
        if array.alias is None:
            return DeviceBuffer.empty(self.device, DType.named(array.dtype), shape)
        taken = inputs[array.alias]
        return DeviceBuffer(self.device, DType.named(array.dtype), shape, taken.memory, taken.address)

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
