"""`torch.func`: against formulas written out, and against PyTorch where it is installed."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)

X = [0.3, -0.7, 1.1]


def cubes(x: Any) -> Any:
    return (x**3).sum()


def test_gradients_are_functions() -> None:
    x = torch.tensor(X)
    gradient, value = grad_and_value(cubes)(x)
    assert gradient.tolist() == pytest.approx([3 * v * v for v in X])
    assert value.item() == pytest.approx(sum(v**3 for v in X))
    assert not gradient.requires_grad and not value.requires_grad and not x.requires_grad
    second = grad(lambda x: grad(cubes)(x).sum())(x)
    assert second.tolist() == pytest.approx([6 * v for v in X])
    third = grad(lambda x: grad(lambda x: grad(cubes)(x).sum())(x).sum())(x)
    assert third.tolist() == pytest.approx([6.0] * 3)


def test_arguments_are_nests_and_results_carry_more() -> None:
    def f(p: Any, scale: Any, shift: float = 0.0) -> Any:
        return (p["a"] * p["b"][0] * scale).sum() + shift, {"scaled": p["a"] * scale}

    point = {"a": torch.tensor(X), "b": (torch.tensor(2.0), torch.tensor(5.0))}
    (by_p, by_scale), aux = grad(f, argnums=(0, 1), has_aux=True)(
        point, torch.tensor(3.0), shift=1.0
    )
    assert by_p["a"].tolist() == [6.0] * 3
    assert by_p["b"][0].item() == pytest.approx(3 * sum(X)) and by_p["b"][1].item() == 0
    assert by_scale.item() == pytest.approx(2 * sum(X))
    assert (
        aux["scaled"].tolist() == pytest.approx([3 * v for v in X])
        and not aux["scaled"].requires_grad
    )


def test_what_is_outside_can_be_differentiated() -> None:
    weight = torch.tensor([2.0, 3.0, 4.0], requires_grad=True)
    found = grad(lambda x: ((x * weight) ** 2).sum())(torch.tensor(X))
    found.sum().backward()  # d/dw of 2 x w^2
    assert weight.grad.tolist() == pytest.approx(
        [4 * v * w for v, w in zip(X, [2, 3, 4], strict=True)]
    )
    with torch.no_grad():
        assert not grad(lambda x: (x * weight).sum())(torch.tensor(X)).requires_grad


def test_jacobians_and_hessians() -> None:
    x = torch.tensor(X)
    for transform in (jacrev, jacfwd):
        matrix = transform(lambda x: x.outer(x).diagonal() * x.sum())(x)
        want = [
            [(2 * X[i] * sum(X) if i == j else 0) + X[i] ** 2 for j in range(3)] for i in range(3)
        ]
        assert matrix.tolist() == [pytest.approx(row) for row in want]
    found = hessian(lambda x: x[0] * x[1] * x[2])(x)
    assert found.tolist() == [
        pytest.approx([0, X[2], X[1]]),
        pytest.approx([X[2], 0, X[0]]),
        pytest.approx([X[1], X[0], 0]),
    ]
    by_name = jacrev(lambda d: {"p": d["a"] * d["b"]})({"a": x, "b": x + 1})["p"]
    assert by_name["a"].diagonal().tolist() == pytest.approx([v + 1 for v in X])


def test_products_with_jacobians() -> None:
    x = torch.tensor(X)
    outputs, pull = vjp(lambda a, b: (a * b, a.sum()), x, x + 1)
    assert outputs[1].item() == pytest.approx(sum(X))
    for _ in range(2):  # the pull may be called again
        by_a, by_b = pull((torch.ones(3), torch.tensor(2.0)))
        assert by_a.tolist() == pytest.approx(
            [v + 3 for v in X]
        ) and by_b.tolist() == pytest.approx(X)
    value, product = jvp(cubes, (x,), (torch.tensor([1.0, 0.0, 2.0]),))
    assert value.item() == pytest.approx(sum(v**3 for v in X))
    assert product.item() == pytest.approx(3 * X[0] ** 2 + 6 * X[2] ** 2)
    with pytest.raises(RuntimeError):
        jvp(cubes, (x,), (torch.ones(2),))


def test_maps_over_a_batch() -> None:
    a, b = torch.arange(12.0).view(3, 4), torch.arange(12.0).view(4, 3) + 1
    assert vmap(torch.dot, in_dims=(0, 1))(a, b).tolist() == (a * b.t()).sum(1).tolist()
    assert vmap(lambda x, y: x * y, in_dims=(None, 0))(a[0], a).tolist() == (a * a[0]).tolist()
    twice = vmap(vmap(lambda x, y: x * y, in_dims=(None, 0)), in_dims=(0, None))(a[:, 1], a[0])
    assert twice.tolist() == a[:, 1].outer(a[0]).tolist()
    first, second = vmap(lambda x: (x, x.sum()), out_dims=(1, 0))(a)
    assert first.shape == (4, 3) and second.tolist() == a.sum(1).tolist()
    named = vmap(lambda d: d["x"] - d["y"], in_dims=({"x": 0, "y": None},))({"x": a, "y": a[0]})
    assert named.tolist() == (a - a[0]).tolist()
    for wrong in (
        lambda: vmap(torch.add)(a, b),
        lambda: vmap(torch.sin, in_dims=None)(a),
        lambda: vmap(torch.sin, in_dims=(0, 0))(a),
        lambda: vmap(torch.sin)(torch.tensor(1.0)),
    ):
        with pytest.raises(ValueError, match="vmap"):
            wrong()


def test_equal_and_different_draws() -> None:
    draws = {
        kind: vmap(lambda x: x + torch.rand(3), randomness=kind)(torch.zeros(4, 3))
        for kind in ("same", "different")
    }
    assert all(torch.equal(row, draws["same"][0]) for row in draws["same"])
    assert not torch.equal(draws["different"][0], draws["different"][1])


def test_gradients_of_each_sample() -> None:
    model = nn.Linear(3, 2)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])

    def loss(p: Any, x: Any, y: Any) -> Any:
        return nn.functional.cross_entropy(
            functional_call(model, p, (x.unsqueeze(0),)), y.unsqueeze(0)
        )

    each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    for i in range(5):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        for name, p in model.named_parameters():
            assert torch.allclose(each[name][i], p.grad, atol=1e-6)


def test_an_ensemble() -> None:
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval() for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    assert parameters["0.weight"].shape == (3, 4, 3) and parameters["0.weight"].is_leaf
    x = torch.randn(5, 3)
    found = vmap(lambda p, b, x: functional_call(models[0], (p, b), (x,)), in_dims=(0, 0, None))(
        parameters, buffers, x
    )
    assert torch.allclose(found, torch.stack([m(x) for m in models]), atol=1e-6)
    found.sum().backward()
    assert parameters["0.weight"].grad.shape == (3, 4, 3)
    with pytest.raises(RuntimeError, match="at least one model"):
        stack_module_state([])


def test_calls_with_other_parameters() -> None:
    model = nn.BatchNorm1d(2)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    tensors = {name: t.clone() for name, t in model.named_buffers()}
    functional_call(model, tensors, torch.randn(6, 2))
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    assert (
        tensors["num_batches_tracked"].item() == 1
        and tensors["running_mean"].abs().sum().item() > 0
    )

    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    x, eye = torch.randn(3, 2), torch.eye(2)
    assert torch.allclose(functional_call(tied, {"0.weight": 2 * eye}, (x,)), 4 * x)
    half = functional_call(tied, {"0.weight": 2 * eye}, (x,), tie_weights=False)
    assert torch.allclose(half, 2 * x @ tied[1].weight.T, atol=1e-6)
    with pytest.raises(ValueError, match="tied"):
        functional_call(tied, {"0.weight": eye, "1.weight": eye.clone()}, (x,))
    with pytest.raises(RuntimeError, match="Missing key"):
        functional_call(model, {"weight": torch.ones(2)}, (torch.randn(3, 2),), strict=True)
    with pytest.raises(AttributeError, match="nothing"):
        functional_call(model, {"nothing": torch.ones(2)}, (torch.randn(3, 2),))
    with pytest.raises(TypeError, match="dict"):
        functional_call(model, 3, (torch.randn(3, 2),))
    assert tied[0].weight is tied[1].weight and isinstance(tied[0].weight, nn.Parameter)


def _called_with_others(compiled: bool) -> list[Any]:
    """Modules called with other parameters, in training and not, and after a change of the
    module."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 1))
    p = {name: v.detach().clone().requires_grad_() for name, v in net[:3].named_parameters()}
    b = {name: v.clone() for name, v in net.named_buffers()}

    def loss(p: Any, b: Any, x: Any) -> Any:
        return functional_call(net, (p, b), (x,)).square().sum()

    function = torch.compile(loss) if compiled else loss
    found = []
    for step in range(6):
        net.train(step < 3)
        if step == 4:
            net[3].bias = nn.Parameter(torch.ones(1) * 3)
        total = function(p, b, torch.arange(6.0).reshape(2, 3) * step)
        gradients = torch.autograd.grad(total, list(p.values()))
        found += [
            total.item(),
            *[float(g.sum()) for g in gradients],
            *[float(v.sum()) for v in b.values()],
        ]
    assert not compiled or function.recorded == 3
    return found


def test_a_compiled_function_replaces_parameters() -> None:
    assert _called_with_others(True) == pytest.approx(
        _called_with_others(False), rel=1e-4, abs=1e-4
    )
    layers = [nn.Linear(3, 2) for _ in range(4)]
    stacked, _ = stack_module_state(layers)

    def ensemble(p: Any, x: Any) -> Any:
        return vmap(lambda one: functional_call(layers[0], one, (x,)))(p)

    compiled, x = torch.compile(ensemble), torch.ones(1, 3)
    for _ in range(3):
        assert torch.allclose(compiled(stacked, x), torch.stack([layer(x) for layer in layers]))
    assert compiled.recorded == 1
