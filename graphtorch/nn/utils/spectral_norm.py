"""Spectral normalisation by a hook: w / sigma(w), with sigma, the largest singular value, by power
iteration.

T. Miyato et al.: Spectral Normalization for GANs, https://arxiv.org/abs/1802.05957
"""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ...autograd import no_grad
from ..functional import normalize
from ..modules import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Module
from ..parameter import Parameter


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """`weight` as a matrix whose rows run along `dim`."""
    if dim:
        weight = weight.permute(dim, *(d for d in range(weight.ndim) if d != dim))
    return weight.reshape(weight.shape[0], -1)


def iterate(matrix: Tensor, u: Tensor, v: Tensor, times: int, eps: float) -> tuple[Tensor, Tensor]:
    """Better estimates of the first left and right singular vectors."""
    for _ in range(times):
        v = normalize(FUNCTIONS["mv"](matrix.t(), u), dim=0, eps=eps)
        u = normalize(FUNCTIONS["mv"](matrix, v), dim=0, eps=eps)
    return u, v


def start_vectors(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Random unit vectors of the two sizes."""
    return tuple(
        normalize(FUNCTIONS["randn"](n, dtype=matrix.dtype, device=matrix.device), dim=0, eps=eps)  # type: ignore
        for n in matrix.shape
    )


def default_dim(module: Module) -> int:
    """Which dim of a weight counts outputs."""
    return int(isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)))


class SpectralNorm:
    """The forward pre-hook that divides ``<name>_orig`` by its largest singular value."""

    def __init__(
        self, name: str = "weight", n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ):
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.name, self.n_power_iterations, self.dim, self.eps = name, n_power_iterations, dim, eps

    def compute_weight(self, module: Module, do_power_iteration: bool) -> Tensor:
        weight: Tensor = getattr(module, self.name + "_orig")
        u, v = getattr(module, self.name + "_u"), getattr(module, self.name + "_v")
        matrix = as_matrix(weight, self.dim)
        if do_power_iteration:
            with no_grad():
                new_u, new_v = iterate(matrix, u, v, self.n_power_iterations, self.eps)
                u.copy_(new_u)
                v.copy_(new_v)
                u, v = u.clone(), v.clone()
        return weight / FUNCTIONS["dot"](u, FUNCTIONS["mv"](matrix, v))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, module.training))


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """Divide the parameter `name` by its largest singular value in every call.

    Each call in training mode does `n_power_iterations` steps of the power iteration. `dim` is the
    dim of outputs: 0, or 1 for transposed convolutions. Raises RuntimeError where it is so already.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            raise RuntimeError(
                f"Cannot register two spectral_norm hooks on the same parameter {name}"
            )
    made = SpectralNorm(name, n_power_iterations, default_dim(module) if dim is None else dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    with no_grad():
        u, v = start_vectors(as_matrix(weight, made.dim), eps)
    delattr(module, name)
    module.register_parameter(name + "_orig", weight)
    setattr(module, name, weight.detach())  # for code that reads it before the first call
    module.register_buffer(name + "_u", u)
    module.register_buffer(name + "_v", v)
    module.register_forward_pre_hook(made)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make `name` an ordinary parameter again, normalised as it is now. Raises ValueError where it
    is one."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, SpectralNorm) and hook.name == name:
            with no_grad():
                weight = hook.compute_weight(module, False)
            for suffix in ("", "_u", "_v", "_orig"):
                delattr(module, name + suffix)
            module.register_parameter(name, Parameter(weight.detach()))
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"spectral_norm of '{name}' not found in {module}")
