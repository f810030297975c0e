"""`OptimizedModule` where programs look for it."""

from __future__ import annotations

from .._captured.compile import OptimizedModule
from .._captured.status import disable, reset, set_stance

__all__ = ["OptimizedModule", "disable", "reset", "set_stance"]
