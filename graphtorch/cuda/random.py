"""Random numbers of GPUs: ``torch.cuda.random``. Each GPU has one global generator, which draws
from Philox.

See https://docs.pytorch.org/docs/stable/cuda.html#random-number-generator
"""

from __future__ import annotations

from typing import Any

from .._deferred.door import gpus
from .._deferred.tensor import Tensor
from .._random import generator as _generator
from .._types import gpu
from ._gpu import place_of

__all__ = [
    "get_rng_state",
    "get_rng_state_all",
    "initial_seed",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "seed_all",
    "set_rng_state",
    "set_rng_state_all",
]


def manual_seed(seed: int) -> None:
    """Start the present GPU's stream of `seed`; without a GPU it waits for one."""
    if gpus():
        _generator.on_gpu(gpu()).manual_seed(seed)
    else:
        _generator.seed_gpus(seed)


def manual_seed_all(seed: int) -> None:
    """Start all GPUs' streams of `seed`."""
    _generator.seed_gpus(seed)


def seed() -> None:
    """Start a stream of the present GPU that cannot be foreseen; without a GPU, nothing."""
    if gpus():
        _generator.on_gpu(gpu()).seed()


def seed_all() -> None:
    """Start streams of all GPUs that cannot be foreseen: the same for each."""
    if gpus():
        _generator.seed_gpus(_generator.on_gpu(gpu(0)).seed())


def initial_seed() -> int:
    """The seed of the present GPU's stream. Raises AssertionError: there is no device."""
    return _generator.on_gpu(place_of(None, "initial_seed")).initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of a GPU's stream, a byte tensor on the CPU. Raises AssertionError: there is no
    device."""
    return _generator.on_gpu(place_of(device, "get_rng_state")).get_state()


def get_rng_state_all() -> list[Tensor]:
    """The states of all GPUs' streams."""
    return [get_rng_state(i) for i in range(gpus())]


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Continue a GPU's stream where `get_rng_state` was called; without a GPU, nothing."""
    if gpus():
        _generator.on_gpu(place_of(device, "set_rng_state")).set_state(new_state)


def set_rng_state_all(new_states: Any) -> None:
    """`set_rng_state` for all GPUs."""
    for i, state in enumerate(new_states):
        set_rng_state(state, i)
