"""Shares of attention that are dropped: drawn by position, as `dropped_attention` has it.

A thread keeps one bit for each of its shares, found by a loop that is not unrolled: the words that
bits are made of take no registers from the shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphtorch.ir.dtype import u32
from graphtorch.ir.shape import Dim

from ...kernels.body.random import philox
from ...kernels.body.scope import Scope
from ...kernels.ir import Buffer, Const, Expr, KType, Name, binary, cast, load, select
from ...kernels.program.program import Slot
from .panels import Products

BITS, WORDS = 32, 4  # of a word; in a block of Philox's
TOGETHER = 2  # blocks that a thread computes at a time, as each waits for itself
FRACTION = 24  # bits of a uniform number in f32


class Kept:
    """Which scores of a thread are kept: a bit each."""

    def __init__(self, e: Scope, words: Buffer):
        self.e, self.words = e, words

    def only(self, at: Expr, value: Expr) -> Expr:
        """`value` where the thread's score number `at` is kept, else 0."""
        bit = binary("shr_u", load(self.words, at // BITS), cast(at % BITS, u32))
        is_kept = binary("ne", binary("and", bit, Const(1, KType(u32))), Const(0, KType(u32)))
        return select(is_kept, value, Const(0.0, value.type))


class Dropping:
    """What is kept of the scores of one attention node.

    Args:
        state: where seed and offset lie.
        kept: the probability of keeping.
        along: the length of a row of scores.
    """

    def __init__(self, e: Scope, state: tuple[Slot, Slot], kept: float, along: Dim):
        self.e, self.kept, self.along = e, kept, along
        self.slots = state
        # a uniform number is below `kept` where its fraction is below this
        self.limit = math.ceil(float(np.float32(kept)) * 2.0**FRACTION)

    def begin(self) -> None:
        """Read the state, once a block."""
        b, buffers = self.e.b, [self.e.buffer(slot, hint="state") for slot in self.slots]
        self.seed, self.offset = (b.let(load(x, Const(0)), "state") for x in buffers)

    def bits(
        self,
        products: Products[Any],
        others: int,
        position: Callable[[Expr, Expr], Expr],
        side_by_side: bool,
    ) -> Kept:
        """Which of a thread's scores of `others` columns are kept.

        Args:
            position: of the score in the thread's row i and column j, among all scores.
            side_by_side: neighbouring columns of a thread are neighbours among scores.
        """
        b, columns = self.e.b, products.columns(others)
        even = isinstance(self.along, int) and self.along % products.near == 0
        near = products.near if side_by_side and even and WORDS % products.near == 0 else 1
        count = products.own * columns
        found = Kept(self.e, b.scratch(u32, -(-count // BITS), "kept"))
        each = min(BITS, count) // near
        together = TOGETHER if each % TOGETHER == 0 else 1
        with b.loop(-(-count // BITS), "unroll", "word") as word:
            flags = b.var(Const(0), "flags")
            with (
                b.loop(each // together, "rolled", "group") as group,
                b.loop(together, "unroll", "part") as part,
            ):
                bit = b.let((group * together + part) * near, "bit")
                at = b.let(word * BITS + bit, "score")
                self._draw(flags, bit, position(at // columns, at % columns), near)
            b.store(found.words, word, cast(flags, u32))
        return found

    def _draw(self, flags: Name, bit: Expr, position: Expr, near: int) -> None:
        """Set the flags of `near` scores from `bit` on, which one block of words has."""
        b = self.e.b
        position = b.let(position, "position")
        words = philox(b, self.seed, b.let(self.offset + position // WORDS, "block"))
        lane = b.let(position % WORDS, "lane")
        for u in range(near):
            word = words[WORDS - near + u]
            for first in reversed(range(0, WORDS - near, near)):
                word = select(binary("eq", lane, Const(first)), words[first + u], word)
            is_kept = binary("lt", binary("shr_u", word, BITS - FRACTION), Const(self.limit))
            flag = select(is_kept, Const(1), Const(0))
            b.assign(flags, binary("or", flags, binary("shl", flag, bit + u)))
