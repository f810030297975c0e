"""Averaged SGD. https://docs.pytorch.org/docs/stable/generated/torch.optim.ASGD.html"""

from __future__ import annotations

import functools
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .optimizer import Numbers, Optimizer, ParamsT, check_common, gradient, zero_counter, zeros_like


class ASGD(Optimizer):
    """SGD with a decaying rate eta, and the average ``ax`` of its iterates from step `t0` on
    (Polyak and Juditsky 1992).
    """

    counters = ("step", "eta", "mu")

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        check_common(lr=lr, weight_decay=weight_decay)
        super().__init__(
            params,
            {
                "lr": lr,
                "lambd": lambd,
                "alpha": alpha,
                "t0": t0,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _new_counter(self, name: str, group: dict[str, Any]) -> Tensor:
        return zero_counter({"step": 0.0, "eta": float(group["lr"]), "mu": 1.0}[name])

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"ax": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        shared = self.state[params[0]]
        step = shared["step"].add_(1).double()
        eta, mu = shared["eta"].double(), shared["mu"].double()
        lambd, lr, alpha, start = (
            numbers.exact(functools.partial(group.__getitem__, k))
            for k in ("lambd", "lr", "alpha", "t0")
        )
        shrink, rate, share = (
            (1 - lambd * eta).to(numbers.dtype),
            eta.to(numbers.dtype),
            mu.to(numbers.dtype),
        )
        for param in params:
            average = self.state[param]["ax"]
            grad = gradient(param, group, numbers)
            param.copy_(numbers.wide(param) * shrink - rate * grad)
            average.copy_(
                FUNCTIONS["where"](share == 1, param, average + (param - average) * share)
            )
        shared["eta"].copy_(lr / (1 + lambd * lr * step) ** alpha)
        shared["mu"].copy_(1 / (step - start).clamp(min=1))
