"""Gradients of every module class, for its input and its parameters, against finite differences in
f64.

The classes and their arguments come from PyTorch's module database; the differences are our own.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

import graphtorch
from graphtorch.autograd import gradcheck

torch = pytest.importorskip("torch")

TOOLS = Path(__file__).parent.parent.parent / "tools" / "oracle"
sys.path.insert(0, str(TOOLS))
replays = importlib.import_module("modules")
tensors = importlib.import_module("conversion").tensors
sys.path.remove(str(TOOLS))

LIMIT = 4000  # elements of inputs and parameters: differences along one direction stay exact enough
# CTC's gradient is one of log_softmax and it together, as PyTorch's: test_ctc_through_log_softmax
# below. LinearCrossEntropyLoss, new in PyTorch 2.13, is not here yet.
APART = {"nn.CTCLoss", "nn.LinearCrossEntropyLoss"}
INFOS = {i.name: i for i in replays.module_db if i.name not in APART}


@pytest.fixture(autouse=True)
def double_precision() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", INFOS)
def test_gradients(name: str, training: bool) -> None:
    if training and name.startswith(replays.RANDOM):
        pytest.skip("draws random numbers at each call")
    checked = sum(_check(INFOS[name], sample, training) for sample in _samples(name, training))
    if not checked:
        pytest.skip("PyTorch has no sample of it with a gradient")


def _samples(name: str, training: bool) -> list[Any]:
    torch.manual_seed(0)
    info = INFOS[name]
    found = [
        s
        for s in info.module_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
        )
        if s.forward_input is not None
    ]
    return found[:2]


def _check(info: Any, sample: Any, training: bool) -> bool:
    replay = replays.Replay(info, torch.float64, training, None, False)
    given = sample.constructor_input
    args = replays.leaves_of(tuple(sample.forward_input.args))
    kwargs = replays.leaves_of(sample.forward_input.kwargs)
    theirs = info.module_cls(*given.args, **given.kwargs).to(torch.float64).train(training)
    if info.is_lazy:
        with torch.no_grad():
            theirs(*args, **kwargs)
    mine = replay.built(given, theirs.state_dict(), args, kwargs)
    leaves: list[Any] = []
    call = replays.converted(args, leaves), replays.converted(kwargs, leaves)
    places = [(m, n) for m in mine.modules() for n, p in m._parameters.items() if p is not None]
    wrt = [*leaves, *(m._parameters[n] for m, n in places)]
    if (
        not wrt
        or sum(t.numel() for t in wrt) > LIMIT
        or not _differentiable(mine(*call[0], **call[1]))
    ):
        return False

    def function(*tensors_: Any) -> Any:
        table = {id(leaf): t for leaf, t in zip(leaves, tensors_, strict=False)}
        for (module, parameter), t in zip(places, tensors_[len(leaves) :], strict=True):
            module._parameters[parameter] = t
        positional, named = (_replaced(part, table) for part in call)
        return tuple(_differentiable(mine(*positional, **named)))

    assert gradcheck(function, tuple(wrt), fast_mode=True)
    return True


def _replaced(tree: Any, table: dict[int, Any]) -> Any:
    """The arguments with other tensors in the place of some."""
    if type(tree) in (list, tuple):
        return type(tree)(_replaced(x, table) for x in tree)
    if isinstance(tree, dict):
        return {k: _replaced(v, table) for k, v in tree.items()}
    return table.get(id(tree), tree)


def _differentiable(result: Any) -> list[Any]:
    return [t for t in tensors(result, graphtorch.Tensor) if t.dtype.is_floating_point]


def test_ctc_through_log_softmax() -> None:
    x = graphtorch.tensor(
        torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0)).numpy(),
        dtype=graphtorch.float64,
        requires_grad=True,
    )
    targets = graphtorch.tensor([[1, 2, 2], [3, 1, 0]])
    lengths = graphtorch.tensor([6, 5]), graphtorch.tensor([3, 2])
    for reduction in ("none", "mean", "sum"):
        loss = graphtorch.nn.CTCLoss(reduction=reduction)
        assert gradcheck(lambda v, loss=loss: loss(v.log_softmax(-1), targets, *lengths), (x,))
