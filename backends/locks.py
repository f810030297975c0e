"""Locks that a forked process finds open, whoever held them in its parent."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

# looked through after a fork: what is registered there is never forgotten
_of_objects: weakref.WeakSet[Any] = weakref.WeakSet()


def lock_across_forks() -> Any:
    """A lock for one thread at a time, which may take it again; as long-lived as the process."""
    return open_after_forks(threading.RLock())


def lock_of_object() -> Any:
    """The same for an object that does not live as long as the process."""
    lock = threading.RLock()
    _of_objects.add(lock)
    return lock


def open_after_forks(lock: Any) -> Any:
    """`lock`, one of Python's, which from now on a forked process finds open."""
    os.register_at_fork(after_in_child=lock._at_fork_reinit)
    return lock


def _open_those_of_objects() -> None:
    for lock in list(_of_objects):
        lock._at_fork_reinit()


os.register_at_fork(after_in_child=_open_those_of_objects)
