"""Running what a program computes from weights alone, once for all calls."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Mapping, Sequence

from graphtorch.ir.shape import evaluate

from ..buffer import HUGE, Block, Buffer, Held, discard, give_back, size_class
from ..kernels.program.abi import CALL, END, HEADER, SIZES
from ..locks import lock_of_object
from ..packed_only import Copy, can_be_put_away, put_away
from ..record import Rearranged, Record
from .builtin import launch
from .frames import Context, Linked, Sized

# Weights are put away when they are packed, until they were wanted back so many times: where they
# change again and again, as in training, they would be again and again.
RETURNS = 2
KNOWN = 1  # references to each weight in `run_prologue` and whoever calls it: `weights`


class Packed:
    """What the prologue made of the stable inputs; made anew when one of them is another buffer."""

    def __init__(self, record: Record, linked: Linked):
        self._record = record
        self._inputs = record.prologue or ()
        self.first = min(self._inputs, default=0)
        self._linked = linked
        self._lock = lock_of_object()
        self._away: list[Copy] = []  # of weights that were put away
        self._returns = 0  # how often some of these had come back by the next time
        self._held: tuple[tuple[int, ...], list[weakref.ref[Buffer]], Block] | None = None

    def get(
        self, inputs: Sequence[Buffer], more: Sequence[Buffer], sized: Sized, arena: int
    ) -> Block:
        """Args:
        inputs: all of them.
        more: the last ones of them as the caller gave them.
        arena: the address of memory for temporaries.
        """
        held = self._held
        if held is not None and held[0] == sized.symbols and self._matches(held[1], inputs):
            return held[2]
        with self._lock:
            held = self._held  # another thread may have been faster: its block is in use
            if held is not None and held[0] == sized.symbols and self._matches(held[1], inputs):
                return held[2]
            return self._make(inputs, more, sized, arena)

    def _matches(self, held: list[weakref.ref[Buffer]], inputs: Sequence[Buffer]) -> bool:
        return all(ref() is inputs[i] for ref, i in zip(held, self._inputs, strict=True))

    def _make(
        self, inputs: Sequence[Buffer], more: Sequence[Buffer], sized: Sized, arena: int
    ) -> Block:
        symbols = sized.symbols
        sizes = {s.name: v for s, v in zip(self._record.symbols, symbols, strict=True)}
        weights = {i: inputs[i] for i in self._inputs}
        words = [
            sized.table,
            *[weights[i].address if i in weights else 0 for i in range(len(inputs))],
        ]
        words += [0] * len(sized.outputs)  # which it does not write
        leaving = self._leaving(inputs, more)
        block = run_prologue(self._record, self._linked, sizes, weights, words, arena, leaving)
        scratch = int(evaluate(self._record.arena, sizes))
        if scratch >= HUGE:  # calls may need far less of it
            discard(arena, scratch)
        self._held = (symbols, [weakref.ref(inputs[i]) for i in self._inputs], block)
        return block

    def _leaving(self, inputs: Sequence[Buffer], more: Sequence[Buffer]) -> Leaving | None:
        """How weights leave memory that nobody needs any more; None where none do."""
        self._returns += any(copy.returned for copy in self._away)
        self._away = []
        if type(more) is not Held or self._returns >= RETURNS:
            return None
        copies = {
            r.input: r
            for r in self._record.rearranged
            if can_be_put_away(inputs[r.input].nbytes) and inputs.count(inputs[r.input]) == 1
        }
        return Leaving(inputs, more, copies, self._away)


class Leaving:
    """Weights of which packed memory has all, to be put away (packed_only.py)."""

    def __init__(
        self,
        inputs: Sequence[Buffer],
        held: Held,
        copies: Mapping[int, Rearranged],
        away: list[Copy],
    ):
        """Args:
        held: the last ones of the inputs.
        copies: by the positions of the weights in `inputs`.
        away: gets the copies of those that left.
        """
        self._inputs, self._held, self.copies, self._away = inputs, held, copies, away

    def leave(self, position: int, block: Block) -> None:
        """The weight was packed into `block`, and is not read any more."""
        copy = Copy(block, self.copies[position])
        if put_away(self._held, self._inputs, position, KNOWN, copy):
            self._away.append(copy)


def run_prologue(
    record: Record,
    linked: Linked,
    sizes: Mapping[str, int],
    weights: Mapping[int, Buffer],
    words: Sequence[int],
    arena: int,
    leaving: Leaving | None = None,
) -> Block:
    """What the prologue makes of `weights`, the inputs that it reads, by position.

    Weights that are parts of a file, and those that are `leaving`, leave memory as soon as they
    were read for the last time, so that they are never there, or never twice, as a whole.

    Args:
        sizes: the value of each symbol.
        words: the address of what launches add to words, then those of inputs and outputs.
        arena: the address of memory for temporaries.

    Raises: the error of a site, where the weights are not what an op takes.
    """
    size = size_class(int(evaluate(record.packed, sizes)))
    if size >= HUGE:
        give_back()  # first what compiling left behind
    block = Block(size)
    mapped = {i for i, buffer in weights.items() if buffer.in_file}
    away = set(leaving.copies) - mapped if leaving is not None else set()
    for code, done in pieces(record.launches.prologue, mapped | away):
        instructions = (ctypes.c_int32 * len(code))(*code)
        frame = Context(linked.frame(record, instructions))
        for i, word in enumerate((*words, arena, block.address), SIZES):
            frame.arguments[i] = word
        status = launch()(frame.pointer)
        if status:
            raise record.errors[status - 1].error()
        for i in done:
            if i in mapped:
                weights[i].page_out()
            elif leaving is not None:
                leaving.leave(i, block)
    return block


def pieces(code: Sequence[int], inputs: set[int]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Cuts a table into tables, to be walked one after the other, with those of `inputs` that no
    later one reads.

    Uncut are a table that does more than call, and one that reads none of them.
    """
    calls, start = [], 0
    while code[start] == CALL:
        end = start + 3 + 2 * code[start + 2]
        calls.append(code[start:end])
        start = end
    if code[start] != END or not inputs:
        yield code, sorted(inputs)
        return
    last = {
        word - HEADER: i
        for i, call in enumerate(calls)
        for word in call[3::2]
        if word - HEADER in inputs
    }
    first = 0
    for i in sorted(set(last.values())):
        part = [x for call in calls[first : i + 1] for x in call]
        yield [*part, END], sorted(n for n, at in last.items() if at == i)
        first = i + 1
    yield [*(x for call in calls[first:] for x in call), END], ()
