"""Functions in processes of their own, whose errors are raised here."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing import connection
from typing import Any


class ProcessException(Exception):
    """A process did not end well."""

    def __init__(self, msg: str, error_index: int, pid: int):
        super().__init__(msg)
        self.msg, self.error_index, self.pid = msg, error_index, pid


class ProcessRaisedException(ProcessException):
    """The function raised; the message has its traceback."""


class ProcessExitedException(ProcessException):
    """The process ended by itself, or by a signal."""

    def __init__(self, msg: str, error_index: int, error_pid: int, exit_code: int):
        super().__init__(msg, error_index, error_pid)
        self.exit_code = exit_code


def _run(fn: Callable[..., Any], number: int, args: tuple[Any, ...], errors: Any) -> None:
    try:
        fn(number, *args)
    except KeyboardInterrupt:
        pass
    except Exception:
        errors.put(traceback.format_exc())
        raise SystemExit(1) from None


class ProcessContext:
    """Processes that were started together."""

    def __init__(self, processes: list[Any], errors: list[Any]):
        self.processes, self._errors = processes, errors

    def pids(self) -> list[int]:
        """Their numbers."""
        return [p.pid for p in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait for one or more to end; whether all have.

        Raises:
            ProcessRaisedException, ProcessExitedException: one failed; the others are ended.
        """
        waiting = {p.sentinel: i for i, p in enumerate(self.processes) if p.is_alive()}
        if waiting:
            connection.wait(list(waiting), timeout)
        for number, process in enumerate(self.processes):
            if process.exitcode not in (None, 0):
                self._fail(number, process)
        return all(p.exitcode == 0 for p in self.processes)

    def _fail(self, number: int, failed: Any) -> None:
        for process in self.processes:
            if process.is_alive():
                process.terminate()
            process.join()
        if self._errors[number].empty():
            raise ProcessExitedException(
                f"process {number} terminated with exit code {failed.exitcode}",
                number,
                failed.pid,
                failed.exitcode,
            )
        raise ProcessRaisedException(
            f"\n\n-- Process {number} terminated with the following error:\n"
            f"{self._errors[number].get()}",
            number,
            failed.pid,
        )


SpawnContext = ProcessContext


def start_processes(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """``fn(i, *args)`` in processes 0 to `nprocs` - 1; None once all ended, or (``join=False``)
    their context.

    Raises:
        ProcessRaisedException, ProcessExitedException: one failed.
    """
    made: Any = multiprocessing.get_context(start_method)
    errors: list[Any] = [made.SimpleQueue() for _ in range(nprocs)]
    processes: list[Any] = [
        made.Process(
            target=_run,
            args=(fn, i, args, errors[i]),
            daemon=daemon,
        )
        for i in range(nprocs)
    ]
    for process in processes:
        process.start()
    context = ProcessContext(processes, errors)
    while join and not context.join():
        pass
    return None if join else context


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """As `start_processes`, from fresh interpreters."""
    return start_processes(fn, args, nprocs, join, daemon, start_method)
