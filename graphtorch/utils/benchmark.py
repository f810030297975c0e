"""Timing a statement: ``torch.utils.benchmark``.

https://docs.pytorch.org/docs/stable/benchmark_utils.html; without C++ statements and instruction
counts.
"""

from __future__ import annotations

import ast
import statistics
import textwrap
import timeit
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .. import _settings, cuda
from .._deferred.running import flush
from .._torch.dataclass import dataclass, field

_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def select_unit(seconds: float) -> tuple[str, float]:
    """The unit in which a time reads well, and its length in seconds."""
    return next(((unit, size) for unit, size in _UNITS if seconds >= size), _UNITS[-1])


@dataclass(frozen=True)
class TaskSpec:
    """What was timed."""

    stmt: str
    setup: str
    global_setup: str = ""
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def title(self) -> str:
        """The label, or the statement."""
        if self.label is not None:
            return self.label + (f": {self.sub_label}" if self.sub_label else "")
        return self.stmt if "\n" not in self.stmt else "stmt:\n" + textwrap.indent(self.stmt, "  ")


@dataclass
class Measurement:
    """Times of a statement: `raw_times` seconds for `number_per_run` runs each."""

    number_per_run: int
    raw_times: list[float]
    task_spec: TaskSpec
    metadata: dict[Any, Any] | None = field(default=None)

    def __getattr__(self, name: str) -> Any:
        if name in TaskSpec.__dataclass_fields__ or name == "title":
            return getattr(self.task_spec, name)
        raise AttributeError(f"'Measurement' object has no attribute {name!r}")

    @property
    def times(self) -> list[float]:
        """Seconds a run."""
        return [t / self.number_per_run for t in self.raw_times]

    @property
    def median(self) -> float:
        """The median of `times`."""
        return statistics.median(self.times)

    @property
    def mean(self) -> float:
        """The mean of `times`."""
        return statistics.fmean(self.times)

    @property
    def iqr(self) -> float:
        """The distance of the quartiles of `times`."""
        if len(self.raw_times) < 2:
            return 0.0
        quarters = statistics.quantiles(self.times, n=4, method="inclusive")
        return quarters[2] - quarters[0]

    @property
    def meets_confidence(self) -> bool:
        """Whether the quartiles are close: within a tenth of the median."""
        return self.iqr <= 0.1 * self.median

    @property
    def has_warnings(self) -> bool:
        """Whether the times spread."""
        return len(self.raw_times) > 1 and not self.meets_confidence

    def __repr__(self) -> str:
        unit, size = select_unit(self.median)
        count = len(self.raw_times)
        threads = self.task_spec.num_threads
        setup = f"setup: {self.task_spec.setup}" if self.task_spec.setup != "pass" else None
        spread = f"IQR: {self.iqr / size:.2f} {unit}" if count > 1 else None
        parts = [
            self.task_spec.title,
            self.task_spec.description,
            setup,
            f"  {'Median: ' if count > 1 else ''}{self.median / size:.2f} {unit}",
            spread and f"  {spread}",
            f"  {count} measurement{'s' * (count > 1)}, {self.number_per_run} runs "
            f"{'per measurement' if count > 1 else ''}, {threads} thread{'s' * (threads > 1)}",
        ]
        return f"{object.__repr__(self)}\n" + "\n".join(p for p in parts if p)

    @staticmethod
    def merge(measurements: Iterable[Measurement]) -> list[Measurement]:
        """One measurement for each thing that was timed."""
        groups: dict[TaskSpec, list[Measurement]] = {}
        for m in measurements:
            groups.setdefault(m.task_spec, []).append(m)
        return [
            ms[0] if len(ms) == 1 else Measurement(1, [t for m in ms for t in m.times], spec)
            for spec, ms in groups.items()
        ]


