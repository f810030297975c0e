"""A kernel under construction: its parameters, its loops, and the index algebra that belongs to
them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import Dim, SymInt

from ..builder import Builder
from ..ir import Buffer, Const, Expr, Kernel, Name, binary, load, select
from ..machine import SERIAL_WORK
from ..program.lowering import Lowering
from ..program.program import Launch, Slot
from .space import Space

PREFIXES = {"input": "x", "output": "y", "constant": "c", "packed": "p"}  # of names; else "t"
# how many there are, and the variable they are the values of, or what to do with each
Level = tuple[Dim | Expr, Dim | Callable[[Expr], None]]


class _Values(dict[str, Expr]):
    """The values of symbols; sizes of the graph become parameters when they are first asked for."""

    def __init__(self, size: Callable[[str], Expr]):
        super().__init__()
        self._size = size

    def __missing__(self, name: str) -> Expr:
        value = self[name] = self._size(name)
        return value


class Scope:
    """Builds one kernel.

    Sizes of the graph become size parameters when they are first used, slots become buffer
    parameters. `trace` lists the positions that were read (slot, position) and `conditions` the
    indices whose value matters beyond an address; both are what a dry run of a loop body is made
    for.

    Args: space: whose variables the kernel binds, where they are older than it. What another
        kernel bound them to is forgotten.
    """

    def __init__(self, lowering: Lowering, hint: str, space: Space | None = None):
        self.lowering = lowering
        self.hint = hint
        self.b = Builder()
        self.space = Space() if space is None else space
        self.space.env, self.space.vector = _Values(self._size), None
        self.masks = lowering.machine.masks
        self.trace: list[tuple[Slot, Dim]] = []
        self.conditions: list[Dim] = []
        self.masked = False
        self._buffers: dict[Slot, Buffer] = {}
        self._private: dict[Slot, Buffer] = {}
        self._symbols = {s.name: s for s in lowering.program.symbols}
        self._sizes: dict[str, Name] = {}
        self._counts: dict[Name, int] = {}
        self._sites: dict[int, Expr] = {}

    def _size(self, name: str) -> Expr:
        size = self._sizes[name] = Name(self.b.fresh(self._symbols[name].name))
        return size

    def buffer(
        self, slot: Slot, access: str = "read", hint: str = "", dtype: DType | None = None
    ) -> Buffer:
        """The parameter for `slot`, one even where it is both read and written.

        Args:
            hint: its name; by default a letter for the kind of the slot.
            dtype: i32 where a kernel takes the words of narrower numbers; it takes them so only.
        """
        if slot in self._private:
            return self._private[slot]
        found = self._buffers.get(slot)
        if found is None:
            name = self.b.fresh(hint or PREFIXES.get(slot.kind, "t"))
            align = 64 if slot.kind in ("temporary", "packed", "constant") else slot.dtype.itemsize
            found = self._buffers[slot] = Buffer(name, dtype or slot.dtype, access, align)
        elif found.access != access:
            found.access = "readwrite"
        return found

    def scratch(self, dtype: DType, size: int, hint: str) -> Slot:
        """Private memory of a task, declared here, under a slot like any other operand."""
        slot = Slot("scratch", dtype, (size,), size)
        self._private[slot] = self.b.scratch(dtype, size, hint)
        return slot

    def expr(self, dim: Dim) -> Expr:
        """`dim` as arithmetic of the kernel; a vector where it depends on the space's vector."""
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

    def put(self, slot: Slot, position: Dim, value: Expr) -> None:
        """Store one element."""
        self.b.store(self.buffer(slot, "write"), self.expr(position), value)

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

    @contextmanager
    def nested(self, loops: Sequence[tuple[Dim, Dim]], last: str = "serial") -> Iterator[None]:
        """Loops (extent, variable) one inside the other, the innermost one of kind `last`."""
        if not loops:
            yield
            return
        (extent, variable), *rest = loops
        with (
            self.loop(extent, "serial" if rest else last, variable=variable),
            self.nested(rest, last),
        ):
            yield

    def binder(self, variable: Dim) -> Callable[[Expr], None]:
        """A function that gives `variable` its value from where it is called on."""
        return lambda value: self.space.bind(variable, value, self.b.depth)

    @contextmanager
    def tasks(
        self, levels: Sequence[Level], parallel: bool = True, grain: int = 1, work: Dim = 0
    ) -> Iterator[None]:
        """One loop over all combinations of `levels`, the last innermost.

        `grain` combinations make one task, where one alone would not be worth handing out. Where
        the multiply-adds of all of them, `work`, depend on a symbol, the kernel sees whether they
        are worth threads.
        """
        names = [self.b.let(c if isinstance(c, Expr) else self.expr(c), "count") for c, _ in levels]
        total: Expr = Const(1)
        for n in names:
            total = binary("mul", total, n)
        total = self.b.let(total, "total")
        kind = "parallel" if parallel else "serial"
        each: int | Expr = grain
        if parallel and not isinstance(work, int):
            small = binary("lt", self.expr(work), Const(SERIAL_WORK))
            each = self.b.let(select(small, binary("max", total, Const(1)), Const(grain)), "each")
        elif grain == 1:
            with self.b.loop(total, kind, "task") as task:
                self.decode(levels, names, task)
                yield
            return
        with self.b.loop((total + each - 1) // each, kind, "task") as task:
            first = self.b.let(task * each, "first")
            with self.b.loop(binary("min", first + each, total), name="part", lo=first) as part:
                self.decode(levels, names, part)
                yield

    def decode(self, levels: Sequence[Level], counts: Sequence[Expr], task: Expr) -> None:
        """Bind what the number of a `task` says of each level."""
        rest = task
        for position in reversed(range(len(levels))):
            index = rest if position == 0 else self.b.let(rest % counts[position], "t")
            _, what = levels[position]
            (what if callable(what) else self.binder(what))(index)
            if position:
                rest = self.b.let(rest // counts[position], "t")

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
        symbols = sorted(self._sizes)  # parameters are in the same order everywhere
        sizes = (*(self._sizes[s] for s in symbols), *self._counts)
        values = (*(SymInt.atom(self._symbols[s]) for s in symbols), *self._counts.values())
        kernel = Kernel(name, tuple(self._buffers.values()), sizes, self.b.body)
        return kernel, tuple(self._buffers), values

    def launch(
        self, label: str = "", flops: Dim = 0, moved: Dim = 0, prologue: bool = False
    ) -> Launch:
        """Append the kernel to what is lowered; the arguments are `Lowering.launch`'s."""
        return self.lowering.launch(*self.kernel(), label or self.hint, flops, moved, prologue)


def ceildiv(a: Expr, b: int) -> Expr:
    return binary("div", binary("add", a, Const(b - 1)), Const(b))


def clamp_min(a: Expr, low: int) -> Expr:
    return Const(max(a.value, low)) if isinstance(a, Const) else binary("max", a, Const(low))


def upper_bound(a: Expr, limit: Expr) -> Expr:
    """The smaller of two positions."""
    if isinstance(a, Const) and isinstance(limit, Const):
        return Const(min(a.value, limit.value))
    return binary("min", a, limit)
