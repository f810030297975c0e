"""Adamax, NAdam and RAdam: relatives of Adam.

Formulas: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .adam import exact_betas, with_moments
from .optimizer import (
    Numbers,
    Optimizer,
    ParamsT,
    check,
    check_common,
    gradient,
    moving,
    zero_counter,
    zeros_like,
)


class Adamax(Optimizer):
    """`Adam` with the maximum norm: u = max(beta2 u, |g| + eps); p = p - lr / (1 - beta1^t) m /
    u."""

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        check_common(lr, eps, weight_decay, betas)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"exp_avg": zeros_like(param), "exp_inf": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        step = self.state[params[0]]["step"].add_(1).double()
        beta1 = numbers.exact(lambda: group["betas"][0])
        rate = (numbers.exact(lambda: group["lr"]) / (1 - beta1**step)).to(numbers.dtype)
        new1 = (1 - beta1).to(numbers.dtype)
        beta2 = numbers("beta2", lambda: group["betas"][1])
        eps = numbers("eps", lambda: group["eps"])
        for param in params:
            state = self.state[param]
            grad = gradient(param, group, numbers)
            state["exp_avg"].copy_(moving(state["exp_avg"], grad, new1))
            state["exp_inf"].copy_(
                (beta2 * numbers.wide(state["exp_inf"])).maximum(grad.abs() + eps)
            )
            param.copy_(param - rate * numbers.wide(state["exp_avg"]) / state["exp_inf"])


class NAdam(Optimizer):
    """`Adam` with Nesterov momentum (Dozat 2016)."""

    counters = ("step", "mu_product")

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        check_common(lr, eps, weight_decay, betas)
        check("momentum_decay value", momentum_decay, momentum_decay >= 0.0)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )

    def _new_counter(self, name: str, group: dict[str, Any]) -> Tensor:
        return zero_counter(1.0 if name == "mu_product" else 0.0)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        shared = self.state[params[0]]
        step = shared["step"].add_(1).double()
        beta1, beta2 = exact_betas(group, numbers)
        lr = numbers.exact(lambda: group["lr"])
        decay = numbers.exact(lambda: group["momentum_decay"])
        base = numbers.exact(lambda: 0.96)
        mu, mu_next = (beta1 * (1 - 0.5 * base ** (t * decay)) for t in (step, step + 1))
        product = shared["mu_product"].copy_(shared["mu_product"].double() * mu).double()
        on_grad = (lr * (1 - mu) / (1 - product)).to(numbers.dtype)
        on_average = (lr * mu_next / (1 - product * mu_next)).to(numbers.dtype)
        correction = (1 - beta2**step).to(numbers.dtype)
        eps = numbers("eps", lambda: group["eps"])
        for param, grad, kept in with_moments(self, group, params, numbers, beta1, beta2):
            state = self.state[param]
            spread = (state["exp_avg_sq"] / correction).sqrt() + eps
            param.copy_(
                kept
                - on_grad * grad / spread
                - on_average * numbers.wide(state["exp_avg"]) / spread
            )


class RAdam(Optimizer):
    """`Adam` whose adaptive rate starts once its variance can be rectified (Liu et al. 2019)."""

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        check_common(lr, eps, weight_decay, betas)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "decoupled_weight_decay": decoupled_weight_decay,
                "differentiable": differentiable,
            },
        )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        step = self.state[params[0]]["step"].add_(1).double()
        beta1, beta2 = exact_betas(group, numbers)
        correction2 = 1 - beta2**step
        adaptive, factor = _rectification(step, beta2, correction2)
        rate = (numbers.exact(lambda: group["lr"]) / (1 - beta1**step)).to(numbers.dtype)
        factor = (factor * correction2.sqrt()).to(numbers.dtype)
        eps = numbers("eps", lambda: group["eps"])
        for param, _, kept in with_moments(self, group, params, numbers, beta1, beta2):
            state = self.state[param]
            scale = FUNCTIONS["where"](adaptive, factor / (state["exp_avg_sq"].sqrt() + eps), 1.0)
            param.copy_(kept - rate * numbers.wide(state["exp_avg"]) * scale)


def _rectification(step: Tensor, beta2: Tensor, correction2: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the variance is tractable (rho > 5), and the rectification factor then (else 1)."""
    limit = 2 / (1 - beta2) - 1
    rho = limit - 2 * step * (1 - correction2) / correction2
    adaptive = rho > 5
    safe = FUNCTIONS["where"](adaptive, rho, 6.0)
    ratio = (safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe)
    return adaptive, FUNCTIONS["where"](adaptive, ratio, 1.0).sqrt()
