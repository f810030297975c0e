"""Object code loaded into this process, and its lifetime."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from . import elf

T = TypeVar("T")


def immortal(x: T) -> T:
    """`x` with one reference too many: the pool's workers run its code until the process ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(x))
    return x


class Code:
    """Object code loaded into this process. Its memory is freed when the last reference goes."""

    def __init__(
        self,
        objects: Sequence[bytes],
        exports: Sequence[str],
        imports: Mapping[str, int] | None = None,
    ):
        """Args:
        objects: object code; of functions that several define as weak one is taken.
        exports: functions to look up with `address`.
        imports: addresses of functions that the code calls, beside libc's and libm's.
        """
        self._linked: Any
        try:
            self._linked = elf.Linked(objects, exports, imports or {})
        except elf.Unknown:
            # LLVM is not even loaded where the cache has the code
            linked = importlib.import_module(".native", __package__).Linked
            self._linked = linked(objects, exports, imports or {})

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        linked = getattr(self, "_linked", None)
        # at exit parts of llvmlite may be gone already
        if linked is not None and not finalizing():
            linked.close()

    def address(self, name: str) -> int:
        """Address of the function `name`, one of the exports."""
        return int(self._linked.address(name))
