"""What runs in a process that reads samples for a `DataLoader`."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import _settings
from ..._torch.dataclass import dataclass
from ...random import manual_seed
from .fetch import Fetcher

WATCH_SECONDS = 5.0  # how often a waiting worker looks whether its parent still lives


@dataclass(frozen=True)
class WorkerInfo:
    """What `get_worker_info` tells: this worker's number, how many there are, its seed and its data
    set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The present worker; None in the main process. A stream uses it to give each worker its own
    part."""
    return _info


class EndOfStream:
    """Sent in the place of a batch where a worker's stream is used up."""


class WorkerError:
    """An exception of a worker, to be raised again in the main process."""

    def __init__(self, error: BaseException, where: str):
        self.kind: Any = type(error)
        self.text = f"Caught {type(error).__name__} {where}.\nOriginal {traceback.format_exc()}"
        try:
            pickle.dumps(self.kind)
        except Exception:  # a class that only the worker knows
            self.kind = RuntimeError

    def again(self) -> BaseException:
        """The exception, with the worker's traceback in its message."""
        if issubclass(self.kind, KeyError):
            return self.kind(_Message(self.text))  # type: ignore[no-any-return]
        try:
            return self.kind(self.text)  # type: ignore[no-any-return]
        except Exception:  # its constructor wants other arguments
            return RuntimeError(self.text)


class _Message(str):
    """Text that KeyError does not show in quotes."""

    def __repr__(self) -> str:
        return str(self)


@dataclass
class Job:
    """What a worker needs to know. Travels by pickle where processes are not forked."""

    dataset: Any
    batches: bool
    collate: Callable[[Any], Any]
    drop_last: bool
    init: Callable[[int], None] | None
    seed: int
    id: int
    count: int
    parent: int


def work(job: Job, tasks: Any, results: Any) -> None:
    """Answer tasks (epoch, number, index) with (epoch, number, batch) until the pipe brings
    None."""
    outgoing: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_send, args=(outgoing, results), daemon=True).start()
    # the main process reports these
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError):
        _serve(job, tasks, outgoing)


def _send(outgoing: queue.SimpleQueue[bytes], results: Any) -> None:
    """Write to the pipe beside the reading of samples: batches are ready before they are asked
    for."""
    with contextlib.suppress(OSError):
        while True:
            results.send_bytes(outgoing.get())


def _serve(job: Job, tasks: Any, outgoing: queue.SimpleQueue[bytes]) -> None:
    failure = _prepare(job)
    epoch, fetch = -1, None
    while True:
        while not tasks.poll(WATCH_SECONDS):
            if os.getppid() != job.parent:
                return
        task = tasks.recv()
        if task is None:
            return
        if task[0] != epoch:
            epoch, fetch = task[0], None
        try:
            if failure is None and fetch is None:
                fetch = Fetcher(job.dataset, job.batches, job.collate, job.drop_last)
            made = failure or _fetched(fetch, task[2])
            outgoing.put(pickle.dumps((epoch, task[1], made), 5))
        except Exception as error:
            outgoing.put(pickle.dumps((epoch, task[1], WorkerError(error, _place(job))), 5))


def _fetched(fetch: Fetcher | None, index: Any) -> Any:
    assert fetch is not None
    try:
        return fetch(index)
    except StopIteration:
        return EndOfStream()


def _prepare(job: Job) -> WorkerError | None:
    global _info
    _settings.set_num_threads(1)
    random.seed(job.seed)
    base = job.seed - job.id
    entropy = [job.id, base & 0xFFFFFFFF, base >> 32, 0]  # other numbers than those of `random`
    np.random.seed(np.random.SeedSequence(entropy).generate_state(4))
    manual_seed(job.seed)
    _info = WorkerInfo(job.id, job.count, job.seed, job.dataset)
    try:
        if job.init is not None:
            job.init(job.id)
    except Exception as error:
        return WorkerError(error, _place(job))
    return None


def _place(job: Job) -> str:
    return f"in DataLoader worker process {job.id}"
