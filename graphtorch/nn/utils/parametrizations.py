"""Ready parametrizations: weight and spectral normalisation, orthogonal matrices."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from ...autograd import no_grad
from ..functional import normalize
from ..modules import Module
from . import parametrize
from .orthogonal import orthogonal as orthogonal
from .spectral_norm import as_matrix, default_dim, iterate, start_vectors
from .weight_norm import norm_except_dim, weight_of


class _WeightNorm(Module):
    """(g, v) -> g * v / ||v||."""

    def __init__(self, dim: int | None = 0):
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_of(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Split ``module.<name>`` into norms along `dim` (``original0``) and a direction
    (``original1``).

    The keys ``<name>_g`` and ``<name>_v`` of the older `weight_norm` are understood by
    ``load_state_dict``.
    """
    parametrize.register_parametrization(module, name, _WeightNorm(dim), unsafe=True)
    place = f"parametrizations.{name}.original"
    old = {f"{name}_g": place + "0", f"{name}_v": place + "1"}

    def rename(state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if all(prefix + key in state_dict for key in old):
            for key, new in old.items():
                state_dict[prefix + new] = state_dict.pop(prefix + key)

    module._register_load_state_dict_pre_hook(rename)
    return module


class _SpectralNorm(Module):
    """w -> w / sigma(w); the singular vectors are buffers, refined in training mode."""

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ):
        super().__init__()
        if dim >= weight.ndim or dim < -weight.ndim:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [-{weight.ndim}, "
                f"{weight.ndim - 1}] but got {dim})"
            )
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but got "
                f"n_power_iterations={n_power_iterations}"
            )
        self.dim = dim % weight.ndim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            with no_grad():
                matrix = as_matrix(weight, self.dim)
                u, v = start_vectors(matrix, eps)
                v, u = iterate(matrix.t(), v, u, 15, eps)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            with no_grad():
                v, u = iterate(matrix.t(), self._v, self._u, self.n_power_iterations, self.eps)
                self._u.copy_(u)
                self._v.copy_(v)
        u, v = self._u.clone(), self._v.clone()
        return weight / FUNCTIONS["vdot"](u, FUNCTIONS["mv"](matrix, v))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value  # not an inverse: the largest singular value of what is assigned is lost


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """Divide ``module.<name>`` by its largest singular value, estimated by power iteration.

    Raises: ValueError where the module has no such parameter or buffer.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    made = _SpectralNorm(
        weight, n_power_iterations, default_dim(module) if dim is None else dim, eps
    )
    return parametrize.register_parametrization(module, name, made)
