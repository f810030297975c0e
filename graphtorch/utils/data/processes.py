"""Iterating over a data set whose samples worker processes read."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from multiprocessing import connection
from typing import Any

from ..._deferred.running import flush
from .dataloader import _MultiProcessingDataLoaderIter
from .worker import EndOfStream, Job, WorkerError, work

JOIN_SECONDS = 5.0


class Worker:
    """A process and its two pipes."""

    def __init__(self, context: Any, job: Job):
        given, self.tasks = context.Pipe(duplex=False)
        self.results, taken = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(job, given, taken), daemon=True)
        self.process.start()
        given.close()
        taken.close()
        self.ended = False  # whether its stream is used up
        self.load = 0  # tasks it has not answered

    def stop(self) -> None:
        """Ask the process to end, without waiting."""
        with contextlib.suppress(OSError):  # it is gone already
            self.tasks.send(None)
        self.tasks.close()

    def join(self, patience: float) -> None:
        """Wait for the end; a process that does not come to it is ended."""
        self.results.close()  # a write in progress fails
        self.process.join(patience)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(JOIN_SECONDS)


class WorkersIterator(_MultiProcessingDataLoaderIter):
    """Batches from worker processes, in the sampler's order unless the loader says otherwise.

    Each worker has a pipe of its own: one that dies cannot hold a lock that others wait for. At
    most ``num_workers * prefetch_factor`` batches are on the way.
    """

    workers: list[Worker] = []  # noqa: RUF012 - for iterators whose making failed

    def __init__(self, loader: Any, seed: int):
        flush()  # what waits to be computed is this process's business
        context = loader.multiprocessing_context or multiprocessing.get_context()
        self.loader = loader
        self.epoch = -1
        self.workers = []
        for i in range(loader.num_workers):
            job = Job(
                loader.dataset,
                loader._auto_collation,
                loader.collate_fn,
                loader.drop_last,
                loader.worker_init_fn,
                seed + i,
                i,
                loader.num_workers,
                os.getpid(),
            )
            self.workers.append(Worker(context, job))
        self.reset()

    def reset(self) -> None:
        """Begin again. Answers to what was asked before are left out as they arrive."""
        self.epoch += 1
        self.sampler: Iterator[Any] = iter(self.loader._index_sampler)
        self.sent = self.taken = 0  # numbers of tasks
        self.owners: dict[int, Worker] = {}  # of tasks whose batch was not given out
        self.arrived: dict[int, Any] = {}
        self.turns = itertools.cycle(self.workers)
        for worker in self.workers:
            worker.ended, worker.load = False, 0
        for _ in range(self.loader.prefetch_factor * len(self.workers)):
            self._ask()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            if self.loader.in_order and self.taken in self.arrived:
                return self._given(self.taken)
            if not self.loader.in_order and self.arrived:
                return self._given(next(iter(self.arrived)))
            if not self.owners:
                if not self.loader.persistent_workers:
                    self.shutdown()
                raise StopIteration
            if self.loader.in_order and self.taken not in self.owners:
                self.taken += 1  # a stream ended there
                continue
            self._receive()

    def _given(self, number: int) -> Any:
        data = self.arrived.pop(number)
        self.owners.pop(number)
        if number == self.taken:
            self.taken += 1
        self._ask()
        if isinstance(data, WorkerError):
            raise data.again()
        return data

    def _ask(self) -> None:
        """Give the next task to a worker that still has something."""
        worker = self._next_worker()
        if worker is None:
            return
        try:
            index = next(self.sampler)
        except StopIteration:
            return
        self.owners[self.sent] = worker
        worker.load += 1
        try:
            worker.tasks.send((self.epoch, self.sent, index))
        except OSError:
            self._dead([worker])
        self.sent += 1

    def _next_worker(self) -> Worker | None:
        if self.loader.in_order:
            return next(
                (w for w in itertools.islice(self.turns, len(self.workers)) if not w.ended), None
            )
        return min((w for w in self.workers if not w.ended), key=lambda w: w.load, default=None)

    def _receive(self) -> None:
        """Wait for one answer."""
        pipes = {w.results: w for w in self.workers}
        sentinels = [w.process.sentinel for w in self.workers]
        ready = connection.wait([*pipes, *sentinels], self.loader.timeout or None)
        if not ready:
            self.shutdown(patience=0)
            raise RuntimeError(f"DataLoader timed out after {self.loader.timeout} seconds")
        readable = [p for p in ready if p in pipes]
        if not readable:
            self._dead([w for w in self.workers if w.process.sentinel in ready])
        for pipe in readable:
            try:
                epoch, number, data = pickle.loads(pipe.recv_bytes())  # type: ignore[union-attr]
            except (EOFError, OSError):
                self._dead([pipes[pipe]])  # type: ignore[index]
            if epoch == self.epoch:
                self._arrive(pipes[pipe], number, data)  # type: ignore[index]

    def _arrive(self, worker: Worker, number: int, data: Any) -> None:
        worker.load -= 1
        if isinstance(data, EndOfStream):
            worker.ended = True
            del self.owners[number]
            self._ask()
        else:
            self.arrived[number] = data

    def _dead(self, workers: list[Worker]) -> None:
        pids = ", ".join(str(w.process.pid) for w in workers)
        self.shutdown(patience=0)
        codes = ", ".join(str(w.process.exitcode) for w in workers)
        raise RuntimeError(
            f"DataLoader worker (pid(s) {pids}) exited unexpectedly, with code {codes}: it "
            "was killed, perhaps for lack of memory, or called exit; num_workers=0 "
            "shows errors where they happen"
        )

    def shutdown(self, patience: float = JOIN_SECONDS) -> None:
        """End the workers, by force those that have not ended after `patience` seconds."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join(patience)

    _shutdown_workers = shutdown  # PyTorch's name

    def __del__(self) -> None:
        self.shutdown()
