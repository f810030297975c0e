"""Writes to expanded tensors, and sizes in place where other tensors show the memory, as in
PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt

torch: Any = pytest.importorskip("torch")


def rows(t: Any) -> Any:
    return t.arange(3.0).expand(2, 3)


def mask(t: Any) -> Any:
    return t.tensor([[True, False, False], [False, True, False]])


WRITES: dict[str, Callable[[Any, Any], Any]] = {
    "a number at a mask": lambda t, x: x.__setitem__(mask(t), 9.0),
    "a tensor of one number at a mask": lambda t, x: x.__setitem__(mask(t), t.tensor(9.0)),
    "numbers at a mask": lambda t, x: x.__setitem__(mask(t), t.tensor([8.0, 9.0])),
    "a number at rows of a mask": lambda t, x: x.__setitem__(t.tensor([True, False]), 9.0),
    "a number at indices": lambda t, x: x.__setitem__(t.tensor([1]), 9.0),
    "a row at indices": lambda t, x: x.__setitem__(t.tensor([0]), t.tensor([[7.0, 8.0, 9.0]])),
    "a column": lambda t, x: x.__setitem__((slice(None), t.tensor([2])), 9.0),
    "masked_fill_": lambda t, x: x.masked_fill_(mask(t), 9.0),
    "index_fill_": lambda t, x: x.index_fill_(1, t.tensor([0, 2]), 9.0),
    "index_put_": lambda t, x: x.index_put_((t.tensor([0]), t.tensor([1])), t.tensor(9.0)),
    "added": lambda t, x: x.index_put_((t.tensor([0]),), t.tensor(9.0), accumulate=True),
    "itself": lambda t, x: x.copy_(x.detach()),
    "another": lambda t, x: x.copy_(t.ones(2, 3)),
    "wrong mask": lambda t, x: x.masked_fill_(t.ones(2, 3), 9.0),
    "all": lambda t, x: x.mul_(2),
}


def outcome(function: Callable[[Any, Any], Any], t: Any) -> Any:
    base = t.arange(12.0).reshape(3, 4)
    found: list[Any] = []
    for x in (rows(t), base[1:, 1:2].expand(4, 2, 3)[0], base[:, 2].expand(2, 3), t.ones(2, 3)):
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            try:
                function(t, x)
                told = sorted({str(w.message).split(" is deprecated")[0] for w in given})
                found.append((x.tolist(), x._version, told[-1:]))
            except Exception as error:
                found.append(type(error).__name__)
    return found, base.tolist()


@pytest.mark.parametrize("name", WRITES)
def test_writes_to_expanded_tensors(name: str) -> None:
    ours, theirs = (outcome(WRITES[name], t) for t in (gt, torch))
    assert ours == theirs


def test_memory_that_others_show_is_not_left_behind() -> None:
    x = gt.arange(4.0)
    for other in (x.detach(), x[1:3], x.untyped_storage()):
        with pytest.raises(RuntimeError, match="other tensors show the same memory"):
            x.resize_(6)
        with pytest.raises(RuntimeError, match="other tensors show the same memory"):
            x[:2].resize_(9)
        assert other is not None
    del other
    assert x.resize_(3).tolist() == [0, 1, 2]
    array = x.numpy()
    for t in (gt, torch):
        y = t.arange(4.0)
        array = y.numpy()
        with pytest.raises(RuntimeError, match="storage that is not resizable"):
            y.resize_(6)
        assert array[0] == 0


def test_memory_that_nobody_else_shows_grows() -> None:
    for t in (gt, torch):
        x, w = t.arange(4.0), t.ones(4, requires_grad=True)
        y = x * w
        x.data.add_(1)
        assert x.resize_(6)[:4].tolist() == [1, 2, 3, 4]
        assert t.arange(4.0).view(2, 2).resize_(3, 3).flatten()[:4].tolist() == [0, 1, 2, 3]
        empty = t.empty(0)
        other = empty.detach()
        assert empty.resize_(2).shape == (2,) and other.shape == (0,) and y.shape == (4,)


def test_broadcast_to_takes_sizes_as_a_method() -> None:
    for t in (gt, torch):
        assert t.ones(3).broadcast_to(2, 3).shape == t.ones(3).broadcast_to((2, 3)).shape == (2, 3)
        with pytest.raises(TypeError):
            t.broadcast_to(t.ones(3), 2, 3)
