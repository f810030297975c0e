"""Names of ``torch.fx`` that programs touch. Graphs come from `graphtorch.trace`."""

from __future__ import annotations

from typing import TypeVar

from ._torch.absent import attribute_of

_F = TypeVar("_F")


def wrap(fn_or_name: _F) -> _F:
    """Tells a symbolic tracer to leave a function whole; the function (or its name) itself.

    Raises RuntimeError for anything else.
    """
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError("Unsupported type for global function! Must be either a callable or string name")
    return fn_or_name


__all__ = ["wrap"]
__getattr__ = attribute_of(__name__)
