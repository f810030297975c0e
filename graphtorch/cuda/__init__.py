"""NVIDIA GPUs, as ``torch.cuda``: which there are, and what they are; memory, streams and random
numbers.

GRAPHTORCH_CUDA=emulated offers a device that runs the same kernels on the CPU, slowly, as
``cuda:0``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._deferred.device_storage import DeviceStorage
from .._deferred.door import device_of as _runner
from .._deferred.door import gpus
from .._deferred.failures import OutOfMemoryError
from .._random.generator import on_gpu
from .._torch import absent
from .._torch.legacy import CUDA_TYPES
from .._types import current_gpu as _current
from .._types import gpu as _gpu_of
from . import graphs, random, streams
from ._gpu import device, index_of, no_gpu, place_of
from ._gpu import device_of_tensor as device_of
from .graphs import *  # noqa: F403
from .memory import *  # noqa: F403
from .random import *  # noqa: F403
from .streams import *  # noqa: F403
from .streams import wait_for

__all__ = ["OutOfMemoryError", "device", "device_of", "graphs", "random", "streams"]


def is_available() -> bool:
    """Whether tensors can live on a GPU: CuPy and a driver that answers are there, or the emulated
    device."""
    return gpus() > 0


def is_initialized() -> bool:
    """Whether a tensor was on a GPU yet."""
    return gpus() > 0 and DeviceStorage.used


def device_count() -> int:
    """How many GPUs there are."""
    return gpus()


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether there is a GPU that has bfloat16: every one of capability 8.0, and here any."""
    return gpus() > 0


def is_tf32_supported() -> bool:
    """Whether there is a GPU that has TF32."""
    return gpus() > 0 and get_device_capability() >= (8, 0)


def init() -> None:
    """Get the present GPU ready. Raises AssertionError: there is none."""
    _runner(place_of(None, "init"))


def current_device() -> int:
    """The number of the GPU that "cuda" stands for. Raises AssertionError: there is none."""
    return place_of(None, "current_device").index or 0


def set_device(device: Any) -> None:
    """Let "cuda" stand for another GPU. A negative number changes nothing.

    Raises: AssertionError: there is no GPU. RuntimeError: none of that number.
    """
    index = index_of(device)
    if index < 0:
        return
    if not gpus():
        no_gpu("set_device")
    _gpu_of(index)
    _current.index = index


def get_device_name(device: Any = None) -> str:
    """The name of a GPU. Raises AssertionError: there is none."""
    return _runner(place_of(device, "get_device_name")).properties.name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Major and minor version of what a GPU computes. Raises AssertionError: there is none."""
    return _runner(place_of(device, "get_device_capability")).properties.capability


class DeviceProperties(NamedTuple):
    """What `get_device_properties` gives."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    shared_memory_per_block_optin: int
    L2_cache_size: int
    warp_size: int
    max_threads_per_multi_processor: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, capability, sizes of a GPU. Raises AssertionError: there is none."""
    found = _runner(place_of(device, "get_device_properties")).properties
    major, minor = found.capability
    return DeviceProperties(
        found.name,
        major,
        minor,
        found.memory,
        found.multiprocessors,
        found.shared,
        found.cache,
        found.warp,
        found.threads,
    )


def synchronize(device: Any = None) -> None:
    """Compute all that waits to be computed, and wait for it.

    Raises:
        AssertionError: there is no GPU. IndexError and others: what the data was, in what ran
            before.
    """
    wait_for(place_of(device, "synchronize"))


def get_arch_list() -> list[str]:
    """Architectures that kernels are compiled for: that of each GPU."""
    return [f"sm_{major}{minor}" for major, minor in map(get_device_capability, range(gpus()))]


def get_gencode_flags() -> str:
    """Compiler flags of those architectures."""
    return " ".join(
        f"-gencode compute={a.replace('sm', 'compute')},code={a}" for a in get_arch_list()
    )


def ipc_collect() -> None:
    """Nothing is shared with other processes. Raises AssertionError: there is no device."""
    place_of(None, "ipc_collect")


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether a GPU reads another's memory: none does here. Raises AssertionError: there is no
    device."""
    place_of(device, "can_device_access_peer")
    return False


def current_blas_handle() -> int:
    """Raises: products are computed by our own kernels, there is no handle of a library."""
    place_of(None, "current_blas_handle")
    raise RuntimeError(
        "torch.cuda.current_blas_handle: products are computed by graphtorch's own kernels, "
        "there is no cuBLAS handle"
    )


def get_sync_debug_mode() -> int:
    """0: waiting for the GPU is not reported. Raises AssertionError: there is no device."""
    place_of(None, "get_sync_debug_mode")
    return 0


def set_sync_debug_mode(debug_mode: Any) -> None:
    """Only 0, or "default". Raises RuntimeError: another mode. AssertionError: there is no
    device."""
    place_of(None, "set_sync_debug_mode")
    if debug_mode not in (0, "default"):
        raise RuntimeError(
            "torch.cuda.set_sync_debug_mode: waiting for the GPU is not reported; only the "
            "mode 0 ('default') is there"
        )


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Let programs use all of a GPU's memory: only 1 is taken.

    Raises: AssertionError: there is no device. ValueError: not in [0, 1]. RuntimeError: less than
        1.
    """
    place_of(device, "set_per_process_memory_fraction")
    if not 0 <= fraction <= 1:
        raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    if fraction < 1:
        raise RuntimeError(
            "torch.cuda.set_per_process_memory_fraction: memory has no limit but the GPU's "
            "own; leave the call out, or pass 1.0"
        )


globals().update(CUDA_TYPES)
_other = absent.attribute_of(__name__, {"amp"})


def __getattr__(name: str) -> Any:
    if name == "default_generators":
        return tuple([on_gpu(_gpu_of(i)) for i in range(gpus())])
    return _other(name)
