"""Names of `torch.distributed` for several processes, which libraries import and programs of one
never use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._torch.absent import class_without_instances, function_without_use

INSTEAD = (
    "graphtorch trains in one process; leave out what spreads a model or its data over several"
)


def parts(module: str, classes: str = "", functions: str = "") -> dict[str, Any]:
    """Classes without instances and functions that raise, by name, of a module of PyTorch's."""
    made: dict[str, type | Callable[..., Any]] = {
        name: class_without_instances(
            name, module, "Of programs of several processes; has no instances here.", INSTEAD
        )
        for name in classes.split()
    }
    made.update((name, function_without_use(name, module, INSTEAD)) for name in functions.split())
    return made
