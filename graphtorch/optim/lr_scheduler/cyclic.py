"""Schedules that cycle the learning rate and, the other way round, the momentum."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler, copied, per_group, set_rate


class CyclicLR(LRScheduler):
    """Between base_lr and max_lr and back, linearly, once a cycle (Smith 2015); one step a batch.

    Args:
        step_size_up: steps of the rising half; `step_size_down` None takes as many for the falling
            one.
        mode: "triangular", "triangular2" (the height halves each cycle), "exp_range" (gamma^steps).
        scale_fn: a height of one's own, as a function of the "cycle" or of "iterations"
            (`scale_mode`).
        cycle_momentum: move the momentum (or Adam's first beta) between its two bounds the other
            way round.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Any,
        max_lr: Any,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.8,
        max_momentum: Any = 0.9,
        last_epoch: int = -1,
        verbose: Any = "deprecated",
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if mode not in _HEIGHTS and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        self.optimizer = optimizer
        self.max_lrs = per_group(optimizer, max_lr, "max_lr")
        up = float(step_size_up)
        self.total_size = up + (float(step_size_down) if step_size_down is not None else up)
        self.step_ratio = up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        usual = "iterations" if mode == "exp_range" else "cycle"
        self.scale_mode = usual if scale_fn is None else scale_mode
        if last_epoch == -1:
            for lr, group in zip(
                per_group(optimizer, base_lr, "base_lr"), optimizer.param_groups, strict=True
            ):
                set_rate(group, "lr", lr)
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._init_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch, verbose)
        self.base_lrs = [copied(v) for v in per_group(optimizer, base_lr, "base_lr")]

    def _init_momentum(self, base_momentum: Any, max_momentum: Any, last_epoch: int) -> None:
        self.use_beta1 = uses_beta1(self.optimizer)
        self.base_momentums = per_group(self.optimizer, base_momentum, "base_momentum")
        self.max_momentums = per_group(self.optimizer, max_momentum, "max_momentum")
        if last_epoch == -1:
            for high, low, group in zip(
                self.max_momentums, self.base_momentums, self.optimizer.param_groups, strict=True
            ):
                set_momentum(group, self.use_beta1, high)
                group["max_momentum"] = high
                group["base_momentum"] = low

    def scale_fn(self, x: float) -> float:
        """The height of the cycle."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        return _HEIGHTS[self.mode](x, self.gamma)

    def get_lr(self) -> list[Any]:
        """The rates of the current step; moves the momentum as well."""
        self._warn_outside_step()
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        place = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height = self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        rates = [
            low + (high - low) * place * height
            for low, high in zip(self.base_lrs, self.max_lrs, strict=True)
        ]
        if self.cycle_momentum:
            for low, high, group in zip(
                self.base_momentums, self.max_momentums, self.optimizer.param_groups, strict=True
            ):
                set_momentum(group, self.use_beta1, high - (high - low) * place * height)
        return rates

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer; a plain function given as `scale_fn` is left out."""
        state = super().state_dict()
        custom = state.pop("_scale_fn_custom")
        state["_scale_fn_custom"] = (
            None
            if custom is None or isinstance(custom, types.FunctionType)
            else custom.__dict__.copy()
        )
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = dict(state_dict)
        attributes = saved.pop("_scale_fn_custom", None)
        saved.pop("_scale_fn_ref", None)  # PyTorch's way to remember the mode
        super().load_state_dict(saved)
        if attributes is not None and self._scale_fn_custom is not None:
            self._scale_fn_custom.__dict__.update(attributes)


_HEIGHTS: dict[str, Callable[[float, float], float]] = {
    "triangular": lambda x, gamma: 1.0,
    "triangular2": lambda x, gamma: 1 / (2.0 ** (x - 1)),
    "exp_range": lambda x, gamma: gamma**x,
}


class OneCycleLR(LRScheduler):
    """From max_lr / div_factor up to max_lr and down to a tiny rate, once over the whole training
    (Smith 2017).

    Args:
        total_steps: the length, or None: `epochs` * `steps_per_epoch`.
        pct_start: share of the rising phase.
        anneal_strategy: "cos" or "linear".
        three_phase: come back to the initial rate first, then go on to the final one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
        verbose: Any = "deprecated",
    ):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        self._anneal_func_type = anneal_strategy
        self._schedule_phases = _phases(self.total_steps, pct_start, three_phase)
        if last_epoch == -1:
            for high, group in zip(
                per_group(optimizer, max_lr, "max_lr"), optimizer.param_groups, strict=True
            ):
                group["initial_lr"] = high / div_factor
                group["max_lr"] = high
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._init_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch, verbose)

    def _init_momentum(self, base_momentum: Any, max_momentum: Any, last_epoch: int) -> None:
        self.use_beta1 = uses_beta1(self.optimizer)
        if last_epoch == -1:
            bounds = zip(
                per_group(self.optimizer, max_momentum, "max_momentum"),
                per_group(self.optimizer, base_momentum, "base_momentum"),
                strict=True,
            )
            for (high, low), group in zip(bounds, self.optimizer.param_groups, strict=True):
                set_momentum(group, self.use_beta1, high)
                group["max_momentum"] = high
                group["base_momentum"] = low

    def _between(self, start: float, end: float, share: float) -> float:
        if self._anneal_func_type == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)

    def get_lr(self) -> list[Any]:
        """The rates of the current step; moves the momentum as well. Raises ValueError past the
        last step."""
        self._warn_outside_step()
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(
                f"Tried to step {step} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        start = 0.0
        for phase in self._schedule_phases:
            if step <= phase["end_step"] or phase is self._schedule_phases[-1]:
                break
            start = phase["end_step"]
        share = (step - start) / (phase["end_step"] - start)
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(self._between(group[phase["start_lr"]], group[phase["end_lr"]], share))
            if self.cycle_momentum:
                momentum = self._between(
                    group[phase["start_momentum"]], group[phase["end_momentum"]], share
                )
                set_momentum(group, self.use_beta1, momentum)
        return rates


def _total_steps(total: int | None, epochs: int | None, each: int | None) -> int:
    if total is not None:
        if total <= 0 or not isinstance(total, int):
            raise ValueError(f"Expected positive integer total_steps, but got {total}")
        return total
    if epochs is None or each is None:
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    for name, value in (("epochs", epochs), ("steps_per_epoch", each)):
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"Expected positive integer {name}, but got {value}")
    return epochs * each


def _phases(total: int, pct_start: float, three_phase: bool) -> list[dict[str, Any]]:
    def phase(end: float, *keys: str) -> dict[str, Any]:
        return {
            "end_step": end,
            **dict(
                zip(("start_lr", "end_lr", "start_momentum", "end_momentum"), keys, strict=True)
            ),
        }

    rise = phase(
        float(pct_start * total) - 1, "initial_lr", "max_lr", "max_momentum", "base_momentum"
    )
    if not three_phase:
        return [rise, phase(total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
    return [
        rise,
        phase(
            float(2 * pct_start * total) - 2,
            "max_lr",
            "initial_lr",
            "base_momentum",
            "max_momentum",
        ),
        phase(total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
    ]


def uses_beta1(optimizer: Optimizer) -> bool:
    """Whether the first of the betas plays the role of the momentum. Raises ValueError without
    either."""
    if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
        )
    return "betas" in optimizer.defaults


def set_momentum(group: dict[str, Any], use_beta1: bool, value: float) -> None:
    """Set the momentum, or the first of the betas."""
    if use_beta1:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value
