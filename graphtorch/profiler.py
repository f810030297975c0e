"""Names of ``torch.profiler`` that time: blocks marked by `record_function`, by the wall clock.

What runs inside a step is one compiled graph: `python -m graphtorch` programs see its kernels by
`graphtorch.compile(f).explain()`. https://docs.pytorch.org/docs/stable/profiler.html
"""

from __future__ import annotations

import enum
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ._deferred.running import flush
from ._torch.absent import attribute_of, class_without_instances
from ._torch.dataclass import dataclass


class ProfilerActivity(enum.Enum):
    """What may be profiled; of these there is a CPU here."""

    CPU = 0
    XPU = 1
    CUDA = 2


class ProfilerAction(enum.Enum):
    """What a step of a schedule does."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def schedule(
    *,
    wait: int,
    warmup: int,
    active: int,
    repeat: int = 0,
    skip_first: int = 0,
    skip_first_wait: int = 0,
) -> Callable[[int], ProfilerAction]:
    """What to do in each step: after `skip_first`, again and again `wait`, `warmup` and `active`
    ones."""
    if min(wait, warmup, active, repeat, skip_first) < 0 or active == 0:
        raise AssertionError("Invalid profiler schedule arguments")

    def action(step: int) -> ProfilerAction:
        step -= skip_first
        cycle = wait + warmup + active
        if step < 0 or (repeat and step >= repeat * cycle):
            return ProfilerAction.NONE
        at = step % cycle
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if at < cycle - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


@dataclass
class Event:
    """One run of a marked block: its name, and when it began and ended, in microseconds."""

    name: str
    start: float
    end: float
    thread: int


class record_function:
    """Marks a block (or, as a decorator, a function) by a name. Work recorded inside runs before
    its end."""

    def __init__(self, name: str, args: str | None = None):
        self.name = name

    def __enter__(self) -> record_function:
        self._start = time.perf_counter_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        running = profile._running
        if running is not None and running._records:
            flush()
            running._events.append(
                Event(
                    self.name,
                    self._start / 1e3,
                    time.perf_counter_ns() / 1e3,
                    threading.get_ident(),
                )
            )

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name):
                return function(*args, **kwargs)

        return marked


@dataclass
class Average:
    """All runs of the blocks of one name; times in microseconds."""

    key: str
    count: int
    cpu_time_total: float

    @property
    def cpu_time(self) -> float:
        return self.cpu_time_total / self.count

    self_cpu_time_total = property(lambda self: self.cpu_time_total)


class Averages(list[Average]):
    """What `profile.key_averages` returns."""

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """The averages as text, those that took longest first."""
        rows = sorted(self, key=lambda a: -a.cpu_time_total)[
            : row_limit if row_limit >= 0 else None
        ]
        width = max([len(a.key) for a in rows] + [4])
        lines = [f"{'Name':<{width}}  {'CPU total':>12}  {'CPU time avg':>12}  {'# of Calls':>10}"]
        for a in rows:
            total, each = a.cpu_time_total / 1e3, a.cpu_time / 1e3
            lines.append(f"{a.key:<{width}}  {total:>10.3f}ms  {each:>10.3f}ms  {a.count:>10}")
        return "\n".join(lines) + "\n"


EventList = Averages  # the name in ``torch.autograd.profiler``
emit_nvtx, emit_itt = (
    class_without_instances(
        name,
        "torch.autograd.profiler",
        "Marks operations for a vendor's profiler.",
        "graphtorch marks nothing for other profilers; use torch.profiler.profile",
    )
    for name in ("emit_nvtx", "emit_itt")
)


class profile:
    """``with profile() as p:`` times the marked blocks and, with `step`, each step."""

    _running: profile | None = None

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        **options: Any,
    ):
        self._schedule, self._ready = schedule, on_trace_ready
        self._events: list[Event] = []
        self.step_num = 0

    @property
    def _action(self) -> ProfilerAction:
        return ProfilerAction.RECORD if self._schedule is None else self._schedule(self.step_num)

    @property
    def _records(self) -> bool:
        return self._action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)

    def start(self) -> None:
        """Begin to record."""
        flush()
        profile._running, self._begun = self, time.perf_counter_ns()

    def stop(self) -> None:
        """Record no longer."""
        self._end_step()
        profile._running = None
        done = self._schedule is None or self._action is ProfilerAction.RECORD_AND_SAVE
        if self._ready is not None and done:
            self._ready(self)

    def step(self) -> None:
        """The next step begins."""
        self._end_step()
        done = self._action is ProfilerAction.RECORD_AND_SAVE
        self.step_num += 1
        if self._ready is not None and done:
            self._ready(self)

    def _end_step(self) -> None:
        if self._records:
            flush()
            self._events.append(
                Event(
                    f"ProfilerStep#{self.step_num}",
                    self._begun / 1e3,
                    time.perf_counter_ns() / 1e3,
                    threading.get_ident(),
                )
            )
        self._begun = time.perf_counter_ns()

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def events(self) -> list[Event]:
        """What was recorded, in the order in which it ended."""
        return list(self._events)

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0
    ) -> Averages:
        """For each name how often its blocks ran, and how long."""
        found: dict[str, Average] = {}
        for event in self._events:
            step = event.name.startswith("ProfilerStep#")
            name = "ProfilerStep*" if step else event.name
            average = found.setdefault(name, Average(name, 0, 0.0))
            average.count += 1
            average.cpu_time_total += event.end - event.start
        return Averages(found.values())

    def export_chrome_trace(self, path: str) -> None:
        """Write the events as JSON that chrome://tracing shows."""
        common = {"ph": "X", "cat": "user", "pid": os.getpid()}
        events = [
            {**common, "name": e.name, "tid": e.thread, "ts": e.start, "dur": e.end - e.start}
            for e in self._events
        ]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events}, file)


def kineto_available() -> bool:
    """Whether PyTorch's own profiler is there: what this module records is graphtorch's."""
    return False


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For `on_trace_ready`: writes each trace into the folder `dir_name`."""

    def write(done: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        name = f"{worker_name or os.getpid()}.{time.time_ns() // 1_000_000}.pt.trace.json"
        done.export_chrome_trace(os.path.join(dir_name, name))

    return write


__all__ = [
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "tensorboard_trace_handler",
]
__getattr__ = attribute_of(__name__)
