"""Iterating over a data set in batches."""

from __future__ import annotations

import importlib
import itertools
import os
from abc import ABC
from collections.abc import Callable, Iterable, Iterator
from types import GeneratorType
from typing import Any

from ..._deferred.door import gpus
from ..._ops.base import FUNCTIONS
from ..._settings import warn_user
from ..._types import DTYPES
from .collate import default_collate, default_convert, pinned
from .dataset import IterableDataset
from .fetch import Fetcher
from .sampler import BatchSampler, RandomSampler, SequentialSampler


class _Endless:
    """The sampler of a stream: how often to ask."""

    def __iter__(self) -> Iterator[None]:
        return itertools.repeat(None)


class _BaseDataLoaderIter(ABC):  # noqa: B024 - for `isinstance` alone
    """What iterating over a `DataLoader` gives, for ``isinstance``."""


class _MultiProcessingDataLoaderIter(_BaseDataLoaderIter):
    """... and where processes read: `processes.WorkersIterator`."""


_BaseDataLoaderIter.register(GeneratorType)


class DataLoader:
    """Batches of a data set.

    Args:
        batch_size: samples in a batch; None gives single samples.
        shuffle: a new random order each time.
        sampler, batch_sampler: an order, or batches of indices, of one's own.
        num_workers: processes that read samples beside this one; 0 reads them here.
        collate_fn: makes a batch of a list of samples; default `default_collate`.
        pin_memory: put the tensors of a batch into memory that GPUs read by themselves
            (`Tensor.pin_memory`); without a GPU there is nothing to pin memory for, and a warning
            says so.
        drop_last: leave out a shorter last batch.
        timeout: seconds to wait for a batch from the workers; 0 waits as long as they live.
        worker_init_fn: called with the worker's number in each of them, after seeding.
        multiprocessing_context: how workers start: "fork", "spawn", "forkserver" or a context.
        generator: for the random order and the workers' seeds.
        prefetch_factor: batches on the way for each worker; default 2.
        persistent_workers: keep the workers from one pass over the data to the next.
        in_order: False gives batches as they are ready.

    An exception in a worker is raised again here, with the worker's traceback in its message.
    """

    _fixed = False

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ):
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self._streams = isinstance(dataset, IterableDataset)
        self._check_order(batch_size, shuffle, sampler, batch_sampler, drop_last)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory, self.pin_memory_device = pin_memory, pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self._make_samplers(batch_size, bool(shuffle), sampler, batch_sampler, drop_last)
        self.collate_fn = collate_fn or (
            default_collate if self._auto_collation else default_convert
        )
        self._reported_length: int | None = None
        self._iterator: Any = None
        self._fixed = True
        _suggest_workers(num_workers)

    def _check_order(
        self,
        batch_size: int | None,
        shuffle: bool | None,
        sampler: Any,
        batch_sampler: Any,
        drop_last: bool,
    ) -> None:
        if self._streams:
            given = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
            for name, value in given.items():
                if value is not None:
                    raise ValueError(
                        f"DataLoader with IterableDataset: expected unspecified {name} option, "
                        f"but got {name}={value}"
                    )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, "
                    "sampler, and drop_last"
                )
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with "
                "drop_last"
            )

    def _make_samplers(
        self,
        batch_size: int | None,
        shuffle: bool,
        sampler: Any,
        batch_sampler: Any,
        drop_last: bool,
    ) -> None:
        if sampler is None:
            sampler = (
                _Endless()
                if self._streams
                else SequentialSampler(self.dataset)
                if not shuffle
                else RandomSampler(self.dataset, generator=self.generator)
            )
        self.sampler = sampler
        self.batch_size = None if batch_sampler is not None else batch_size
        self.drop_last = drop_last
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler

    @property
    def multiprocessing_context(self) -> Any:
        """How worker processes start; None is the system's usual way."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, given: Any) -> None:
        if given is not None and not self.num_workers:
            raise ValueError(
                "multiprocessing_context can only be used with multi-process loading "
                f"(num_workers > 0), but got num_workers={self.num_workers}"
            )
        self._context = None if given is None else _context(given)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._fixed and name in (
            "batch_size",
            "batch_sampler",
            "sampler",
            "drop_last",
            "dataset",
            "persistent_workers",
        ):
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    @property
    def _auto_collation(self) -> bool:
        return self.batch_sampler is not None

    @property
    def _index_sampler(self) -> Any:
        return self.batch_sampler if self._auto_collation else self.sampler

    def __iter__(self) -> Iterator[Any]:
        if self.pin_memory and not gpus():
            warn_user(
                "'pin_memory' argument is set as true but no accelerator is found, then device "
                "pinned memory won't be used.",
            )
        batches = self._counted(self._batches()) if self._streams else self._batches()
        return map(pinned, batches) if self.pin_memory and gpus() else batches

    def _batches(self) -> Iterator[Any]:
        if self._iterator is not None:
            self._iterator.reset()
            return self._iterator  # type: ignore[no-any-return]
        # of the workers; drawn without them as well, so that their number changes no other numbers
        seed = FUNCTIONS["empty"]((), dtype=DTYPES["int64"]).random_(generator=self.generator)
        if not self.num_workers:
            return _batches_here(self)
        module = importlib.import_module(".processes", __package__)  # few programs need it
        made: Iterator[Any] = module.WorkersIterator(self, seed.item())
        if self.persistent_workers:
            self._iterator = made
        return made

    def _counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of a stream; more of them than its `__len__` said are worth a warning."""
        for count, batch in enumerate(batches, 1):
            if self._reported_length is not None and count > self._reported_length:
                warn_user(
                    f"Length of IterableDataset {self.dataset} was reported to be "
                    f"{self._reported_length} (when accessing len(dataloader)), but "
                    f"{count} samples have been fetched.",
                )
            yield batch

    def __len__(self) -> int:
        if not self._streams:
            return len(self._index_sampler)
        count = len(self.dataset)
        if self.batch_size is not None:
            count = count // self.batch_size if self.drop_last else -(-count // self.batch_size)
        self._reported_length = count
        return count


def _batches_here(loader: DataLoader) -> Iterator[Any]:
    """Batches read in this process."""
    fetch = Fetcher(loader.dataset, loader._auto_collation, loader.collate_fn, loader.drop_last)
    for index in loader._index_sampler:
        try:
            batch = fetch(index)
        except StopIteration:
            return
        yield batch


def _check_workers(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent: bool
) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; use num_workers=0 to disable "
            "multiprocessing."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing.let "
            "num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor "
            "to None."
        )
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _context(given: Any) -> Any:
    multiprocessing = importlib.import_module("multiprocessing")  # few programs need it
    methods = multiprocessing.get_all_start_methods()
    if isinstance(given, str):
        if given not in methods:
            raise ValueError(
                f"multiprocessing_context option should specify a valid start method in "
                f"{methods!r}, but got multiprocessing_context={given!r}"
            )
        return multiprocessing.get_context(given)
    if not isinstance(given, multiprocessing.context.BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string "
            f"specifying the start method, but got multiprocessing_context={given}"
        )
    return given


def _suggest_workers(num_workers: int) -> None:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if num_workers > cores:
        warn_user(
            f"This DataLoader will create {num_workers} worker processes in total. Our suggested "
            f"max number of worker in current system is {cores}, which is smaller than "
            "what this DataLoader is going to create. Please be aware that excessive "
            "worker creation might get DataLoader running slow or even freeze, lower the "
            "worker number to avoid potential slowness/freeze if "
            "necessary.",
        )
