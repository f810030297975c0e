"""`vmap` among the other parts: recordings, loops, modules; formulas are in the oracle's tests."""

from __future__ import annotations

from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._deferred.walk import Walk
from graphtorch.func import (
    functional_call,
    grad,
    jacfwd,
    jacrev,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)
from graphtorch.ir.graph import topological
from graphtorch.utils.checkpoint import checkpoint

X = torch.arange(12.0).reshape(4, 3) / 7


def test_the_function_is_called_once() -> None:
    calls = []
    found = vmap(lambda x: (calls.append(x.shape), x * 2)[1])(X)
    assert calls == [(3,)] and found.tolist() == (X * 2).tolist()
    assert (
        vmap(lambda x: (calls.append(x.shape), x * 2)[1], chunk_size=3)(X).tolist()
        == (X * 2).tolist()
    )
    assert len(calls) == 3


def test_what_all_share_is_computed_once() -> None:
    w = torch.randn(3, 3, requires_grad=True)
    y = vmap(lambda x: x @ torch.linalg.inv(w))(X)
    ops = [n.op.name for n in topological([y._value()])]
    assert ops.count("lu") == 1 and ops.count("matmul") == 1
    assert y.shape == (4, 3)


def test_inside_compiled_functions() -> None:
    w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def step(x: Any) -> Any:
        w.grad = None
        vmap(lambda r: (r * w).sin().sum())(x).sum().backward()
        return w.grad.clone()

    compiled = torch.compile(step, fullgraph=True)
    for x in (X, X + 1, X - 2):
        assert torch.allclose(compiled(x), step(x), atol=1e-6)
    slopes = torch.compile(lambda x: vmap(grad(lambda r: (r**3).sum()))(x))
    for x in (X, X + 1):
        assert torch.allclose(slopes(x), 3 * x * x, atol=1e-5)
    assert vmap(torch.compile(lambda r: r.sin()))(X).tolist() == X.sin().tolist()


def test_in_a_graph_of_any_number_of_entries() -> None:
    size = torch.Dim("entries", min=1)
    traced = torch.trace(lambda x: vmap(lambda r: r.softmax(0))(x), X, dynamic={"x": {0: size}})
    assert "softmax(%x) {dim=1} : f32[entries, 3]" in str(traced)


def test_numbers_are_no_part_of_the_program() -> None:
    """As without vmap, a number that differs from call to call compiles nothing anew."""
    keys = set()
    for number in (0.25, 0.5, 0.75):
        y = vmap(lambda r, n=number: r * n + n)(X)
        keys.add(program_of(y))
        assert torch.allclose(y, X * number + number)
    assert len(keys) == 1


def program_of(tensor: Any) -> Any:
    value = tensor._value()
    return Walk([value]).key([value])


def test_elements_that_all_share_are_known() -> None:
    limit, scale = torch.tensor(1.0), torch.tensor([2.0, 3.0])
    found = vmap(lambda x: x * 2 if limit > 0 else x * scale.max().item())(X)
    assert found.tolist() == (X * 2).tolist()
    assert vmap(lambda x: x * float(scale.numpy()[0]))(X).tolist() == (X * 2).tolist()
    assert vmap(lambda x: x[torch.tensor([True, False, True])])(X).tolist() == X[:, [0, 2]].tolist()
    compiled = torch.compile(lambda x: vmap(lambda r: r * scale[0].item())(x))
    assert compiled(X).tolist() == (X * 2).tolist()
    scale.mul_(2)
    assert compiled(X).tolist() == (X * 4).tolist()


def test_what_is_kept_outside_has_no_elements() -> None:
    kept = []
    vmap(lambda x: (kept.append(x * 2), x)[1])(X)
    with pytest.raises(RuntimeError, match="vmap"):
        kept[0].tolist()


