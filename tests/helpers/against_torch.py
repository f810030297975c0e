"""Calls on PyTorch and on graphtorch that have to give the same values, gradients and kinds of
errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphtorch as gt


def compare(
    call: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    theirs: Any = None,
    mine: Any = None,
    tolerance: float = 1e-4,
) -> None:
    """`call(framework, module, *tensors)` gives the same values and gradients in both.

    Gradients are those of the floating-point arrays and of the modules' parameters; an array that
    stands twice is one tensor.
    """
    torch = pytest.importorskip("torch")
    found = []
    for t, module in ((torch, theirs), (gt, mine)):
        made = {id(a): t.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays}
        out = call(t, module, *(made[id(a)] for a in arrays))
        outs = [o for o in (out if isinstance(out, tuple) else (out,)) if o is not None]
        learned = [o for o in outs if o.requires_grad]
        if learned:
            sum((o * o).sum() for o in learned).backward()
        parameters = [] if module is None else [p.grad for p in module.parameters()]
        found.append([*(o.detach() for o in outs), *(x.grad for x in made.values()), *parameters])
    for a, b in zip(*found, strict=True):
        if a is None or b is None:  # no gradient, or one of zeros
            assert all(x is None or not x.numpy().any() for x in (a, b))
        else:
            np.testing.assert_allclose(b.numpy(), a.numpy(), tolerance, tolerance)


def error_of(call: Callable[[], Any]) -> type[BaseException]:
    """The type of what `call` raises; fails where it raises nothing."""
    with pytest.raises(Exception) as caught:
        call()
    return caught.type


def same_error(call: Callable[[Any], Any]) -> None:
    """`call(framework)` raises the same type of exception in both."""
    mine, theirs = (error_of(lambda t=t: call(t)) for t in (gt, pytest.importorskip("torch")))
    assert mine is theirs, f"{mine.__name__} instead of {theirs.__name__}"
