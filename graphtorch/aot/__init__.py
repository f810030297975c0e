"""Ahead-of-time compilation: models as native libraries with a C interface, no Python where they run."""

from __future__ import annotations

from .compile import Compiled, compile
from .loader import Library, load

__all__ = ["Compiled", "Library", "compile", "load"]
