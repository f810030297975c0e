"""Schedules by measurement: what kernels offer, how the fastest is found, and where it is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.backends.cpu.choices import Choices, Tunable
from graphtorch.backends.llvm import compiler, debug, tune
from graphtorch.backends.llvm.build import build, target_of
from graphtorch.backends.llvm.executable import Executable
from graphtorch.backends.llvm.processor import host
from graphtorch.backends.target import lowered
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes.limits import Exactness

Measure = Callable[[Sequence[tune.Call], tune.Call, float], list[float]]


def value(name: str, *shape: int) -> Value:
    return Value(Type(f32, shape), name=name)


def matrices(m: int, k: int, n: int) -> Graph:
    x, w, bias = value("x", m, k), value("w", k, n), value("bias", n)
    return Graph("matrices", [x, w, bias], [ops.relu(ops.add(ops.matmul(x, w), bias))])


def transposed(m: int, k: int, n: int) -> Graph:
    x, w = value("x", m, k), value("w", n, k)
    return Graph("transposed", [x, w], [ops.matmul(x, ops.permute(w, dims=(1, 0)))])


def convolution(channels: int, filters: int, size: int, taps: int, stride: int = 1) -> Graph:
    x, w = value("x", 2, channels, size, size), value("w", filters, channels, taps, taps)
    padding = ((taps // 2, taps // 2),) * 2
    made = ops.conv(x, w, stride=(stride,) * 2, padding=padding, dilation=(1, 1))
    return Graph("convolution", [x, w], [ops.relu(made)])


def filtered() -> Graph:
    """A convolution that Winograd's tiles are for."""
    x, w = value("x", 2, 28, 28, 64), value("w", 64, 64, 3, 3)
    padding = ((1, 1), (1, 1))
    made = ops.channels_last_conv(x, w, stride=(1, 1), padding=padding, dilation=(1, 1))
    return Graph("filtered", [x, w], [made])


def gradient_of_filters() -> Graph:
    x, g = value("x", 2, 8, 20, 20), value("g", 2, 24, 20, 20)
    padding = ((1, 1), (1, 1))
    made = ops.conv_weight_grad(
        x, g, kernel=(3, 3), stride=(1, 1), padding=padding, dilation=(1, 1)
    )
    return Graph("gradient", [x, g], [made])


# graphs, and which of their inputs seldom change
GRAPHS: dict[str, tuple[Graph, tuple[int, ...]]] = {
    "matrices": (matrices(37, 61, 83), (1, 2)),
    "matrices that change": (matrices(64, 96, 130), ()),
    "a long sum": (matrices(5, 5000, 19), (1,)),
    "dot products": (transposed(3, 301, 50), ()),
    "one row": (matrices(1, 700, 900), (1, 2)),
    "3 x 3": (convolution(33, 40, 21, 3), (1,)),
    "3 x 3 by 2": (convolution(5, 18, 25, 3, stride=2), (1,)),
    "1 x 1": (convolution(16, 24, 15, 1), (1,)),
    "3 x 3 by tiles": (filtered(), (1,)),
    "gradient of filters": (gradient_of_filters(), ()),
}


def arrays_for(graph: Graph) -> list[np.ndarray]:
    draw = np.random.default_rng(7)
    return [draw.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]  # type: ignore[arg-type]


def met(graph: Graph, stable: Sequence[int], exact: Exactness) -> list[Tunable]:
    choices = Choices({}, exact)
    lowered(graph, target_of(host(), choices=choices), stable, exact)
    return list(choices.met.values())


def result_by(
    graph: Graph, stable: Sequence[int], exact: Exactness, chosen: dict[str, str]
) -> np.ndarray:
    made = build(graph, host(), stable, exact, Choices(chosen, exact))
    return Executable(*made, stable)([Buffer.of(a) for a in arrays_for(graph)])[0].numpy()


