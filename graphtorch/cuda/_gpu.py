"""Which GPU an argument means, and what it is."""

from __future__ import annotations

from typing import Any, NoReturn

from .._deferred.door import Device, device_of, gpus
from .._deferred.tensor import Tensor
from .._types import current_gpu, gpu
from .._types import device as _device


def no_gpu(what: str) -> NoReturn:
    """Raises AssertionError, as PyTorch where it was built without CUDA."""
    raise AssertionError(
        f"Torch not compiled with CUDA enabled: torch.cuda.{what} has no device; use device='cpu', "
        "or guard the call with torch.cuda.is_available()"
    )


def index_of(given: Any) -> int:
    """The number of a GPU: of a device, its name or number; None is the present one.

    Raises: ValueError: a device of another kind.
    """
    if isinstance(given, int):
        return given
    if given is None:
        return current_gpu.index
    found = given if isinstance(given, _device) else _device(given)
    if found.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {found}")
    return current_gpu.index if found.index is None else found.index


def place_of(given: Any, what: str) -> _device:
    """The GPU that `given` means. Raises: AssertionError: there is none; `what` asked for it."""
    if not gpus():
        no_gpu(what)
    return gpu(index_of(given))


def runner_of(given: Any, what: str) -> Device:
    """What runs programs on the GPU that `given` means. Raises: as `place_of`."""
    return device_of(place_of(given, what))


class device:
    """``with torch.cuda.device(i):`` makes a GPU the present one. A negative number, or None,
    changes nothing."""

    def __init__(self, device: Any):
        self.idx = -1 if device is None else index_of(device)

    def __enter__(self) -> None:
        if self.idx < 0:
            return
        if not gpus():
            raise RuntimeError(
                f"PyTorch was compiled without CUDA support: there is no GPU {self.idx}"
            )
        gpu(self.idx)
        self._before, current_gpu.index = current_gpu.index, self.idx

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            current_gpu.index = self._before


class device_of_tensor(device):
    """``with torch.cuda.device_of(tensor):`` makes the tensor's GPU the present one; on CPUs
    nothing."""

    def __init__(self, obj: Any):
        super().__init__(obj.device if isinstance(obj, Tensor) and obj.is_cuda else None)


device_of_tensor.__name__ = device_of_tensor.__qualname__ = "device_of"
