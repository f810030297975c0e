"""Generators: a state in a storage, so that draws are recorded, run, captured and replayed as
writes are.

A draw takes the state's value and leaves the next one; that nobody uses what was drawn changes
nothing for the draws after it. `streams` says what a state is and how numbers are made of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphtorch.backends.locks import lock_across_forks
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Type, Value

from .._deferred import running
from .._deferred.device_storage import stored
from .._deferred.storage import Leaf, Storage, recorder
from .._deferred.tensor import Tensor
from .._ops.creation import from_array, leaf_on
from .._types import CPU, META, check_device, device
from . import quick
from .streams import STREAMS, Stream

drawing = lock_across_forks()  # no number is drawn by two threads
DEFAULT_SEED = 67280421310721  # as PyTorch's
WAITING = 64  # draws whose states may wait to be computed


class Generator:
    """A stream of random numbers of its own: what `manual_seed` began, up to where it was used.

    Args:
        device: 'cpu', or a GPU, where the stream is Philox's.
    """

    stream: Stream
    device: Any

    def __init__(self, device: Any = "cpu"):
        self.device = check_device(device)
        if self.device is META:
            raise RuntimeError("META device type not an accelerator: generators are on the 'cpu'")
        self.stream = STREAMS[_stream_of_new if self.device is CPU else "philox"]
        self._seed = DEFAULT_SEED
        self._cell: Storage | None = None  # the state, made when it is needed
        self._waiting = 0

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed` again; returns the generator."""
        seed = int(seed)
        if not -(1 << 63) <= seed < (1 << 64):
            raise RuntimeError(
                f"Overflow when unpacking long long: seed {seed} is outside [-2**63, 2**64)"
            )
        if recorder.capture is not None:
            recorder.capture.reseeded()
        self._start(seed)
        return self

    def _start(self, seed: int) -> None:
        self._seed = seed
        if self._cell is not None:
            self.back_to((seed, leaf_on(self.stream.begin(seed), self.device)))

    def seed(self) -> int:
        """Start a stream that cannot be foreseen; returns its seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self._seed

    def initial_seed(self) -> int:
        """The seed of the present stream."""
        return self._seed & ((1 << 64) - 1)

    def get_state(self) -> Tensor:
        """The state as a byte tensor, which PyTorch's generators take and give as well."""
        return from_array(self._bytes().copy())

    def _bytes(self) -> np.ndarray:
        storage = self._storage()
        running.settle(storage)
        return running.array_of(storage.value, self.device).view(np.uint8)

    def set_state(self, new_state: Tensor) -> Generator:
        """Continue where `get_state` was called, here or in PyTorch.

        Raises:
            TypeError: not a byte tensor. RuntimeError: not a state of a generator.
        """
        if not isinstance(new_state, Tensor) or new_state._type.dtype.name != "u8":
            raise TypeError(
                f"expected a torch.ByteTensor, but got "
                f"{getattr(new_state, 'dtype', type(new_state).__name__)}"
            )
        given = np.ascontiguousarray(new_state._array()).reshape(-1)
        stream = next((s for s in STREAMS.values() if s.size * 8 == given.size), None)
        if stream is None:
            sizes = " or ".join(f"{s.size * 8:,} ({s.name})" for s in STREAMS.values())
            raise RuntimeError(
                f"set_state: RNG state is wrong size: a generator's state has {sizes} bytes, "
                f"got {given.size:,}"
            )
        state = given.copy().view(np.int64)
        stream.check(state)
        if recorder.capture is not None:
            recorder.capture.reseeded()
        if self.device is not CPU and stream.name != "philox":
            raise RuntimeError(
                "set_state: generators on GPUs draw from Philox, and this is the state of "
                "another stream"
            )
        self.stream = stream
        self.back_to((stream.seed_of(state), leaf_on(state, self.device)))
        return self

    def clone_state(self) -> Generator:
        """A generator at the same place."""
        made = Generator(self.device)
        made.stream = self.stream
        made.back_to(self.mark())
        return made

    def graphsafe_get_state(self) -> Generator:
        """A generator at the same place."""
        return self.clone_state()

    def graphsafe_set_state(self, state: Generator) -> Generator:
        """Continue at the place of another generator."""
        self.stream = state.stream
        self.back_to(state.mark())
        return self

    def get_offset(self) -> int:
        """How many counters of a Philox stream were used."""
        return self.stream.offset(self._bytes().view(np.int64))

    def set_offset(self, offset: int) -> None:
        """Move to a place in a Philox stream."""
        state = self.stream.at_offset(self._bytes().view(np.int64), int(offset))
        self.back_to((self._seed, leaf_on(state, self.device)))

    def use(self, stream: str) -> None:
        """Start the present seed's numbers again in another kind of stream: 'mersenne' or
        'philox'."""
        self.stream = STREAMS[stream]
        # another shape of state: recordings made with the old one are not met again
        self._cell = None

    # -- for the functions that draw

    def _storage(self) -> Storage:
        if self._cell is None:
            self._cell = stored(leaf_on(self.stream.begin(self._seed), self.device), self.device)
        return self._cell

    def advance(self, step: Callable[[Value], tuple[Value, Value]]) -> Value:
        """What ``step(state)`` draws; its second result is the state from now on."""
        with drawing:
            storage = self._storage()
            drawn, after = step(storage.read())
            running.store(storage, after)
            self._waiting += 1
            if self._waiting >= WAITING and recorder.capture is None:
                self._waiting = 0
                running.settle(storage)
        return drawn

    def draw(self, method: str, shape: tuple[Any, ...] | None, *arguments: Any) -> Value:
        """``stream.method(self, *arguments)``.

        Args:
            shape: of what is drawn, which is refused before the stream moves where it cannot be
                addressed; None for a draw that has operands, and so is always recorded.
        """
        if shape is not None and recorder.capture is None and self.device is CPU:
            kind = self.stream, method, arguments
            program = quick.programs.get(kind) or quick.met(kind, shape)
            if program is not None:
                with drawing:
                    cell = self._cell or self._storage()
                    state = cell.value
                    if type(state) is Leaf and cell.host is None:
                        numbers, after = program(state.buffer)
                        cell.put(Leaf(after))
                        return Leaf(numbers)
        running.locate()
        if shape is not None:
            Type(f32, shape)
        if recorder.capture is not None:
            return recorder.capture.draw(self, method, arguments)  # type: ignore[no-any-return]
        return getattr(self.stream, method)(self, *arguments)  # type: ignore[no-any-return]

    def mark(self) -> tuple[int, Value]:
        """The place in the stream, for `back_to`."""
        return self._seed, self._storage().read()

    def back_to(self, mark: tuple[int, Value]) -> None:
        """Continue at a place where `mark` was called."""
        self._seed, state = mark
        running.store(self._storage(), state)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._seed, self._bytes().tobytes(), self.device)


