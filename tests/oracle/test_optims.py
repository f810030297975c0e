"""Optimizers against PyTorch: its own table of configurations as trajectories, its error inputs,
complex parameters, and sparse gradients."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch.backends.gpu import emulated

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")
table = pytest.importorskip("torch.testing._internal.common_optimizers")
TOOLS = Path(__file__).parents[2] / "tools" / "oracle"
sys.path.insert(0, str(TOOLS))
optims = importlib.import_module("optims")
sys.path.remove(str(TOOLS))
INFOS, translated = optims.INFOS, optims.translated
ERRORS = table.OptimizerErrorEnum


@pytest.mark.parametrize("name", INFOS)
def test_configurations(name: str) -> None:
    tally = optims.replay(name, "cpu")
    assert not tally.reasons
    assert tally.counts["trajectory"] > 1


@pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated CUDA device needs a C++ compiler"
)
@pytest.mark.parametrize("name", ["Adam", "Muon"])
def test_configurations_on_a_gpu(name: str) -> None:
    """``tools/oracle/optims.py --device cuda`` runs all of them."""
    done = subprocess.run(
        [sys.executable, TOOLS / "optims.py", "--optim", name, "--device", "cuda"],
        capture_output=True,
        text=True,
        env={**os.environ, "GRAPHTORCH_CUDA": "emulated"},
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"trajectory: (\d+) of (\d+) samples equal", done.stdout)
    assert found and found[1] == found[2] and int(found[2]) > 5, done.stdout


@pytest.mark.parametrize(
    "name", [n for n, i in INFOS.items() if i.supports_complex and n != "LBFGS"]
)
def test_complex_parameters(name: str) -> None:
    r = np.random.default_rng(1)
    start = r.standard_normal((3, 2)) + 1j * r.standard_normal((3, 2))
    results = []
    for mod in (torch, graphtorch):
        param = mod.nn.Parameter(mod.tensor(start))
        options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
        optimizer = getattr(mod.optim, name)([param], **options)
        for k in range(3):
            param.grad = mod.tensor(start * (k - 0.5j))
            optimizer.step()
        state = {
            k: v.detach().numpy().copy() for k, v in optimizer.state_dict()["state"][0].items()
        }
        results.append((param.detach().numpy().copy(), state))
    (theirs, their_state), (ours, our_state) = results
    np.testing.assert_allclose(ours, theirs, 1e-6, 1e-7)
    assert our_state.keys() == their_state.keys()
    for key, value in their_state.items():
        np.testing.assert_allclose(our_state[key], value, 1e-5, 1e-7, err_msg=key)


@pytest.mark.parametrize("name", INFOS)
def test_error_inputs(name: str) -> None:
    info, cls = INFOS[name], getattr(graphtorch.optim, name)
    for error in info.optim_error_inputs_func("cpu", torch.float32):
        given = error.optimizer_error_input
        params = (
            [graphtorch.nn.Parameter(graphtorch.randn(2, 3))]
            if given.params is None
            else translated(given.params)
        )
        if error.error_type is UserWarning:
            with pytest.warns(UserWarning, match=error.error_regex):
                cls(params, **translated(given.kwargs))
        elif error.error_on is ERRORS.CONSTRUCTION_ERROR:
            with pytest.raises(error.error_type, match=error.error_regex) as caught:
                cls(params, **translated(given.kwargs))
            assert caught.type is error.error_type, given.desc
        else:
            optimizer = cls(params, **translated(given.kwargs))
            with pytest.raises(error.error_type, match=error.error_regex):
                optimizer.step()


SPARSE = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.5},
        {"maximize": True},
        {"weight_decay": 0.1},
    ],
    "Adagrad": [
        {},
        {"maximize": True},
        {"lr_decay": 0.1, "initial_accumulator_value": 0.1},
        {"weight_decay": 0.1},
    ],
    "SparseAdam": [{}, {"maximize": True, "lr": 0.1}],
    **{name: [{}] for name in INFOS if name not in ("SGD", "Adagrad", "SparseAdam", "LBFGS")},
}


def embedding_steps(mod: Any, name: str, kwargs: dict[str, Any]) -> Any:
    """A table after three steps of which one accumulates, or the error."""
    table = mod.nn.Parameter((mod.arange(15.0) / 10).reshape(5, 3))
    optimizer = getattr(mod.optim, name)([table], **kwargs)
    try:
        for k in range(3):
            optimizer.zero_grad(set_to_none=k == 1)
            rows = mod.nn.functional.embedding(mod.tensor([1, 2, 1, k]), table, sparse=True)
            (rows**2).sum().backward()
            optimizer.step()
    except RuntimeError as error:
        return str(error)
    state = optimizer.state_dict()["state"].get(0, {})
    dense = {k: v.to_dense().numpy() if hasattr(v, "to_dense") else v for k, v in state.items()}
    return table.detach().numpy(), dense


@pytest.mark.parametrize(
    ("name", "kwargs"), [(n, k) for n, options in SPARSE.items() for k in options]
)
def test_sparse_gradients(name: str, kwargs: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, ours = (embedding_steps(mod, name, kwargs) for mod in (torch, graphtorch))
    if isinstance(theirs, str):
        assert ours == theirs
        return
    np.testing.assert_allclose(ours[0], theirs[0], 1e-5, 1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for key, value in theirs[1].items():
        np.testing.assert_allclose(ours[1][key], value, 1e-5, 1e-6, err_msg=key)


SCHEDULES = {
    "StepLR": {"step_size": 3},
    "MultiStepLR": {"milestones": [2, 7]},
    "ConstantLR": {},
    "LinearLR": {},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 9},
    "CosineAnnealingLR": {"T_max": 7},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4},
    "OneCycleLR": {"max_lr": 0.5, "total_steps": 30},
    "ReduceLROnPlateau": {"patience": 1},
    "LambdaLR": {"lr_lambda": lambda e: 0.9**e},
    "MultiplicativeLR": {"lr_lambda": lambda e: 0.9},
}


def rates(t: Any, name: str, steps: int, state: Any = None) -> tuple[list[float], Any]:
    """The learning rates of `steps` epochs, from a saved state on, and the state then."""
    optimizer = t.optim.SGD([t.nn.Parameter(t.ones(1))], lr=0.1, momentum=0.9)
    schedule = getattr(t.optim.lr_scheduler, name)(optimizer, **SCHEDULES[name])
    if state is not None:
        optimizer.load_state_dict(state[0])
        schedule.load_state_dict(state[1])
    found = []
    for _ in range(steps):
        optimizer.step()
        schedule.step(*[1.0] if name == "ReduceLROnPlateau" else [])
        found.append(optimizer.param_groups[0]["lr"])
    return found, (optimizer.state_dict(), schedule.state_dict())


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_continue_in_the_other_library(name: str) -> None:
    for first, second in ((torch, graphtorch), (graphtorch, torch)):
        _, state = rates(first, name, 4)
        expected, final = rates(first, name, 8, state)
        got, other = rates(second, name, 8, state)
        np.testing.assert_allclose(got, expected, 1e-9)
        assert other[1].keys() == final[1].keys()


@pytest.mark.parametrize(
    "options", [{"foreach": True, "fused": True}, {"fused": True, "differentiable": True}]
)
def test_options_that_exclude_each_other(options: dict[str, bool]) -> None:
    for t in (torch, graphtorch):
        with pytest.raises(RuntimeError, match="fused"):
            t.optim.Adam([t.nn.Parameter(t.ones(1))], **options)


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "ASGD"]
)
def test_gradients_through_steps(name: str) -> None:
    found = []
    for t in (torch, graphtorch):
        start, g = t.ones(2, requires_grad=True), t.tensor([0.5, -0.25], requires_grad=True)
        param = start * 1
        param.retain_grad()
        options = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(t.optim, name)([param], lr=0.1, differentiable=True, **options)
        for factor in (2, 3):
            param.grad = g * factor
            optimizer.step()
        (param**2).sum().backward()
        found.append(np.stack([start.grad.numpy(), g.grad.numpy()]))
    np.testing.assert_allclose(found[1], found[0], 1e-4, 1e-5)
