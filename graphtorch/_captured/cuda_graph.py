"""The recording behind ``torch.cuda.CUDAGraph``: work between two lines of a program, as one
program.

Nothing of it runs while it is recorded: what is written then stays as it was, and what is made
holds zeros. A replay reads the storages that the work read, of tensors that are older than it, and
writes those that it wrote or made. So memory is where PyTorch says that it is: a replay works on
what was copied into the same tensors since.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from typing import Any

from graphtorch.ir.graph import Value
from graphtorch.ir.ops.common import zeros

from .._deferred import running
from .._deferred.programs import recorded_program
from .._deferred.storage import Leaf, Storage, recorder
from .._deferred.tensor import Tensor
from .._random.generator import drawing
from .._types import CPU
from .capture import Capture, Closed
from .entry import settled


class GraphCapture(Capture):
    """A recording in progress. What Python does meanwhile is done, and not done again."""

    def __init__(self) -> None:
        super().__init__(constants=True, fullgraph=True)

    def begin(self) -> None:
        """Record what this thread asks for from now on."""
        running.flush()
        recorder.capture = self

    def end(self, succeeded: bool = True) -> Recorded:
        """What was recorded; everything is as it was before, and new tensors hold zeros."""
        recorder.capture = None
        made = [s for r in self.created.values() if (s := r()) is not None and _waits(s)]
        values = [s.value for s in made]
        for storage, value in zip(made, values, strict=True):
            running.store(storage, zeros(value.type))
        targets = [*self.writes.items(), *zip(made, values, strict=True)] if succeeded else []
        return Recorded(self, targets)

    def call_off(self, always: bool = False) -> bool:
        """Raises RuntimeError: a graph only records."""
        raise RuntimeError(
            "CUDA error: operation not permitted when stream is capturing: what is asked for at "
            f"{running.user_line()} cannot wait (an element in Python, a copy between devices, a "
            "size that depends on data), and a CUDA graph only records. Do it before the capture, "
            "or after replay()"
        )

    def value_read(self, storage: Storage) -> None:
        """Elements were read in Python: those of older tensors on the CPU are as they are now."""
        if not self.owns(storage) and (storage.place is not CPU or storage in self.writes):
            self.call_off()

    # what a function's replay would have to do, or to look at, is Python's here

    def seen(self, tensor: Tensor) -> None:
        pass

    def meet(self, tensor: Tensor) -> None:
        pass

    def counts(self, tensor: Tensor) -> None:
        pass

    def aliased(self, made: Tensor, source: Tensor) -> None:
        pass

    def viewed(self, made: Tensor) -> None:
        pass

    def turned(self, tensor: Tensor) -> None:
        pass

    def watched(self, tensor: Tensor) -> None:
        pass

    def grad_set(self, tensor: Tensor) -> None:
        pass

    def grad_read(self, tensor: Tensor) -> None:
        pass

    def rebound(self, tensor: Tensor) -> None:
        pass


def _waits(storage: Storage) -> bool:
    return not isinstance(storage.value, Leaf)


class Recorded:
    """Work that can be done again and again."""

    def __init__(self, capture: GraphCapture, targets: list[tuple[Storage, Value]]):
        """Args: targets: storages, and what is written to each.
        Raises: RuntimeError: it needs what operations before it made on their way."""
        self._sources = list(capture.inputs)
        self._lock = drawing if capture.drawn else nullcontext()
        # the program does not keep alive what only it would write to
        self._older = len(capture.writes)
        self._written = [s for s, _ in targets[: self._older]]
        self._made = [weakref.ref(s) for s, _ in targets[self._older :]]
        closed = Closed("cuda_graph", list(capture.inputs.values()), [v for _, v in targets])
        if closed.constants:
            raise RuntimeError(
                "a CUDA graph needs what operations before its capture left for their gradients: "
                "capture the forward pass together with its backward pass"
            )
        places = [s.place for s, _ in targets]
        self._program: Any = recorded_program(closed.graph, places=places) if targets else None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self._program is None

    def replay(self) -> None:
        """Do the work, on what the tensors hold now."""
        if self._program is None:
            return
        with self._lock:
            results = self._program([settled(s) for s in self._sources])
            targets = [*self._written, *[made() for made in self._made]]
            for storage, buffer in zip(targets, results, strict=True):
                if storage is not None:
                    running.store(storage, Leaf(buffer))

    def explain(self) -> str:
        """What runs."""
        return "" if self._program is None else str(self._program.explain())
