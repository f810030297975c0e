"""Frames of compiled programs in memory (abi.py): what walks of their tables take."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import evaluate

from ..buffer import Block, size_class
from ..dataclass import dataclass
from ..kernels.program.abi import CODE, CONSTANTS, FUNCTIONS, OPERANDS, WORDS
from ..record import Record
from .code import Code
from .image import Image
from .runtime import pool


@dataclass(slots=True, eq=False)
class Sized:
    """A program at one choice of symbol values; `table` is the address of what its launches add to
    words.

    Outputs are given as dtype, shape, size class, alias, and the offset in the memory that small
    ones share (-1 for one with memory of its own); `shared` is that memory's size.
    """

    inputs: tuple[tuple[DType, tuple[int, ...]], ...]
    outputs: tuple[tuple[DType, tuple[int, ...], int, int | None, int], ...]
    shared: int
    symbols: tuple[int, ...]
    arena: int
    table: int
    held: object


class Context:
    """What one call at a time may use: the frame of its table's walk, and an arena.

    `holds` is the mark of those stable inputs whose words are in the frame already.
    """

    __slots__ = ("address", "arena", "arguments", "holds", "pointer", "size")

    def __init__(self, words: Sequence[int]):
        self.holds: object = None
        self.arguments = (ctypes.c_int64 * len(words))(*words)
        self.pointer = ctypes.addressof(self.arguments)
        self.arena: Block | None = None
        self.address = self.size = 0

    def reserve(self, size: int) -> int:
        """Address of an arena of at least `size` bytes."""
        if size > self.size:
            self.arena = None  # back to the free list before the larger one is taken
            self.size = size_class(size)
            self.arena = Block(self.size)
            self.address = self.arena.address
        return self.address


class Linked:
    """A table of launches in memory, and the kernels that it calls."""

    def __init__(self, record: Record, constants: bytes, images: Sequence[Image]):
        table = record.launches
        self.images = images  # as long as this lives, other programs find its kernels in memory
        self._code = Code([image.code for image in images], table.functions, pool().address)
        addresses = [self._code.address(name) for name in table.functions]
        self._functions = (ctypes.c_void_p * len(addresses))(*addresses)
        self._constants = Block(size_class(len(constants)))
        ctypes.memmove(self._constants.address, constants, len(constants))
        self._instructions = (ctypes.c_int32 * len(table.code))(*table.code)
        self.launches = self.frame(record, self._instructions)

    def frame(self, record: Record, instructions: Any) -> list[int]:
        """A frame in which all but the arguments of a call is filled in.

        Args: instructions: an array that lives as long as the frame is used.
        """
        frame = [0] * record.launches.words
        frame[CODE] = ctypes.addressof(instructions)
        frame[FUNCTIONS], frame[CONSTANTS] = (
            ctypes.addressof(self._functions),
            self._constants.address,
        )
        frame[OPERANDS], frame[WORDS] = record.launches.operands, record.launches.words
        return frame


def table_of_sizes(record: Record, sizes: dict[str, int]) -> Any:
    """What launches add to words, as an array of 64-bit integers."""
    return (ctypes.c_int64 * len(record.launches.sizes))(
        *(int(evaluate(d, sizes)) for d in record.launches.sizes)
    )
