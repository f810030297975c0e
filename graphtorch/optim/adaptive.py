"""Adagrad, RMSprop, Adadelta and Rprop: a rate for each element.

Formulas: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .optimizer import (
    Numbers,
    Optimizer,
    ParamsT,
    check,
    check_common,
    gradient,
    moving,
    zeros_like,
)


class Adagrad(Optimizer):
    """s = s + g^2; p = p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps) (Duchi et al. 2011)."""

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        check_common(lr=lr, weight_decay=weight_decay)
        check("lr_decay value", lr_decay, lr_decay >= 0.0)
        check(
            "initial_accumulator_value value",
            initial_accumulator_value,
            initial_accumulator_value >= 0.0,
        )
        check("epsilon value", eps, eps >= 0.0)
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "eps": eps,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "fused": fused,
            },
        )
        for group in self.param_groups:  # PyTorch makes this optimizer's state at once
            shared = self._new_counter("step", group)
            for param in group["params"]:
                self.state[param] = {"step": shared, **self._new_state(param, group)}

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"sum": zeros_like(param).fill_(group["initial_accumulator_value"])}

    def share_memory(self) -> None:
        """Move the sums to shared memory; see ``Tensor.share_memory_``."""
        for state in self.state.values():
            state["sum"].share_memory_()

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        step = self.state[params[0]]["step"].add_(1).double()
        decay = numbers.exact(lambda: group["lr_decay"])
        rate = (numbers.exact(lambda: group["lr"]) / (1 + (step - 1) * decay)).to(numbers.dtype)
        eps = numbers("eps", lambda: group["eps"])
        for param in params:
            total = self.state[param]["sum"]
            if param.grad.is_sparse:  # type: ignore[union-attr]
                self._update_rows(group, param, total, rate, eps, numbers)
                continue
            grad = gradient(param, group, numbers)
            total.copy_(total + grad * grad)
            param.copy_(param - rate * grad / (total.sqrt() + eps))

    def _check_grad(self, param: Tensor) -> None:
        pass  # sparse gradients are welcome

    @staticmethod
    def _update_rows(
        group: dict[str, Any],
        param: Tensor,
        total: Tensor,
        rate: Tensor,
        eps: Tensor,
        numbers: Numbers,
    ) -> None:
        """The update of the entries that a sparse gradient has."""
        if group["weight_decay"] != 0:
            raise RuntimeError("weight_decay option is not compatible with sparse gradients")
        grad: Any = gradient(param, group, numbers, decay=False)
        grad = grad.coalesce()
        rows, g = tuple(grad.indices().unbind(0)), grad.values()
        new = total[rows] + g * g
        total.index_put_(rows, new.to(total.dtype))
        param.index_put_(rows, (param[rows] - rate * g / (new.sqrt() + eps)).to(param.dtype))


class RMSprop(Optimizer):
    """v = alpha v + (1 - alpha) g^2; p = p - lr g / (sqrt(v) + eps); `centered` subtracts the mean
    of g."""

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check_common(lr, eps)
        check("momentum value", momentum, momentum >= 0.0)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        check("alpha value", alpha, alpha >= 0.0)
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "alpha": alpha,
                "eps": eps,
                "centered": centered,
                "weight_decay": weight_decay,
                "capturable": capturable,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
            },
        )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        wanted = {
            "square_avg": True,
            "momentum_buffer": group["momentum"] > 0,
            "grad_avg": group["centered"],
        }
        return {name: zeros_like(param) for name, use in wanted.items() if use}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        self.state[params[0]]["step"].add_(1)
        lr = numbers("lr", lambda: group["lr"])
        alpha, new = (
            numbers("alpha", lambda: group["alpha"]),
            numbers("1-alpha", lambda: 1 - group["alpha"]),
        )
        eps = numbers("eps", lambda: group["eps"])
        for param in params:
            state = self.state[param]
            grad = gradient(param, group, numbers)
            state["square_avg"].copy_(alpha * numbers.wide(state["square_avg"]) + new * grad * grad)
            spread = state["square_avg"]
            if group["centered"]:
                state["grad_avg"].copy_(moving(state["grad_avg"], grad, new))
                spread = spread - state["grad_avg"] * state["grad_avg"]
            step = grad / (spread.sqrt() + eps)
            if group["momentum"] > 0:
                momentum = numbers("momentum", lambda: group["momentum"])
                buffer = state["momentum_buffer"]
                step = numbers.wide(buffer.copy_(momentum * numbers.wide(buffer) + step))
            param.copy_(param - lr * step)


class Adadelta(Optimizer):
    """v = rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u likewise of d; p = p - lr
    d."""

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check_common(lr=lr)
        check("rho value", rho, 0.0 <= rho <= 1.0)
        check_common(eps=eps, weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "rho": rho,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "capturable": capturable,
                "foreach": foreach,
                "differentiable": differentiable,
            },
        )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"square_avg": zeros_like(param), "acc_delta": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        self.state[params[0]]["step"].add_(1)
        lr, eps = numbers("lr", lambda: group["lr"]), numbers("eps", lambda: group["eps"])
        rho, new = numbers("rho", lambda: group["rho"]), numbers("1-rho", lambda: 1 - group["rho"])
        for param in params:
            state = self.state[param]
            grad = gradient(param, group, numbers)
            state["square_avg"].copy_(rho * numbers.wide(state["square_avg"]) + new * grad * grad)
            delta = (state["acc_delta"] + eps).sqrt() / (state["square_avg"] + eps).sqrt() * grad
            state["acc_delta"].copy_(rho * numbers.wide(state["acc_delta"]) + new * delta * delta)
            param.copy_(param - lr * delta)


class Rprop(Optimizer):
    """Steps that grow while the sign of the gradient stays and shrink when it changes (Riedmiller
    and Braun 1993).
    """

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        check_common(lr=lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(
            params,
            {
                "lr": lr,
                "etas": etas,
                "step_sizes": step_sizes,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        lr = group["lr"]
        zeros = zeros_like(param)
        if param.is_complex():  # both components, which are updated as two numbers
            lr = complex(float(lr), float(lr))
        size = zeros + lr.to(param.dtype) if isinstance(lr, Tensor) else zeros.fill_(lr)
        return {"prev": zeros_like(param), "step_size": size}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        self.state[params[0]]["step"].add_(1)
        down, up = (
            numbers("down", lambda: group["etas"][0]),
            numbers("up", lambda: group["etas"][1]),
        )
        low = numbers("low", lambda: group["step_sizes"][0])
        high = numbers("high", lambda: group["step_sizes"][1])
        where = FUNCTIONS["where"]
        for param in params:
            state = self.state[param]
            grad = gradient(param, group, numbers, decay=False)
            agreement = grad * state["prev"]
            factor = where(agreement > 0, up, where(agreement < 0, down, agreement * 0 + 1))
            state["step_size"].copy_((state["step_size"] * factor).maximum(low).minimum(high))
            grad = where(agreement < 0, agreement * 0, grad)
            param.copy_(param - grad.sign() * state["step_size"])
            state["prev"].copy_(grad)
