"""Locks that a forked process finds open, whoever held them in its parent."""

from __future__ import annotations

import os
import threading
from typing import Any


def lock_across_forks() -> Any:
    """A lock for one thread at a time, which may take it again; as long-lived as the process."""
    return open_after_forks(threading.RLock())


def open_after_forks(lock: Any) -> Any:
    """`lock`, one of Python's, which from now on a forked process finds open."""
    os.register_at_fork(after_in_child=lock._at_fork_reinit)
    return lock
