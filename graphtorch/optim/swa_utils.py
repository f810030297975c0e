"""Stochastic weight averaging (Izmailov et al. 2018).
https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from .._deferred import running
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from ..autograd import no_grad
from ..nn.modules.batchnorm import _BatchNorm
from ..nn.modules.module import Module
from .lr_scheduler.base import LRScheduler, per_group
from .optimizer import Optimizer

Average = Callable[[Tensor, Tensor, Tensor], Tensor]


def get_swa_avg_fn() -> Average:
    """(average, new, count) -> the mean of all parameters so far."""
    return lambda average, new, count: average + (new - average) / (count + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """(average, new, count) -> the exponential moving average."""
    if not 0.0 <= decay <= 1.0:
        raise ValueError(
            f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
        )
    return lambda average, new, count: decay * average + (1 - decay) * new


def get_swa_multi_avg_fn() -> Callable[..., None]:
    """The form of `get_swa_avg_fn` that updates lists of tensors in place."""
    return _multi(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[..., None]:
    """The form of `get_ema_avg_fn` that updates lists of tensors in place."""
    return _multi(get_ema_avg_fn(decay))


def _multi(function: Average) -> Callable[..., None]:
    def update(averages: list[Tensor], news: list[Tensor], count: Tensor) -> None:
        with no_grad():
            for average, new in zip(averages, news, strict=True):
                average.copy_(function(average, new, count))

    return update


class AveragedModel(Module):
    """A copy of `model` whose parameters are averages of those given to `update_parameters`.

    Args:
        avg_fn: (average, new, count) -> new average; default the mean.
        multi_avg_fn: the same on lists, in place.
        use_buffers: average buffers as well, instead of copying them.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: Callable[..., None] | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", FUNCTIONS["tensor"](0, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _members(self, model: Module) -> list[Tensor]:
        return list(
            itertools.chain(model.parameters(), model.buffers() if self.use_buffers else ())
        )

    def update_parameters(self, model: Module) -> None:
        """Take the parameters of `model` into the average; the first call copies them."""
        mine, theirs = self._members(self.module), [t.detach() for t in self._members(model)]
        with no_grad():
            if int(self.n_averaged) == 0:
                for average, new in zip(mine, theirs, strict=True):
                    average.copy_(new)
            elif self.multi_avg_fn is not None:
                self.multi_avg_fn([t.detach() for t in mine], theirs, self.n_averaged)
            else:
                function = self.avg_fn or get_swa_avg_fn()
                for average, new in zip(mine, theirs, strict=True):
                    average.copy_(function(average.detach(), new, self.n_averaged))
            if not self.use_buffers:
                for average, new in zip(self.module.buffers(), model.buffers(), strict=True):
                    average.copy_(new)
            self.n_averaged.add_(1)
        running.flush()


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Set the batch normalisations' running statistics to those of the data in `loader`.

    A batch is the input, or a list or tuple that begins with it.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    was_training = model.training
    momenta = {m: m.momentum for m in norms}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with no_grad():
        for batch in loader:
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(x if device is None else x.to(device))
    running.flush()
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """Anneal the rate to `swa_lr` over `anneal_epochs` epochs and keep it there."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):
        for lr, group in zip(
            per_group(optimizer, swa_lr, "swa_lr"), optimizer.param_groups, strict=True
        ):
            group["swa_lr"] = lr
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        """How far the annealing is after `epoch` epochs."""
        t = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[Any]:
        self._warn_outside_step()
        epoch = self._step_count - 1
        if self.anneal_epochs == 0:
            epoch = max(1, epoch)
        before, now = self._share(max(0, epoch - 1)), self._share(epoch)
        return [
            group["swa_lr"] * now + _start(group, before) * (1 - now)
            for group in self.optimizer.param_groups
        ]


def _start(group: dict[str, Any], share: float) -> float:
    """The rate at which the annealing began, from the current one and how far it was."""
    return group["swa_lr"] if share == 1 else (group["lr"] - share * group["swa_lr"]) / (1 - share)
