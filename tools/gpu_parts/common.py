"""What the parts share: arrays that are ours and PyTorch's, time by events, choice of cases."""

from __future__ import annotations

import fnmatch
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from graphtorch.backends.gpu import devices
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.device import Device, DeviceError
from graphtorch.ir.dtype import DType

Row = dict[str, Any]
Case = tuple[str, Callable[[], Row]]
BATCH_SECONDS = 0.04  # of calls between two events
BATCHES = 7
PEER = "peer "  # begins the names of cases that are PyTorch's alone
# of the largest number
TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 4e-3, "bf16": 2e-2, "tf32": 4e-3, "i64": 0.0}
LONG = 1.0  # seconds: a call that takes so long is not repeated


X = TypeVar("X")


class Broken(Exception):
    """The GPU cannot be used any more by this process."""


def selected(cases: Iterable[tuple[str, X]], patterns: Sequence[str]) -> Iterator[tuple[str, X]]:
    """Those whose names match one of the patterns, all where there are none."""
    for name, case in cases:
        if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns):
            yield name, case


def say(text: str) -> None:
    """A line on the standard output, in one piece whichever threads write."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def on_gpu() -> bool:
    return devices.device().stream != 0


def guarded(call: Callable[[], Row]) -> Row:
    """A case's row. Raises: Broken: where the device does not answer after it."""
    try:
        return call()
    except DeviceError as error:
        try:
            devices.device().synchronize()
        except DeviceError:
            raise Broken(str(error).replace("\n", " | ")[:300]) from error
        raise


# ------------------------------------------------------------------------------------------ arrays


class Holder:
    """An owner of memory on the device, as PyTorch and as DeviceBuffer take one."""

    def __init__(
        self, address: int, size: int, owner: object, interface: dict[str, Any] | None = None
    ):
        self.address = address
        self.size = size
        self.owner = owner
        if interface is not None:
            self.__cuda_array_interface__ = interface


def ours(tensor: Any) -> DeviceBuffer:
    """A contiguous tensor of PyTorch's as a buffer: the same memory, or a copy on the emulated
    device."""
    device, dtype = devices.device(), DType.named(NAMES[str(tensor.dtype)])
    if on_gpu():
        size = tensor.numel() * tensor.element_size()
        return DeviceBuffer(
            device,
            dtype,
            tuple(tensor.shape),
            Holder(tensor.data_ptr(), size, tensor),
            tensor.data_ptr(),
        )
    bits = tensor.view(TORCH_BITS()[tensor.element_size()]).numpy()
    return DeviceBuffer.of(bits.view(dtype.numpy), device)


def theirs(buffer: DeviceBuffer) -> Any:
    """A buffer as a tensor of PyTorch's."""
    import torch

    buffer.device.synchronize()
    dtype = getattr(
        torch, next(t for t, n in NAMES.items() if n == buffer.dtype.name).removeprefix("torch.")
    )
    bits = TORCH_BITS()[buffer.dtype.itemsize]
    if not on_gpu():
        return torch.from_numpy(buffer.numpy().view(f"i{buffer.dtype.itemsize}").copy()).view(dtype)
    interface = {
        "shape": buffer.shape,
        "typestr": f"<i{buffer.dtype.itemsize}",
        "version": 3,
        "data": (buffer.address, False),
        "strides": None,
    }
    tensor = torch.as_tensor(
        Holder(buffer.address, buffer.nbytes, buffer, interface), device="cuda"
    )
    return tensor.view(bits).view(dtype)


NAMES = {
    "torch.float64": "f64",
    "torch.float32": "f32",
    "torch.float16": "f16",
    "torch.bfloat16": "bf16",
    "torch.int64": "i64",
    "torch.int32": "i32",
    "torch.int8": "i8",
    "torch.uint8": "u8",
}


def TORCH_BITS() -> dict[int, Any]:
    import torch

    return {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def torch_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def error_of(mine: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number expected; infinite where NaN
    differs."""
    if mine.shape != expected.shape:
        return float("inf")
    if not mine.size:
        return 0.0
    wide = complex if np.iscomplexobj(expected) else float
    a, b = mine.astype(wide), expected.astype(wide)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        differs = np.where(same, 0.0, np.abs(a - b))
        scale = np.abs(b[np.isfinite(b)]).max(initial=0.0) or 1.0
    return float(np.where(np.isnan(differs), np.inf, differs).max() / scale)


def difference(mine: Any, expected: Any) -> float:
    """The largest difference, relative to the largest number."""
    if mine.shape != expected.shape:
        return math.inf
    a, b = mine.double(), expected.double()
    found = float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))
    return math.inf if math.isnan(found) else found


# ------------------------------------------------------------------------------------------ time


def seconds(call: Callable[[], object], event: Callable[[], Any]) -> float:
    """Median seconds of a call, by the device's clock, after calls that compile and capture.

    Args: event: records an event and returns a function of a later one that waits and gives
        milliseconds.
    """
    first = event()
    call()
    once = first(event()) / 1e3
    if once < LONG:
        call()
        call()
        first = event()
        call()
        once = first(event()) / 1e3
    if once > LONG:
        return once
    count = max(1, min(200, int(BATCH_SECONDS / max(once, 1e-6))))
    found = []
    for _ in range(BATCHES):
        first = event()
        for _ in range(count):
            call()
        found.append(first(event()) / 1e3 / count)
    return statistics.median(found)


def our_event() -> Any:
    """An event of a graphtorch device, for `seconds`."""
    device: Device = devices.device()
    recorded = device.event()
    recorded.record()

    def until(later: Any) -> float:
        later.event.synchronize()
        return recorded.elapsed(later.event)

    until.event = recorded  # type: ignore[attr-defined]
    return until


def torch_event() -> Any:
    """An event of PyTorch's, for `seconds`."""
    import time

    import torch

    if not torch.cuda.is_available():
        start = time.perf_counter()

        def elapsed(later: Any) -> float:
            return float((later.time - start) * 1e3)

        elapsed.time = start  # type: ignore[attr-defined]
        return elapsed
    recorded = torch.cuda.Event(enable_timing=True)
    recorded.record()

    def until(later: Any) -> float:
        later.event.synchronize()
        return float(recorded.elapsed_time(later.event))

    until.event = recorded  # type: ignore[attr-defined]
    return until
