"""Finds kernels that compute nothing: what they store was loaded as it is, or is a constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from graphtorch.backends.kernels import ir
from graphtorch.backends.kernels.program.program import Launch, Program


def copies(program: Program) -> list[str]:
    """The labels of a program's launches that only copy."""
    return [
        x.label for x in program.launches if isinstance(x, Launch) and not Looked(x.kernel).computes
    ]


class Looked:
    """A kernel, and whether any value from memory is an operand of more than selections and
    stores."""

    def __init__(self, kernel: ir.Kernel):
        statements = list(ir.walk(kernel.body))
        self.kernel = kernel
        self.named = {s.name: s.value for s in statements if isinstance(s, ir.Let)}
        values = [
            s.value for s in statements if isinstance(s, (ir.Store, ir.Let, ir.Var, ir.Assign))
        ]
        self.computes = any(
            isinstance(s, (ir.MultiplyMatrices, ir.Call)) for s in statements
        ) or any(map(self.computed, values))

    def computed(self, e: ir.Expr) -> bool:
        """Whether an operation takes what was loaded; indices of loads are no values."""
        if isinstance(e, ir.Load):
            return False
        operation = not isinstance(e, (ir.Select, ir.Splat))
        return any(self.computed(x) or (operation and self.loaded(x)) for x in _operands(e))

    def loaded(self, e: ir.Expr) -> bool:
        """Whether `e` comes from memory. Integers that a thread or block has for itself are
        indices."""
        if isinstance(e, ir.Name):
            return e in self.named and self.loaded(self.named[e])
        if isinstance(e, ir.Load):
            return e.buffer in self.kernel.buffers or e.buffer.dtype.is_floating_point
        return any(map(self.loaded, _operands(e)))


def _operands(e: ir.Expr) -> Iterator[ir.Expr]:
    if not isinstance(e, ir.Name):
        yield from (x for f in fields(e) if isinstance(x := getattr(e, f.name), ir.Expr))  # type: ignore
