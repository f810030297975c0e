"""What a compiled program consists of, for `Executable.explain` and the demo's summary."""

from __future__ import annotations

from graphtorch.ir.graph import Graph
from graphtorch.ir.shape import Dim

from .kernels.program.plan import Plan
from .kernels.program.program import Launch, Program, Slot, counted, flat
from .kernels.program.table import packed_layout


def statistics(
    recorded: Graph, final: Graph, program: Program, plan: Plan, code: int
) -> dict[str, int]:
    """Counts for the one-line summary; a size that depends on symbols counts as -1."""
    return {
        "ops": len(recorded.nodes),
        "regions": sum(n.op.name != "constant" for n in final.nodes),
        "kernels": len(program.kernels()),
        "launches": len(list(flat(program.launches))),
        "arena_bytes": plan.size if isinstance(plan.size, int) else -1,
        "code_bytes": code,
    }


def explain(program: Program, plan: Plan, machine: str, counts: dict[str, int]) -> str:
    """A line a launch with FLOPs and bytes, then memory and totals."""
    rows = [("kernel", "what", "FLOPs", "bytes", "reads and writes")]
    rows += [("prologue " + launch.kernel.name, *_row(launch)) for launch in program.prologue]
    launches = list(counted(program.launches))
    rows += [
        (
            launch.kernel.name if times == 1 else f"{launch.kernel.name} x {times}",
            *_row(launch, times),
        )
        for launch, times in launches
    ]
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    table = [
        "  ".join((*(cell.ljust(w) for cell, w in zip(r, widths, strict=False)), r[4])).rstrip()
        for r in rows
    ]
    total = (
        sum_of([launch.flops * times for launch, times in launches]),
        sum_of([launch.bytes * times for launch, times in launches]),
    )
    return "\n".join(
        [
            f"{program.name}: {counts['ops']} ops -> {counts['regions']} regions -> "
            f"{counts['launches']} kernel calls ({counts['code_bytes']:,} bytes of code) "
            f"for {machine}",
            *table,
            f"total: {number(total[0])} FLOPs, {number(total[1])} bytes moved",
            f"memory: arena {number(plan.size)} bytes for {len(program.temporaries())} "
            f"temporaries, packed weights {number(packed_layout(program)[1])} bytes",
            "",
        ]
    )


def _row(launch: Launch, times: Dim = 1) -> tuple[str, str, str, str]:
    moved = number(launch.flops * times), number(launch.bytes * times)
    return launch.label, *moved, ", ".join(map(_slot, launch.slots))


def _slot(slot: Slot) -> str:
    name = slot.name or f"{slot.kind}{slot.index if slot.kind in ('input', 'output') else ''}"
    return f"{name} {slot.dtype}[{', '.join(map(str, slot.shape))}]"


def sum_of(dims: list[Dim]) -> Dim:
    total: Dim = 0
    for dim in dims:
        total = total + dim
    return total


def number(dim: Dim) -> str:
    return f"{dim:,}" if isinstance(dim, int) else str(dim)
