"""Sums at computed positions by atomic additions: a thread for each update, in any order.

Integers come out the same in any order; sums of floats differ by rounding from call to call, as
PyTorch's do on GPUs. Under `use_deterministic_algorithms(True)` each place is one thread's instead
(`ScatterKernel`).
"""

from __future__ import annotations

from graphtorch.ir.dtype import f32, f64, i32, i64, u32, u64
from graphtorch.ir.shape import numel

from ...cpu import cost
from ...cpu.loops.places import Places
from ...cpu.whole.scatter import ScatterKernel, Updates, added
from ...kernels.ir import AtomicAdd, Buffer, Expr
from ...kernels.program.program import Slot
from ..machine import gpu_of

ATOMIC = (f32, f64, i32, i64, u32, u64)  # what GPUs add to in memory


def apply(places: Places, updates: Updates, out: Slot) -> None:
    """Launch the kernel that applies `updates` to `out`: atomic additions where sums have any
    order."""
    floats, gpu = out.dtype.is_floating_point, gpu_of(places.lowering)
    atomic = updates.combine is added and out.dtype in ATOMIC and not (floats and gpu.ordered)
    (AtomicScatter if atomic else ScatterKernel)(places, updates, out).emit()


class AtomicScatter(ScatterKernel):
    """Each update by a thread of its own."""

    def emit(self) -> None:
        updates, scope, b = self.updates, self.scope, self.scope.b
        if 0 in updates.shape:
            return
        buffer = scope.buffer(self.out, "readwrite")
        self.index = tuple(scope.space.variable(extent) for extent in updates.shape)
        self.share = None
        with b.loop(scope.expr(numel(updates.shape)), "parallel", "update") as rest:
            for variable, extent in reversed(list(zip(self.index, updates.shape, strict=True))[1:]):
                size = scope.expr(extent)
                scope.space.bind(variable, b.let(rest % size, "i"), b.depth)
                rest = b.let(rest // size, "rest")
            for variable in self.index[:1]:
                scope.space.bind(variable, rest, b.depth)
            place, mask = self.place()
            with b.when(mask.expr):
                self.update(buffer, place(self.index), mask)
        scope.launch(updates.node.op.name, numel(updates.shape), cost.traffic([updates.source]) * 2)

    def combine(self, buffer: Buffer, position: Expr, value: Expr) -> None:
        self.scope.b.emit(AtomicAdd(buffer, position, value))
