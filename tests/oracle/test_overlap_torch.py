"""Writes that read memory they write to: refused where PyTorch refuses, else as if the source were
a copy.

PyTorch looks at tensors whose elements fill a part of memory. For others its result depends on the
order in which it happens to write; ours does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")


def put(x: Any, key: Any, value: Any) -> None:
    x[key] = value


LINE: dict[str, Callable[[Any, Any], Any]] = {
    "shift up": lambda t, x: put(x, slice(1, None), x[:-1]),
    "shift down": lambda t, x: put(x, slice(None, -1), x[1:]),
    "copy_": lambda t, x: x[2:].copy_(x[:-2]),
    "copy_ detached": lambda t, x: x.data[1:].copy_(x.detach()[:-1]),
    "copy_ of itself": lambda t, x: x[1:].copy_(x[1:]),
    "copy_ of the same part": lambda t, x: x.copy_(x[:]),
    "+=": lambda t, x: x[1:].__iadd__(x[:-1]),
    "+= itself": lambda t, x: x.__iadd__(x),
    "add_ an element": lambda t, x: x.add_(x[2]),
    "mul_ a part of one": lambda t, x: x.mul_(x[3:4]),
    "div_": lambda t, x: x[1:].div_(x[:-1] + 1),
    "addcmul_": lambda t, x: x[1:].addcmul_(x[:-1], x[1:]),
    "every other": lambda t, x: x[::2].copy_(x[1::2]),
    "apart": lambda t, x: x[:3].copy_(x[3:]),
    "an element everywhere": lambda t, x: put(x, slice(None), x[3]),
    "fill_": lambda t, x: x.fill_(x[3]),
    "masked_fill_": lambda t, x: x.masked_fill_(x > 2, x[1]),
    "mask": lambda t, x: put(x, x > 2, x[:3]),
    "index": lambda t, x: put(x, t.tensor([1, 2]), x[:2]),
    "index, copied": lambda t, x: put(x, t.tensor([1, 2]), x[t.tensor([0, 1])]),
    "index_copy_": lambda t, x: x.index_copy_(0, t.tensor([1, 2]), x[:2]),
    "index_add_": lambda t, x: x.index_add_(0, t.tensor([1, 2]), x[:2]),
    "scatter_": lambda t, x: x.scatter_(0, t.tensor([1, 2]), x[:2]),
    "scatter_add_ of itself": lambda t, x: x.scatter_add_(0, t.tensor([1, 2, 0, 0, 0, 0]), x),
    "put_": lambda t, x: x.put_(t.tensor([1, 2]), x[:2]),
    "out=": lambda t, x: t.add(x[:-1], 1, out=x[1:]),
    "out= itself": lambda t, x: t.neg(x, out=x),
    "out= of cat": lambda t, x: t.cat([x[:3], x[3:]], out=x),
    "out= of cumsum": lambda t, x: t.cumsum(x[:-1], 0, out=x[1:]),
    "as_strided": lambda t, x: x.as_strided((3,), (1,), 1).copy_(x.as_strided((3,), (1,), 0)),
    "repeated": lambda t, x: x[:1].expand(3).add_(1),
}
SQUARE: dict[str, Callable[[Any, Any], Any]] = {
    "rows": lambda t, x: put(x, slice(1, None), x[:-1]),
    "transposed": lambda t, x: x.copy_(x.t()),
    "+= transposed": lambda t, x: x.__iadd__(x.t()),
    "-= a row": lambda t, x: x.__isub__(x[0]),
    "columns apart": lambda t, x: put(x, (slice(None), 0), x[:, 2]),
    "diagonal": lambda t, x: x.diagonal().copy_(x[:, 1].clone()),
}


def outcome(t: Any, x: Any, write: Callable[[Any, Any], Any]) -> Any:
    try:
        write(t, x)
    except RuntimeError as error:
        return str(error)[:60]
    return x.tolist()


@pytest.mark.parametrize("name", LINE)
def test_line(name: str) -> None:
    assert outcome(gt, gt.arange(6.0), LINE[name]) == outcome(torch, torch.arange(6.0), LINE[name])
    pending = gt.arange(6.0) * 1
    assert outcome(gt, pending, LINE[name]) == outcome(torch, torch.arange(6.0), LINE[name])


@pytest.mark.parametrize("name", SQUARE)
def test_square(name: str) -> None:
    mine, theirs = (t.arange(9.0).reshape(3, 3) for t in (gt, torch))
    assert outcome(gt, mine, SQUARE[name]) == outcome(torch, theirs, SQUARE[name])


def test_columns_are_written_as_if_copied_first() -> None:
    x = gt.arange(6.0).reshape(2, 3)
    x[:, 1:] = x[:, :-1]
    assert x.tolist() == [[0, 0, 1], [3, 3, 4]]


REPEATED: dict[str, Callable[[Any], Any]] = {
    "columns": lambda x: put(x, (..., slice(-1, None)), 5.0),
    "all": lambda x: put(x, slice(None), 1.0),
    "a row": lambda x: put(x, 0, 5.0),
    "a part of one row": lambda x: put(x, (slice(0, 1), slice(1, None)), 2.0),
    "an element": lambda x: put(x, (1, 2), 4.0),
    "a column": lambda x: put(x, (slice(None), 0), 4.0),
    "fill_ a column": lambda x: x[:, 1].fill_(3.0),
    "+=": lambda x: x.__iadd__(1.0),
    "*= a row": lambda x: x[0].__imul__(2.0),
}


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize("recorded", [False, True])
def test_numbers_written_to_repeated_memory(name: str, recorded: bool) -> None:
    """Refused, but for `fill_`, where the part that is written to has an element twice."""

    def outcome(t: Any) -> Any:
        start = t.arange(3.0, requires_grad=recorded)
        x = (start * 1 if recorded else start).expand(2, 3)
        try:
            REPEATED[name](x)
        except RuntimeError as error:
            return str(error)[:60]
        return x.tolist()

    assert outcome(gt) == outcome(torch)
