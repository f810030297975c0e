"""Tensor constants inside a graph: immutable, hashable, compared by their bytes."""

from __future__ import annotations

import numpy as np

from .dataclass import dataclass
from .dtype import DType


@dataclass(frozen=True)
class Literal:
    """The elements of a constant, row-major, in the machine's byte order (little-endian)."""

    dtype: DType
    shape: tuple[int, ...]
    data: bytes

    @staticmethod
    def of(value: object, dtype: DType | None = None) -> Literal:
        """A constant from anything NumPy takes; `dtype` None keeps NumPy's own."""
        array = np.asarray(value, dtype=None if dtype is None else dtype.numpy)
        return Literal(DType.of(array.dtype), array.shape, array.tobytes())

    def numpy(self) -> np.ndarray:
        """A read-only array over the constant's bytes."""
        return np.frombuffer(self.data, self.dtype.numpy).reshape(self.shape)

    @property
    def is_scalar(self) -> bool:
        return self.shape == ()

    def item(self) -> bool | int | float | complex:
        """The value of a constant with one element."""
        return self.numpy().reshape(()).item()
