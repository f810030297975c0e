"""`compile(..., tune=)` and `aot.compile(..., tune=)`: schedules by measurement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred.programs import Serving, recorded_program
from graphtorch._types import device
from graphtorch.backends.llvm import compiler, tune
from graphtorch.backends.llvm.processor import named


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of its own, and nothing known in memory."""
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "_known", {})
    compiler._alive.clear()
    yield
    compiler._alive.clear()


@pytest.fixture
def second_wins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The second offer is always the fastest; the numbers of offers that were measured."""
    seen: list[int] = []

    def measure(calls: Sequence[Callable[[], object]], *_: Any) -> list[float]:
        seen.append(len(calls))
        return [0.5 if i == 1 else 1.0 for i in range(len(calls))]

    monkeypatch.setattr(tune, "measure", measure)
    return seen


def network(width: int = 40) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2),
        nn.Flatten(),
        nn.Linear(width * 49, 31),
    ).eval()


def test_results_are_those_of_the_untuned_program(second_wins: list[int]) -> None:
    model, x = network(), torch.randn(2, 3, 16, 16)
    plain, tuned = torch.compile(model), torch.compile(model, tune=60)
    with torch.no_grad():
        assert torch.allclose(plain(x), tuned(x), rtol=1e-4, atol=1e-5)
    assert len(second_wins) >= 3
    assert "tuned" not in plain.explain()
    assert "by measurement" in tuned.explain() and plain.explain() not in tuned.explain()


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_products_of_fewer_digits_stay_as_they_are(second_wins: list[int], precision: str) -> None:
    """What else a net has is tuned; the sums of whole numbers are the same ones."""
    model, x = network(), torch.randn(2, 3, 16, 16)
    plain = torch.compile(model, precision=precision)
    tuned = torch.compile(model, precision=precision, tune=60)
    with torch.no_grad():
        assert torch.allclose(plain(x), tuned(x), rtol=1e-3, atol=1e-3)
    assert "by measurement" in tuned.explain()


def test_the_order_of_compiling_does_not_matter(second_wins: list[int]) -> None:
    x, w = torch.randn(33, 70), torch.randn(70, 50)
    tuned = torch.compile(lambda a, b: a @ b, tune=60)
    tuned(x, w)
    plain = torch.compile(lambda a, b: a @ b)
    plain(x, w)
    assert "tuned" in tuned.explain() and "tuned" not in plain.explain()
    again = torch.compile(lambda a, b: a @ b, tune=60)
    again(x, w)
    assert len(second_wins) == 1 and again.explain() == tuned.explain()


def test_gradients_are_tuned_as_well(second_wins: list[int]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(70, 50)
    step = torch.compile(lambda x: model(x).square().sum(), tune=True)
    x = torch.randn(33, 70)
    step(x).backward()
    found = model.weight.grad.clone()
    model.weight.grad = None
    model(x).square().sum().backward()
    assert torch.allclose(found, model.weight.grad, rtol=1e-4, atol=1e-4)
    assert len(second_wins) == 2


def test_bits_do_not_depend_on_tuning_where_they_count(second_wins: list[int]) -> None:
    model, x = network(64), torch.randn(4, 3, 16, 16)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.no_grad():
            expected = torch.compile(model)(x).numpy().tobytes()
            assert torch.compile(model, tune=60)(x).numpy().tobytes() == expected
    finally:
        torch.use_deterministic_algorithms(False)
    assert second_wins  # something was chosen otherwise


def test_a_decorator_a_class_and_a_copy_are_tuned(second_wins: list[int]) -> None:
    import copy

    @torch.compile(tune=60)
    def product(a: Any, b: Any) -> Any:
        return a @ b

    product(torch.randn(33, 70), torch.randn(70, 50))
    assert "tuned" in product.explain()
    made = copy.deepcopy(torch.compile(nn.Linear(70, 50), tune=60))
    made(torch.randn(33, 70))
    assert "tuned" in made.explain()


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("yes", TypeError, "tune must be True, False or a number of seconds, not str"),
        ([3], TypeError, "tune must be True, False or a number of seconds, not list"),
        (0, ValueError, "tune=0: a number of seconds has to be positive and finite"),
        (-1.5, ValueError, "tune=-1.5: a number of seconds has to be positive"),
        (float("inf"), ValueError, "tune=inf: a number"),
        (float("nan"), ValueError, "tune=nan: a number"),
    ],
)
def test_what_is_no_time_is_refused(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        torch.compile(lambda x: x, tune=given)


def test_gpus_are_refused() -> None:
    model = torch.compile(lambda x: x + 1)
    model(torch.ones(3))
    (graph,) = model.graphs
    with pytest.raises(NotImplementedError, match=r"runs on cuda:0: kernels of GPUs are not tuned"):
        recorded_program(graph, (), Serving(tune=1.0), places=[device("cuda", 0)])


# --------------------------------------------------------------------------------- ahead of time


def schedules(path: Path) -> list[dict[str, str]]:
    return torch.aot.load(path).metadata["schedules"]  # type: ignore[no-any-return]


def test_a_library_names_its_schedules(second_wins: list[int], tmp_path: Path) -> None:
    model, x = network(), torch.randn(2, 3, 16, 16)
    made = torch.aot.compile(model, x, tmp_path / "tuned.so", tune=60)
    with torch.no_grad():
        expected = model(x)
    (found,) = made.load()(x.numpy())
    assert torch.allclose(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)
    named_ones = schedules(made.path)
    assert len(named_ones) == len(second_wins) >= 3
    assert all(set(entry) == {"key", "kernel", "schedule"} for entry in named_ones)
    assert {"tile", "dot"} & {entry["schedule"].split(",")[0] for entry in named_ones}
    plain = torch.aot.compile(model, x, tmp_path / "plain.so")
    assert "schedules" not in plain.load().metadata


def test_the_same_schedules_make_the_same_library(
    second_wins: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network(), torch.randn(2, 3, 16, 16)
    first = torch.aot.compile(model, x, tmp_path / "first.so", tune=60, name="net")
    known = json.loads(json.dumps(schedules_of(first)))
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "other"))
    tune._known.clear()
    count = len(second_wins)
    one = torch.aot.compile(model, x, tmp_path / "one.o", tune=known, name="net")
    two = torch.aot.compile(model, x, tmp_path / "two.o", tune=known, name="net")
    assert len(second_wins) == count  # nothing was measured
    assert one.path.read_bytes() == two.path.read_bytes()
    again = torch.aot.compile(model, x, tmp_path / "again.so", tune=known, name="net")
    assert schedules_of(again) == known
    untuned = torch.aot.compile(model, x, tmp_path / "untuned.o", name="net")
    assert untuned.path.read_bytes() != one.path.read_bytes()


def schedules_of(made: Any) -> list[dict[str, str]]:
    return made.load().metadata["schedules"]  # type: ignore[no-any-return]


def test_schedules_of_another_model_are_refused(second_wins: list[int], tmp_path: Path) -> None:
    x = torch.randn(33, 70)
    made = torch.aot.compile(nn.Linear(70, 50), x, tmp_path / "one.so", tune=60)
    with pytest.raises(ValueError, match="of a kernel that is not there"):
        torch.aot.compile(nn.Linear(70, 60), x, tmp_path / "two.o", tune=schedules_of(made))
    wrong = [{**entry, "schedule": "fastest"} for entry in schedules_of(made)]
    with pytest.raises(ValueError, match="schedule 'fastest' for matmul"):
        torch.aot.compile(nn.Linear(70, 50), x, tmp_path / "two.o", tune=wrong)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"tune": "fast"}, TypeError, "aot.compile: tune must be True, False or a number"),
        ({"tune": -1}, ValueError, "aot.compile: tune=-1"),
        ({"tune": [{"key": "x"}]}, ValueError, 'each entry has "key" and "schedule"'),
        ({"tune": True, "device": "cuda"}, ValueError, "tune= is for CPUs"),
        (
            {"tune": True, "target": named("aarch64-unknown-linux-gnu", "neoverse-n1")},
            ValueError,
            "tune= measures on this machine",
        ),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    given: dict[str, Any], error: type[Exception], text: str, tmp_path: Path
) -> None:
    if given.get("device") == "cuda":
        given = {**given, "architectures": ["compute_90"]}
    with pytest.raises(error, match=text):
        torch.aot.compile(nn.Linear(7, 5), torch.zeros(3, 7), tmp_path / "x.o", **given)
