"""Running what was recorded: from pending values to buffers.

Nothing runs while a program records. When an element is needed, every pending value that a live
storage holds is computed in one graph. Graphs are keyed by structure, so that the second step of a
training loop finds its program; only names, numbers in memory and user lines may differ.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from graphtorch.backends.locks import lock_across_forks
from graphtorch.ir.graph import Location, Value, _location
from graphtorch.ir.op import Weight
from graphtorch.ir.ops.require import RAISED

from .._settings import FOLDER
from .._types import CPU, device
from ..autograd.grad_mode import modes
from . import programs
from .device_storage import DeviceStorage, stored
from .door import copied_to
from .failures import out_of_memory
from .storage import Leaf, MetaLeaf, Storage, computed, recorder
from .walk import Spare, Walk

ROUND = 48  # results recorded in a round of a loop that is worth running by itself
# A pending graph runs when it has LONGEST results. Each time it has twice as many as STRETCH, or as
# before, it is looked at, and runs if what it keeps in memory is HELD of the machine's, or more.
STRETCH = 1024
LONGEST = 8192
HELD = 1 / 8

_ref = weakref.ref
_keeping = lock_across_forks()  # what nodes remember of their results


def _after_fork() -> None:
    # the parent computes these; a value needed here is computed all the same
    recorder.pending.clear()


os.register_at_fork(after_in_child=_after_fork)

# ---------------------------------------------------------------------------------- the user's line

# by the id of code: the lines of a user's, None for our own
_places: dict[int, dict[int, Location] | None] = {}
_codes: list[Any] = []  # what has an entry there, and so keeps its id


def _new_place(code: Any) -> dict[int, Location] | None:
    _codes.append(code)
    lines: dict[int, Location] | None = None if code.co_filename.startswith(FOLDER) else {}
    return _places.setdefault(id(code), lines)


def locate() -> None:
    """Nodes made from now on belong to the user's line: the first frame outside this package."""
    frame, known = sys._getframe(2), _places
    while True:
        try:
            lines = known[id(frame.f_code)]
        except KeyError:
            lines = _new_place(frame.f_code)
        if lines is not None:
            break
        outer = frame.f_back
        if outer is None:
            return
        frame = outer
    place = lines.get(frame.f_lasti)
    if place is None:
        place = lines[frame.f_lasti] = Location(frame.f_code.co_filename, frame.f_lineno)
    if not modes.grad:
        _round.pass_by(place)
    if _location.get() is not place:
        _location.set(place)


class _Round(threading.local):
    """Notices that a program that needs no gradients came back to where it began to record: one
    round of a loop.

    The rounds before run then, so that each is a graph of the same structure, whatever the loop
    goes on to do.
    """

    start: Location | None = None
    last: Location | None = None

    def pass_by(self, place: Location) -> None:
        if (
            place is self.start
            and self.last is not place
            and len(recorder.pending) >= ROUND
            and not recorder.differentiable  # else what counts batches in a norm would cut training
        ):
            flush()
        if self.start is None or not recorder.pending:
            self.start = place
        self.last = place


_round = _Round()


def user_line() -> str:
    """The user's line now, for messages."""
    locate()
    place = _location.get()
    return str(place) if place else "the program's start"


# --------------------------------------------------------------------------------- pending storages


def pending(storage: Storage) -> None:
    """Remember a storage whose value waits to be computed."""
    if recorder.capture is not None:
        recorder.capture.adopt(storage)
        return
    waiting = recorder.pending
    waiting.append(_ref(storage))
    if not len(waiting) % STRETCH and _is_too_much(waiting):
        flush()


def _is_too_much(waiting: Sequence[weakref.ref[Storage]]) -> bool:
    """Whether pending storages are to be computed, though nobody needs one: a step of training
    should be one graph, but what nobody reads must not fill the memory."""
    if len(waiting) & (len(waiting) - 1):  # looking at it each time would take longer than running
        return len(waiting) >= LONGEST
    values = [s.value for r in waiting if (s := r()) is not None]
    types = [leaf.type for leaf in Walk(v for v in values if type(v) is Value).leaves]
    held = sum(t.numel * t.dtype.itemsize for t in types)
    return len(waiting) >= LONGEST or held >= HELD * _memory_size()


