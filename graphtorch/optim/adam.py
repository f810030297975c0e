"""Adam and AdamW. https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphtorch.ir import ops
from graphtorch.ir.graph import Value

from .._deferred.tensor import Tensor
from .._ops.base import run
from .optimizer import Numbers, Optimizer, ParamsT, check_common, gradient, update, zeros_like


class Adam(Optimizer):
    """m, v: moving averages of g and g^2; p = p - lr m' / (sqrt(v') + eps) with bias-corrected m',
    v'.

    `amsgrad` takes the largest v so far; `decoupled_weight_decay` shrinks p instead of adding to g.
    (Kingma and Ba 2014; Reddi et al. 2018; Loshchilov and Hutter 2017.)
    """

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        check_common(lr, eps, weight_decay, betas)
        _check_tensors(lr, betas, capturable, foreach)
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def _check_grad(self, param: Tensor) -> None:
        if param.grad.is_sparse:  # type: ignore[union-attr]
            raise RuntimeError(
                "Adam does not support sparse gradients, please consider SparseAdam instead"
            )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = {"exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(param)
        return state

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        step = self.state[params[0]]["step"].add_(1).double()
        beta1, beta2 = exact_betas(group, numbers)
        lr = numbers.exact(lambda: group["lr"])
        step_size = (lr / (1 - beta1**step)).to(numbers.dtype)
        root = (1 - beta2**step).sqrt().to(numbers.dtype)
        eps = numbers("eps", lambda: group["eps"])
        averages = [self.state[p][n] for p in params for n in ("exp_avg", "exp_avg_sq")]
        plain = not group["amsgrad"] and not group["differentiable"]
        if plain and numbers.suit([*params, *averages]):
            self._update_at_once(group, params, numbers, (step_size, root, eps), (beta1, beta2))
            return
        for param, _, kept in with_moments(self, group, params, numbers, beta1, beta2):
            state = self.state[param]
            second = numbers.wide(state["exp_avg_sq"])
            if group["amsgrad"]:
                second = numbers.wide(
                    state["max_exp_avg_sq"].copy_(state["max_exp_avg_sq"].maximum(second))
                )
            first = numbers.wide(state["exp_avg"])
            if group["differentiable"]:  # the next step writes to what this one's gradient reads
                first, second = first.clone(), second.clone()
            param.copy_(run("Adam", _stepped, kept, first, second, step_size, root, eps))

    def _update_at_once(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        numbers: Numbers,
        step: tuple[Tensor, ...],
        betas: tuple[Tensor, Tensor],
    ) -> None:
        """The same where no number changes its dtype on the way: a node a parameter."""
        rates, shrink = moment_rates(group, numbers, *betas)
        factors = (*rates, *step) if shrink is None else (*rates, *step, shrink)
        for param in params:
            state = self.state[param]
            kept = state["exp_avg"], state["exp_avg_sq"]
            grad = gradient(param, group, numbers, decay=shrink is None)
            given = (param, grad, *kept, *factors)
            update("Adam", ops.adam_update, (param, *kept), given)


class AdamW(Adam):
    """`Adam` with decoupled weight decay."""

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )


def exact_betas(group: dict[str, Any], numbers: Numbers) -> tuple[Tensor, Tensor]:
    """The two decay rates as float64 scalars."""
    return numbers.exact(lambda: group["betas"][0]), numbers.exact(lambda: group["betas"][1])


def moment_rates(
    group: dict[str, Any], numbers: Numbers, beta1: Tensor, beta2: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
    """What of g, and of g^2's average and of g^2, makes the new averages; and, where weight decay
    is decoupled, what it leaves of a parameter."""
    rates = (1 - beta1, beta2, 1 - beta2)
    shrink = (
        numbers("shrink", lambda: 1 - group["lr"] * group["weight_decay"])
        if group["decoupled_weight_decay"]
        else None
    )
    return tuple(r.to(numbers.dtype) for r in rates), shrink  # type: ignore[return-value]


def with_moments(
    optimizer: Optimizer,
    group: dict[str, Any],
    params: list[Tensor],
    numbers: Numbers,
    beta1: Tensor,
    beta2: Tensor,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Each parameter after its moving averages of g and g^2 took in the gradient, with that
    gradient and what decoupled weight decay leaves of the parameter."""
    (new1, keep2, new2), shrink = moment_rates(group, numbers, beta1, beta2)
    for param in params:
        state = optimizer.state[param]
        grad = gradient(param, group, numbers, decay=shrink is None)
        first, second = numbers.wide(state["exp_avg"]), numbers.wide(state["exp_avg_sq"])
        first, second = run("Moments", _moments, first, second, grad, new1, keep2, new2)
        state["exp_avg"].copy_(first)
        state["exp_avg_sq"].copy_(second)
        yield param, grad, param if shrink is None else numbers.wide(param) * shrink


# Formulas on IR values: `run` records each as one operation on tensors, at a fraction of the cost
# of one for each operator.


def _moments(
    first: Value, second: Value, g: Value, new1: Value, keep2: Value, new2: Value
) -> tuple[Value, Value]:
    """first + new1 (g - first); keep2 second + new2 g g"""
    moved = ops.add(first, ops.mul(new1, ops.sub(g, first)))
    return moved, ops.add(ops.mul(keep2, second), ops.mul(ops.mul(new2, g), g))


def _stepped(
    kept: Value, first: Value, second: Value, step_size: Value, root: Value, eps: Value
) -> Value:
    """kept - step_size first / (sqrt(second) / root + eps)"""
    scale = ops.add(ops.div(ops.sqrt(second), root), eps)
    kept = kept if kept.dtype is first.dtype else ops.cast(kept, dtype=first.dtype)
    return ops.sub(kept, ops.div(ops.mul(step_size, first), scale))


def _check_tensors(lr: Any, betas: tuple[Any, Any], capturable: bool, foreach: bool | None) -> None:
    tensors = [isinstance(b, Tensor) for b in betas]
    if any(tensors) and not all(tensors):
        raise ValueError("betas must be either both floats or both Tensors")
    for name, value in (("lr", lr), ("betas[0]", betas[0]), ("betas[1]", betas[1])):
        if isinstance(value, Tensor):
            if foreach and not capturable:
                raise ValueError(
                    f"{name} as a Tensor is not supported for capturable=False and foreach=True"
                )
            if value.numel() != 1:
                raise ValueError(f"Tensor {name} must be 1-element")
