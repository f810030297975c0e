"""A kernel under construction: its parameters, its loops, and the index algebra that belongs to
them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphtorch.ir.shape import Dim, Symbol, SymInt, symbols

from ..builder import Builder
from ..ir import Buffer, Const, Expr, Kernel, Name, binary, load
from ..program.lowering import Lowering
from ..program.program import Launch, Slot
from .space import Space


class Scope:
    """Builds one kernel.

    Sizes of the graph become size parameters when they are first used, slots become buffer
    parameters. `trace` lists the positions that were read (slot, position) and `conditions` the
    indices whose value matters beyond an address; both are what a dry run of a loop body is made
    for.
    """

    def __init__(self, lowering: Lowering, hint: str):
        self.lowering = lowering
        self.hint = hint
        self.b = Builder()
        self.space = Space()
        self.trace: list[tuple[Slot, Dim]] = []
        self.conditions: list[Dim] = []
        self.masked = False
        self._buffers: dict[Slot, Buffer] = {}
        self._sizes: dict[Symbol, Name] = {}
        self._counts: dict[Name, int] = {}
        self._sites: dict[int, Expr] = {}

    def buffer(self, slot: Slot, access: str = "read") -> Buffer:
        """The parameter for `slot`; whoever writes it asks first and says how."""
        found = self._buffers.get(slot)
        if found is None:
            prefix = {"input": "x", "output": "y", "constant": "c", "packed": "p"}.get(
                slot.kind, "t"
            )
            align = 64 if slot.kind in ("temporary", "packed", "constant") else slot.dtype.itemsize
            found = self._buffers[slot] = Buffer(self.b.fresh(prefix), slot.dtype, access, align)
        elif access != "read" and found.access == "read":
            raise ValueError(
                f"kernel {self.hint}: buffer {found.name} was read before it was declared written"
            )
        return found

    def expr(self, dim: Dim) -> Expr:
        """`dim` as arithmetic of the kernel; sizes become parameters."""
        # parameters are in the same order everywhere
        for s in sorted(symbols((dim,)), key=lambda s: s.name):
            if s.name not in self.space.env:
                self._sizes[s] = self.space.env[s.name] = Name(self.b.fresh(s.name))
        return self.space.expr(dim)

    def count(self, number: int, hint: str = "n") -> Expr:
        """A number that each launch passes: kernels that differ in it only are one."""
        name = Name(self.b.fresh(hint))
        self._counts[name] = number
        return name

    def read(self, slot: Slot, position: Dim, mask: Expr | None = None) -> Expr:
        """Load of one element."""
        self.trace.append((slot, position))
        self.masked |= mask is not None
        return load(self.buffer(slot), self.expr(position), mask=mask)

    def condition(self, index: Dim) -> Expr:
        """An index whose value decides something."""
        self.conditions.append(index)
        return self.expr(index)

    @contextmanager
    def loop(
        self,
        extent: Dim,
        kind: str = "serial",
        name: str = "i",
        lo: Expr | int = 0,
        hi: Expr | None = None,
        step: int = 1,
        variable: Dim | None = None,
    ) -> Iterator[Dim]:
        """A loop over a variable with values in [0, extent); `lo` and `hi` narrow it to a part.

        Without bounds an extent of 1 opens no loop.
        """
        variable = self.space.variable(extent) if variable is None else variable
        if isinstance(variable, int):
            yield variable
            return
        top = self.expr(extent) if hi is None else hi
        with self.b.loop(top, kind, name, lo, step) as i:
            self.space.bind(variable, i, self.b.depth)
            yield variable

    def fails(self, bad: Expr, site: int) -> None:
        """Report error `site` where `bad` holds."""
        number = self._sites.get(site)
        if number is None:
            number = self._sites[site] = self.count(site, "site")
        with self.b.when(bad):
            self.b.fail(number)

    def kernel(self) -> tuple[Kernel, tuple[Slot, ...], tuple[Dim, ...]]:
        """The kernel with the slots and sizes to launch it with."""
        name = self.lowering.kernel_name(self.hint)
        sizes = (*self._sizes.values(), *self._counts)
        kernel = Kernel(name, tuple(self._buffers.values()), sizes, self.b.body)
        return (
            kernel,
            tuple(self._buffers),
            (*map(SymInt.atom, self._sizes), *self._counts.values()),
        )

    def launch(self, label: str = "", flops: Dim = 0, bytes: Dim = 0) -> Launch:
        kernel, slots, sizes = self.kernel()
        return self.lowering.launch(kernel, slots, sizes, label or self.hint, flops, bytes)


def ceildiv(a: Expr, b: int) -> Expr:
    return binary("div", binary("add", a, Const(b - 1)), Const(b))


def clamp_min(a: Expr, low: int) -> Expr:
    return Const(max(a.value, low)) if isinstance(a, Const) else binary("max", a, Const(low))


def upper_bound(a: Expr, limit: Expr) -> Expr:
    """The smaller of two positions."""
    if isinstance(a, Const) and isinstance(limit, Const):
        return Const(min(a.value, limit.value))
    return binary("min", a, limit)
