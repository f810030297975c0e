"""What a program's prologue makes of weights, computed here for a program that runs elsewhere."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping

import numpy as np

from graphtorch.ir.shape import evaluate

from .. import cache
from ..buffer import Block, Buffer, size_class
from ..kernels.program.plan import Plan
from ..kernels.program.program import Program
from ..kernels.program.table import packed_bytes, record_of, tabulate
from ..kernels.text import print_program
from .build import target_of
from .frames import Linked, table_of_sizes
from .processor import host
from .prologue import run_prologue


def prepare(program: Program, plan: Plan, weights: Mapping[int, np.ndarray]) -> bytes:
    """The packed memory of `program` after its prologue.

    Its kernels are compiled for this machine, whatever machine the program is for: how packed
    memory is laid out is written in them.

    Args: weights: by their positions as inputs.

    Raises: the error of a site, where the weights are not what an op takes.
    """
    alone = _alone(program)
    table = tabulate(alone, plan)
    names, images = target_of(host(), program.name).emit(table)
    record = record_of(alone, plan, table, names, "", {})
    linked = Linked(record, table.constants, images)
    held = {i: Buffer.of(np.ascontiguousarray(array)) for i, array in weights.items()}
    sizes = {s.name: s.min for s in program.symbols}  # it does not depend on them: any will do
    added = table_of_sizes(record, sizes)
    words = [ctypes.addressof(added)]
    words += [held[i].address if i in held else 0 for i in range(len(program.inputs))]
    words += [0] * len(program.outputs)
    arena = Block(size_class(int(evaluate(record.arena, sizes))))
    read = {i: held[i] for i in record.prologue or ()}
    block = run_prologue(record, linked, sizes, read, words, arena.address)
    return ctypes.string_at(block.address, packed_bytes(program))


def layout_of(program: Program, plan: Plan) -> str:
    """A digest of what decides on the bytes of packed memory, beside the weights."""
    table = tabulate(_alone(program), plan)
    return cache.key(
        "packed", print_program(_alone(program)), repr(table.prologue), repr(table.sizes)
    )


def _alone(program: Program) -> Program:
    """`program` with nothing but its prologue."""
    return dataclasses.replace(program, launches=[])
