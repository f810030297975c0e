"""Replays PyTorch's own configurations of optimizers on graphtorch: the parameters after each step.

    python tools/oracle/optims.py                  every configuration of every optimizer
    python tools/oracle/optims.py --optim Adam     those of one, or of several
    python tools/oracle/optims.py --device cuda    on a GPU (GRAPHTORCH_CUDA=emulated: on the
                                                   emulated one)

PyTorch's parameters stay on the CPU; what only a GPU is offered there (`capturable`, `fused`)
changes how an update is carried out and not what it computes, so its configurations count as well.
Parameters, gradients and states are float64. Needs ``pip install -e ".[oracle]"``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from conversion import difference
from opinfo import Tally
from torch.testing._internal.common_optimizers import optim_db

import graphtorch

INFOS = {info.name: info for info in optim_db}
STEPS = 4
TOLERANCE = (1e-6, 1e-7)
# How an update is carried out: what PyTorch refuses on CPUs, and what it takes in their place.
CARRIED_OUT = {"fused", "capturable", "foreach"}
IMPLEMENTATIONS: dict[str, Sequence[dict[str, bool]]] = {
    "cpu": [{}, {"foreach": True}],
    "cuda": [{}, {"foreach": True}, {"fused": True}],
}


def translated(x: Any, device: str = "cpu", memo: dict[int, Any] | None = None) -> Any:
    """PyTorch's tensors, at any depth, as graphtorch's; one tensor stays one."""
    memo = {} if memo is None else memo
    if id(x) in memo:
        return memo[id(x)]
    if isinstance(x, torch.Tensor):
        made = (sparse(x) if x.is_sparse else graphtorch.tensor(x.detach().numpy())).to(device)
        if isinstance(x, torch.nn.Parameter):
            made = graphtorch.nn.Parameter(made)
        if x.grad is not None:
            made.grad = translated(x.grad, device)
        memo[id(x)] = made
        return made
    if isinstance(x, dict):
        return {k: translated(v, device, memo) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(translated(v, device, memo) for v in x)
    return x


def sparse(x: Any) -> Any:
    return graphtorch.sparse_coo_tensor(x._indices().numpy(), x._values().numpy(), tuple(x.shape))


def problem(info: Any) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    r = np.random.default_rng(0)
    shapes = {"SparseAdam": [(3, 2)], "Muon": [(3, 2), (2, 4)]}.get(info.name, [(3, 2), (2,), ()])
    start = [r.standard_normal(s) for s in shapes]
    return start, [[r.standard_normal(s) for s in shapes] for _ in range(STEPS)]


def trajectory(
    mod: Any, info: Any, kwargs: dict[str, Any], device: str = "cpu"
) -> list[np.ndarray]:
    """The parameters after each step on fixed gradients (or with a closure on a fixed
    quadratic)."""
    start, gradients = problem(info)
    params = [mod.nn.Parameter(mod.tensor(p, device=device)) for p in start]
    optimizer = getattr(mod.optim, info.name)(params, **kwargs)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = sum(
            ((p - mod.tensor(t, device=device)) ** 2).sum() * w
            for p, t, w in zip(params, gradients[0], (1.0, 3.0, 0.5), strict=True)
        )
        loss.backward()
        return loss

    found = []
    for step, given in enumerate(gradients):
        for p, g in zip(params, given, strict=True):
            if info.only_supports_sparse_grads:
                g = g * (np.arange(3) != step % 3)[:, None]
            made = mod.tensor(g, device=device)
            p.grad = made.to_sparse(1) if info.only_supports_sparse_grads else made
        optimizer.step(*[closure] if info.step_requires_closure else [])
        if {p.device.type for p in params} != {device}:
            raise RuntimeError(f"a step left parameters on {params[0].device}")
        found += [p.detach().cpu().numpy().copy() for p in params]
    return found


def configurations(info: Any, device: str) -> Iterator[dict[str, Any]]:
    """What PyTorch's table tries an optimizer with on a device, in each implementation that takes
    it; without `differentiable`, whose steps are part of a graph."""
    seen: list[str] = []
    for config in info.optim_inputs_func(device=device):
        for chosen in IMPLEMENTATIONS[device]:
            kwargs = {**config.kwargs, **chosen}
            supported = all(name in info.supported_impls for name in chosen)
            if supported and not kwargs.get("differentiable") and str(kwargs) not in seen:
                seen.append(str(kwargs))
                yield kwargs


def compare(info: Any, kwargs: dict[str, Any], device: str) -> str | None:
    """What is wrong with the trajectory of a configuration; None where it is PyTorch's."""
    plain = {k: v for k, v in kwargs.items() if k not in CARRIED_OUT}
    expected = trajectory(torch, info, plain)
    try:
        found = trajectory(graphtorch, info, translated(kwargs), device)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    wrong = (difference(f, e, TOLERANCE) for f, e in zip(found, expected, strict=True))
    return next(filter(None, wrong), None)


def replay(name: str, device: str) -> Tally:
    """All configurations of an optimizer."""
    tally, info = Tally(), INFOS[name]
    for kwargs in configurations(info, device):
        tally.note("trajectory", f"{name} {kwargs}", compare(info, kwargs, device))
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--optim", nargs="+", default=list(INFOS), choices=INFOS, metavar="NAME")
    parser.add_argument(
        "--device", default="cpu", choices=sorted(IMPLEMENTATIONS), help="where our tensors are"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.optim:
        print(name, flush=True)
        replay(name, given.device).report()


if __name__ == "__main__":
    main()
