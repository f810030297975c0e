"""Results whose size depends on data: values, and the error inside captured functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as torch

X = [1.0, 0.0, 2.0, 2.0]
CASES: dict[str, tuple[Callable[[Any], Any], list[Any], str]] = {
    "nonzero": (lambda x: torch.nonzero(x), [[0], [2], [3]], r"torch\.where"),
    "argwhere": (lambda x: torch.argwhere(x), [[0], [2], [3]], r"torch\.where"),
    "where": (lambda x: torch.where(x > 1)[0], [2, 3], r"torch\.where"),
    "masked_select": (lambda x: x.masked_select(x > 0), [1, 2, 2], r"torch\.where"),
    "mask": (lambda x: x[x > 0], [1, 2, 2], r"torch\.where"),
    "unique": (lambda x: torch.unique(x), [0, 1, 2], "neighbours"),
    "unique_consecutive": (lambda x: torch.unique_consecutive(x), [1, 0, 2], r"x\[1:\]"),
    "repeat_interleave": (lambda x: x.repeat_interleave(x.long()), [1, 2, 2, 2, 2], "output_size"),
    "one_hot": (lambda x: torch.nn.functional.one_hot(x.long())[0], [0, 1, 0], "num_classes"),
    "bincount": (lambda x: torch.bincount(x.long()), [1, 1, 2], "scatter_add"),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_the_error_of_a_capture(name: str) -> None:
    function, expected, advice = CASES[name]
    x = torch.tensor(X)
    assert function(x).tolist() == expected
    compiled = torch.compile(function)
    assert [compiled(x).tolist() for _ in range(2)] == [expected] * 2
    for attempt in (torch.compile(function, fullgraph=True), lambda x: torch.trace(function, x)):
        with pytest.raises(
            RuntimeError, match=f"size of the result depends on the data.*{advice}"
        ) as caught:
            attempt(x)
        assert "test_sized_by_data.py" in str(caught.value)


def test_unique_consecutive_counts_and_slices() -> None:
    x = torch.tensor([[1, 1], [1, 1], [0, 2]])
    values, inverse, counts = torch.unique_consecutive(x, True, True, dim=0)
    assert (values.tolist(), inverse.tolist(), counts.tolist()) == (
        [[1, 1], [0, 2]],
        [0, 0, 1],
        [2, 1],
    )
    assert [t.tolist() for t in x.unique_consecutive(return_counts=True)] == [[1, 0, 2], [4, 1, 1]]


def test_a_recording_that_read_a_tensor_in_python_is_made_again_after_a_write() -> None:
    mask, scale = torch.tensor([True, False, True]), torch.tensor(2.0)
    picked = torch.compile(lambda x: x[mask])
    scaled = torch.compile(lambda x: x * scale.item())
    x = torch.arange(3.0)
    assert (picked(x).tolist(), scaled(x).tolist()) == ([0, 2], [0, 2, 4])
    mask[1] = True
    scale.fill_(5.0)
    assert (picked(x).tolist(), scaled(x).tolist()) == ([0, 1, 2], [0, 5, 10])
