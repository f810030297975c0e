"""Handles that remove a registered hook again."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import MutableMapping
from typing import Any

_ids = itertools.count()


class Changes:
    """Counts assignments to modules and hooks that come and go: compiled functions then look at
    theirs again."""

    count = 0


changes = Changes()


class RemovableHandle:
    """What every ``register_*hook`` returns: `remove()` takes the hook out; usable as a context
    manager.

    Args:
        hooks: the dictionary (id -> hook) that the hook is put into by the caller under
            `handle.id`.
        extra: further dictionaries keyed by the same ids, cleaned together with it.
    """

    def __init__(
        self, hooks: MutableMapping[int, Any], *, extra: tuple[MutableMapping[int, Any], ...] = ()
    ):
        self.id = next(_ids)
        self._tables = tuple(weakref.ref(t) for t in (hooks, *extra))

    def remove(self) -> None:
        """Take the hook out; removing it twice is fine."""
        changes.count += 1
        for table in self._tables:
            alive = table()
            if alive is not None:
                alive.pop(self.id, None)

    def __getstate__(self) -> tuple[Any, ...]:
        return self.id, tuple(t() for t in self._tables)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.id, tables = state
        self._tables = tuple(weakref.ref(OrderedDict() if t is None else t) for t in tables)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register(
    hooks: MutableMapping[int, Any],
    hook: Any,
    *,
    prepend: bool = False,
    extra: tuple[MutableMapping[int, Any], ...] = (),
) -> RemovableHandle:
    """Put `hook` into the ordered table `hooks`, last or (`prepend`) first."""
    handle = RemovableHandle(hooks, extra=extra)
    changes.count += 1
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)  # type: ignore[attr-defined]
    return handle
