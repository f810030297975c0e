"""Data sets, samplers, loader."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)


class Squares(Dataset):
    def __getitem__(self, i):
        return {"x": np.float32(i), "y": i * i}

    def __len__(self):
        return 5


def test_batches():
    batches = list(DataLoader(Squares(), batch_size=2))
    assert [b["y"].tolist() for b in batches] == [[0, 1], [4, 9], [16]]
    assert len(DataLoader(Squares(), 2, drop_last=True)) == 2
    x = torch.arange(10.0).reshape(5, 2)
    loader = DataLoader(TensorDataset(x, torch.arange(5)), batch_size=3, shuffle=True)
    rows = [pair for xs, ys in loader for pair in zip(xs.tolist(), ys.tolist(), strict=True)]
    assert sorted(rows, key=lambda r: r[1]) == [([2.0 * i, 2.0 * i + 1], i) for i in range(5)]


def test_order_follows_the_generator():
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        return [int(b["y"]) for b in DataLoader(Squares(), shuffle=True, generator=generator)]

    assert order(1) == order(1) and sorted(order(2)) == [0, 1, 4, 9, 16]


def test_streams_and_combinations():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(range(5))

    assert [b.tolist() for b in DataLoader(Stream(), batch_size=3)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(ValueError, match="IterableDataset"):
        DataLoader(Stream(), shuffle=True)
    both = ConcatDataset([Squares(), Subset(Squares(), [4])])
    assert len(both) == 6 and both[5]["y"] == 16 and both[-1]["y"] == 16
    assert list(BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    assert set(WeightedRandomSampler([0.0, 1.0], 4)) == {1}


def test_random_split():
    parts = random_split(range(10), [0.7, 0.3], generator=torch.Generator().manual_seed(0))
    assert [len(p) for p in parts] == [7, 3] and sorted(i for p in parts for i in p) == list(
        range(10)
    )
    with pytest.raises(ValueError, match="Sum of input lengths"):
        random_split(range(10), [3, 3])


def test_strings_of_tuples_stay_tuples():
    found = default_collate([(1, "a", {"name": "p"}), (2, "b", {"name": "q"})])
    assert found[1:] == [("a", "b"), {"name": ["p", "q"]}] and type(found[1]) is tuple
    assert default_collate(["a", "b"]) == ["a", "b"]


def test_collate_errors():
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([[1, 2], [1]])
    with pytest.raises(TypeError, match="must contain tensors"):
        default_collate([object()])


def test_samples_without_end_are_drawn_as_they_are_asked_for() -> None:
    from itertools import islice

    sampler = torch.utils.data.RandomSampler(range(7), replacement=True, num_samples=10**12)
    found = list(islice(sampler, 3000))
    assert len(sampler) == 10**12 and set(found) == set(range(7))
    torch.manual_seed(3)
    first = list(torch.utils.data.RandomSampler(range(50)))
    torch.manual_seed(3)
    seen = []
    for index in torch.utils.data.RandomSampler(range(50)):
        seen.append(index)
        torch.rand(2)  # what a loop draws does not change the order
    assert seen == first and sorted(first) == list(range(50))
    assert (
        len(list(torch.utils.data.RandomSampler(range(5), replacement=True, num_samples=2049)))
        == 2049
    )
