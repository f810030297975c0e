"""Calling compiled code: one native call, with as little Python around it as checking and memory
need."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import Dim, SymInt, evaluate, numel

from ..buffer import SMALL, Block, Buffer, size_class, small
from ..kernels.program.abi import HEADER, SIZES
from ..objects import New
from ..record import Record
from .builtin import caller, launch
from .frames import Context, Linked, Sized, table_of_sizes
from .image import Image
from .prologue import Packed

_new = object.__new__

SIZES_LIMIT = 1024  # combinations of symbol values remembered
SHARED = 4096  # bytes: several small outputs lie in one piece, which costs as much to get as each


class Checked:
    """Stable inputs that were found to fit, and what follows from them. It keeps them until others
    come."""

    __slots__ = ("buffers", "mark", "packed", "sized", "words")

    def __init__(self, sized: Sized, buffers: Sequence[Buffer], words: list[int]):
        self.sized = sized
        self.mark = object()  # of frames that hold its words
        self.buffers = buffers
        self.words = words
        self.packed: Block | None = None  # what was made of them


class Single(NamedTuple):
    """A program with one output, to be called in line.

    A call takes one of `contexts` whose frame holds the stable inputs (`Context.holds` is
    `Checked.mark` of `program.checked`), calls what `caller` gives with the frame's address, and
    gives the context back.
    """

    program: Executable
    contexts: list[Context]
    output: int  # where in a frame the output's address goes
    dtype: DType
    shape: tuple[int, ...]
    size: int  # of the output's memory: a size class

    @property
    def is_small(self) -> bool:
        """Whether a call makes the output's memory itself."""
        return self.size <= SMALL

    def caller(self, count: int, new: New) -> Callable[..., Any]:
        """What makes a call: of the frame's address, then a block for the output and its address
        unless the output `is_small`, and the addresses of the first `count` inputs; the others are
        in the frame.

        Returns: a `new`, where `Given(0)` is the owner of the output's memory and `Given(1)` its
            address; or the status of the walk, if it is not 0.
        """
        return caller(HEADER, count, self.output, self.size if self.is_small else 0, new)


