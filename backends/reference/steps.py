"""Pending nodes run one by one, buffers in and out: for graphs that are not worth compiling
(yet)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from graphtorch.ir.evaluate import Plan
from graphtorch.ir.graph import Node, Type
from graphtorch.ir.op import Kind, Op, Weight
from graphtorch.ir.ops import factor

from ..buffer import Buffer, address_of

_NOTHING = nullcontext()


def run_steps(
    nodes: Sequence[Node], plan: Plan, leaves: Sequence[Buffer], types: Sequence[Type]
) -> list[Buffer]:
    """The plan's outputs, each in memory of its own.

    Args:
        types: of the outputs; all sizes are known.
    """
    arrays = [b.numpy() for b in leaves]
    products = any(_multiplies(node.op) for node in nodes)
    with np.errstate(all="ignore"), one_thread() if products else _NOTHING:
        found = plan.run(nodes, arrays)
    taken = set(map(id, arrays))
    buffers = []
    for type, array in zip(types, found, strict=True):
        if array.base is not None or id(array) in taken or not array.flags.c_contiguous:
            # a buffer may be written to later: no other may share its memory
            array = array.copy(order="C")
        taken.add(id(array))
        buffers.append(Buffer(address_of(array), type.dtype, array.shape, array))
    return buffers


def _multiplies(op: Op) -> bool:
    """Whether a reference may call NumPy's linear algebra: the others need not ask for its threads,
    which takes as long as five of them."""
    return op.weight is Weight.CONTRACTION or op.kind is Kind.CONTROL or op.name in factor.__all__


@functools.cache
def _blas() -> tuple[Any, ...]:
    """NumPy's linear algebra libraries, as far as their threads can be set."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return ()
    return tuple(c for c in ThreadpoolController().lib_controllers if c.user_api == "blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, NumPy's products run on one thread: the products here are small, and a second pool of
    threads that wait by spinning takes the cores from ours."""
    libraries = [(library, library.num_threads) for library in _blas()]
    for library, _ in libraries:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, count in libraries:
            library.set_num_threads(count)