@functools.cache
def _memory_size() -> int:
    """Bytes of this machine's memory; 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def store(storage: Storage, value: Value) -> None:
    """Replace the value of a storage, by one of its device; in memory that is shared with code
    outside this runs at once."""
    if type(storage.value) is MetaLeaf:
        storage.put(MetaLeaf(value.type))
        return
    capture = recorder.capture
    if capture is not None and capture.write(storage, value):
        return
    if storage.shared_memory() is not None:
        storage.land(leaf_of(value, storage.place))
        return
    storage.put(value)
    if type(value) is Value:
        pending(storage)


def share(storage: Storage) -> Any:
    """The elements as an array (on a GPU: a buffer) that code outside may keep; from now on writes
    land in it."""
    settle(storage)
    return storage.expose()


def flush() -> None:
    """Compute every pending value of this thread that a live storage holds."""
    if recorder.capture is None:
        _run(())


def settle(storage: Storage) -> None:
    """Make the storage's value a leaf."""
    if not isinstance(storage.value, Leaf):
        _refuse_in_capture()
        _run((storage,))


def settle_for(capture: Any, storage: Storage) -> None:
    """Compute what another thread left pending in `storage`, which a capture of this thread
    reads."""
    recorder.capture = None
    try:
        _run((storage,))
    finally:
        recorder.capture = capture


def array_of(value: Value, place: device = CPU) -> np.ndarray:
    """The elements of a value, computed on `place` if need be. Not to be written to."""
    return leaf_of(value, place).buffer.numpy()


def leaf_of(value: Value, place: device = CPU) -> Leaf:
    """A value in memory, computed on `place` if need be."""
    if not isinstance(value, Leaf):
        holder = stored(value, place)
        settle(holder)
        value = holder.value
        assert isinstance(value, Leaf)
    return value


def moved(value: Value, place: device, to: device) -> Leaf:
    """A value of the device `place`, computed if need be, in the memory of the device `to`."""
    return Leaf(copied_to(leaf_of(value, place).buffer, to))


def remember(fn: Any) -> None:
    """While `fn`, a node of the autograd graph, lives, what its gradient may read is kept when it
    is made."""
    if recorder.capture is None:
        recorder.differentiable.append(_ref(fn))


def _refuse_in_capture() -> None:
    if recorder.capture is not None and not recorder.capture.call_off():
        raise RuntimeError(
            f"a tensor's value is needed in Python at {user_line()} while the function is being "
            "captured by compile(fullgraph=True) or trace(): the captured graph cannot depend on "
            "it. Keep it a tensor (torch.where instead of `if`, tensor arithmetic instead of "
            ".item()), or move this line out of the captured function"
        )


# ------------------------------------------------------------------------------------------ running


def _run(wanted: Sequence[Storage]) -> None:
    waiting, recorder.pending = recorder.pending, []
    held: list[tuple[Storage, Value]] = []
    for storage in (*wanted, *[r() for r in waiting]):
        if storage is not None and not isinstance(value := storage.value, Leaf):
            held.append((storage, value))
    _round.start = None
    differentiable, recorder.differentiable = recorder.differentiable, []
    if not held:
        return  # else a loop whose results nobody keeps would make `differentiable` grow for ever
    if not DeviceStorage.used:
        _compute(held, differentiable, CPU)
        return
    for place in dict.fromkeys([storage.place for storage, _ in held]):
        _compute([(s, v) for s, v in held if s.place is place], differentiable, place)


