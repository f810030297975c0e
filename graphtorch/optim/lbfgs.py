"""L-BFGS. https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._deferred import running
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from ..autograd import enable_grad, no_grad
from .optimizer import Optimizer, ParamsT, check

Evaluate = Callable[[Any, float, Tensor], tuple[float, Tensor]]


class LBFGS(Optimizer):
    """Quasi-Newton steps from the last `history_size` changes of position and gradient (Nocedal and
    Wright, 7.2).

    One group only; `step` needs a closure and evaluates it up to `max_eval` times.
    `line_search_fn` is None or "strong_wolfe".
    """

    def __init__(
        self,
        params: ParamsT,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        check("learning rate", lr, isinstance(lr, Tensor) or lr >= 0.0)
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")
        self._params = self.param_groups[0]["params"]

    def _gather_flat_grad(self) -> Tensor:
        parts = [
            p.new_zeros(p.numel()) if p.grad is None else p.grad.detach().to_dense().reshape(-1)
            for p in self._params
        ]
        return FUNCTIONS["cat"](parts)

    def _add_grad(self, step: float, direction: Tensor) -> None:
        start = 0
        for param in self._params:
            count = param.numel()
            param.add_(direction[start : start + count].reshape(param.shape) * step)
            start += count

    def _evaluate(self, closure: Callable[[], Any]) -> Evaluate:
        def evaluate(position: list[Tensor], t: float, direction: Tensor) -> tuple[float, Tensor]:
            self._add_grad(t, direction)
            with enable_grad():
                loss = float(closure())
            gradient = self._gather_flat_grad()
            for param, old in zip(self._params, position, strict=True):
                param.copy_(old)
            return loss, gradient

        return evaluate

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Up to `max_iter` iterations. `closure` clears gradients, computes the loss and gradients,
        returns the loss.
        """
        if closure is None:
            raise TypeError("LBFGS.step() missing 1 required positional argument: 'closure'")
        with no_grad():
            result = self._iterate(closure)
        running.flush()
        return result

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        group, state = self.param_groups[0], self.state[self._params[0]]
        lr = float(group["lr"])
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        with enable_grad():
            original = closure()
        loss, grad = float(original), self._gather_flat_grad()
        evals = 1
        state["func_evals"] += 1
        if _largest(grad) <= group["tolerance_grad"]:
            return original
        direction, t = state.get("d"), state.get("t")
        for iteration in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, group, grad, direction, t)
            state["prev_flat_grad"], state["prev_loss"] = grad.clone(), loss
            t = min(1.0, 1.0 / float(grad.abs().sum())) * lr if state["n_iter"] == 1 else lr
            slope = float(grad.dot(direction))
            if slope > -group["tolerance_change"]:
                break
            before, spent = loss, 0
            if group["line_search_fn"] is None:
                self._add_grad(t, direction)
                if iteration != group["max_iter"]:
                    with enable_grad():
                        loss = float(closure())
                    grad, spent = self._gather_flat_grad(), 1
            elif group["line_search_fn"] == "strong_wolfe":
                position = [p.detach().clone() for p in self._params]
                loss, grad, t, spent = strong_wolfe(
                    self._evaluate(closure), position, t, direction, loss, grad, slope
                )
                self._add_grad(t, direction)
            else:
                raise RuntimeError("only 'strong_wolfe' is supported")
            evals += spent
            state["func_evals"] += spent
            if (
                evals >= group["max_eval"]
                or _largest(grad) <= group["tolerance_grad"]
                or _largest(direction * t) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            ):
                break
        state["d"], state["t"] = direction, t
        return original

    @staticmethod
    def _direction(
        state: dict[str, Any],
        group: dict[str, Any],
        grad: Tensor,
        direction: Tensor | None,
        t: float | None,
    ) -> Tensor:
        """Minus the approximate inverse Hessian times the gradient, by the two-loop recursion."""
        if state["n_iter"] == 1 or direction is None:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1)
            return -grad
        changes, steps, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = grad - state["prev_flat_grad"], direction * t
        curvature = float(y.dot(s))
        if curvature > 1e-10:
            if len(changes) == group["history_size"]:
                for history in (changes, steps, ro):
                    history.pop(0)
            changes.append(y)
            steps.append(s)
            ro.append(1.0 / curvature)
            state["H_diag"] = curvature / float(y.dot(y))
        q, alpha = -grad, [0.0] * len(changes)
        for i in reversed(range(len(changes))):
            alpha[i] = float(steps[i].dot(q)) * ro[i]
            q = q - changes[i] * alpha[i]
        result = q * state["H_diag"]
        for i in range(len(changes)):
            result = result + steps[i] * (alpha[i] - float(changes[i].dot(result)) * ro[i])
        return result


