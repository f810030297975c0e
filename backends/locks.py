"""Locks that a forked process finds open, whoever held them in its parent."""

from __future__ import annotations

import os
import threading
from typing import Any


def lock_across_forks(waits: bool = False) -> Any:
    """A lock for one thread at a time, which may take it again; as long-lived as the process.

    Args:
        waits: whether a fork waits until it is free: for work that holds locks of other libraries. A thread
            that holds it must not need a lock that a thread may hold while it forks.
    """
    lock = threading.RLock()
    reopen = lock._at_fork_reinit  # type: ignore[attr-defined]
    if waits:
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=reopen)
    else:
        os.register_at_fork(after_in_child=reopen)
    return lock
