"""Helpers around tensors and modules: data loading, hooks."""

from __future__ import annotations

from .._torch.absent import attribute_of

__getattr__ = attribute_of(
    __name__,
    {
        "_pytree",
        "benchmark",
        "checkpoint",
        "data",
        "dlpack",
        "flop_counter",
        "model_zoo",
        "tensorboard",
    },
    {"swap_tensors": ".swapping"},
)
