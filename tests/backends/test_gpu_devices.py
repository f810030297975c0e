"""Which devices there are, and what a device does for programs: the emulated one, and a GPU through
CuPy.

No GPU is needed: what stands for CuPy (helpers/fake_cupy.py) runs kernels as the emulated device
does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fake_cupy
from graphtorch.backends.buffer import Block, size_class
from graphtorch.backends.gpu import compiler, devices, emulated, nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.device import Device, DeviceError
from graphtorch.backends.gpu.executable import FEWEST_LAUNCHES, Executable
from graphtorch.backends.gpu.pool import Pool, rounded
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32, i64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import symbol
from op_samples import repeated

needs_compiler = pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)


@needs_compiler
def test_the_emulated_device_is_number_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "emulated")
    assert devices.available() and devices.count() == 1
    assert devices.device() is devices.device(0)
    assert devices.device().properties.name == "emulated"
    with pytest.raises(
        RuntimeError, match=r"invalid device ordinal.*no cuda:1, but 1 device, from"
    ):
        devices.device(1)


def test_without_a_gpu_the_error_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_gpus", lambda: 0)
    assert not devices.available() and devices.count() == 0
    with pytest.raises(RuntimeError, match="No CUDA GPUs are available") as caught:
        devices.device()
    assert "graphtorch[cuda13]" in str(caught.value) and "GRAPHTORCH_CUDA=emulated" in str(
        caught.value
    )
    assert "cupy" not in sys.modules


def test_importing_needs_neither_cupy_nor_an_emulator(tmp_path: Path) -> None:
    """Where CuPy is installed as well: it takes a second, and most programs run on the CPU."""
    broken = "raise AssertionError('CuPy is imported')\n"
    (tmp_path / "cupy.py").write_text(broken)
    (tmp_path / "cupy_backends.py").write_text(broken)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import graphtorch as torch, graphtorch.aot\nassert torch.cuda.is_available() in "
        "(False, True)\nprint(torch.ones(3).sum().item(), 'cupy' in sys.modules)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != devices.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("3.0 False\n", "")
    loaded = subprocess.run(
        [sys.executable, "-c", "import graphtorch, sys; print(*sys.modules)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {f"graphtorch.backends.gpu.{m}" for m in ("emulated", "nvrtc", "unit")} & set(loaded)


def test_other_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, "emulate")
    with pytest.raises(RuntimeError, match="expected 'emulated'"):
        devices.count()


# ------------------------------------------------------------------------------------------ memory


class Piece:
    """Memory that is a number."""

    taken = 0

    def __init__(self, size: int):
        Piece.taken += 1
        self.address = Piece.taken << 32


def test_addresses_that_are_wished_for_are_given_where_they_are_free() -> None:
    pool = Pool(Piece)
    first = pool.allocate_all([100, 100, 5000], [()] * 3)
    a, b, c = (m.address for m in first)
    held = first[0]
    del first
    wishes = [(a, b), (a,), (c,)]  # a is in use; b is free, and the second may have any other
    again = pool.allocate_all([100, 100, 5000], wishes)
    assert again[0].address == b and again[2].address == c and again[1].address not in (a, b, c)
    assert held.address == a and len({m.address for m in again}) == 3


def test_memory_that_nobody_holds_is_kept_up_to_a_limit() -> None:
    pool = Pool(Piece, limit=1 << 20)
    held = [pool.allocate(300 << 10) for _ in range(5)]
    size = held[0].size
    held.pop()
    assert pool.statistics.reserved == 5 * size and pool.statistics.allocated == 4 * size
    held.clear()
    assert pool.statistics.allocated == 0 and pool.statistics.reserved <= 1 << 20
    assert pool.statistics.peak_reserved == pool.statistics.peak_allocated == 5 * size


@needs_compiler
def test_memory_in_a_circle_of_objects_is_given_to_one_only() -> None:
    """The collector of garbage finalizes all of a circle; what the pool keeps must not be in it."""
    device = emulated.EmulatedDevice()
    circle: dict[str, Any] = {"memory": device.allocate(100_000)}
    circle["itself"] = circle
    del circle
    gc.collect()
    held = [device.allocate(100_000), Block(size_class(rounded(100_000)))]
    assert held[0].address != held[1].address


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000, 5 << 20, (3 << 30) + 1])
def test_classes_of_sizes(size: int) -> None:
    found = rounded(size)
    assert (
        found >= max(size, 1) and found % 512 == 0 and found <= max(512, size + max(512, size // 8))
    )
    assert rounded(found) == found


# ----------------------------------------------------------------------------------------- programs

CUPY_DEVICE = "graphtorch.backends.gpu.cupy_device"


@pytest.fixture(params=["emulated", "cupy"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    if request.param == "emulated":
        yield emulated.EmulatedDevice()
        return
    for name, module in fake_cupy.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(
        nvrtc, "cubins", lambda texts, architecture, threads: [t.encode() for t in texts]
    )
    monkeypatch.setattr(fake_cupy.machine, "calls", [])
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING", raising=False)
    yield importlib.import_module(CUPY_DEVICE).CupyDevice()
    del sys.modules[CUPY_DEVICE]


ROWS = 6


def step() -> Graph:
    """Some launches: a matrix product's rows, which an output takes over, and a choice among
    them."""
    types = [Type(f32, (ROWS, 5)), Type(f32, (5, 5)), Type(i64, (3,))]
    x, w, places = (Value(t, name=n) for t, n in zip(types, ("x", "w", "places"), strict=True))
    y = ops.softmax(ops.matmul(x, w), dim=1)
    z = ops.cumsum(ops.matmul(y, w), dim=0)
    return Graph("step", [x, w, places], [z, ops.index_select(z, places, dim=0)], donates=[(0, 0)])


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((ROWS, 5)), rng.standard_normal((5, 5))
    return [x.astype(np.float32), w.astype(np.float32), np.array([4, 0, 1])]


def wanted(x: np.ndarray, w: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    e = np.exp(x @ w)
    z = np.cumsum(e / e.sum(1, keepdims=True) @ w, axis=0)
    return [z, z[places]]


def call(executable: Executable, given: list[np.ndarray]) -> list[np.ndarray]:
    return [x.numpy() for x in executable([DeviceBuffer.of(x, executable.device) for x in given])]


@needs_compiler
def test_the_second_call_at_the_same_addresses_is_captured(device: Device) -> None:
    executable = compiler.compile(step(), device)
    given = arrays()
    buffers = [DeviceBuffer.of(x, device) for x in given]
    for _ in range(4):
        device.write(buffers[0].address, given[0].tobytes())
        found = executable(buffers)
        for mine, expected in zip(found, wanted(*given), strict=True):
            np.testing.assert_allclose(mine.numpy(), expected, 1e-5)
        buffers[0] = found[0]
        del found, mine
    (prepared,) = executable._prepared.values()
    assert prepared.whole.launches >= FEWEST_LAUNCHES
    assert prepared.whole.captures == 1 and prepared.whole.replays == 3


@needs_compiler
def test_other_addresses_are_not_captured(device: Device) -> None:
    executable, kept = compiler.compile(step(), device), []
    for _ in range(3):
        kept.append([DeviceBuffer.of(x, device) for x in arrays()])
        kept.append(executable(kept[-1]))
    (prepared,) = executable._prepared.values()
    assert prepared.whole.captures == 0
    np.testing.assert_allclose(kept[-1][0].numpy(), wanted(*arrays())[0], 1e-5)


def weighed() -> Graph:
    """Rows of any number by a matrix that is computed of weights alone."""
    x = Value(Type(f32, (symbol("rows"), 5)), name="x")
    w, s = Value(Type(f32, (5, 5)), name="w"), Value(Type(f32, (5, 1)), name="s")
    made = ops.softmax(ops.mul(w, ops.rsqrt(s)), dim=0)
    return Graph("weighed", [x, w, s], [ops.tanh(ops.matmul(x, made))])


def by_numpy(x: np.ndarray, w: np.ndarray, s: np.ndarray) -> np.ndarray:
    e = np.exp(w / np.sqrt(s))
    return np.tanh(x @ (e / e.sum(0)))


@needs_compiler
def test_what_depends_on_weights_alone_is_kept(device: Device) -> None:
    """Calls with the same weights leave it out, whatever their other sizes; new weights renew it,
    also in the memory that old ones had."""
    executable, rng = compiler.compile(weighed(), device, stable=(1, 2)), np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.uniform(0.5, 2.0, shape).astype(np.float32)

    def weights() -> tuple[list[np.ndarray], list[DeviceBuffer]]:
        made = [numbers(5, 5), numbers(5, 1)]
        return made, [DeviceBuffer.of(a, device) for a in made]

    def called(rows: int) -> bool:
        """Whether a call of so many rows, whose results are right, made anew what is kept."""
        before, x = executable._kept, numbers(rows, 5)
        (found,) = executable([DeviceBuffer.of(x, device), *buffers])
        np.testing.assert_allclose(found.numpy(), by_numpy(x, *arrays), 1e-5, 1e-6)
        return executable._kept is not before

    arrays, buffers = weights()
    assert [called(3), called(3), called(7), called(3)] == [True, False, False, False]
    for prepared in executable._prepared.values():
        assert 0 < prepared.rest.launches < prepared.whole.launches
    addresses = set()
    for _ in range(4):
        addresses |= {b.address for b in buffers}
        del buffers
        arrays, buffers = weights()
        assert called(3) and not called(3)
    assert addresses & {b.address for b in buffers}
    arrays[1] = numbers(5, 1)
    buffers[1] = DeviceBuffer.of(arrays[1], device)
    assert called(3) and not called(7)


@needs_compiler
def test_an_error_of_the_data_waits_for_a_synchronisation(device: Device) -> None:
    executable = compiler.compile(step(), device)
    x, w, _ = arrays()
    call(executable, [x, w, np.array([4, 0, 1])])
    executable([DeviceBuffer.of(a, device) for a in (x, w, np.array([4, ROWS, 1]))])
    with pytest.raises(IndexError, match="index_select"):
        device.synchronize()
    device.synchronize()  # it is said once, and the device is as usable as before
    np.testing.assert_allclose(call(executable, arrays())[1], wanted(*arrays())[1], 1e-5)


@needs_compiler
def test_what_depends_on_memory_is_walked_at_each_call(device: Device) -> None:
    sample = repeated()
    executable = compiler.compile(sample.graph(), device)
    for limit in (4, 0, 7):
        x = sample.arrays[0]
        found = call(executable, [x, *sample.arrays[1:-1], np.int64(limit)])
        for _ in range(limit):
            x = x * np.sin(x)
        np.testing.assert_allclose(found[0], x, 1e-5)
        assert found[1] == limit
    assert all(prepared.whole.series is None for prepared in executable._prepared.values())


@needs_compiler
def test_memory_is_counted(device: Device) -> None:
    before = device.statistics()
    held = device.allocate(1000)
    assert held.size >= 1000
    assert device.statistics().allocated == before.allocated + held.size
    size = held.size
    del held
    after = device.statistics()
    assert after.allocated == before.allocated and after.peak_allocated == before.allocated + size
    device.reset_peaks()
    assert device.statistics().peak_allocated == before.allocated
    free, total = device.memory_info()
    assert 0 < free <= total


@needs_compiler
def test_too_much_memory_is_refused_as_pytorch_does(device: Device) -> None:
    with pytest.raises(MemoryError, match=r"CUDA out of memory\. Tried to allocate"):
        device.allocate(1 << 50)


@needs_compiler
def test_copies(device: Device) -> None:
    data = bytes(range(200))
    a, b = device.allocate(200), device.allocate(200)
    device.write(a.address, memoryview(data))
    device.clear(b.address, 200)
    device.copy(b.address + 50, a.address, 100)
    assert device.read(b.address, 200) == bytes(50) + data[:100] + bytes(50)
    pinned = device.pinned(200)
    event = device.event()
    device.download(pinned.address, a.address, 200, held=pinned)
    event.record()
    event.synchronize()
    assert event.done() and ctypes.string_at(pinned.address, 200) == data
    later = device.event()
    later.record()
    later.synchronize()
    assert event.elapsed(later) >= 0


@needs_compiler
@pytest.mark.parametrize("device", ["cupy"], indirect=True)
def test_a_fault_names_the_kernels_it_may_come_from(device: Any) -> None:
    call(executable := compiler.compile(step(), device), arrays())
    executable([DeviceBuffer.of(x, device) for x in arrays()])
    fake_cupy.machine.fault = "cudaErrorIllegalAddress: an illegal memory access was encountered"
    with pytest.raises(
        DeviceError, match=r"illegal memory access.*CUDA_LAUNCH_BLOCKING=1"
    ) as caught:
        device.synchronize()
    assert re.search(r"kernels launched since the last synchronisation: k_\w+", str(caught.value))


@needs_compiler
@pytest.mark.parametrize("device", ["cupy"], indirect=True)
def test_a_gpu_is_asked_for_its_properties(device: Any) -> None:
    assert device.properties.capability == (9, 0) and device.properties.shared == 232448
    assert device.properties.name == "Pretended GPU" and device.properties.multiprocessors == 132
    executable = compiler.compile(step(), device)
    assert set(executable.module.resources().values()) == {(32, 0)}