# ---------------------------------------------------------------------------------------- offers


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_offered_gives_the_same_results(name: str) -> None:
    graph, stable = GRAPHS[name]
    (expected,) = evaluate(graph, arrays_for(graph))
    kernels = met(graph, stable, Exactness.NONE)
    assert kernels, "there is nothing to choose"
    for kernel in kernels:
        assert len(set(kernel.offers)) == len(kernel.offers) > 1
        for offer in kernel.offers:
            got = result_by(graph, stable, Exactness.NONE, {kernel.key: offer})
            error = np.abs(got - expected).max() / np.abs(expected).max()
            assert error < (1e-4 if "tiles" in offer else 1e-5), offer


@pytest.mark.parametrize("name", GRAPHS)
def test_where_bits_count_every_offer_gives_the_same(name: str) -> None:
    graph, stable = GRAPHS[name]
    plain = compile(graph, "llvm", stable, exact=Exactness.BITS)
    expected = plain([Buffer.of(a) for a in arrays_for(graph)])[0].numpy()
    for kernel in met(graph, stable, Exactness.BITS):
        assert not kernel.by_tiles
        for offer in kernel.offers:
            got = result_by(graph, stable, Exactness.BITS, {kernel.key: offer})
            assert got.tobytes() == expected.tobytes(), offer


def test_some_kernels_have_a_choice_where_bits_count() -> None:
    graph = matrices(256, 512, 512)
    (kernel,) = met(graph, (1, 2), Exactness.BITS)
    (free,) = met(graph, (1, 2), Exactness.NONE)
    assert 1 < len(kernel.offers) < len(free.offers)


def test_without_a_choice_the_cost_model_decides() -> None:
    graph, stable = GRAPHS["matrices"]
    plain, _, _ = lowered(graph, target_of(host()), stable)
    chosen, _, _ = lowered(graph, target_of(host(), choices=Choices({})), stable)
    assert [launch.label for launch in plain.launches] == [  # type: ignore[union-attr]
        launch.label
        for launch in chosen.launches  # type: ignore[union-attr]
    ]


def test_sizes_that_change_have_no_choice() -> None:
    from graphtorch.ir.shape import Symbol, SymInt

    rows = SymInt.atom(Symbol("rows", 1, 64))
    x, w = Value(Type(f32, (rows, 64)), name="x"), value("w", 64, 64)
    assert met(Graph("g", [x, w], [ops.matmul(x, w)]), (1,), Exactness.NONE) == []


def test_what_is_chosen_has_to_be_there() -> None:
    graph, stable = GRAPHS["matrices"]
    (kernel,) = met(graph, stable, Exactness.NONE)
    for chosen, text in (
        ({kernel.key: "fastest"}, "schedule 'fastest' for matmul"),
        ({"other": kernel.offers[0]}, "schedule 'tile, .*' of a kernel that is not there"),
    ):
        choices = Choices(chosen)
        lowered(graph, target_of(host(), choices=choices), stable)
        with pytest.raises(ValueError, match=text):
            choices.check()


def test_another_schedule_has_to_be_clearly_faster() -> None:
    graph, stable = GRAPHS["matrices"]
    (kernel,) = met(graph, stable, Exactness.NONE)
    slower = [2.0] * (len(kernel.offers) - 2)
    assert kernel.best([1.0, 0.98, *slower]) == kernel.offers[0]
    assert kernel.best([1.0, 0.9, *slower]) == kernel.offers[1]


def test_larger_tiles_have_to_save_more() -> None:
    graph, stable = filtered(), (1,)
    kernel = next(k for k in met(graph, stable, Exactness.NONE) if k.by_tiles)
    times = {"sums": 1.0, "tiles of 2 x 2": 0.85, "tiles of 4 x 4": 0.7}
    assert kernel.best([times[name] for name in kernel.offers]) == "sums"
    times["tiles of 4 x 4"] = 0.5
    assert kernel.best([times[name] for name in kernel.offers]) == "tiles of 4 x 4"