def test_branches_and_loops() -> None:
    def steps(x: Any) -> Any:
        return torch.while_loop(
            lambda x, n: x.sum() < 10, lambda x, n: (x + 1, n + 1), (x, torch.tensor(0))
        )

    values, counts = vmap(steps)(X)
    for x, value, count in zip(X, values, counts, strict=True):
        one, n = steps(x)
        assert torch.allclose(value, one) and count == n
    chosen = vmap(lambda x: torch.cond(x.sum() > 2, lambda x: x.sin(), lambda x: x - 1, (x,)))(X)
    assert torch.allclose(chosen, torch.where(X.sum(1, keepdim=True) > 2, X.sin(), X - 1))
    total, sums = vmap(lambda x: torch.scan(lambda c, v: (c + v, c * v), torch.zeros(()), x))(X)
    assert torch.allclose(total, X.sum(1)) and sums.shape == (4, 3)


@pytest.mark.parametrize(
    "model",
    [
        nn.GRU(3, 4, batch_first=True),
        nn.TransformerEncoderLayer(3, 1, 8, batch_first=True, dropout=0.0),
        nn.Sequential(nn.Conv1d(5, 4, 2), nn.GELU(), nn.Flatten(), nn.Linear(8, 2)),
    ],
    ids=["gru", "transformer", "conv"],
)
def test_modules(model: nn.Module) -> None:
    x = torch.randn(3, 2, 5, 3)

    def run(x: Any) -> Any:
        y = model(x)
        return y[0] if isinstance(y, tuple) else y

    assert torch.allclose(vmap(run)(x), torch.stack([run(s) for s in x]), atol=1e-5)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p: Any, x: Any) -> Any:
        y = functional_call(model, p, (x,))
        return (y[0] if isinstance(y, tuple) else y).square().sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(3):
        one = grad(loss)(parameters, x[i])
        for name, value in one.items():
            assert torch.allclose(each[name][i], value, atol=1e-4), name


def test_an_ensemble_in_training() -> None:
    """Running statistics are written into the stacked buffers, dropout draws for each model."""
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x = torch.randn(8, 3)

    def run(p: Any, b: Any, x: Any) -> Any:
        return functional_call(models[0], (p, b), (x,))

    y = vmap(run, in_dims=(0, 0, None), randomness="different")(parameters, buffers, x)
    assert buffers["1.num_batches_tracked"].tolist() == [1, 1, 1]
    for i, model in enumerate(models):
        model(x)
        assert torch.allclose(buffers["1.running_mean"][i], model[1].running_mean, atol=1e-6)
        assert torch.allclose(buffers["1.running_var"][i], model[1].running_var, atol=1e-6)
    assert not torch.equal(y[0] == 0, y[1] == 0)
    y.sum().backward()
    assert parameters["0.weight"].grad.shape == (3, 4, 3)


def test_gradients_reach_what_the_function_reads() -> None:
    w, x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True), X.clone().requires_grad_()
    y = vmap(lambda r: (r * w).detach() * w + checkpoint(lambda r: r * w, r, use_reentrant=False))(
        x
    )
    to_x, to_w = torch.autograd.grad(y.sum(), (x, w))
    assert torch.allclose(to_x, w.expand(4, 3)) and torch.allclose(to_w, (X * w + X).sum(0))
    with torch.no_grad():
        assert not vmap(lambda r: r * w)(X).requires_grad
    inner = vmap(lambda r: torch.autograd.grad((r * w).square().sum(), w)[0])(X)
    assert torch.allclose(inner, 2 * X * X * w)


def test_jacobians_by_chunks_and_columns() -> None:
    def f(x: Any) -> Any:
        return {"y": x.sin() * x.sum(), "z": x.prod(0)}

    whole = jacrev(f)(X)
    for other in (jacrev(f, chunk_size=2)(X), jacfwd(f)(X)):
        for name in whole:
            assert torch.allclose(whole[name], other[name], atol=1e-5)
    assert whole["z"].shape == (3, 4, 3)
    outputs, push = linearize(f, X)
    (pulled,) = vjp(f, X)[1]({"y": X, "z": X[0]})
    tangent = X.cos()
    products = push(tangent)
    left = (products["y"] * X).sum() + (products["z"] * X[0]).sum()
    assert torch.allclose(left, (pulled * tangent).sum(), atol=1e-4)
    assert torch.allclose(outputs["y"], f(X)["y"])
    second = jacrev(lambda x: jacfwd(lambda x: x.exp())(x).sum(0))(X[0])
    assert torch.allclose(second, torch.diag(X[0].exp()), atol=1e-5)