class Timer:
    """Times a statement, with a number of threads (1 unless given) and a warm-up.

    Args:
        stmt, setup: code, run with `globals`.
        label, sub_label, description: for tables (see `Compare`).
    """

    def __init__(
        self,
        stmt: str = "pass",
        setup: str = "pass",
        global_setup: str = "",
        timer: Callable[[], float] = timeit.default_timer,
        globals: dict[str, Any] | None = None,
        label: str | None = None,
        sub_label: str | None = None,
        description: str | None = None,
        env: str | None = None,
        num_threads: int = 1,
        language: Any = "python",
    ):
        if str(language).lower() not in ("python", "py", "language.python"):
            raise ValueError(f"Timer: only Python is timed here, not language={language!r}")
        stmt, setup = (textwrap.dedent(code).strip() for code in (stmt, setup))
        self._spec = TaskSpec(
            stmt, setup, global_setup, label, sub_label, description, env, num_threads
        )
        names = {**(globals or {}), "_flush": flush}
        self._timer = timeit.Timer(_computed(stmt), setup, self._waiting(timer), names)

    @staticmethod
    def _waiting(timer: Callable[[], float]) -> Callable[[], float]:
        def now() -> float:
            if cuda.is_available():
                cuda.synchronize()
            return timer()

        return now

    def _run(self, number: int) -> float:
        return max(self._timer.timeit(number), 1e-9)

    def timeit(self, number: int = 1000000) -> Measurement:
        """One measurement of `number` runs."""
        with _threads(self._spec.num_threads):
            self._run(max(number // 100, 2))
            return Measurement(number, [self._run(number)], self._spec)

    def repeat(self, repeat: int = -1, number: int = -1) -> None:
        """Not supported, as in PyTorch."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def autorange(self, callback: Any = None) -> Measurement:
        """As `blocked_autorange`."""
        return self.blocked_autorange(callback)

    def blocked_autorange(
        self, callback: Callable[[int, float], Any] | None = None, min_run_time: float = 0.2
    ) -> Measurement:
        """Blocks of runs for `min_run_time` seconds, long enough that the clock does not matter."""
        with _threads(self._spec.num_threads):
            number = self._block(min_run_time)
            return self._measured(number, callback, lambda times: sum(times) >= min_run_time)

    def adaptive_autorange(
        self,
        threshold: float = 0.1,
        *,
        min_run_time: float = 0.01,
        max_run_time: float = 10.0,
        callback: Callable[[int, float], Any] | None = None,
    ) -> Measurement:
        """Blocks of runs until the quartiles are within `threshold` of the median."""

        def done(times: Sequence[float]) -> bool:
            found = Measurement(1, list(times), self._spec)
            steady = len(times) > 3 and found.iqr < threshold * found.median
            return (sum(times) >= min_run_time and steady) or sum(times) >= max_run_time

        with _threads(self._spec.num_threads):
            return self._measured(self._block(min_run_time), callback, done)

    def _block(self, min_run_time: float) -> int:
        number, wanted = 1, min(min_run_time / 1000, 1e-3)
        self._run(1)
        while (taken := self._run(number)) < wanted:
            number *= 10 if taken < wanted / 10 else 2
        return number

    def _measured(
        self, number: int, callback: Any, done: Callable[[Sequence[float]], bool]
    ) -> Measurement:
        times: list[float] = []
        while not times or not done(times):
            times.append(self._run(number))
            if callback is not None:
                callback(number, times[-1])
        return Measurement(number, times, self._spec)


def _computed(stmt: str) -> str:
    """`stmt`, whose tensors are computed each time: what nobody keeps, or asks for, never is."""
    body = ast.parse(stmt)
    last = body.body[-1] if body.body else None
    if isinstance(last, ast.Expr):
        body.body[-1] = ast.Assign([ast.Name("_value", ast.Store())], last.value)
    return ast.unparse(ast.fix_missing_locations(body)) + "\n_flush()"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = _settings.get_num_threads()
    _settings.set_num_threads(count)
    try:
        yield
    finally:
        _settings.set_num_threads(before)


class Compare:
    """A table of measurements: a row for each sub-label, a column for each description."""

    def __init__(self, results: Sequence[Measurement]):
        self._results: list[Measurement] = []
        self._digits: int | None = None
        self.extend_results(results)

    def extend_results(self, results: Sequence[Measurement]) -> None:
        """Take further measurements. ValueError for anything else."""
        for found in results:
            if not isinstance(found, Measurement):
                raise ValueError(
                    "Expected an instance of `Measurement`, got "
                    f"{type(found).__name__} instead: give what Timer's methods return"
                )
        self._results.extend(results)

    def trim_significant_figures(self) -> None:
        """Show no digits below those that repeat."""
        self._digits = 2

    def colorize(self, rowwise: bool = False) -> None:
        """Does nothing: tables have no colours."""

    def highlight_warnings(self) -> None:
        """Does nothing: tables have no colours."""

    def print(self) -> None:
        """Print the tables, one for each label."""
        print(str(self))

    def __str__(self) -> str:
        merged = Measurement.merge(self._results)
        labels = dict.fromkeys(m.task_spec.label or "" for m in merged)
        return "\n".join(
            self._table(label, [m for m in merged if (m.task_spec.label or "") == label])
            for label in labels
        )

    def _table(self, label: str, found: Sequence[Measurement]) -> str:
        unit, size = select_unit(min(m.median for m in found))
        columns = list(dict.fromkeys(m.task_spec.description or "" for m in found))
        lines: list[list[str]] = [["", *columns]]
        for threads in sorted({m.task_spec.num_threads for m in found}):
            lines.append([f"{threads} threads:", *("" for _ in columns)])
            these = [m for m in found if m.task_spec.num_threads == threads]
            for row in dict.fromkeys(m.task_spec.sub_label or m.task_spec.stmt for m in these):
                cells = {
                    m.task_spec.description or "": self._number(m.median / size)
                    for m in these
                    if (m.task_spec.sub_label or m.task_spec.stmt) == row
                }
                lines.append([f"      {row}", *(cells.get(c, "") for c in columns)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
        rows = [
            "  |  ".join(
                [
                    line[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
                ]
            )
            for line in lines
        ]
        title = f" {label} ".center(len(rows[0]), "-")
        names = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
        return f"[{title}]\n" + "\n".join(rows) + f"\n\nTimes are in {names[unit]} ({unit}).\n"

    def _number(self, x: float) -> str:
        return f"{x:.1f}" if self._digits is None else f"{float(f'{x:.{self._digits}g}'):g}"
