"""What operations saw of the tensors that they read or made, and what those show by now.

PyTorch keeps the operands of an operation as tensors and its results as memory. A write is counted,
and refused by who kept the elements before; one through ``.data`` is not, so that a backward pass
reads it, as it reads what ``tensor.data = other`` gave an operand. Values never change here:
records of tensors say where to look.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from graphtorch.ir.graph import Type, Value

from .._deferred.storage import Storage, Version, View, read_steps


class Place:
    """What befell the memory of one tensor: all records of the tensor there share it.

    Attributes:
        kept: the storage, if writes to it through ``.data`` may come, which a backward pass sees
            even where nobody else has the tensor any more.
        moved: what ``tensor.data = other`` made it show from then on.
    """

    __slots__ = ("kept", "moved")

    kept: Storage
    moved: Seen


class Seen(NamedTuple):
    """What a tensor looked like when an operation read or made it."""

    version: Version
    number: int
    storage: weakref.ref[Storage]
    epoch: int
    view: View | None
    place: Place

    def held(self) -> Storage | None:
        """The storage, while there is one."""
        return getattr(self.place, "kept", None) or self.storage()

    def as_memory(self) -> Seen:
        """The same for who keeps memory, and not the tensor, which may get another one."""
        place, storage = Place(), self.held()
        if storage is not None:
            place.kept = storage
        return self._replace(place=place)


def look(
    version: Version,
    storage: Storage,
    view: View | None,
    place: Place | None = None,
    new: Any = tuple.__new__,
    kind: type = Seen,
    ref: Any = weakref.ref,
) -> Seen:
    """A tensor as it is now. (Made two or three times an operation: the named tuple's own way is
    slower.)"""
    fields = version, version.number, ref(storage), storage.epoch, view, place or Place()
    return new(kind, fields)  # type: ignore[no-any-return]


def seen_of(tensor: Any) -> Seen:
    """A tensor as it is now; what made it and what reads it share one record while nobody
    writes."""
    version, storage, view = tensor._counter, tensor._storage, tensor._view
    known: Seen | None = tensor._seen
    place = None
    if known is not None and known[2]() is storage:
        if (
            known[1] == version.number
            and known[3] == tensor._storage.epoch
            and known[0] is version
            and known[4] is view
        ):
            return known
        place = known[5]
    made: Seen = look(version, storage, view, place)
    tensor._seen = made
    return made


def hold(tensor: Any) -> Seen:
    """Let the records of a tensor keep its storage: what is written to it from now on through
    ``.data`` is what a backward pass reads."""
    seen = seen_of(tensor)
    seen.place.kept = tensor._storage
    return seen


def move(tensor: Any, before: Seen) -> None:
    """The records of a tensor as it was `before` show from now on what it shows now."""
    before.place.kept.epoch += 1  # nodes look where they find that
    tensor._seen = None
    before.place.moved = hold(tensor)


class Kept(NamedTuple):
    """A tensor that must not have been written to when the backward pass comes."""

    seen: Seen
    type: Type


def any_changed(seen: Sequence[Seen | None]) -> bool:
    for s in seen:
        if s is not None:
            version, number, storage, epoch, _, _ = s
            if version.number != number:
                return True
            alive = storage()
            if alive is not None and alive.epoch != epoch:
                return True
    return False


def shown(seen: Seen) -> Value | None:
    """The elements of a tensor that a node keeps, as they are now: it may have got another memory
    since. None where nobody has that any more."""
    now = seen
    while hasattr(now.place, "moved"):
        now = now.place.moved
    before, storage = seen.held(), now.held()
    if before is None or storage is None:
        return None
    if storage.place is not before.place:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{before.place} and {storage.place}: a tensor that the backward pass reads got .data "
            "there"
        )
    return read_steps(storage.read(), now.view.steps if now.view else ())


def any_rewritten(kept: Sequence[Kept]) -> bool:
    for seen, _ in kept:  # noqa: SIM110 - asked at every node of a backward pass
        if seen.version.number != seen.number:
            return True
    return False