def _restored(seed: int, state: bytes, place: Any = CPU) -> Generator:
    made = Generator(place)
    made.set_state(from_array(np.frombuffer(state, np.uint8).copy()))
    made._seed = seed
    return made


class _Elsewhere(threading.local):
    """Of a thread: the generator that stands for a runtime's own, while a graph for one is
    recorded."""

    generator: Generator | None = None


_elsewhere = _Elsewhere()


@contextmanager
def left_to_runtime() -> Iterator[None]:
    """What is drawn inside, from any generator, are ops that a runtime of graph files has of its
    own."""
    before = _elsewhere.generator
    _elsewhere.generator = Generator()
    _elsewhere.generator.use("philox")
    try:
        yield
    finally:
        _elsewhere.generator = before


def current(generator: Generator | None) -> Generator:
    """The one to draw from, where `generator` was given."""
    return _elsewhere.generator or generator or default_generator


class _Default(Generator):
    """The global generator: until somebody seeds it, its numbers cannot be foreseen, as
    PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self._seed = int.from_bytes(os.urandom(8), "little") >> 1


_stream_of_new = "mersenne"
default_generator: Generator = _Default()
_of_gpus: dict[device, Generator] = {}
_seed_of_gpus: int | None = None  # what those begin with that are not made yet


def on_gpu(place: device) -> Generator:
    """The global generator of a GPU."""
    found = _of_gpus.get(place)
    if found is None:
        found = _of_gpus[place] = Generator(place)
        found._seed = default_generator._seed if _seed_of_gpus is None else _seed_of_gpus
    return found


def seed_gpus(seed: int) -> None:
    """Start the global streams of all GPUs again."""
    global _seed_of_gpus
    _seed_of_gpus = int(seed)
    for generator in _of_gpus.values():
        generator.manual_seed(seed)


def set_random_stream(stream: str) -> None:
    """Choose what generators draw from: 'mersenne' (PyTorch's numbers on CPUs) or 'philox'.

    Philox is counter-based: its numbers are made in parallel, by whoever needs them. The global
    generator starts its seed's numbers again; those made before keep their stream.

    Raises:
        ValueError: another name.
    """
    global _stream_of_new
    if stream not in STREAMS:
        raise ValueError(
            f"set_random_stream: expected one of {', '.join(map(repr, STREAMS))}, got {stream!r}"
        )
    _stream_of_new = stream
    default_generator.use(stream)


def manual_seed(seed: int) -> Generator:
    """Start the global streams of `seed`, on the CPU and on GPUs."""
    seed_gpus(seed)
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Start global streams that cannot be foreseen; returns their seed."""
    seed = default_generator.seed()
    seed_gpus(seed)
    return seed


def initial_seed() -> int:
    """The seed of the global stream."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the global stream, 5,056 bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Set the state of the global stream to one that `get_rng_state` gave, here or in PyTorch."""
    default_generator.set_state(new_state)


Marks = dict[Generator, tuple[int, Value]]


def marks() -> Marks:
    """The places in all global streams, for `back_to`."""
    return {g: g.mark() for g in (default_generator, *_of_gpus.values())}


def back_to(before: Marks) -> None:
    """Continue all global streams where `marks` was called; one that was not there yet, from its
    seed on."""
    for generator in (default_generator, *_of_gpus.values()):
        if generator in before:
            generator.back_to(before[generator])
        else:
            generator.manual_seed(generator._seed)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **options: Any) -> Iterator[None]:
    """The global streams, those of GPUs as well, are after the block as they were before."""
    before = marks() if enabled else None
    try:
        yield
    finally:
        if before is not None:
            back_to(before)
