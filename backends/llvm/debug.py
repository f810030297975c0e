"""GRAPHTORCH_DEBUG: what compiling prints to standard error; docs/debug.md has the table."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

STAGES = ("graph", "passes", "tuning", "kernels", "llvm", "asm")
REPORT = "programs"  # not a stage: graphtorch/_deferred/report.py prints it when the process ends


def wanted() -> frozenset[str]:
    """The stages named in GRAPHTORCH_DEBUG, a comma-separated list; ``all`` is every one."""
    names = _names()
    unknown = names - {*STAGES, REPORT, "all"}
    if unknown:
        warnings.warn(
            f"GRAPHTORCH_DEBUG={','.join(sorted(unknown))}: known are {', '.join(STAGES)}, "
            f"{REPORT} and all",
            RuntimeWarning,
            stacklevel=2,
        )
    return frozenset(STAGES) if "all" in names else names & frozenset(STAGES)


def _names() -> frozenset[str]:
    return frozenset(
        n.strip() for n in os.environ.get("GRAPHTORCH_DEBUG", "").split(",") if n.strip()
    )


def reports_programs() -> bool:
    """Whether the programs of line-by-line code are to be listed at the end."""
    return bool(_names() & {REPORT, "all"})


def show(stage: str, name: str, text: Callable[[], str]) -> None:
    """Print `text` if `stage` is wanted; nothing is computed otherwise."""
    if os.environ.get("GRAPHTORCH_DEBUG") and stage in wanted():
        print(f"---- {stage} of {name}\n{text().rstrip()}\n", file=sys.stderr)
