"""Adafactor (Shazeer and Stern 2018).

https://docs.pytorch.org/docs/stable/generated/torch.optim.Adafactor.html
"""

from __future__ import annotations

from typing import Any

from .._deferred.tensor import Tensor
from .._types import finfo
from .optimizer import Numbers, Optimizer, ParamsT, moving, zeros_like


class Adafactor(Optimizer):
    """Second moments of matrices are kept as one row and one column: v = r c / mean(r).

    Steps are relative to the parameter's scale: max(eps2, RMS(p)) min(lr, 1 / sqrt(t)); an update
    whose RMS exceeds `d` is scaled down to it.
    """

    counters = ("step",)

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        _check("Learning rate", ">= 0", lr, isinstance(lr, Tensor) or lr >= 0.0)
        _check("beta2_decay", "<= 0", beta2_decay, beta2_decay <= 0.0)
        _check("epsilon1", ">= 0", eps[0], eps[0] is None or eps[0] >= 0.0)
        _check("epsilon2", ">= 0", eps[1], eps[1] >= 0.0)
        _check("Clipping threshold d", ">= 1", d, d >= 1.0)
        _check("weight_decay", ">= 0", weight_decay, weight_decay >= 0.0)
        super().__init__(
            params,
            {
                "lr": lr,
                "beta2_decay": beta2_decay,
                "eps": eps,
                "d": d,
                "weight_decay": weight_decay,
                "foreach": foreach,
                "maximize": maximize,
            },
        )

    def _check_grad(self, param: Tensor) -> None:
        if param.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        super()._check_grad(param)

    def _new_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if param.ndim < 2:
            return {"variance": zeros_like(param)}
        *lead, rows, columns = param.shape
        return {
            "row_var": param.detach().new_zeros((*lead, rows, 1)),
            "col_var": param.detach().new_zeros((*lead, 1, columns)),
        }

    def _update(self, group: dict[str, Any], params: list[Tensor], numbers: Numbers) -> None:
        step = self.state[params[0]]["step"].add_(1).double()
        new = (step ** numbers.exact(lambda: group["beta2_decay"])).to(numbers.dtype)
        rate = numbers.exact(lambda: group["lr"]).minimum(step**-0.5)
        shrink = numbers("shrink", lambda: 1 - group["lr"] * group["weight_decay"])
        d = numbers.exact(lambda: group["d"])
        floor = numbers.exact(lambda: group["eps"][1])
        for param in params:
            grad = numbers.wide(param.grad)  # type: ignore[arg-type]
            grad = -grad if group["maximize"] else grad
            small = finfo(param.dtype).eps if group["eps"][0] is None else group["eps"][0]
            alpha = floor.maximum(_rms(numbers.wide(param))) * rate
            kept = (
                numbers.wide(param) * shrink if group["weight_decay"] != 0 else numbers.wide(param)
            )
            variance = self._variance(self.state[param], grad, new, small)
            update = variance.clamp(min=small * small).rsqrt() * grad
            scale = alpha / (_rms(update) / d).clamp(min=1.0)
            param.copy_(kept - scale.to(numbers.dtype) * update)

    @staticmethod
    def _variance(state: dict[str, Any], grad: Tensor, new: Tensor, small: float) -> Tensor:
        """The second moments after `grad`, factored for matrices."""
        if "variance" in state:
            return state["variance"].copy_(moving(state["variance"], grad * grad, new))  # type: ignore[no-any-return]
        square = grad * grad
        rows = state["row_var"].copy_(moving(state["row_var"], square.mean(-1, keepdim=True), new))
        columns = state["col_var"].copy_(
            moving(state["col_var"], square.mean(-2, keepdim=True), new)
        )
        return rows * columns / rows.mean(-2, keepdim=True).clamp(min=small)  # type: ignore[no-any-return]


def _rms(t: Tensor) -> Tensor:
    return t.double().square().mean().sqrt()  # type: ignore[no-any-return]


def _check(name: str, bound: str, value: Any, ok: bool) -> None:
    if not ok:
        raise ValueError(f"{name} should be {bound} but is: {value}")
