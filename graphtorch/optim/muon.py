"""Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/).

https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._types import DTYPES
from .optimizer import Numbers, Optimizer, ParamsT, check_common, moving, zeros_like

LR_ADJUSTMENTS = (None, "original", "match_rms_adamw")


class Muon(Optimizer):
    """Momentum, then a Newton-Schulz iteration that brings the update of a matrix near an
    orthogonal one.

    Args:
        params: matrices only; use `AdamW` for biases and embeddings.
        ns_coefficients: (a, b, c) of X <- a X + (b S + c S^2) X with S = X X^T, run `ns_steps`
            times in bf16.
        adjust_lr_fn: "original" (also None) scales the rate by sqrt(max(1, rows / columns)),
            "match_rms_adamw" by 0.2 sqrt(max(rows, columns)).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        for name, value in (
            ("Learning rate", lr),
            ("momentum", momentum),
            ("weight decay", weight_decay),
        ):
            if not isinstance(value, Tensor) and value < 0.0:
                raise ValueError(f"{name} should be >= 0 but is: {value}")
        check_common(eps=eps)
        if adjust_lr_fn not in LR_ADJUSTMENTS:
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            },
        )
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(
                        "Muon only supports 2D parameters whereas we found a parameter with "
                        f"size: {p.shape}"
                    )

    def _check_grad(self, param: Tensor) -> None:
        if param.is_complex():
            raise RuntimeError("Muon does not support complex parameters")
        super()._check_grad(param)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"momentum_buffer": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        momentum = numbers("momentum", lambda: group["momentum"])
        new = numbers("1-momentum", lambda: 1 - group["momentum"])
        shrink = numbers("shrink", lambda: 1 - group["lr"] * group["weight_decay"])
        lr = numbers.exact(lambda: group["lr"])
        for param in params:
            grad: Any = param.grad
            buffer = self.state[param]["momentum_buffer"]
            buffer.copy_(moving(numbers.wide(buffer), grad, new))
            update = moving(grad, buffer, momentum) if group["nesterov"] else buffer
            rate = (lr * _ratio(group["adjust_lr_fn"], *param.shape)).to(numbers.dtype)
            step = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            param.copy_(numbers.wide(param) * shrink - rate * numbers.wide(step))


def _ratio(adjust: str | None, rows: int, columns: int) -> float:
    if adjust == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    return max(1.0, rows / columns) ** 0.5


def orthogonalized(
    update: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Any:
    """Newton-Schulz iterations on a matrix [m, n]; each product is rounded to bf16 as PyTorch does.

    Raises ValueError for 100 steps or more, or not three coefficients.
    """
    if steps >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if len(coefficients) != 3:
        raise ValueError("Coefficients must be a tuple of exactly 3 values")
    a, b, c = coefficients
    tall = update.shape[0] > update.shape[1]
    x = _rounded(update.detach())
    x = x.T if tall else x
    x = _rounded(x / _rounded(x.norm()).clamp(min=eps))
    for _ in range(steps):
        gram = _rounded(x @ x.T)
        gram = _rounded(b * gram + c * (gram @ gram))
        x = _rounded(a * x + gram @ x)
    return x.T if tall else x


def _rounded(t: Tensor) -> Any:
    """Rounded to bf16, in f32 for further arithmetic."""
    return t.to(DTYPES["bfloat16"]).to(DTYPES["float32"])
