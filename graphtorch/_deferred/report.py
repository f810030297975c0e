"""``GRAPHTORCH_DEBUG=programs``: what plain code was run as, printed when the process ends.

For each structure that was recorded: where, how often it ran op by op, which programs were compiled
for it and how often they ran, what that took, and why it was needed beside the others.
"""

from __future__ import annotations

import atexit
import sys

from graphtorch.backends.llvm import debug

from . import programs
from .programs import Structure

ROWS = 40  # structures listed one by one, those that took most first


def report() -> str:
    """The table as text."""
    known = list(programs.structures())
    made = [p for s in known for p in all_programs(s)]
    lines = [
        f"graphtorch programs: {len(known)} structures recorded, {len(made)} programs compiled in "
        f"{sum(p.seconds for p in made):.2f} s",
        f"{'op by op':>9} {'compiled runs':>14} {'compile s':>10}  nodes  where, programs, why",
    ]
    shown = sorted(enumerate(known), key=lambda pair: -_weight(pair[1]))[:ROWS]
    for index, structure in sorted(shown):
        made = all_programs(structure)
        lines.append(
            f"{structure.steps:9d} {sum(p.runs for p in made):14d} "
            f"{sum(p.seconds for p in made):10.2f}  {len(structure.kinds):5d}  {where(structure)}: "
            f"{', '.join(p.about for p in made) or 'not compiled'}; {why(structure, known[:index])}"
        )
    if len(known) > ROWS:
        lines.append(f"... and {len(known) - ROWS} more structures, each of less work")
    return "\n".join(lines)


def all_programs(structure: Structure) -> list[programs.Program]:
    """The programs of a structure: for fixed sizes, then for symbols."""
    return [*structure.fixed.values(), *(p for _, p in structure.symbolic)]


def _weight(structure: Structure) -> float:
    compiling = sum(p.seconds for p in all_programs(structure))
    return compiling + structure.steps * len(structure.kinds) * 5e-6


def where(structure: Structure) -> str:
    """The lines it was recorded at."""
    first, last = structure.lines
    if first is None:
        return "(no line)"
    if last is None or last == first:
        return str(first)
    return f"{first} to {last.line}" if last.file == first.file else f"{first} to {last}"


def why(structure: Structure, earlier: list[Structure]) -> str:
    """Why it was not one of those recorded before."""
    best: tuple[int, Structure] | None = None
    for other in earlier:
        if len(other.kinds) != len(structure.kinds):
            continue
        apart = [
            i for i, (a, b) in enumerate(zip(structure.kinds, other.kinds, strict=True)) if a != b
        ]
        if any(structure.kinds[i][0] is not other.kinds[i][0] for i in apart):
            continue
        if best is None or len(apart) < best[0]:
            best = len(apart), other
            differs = apart
    if best is None:
        return "new structure"
    if best[0] == 0:
        return f"as {where(best[1])}, but other types of inputs or other results"
    op = structure.kinds[differs[0]][0].name
    more = f" and {best[0] - 1} more" if best[0] > 1 else ""
    return f"as {where(best[1])}, but a constant changed: {op}{more}"


def _print() -> None:
    print(report(), file=sys.stderr)


if debug.reports_programs():
    atexit.register(_print)