# ------------------------------------------------------------------------------------- measuring


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, and nothing known in memory."""
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "_known", {})
    compiler._alive.clear()
    yield tmp_path
    compiler._alive.clear()


def wins(number: int, seen: list[int] | None = None) -> Measure:
    """A measurement that finds this offer the fastest; after running each once."""

    def measure(calls: Sequence[tune.Call], between: tune.Call, seconds: float) -> list[float]:
        for call in calls:
            between()
            call()
        if seen is not None:
            seen.append(len(calls))
        return [0.1 if i == number else 1.0 for i in range(len(calls))]

    return measure


def explained(graph: Graph, stable: Sequence[int], seconds: float = 60.0) -> str:
    return compile(graph, "llvm", stable, tune=seconds).explain()


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_the_offer_that_is_fastest_runs(
    number: int, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, stable = matrices(48, 96, 112), (1, 2)
    (kernel,) = met(graph, stable, Exactness.NONE)
    monkeypatch.setattr(tune, "measure", wins(number))
    text = explained(graph, stable)
    assert f"[{kernel.offers[number]}]" in text
    assert f"tuned: 1 kernels by measurement, {int(number > 0)} of them otherwise" in text


def test_it_really_measures(fresh: Path) -> None:
    graph, stable = matrices(48, 96, 112), (1, 2)
    program = compile(graph, "llvm", stable, tune=60.0)
    arrays = arrays_for(graph)
    (expected,) = evaluate(graph, arrays)
    got = program([Buffer.of(a) for a in arrays])[0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert "tuned: 1 kernels by measurement" in program.explain()


def test_calls_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    monkeypatch.setattr(tune, "clock", lambda: now[0])

    def call(name: str, seconds: float) -> tune.Call:
        def run() -> None:
            order.append(name)
            # every third run is disturbed
            now[0] += seconds * (10 if order.count(name) % 3 == 0 else 1)

        return run

    calls = [call("a", 2.0), call("b", 1.0), call("c", 5.0)]
    found = tune.measure(calls, call("between", 0.5), 0.0)
    assert found == [2.0, 1.0, 5.0]
    assert order[:8] == ["between", "a", "between", "b", "between", "c", "between", "a"]
    assert order.count("c") == tune.ROUNDS + 1  # there was no time for more


def test_slow_calls_get_no_more_than_the_first_turns() -> None:
    counts = {"fast": 0, "slow": 0}

    def call(name: str, loops: int) -> tune.Call:
        def run() -> None:
            counts[name] += 1
            sum(range(loops))

        return run

    tune.measure([call("fast", 1000), call("slow", 100_000)], lambda: None, 30.0)
    assert counts == {"fast": tune.MOST_ROUNDS + 1, "slow": tune.ROUNDS + 1}


def test_equal_kernels_are_measured_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = value("x", 32, 64)
    weights = [value(f"w{i}", 64, 64) for i in range(3)]
    y = x
    for w in weights:
        y = ops.relu(ops.matmul(y, w))
    seen: list[int] = []
    monkeypatch.setattr(tune, "measure", wins(1, seen))
    text = explained(Graph("layers", [x, *weights], [y]), (1, 2, 3))
    assert len(seen) == 1
    assert "tuned: 1 kernels by measurement, 1 of them otherwise" in text


def test_it_is_measured_for_a_number_of_threads(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, stable, seen = matrices(48, 96, 112), (1, 2), list[int]()
    monkeypatch.setattr(tune, "measure", wins(1, seen))
    explained(graph, stable)
    explained(graph, stable)
    assert len(seen) == 1
    from graphtorch import get_num_threads, set_num_threads

    before = get_num_threads()
    try:
        set_num_threads(before + 1)
        explained(graph, stable)
    finally:
        set_num_threads(before)
    assert len(seen) == 2


def test_tuned_and_untuned_programs_do_not_mix(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, stable = matrices(48, 96, 112), (1, 2)
    monkeypatch.setattr(tune, "measure", wins(2))
    plain, tuned = compile(graph, "llvm", stable), compile(graph, "llvm", stable, tune=60.0)
    assert "tuned" not in plain.explain() and "tuned" in tuned.explain()
    compiler._alive.clear()
    assert compile(graph, "llvm", stable).explain() == plain.explain()
    assert explained(graph, stable) == tuned.explain()


def test_convolutions_go_by_the_tiles_that_are_fastest(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, stable = filtered(), (1,)
    kernel = next(k for k in met(graph, stable, Exactness.NONE) if k.by_tiles)
    monkeypatch.setattr(tune, "measure", wins(kernel.offers.index("sums")))
    assert "winograd" not in explained(graph, stable)


def test_the_table_is_shown_to_who_asks(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHTORCH_DEBUG", "tuning")
    assert debug.wanted() == {"tuning"}
    monkeypatch.setattr(tune, "measure", wins(1))
    explained(*GRAPHS["matrices"])
    shown = capfd.readouterr().err
    assert "---- tuning of matrices" in shown and "*   100000.0 us  " in shown
    assert "kernels," not in shown  # no bar where there is no terminal


# ---------------------------------------------------------------------------------------- budget


def layers(count: int) -> tuple[Graph, tuple[int, ...]]:
    """Products of different sizes, the later the larger."""
    x = value("x", 16, 32)
    weights = [value(f"w{i}", 32 + 16 * i, 48 + 16 * i) for i in range(count)]
    y = x
    for w in weights:
        y = ops.relu(ops.matmul(y, w))
    return Graph("layers", [x, *weights], [y]), tuple(range(1, count + 1))


def test_time_that_is_over_leaves_the_rest_to_the_cost_model(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, stable = layers(5)
    now, given = [0.0], list[float]()
    monkeypatch.setattr(tune, "clock", lambda: now[0])

    def measure(calls: Sequence[tune.Call], between: tune.Call, seconds: float) -> list[float]:
        given.append(seconds)
        now[0] += 4.0
        return [1.0] * len(calls)

    monkeypatch.setattr(tune, "measure", measure)
    assert "tuned: 3 kernels by measurement, 0 of them otherwise than by the cost model; 2 not" in (
        explained(graph, stable, 10.0)
    )
    # each has its part of what is left, by its work: the largest come first
    assert given[0] < 10.0 and sorted(given[:2], reverse=True) == given[:2]
    # what was not measured is, next time, and nothing else
    assert "tuned: 5 kernels by measurement" in explained(graph, stable, 60.0)
    assert len(given) == 5


def test_no_time_at_all_measures_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(tune, "measure", wins(1, seen))
    text = explained(*GRAPHS["matrices"], 1e-6)
    assert "tuned: 0 kernels by measurement" in text and seen == []


# ----------------------------------------------------------------------------------------- cache

SECOND = """
import numpy as np, sys
from graphtorch.backends.llvm import tune
def refuse(*_):
    raise AssertionError("it measures")
