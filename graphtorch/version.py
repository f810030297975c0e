"""Versions: ours, and of what this build does not use."""

from __future__ import annotations

from ._version import __version__

cuda = None  # this build runs on CPUs
hip = None
debug = False
git_version = "unknown"

__all__ = ["__version__", "cuda", "debug", "git_version", "hip"]
