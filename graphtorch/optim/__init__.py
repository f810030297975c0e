"""Optimizers and learning rate schedules: each file is loaded when something in it is first asked
for."""

from __future__ import annotations

# ruff: noqa: F401 - imports for who reads types; they are made when asked for
from typing import TYPE_CHECKING

from .._torch.absent import attribute_of, homes_of

if TYPE_CHECKING:
    from . import lr_scheduler, swa_utils
    from .adafactor import Adafactor
    from .adam import Adam, AdamW
    from .adam_family import Adamax, NAdam, RAdam
    from .adaptive import Adadelta, Adagrad, RMSprop, Rprop
    from .asgd import ASGD
    from .lbfgs import LBFGS
    from .muon import Muon
    from .optimizer import (
        Optimizer,
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )
    from .sgd import SGD
    from .sparse_adam import SparseAdam

_HOMES = homes_of(
    {
        ".adafactor": ("Adafactor",),
        ".adam": ("Adam", "AdamW"),
        ".adam_family": ("Adamax", "NAdam", "RAdam"),
        ".adaptive": ("Adadelta", "Adagrad", "RMSprop", "Rprop"),
        ".asgd": ("ASGD",),
        ".lbfgs": ("LBFGS",),
        ".muon": ("Muon",),
        ".optimizer": (
            "Optimizer",
            "register_optimizer_step_post_hook",
            "register_optimizer_step_pre_hook",
        ),
        ".sgd": ("SGD",),
        ".sparse_adam": ("SparseAdam",),
    }
)
_MODULES = {"lr_scheduler", "swa_utils", *(home[1:] for home in _HOMES.values())}

__all__ = [*sorted(_HOMES), "lr_scheduler", "swa_utils"]

__getattr__ = attribute_of(__name__, _MODULES, _HOMES)
