"""Calls of a compiled library as C makes them: DLTensors by ctypes, nothing checked on the way."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from graphtorch.aot.loader import _DLTensor, _tensors

DLTensor = _DLTensor
OK, NULL, COUNT, RANK, DTYPE, SHAPE, LAYOUT, ALIGNMENT, DEVICE, INDEX, MEMORY = range(11)


def tensor(array: np.ndarray, **changes: Any) -> Any:
    """A DLTensor of `array` with some fields changed; `strides` and `shape` are lists or None."""
    made = _tensors([array])[0]
    for key, value in changes.items():
        if key in ("shape", "strides") and value is not None:
            value = (ctypes.c_int64 * len(value))(*value)
        setattr(made, key, value)
    made.keep = array  # the memory it points to
    return made


class Raw:
    """The C functions of one library and one context."""

    def __init__(self, path: Path, name: str | None = None, weights: str | None = None):
        self.name = name or path.stem
        self.library = ctypes.CDLL(str(path))
        create = self.function("create", ctypes.c_void_p, ctypes.c_char_p)
        self.context = create(weights.encode() if weights else None)

    def function(self, name: str, result: Any, *arguments: Any) -> Any:
        found = getattr(self.library, f"{self.name}_{name}")
        found.restype, found.argtypes = result, arguments
        return found

    def error(self, context: int | None = -1) -> str:
        read = self.function("last_error", ctypes.c_char_p, ctypes.c_void_p)
        return read(self.context if context == -1 else context).decode()

    def run(
        self,
        inputs: Any,
        outputs: Any,
        counts: tuple[int, int] | None = None,
        context: int | None = -1,
    ) -> int:
        """The code `NAME_run` returns; `inputs` and `outputs` are lists of DLTensors, or None for
        NULL."""
        counts = counts or (len(inputs), len(outputs))
        run = self.function(
            "run",
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_int32,
        )
        packed = [None if s is None else (DLTensor * max(1, len(s)))(*s) for s in (inputs, outputs)]
        return run(
            self.context if context == -1 else context, packed[0], counts[0], packed[1], counts[1]
        )

    def destroy(self) -> None:
        self.function("destroy", None, ctypes.c_void_p)(self.context)
        self.context = None