class Executable:
    """A compiled graph: buffers in, buffers out. Any number of threads may call it at once."""

    def __init__(
        self, record: Record, constants: bytes, images: Sequence[Image], stable: Sequence[int] = ()
    ):
        self.record = record
        self._linked = Linked(record, constants, images)
        self._walk = launch()
        self._contexts: list[Context] = []
        self._first = HEADER + len(record.inputs)  # where in a frame the outputs begin
        self._sources = [_source(record, s.name) for s in record.symbols]
        self._sizes: dict[tuple[int, ...], Sized] = {}
        self._static = None if record.symbols else self._at(())
        self._donated = tuple(sorted({a.alias for a in record.outputs if a.alias is not None}))
        self._packed = Packed(record, self._linked)
        self._packs = record.prologue is not None
        self._fixed = _stable_tail(len(record.inputs), stable)  # inputs from here on seldom change
        self.checked: Checked | None = None  # those of the last call

    def __call__(self, inputs: Sequence[Buffer], more: Sequence[Buffer] = ()) -> list[Buffer]:
        """The outputs, in new memory or in that of the inputs they take over.

        Args:
            more: the inputs after `inputs`. The same object as at the call before is not looked at
                again: it must not be changed.

        Raises:
            TypeError, RuntimeError: number, dtype or shape of an input is not what was compiled
                for.
            IndexError: an index in the data is out of range; names the op and the user's line.
        """
        checked = self.checked
        if checked is None or checked.buffers is not more or checked.sized is not self._static:
            checked, inputs, more = self._check([*inputs, *more], more)
        sized = checked.sized
        if len(inputs) + len(checked.words) != len(sized.inputs):
            raise TypeError(
                f"{self.record.name} takes {len(sized.inputs)} inputs, but got "
                f"{len(inputs) + len(more)}"
            )
        try:
            context = self._contexts.pop()
        except IndexError:
            context = Context(self._linked.launches)
        frame, at = context.arguments, HEADER
        for b, (dtype, shape) in zip(inputs, sized.inputs):  # noqa: B905  # those of `more` come after
            if b.shape != shape or b.dtype is not dtype:
                self._refuse([*inputs, *more])
            frame[at] = b.address
            at += 1
        if context.holds is not checked.mark:
            packed = self._fill(context, inputs, more, checked)  # noqa: F841  # kept during the call
            if self._donated:
                inputs, more = self._unshared([*inputs, *more], frame), ()
        outputs = _outputs(sized, inputs, frame, self._first)
        status = self._walk(context.pointer)
        self._contexts.append(context)
        if status:
            raise self.error(status)
        return outputs

    def single(self) -> Single | None:
        """What a call takes that has one output in memory of its own, of one shape; None for
        programs of other kinds."""
        outputs = () if self._static is None else self._static.outputs
        if len(outputs) != 1 or self._donated:
            return None
        ((dtype, shape, size, *_),) = outputs
        return Single(self, self._contexts, self._first, dtype, shape, size)

    def error(self, status: int) -> Exception:
        """What a walk's `status` other than 0 stands for."""
        return self.record.errors[status - 1].error()

    def _check(
        self, inputs: list[Buffer], more: Sequence[Buffer]
    ) -> tuple[Checked, Sequence[Buffer], Any]:
        """What is known of the last inputs, and all of them as those before these and these."""
        sized = self._static or self._sized(inputs)
        if len(inputs) != len(sized.inputs):
            raise TypeError(
                f"{self.record.name} takes {len(sized.inputs)} inputs, but got {len(inputs)}"
            )
        count = len(inputs) - len(more) if more else self._fixed
        checked = self.checked
        if count < self._fixed or self._static is None:
            count, more = self._fixed, ()
        tail: Sequence[Buffer] = more or inputs[count:] or ()
        # the same objects
        if checked is None or checked.sized is not sized or checked.buffers != tail:
            words = self._addresses(tail, sized.inputs[count:], inputs)
            checked = self.checked = Checked(sized, tail, words)
        elif more:
            checked.buffers = more
        return checked, inputs[:count], tail

    def _addresses(
        self,
        buffers: Sequence[Buffer],
        expected: Sequence[tuple[DType, tuple[int, ...]]],
        inputs: Sequence[Buffer],
    ) -> list[int]:
        words = []
        for b, (dtype, shape) in zip(buffers, expected, strict=False):
            if b.shape != shape or b.dtype is not dtype:
                self._refuse(inputs)
            words.append(b.address)
        return words

    def _fill(
        self, context: Context, inputs: Sequence[Buffer], more: Sequence[Buffer], checked: Checked
    ) -> Block | None:
        """Write to a frame what is the same at a call with the same stable inputs.

        Returns: the owner of what was packed of inputs.
        """
        frame: Any = context.arguments
        sized = checked.sized
        frame[SIZES] = sized.table
        frame[self._first - len(checked.words) : self._first] = checked.words
        end = self._first + len(sized.outputs)
        frame[end] = context.reserve(sized.arena)
        packed = checked.packed
        if self._packs and packed is None:
            packed = self._pack_inputs(inputs, more, checked, frame[end])
        frame[end + 1] = 0 if packed is None else packed.address
        # what a donated input's place holds is another copy at each call
        lasts = not self._donated and packed is checked.packed
        context.holds = checked.mark if lasts else None
        return packed

    def _pack_inputs(
        self, inputs: Sequence[Buffer], more: Sequence[Buffer], checked: Checked, arena: int
    ) -> Block:
        """What the prologue makes of the inputs that seldom change."""
        block = self._packed.get([*inputs, *more], more, checked.sized, arena)
        if self._packed.first >= len(inputs):
            checked.packed = block
        return block

    def explain(self) -> str:
        """What runs: a line a kernel, memory, and totals."""
        return self.record.explanation

    # ---- sizes

    def _sized(self, inputs: Sequence[Buffer]) -> Sized:
        if len(inputs) != len(self.record.inputs):
            raise TypeError(
                f"{self.record.name} takes {len(self.record.inputs)} inputs, but got {len(inputs)}"
            )
        try:
            values = tuple(
                [
                    (inputs[i].shape[axis] - offset) // factor
                    for i, axis, factor, offset in self._sources
                ]
            )
        except IndexError:
            self._refuse(inputs)
        found = self._sizes.get(values)
        if found is None:
            if len(self._sizes) >= SIZES_LIMIT:
                self._sizes.clear()
            found = self._sizes[values] = self._at(values)
        return found

    def _at(self, values: tuple[int, ...]) -> Sized:
        record = self.record
        for symbol, value in zip(record.symbols, values, strict=True):
            if not symbol.min <= value <= symbol.max:
                raise RuntimeError(
                    f"{record.name}: size {symbol.name} is {value}, but it was declared to be in "
                    f"{symbol.min}..{symbol.max}: widen the range of its Dim"
                )
        sizes = {s.name: v for s, v in zip(record.symbols, values, strict=True)}
        inputs = tuple((DType.named(a.dtype), _shape(a.shape, sizes)) for a in record.inputs)
        outputs, shared = [], 0
        several = sum(a.alias is None for a in record.outputs) > 1
        for a in record.outputs:
            dtype, shape = DType.named(a.dtype), _shape(a.shape, sizes)
            size, offset = size_class(int(numel(shape)) * dtype.itemsize), -1
            if several and a.alias is None and size <= SMALL and shared + size <= SHARED:
                shared, offset = shared + size, shared
            outputs.append((dtype, shape, size, a.alias, offset))
        table = table_of_sizes(record, sizes)
        return Sized(
            inputs,
            tuple(outputs),
            size_class(shared) if shared else 0,
            values,
            int(evaluate(record.arena, sizes)),
            ctypes.addressof(table),
            table,
        )

    def _refuse(self, inputs: Sequence[Buffer]) -> None:
        """Say which input is not what was compiled for."""
        for i, (b, a) in enumerate(zip(inputs, self.record.inputs, strict=True)):
            name = f"input {i}" + (f" ({a.name})" if a.name else "")
            if b.dtype is not DType.named(a.dtype):
                raise TypeError(f"{self.record.name}: {name} is {b.dtype}, expected {a.dtype}")
            if len(b.shape) != len(a.shape) or any(
                isinstance(d, int) and d != n for d, n in zip(a.shape, b.shape, strict=True)
            ):
                raise RuntimeError(
                    f"{self.record.name}: {name} has shape {list(b.shape)}, expected "
                    f"[{', '.join(map(str, a.shape))}]"
                )
        shapes = [
            f"{a.name or i} has shape {list(b.shape)} for [{', '.join(map(str, a.shape))}]"
            for i, (a, b) in enumerate(zip(self.record.inputs, inputs, strict=True))
            if not all(isinstance(d, int) for d in a.shape)
        ]
        raise RuntimeError(
            f"{self.record.name}: sizes that were given one Dim must be equal: {', '.join(shapes)}"
        )

    def _unshared(self, inputs: Sequence[Buffer], frame: Any) -> Sequence[Buffer]:
        """`inputs` with a copy of each donated one whose memory another input also reads."""
        shared = _overlapping(inputs)
        for i in self._donated:
            if i in shared:
                copy = Buffer.empty(inputs[i].dtype, inputs[i].shape)
                copy.numpy()[...] = inputs[i].numpy()
                inputs = [*inputs[:i], copy, *inputs[i + 1 :]]
                frame[HEADER + i] = copy.address
        return inputs


