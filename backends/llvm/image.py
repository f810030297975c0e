"""Object code of kernels, shared by all programs of this process that use it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from .. import cache
from ..dataclass import dataclass
from ..locks import lock_across_forks
from . import debug

_lock = lock_across_forks()


@dataclass(frozen=True, eq=False)
class Image:
    """Object code of a few kernels (see units.py): the functions that it defines, by name."""

    names: tuple[str, ...]
    code: bytes


# Images of the programs in use, by the kernels in them.
_known: weakref.WeakValueDictionary[str, Image] = weakref.WeakValueDictionary()


def remember(images: Iterable[Image]) -> None:
    """Let other programs take `images` from memory for as long as one program holds them."""
    with _lock:
        for image in images:
            for name in image.names:
                _known.setdefault(name, image)


def find(name: str) -> Image | None:
    """The image that has kernel `name`, from memory or from the disk."""
    if debug.wanted():  # somebody wants to see how it is made
        return None
    known = _known.get(name)
    if known is not None:
        return known
    stored = cache.load(name)
    return None if stored is None else Image(tuple(stored[0]["names"]), stored[1])
