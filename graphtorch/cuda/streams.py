"""Streams and events: ``torch.cuda.streams``.

A GPU has one queue here: programs come into it in the order in which their results are needed, so
that work in one stream never overtakes that in another. Streams are therefore names of that queue:
what a program that uses several of them relies on (`wait_stream`, `synchronize`) holds, and nothing
runs side by side.

See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

from .._deferred import running
from .._deferred.door import device_of
from .._types import current_gpu, gpu
from .._types import device as _device
from ._gpu import index_of, place_of

__all__ = [
    "Event",
    "ExternalStream",
    "Stream",
    "StreamContext",
    "current_stream",
    "default_stream",
    "set_stream",
    "stream",
]

_numbers = itertools.count(1)


class Stream:
    """A name of a GPU's queue.

    Args: device: the GPU, default the present one. priority: makes no difference.
    Raises: RuntimeError: there is no GPU.
    """

    def __init__(self, device: Any = None, priority: int = 0, **kwargs: Any):
        try:
            self.device = place_of(device, "Stream")
        except AssertionError as error:
            raise RuntimeError(
                f"torch.cuda.Stream requires CUDA support, and there is no GPU: {error}"
            ) from None
        self.priority = priority
        self.stream_id = next(_numbers)

    @property
    def cuda_stream(self) -> int:
        """The handle of the queue."""
        return device_of(self.device).stream

    def synchronize(self) -> None:
        """Wait until all has happened that was asked for so far."""
        wait_for(self.device)

    def query(self) -> bool:
        """Whether all has happened that was asked for so far."""
        event = Event()
        event.record(self)
        return event.query()

    def wait_stream(self, stream: Stream) -> None:
        """Nothing asked for later runs before what `stream` holds now: so it is in one queue."""

    def wait_event(self, event: Event) -> None:
        """Nothing asked for later runs before the event: so it is in one queue."""

    def record_event(self, event: Event | None = None) -> Event:
        """An event at this place of the queue."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        self._context = StreamContext(self)
        self._context.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.__exit__(*exc)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self.device, self.stream_id) == (
            other.device,
            other.stream_id,
        )

    def __hash__(self) -> int:
        return hash((self.device, self.stream_id))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class ExternalStream(Stream):
    """A stream of another library: its work is not waited for, `synchronize` there first."""

    def __init__(self, stream_ptr: int, device: Any = None, **kwargs: Any):
        super().__init__(device)
        self._handle = stream_ptr

    @property
    def cuda_stream(self) -> int:
        return self._handle


class _Default(Stream):
    def __init__(self, place: _device):
        self.device, self.priority, self.stream_id = place, 0, 0


class _Current(threading.local):
    stream: Stream | None = None


_current = _Current()


def default_stream(device: Any = None) -> Stream:
    """The stream that work goes to where none is chosen. Raises AssertionError: there is no
    device."""
    return _Default(place_of(device, "default_stream"))


def current_stream(device: Any = None) -> Stream:
    """The stream chosen in this thread. Raises AssertionError: there is no device."""
    place, chosen = place_of(device, "current_stream"), _current.stream
    return chosen if chosen is not None and chosen.device is place else _Default(place)


class StreamContext:
    """``with torch.cuda.stream(s):``: work goes to `s`; None changes nothing."""

    def __init__(self, stream: Stream | None):
        self.stream = stream

    def __enter__(self) -> None:
        self._before = _current.stream, current_gpu.index
        if self.stream is not None:
            running.flush()  # what was recorded before belongs before
            _current.stream, current_gpu.index = self.stream, index_of(self.stream.device)

    def __exit__(self, *exc: object) -> None:
        if self.stream is not None:
            running.flush()
            _current.stream, current_gpu.index = self._before


def stream(stream: Stream | None) -> StreamContext:
    """``with torch.cuda.stream(s):``: work goes to `s`; None changes nothing."""
    return StreamContext(stream)


def set_stream(stream: Stream | None) -> None:
    """From now on work of this thread goes to `stream`; None changes nothing."""
    StreamContext(stream).__enter__()


class Event:
    """A place in a GPU's queue.

    Args: enable_timing: whether `elapsed_time` may be asked for.
    Raises: RuntimeError: there is no GPU.
    """

    def __init__(
        self,
        enable_timing: bool = False,
        blocking: bool = False,
        interprocess: bool = False,
        external: bool = False,
    ):
        try:
            gpu()
        except (AssertionError, RuntimeError) as error:
            raise RuntimeError(
                "Tried to instantiate dummy base class Event: there is no GPU; measure time "
                f"with time.perf_counter() ({error})"
            ) from None
        self._timed = enable_timing
        self._event: Any = None
        self.device: _device | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Take the place behind all that was asked for so far."""
        self.device = gpu() if stream is None else stream.device
        running.flush()
        self._event = device_of(self.device).event()
        self._event.record()

    def wait(self, stream: Stream | None = None) -> None:
        """Nothing asked for later runs before the event: so it is in one queue."""

    def query(self) -> bool:
        """Whether all before it has happened."""
        return self._event is None or bool(self._event.done())

    def synchronize(self) -> None:
        """Wait for it."""
        if self._event is not None:
            self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to a later one.

        Raises: ValueError: not both are timed and recorded. RuntimeError: not both have happened.
        """
        if not (self._timed and end_event._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._event is None or end_event._event is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self.query() and end_event.query()):
            raise RuntimeError(
                "CUDA error: device not ready: call synchronize() of the later event first"
            )
        return float(self._event.elapsed(end_event._event))

    def __repr__(self) -> str:
        return (
            "<torch.cuda.Event>" if self._event is not None else "<torch.cuda.Event uninitialized>"
        )


def wait_for(place: _device) -> None:
    """Run what is pending, and wait until the GPU `place` has done it all."""
    running.flush()
    device_of(place).synchronize()
