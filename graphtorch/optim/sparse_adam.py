"""Adam for sparse gradients.
https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .optimizer import Numbers, Optimizer, ParamsT, check, check_common, zeros_like


class SparseAdam(Optimizer):
    """`Adam` on the entries of a sparse gradient only: other rows and their moments stay as they
    are.

    Merging equal indices gives sizes that depend on data: `step` cannot be part of a captured
    function.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ):
        check("learning rate", lr, isinstance(lr, Tensor) or lr > 0.0)
        check("epsilon value", eps, eps > 0.0)
        check_common(betas=betas)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        self._refuse("Sparse", "requires dense parameter tensors", lambda p: p.is_sparse)
        self._refuse("Complex", "does not support complex parameters", lambda p: p.is_complex())

    def _refuse(self, kind: str, why: str, found: Any) -> None:
        places = [
            [i, j]
            for i, group in enumerate(self.param_groups)
            for j, p in enumerate(group["params"])
            if found(p)
        ]
        if places:
            raise ValueError(f"{kind} params at indices {places}: SparseAdam {why}")

    def _check_grad(self, param: Tensor) -> None:
        if not param.grad.is_sparse:  # type: ignore[union-attr]
            raise RuntimeError(
                "SparseAdam does not support dense gradients, please consider Adam instead"
            )

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": 0, "exp_avg": zeros_like(param), "exp_avg_sq": zeros_like(param)}

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        for param in params:
            self._update_one(group, param, self.state[param], numbers)

    def _update_one(
        self, group: dict[str, Any], param: Tensor, state: dict[str, Any], numbers: Numbers
    ) -> None:
        step = state["step"] = int(state["step"]) + 1
        grad: Any = param.grad
        grad = (-grad if group["maximize"] else grad).coalesce()
        beta1, beta2 = group["betas"]
        rows = tuple(grad.indices().unbind(0))
        g = numbers.wide(grad.values())
        first, second = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        first = first + numbers("new1", lambda: 1 - beta1) * (g - first)
        second = second + numbers("new2", lambda: 1 - beta2) * (g * g - second)
        state["exp_avg"].index_put_(rows, first.to(param.dtype))
        state["exp_avg_sq"].index_put_(rows, second.to(param.dtype))
        correction = (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        rate = numbers(("rate", step), lambda: float(group["lr"]) * correction)
        change = rate * first / (second.sqrt() + numbers("eps", lambda: group["eps"]))
        param.index_put_(rows, (numbers.wide(param[rows]) - change).to(param.dtype))
