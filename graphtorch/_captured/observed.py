"""What the backward passes of the user's functions do in Python.

The gradient of a recorded call is recorded with it, long before anybody asks for it. A backward
pass of a `torch.autograd.Function` is Python that may print, count or append: it is not run in
advance unless it was seen to change nothing. So the first call of a recording runs as if it were
not compiled, and its backward pass is watched when, and if, it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from ..autograd.function import observers
from .guards import Watch
from .segments import Unobserved, Unreplayable
from .signature import state_of

_OURS = __name__.partition(".")[0] + "."
# what each does that a replay would leave out, or ""
_seen: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def require_observed(functions: Iterable[type]) -> None:
    """Refuse to run backward passes that change something in Python, or may do so.

    Raises:
        Unobserved: one has not run yet; the next time that it does, it is watched.
        Unreplayable: one is known to change something.
    """
    functions = [f for f in functions if not f.__module__.startswith(_OURS)]
    new = frozenset(f for f in functions if f not in _seen)
    for function in new:
        observers[function] = partial(_observed, function)
    if new:
        raise Unobserved(new)
    for function in functions:
        if _seen[function]:
            raise Unreplayable(
                f"the backward pass of {function.__name__} does something in Python: "
                f"{_seen[function]}"
            )


def are_observed(functions: Iterable[type]) -> bool:
    """Whether each of these backward passes has run."""
    return all(f in _seen for f in functions)


@contextmanager
def _observed(function: Any) -> Iterator[None]:
    """Around a backward pass of `function`: what it does in Python is known afterwards."""
    watch = Watch(function.backward, (), state_of)
    with watch.following():
        yield
    _seen[function] = watch.impure or ("" if watch.is_unchanged() else "it changes what it reads")
    observers.pop(function, None)
