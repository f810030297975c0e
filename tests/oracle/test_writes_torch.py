"""Writes to elements and parts, and reads of them, against PyTorch: what is seen where, what is
refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch: Any = pytest.importorskip("torch")


def _views(t: Any) -> list[Any]:
    x = t.arange(24).reshape(4, 6).float()
    x[1:3, ::2][0][1] = 50
    x.t()[2:, 1].view(-1)[0] = -1
    x.view(-1)[5:9][1:3] = t.tensor([7.0, 8.0])
    x.diagonal()[1] = 99
    return [x, x._version]


def _overlapping(t: Any) -> list[Any]:
    x = t.zeros(8)
    windows = x.unfold(0, 4, 2)
    x[3] = 5
    windows[1, 0] = 7
    a, b = x[:5], x[3:]
    a[4] = 1
    b[0] = 2
    return [x, windows, a, b, x._version, windows._version, b._version]


def _pending_readers(t: Any) -> list[Any]:
    x = t.ones(3)
    y = x + 1
    part, copy, rest = x[1:], x.clone(), x[1:].clone()
    x[0] = 5
    z = x * 2
    x[1:] = t.tensor([8.0, 9.0])
    return [x, y, z, part, copy, rest]


def _pending_target(t: Any) -> list[Any]:
    x = t.ones(3) * 2
    x[0] = 5
    x[1:] = x[:2].clone()
    y = t.full((2, 3), 7)
    z = y.clone()
    y[1, 1] = 0
    return [x, y, z]


def _dtypes(t: Any) -> list[Any]:
    result = []
    for name in (
        "bool",
        "uint8",
        "int8",
        "int32",
        "int64",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "complex64",
    ):
        x = t.zeros(2, 5, dtype=getattr(t, name))
        x[0, 0], x[0, 1], x[0, 2], x[0, 3] = True, 3, 2.75, -0.0
        x[1, 1:4] = t.tensor([1, 2, 3])
        x[1, 0] = t.tensor(2.5)
        if name == "float64":  # PyTorch takes NumPy's numbers where they are Python's too
            x[0, 4] = np.float64(1.5)
        result.append(x.to(t.complex64) if name in ("bfloat16", "complex64") else x)
    return [t.view_as_real(x) if x.is_complex() else x for x in result]


def _ranges(t: Any) -> list[Any]:
    x = t.zeros(4, dtype=t.uint8)
    x[0], x[1] = -1, 255
    y = t.zeros(2, dtype=t.float16)
    y[0] = 1e6
    return [x, y]


def _masks_and_indices(t: Any) -> list[Any]:
    x = t.arange(12).reshape(3, 4).float()
    x[x > 8] = -1
    x[t.tensor([True, False, True])] = t.tensor([1.0, 2, 3, 4])
    x[t.tensor([0, 2]), 1] = 77
    x[0, t.tensor([3, 0])] = t.tensor([5.0, 6.0])
    x[t.tensor([1, -1]), t.tensor([2, 3])] = t.tensor([50.0, 60.0])
    x[t.tensor(1), t.tensor([1])] = 4
    cube = t.zeros(2, 3, 4)
    cube[0, :, t.tensor([1, 2])] = t.arange(6).reshape(3, 2).float()
    cube[:, t.tensor([0, 2]), 3] = 8
    return [x, cube, x._version]


def _broadcasts(t: Any) -> list[Any]:
    x = t.zeros(2, 3, 4)
    x[0] = t.arange(4)
    x[1, :, 1:3] = t.tensor([[[1], [2], [3]]])
    x[..., 0] = t.tensor([[1.0], [2.0]])
    x[None, 0, 0, 3] = t.tensor([9.0])
    x[0, 1, 2] = t.tensor([[4.0]])
    x[()] += 1
    return [x]


def _shared(t: Any) -> list[Any]:
    array = np.zeros((3, 4), np.float32)
    x = t.from_numpy(array)
    y = x + 1
    x[1, 2] = 5
    x[0][1:3] = t.tensor([6.0, 7.0])
    array[2, 0] = 3
    y2, row = x + 1, x[2]
    strided = t.from_numpy(array.T[1:])
    strided[0, 1] = 11
    mine = t.zeros(3)
    seen = mine.numpy()
    mine[1] = 4
    seen[2] = 8
    return [
        x,
        y,
        y2,
        row,
        strided,
        mine,
        t.tensor(array),
        t.tensor(seen),
        mine[2].item(),
        x[2, 0].item(),
    ]


def _parameters(t: Any) -> list[Any]:
    p = t.nn.Parameter(t.ones(2, 3))
    with t.no_grad():
        p[0, 1] = 5
        p[1] = t.zeros(3)
        p.data[0, 0] = 7
    before = p._version
    (p * p).sum().backward()
    with t.no_grad():
        p[:, 2] -= 0.5
        p.grad[0] = 0
    return [p.detach(), p.grad, before, p._version]


def _history(t: Any) -> list[Any]:
    w = t.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = t.zeros(3)
    x[0] = 4.0
    x[1] = w[1] * 3
    x[2] = 5
    y = x * w
    kept = x.requires_grad, x.is_leaf
    y.sum().backward()
    return [w.grad, x.detach(), *kept]


def _after_backward(t: Any) -> list[Any]:
    x = t.ones(3)
    w = t.ones(3, requires_grad=True)
    (x * w).sum().backward()
    x[1] = 9
    (x * w).sum().backward()
    return [w.grad, x._version]


def _reads(t: Any) -> list[Any]:
    x = t.arange(12).reshape(3, 4).float() / 8
    m = x.t()[1:]
    z = t.view_as_complex(x.reshape(3, 2, 2))
    return [
        x[1, 2].item(),
        float(x[-1][0]),
        int(x[2, 3]),
        [float(v) for v in x[1]],
        x[1:, 2].tolist(),
        [r.tolist() for r in m],
        m[0, 2].item(),
        m[-1].tolist(),
        x[2:2].tolist(),
        z[1, 1].item(),
        t.view_as_real(z)[2, 0, 1].item(),
        x.bfloat16()[1, 1].item(),
        x[1:2, 1:2].item(),
        x[..., 1].tolist(),
        x[[0, 2]].tolist(),
        tuple(x[1][:, None].shape),
        (x > 0.5)[1].tolist(),
        x[::2, 1::2].tolist(),
    ]


def _updates(t: Any) -> list[Any]:
    counts, x = t.zeros(4, dtype=t.int64), t.arange(12).reshape(3, 4) / 8
    y = x * 2
    for i in range(9):
        counts[i % 4] += i
        x[i % 3, 1:] *= 1.1
        x[i % 3][0] -= x[0, 0]
        y[1] += x[2]
    small = t.zeros(2, dtype=t.int32)
    small[0] += 2**31 - 1
    small[0] += 1
    w = t.ones(3, requires_grad=True)
    z = w * 2
    z[0] += 3
    (z * z).sum().backward()
    return [counts, x, y, small, w.grad, counts._version, x._version]


def _modes(t: Any) -> list[Any]:
    with t.inference_mode():
        x = t.zeros(3)
        x[0] = 1
    y = t.zeros(3)
    with t.no_grad():
        part = y[1:]
    part[0] = 2
    return [x, y, y._version]


PROGRAMS = {
    f.__name__.strip("_"): f
    for f in (
        _views,
        _overlapping,
        _pending_readers,
        _pending_target,
        _dtypes,
        _ranges,
        _masks_and_indices,
        _broadcasts,
        _shared,
        _parameters,
        _history,
        _after_backward,
        _reads,
        _updates,
        _modes,
    )
}


def plain(value: Any) -> Any:
    return (
        (str(value.dtype), tuple(value.shape), value.tolist())
        if hasattr(value, "tolist")
        else value
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = ([plain(v) for v in PROGRAMS[name](lib)] for lib in (graphtorch, torch))
    assert mine == theirs


def _set(
    key: Any, value: Any, make: Callable[[Any], Any] = lambda t: t.zeros(3, 4)
) -> Callable[[Any], None]:
    def write(t: Any) -> None:
        make(t)[key(t) if callable(key) else key] = value(t) if callable(value) else value

    return write


def _int8(t: Any) -> Any:
    return t.zeros(3, dtype=t.int8)


def _inference(t: Any) -> Any:
    with t.inference_mode():
        return t.zeros(3)


WRONG = {
    "index": _set(3, 1.0),
    "second index": _set((0, -5), 1.0),
    "too many": _set((0, 0, 0), 1.0),
    "zero step": _set(slice(0, 2, 0), 1.0),
    "negative step": _set(slice(None, None, -1), 1.0),
    "shape": _set(0, lambda t: t.ones(3)),
    "mask shape": _set(lambda t: t.ones(2, dtype=t.bool), 1.0),
    "float index": _set(1.5, 1.0),
    "leaf": _set(0, 1.0, lambda t: t.zeros(3, requires_grad=True)),
    "view of a leaf": _set(0, 1.0, lambda t: t.zeros(3, requires_grad=True)[1:]),
    "inference": _set(0, 1.0, _inference),
    "overflow": _set(0, 300, _int8),
    "nan": _set(0, float("nan"), _int8),
    "too large": _set(0, 1e300),
    "complex": _set(0, 1j),
    "0-d": _set(0, 1.0, lambda t: t.zeros(())),
    "update of an expanded tensor": lambda t: t.zeros(3, 1).expand(3, 4)[0].__iadd__(1),
    "update by a float": lambda t: t.zeros(3, dtype=t.int64)[1:].__iadd__(0.5),
    "entry of unbind": _set(
        0, lambda t: t.ones(2, requires_grad=True), lambda t: t.zeros(3, 2).unbind()
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refusals(name: str) -> None:
    found = []
    for lib in (graphtorch, torch):
        try:
            WRONG[name](lib)
            found.append(None)
        except Exception as error:
            found.append(type(error))
    assert found[0] is found[1]


def test_a_change_of_what_the_gradient_needs_is_found() -> None:
    for lib in (graphtorch, torch):
        x = lib.ones(3)
        w = lib.ones(3, requires_grad=True)
        y = (x * w).sum()
        x[0] = 3
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


@pytest.mark.parametrize(
    "write",
    [
        lambda t, x: x.expand(3, 3).add_(1),
        lambda t, x: x.expand(3, 3)[1].mul_(5),
        lambda t, x: x.expand(-1, 3).t().expand(3, 3)[1:].fill_(2),
        lambda t, x: x.expand(3, 3).view(t.int32).__setitem__(0, 7),
        lambda t, x: (x * 1).expand(1, 3, 3)[0].detach().view(t.int32).add_(1),
    ],
)
def test_writes_through_expansions_that_repeat_nothing(write: Any) -> None:
    found = []
    for lib in (graphtorch, torch):
        x = lib.arange(9.0).reshape(3, 3) + 1
        made = write(lib, x)
        found.append([x.tolist(), None if made is None else made.tolist()])
    assert found[0] == found[1]


READERS: dict[str, Any] = {
    "mask": lambda t, a, b: a * (a > 0),
    "quotient of integers": lambda t, a, b: a / t.tensor([1, 2, 4]),
    "integer powers": lambda t, a, b: a ** t.tensor([1, 2, 3]),
    "quantile": lambda t, a, b: a.quantile(0.25, 0),
    "nanmean": lambda t, a, b: a.nanmean(0),
    "lerp": lambda t, a, b: t.lerp(a, b, b),
    "addcmul": lambda t, a, b: t.addcmul(a, a, b),
    "addcdiv": lambda t, a, b: t.addcdiv(a, a, b),
    "inverse": lambda t, a, b: t.linalg.inv(a),
    "cross_entropy": lambda t, a, b: t.nn.functional.cross_entropy(
        a, t.tensor([0, 2, 1]), reduction="none"
    ),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("written", [None, "a", "b", "result"])
def test_what_may_be_written_to_after_an_operation(name: str, written: str | None) -> None:
    """What its gradient reads may not be: operands, where it computes something from them again."""
    found = []
    for t in (torch, graphtorch):
        x = t.tensor([[0.5, -0.25, 1.0], [2.0, 0.75, -1.5], [-1.0, 0.5, 0.25]], requires_grad=True)
        tensors = {"a": x * 1, "b": x + 3}
        tensors["result"] = READERS[name](t, tensors["a"], tensors["b"])
        if written is not None:
            tensors[written].add_(1)
        try:
            tensors["result"].sum().backward()
            found.append(x.grad.numpy())
        except RuntimeError as error:
            assert "inplace operation" in str(error)
            found.append(None)
    theirs, mine = found
    # saved there and not needed
    if (name, written) == ("integer powers", "result"):
        assert mine is not None and theirs is None
    else:
        assert (mine is None) == (theirs is None)
        assert theirs is None or np.allclose(mine, theirs, 1e-5, 1e-6)
