"""Stochastic gradient descent.
https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html"""

from __future__ import annotations

from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Value

from .._deferred.tensor import Tensor
from .._ops.base import run
from .optimizer import (
    Numbers,
    Optimizer,
    ParamsT,
    check,
    check_common,
    existing,
    gradient,
    update,
    zeros_like,
)


class SGD(Optimizer):
    """v = momentum v + (1 - dampening) g; p = p - lr v, or with `nesterov` p - lr (g + momentum v).

    The first v is g itself.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        check_common(lr=lr, weight_decay=weight_decay)
        check("momentum value", momentum, momentum >= 0.0)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "foreach": foreach,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def _check_grad(self, param: Tensor) -> None:
        pass  # sparse gradients are welcome, and give sparse momentum

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        lr = numbers("lr", lambda: group["lr"])
        at_once = group["momentum"] != 0 and not group["dampening"] and not group["differentiable"]
        for param in params:
            if at_once and self._updated(param, group, numbers, lr):
                continue
            step = gradient(param, group, numbers)
            if group["momentum"] != 0:
                step = self._with_momentum(param, step, group, numbers)
            if step.is_sparse or step.dtype is not param.dtype:
                param.copy_(param - lr * step)
            else:
                param.copy_(run("SGD", _stepped, param, lr, step))

    def _updated(self, param: Tensor, group: dict[str, Any], numbers: Numbers, lr: Tensor) -> bool:
        """Update a parameter by one node; whether it could be, as no number changes its dtype."""
        if param.grad.is_sparse:  # type: ignore[union-attr]
            return False
        buffer = self._momentum(param)
        if not numbers.suit((param, buffer)):
            return False
        momentum = numbers("momentum", lambda: group["momentum"])
        given = param, gradient(param, group, numbers), buffer, lr, momentum
        nesterov = bool(group["nesterov"])
        update("SGD", ops.momentum_update, (param, buffer), given, nesterov=nesterov)
        return True

    def _momentum(self, param: Tensor) -> Tensor:
        """What a parameter has, or zeros: 0 v + g is g, so one graph serves all steps."""
        state = self.state[param]
        if state.get("momentum_buffer") is None:
            with existing():
                state["momentum_buffer"] = zeros_like(param)
        return state["momentum_buffer"]  # type: ignore[no-any-return]

    def _with_momentum(
        self, param: Tensor, grad: Tensor, group: dict[str, Any], numbers: Numbers
    ) -> Tensor:
        momentum = numbers("momentum", lambda: group["momentum"])
        state = self.state[param]
        buffer = state.get("momentum_buffer")
        if buffer is None and not (group["dampening"] or group["differentiable"] or grad.is_sparse):
            buffer = self._momentum(param)
        if buffer is None:
            buffer = state["momentum_buffer"] = grad.detach().to(param.dtype).clone()
        else:
            fresh = (
                numbers("1-dampening", lambda: 1 - group["dampening"]) * grad
                if group["dampening"]
                else grad
            )
            buffer.copy_(momentum * numbers.wide(buffer) + fresh)
        return grad + momentum * numbers.wide(buffer) if group["nesterov"] else numbers.wide(buffer)


def _stepped(param: Value, lr: Value, step: Value) -> Value:
    """param - lr step"""
    return ops.sub(param, ops.mul(lr, step))
