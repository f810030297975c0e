"""A sample of random wrong calls: refused with PyTorch's exception type, and never with a crash or
a hang."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

TOOLS = Path(__file__).parent.parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
fuzz = importlib.import_module("fuzz_errors")
sys.path.remove(str(TOOLS))


def test_wrong_calls_raise_what_pytorch_raises() -> None:
    results = list(fuzz.compare(iter(range(300))))
    raising = [r for r in results if r.expected[0] not in ("ok", "crash", "hang")]
    taken = [r for r in results if r.expected[0] == "ok"]
    differ = [r for r in raising if not r.agrees]
    assert len(raising) > 200 and len(taken) > 30
    assert not [r for r in results if r.got[0] in ("crash", "hang", "InternalError", "VerifyError")]
    assert len(differ) <= 0.05 * len(raising), "\n".join(map(str, differ))
    assert sum(not r.agrees for r in taken) <= 2


def test_calls_are_the_same_for_a_seed_and_hardly_two_alike() -> None:
    calls = [fuzz.wrong_call(seed) for seed in range(200)]
    assert calls == [fuzz.wrong_call(seed) for seed in range(200)] and len(set(calls)) > 190


def test_a_process_that_dies_is_a_crash_and_a_slow_one_a_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fuzz, "LIMIT", 1.0)
    side = fuzz.Side("graphtorch")
    try:
        assert side.ask("__import__('os')._exit(1)")[0] == "crash"
        assert side.ask("__import__('time').sleep(30)")[0] == "hang"
        assert side.ask("torch.zeros(2).foo")[0] == "AttributeError"
    finally:
        side.close()
