"""Queries about NVIDIA GPUs. This version of graphtorch runs on CPUs; the answers say so truthfully."""

from __future__ import annotations

from typing import Any, NoReturn


def _no_gpu(what: str) -> NoReturn:
    raise RuntimeError(
        f"torch.cuda.{what}: no CUDA device is available to graphtorch; use device='cpu', or guard the "
        "call with torch.cuda.is_available()"
    )


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
    """Raises RuntimeError: there is nothing to initialise."""
    _no_gpu("init")


def current_device() -> int:
    """Raises RuntimeError: there is no device."""
    _no_gpu("current_device")


def get_device_name(device: Any = None) -> str:
    """Raises RuntimeError: there is no device."""
    _no_gpu("get_device_name")


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Raises RuntimeError: there is no device."""
    _no_gpu("get_device_capability")


def get_device_properties(device: Any = None) -> Any:
    """Raises RuntimeError: there is no device."""
    _no_gpu("get_device_properties")


def set_device(device: Any) -> None:
    """Raises RuntimeError: there is no device."""
    _no_gpu("set_device")


def synchronize(device: Any = None) -> None:
    """Raises RuntimeError: there is no device to wait for."""
    _no_gpu("synchronize")


def empty_cache() -> None:
    """Nothing is cached."""


def memory_allocated(device: Any = None) -> int:
    """Bytes of GPU memory held by tensors."""
    return 0


max_memory_allocated = memory_reserved = max_memory_reserved = memory_cached = max_memory_cached = (
    memory_allocated
)


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
