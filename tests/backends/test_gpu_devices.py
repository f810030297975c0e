"""Which devices there are, and what a device does for programs; on the emulated one."""

from __future__ import annotations

import sys

import pytest

from graphtorch.backends.gpu import devices, emulated

needs_compiler = pytest.mark.skipif(emulated.compiler() is None,
                                    reason="the emulated CUDA device needs a C++ compiler")


@needs_compiler
def test_the_emulated_device_is_number_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "emulated")
    assert devices.available() and devices.count() == 1
    assert devices.device() is devices.device(0)
    assert devices.device().properties.name == "emulated"
    with pytest.raises(RuntimeError, match=r"invalid device ordinal.*no cuda:1, but 1 device, from"):
        devices.device(1)


def test_without_a_gpu_the_error_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_gpus", lambda: 0)
    assert not devices.available() and devices.count() == 0
    with pytest.raises(RuntimeError, match="No CUDA GPUs are available") as caught:
        devices.device()
    assert "graphtorch[cuda13]" in str(caught.value) and "GRAPHTORCH_CUDA=emulated" in str(caught.value)
    assert "cupy" not in sys.modules


def test_other_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "emulate")
    with pytest.raises(RuntimeError, match="expected 'emulated'"):
        devices.count()
