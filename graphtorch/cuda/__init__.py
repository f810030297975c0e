"""Queries about NVIDIA GPUs. This version of graphtorch runs on CPUs; the answers say so truthfully."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any, NoReturn

from .._deferred.tensor import Tensor
from .._torch import absent
from .._torch.legacy import CUDA_TYPES
from .._types import device as _device


def _no_gpu(what: str) -> NoReturn:
    raise AssertionError(
        f"Torch not compiled with CUDA enabled: torch.cuda.{what} has no device; use device='cpu', or guard "
        "the call with torch.cuda.is_available()"
    )


class OutOfMemoryError(RuntimeError):
    """A GPU has not enough memory; never raised here."""


def is_available() -> bool:
    """Whether tensors can live on a GPU: not in this version."""
    return False


def is_initialized() -> bool:
    return False


def device_count() -> int:
    return 0


def is_bf16_supported(including_emulation: bool = True) -> bool:
    return False


def init() -> None:
    """Raises AssertionError: there is nothing to initialise."""
    _no_gpu("init")


def current_device() -> int:
    """Raises AssertionError: there is no device."""
    _no_gpu("current_device")


def get_device_name(device: Any = None) -> str:
    """Raises AssertionError: there is no device."""
    _no_gpu("get_device_name")


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Raises AssertionError: there is no device."""
    _no_gpu("get_device_capability")


def get_device_properties(device: Any = None) -> Any:
    """Raises AssertionError: there is no device."""
    _no_gpu("get_device_properties")


def set_device(device: Any) -> None:
    """Raises AssertionError: there is no device. A negative number changes nothing, as in PyTorch."""
    index = device if isinstance(device, int) else _cuda_index(device)
    if index >= 0:
        _no_gpu("set_device")


def _cuda_index(given: Any) -> int:
    found = given if isinstance(given, _device) else _device(given)
    if found.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {found}")
    return found.index or 0


def synchronize(device: Any = None) -> None:
    """Raises AssertionError: there is no device to wait for."""
    _no_gpu("synchronize")


def empty_cache() -> None:
    """Nothing is cached."""


def memory_allocated(device: Any = None) -> int:
    """Bytes of GPU memory held by tensors."""
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated


def memory_cached(device: Any = None) -> int:
    """As `memory_reserved` (deprecated)."""
    warnings.warn("`torch.cuda.memory_cached` has been renamed to `torch.cuda.memory_reserved`",
                  FutureWarning, stacklevel=2)
    return memory_reserved(device)


def max_memory_cached(device: Any = None) -> int:
    """As `max_memory_reserved` (deprecated)."""
    warnings.warn("`torch.cuda.max_memory_cached` has been renamed to `torch.cuda.max_memory_reserved`",
                  FutureWarning, stacklevel=2)
    return max_memory_reserved(device)


def memory_stats(device: Any = None) -> OrderedDict[str, Any]:
    """Nothing is counted."""
    return OrderedDict()


def reset_peak_memory_stats(device: Any = None) -> None:
    """Nothing is counted."""


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def manual_seed(seed: int) -> None:
    """Seeds the GPU's generator: without one, nothing. `torch.manual_seed` seeds the CPU's."""
    int(seed)


manual_seed_all = manual_seed


def seed() -> None:
    """Without a GPU, nothing."""


seed_all = seed


def get_arch_list() -> list[str]:
    """Architectures that kernels were compiled for."""
    return []


def get_gencode_flags() -> str:
    """Compiler flags of those architectures."""
    return ""


def _absent_device(name: str) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        _no_gpu(name)

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = "Raises AssertionError: there is no device."
    return refuse


initial_seed, get_rng_state, ipc_collect, mem_get_info, current_stream, default_stream = map(
    _absent_device,
    ("initial_seed", "get_rng_state", "ipc_collect", "mem_get_info", "current_stream", "default_stream"))
can_device_access_peer, current_blas_handle, get_sync_debug_mode, set_sync_debug_mode = map(
    _absent_device,
    ("can_device_access_peer", "current_blas_handle", "get_sync_debug_mode", "set_sync_debug_mode"))
set_per_process_memory_fraction = _absent_device("set_per_process_memory_fraction")


def get_rng_state_all() -> list[Tensor]:
    """The states of all devices' generators: there are none."""
    return []


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Without a GPU, nothing."""


def set_rng_state_all(new_states: Any) -> None:
    """Without a GPU, nothing."""


class Stream:
    """A queue of work on a GPU. Raises RuntimeError: there is none."""

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any):
        raise RuntimeError("torch.cuda.Stream requires CUDA support, and there is no GPU")


class stream:
    """``with torch.cuda.stream(s):`` puts work into a stream; None changes nothing, and there is no other."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


class Event:
    """A mark in a stream. Raises RuntimeError: there is no GPU."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        raise RuntimeError("Tried to instantiate dummy base class Event: there is no GPU; measure time with "
                           "time.perf_counter()")


class device:
    """``with torch.cuda.device(i):`` makes a GPU the present one. A negative number, or None, changes
    nothing."""

    def __init__(self, device: Any):
        self.idx = -1 if device is None else device if isinstance(device, int) else _cuda_index(device)

    def __enter__(self) -> None:
        if self.idx >= 0:
            raise RuntimeError(f"PyTorch was compiled without CUDA support: there is no GPU {self.idx}")

    def __exit__(self, *exc: object) -> None:
        pass


class device_of(device):
    """``with torch.cuda.device_of(tensor):`` makes the tensor's GPU the present one; on CPUs nothing."""

    def __init__(self, obj: Any):
        super().__init__(-1)


_NO_GPU = "there is no GPU; guard what needs one with torch.cuda.is_available()"
CUDAGraph = absent.class_without_instances("CUDAGraph", "torch.cuda", "Recorded work of a GPU.", _NO_GPU)
StreamContext = absent.class_without_instances("StreamContext", "torch.cuda", "Work on a stream.", _NO_GPU)
graph = absent.class_without_instances("graph", "torch.cuda", "Records work of a GPU.", _NO_GPU)
default_generators: tuple[Any, ...] = ()  # one a GPU


def is_current_stream_capturing() -> bool:
    """Whether work of a GPU is being recorded: never."""
    return False


globals().update(CUDA_TYPES)
__getattr__ = absent.attribute_of(__name__, {"amp"})