def _largest(x: Tensor) -> float:
    return float(x.abs().max())


def cubic_minimum(
    x1: float,
    f1: float,
    g1: float,
    x2: float,
    f2: float,
    g2: float,
    bounds: tuple[float, float] | None = None,
) -> float:
    """The minimiser, within `bounds`, of the cubic through two points with their slopes."""
    low, high = bounds or (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if not square >= 0:
        return (low + high) / 2.0
    d2 = math.sqrt(square)
    minimum = (
        x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
        if x1 <= x2
        else x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    )
    return min(max(minimum, low), high)


def strong_wolfe(
    evaluate: Evaluate,
    x: Any,
    t: float,
    d: Tensor,
    f: float,
    g: Tensor,
    slope: float,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance: float = 1e-9,
    max_ls: int = 25,
) -> tuple[float, Tensor, float, int]:
    """A step length along `d` that satisfies the strong Wolfe conditions (Nocedal and Wright,
    algorithms 3.5, 3.6).

    Returns loss, gradient, step length and number of evaluations.
    """
    norm = _largest(d)
    f_new, g_new = evaluate(x, t, d)
    evals, slope_new = 1, float(g_new.dot(d))
    t_prev, f_prev, g_prev, slope_prev = 0.0, f, g, slope
    done, iteration = False, 0
    bracket: list[tuple[float, float, Tensor, float]]
    while True:
        here, there = (t_prev, f_prev, g_prev, slope_prev), (t, f_new, g_new, slope_new)
        if iteration >= max_ls:
            bracket = [(0.0, f, g, slope), there]
            break
        if f_new > f + c1 * t * slope or (iteration > 1 and f_new >= f_prev):
            bracket = [here, there]
            break
        if abs(slope_new) <= -c2 * slope:
            bracket, done = [there], True
            break
        if slope_new >= 0:
            bracket = [here, there]
            break
        low, high = t + 0.01 * (t - t_prev), t * 10
        old = t
        t = cubic_minimum(t_prev, f_prev, slope_prev, t, f_new, slope_new, (low, high))
        t_prev, f_prev, g_prev, slope_prev = old, f_new, g_new.clone(), slope_new
        f_new, g_new = evaluate(x, t, d)
        evals, slope_new, iteration = evals + 1, float(g_new.dot(d)), iteration + 1
    return _zoom(
        evaluate, x, d, f, slope, bracket, done, norm, evals, iteration, (c1, c2, tolerance, max_ls)
    )


def _zoom(
    evaluate: Evaluate,
    x: Any,
    d: Tensor,
    f: float,
    slope: float,
    bracket: list[tuple[float, float, Tensor, float]],
    done: bool,
    norm: float,
    evals: int,
    iteration: int,
    limits: tuple[float, float, float, int],
) -> tuple[float, Tensor, float, int]:
    """Shrink the bracket around an acceptable step."""
    c1, c2, tolerance, max_ls = limits
    stuck = False
    low, high = (
        (0, 0) if len(bracket) == 1 else (0, 1) if bracket[0][1] <= bracket[-1][1] else (1, 0)
    )
    while not done and iteration < max_ls:
        (t1, f1, _, s1), (t2, f2, _, s2) = bracket
        span, least, most = abs(t2 - t1), min(t1, t2), max(t1, t2)
        if span * norm < tolerance:
            break
        t = cubic_minimum(t1, f1, s1, t2, f2, s2)
        margin = 0.1 * (most - least)
        if min(most - t, t - least) < margin:
            if stuck or t >= most or t <= least:
                t = most - margin if abs(t - most) < abs(t - least) else least + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        f_new, g_new = evaluate(x, t, d)
        slope_new = float(g_new.dot(d))
        evals, iteration = evals + 1, iteration + 1
        point = (t, f_new, g_new.clone(), slope_new)
        if f_new > f + c1 * t * slope or f_new >= bracket[low][1]:
            bracket[high] = point
            low, high = (0, 1) if bracket[0][1] <= bracket[1][1] else (1, 0)
        else:
            if abs(slope_new) <= -c2 * slope:
                done = True
            elif slope_new * (bracket[high][0] - bracket[low][0]) >= 0:
                bracket[high] = bracket[low]
            bracket[low] = point
    t, f_best, g_best, _ = bracket[low]
    return f_best, g_best, t, evals
