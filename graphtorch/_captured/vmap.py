"""`vmap`: a function of one entry, applied to a batch of them at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ir.passes.batch import Batch

from .._deferred.storage import recorder
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from ..random import get_rng_state, set_rng_state
from .capture import rebuild, tensors_in
from .vmap_dims import Size, check_out_dims, mapped_arguments, name_of, out_places, spread
from .vmap_entry import Entry, Histories, for_all

RANDOMNESS = ("error", "different", "same")


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that maps `func` over a dimension of its arguments, all entries at once.

    `func` is called once, with one entry in the place of each mapped tensor; see `docs/compile.md`.

    Args:
        in_dims: which dimension of each positional argument is mapped: an int, None for what all
            entries share (and for what is no tensor), or a tuple of those, nested as the arguments
            are. Keyword arguments are shared.
        out_dims: where the results have the mapped dimension, in the same way; None for what all
            share.
        randomness: what random operations do: ``error``; ``same`` draws the same numbers for all
            entries; ``different`` draws each its own.
        chunk_size: how many entries to compute at a time; None for all.

    Raises:
        ValueError: `in_dims` or `out_dims` do not fit, no tensor is mapped, or sizes differ.
        RuntimeError: the function needs elements in Python, draws without `randomness`, or writes
            what differs from entry to entry into a tensor that does not.
    """
    if randomness not in RANDOMNESS:
        raise RuntimeError(
            "Only allowed values for randomness are 'error', 'different', or 'same'. Got "
            f"{randomness}"
        )
    if chunk_size is not None and not (chunk_size == int(chunk_size) and chunk_size > 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        check_out_dims(out_dims, func)
        given, dims, size = mapped_arguments(func, in_dims, args)
        fronts = [
            t if d is None or d == 0 else t.movedim(d, 0) for t, d in zip(given, dims, strict=True)
        ]
        if chunk_size is None or not isinstance(size, int) or size <= chunk_size:
            return _run(func, args, kwargs, fronts, dims, size, out_dims, randomness)
        state = get_rng_state() if randomness == "same" else None
        parts = []
        for begin in range(0, size, chunk_size):
            count = min(chunk_size, size - begin)
            part = [
                t if d is None else t.narrow(0, begin, count)
                for t, d in zip(fronts, dims, strict=True)
            ]
            if state is not None:
                set_rng_state(state)
            parts.append(_run(func, args, kwargs, part, dims, count, out_dims, randomness))
        return _joined(parts, out_dims)

    return run


def _run(
    func: Callable[..., Any],
    args: Any,
    kwargs: Any,
    fronts: Sequence[Tensor],
    dims: Sequence[int | None],
    size: Size,
    out_dims: Any,
    randomness: str,
) -> Any:
    """One call; `fronts` are the tensors of `args`, with their entries along the first
    dimension."""
    # one stand-in for each
    mapped = {id(t): t for t, d in zip(fronts, dims, strict=True) if d is not None}

    def once(stands: list[Tensor]) -> Any:
        one = dict(zip(mapped, stands, strict=True))
        left = iter([t if d is None else one[id(t)] for t, d in zip(fronts, dims, strict=True)])
        return func(*rebuild(args, lambda _: next(left)), **kwargs)

    histories = Histories(Batch(size, {}), randomness)
    result, whole = for_all(once, list(mapped.values()), histories)
    places = iter(out_places(func, out_dims, result))

    def delivered(tensor: Tensor) -> Tensor:
        found, has = whole(tensor)
        place = next(places)
        if place is None:
            if has:
                name = name_of(func)
                raise ValueError(
                    f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim "
                    "is None: give the dimension where the result has its entries"
                )
            return found
        if not has:
            found = found.expand((size, *found._type.shape))
        return found if place == 0 else found.movedim(0, place)

    return rebuild(result, delivered)


def _joined(parts: Sequence[Any], out_dims: Any) -> Any:
    """The results of several chunks as one."""
    columns = iter(list(zip(*[tensors_in(p) for p in parts], strict=True)))
    places = iter([d for leaf, d in spread(out_dims, parts[0]) or [] if isinstance(leaf, Tensor)])

    def joined(_: Tensor) -> Any:
        column, place = next(columns), next(places)
        return column[0] if place is None else FUNCTIONS["cat"](column, place)

    return rebuild(parts[0], joined)


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """All entries of a tensor of a function that `vmap` is calling, for a look at them; other
    tensors as they are.

    Args:
        recurse: whether to go on through the `vmap` around it.
    """
    capture = recorder.capture
    if not isinstance(capture, Entry):
        return tensor
    found, _ = capture.all_entries(tensor)
    with capture.outside():
        return debug_unwrap(found) if recurse else found
