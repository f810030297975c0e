"""Locks that a forked process finds open, whoever held them in its parent."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from graphtorch.backends.gpu import emulated
from graphtorch.backends.llvm.prologue import Packed
from graphtorch.backends.locks import lock_across_forks, lock_of_object


def opens_in_a_fork(lock: Any) -> bool:
    """Whether a child takes `lock` that another thread holds meanwhile."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        child = os.fork()
        if not child:
            os._exit(0 if lock.acquire(timeout=20) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()


def _packing() -> Any:
    record: Any = SimpleNamespace(prologue=(0,))
    return Packed(record, SimpleNamespace())._lock  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [lock_across_forks, lock_of_object, _packing, lambda: emulated._MAKING],
    ids=["of the process", "of an object", "of packed weights", "of emulated workplaces"],
)
def test_a_forked_process_finds_it_open(make: Callable[[], Any]) -> None:
    assert opens_in_a_fork(make())


def test_a_lock_of_an_object_goes_with_it() -> None:
    lock = lock_of_object()
    gone = weakref.ref(lock)
    del lock
    gc.collect()
    assert gone() is None