tune.measure = refuse
sys.path.insert(0, sys.argv[1])
from test_tuning import explained, layers, matrices
print(explained(matrices(48, 96, 112), (1, 2)))  # the very program
from graphtorch.ir import ops
from graphtorch.ir.graph import Graph
one = matrices(48, 96, 112)
(made,) = one.outputs
other = Graph("other", one.inputs, [made, ops.sum(made, dims=(0,), keepdim=False)])
print(explained(other, (1, 2)))  # another one with the same product
assert tune.measured_count == 0
"""


def test_another_process_measures_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, stable = matrices(48, 96, 112), (1, 2)
    (kernel,) = met(graph, stable, Exactness.NONE)
    monkeypatch.setattr(tune, "measure", wins(2))
    explained(graph, stable)
    done = subprocess.run(
        [sys.executable, "-c", SECOND, str(Path(__file__).parent)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"[{kernel.offers[2]}]") == 2


def test_a_cache_that_was_tampered_with_is_not_believed(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, stable, seen = matrices(48, 96, 112), (1, 2), list[int]()
    monkeypatch.setattr(tune, "measure", wins(2, seen))
    explained(graph, stable)
    for path in (fresh / "cache").glob("*.gto"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"schedule": "', b'"schedule": "x'))
    compiler._alive.clear()
    tune._known.clear()
    for path in (fresh / "cache").glob("*.gto"):
        if b'"left"' in path.read_bytes():
            path.unlink()  # the program itself
    explained(graph, stable)
    assert len(seen) == 2


def test_without_a_cache_a_process_measures_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", "off")
    seen: list[int] = []
    monkeypatch.setattr(tune, "measure", wins(2, seen))
    for _ in range(2):
        explained(matrices(48, 96, 112), (1, 2))
        compiler._alive.clear()
    assert len(seen) == 1
