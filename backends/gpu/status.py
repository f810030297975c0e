"""Data-dependent errors: words in host memory that kernels write to, looked at after
synchronisations.

A kernel that meets an index out of range writes the number of the place in the program, and goes on
with something harmless. So no call waits for the device, and the device stays usable.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Protocol

from ..record import Site

WORD = 4
PAGE = 4096  # bytes that are asked for at a time


class Held(Protocol):
    """Memory of the host that kernels can write to."""

    address: int


class Status:
    """A word of one program: 0, or one more than the number of the site in its record."""

    __slots__ = ("_free", "address", "sites")

    def __init__(self, address: int, sites: Sequence[Site], free: list[int]):
        self.address = address
        self.sites = sites
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.address)

    def take(self) -> Exception | None:
        """The error that was met, once."""
        word = ctypes.c_int32.from_address(self.address)
        found, word.value = word.value, 0
        return self.sites[found - 1].error() if found else None


class Statuses:
    """The words of a device, and which of them launches that may not be done yet can still write
    to."""

    def __init__(self, allocate: Callable[[int], Held]):
        """Args: allocate: gives memory of the host that kernels can write to."""
        self._allocate = allocate
        self._pages: list[Held] = []
        self._free: list[int] = []
        self._expected: dict[Status, None] = {}

    def new(self, sites: Sequence[Site]) -> Status:
        """A word for a program with these sites."""
        try:
            address = self._free.pop()
        except IndexError:
            page = self._allocate(PAGE)
            ctypes.memset(page.address, 0, PAGE)
            self._pages.append(page)
            self._free += range(page.address + WORD, page.address + PAGE, WORD)
            address = page.address
        ctypes.c_int32.from_address(address).value = 0
        return Status(address, sites, self._free)

    def expect(self, status: Status) -> None:
        """A launch that may write to `status` is in the queue."""
        self._expected[status] = None

    def taken(self) -> list[Status]:
        """Those that are expected; from here on they are not, until `expect` names them again."""
        found = list(self._expected)
        self._expected = {}
        return found

    def settle(self, statuses: Sequence[Status] | None = None) -> None:
        """Raise the first error that was met.

        Args: statuses: words that nothing writes to any more; None: look at those that are
            expected.
        """
        looked_at = list(self._expected) if statuses is None else statuses
        for error in [e for status in looked_at if (e := status.take())][:1]:
            raise error