def _compute(
    held: Sequence[tuple[Storage, Value]], differentiable: Sequence[Any], place: device
) -> None:
    """Compute what storages hold, all of it on one device."""
    outputs = _distinct([v for _, v in held])
    walk = Walk(outputs)
    if place is CPU and DeviceStorage.used:
        programs.refuse_gpu([leaf.buffer for leaf in walk.leaves])
    expensive = _saved(walk, differentiable, Weight.COSTLY)
    if expensive:
        outputs = _distinct((*outputs, *expensive))
    try:
        outputs, leaves, spare = _execute(walk, outputs, differentiable, place)
    except RAISED:
        if len(held) > 1:
            _run_apart([s for s, _ in held])
        raise
    with _keeping:
        firm = len(outputs) - spare
        for i, (value, leaf) in enumerate(zip(outputs, leaves, strict=True)):
            node = value.node
            # a constant is made again: one node may stand in many graphs, for other devices too
            if node is not None and node.operands:
                kept = leaf if i < firm else Spare(leaf)
                if node.memory is None:
                    node.memory = {value.index: kept}
                else:
                    node.memory[value.index] = kept
    found: dict[Value, Leaf] | None = None
    made: list[Leaf] = []
    for _, value in held:
        if value.node is not None and value.node.operands:
            made.append(value.node.memory[value.index])  # type: ignore[index]
        else:  # a constant, or it stood for an input of a capture
            found = found or dict(zip(outputs, leaves, strict=True))
            made.append(found[value])
    computed(held, made)


def _distinct(values: Iterable[Value]) -> list[Value]:
    """One of equal values each, in their order. (Their own hash, a Python function, takes longer.)

    The key is that hash with the index beside it, so that equal keys are equal values.
    """
    return list({(id(v) if v.node is None else id(v.node), v.index): v for v in values}.values())


def _run_apart(storages: Sequence[Storage]) -> None:
    """Compute what can be, each by itself, after a run of all failed by what the data of one is."""
    for storage in storages:
        if not isinstance(storage.value, Leaf):
            with suppress(*RAISED):
                _run((storage,))


def _saved(walk: Walk, differentiable: Sequence[Any], least: Weight) -> list[Value]:
    """The values to compute that a gradient may read, of nodes of this weight or more."""
    found: list[Value] = []
    numbers = walk.numbers
    for ref in differentiable:
        fn = ref()
        if fn is None or fn.freed:
            continue
        for value in (*fn.operands, *fn.outputs):
            node = value.node
            if node is not None and node.op.weight >= least and node in numbers:
                found.append(value)
    return _distinct(found)


def _execute(
    walk: Walk, outputs: list[Value], differentiable: Sequence[Any], place: device
) -> tuple[list[Value], list[Leaf], int]:
    """Run the graph from the walk's leaves to `outputs`: the values that are in memory then, and
    how many of the last ones were not asked for.

    Op by op every value is made anyway, so that what gradients may read is kept: it need not be
    made again. A program would not have it; graphs recorded later are the same in both cases.
    """
    if place is not CPU:
        with out_of_memory():
            return _run_program(walk, outputs, differentiable, place)
    return _run_program(walk, outputs, differentiable, place)


def _run_program(
    walk: Walk, outputs: list[Value], differentiable: Sequence[Any], place: device
) -> tuple[list[Value], list[Leaf], int]:
    found = programs.find(walk, outputs, place)
    if found.program is None:
        if walk.passed_spares:
            walk = Walk(outputs, spares=True)
        # what is just a view of others is as well made again
        saved = _saved(walk, differentiable, Weight.CHEAP)
        every = _distinct((*outputs, *saved))
        return every, programs.run(found, walk, every), len(every) - len(outputs)
    try:
        return outputs, programs.run(found, walk, outputs), 0
    except RAISED as error:
        if type(error) not in RAISED:
            raise
        raise type(error)(_with_own_line(str(error), walk, found.program.lines)) from None


def _with_own_line(message: str, walk: Walk, lines: Sequence[Location | None]) -> str:
    """`message` with the line of this recording in the place of the first recording of its
    structure."""
    for node, line in zip(walk.nodes, lines, strict=True):
        end = f" at {line})"
        if line != node.location and message.endswith(end):
            return f"{message.removesuffix(end)} at {node.location})"
    return message
