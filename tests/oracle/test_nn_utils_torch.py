"""Parametrizations, weight and spectral normalisation, pruning: programs run by PyTorch and by
graphtorch."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")


def filled(module: Any, layer: Any, seed: int = 0) -> Any:
    """The layer with the same weights in both."""
    rng = np.random.default_rng(seed)
    for tensor in layer.state_dict(keep_vars=True).values():
        tensor.data = module.tensor(rng.standard_normal(tuple(tensor.shape))).to(tensor.dtype)
    return layer


def trained(module: Any, layer: Any, *shape: int) -> list[Any]:
    """Outputs of four steps of SGD, and what the layer holds then."""
    x = module.tensor(np.random.default_rng(1).standard_normal(shape)).float()
    optimizer = module.optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    seen: list[Any] = []
    for _ in range(4):
        optimizer.zero_grad()
        out = layer(x)
        out.square().mean().backward()
        optimizer.step()
        seen.append(out)
    layer.eval()
    seen.append(layer(x))
    return [*seen, *layer.state_dict().items(), type(layer).__name__]


def utils(module: Any, name: str = "") -> Any:
    return importlib.import_module(f"{module.__name__}.nn.utils{'.' * bool(name)}{name}")


def raised(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    try:
        call(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "nothing"


def symmetric(module: Any) -> list[Any]:
    p = utils(module, "parametrize")

    class Symmetric(module.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, x: Any) -> Any:
            return x.triu()

    class Twice(module.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return 2 * x

        def right_inverse(self, x: Any) -> Any:
            return x / 2

    class Tall(module.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return module.cat([x, x])

    layer = filled(module, module.nn.Linear(4, 4))
    kept = layer.weight
    p.register_parametrization(layer, "weight", Symmetric())
    seen = [layer.parametrizations.weight.original is kept, p.is_parametrized(layer), repr(layer)]
    seen += [
        raised(p.register_parametrization, layer, "weight", Tall()),
        raised(p.register_parametrization, layer, "bias", Tall()),
        raised(p.register_parametrization, layer, "nothing", Twice()),
    ]
    p.register_parametrization(layer, "weight", Twice())
    p.register_parametrization(layer, "bias", Twice())
    seen += trained(module, layer, 3, 4)
    seen.append(copy.deepcopy(layer).weight)
    with p.cached():
        seen.append(layer.weight is layer.weight)
    seen += [layer.weight is layer.weight, p.type_before_parametrizations(layer).__name__]
    p.remove_parametrizations(layer, "bias", leave_parametrized=False)
    layer.weight = module.arange(16.0).reshape(4, 4)
    seen.append(layer.weight)
    p.remove_parametrizations(layer, "weight")
    return [
        *seen,
        layer.weight,
        layer.bias,
        type(layer).__name__,
        *dict(layer.named_parameters()),
        raised(p.remove_parametrizations, layer, "weight"),
    ]


def weight_norm(module: Any) -> list[Any]:
    p = utils(module, "parametrizations")
    seen = []
    for dim in (0, 1, None):
        conv = p.weight_norm(filled(module, module.nn.Conv2d(2, 3, 2)), dim=dim)
        seen += trained(module, conv, 2, 2, 4, 4)
    layer = p.weight_norm(filled(module, module.nn.Linear(3, 2)), "bias")
    ones = module.ones(2)
    layer.load_state_dict({"weight": module.ones(2, 3), "bias_g": ones, "bias_v": 3 * ones})
    plain = utils(module, "parametrize").remove_parametrizations(layer, "bias")
    return [*seen, *plain.state_dict().items()]


def weight_norm_hook(module: Any) -> list[Any]:
    u = utils(module)
    with pytest.warns(FutureWarning, match="weight_norm"):
        layer = u.weight_norm(filled(module, module.nn.Linear(3, 5)))
    seen = [*trained(module, layer, 2, 3), raised(u.weight_norm, layer)]
    seen += u.remove_weight_norm(layer).state_dict().items()
    return [*seen, raised(u.remove_weight_norm, layer)[:10]]


def spectral_norm(module: Any) -> list[Any]:
    seen = []
    layers = (module.nn.Linear(3, 5), (2, 3)), (module.nn.ConvTranspose2d(2, 3, 2), (1, 2, 3, 3))
    for layer, shape in layers:
        made = utils(module, "parametrizations").spectral_norm(
            filled(module, layer), n_power_iterations=2
        )
        seen += trained(module, filled(module, made, 3), *shape)
    return [*seen, raised(utils(module, "parametrizations").spectral_norm, layer, "none")[:10]]


def spectral_norm_hook(module: Any) -> list[Any]:
    u = utils(module)
    layer = u.spectral_norm(filled(module, module.nn.Conv1d(3, 5, 2)))
    seen = trained(module, filled(module, layer, 3), 2, 3, 4)
    seen += [raised(u.spectral_norm, layer), raised(u.spectral_norm, layer, "bias", 0)]
    return [*seen, *u.remove_spectral_norm(layer).state_dict().items()]


def prune(module: Any) -> list[Any]:
    p = utils(module, "prune")
    layer = filled(module, module.nn.Linear(6, 4))
    p.l1_unstructured(layer, "weight", amount=5)
    seen = [layer.weight, layer.weight_mask, *layer.state_dict()]
    p.ln_structured(layer, "weight", amount=0.5, n=2, dim=0)
    seen += [layer.weight, len(next(iter(layer._forward_pre_hooks.values()))), p.is_pruned(layer)]
    seen += trained(module, layer, 3, 6)
    p.custom_from_mask(layer, "bias", module.tensor([1, 0, 1, 1]))
    p.remove(layer, "weight")
    seen += [layer.weight, *dict(layer.named_parameters())]
    model = filled(module, module.nn.Sequential(module.nn.Linear(3, 4), module.nn.Linear(4, 2)), 4)
    p.global_unstructured([(layer, "weight") for layer in model], p.L1Unstructured, amount=0.3)
    seen += [model[0].weight, model[1].weight]
    methods = (p.random_unstructured, {"amount": 3}), (p.random_structured, {"amount": 2, "dim": 1})
    for method, given in methods:
        one = method(filled(module, module.nn.Linear(5, 3)), "weight", **given)
        seen += [
            one.weight_mask.sum(),
            (one.weight_mask.sum(0) == 0).sum() == 2 or given["amount"] == 3,
        ]
    one = p.identity(filled(module, module.nn.Linear(5, 3)), "weight")
    return [
        *seen,
        one.weight,
        p.L1Unstructured(2).prune(module.tensor([[1.0, -3.0], [0.5, 2.0]])),
        raised(p.remove, one, "bias")[:10],
        raised(p.l1_unstructured, one, "bias", 1.5),
        raised(p.l1_unstructured, one, "bias", 9),
        raised(p.l1_unstructured, one, "bias", "x"),
        raised(p.ln_structured, one, "bias", 1, 2, 0).replace("torch.Size", ""),
    ]


def plain(value: Any) -> Any:
    return value.detach().numpy() if hasattr(value, "detach") else value


PROGRAMS = (symmetric, weight_norm, weight_norm_hook, spectral_norm, spectral_norm_hook, prune)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_same_as_pytorch(program: Callable[[Any], list[Any]]) -> None:
    got, expected = program(graphtorch), program(torch)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        if isinstance(other, tuple):
            assert one[0] == other[0]
            one, other = one[1], other[1]
        if hasattr(other, "detach"):
            np.testing.assert_allclose(plain(one), plain(other), rtol=1e-4, atol=1e-5)
        else:
            assert one == other


@pytest.mark.parametrize("strict", [False, True])
def test_functional_call_under_its_former_name(strict: bool) -> None:
    def program(module: Any) -> Any:
        stateless = importlib.import_module(f"{module.__name__}.nn.utils.stateless")
        layer = filled(module, module.nn.Linear(2, 1))
        given = {"weight": module.tensor([[2.0, 3.0]])}
        with pytest.warns(FutureWarning, match="torch.func.functional_call"):
            try:
                found = stateless.functional_call(layer, given, module.ones(1, 2), strict=strict)
            except RuntimeError as error:
                return str(error).splitlines()[0]
        assert module.nn.utils.stateless is stateless
        return found.tolist(), layer.weight.tolist()

    assert program(graphtorch) == program(torch)


def test_a_second_pruning_ranks_what_the_first_left() -> None:
    """Elements that are pruned already count as zero in the norms of channels."""
    found = []
    for t in (torch, graphtorch):
        layer = t.nn.Conv2d(2, 4, 3)
        with t.no_grad():
            layer.weight.copy_(
                t.tensor(np.linspace(1.0, 2.0, 72, dtype=np.float32).reshape(4, 2, 3, 3))
            )
        mask = t.ones(4, 2, 3, 3)
        mask[3, :, 1:] = 0
        t.nn.utils.prune.custom_from_mask(layer, "weight", mask)
        t.nn.utils.prune.ln_structured(layer, "weight", amount=1, n=1, dim=0)
        found.append(layer.weight_mask.flatten(1).sum(1).tolist())
    assert found[0] == found[1] and found[1][3] == 0
