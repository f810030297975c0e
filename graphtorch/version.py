"""Versions: ours, and of what this build does not use."""

from __future__ import annotations

__version__ = "0.1.0"

cuda = None  # this build runs on CPUs
hip = None
debug = False
git_version = "unknown"

__all__ = ["__version__", "cuda", "debug", "git_version", "hip"]
