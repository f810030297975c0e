"""What running on a GPU fails with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class OutOfMemoryError(RuntimeError):
    """A GPU has not enough memory, also after giving back all that nobody holds."""


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Where memory of a GPU is asked for: its end is an `OutOfMemoryError`."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(str(error)) from None