def _overlapping(buffers: Sequence[Buffer]) -> set[int]:
    """Which of the buffers share memory with another one."""
    spans = sorted([(b.address, b.address + b.nbytes, i) for i, b in enumerate(buffers)])
    found: set[int] = set()
    end, widest = 0, -1  # where the furthest of those before ends, and which it is
    for low, high, i in spans:
        if low < end and low < high:
            found |= {i, widest}
        if high > end:
            end, widest = high, i
    return found


def _outputs(sized: Sized, inputs: Sequence[Buffer], frame: Any, at: int) -> list[Buffer]:
    """Memory for the outputs; their addresses go to `frame`, from `at` on."""
    outputs = []
    common: Any = None
    for dtype, shape, size, alias, offset in sized.outputs:
        made: Buffer = _new(Buffer)  # its constructor in line: every call makes some
        made.dtype, made.shape = dtype, shape
        if alias is not None:
            made.address, made.owner = inputs[alias].address, inputs[alias].owner
        elif offset < 0:
            if size <= SMALL:
                made.owner, made.address = small(size)
            else:
                made.owner = block = Block(size)
                made.address = block.address
        else:
            if common is None:
                common, start = small(sized.shared)
            made.owner, made.address = common, start + offset
        frame[at] = made.address
        at += 1
        outputs.append(made)
    return outputs


def _stable_tail(count: int, stable: Sequence[int]) -> int:
    """The position from which on all of `count` inputs are stable."""
    known = set(stable)
    while count and count - 1 in known:
        count -= 1
    return count


def _shape(shape: tuple[Dim, ...], sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(int(evaluate(d, sizes)) for d in shape)


def _source(record: Record, name: str) -> tuple[int, int, int, int]:
    """Where symbol `name` is read off: input, axis, factor and offset of ``factor * name +
    offset``."""
    found = None
    for i, a in enumerate(record.inputs):
        for axis, dim in enumerate(a.shape):
            line = _linear(dim, name)
            if line is not None and (found is None or line == (1, 0) != found[2:]):
                found = (i, axis, *line)
    if found is None:
        raise ValueError(
            f"{record.name}: size {name} stands in no input's shape, so that a call cannot know it"
        )
    return found


def _linear(dim: Dim, name: str) -> tuple[int, int] | None:
    if not isinstance(dim, SymInt):
        return None
    factors = {tuple(str(a) for a in monomial): factor for monomial, factor in dim.terms}
    if set(factors) <= {(name,), ()} and (name,) in factors:
        return factors[name,], factors.get((), 0)
    return None
