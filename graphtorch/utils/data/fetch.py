"""Reading the samples of one batch; the same in this process and in a worker."""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

from ..._deferred.running import flush
from ..._ops.base import FUNCTIONS
from .collate import default_collate
from .dataset import IterableDataset, TensorDataset


class Fetcher:
    """Called with what the sampler gave (a list of indices, or one), returns the batch.

    Args:
        batches: whether samples are collected into batches, or given singly.
        drop_last: for streams: leave out a shorter last batch.
    """

    def __init__(self, dataset: Any, batches: bool, collate: Callable[[Any], Any], drop_last: bool):
        self.dataset, self.batches, self.collate, self.drop_last = (
            dataset,
            batches,
            collate,
            drop_last,
        )
        self.stream = iter(dataset) if isinstance(dataset, IterableDataset) else None
        self.ended = False

    def __call__(self, index: Any) -> Any:
        """Raises StopIteration at the end of a stream."""
        if self.stream is not None:
            return _prepared(self._next, index)
        if not self.batches:
            return _prepared(lambda: self.collate(self.dataset[index]))
        plain = self.collate is default_collate and type(self.dataset) is TensorDataset
        if plain and not any(t.requires_grad for t in self.dataset.tensors):
            rows = FUNCTIONS["tensor"](index)
            # what collating would give
            return [t.index_select(0, rows) for t in self.dataset.tensors]
        getitems = getattr(self.dataset, "__getitems__", None)
        if getitems:
            return _prepared(lambda: self.collate(getitems(index)))
        return _prepared(lambda: self.collate([_prepared(getitem, self.dataset, i) for i in index]))

    def _next(self, index: Any) -> Any:
        assert self.stream is not None
        if self.ended:
            raise StopIteration
        if not self.batches:
            return self.collate(next(self.stream))
        samples = []
        for _ in index:
            try:
                samples.append(_prepared(next, self.stream))
            except StopIteration:
                self.ended = True
                break
        if not samples or (self.drop_last and len(samples) < len(index)):
            raise StopIteration
        return self.collate(samples)


def _prepared(make: Callable[..., Any], *args: Any) -> Any:
    """What `make` gives, computed here: what prepares data is no part of the step that reads it,
    and each sample is a graph by itself, of the same structure as the others."""
    flush()
    made = make(*args)
    flush()
    return made
