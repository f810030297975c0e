"""``torch.utils.benchmark``: what is timed, for how long, and how it is shown."""

from __future__ import annotations

import re

import pytest

import graphtorch as torch
from graphtorch.utils.benchmark import Compare, Measurement, Timer


def clock(step: float = 0.5) -> object:
    """Seconds that pass by `step` at each look."""
    now = [0.0]

    def look() -> float:
        now[0] += step
        return now[0]

    return look


def test_a_statement_runs_as_often_as_asked() -> None:
    seen: list[int] = []
    timer = Timer("seen.append(k)", "k = 3", globals={"seen": seen}, timer=clock())
    found = timer.timeit(200)
    assert seen == [3] * 202 and found.number_per_run == 200  # two to warm up
    assert found.times == [0.5 / 200] and found.mean == found.median and found.iqr == 0.0
    assert "1 measurement, 200 runs" in repr(found) and "2.50 ms" in repr(found)
    assert "setup: k = 3" in repr(found)


def test_blocks_run_until_the_time_is_over_or_the_times_are_steady() -> None:
    assert len(Timer(timer=clock(0.5)).blocked_autorange(min_run_time=2.0).raw_times) == 4
    steady = Timer(timer=clock(0.5)).adaptive_autorange(min_run_time=0.1)
    assert len(steady.raw_times) == 4 and steady.meets_confidence and not steady.has_warnings
    blocks = Timer("pass", timer=clock(1e-5)).blocked_autorange(min_run_time=1e-3)
    assert blocks.number_per_run == 1 and len(blocks.raw_times) >= 100


def test_threads_are_those_asked_for_while_it_runs() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    Timer("seen.append(torch.get_num_threads())", globals={"seen": seen, "torch": torch}).timeit(2)
    assert set(seen) == {1} and torch.get_num_threads() == before


def test_a_table_has_a_row_for_each_sub_label_and_a_column_for_each_description() -> None:
    def one(row: str, column: str, threads: int = 1) -> Measurement:
        timer = Timer(
            "pass",
            label="sums",
            sub_label=row,
            description=column,
            num_threads=threads,
            timer=clock(0.001234),
        )
        return timer.timeit(1)

    table = Compare([one("a", "left"), one("a", "right"), one("b", "right", 2)])
    table.extend_results([one("b", "left", 2)])
    lines = str(table).splitlines()
    assert "sums" in lines[0] and re.findall(r"\w+", lines[1]) == ["left", "right"]
    assert [line.split()[0] for line in lines[2:6]] == ["1", "a", "2", "b"]
    assert lines[3].count("1.2") == 2 and "Times are in milliseconds (ms)." in lines
    with pytest.raises(ValueError, match="Measurement"):
        Compare([1.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="only Python"):
        Timer(language="c++")


@pytest.mark.parametrize("stmt", ["x[i + 1]", "y = x[i + 1]", "f(x)"])
def test_what_is_timed_is_computed(stmt: str) -> None:
    """An index out of range is found by who computes, not while recording."""
    names = {"x": torch.randn(3), "i": torch.tensor([4])}
    names["f"] = lambda x: x[names["i"] + 1] * 2
    with pytest.raises(IndexError):
        Timer(stmt, globals=names).timeit(2)
