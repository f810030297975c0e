"""What lowering a region may use: the region itself, slots, launches, names, error sites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.op import Kind, Op
from graphtorch.ir.shape import Dim, Shape, numel

from ...dataclass import dataclass, field
from ..ir import Kernel
from ..machine import STEP_TASK_NS, Machine
from ..text import nameless
from .program import ErrorSite, Item, Launch, Program, Slot, flat


@dataclass(eq=False)
class Region:
    """A fused part of the graph.

    `body` computes `results` (graph values, by position of its outputs) from `operands` (graph
    values, by position of its inputs).
    """

    kind: str
    body: Graph
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    node: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.body.nodes

    @property
    def label(self) -> str:
        names = [
            n.op.name
            for n in self.nodes
            if n.op.name not in ("constant", "reshape", "expand", "permute")
        ]
        return "+".join(names or [n.op.name for n in self.nodes] or ["copy"])


def region_of(node: Node) -> Region:
    """The region that a node stands for; an op outside a region becomes one with a body of its
    own."""
    if node.op.name == "region":
        return Region(node.attrs.kind, node.attrs.body, node.operands, node.results(), node)
    operands = tuple(dict.fromkeys(node.operands))
    inputs = [Value(v.type, name=f"x{i}") for i, v in enumerate(operands)]
    inner = node.with_operands(tuple(inputs[operands.index(v)] for v in node.operands))
    return Region(
        kind_of(node.op),
        Graph(node.op.name, inputs, inner.results()),
        operands,
        node.results(),
        node,
    )


def kind_of(op: Op) -> str:
    return (
        "contraction"
        if op.kind is Kind.CONTRACTION
        else "control"
        if op.kind is Kind.CONTROL
        else "loop"
    )


# Launches, prologue launches, slots, copies with what they hold; how many error sites were asked
# for.
Watched: TypeAlias = tuple[list[Item], list[Launch], list[Slot], list[tuple[Any, Slot]], int]


@dataclass(frozen=True)
class Schedules:
    """What a target does its own way with kernels; all else is the same for all.

    Attributes:
        map: makes the kernel that stores values element by element; takes what
            `loops.nest.MapKernel` does.
        reduce: launches the kernels of a group of reductions: (stages, group, outputs, layout).
        contract: launches the kernels of a contraction: (problem, region, lowering).
        scatter: launches the kernel of writes at computed positions: (places, updates, slot of the
            result).
        whole: by name of an op that reads and writes whole values, what launches its kernels:
            (places, node).
        operand: launches what computes a contraction's operand into memory: (region, lowering,
            value, slot); None: rows of it are tasks.
        own: what lowers a region in a way of the target's own; None for those that have none.
        elementwise: ops with kernels for rows or planes whose elements this target computes one by
            one, where they are needed.
    """

    map: Callable[..., Any]
    reduce: Callable[..., None]
    contract: Callable[..., Any]
    scatter: Callable[..., None]
    whole: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    elementwise: Collection[str] = ()
    operand: Callable[..., None] | None = None
    own: Callable[[Region], Callable[[Region, Lowering], None] | None] = lambda region: None


class Lowering:
    """What lowering a region may use: the machine, slots, launches, names, error sites."""

    def __init__(
        self, graph: Graph, machine: Machine, schedules: Schedules, stable: Iterable[int] = ()
    ):
        self.graph = graph
        self.machine = machine
        self.schedules = schedules
        self._slots: dict[Value, Slot] = {}
        self._names: dict[str, int] = {}
        self._kernels: dict[object, Kernel] = {}
        self._constants: dict[Literal, Slot] = {}
        self.copies: dict[
            object, Slot
        ] = {}  # packed and padded copies, by what they hold: made once, read by all
        self._stable: set[Value] = {graph.inputs[i] for i in stable}
        self._fixed: set[Value] = set()
        self.inputs = tuple(
            Slot("input", v.dtype, v.shape, v.type.numel, i, name=v.name)
            for i, v in enumerate(graph.inputs)
        )
        self.outputs = tuple(
            Slot("output", v.dtype, v.shape, v.type.numel, i) for i, v in enumerate(graph.outputs)
        )
        self._slots.update(zip(graph.inputs, self.inputs, strict=True))
        self._same: dict[Value, list[Slot]] = {}
        for value, slot in zip(graph.outputs, self.outputs, strict=True):
            self._same.setdefault(value, []).append(slot)
            # nobody computes those: a copy
            if value.node is None or value.node.op.name != "constant":
                self._slots.setdefault(value, slot)
        self.program = Program(graph.name, graph.symbols(), self.inputs, self.outputs)
        self.stored: set[Slot] = set()  # outputs that are the value of another one, filled with it
        self._block: list[Item] = self.program.launches
        self.cut: set[Value] = set()  # values of which many slices are read (pieces.py)
        self.repeats: dict[object, Any] = {}  # what was done for regions (repeat.py)
        self._made: list[Slot] = []
        self._errors = 0  # how often a site was asked for
        self.task_ns = machine.task_ns
        self._keeps = False  # what is lowered is computed when weights change
        self.serial = False  # in a loop that runs in parts: its kernels run on one thread each

    def slot(self, value: Value) -> Slot:
        """Where a value of the graph lives; a temporary is made on first use."""
        found = self._slots.get(value)
        if found is None:
            if value.node is not None and value.node.op.name == "constant":
                found = self.constant(value.node.attrs.value)
            else:
                found = self.temporary(value.dtype, value.shape)
            self._slots[value] = found
        return found

    def assign(self, value: Value, slot: Slot) -> None:
        """Let `value` live in `slot` (which another value left, or shares by a reshape)."""
        self._slots[value] = slot

    def twins(self, value: Value) -> list[Slot]:
        """The other outputs that are this value too."""
        return [slot for slot in self._same.get(value, ()) if slot is not self._slots.get(value)]

    def bind(self, inner: Value, outer: Value, fixed: bool = False) -> None:
        """Let a value of a nested graph live where `outer` does, whose elements it has; `fixed`: in
        all steps of the loop whose body this is."""
        self._slots[inner] = self.slot(outer)
        (self._stable.add if self.is_stable(outer) else self._stable.discard)(inner)
        (self._fixed.add if fixed or outer in self._fixed else self._fixed.discard)(inner)

    def has_slot(self, value: Value) -> bool:
        return value in self._slots

    def temporary(
        self, dtype: DType, shape: Shape, elements: Dim | None = None, name: str = ""
    ) -> Slot:
        """Memory for the time between its first and its last launch; `elements` where padded."""
        return self._new("packed" if self._keeps else "temporary", dtype, shape, elements, name)

    def packed(
        self, dtype: DType, shape: Shape, elements: Dim | None = None, name: str = ""
    ) -> Slot:
        """Memory that a prologue launch fills and that is kept between calls."""
        return self._new("packed", dtype, shape, elements, name)

    def _new(self, kind: str, dtype: DType, shape: Shape, elements: Dim | None, name: str) -> Slot:
        slot = Slot(
            kind, dtype, tuple(shape), numel(shape) if elements is None else elements, name=name
        )
        self._made.append(slot)
        return slot

    def constant(self, literal: Literal) -> Slot:
        """The slot of a constant; equal constants share one."""
        found = self._constants.get(literal)
        if found is None:
            elements = numel(literal.shape)
            found = Slot("constant", literal.dtype, literal.shape, elements, literal=literal)
            self._constants[literal] = found
        return found

    def is_stable(self, value: Value) -> bool:
        """Whether a value depends only on inputs that seldom change: what is derived from it is
        kept."""
        return value in self._stable or (
            value.node is not None and value.node.op.name == "constant"
        )

    def is_fixed(self, value: Value) -> bool:
        """Whether a value is the same in all steps of the loop around: what is packed from it is
        reused."""
        return value in self._fixed

    def launch(
        self,
        kernel: Kernel,
        slots: Sequence[Slot],
        sizes: Sequence[Dim] = (),
        label: str = "",
        flops: Dim = 0,
        bytes: Dim = 0,
        prologue: bool = False,
    ) -> Launch:
        """Append a kernel call; with `prologue` to the launches that run only when stable inputs
        change.

        Of equal kernels the first one is taken.
        """
        key = nameless(kernel), tuple(b.align for b in kernel.buffers)
        kernel = self._kernels.setdefault(key, kernel)
        launch = Launch(kernel, tuple(slots), tuple(sizes), label, flops, bytes)
        self.add(launch, prologue)
        return launch

    def add(self, launch: Launch, prologue: bool) -> None:
        (self.program.prologue if prologue else self._block).append(launch)

    @property
    def setting(self) -> tuple[object, ...]:
        """What the kernels of a region depend on beside the region."""
        return self.in_block, self.serial, self.task_ns

    @contextmanager
    def watched(self) -> Iterator[Callable[[], Watched]]:
        """Gives a function that tells what was lowered since."""
        block, launches, made = self._block, len(self._block), len(self._made)
        prologue, copies, errors = len(self.program.prologue), len(self.copies), self._errors
        yield lambda: (
            block[launches:],
            self.program.prologue[prologue:],
            self._made[made:],
            list(self.copies.items())[copies:],
            self._errors - errors,
        )

    @property
    def in_block(self) -> bool:
        """Whether what is lowered stands inside a loop or branch."""
        return self._block is not self.program.launches

    def append(self, item: Item) -> None:
        """Append a loop or a branch."""
        self._block.append(item)

    @contextmanager
    def block(self) -> Iterator[list[Item]]:
        """Launches made inside go to the list it gives: the body of a loop or branch."""
        before, self._block = self._block, []
        task_ns, self.task_ns = self.task_ns, min(self.task_ns, STEP_TASK_NS)
        try:
            yield self._block
        finally:
            self._block, self.task_ns = before, task_ns

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Launches made inside go to the prologue, and memory they need is kept between calls."""
        before, self._block, self._keeps = self._block, self.program.prologue, True  # type: ignore[assignment]
        try:
            yield
        finally:
            self._block, self._keeps = before, False

    def forget(self) -> None:
        """Nothing is kept but what calls read, once everything is lowered: scaled filters, say,
        that were packed."""
        if self.program.symbols:
            return  # the memory of a call has no size when weights change
        launches = flat(self.program.launches)
        read = {root for launch in launches for slot in launch.slots for root in slot.roots()}
        for slot in self.program.packed():
            if slot not in read:
                slot.kind = "temporary"

    def keep(self, value: Value) -> None:
        """From now on `value` counts as one that seldom changes."""
        self._stable.add(value)

    def fail_site(self, node: Node, message: str, kind: str = "index") -> int:
        """The number under which kernels report that `message` happened at `node`."""
        self._errors += 1
        site = ErrorSite(node.op.name, message, node.location, kind)
        if site not in self.program.errors:
            self.program.errors.append(site)
        return self.program.errors.index(site)

    def kernel_name(self, hint: str) -> str:
        """A name no other kernel of the program has."""
        hint = "".join(c if c.isalnum() else "_" for c in hint)[:48]
        count = self._names.get(hint, 0)
        self._names[hint] = count + 1
        return hint if count == 0 else f"{hint}_{count}"
