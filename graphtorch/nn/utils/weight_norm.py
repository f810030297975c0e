"""Weight normalisation by a hook: w = g * v / ||v||. `parametrizations.weight_norm` is its
successor.

T. Salimans, D. P. Kingma: Weight Normalization, https://arxiv.org/abs/1602.07868
"""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ..._settings import warn_user
from ..modules import Module
from ..parameter import Parameter


def norm_except_dim(v: Tensor, pow: int = 2, dim: int | None = 0) -> Tensor:
    """The norm of each slice of `v` along `dim`, kept as size 1; of all elements for -1 or None."""
    if dim is None or dim == -1:
        return v.norm(pow)
    kept = dim % v.ndim
    return (
        FUNCTIONS["norm"](v, pow, [d for d in range(v.ndim) if d != kept], True)
        if v.ndim > 1
        else v.abs()
    )


def weight_of(v: Tensor, g: Tensor, dim: int | None) -> Tensor:
    """g * v / ||v||."""
    return v * (g / norm_except_dim(v, 2, dim))


class WeightNorm:
    """The forward pre-hook that computes a module's weight from ``<name>_g`` and ``<name>_v``."""

    def __init__(self, name: str, dim: int | None):
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Tensor:
        return weight_of(
            getattr(module, self.name + "_v"), getattr(module, self.name + "_g"), self.dim
        )

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Replace the parameter `name` by its norms along `dim` (``<name>_g``) and a direction
    (``<name>_v``).

    Raises: RuntimeError where it is so already.
    """
    warn_user(
        "`torch.nn.utils.weight_norm` is deprecated in favor of "
        "`torch.nn.utils.parametrizations.weight_norm`.",
        FutureWarning,
    )
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            raise RuntimeError(
                f"Cannot register two weight_norm hooks on the same parameter {name}"
            )
    made = WeightNorm(name, dim)
    weight = getattr(module, name)
    del module._parameters[name]
    module.register_parameter(name + "_g", Parameter(norm_except_dim(weight, 2, made.dim).detach()))
    module.register_parameter(name + "_v", Parameter(weight.detach()))
    setattr(module, name, made.compute_weight(module))
    module.register_forward_pre_hook(made)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make `name` an ordinary parameter again. Raises ValueError where it is one."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm) and hook.name == name:
            weight = hook.compute_weight(module).detach()
            delattr(module, name)
            del module._parameters[name + "_g"], module._parameters[name + "_v"]
            setattr(module, name, Parameter(weight))
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"weight_norm of '{name}' not found in {module}")
