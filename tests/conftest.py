"""What all tests share: golden texts, and a pipeline that verifies after every pass."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from graphtorch import _settings, manual_seed
from graphtorch.ir.graph import located
from graphtorch.ir.passes import pipeline

EMULATED = "the emulated CUDA device needs a C++ compiler"  # why tests are skipped without one
GOLDEN = Path(__file__).parent / "golden"
manual_seed(0)  # of what test modules draw when they are imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write golden texts instead of comparing"
    )
    parser.addoption(
        "--every-variant",
        action="store_true",
        help="also the random programs and the cases much like others that a plain run leaves out, "
        "and random graphs on llvm with every choice of passes instead of one in turn",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "more: runs with --every-variant only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--every-variant"):
        return
    left = [item for item in items if item.get_closest_marker("more")]
    items[:] = [item for item in items if not item.get_closest_marker("more")]
    config.hook.pytest_deselected(items=left)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tests that a machine without a C++ compiler skips are one line of pytest's summary, which has
    one for each place that skips."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if EMULATED in reason:
            report.longrepr = (__file__, 0, reason)
    return report


def pytest_collection_finish() -> None:
    """What modules of tests made stays: whoever collects garbage need not go through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_location() -> Iterator[None]:
    """Tensor operations leave their line behind for the next one; nodes made by hand must not get
    it."""
    with located(None):
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Nobody can foresee the numbers of a program that does not seed the generator: tests repeat
    theirs."""
    manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def exact_convolutions() -> Iterator[None]:
    """What GPUs compute is compared with what CPUs do: convolutions of float32 are not rounded."""
    _settings.set_float32("conv", "ieee")
    yield
    _settings.set_float32("conv", None)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares `text` with ``tests/golden/<name>.txt``."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.write_text(text + "\n", encoding="utf-8")
            return
        assert path.exists(), (
            f"no {path.name}: run pytest with --update-golden and read what it wrote"
        )
        assert text + "\n" == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code of a test run is its own: what an earlier compiler made is not found. Processes
    that share the tests share it, as those of a user do."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of the run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHTORCH_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(autouse=True)
def every_pass_is_verified() -> Iterator[None]:
    with pipeline.checking_every_pass():
        yield
