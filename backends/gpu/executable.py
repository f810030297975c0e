"""Running compiled programs on a device.

What follows from the shapes of a call alone is found once for them: sizes, places in the arena,
grids, and the words of all arguments but for the addresses (walk.py, arguments.py). A call then
takes memory for outputs and temporaries, adds the addresses to the words and puts launch after
launch into the device's queue.

A call with the same addresses as an earlier one replays a captured graph. Steady programs, such as
a step of training, meet the same addresses again and again, because parameters are updated in place
and the pool gives back the memory that was freed last; so nothing is copied, and no memory is kept
for a graph, which is used only when a call has just been given the memory that it was captured
with. Where addresses keep changing nothing is captured any more.

What is made of inputs that seldom change (weights) is kept, with the memory that it lies in: calls
that bring the same buffers leave those launches out. Where one is another the launches are part of
the call, into new memory, so that calls of other threads still read what they began with.

Programs with loops or branches that look at the device's memory are walked in each call, which
waits there.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence

from graphtorch.ir.dtype import DType
from graphtorch.ir.evaluate import bind_sizes
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import evaluate

from ..buffer import Buffer
from ..dataclass import dataclass, field
from ..record import Record
from .buffer import DeviceBuffer
from .device import Device, Launch, Memory, Module, Series
from .status import WORD
from .walk import Kernel, Place, Walk

ALIGNMENT = 256  # bytes: of what is copied to the device
SHAPES = 64  # for so many combinations of shapes what was found is kept
SERIES = 64  # so many series of launches are kept between looks at memory
MOST_LAUNCHES = 1 << 15  # of a series
FEWEST_LAUNCHES = 4  # that are worth a graph
GRAPHS = 8  # captured, for each combination of shapes
ADDRESSES = 64  # combinations of addresses that are remembered

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Built:
    """A compiled graph without its code: how it is called, its constants, its kernels by number."""

    record: Record
    constants: bytes
    kernels: tuple[Kernel, ...]


class Kept:
    """What the prologue made of the inputs that seldom change, and what it was made of."""

    def __init__(self, prepared: Prepared, inputs: Sequence[DeviceBuffer | Buffer], memory: Memory):
        self.prepared = prepared
        self.inputs = [weakref.ref(x) for x in inputs]
        self.memory = memory

    def serves(self, prepared: Prepared, inputs: Sequence[DeviceBuffer | Buffer]) -> bool:
        """Whether these buffers, in a call of these sizes, would lead to the same."""
        same = self.prepared is prepared or self.prepared.prologue == prepared.prologue
        return same and all(ref() is x for ref, x in zip(self.inputs, inputs, strict=True))


class Executable:
    """A compiled graph on one device: buffers in, buffers out."""

    def __init__(self, built: Built, module: Module, device: Device):
        """Args: module: the unit that `built` was written into, loaded on `device`."""
        record, constants = built.record, built.constants
        self.record = record
        self.device = device
        self._kernels = built.kernels
        self.module = module
        self._constants = device.allocate(len(constants))
        if constants:
            device.write(self._constants.address, constants)
        self._status = device.status(record.errors) if record.errors else None
        self._inputs = [Value(Type(DType.named(a.dtype), a.shape)) for a in record.inputs]
        self._takes = [(a.alias, DType.named(a.dtype)) for a in record.outputs]
        self._prepared: OrderedDict[Shapes, Prepared] = OrderedDict()
        self._kept: Kept | None = None
        self._series: OrderedDict[tuple[Launch, ...], Series] = OrderedDict()

    def __call__(
        self, inputs: Sequence[DeviceBuffer | Buffer], more: Sequence[DeviceBuffer | Buffer] = ()
    ) -> list[DeviceBuffer]:
        """The outputs, in new memory or in that of the inputs that they take over.

        It returns when the work is in the device's queue. IndexError and LinAlgError, which name
        the op and the user's line, and DeviceError, are raised where the device is waited for next.

        Args: inputs, more: as `backends.Executable` takes them; what is in the host's memory is
            copied first.
        Raises: TypeError, RuntimeError: number, dtype or shape of an input is not what was compiled
            for.
        """
        given = [*inputs, *more]
        self._check(given)
        prepared = self._prepare(tuple([x.shape for x in given]))
        arrays = self._on_device(given)
        kept = self._kept_for(prepared, given)
        run = prepared.whole if kept is None else prepared.rest
        memories = self.device.allocate_all(run.sizes, run.wishes())
        run.given(tuple([m.address for m in memories]))
        arena, packed = memories[-2:] if kept is None else (memories[-1], kept)
        outputs = self._outputs(prepared, arrays, memories)
        addresses = (
            *[x.address for x in arrays],
            *[x.address for x in outputs],
            arena.address,
            packed.address,
            self._constants.address,
            self._status.address if self._status else 0,
        )
        if run.series is None:
            self._walk(prepared, run, addresses)
        else:
            run(self.device, addresses, prepared.extents)
        if kept is None and self.record.prologue is not None:
            self._kept = Kept(prepared, [given[i] for i in self.record.prologue], packed)
        if self._status:
            self.device.expect(self._status)
        return outputs

    def _kept_for(
        self, prepared: Prepared, given: Sequence[DeviceBuffer | Buffer]
    ) -> Memory | None:
        """The memory with what the prologue would make of these inputs; None where it has to."""
        kept, read = self._kept, self.record.prologue
        if kept is None or read is None or not kept.serves(prepared, [given[i] for i in read]):
            return None
        return kept.memory

    def _prepare(self, shapes: Shapes) -> Prepared:
        """What is known of calls with these shapes. Raises: RuntimeError: the program does not take
        them."""
        found = self._prepared.get(shapes)
        if found is None:
            found = self._new(bind_sizes(self._inputs, shapes), shapes)
            self._prepared[shapes] = found
            if len(self._prepared) > SHAPES:
                self._prepared.popitem(last=False)
        return found

    def _new(self, sizes: dict[str, int], shapes: Shapes) -> Prepared:
        record = self.record
        outputs = [tuple(int(evaluate(d, sizes)) for d in a.shape) for a in record.outputs]
        arena, packed = int(evaluate(record.arena, sizes)), int(evaluate(record.packed, sizes))
        arrays = [
            *zip(record.inputs, shapes, strict=True),
            *zip(record.outputs, outputs, strict=True),
        ]
        extents = [math.prod(shape) * DType.named(a.dtype).itemsize for a, shape in arrays]
        words = [int(evaluate(d, sizes)) for d in record.launches.sizes]
        new = [
            n
            for n, a in zip(extents[len(shapes) :], record.outputs, strict=True)
            if a.alias is None
        ]
        table = self.record.launches
        prepared = Prepared(
            outputs,
            words,
            (*extents, arena, packed, self._constants.size, WORD if self._status else 0),
            Run((table.prologue, table.code), (*new, arena, packed)),
            Run((table.code,), (*new, arena)),
        )
        prepared.prologue = tuple(self._walked(prepared, (table.prologue,), _unknown).launches)
        again = () if self.record.prologue is None else (prepared.rest,)
        for run in (prepared.whole, *again):
            self._decide(prepared, run)
        return prepared

    def _decide(self, prepared: Prepared, run: Run) -> None:
        """Make the launches ready that follow from the sizes alone."""
        try:
            launches = self._walked(prepared, run.codes, _unknown).launches
        except Undecided:
            return
        if len(launches) <= MOST_LAUNCHES:
            run.series, run.launches = self.module.series(launches), len(launches)

    def _walked(
        self,
        prepared: Prepared,
        codes: Sequence[Sequence[int]],
        test: Callable[[Walk, Place], bool],
    ) -> Walk:
        walk = Walk(self._kernels, prepared.words, len(prepared.extents) - 2, test)
        for code in codes:
            walk.run(code)
        return walk

    def _walk(self, prepared: Prepared, run: Run, addresses: Sequence[int]) -> None:
        """A call that looks at the device's memory on its way."""

        def test(walk: Walk, place: Place) -> bool:
            self._launch(walk, prepared, addresses)
            return self.device.read(addresses[place[0]] + place[1], 1) != b"\0"

        self._launch(self._walked(prepared, run.codes, test), prepared, addresses)

    def _launch(self, walk: Walk, prepared: Prepared, addresses: Sequence[int]) -> None:
        """Launch what a walk has found."""
        for first in range(0, len(walk.launches), MOST_LAUNCHES):
            key = tuple(walk.launches[first : first + MOST_LAUNCHES])
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = self.module.series(key)
                if len(self._series) > SERIES:
                    self._series.popitem(last=False)
            series(addresses, prepared.extents)
        walk.launches = []

    def explain(self) -> str:
        """What runs: the kernels by their names, and what memory they need."""
        record = self.record
        lines = [
            f"{record.name} on {self.device.properties.name}: {len(self._kernels)} kernels, "
            f"arena {record.arena} bytes"
        ]
        lines += [
            f"  {name}: {len(kernel.stages)} launches"
            for name, kernel in zip(record.launches.functions, self._kernels, strict=True)
        ]
        return "\n".join(lines) + "\n"

    def _check(self, inputs: Sequence[DeviceBuffer | Buffer]) -> None:
        if len(inputs) != len(self._inputs):
            raise TypeError(
                f"{self.record.name} takes {len(self._inputs)} inputs, but got {len(inputs)}"
            )
        for i, (x, v) in enumerate(zip(inputs, self._inputs, strict=True)):
            if x.dtype is not v.dtype:
                raise TypeError(f"input {i} of {self.record.name} is {v.dtype}, but got {x.dtype}")
            if len(x.shape) != len(v.shape):
                raise RuntimeError(
                    f"input {i} of {self.record.name} has shape {v.shape}, but got {x.shape}"
                )

    def _on_device(self, given: Sequence[DeviceBuffer | Buffer]) -> list[DeviceBuffer]:
        """The inputs on the device; those of the host, which are many numbers, in one copy."""
        host = [x for x in given if isinstance(x, Buffer)]
        if not host:
            return list(given)  # type: ignore[arg-type]
        starts, total = [], 0
        for x in host:
            starts.append(total)
            total += -(-(x.nbytes if x.address else 0) // ALIGNMENT) * ALIGNMENT
        memory, staged = self.device.allocate(total), bytearray(total)
        made = []
        for x, start in zip(host, starts, strict=True):
            if x.address:  # else only its sizes count
                staged[start : start + x.nbytes] = ctypes.string_at(x.address, x.nbytes)
            made.append(DeviceBuffer(self.device, x.dtype, x.shape, memory, memory.address + start))
        if total:
            self.device.write(memory.address, staged)
        copied = iter(made)
        return [next(copied) if isinstance(x, Buffer) else x for x in given]

    def _outputs(
        self, prepared: Prepared, inputs: Sequence[DeviceBuffer], memories: Sequence[Memory]
    ) -> list[DeviceBuffer]:
        """The outputs: in the next of the memories, or where the input was that they take over."""
        made, given = [], iter(memories)
        for (alias, dtype), shape in zip(self._takes, prepared.shapes, strict=True):
            memory = next(given) if alias is None else inputs[alias].memory
            address = memory.address if alias is None else inputs[alias].address
            made.append(DeviceBuffer(self.device, dtype, shape, memory, address))
        return made


class Undecided(Exception):
    """What happens depends on what is in the device's memory."""


def _unknown(walk: Walk, place: Place) -> bool:
    raise Undecided


@dataclass
class Prepared:
    """What is known of calls with certain shapes.

    Attributes:
        shapes: of the outputs.
        words: the values of the record's `Launches.sizes`.
        extents: bytes of each memory: inputs, outputs, arena, packed memory, constants, status.
        whole, rest: a call, and one for which what the prologue makes was kept.
        prologue: the launches that `rest` leaves out.
    """

    shapes: list[tuple[int, ...]]
    words: list[int]
    extents: tuple[int, ...]
    whole: Run
    rest: Run
    prologue: tuple[Launch, ...] = ()


@dataclass
class Run:
    """The launches of a call with certain shapes.

    Attributes:
        codes: the instructions that they come from.
        sizes: bytes of what the call allocates: outputs, memory for temporaries and for what is
            packed, unless that was kept.
        series: the launches; None where they depend on what is in memory.
        graphs: what was captured, by addresses.
        seen: the addresses of earlier calls.
    """

    codes: Sequence[Sequence[int]]
    sizes: tuple[int, ...]
    series: Series | None = None
    launches: int = 0
    graphs: OrderedDict[tuple[int, ...], Callable[[], None]] = field(default_factory=OrderedDict)
    seen: OrderedDict[tuple[int, ...], None] = field(default_factory=OrderedDict)
    captures: int = 0
    replays: int = 0
    last: Sequence[int] = ()
    before: Sequence[int] = ()

    def wishes(self) -> Sequence[Sequence[int]]:
        """The addresses that the memory of the last calls had: that of the last one may still be in
        use."""
        if not self.before:
            return [()] * len(self.sizes)
        return list(zip(self.last, self.before, strict=True))

    def given(self, addresses: Sequence[int]) -> None:
        """Note where a call's memory is."""
        self.before, self.last = self.last or addresses, addresses

    def __call__(self, device: Device, addresses: tuple[int, ...], extents: Sequence[int]) -> None:
        """Launch, or replay the graph of the launches with these addresses."""
        assert self.series is not None
        graph = self.graphs.get(addresses)
        if graph is None and self._captures(addresses):
            graph = self._capture(device, addresses, extents)
        if graph is None:
            self.series(addresses, extents)
        else:
            self.replays += 1
            graph()

    def _captures(self, addresses: tuple[int, ...]) -> bool:
        """Whether a graph is worth it: these addresses come again, and graphs were used so far."""
        if self.launches < FEWEST_LAUNCHES or self.captures > GRAPHS + self.replays:
            return False
        if addresses in self.seen:
            return True
        self.seen[addresses] = None
        if len(self.seen) > ADDRESSES:
            self.seen.popitem(last=False)
        return False

    def _capture(
        self, device: Device, addresses: tuple[int, ...], extents: Sequence[int]
    ) -> Callable[[], None]:
        assert self.series is not None
        device.begin_capture()
        try:
            self.series(addresses, extents)
        finally:
            graph = device.end_capture()
        self.captures += 1
        self.graphs[addresses] = graph
        if len(self.graphs) > GRAPHS:
            self.graphs.popitem(last=False)
        return graph
