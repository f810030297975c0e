"""What operations keep for their gradients: after which writes PyTorch refuses a backward pass.

`python tools/oracle/saved.py [--compiled]` compares every operation; this a part of them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphtorch as gt

torch: Any = pytest.importorskip("torch")

ORACLE = Path(__file__).parents[2] / "tools" / "oracle"
sys.path.insert(0, str(ORACLE))
saved = importlib.import_module("saved")
sys.path.remove(str(ORACLE))

# those that we refused and PyTorch did not, or the other way round
REPAIRED = (
    "addmm",
    "corrcoef",
    "cummax",
    "cumprod",
    "diag_embed",
    "div",
    "erfinv",
    "fft.rfft",
    "gather",
    "index_add",
    "index_copy",
    "kron",
    "ldexp",
    "linalg.cond",
    "linalg.det",
    "linalg.inv",
    "linalg.lu_factor",
    "linalg.slogdet",
    "linalg.solve",
    "logit",
    "masked_select",
    "median",
    "mul",
    "nn.functional.adaptive_avg_pool2d",
    "nn.functional.avg_pool2d",
    "nn.functional.bilinear",
    "nn.functional.cross_entropy",
    "nn.functional.elu",
    "nn.functional.grid_sample",
    "nn.functional.huber_loss",
    "nn.functional.instance_norm",
    "nn.functional.layer_norm",
    "nn.functional.local_response_norm",
    "nn.functional.max_pool2d",
    "nn.functional.mse_loss",
    "nn.functional.nll_loss",
    "nn.functional.normalize",
    "nn.functional.prelu",
    "nn.functional.scaled_dot_product_attention",
    "nn.functional.softshrink",
    "polar",
    "prod",
    "scatter_reduce",
    "sgn",
    "special.erfcx",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("replay", [False, True], ids=["plain", "compiled"])
def test_the_same_writes_are_refused(replay: bool) -> None:
    """Two samples of each, and of one entry in twelve of all others; compiled one sample of each
    fourth."""
    chosen = [
        op
        for i, op in enumerate(saved.entries(None, None))
        if op.name in (REPAIRED[::4] if replay else REPAIRED) or (i % 12 == 5 and not replay)
    ]
    tally = saved.Tally()
    for op in chosen:
        saved.compare(op, torch.float32, tally, 1 if replay else 2, replay)
    assert not tally.found
    least = 10 if replay else 80
    assert tally.counts["equal refused"] > least and tally.counts["equal allowed"] > least


def _alone(t: Any, wanted: str) -> tuple[Any, Any]:
    """Factors of which one is differentiated."""
    x = t.ones(3, requires_grad="x" in wanted)
    w = t.ones(3, requires_grad="w" in wanted)
    return x.clone(), w.clone()


def _refuses(t: Any, backward: Callable[[], Any]) -> bool:
    try:
        backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return True
    return False


PAIRS: dict[str, Callable[..., Any]] = {
    "mul": lambda t, x, w: x * w,
    "div": lambda t, x, w: x / w,
    "rounded div": lambda t, x, w: t.div(x, w, rounding_mode="floor"),
    "ldexp": lambda t, x, w: t.ldexp(x, w),
    "mse_loss": lambda t, x, w: t.nn.functional.mse_loss(x, w),
    "index_add": lambda t, x, w: x.index_add(0, t.tensor([0, 1, 2]), w),
    "index_copy": lambda t, x, w: x.index_copy(0, t.tensor([0, 1, 2]), w),
    "prelu": lambda t, x, w: t.nn.functional.prelu(x[None], w)[0],
    "matmul": lambda t, x, w: x @ w,
    "solve": lambda t, x, w: t.linalg.solve(t.diag(w), x),
    "in place": lambda t, x, w: x.mul_(w),
    "in place shrunk": lambda t, x, w: t.nn.functional.threshold(x, 0.5, 0.0, inplace=True) * w,
    "scattered in place": lambda t, x, w: x.index_add_(0, t.tensor([0, 1, 2]), w),
    "median": lambda t, x, w: (x + w).median(),
}


@pytest.mark.parametrize("wanted", ["x", "w", "xw"])
@pytest.mark.parametrize("name", PAIRS)
def test_what_is_kept_depends_on_the_gradients_wanted(name: str, wanted: str) -> None:
    for written in range(3):
        found = []
        for t in (gt, torch):
            x, w = _alone(t, wanted)
            y = PAIRS[name](t, x, w)
            with t.no_grad():
                (x, w, y)[written].mul_(1)
            found.append(_refuses(t, lambda y=y: y.sum().backward()))  # type: ignore[misc]
        assert found[0] == found[1], written


def test_gradients_after_writes_are_those_of_the_values_read() -> None:
    """Also where our rule reads what PyTorch does not keep."""
    for t in (gt, torch):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        w = t.tensor([4.0, 8.0], requires_grad=True)
        y = x / w
        with t.no_grad():
            y.add_(100)
        y.sum().backward()
        assert x.grad.tolist() == [0.25, 0.125]
        assert w.grad.tolist() == [-1 / 16, -1 / 32]


def test_writes_through_data_are_seen_where_pytorch_sees_them() -> None:
    found = []
    for t in (gt, torch):
        x = t.tensor([1.0, 2.0], requires_grad=True)
        w = t.tensor([4.0, 8.0], requires_grad=True)
        a, b = x * 1, w * 1
        y = a / b
        y.data.fill_(50)
        a.data.fill_(3)
        b.data.fill_(2)
        y.sum().backward()
        found.append([x.grad.tolist(), w.grad.tolist()])
    assert found[0] == found[1]


def test_a_second_pass_is_refused_where_something_was_kept() -> None:
    for name in ("mse_loss", "avg_pool1d", "l1_loss"):
        found = []
        for t in (gt, torch):
            x = t.ones(1, 4, requires_grad=True)
            f = t.nn.functional
            y = f.avg_pool1d(x, 2) if name == "avg_pool1d" else getattr(f, name)(x, t.zeros(1, 4))
            y.sum().backward()
            try:
                y.sum().backward()
                found.append("")
            except RuntimeError as error:
                found.append(str(error)[:30])
        assert found[0] == found[1], name
