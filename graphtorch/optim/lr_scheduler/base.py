"""What all schedules share: the epoch counter and setting the groups' rates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..._deferred.tensor import Tensor
from ..._settings import warn_user
from ..optimizer import Optimizer

EPOCH_DEPRECATION_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where "
    "possible. Please use `scheduler.step()` to step the scheduler. During the deprecation, if "
    "epoch is different from None, the closed form is used instead of the new chainable form, "
    "where available."
)


def set_rate(group: dict[str, Any], key: str, value: Any) -> None:
    """Set an option; a tensor learning rate keeps its identity, as compiled steps read it."""
    if isinstance(group.get(key), Tensor):
        group[key].fill_(float(value) if isinstance(value, Tensor) else value)
    else:
        group[key] = value


def copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def per_group(optimizer: Optimizer, value: Any, name: str) -> list[Any]:
    """One value for each parameter group from a number or a list. Raises ValueError for another
    length."""
    if isinstance(value, (list, tuple)):
        if len(value) != len(optimizer.param_groups):
            raise ValueError(
                f"{name} must have the same length as optimizer.param_groups. {name} has "
                f"{len(value)} values, param_groups has "
                f"{len(optimizer.param_groups)}."
            )
        return list(value)
    return [value] * len(optimizer.param_groups)


class LRScheduler:
    """Base class: a subclass states `get_lr`, and may state the closed form
    ``_get_closed_form_lr``.

    Args:
        optimizer: whose groups' "lr" is set.
        last_epoch: -1 starts; another number resumes, with "initial_lr" in every group.
    """

    verbose = False
    _get_lr_called_within_step = False
    _is_initial = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, verbose: Any = "deprecated"):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self._take_verbose(verbose)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    "scheduler with last_epoch >= 0.\nThis typically happens when:\n1. "
                    "You're trying to resume training from a checkpoint but haven't "
                    "properly loaded the optimizer state\n2. You're using last_epoch >= "
                    "0 for a fresh training run (not recommended)"
                )
        self.base_lrs = [copied(g["initial_lr"]) for g in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _rates(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_lr(self) -> list[Any]:
        """The groups' learning rates for the current `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} has to implement get_lr")

    def get_last_lr(self) -> list[Any]:
        """The learning rates set last."""
        return self._last_lr

    def _take_verbose(self, verbose: Any) -> None:
        if verbose != "deprecated":
            warn_user(
                "The verbose parameter is deprecated. Please use get_last_lr() to access the "
                "learning rate.",
            )
        if verbose is True:  # else it stays out of the state, as in PyTorch
            self.verbose = True

    def print_lr(self, is_verbose: bool, group: int, lr: float, epoch: int | None = None) -> None:
        """Print the learning rate of a group."""
        if is_verbose:
            at = "" if epoch is None else f"Epoch {epoch:5d}: "
            print(f"{at}adjusting learning rate of group {group} to {lr:.4e}.")

    def step(self, epoch: int | None = None) -> None:
        """Go to the next epoch (or, deprecated, to `epoch`) and set the rates."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            warn_user(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. You should call "
                "them in the opposite order: `optimizer.step()` before "
                "`lr_scheduler.step()`. Failure to do this will result in PyTorch "
                "skipping the first value of the learning rate "
                "schedule.",
            )
        self._step_count += 1
        closed = getattr(self, "_get_closed_form_lr", None)
        if epoch is None:
            self.last_epoch += 1
        else:
            warn_user(EPOCH_DEPRECATION_WARNING)
            self.last_epoch = epoch
        self._get_lr_called_within_step = True
        try:
            rates = self.get_lr() if epoch is None or closed is None else closed()
        finally:
            self._get_lr_called_within_step = False
        self._set(rates)
        for i, lr in enumerate(rates):
            self.print_lr(self.verbose, i, lr, epoch)

    def _set(self, rates: Iterable[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, "lr", lr)
        self._last_lr = [copied(r) for r in self._rates()]

    def _warn_outside_step(self) -> None:
        if not self._get_lr_called_within_step:
            warn_user(
                "To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`.",
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.__dict__.update(state_dict)
