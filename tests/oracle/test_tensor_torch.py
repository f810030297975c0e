"""Aliasing, printing, promotion and gradients beside PyTorch itself."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "uint16",
    "uint32",
    "uint64",
]


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_promotion(a, b):
    if {a, b} == {"float16", "complex64"}:
        pytest.skip("complex32 is not a dtype here")
    for shape_a, shape_b in (((2,), (2,)), ((2,), ()), ((), (2,))):
        want, got = (promoted(m, (shape_a, a), (shape_b, b)) for m in (torch, graphtorch))
        assert got == want


def promoted(m, *operands):
    """The name of the dtype in which tensors meet, or PyTorch's words for that there is none."""
    try:
        return str(
            m.result_type(*[m.ones(shape, dtype=getattr(m, dtype)) for shape, dtype in operands])
        )
    except RuntimeError as error:
        return str(error).partition(":")[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_promotion_with_numbers(dtype):
    for shape in ((2,), ()):
        for number in (True, 3, 1.5, 2j):
            want, got = (
                str(m.result_type(m.ones(shape, dtype=getattr(m, dtype)), number))
                for m in (torch, graphtorch)
            )
            assert got == want or dtype == "float16"  # complex32 is not a dtype here


@pytest.mark.parametrize(
    "values",
    [
        [0.1, 22.33, -1e3],
        [1e10, 1.0],
        [1e-8],
        [[1, -20], [3, 4]],
        list(range(30)),
        np.arange(1200.0).tolist(),
        [[0.5] * 30] * 4,
        [float("nan"), -1.0],
        np.zeros((2, 0, 3)).tolist(),
        [2**40],
        [[[1.5]]],
        [True],
        np.linspace(-1, 1, 7).tolist(),
        [123456.0, 0.1],
        [99999.0, 1.0],
        [1.0, 2.0, 3e9],
    ],
)
def test_printing(values):
    for kw in ({}, {"dtype": "float64"}, {"dtype": "float16"}):
        if kw and isinstance(
            np.array(values).flat[0] if np.array(values).size else 0.0, (bool, np.bool_, np.integer)
        ):
            continue
        named = [{k: getattr(m, v) for k, v in kw.items()} for m in (graphtorch, torch)]
        assert repr(graphtorch.tensor(values, **named[0])) == repr(torch.tensor(values, **named[1]))


def both(program):
    return program(graphtorch), program(torch)


PROGRAMS = {
    "view chain": lambda t, x: (x.view(6, 4).t()[1:3].reshape(-1) * 2).exp(),
    "index put": lambda t, x: _put(t, x),
    "in-place chain": lambda t, x: _chain(t, x),
    "norms": lambda t, x: t.stack([x.norm(), x.norm(1), t.linalg.vector_norm(x, 3)]),
    "sorting": lambda t, x: x.sort(1)[0].cumsum(1) * x.topk(2, 2)[0].sum(),
    "max": lambda t, x: x.max(1)[0] + x.amax((0, 2), keepdim=False)[:1],
    "einsum": lambda t, x: t.einsum("bij,bkj->bik", x, x.sin()),
    "gather": lambda t, x: x.gather(2, t.tensor([[[0, 0], [1, 3], [2, 2]]]).expand(2, 3, 2)),
    "clamp where": lambda t, x: t.where(x > 0, x.clamp(max=0.5), x.abs().sqrt()),
    "var std": lambda t, x: x.var(1) + x.std((0, 2)).mean() + x.logsumexp(2).prod(),
    "pad roll flip": lambda t, x: t.nn.functional.pad(x.roll(1, 2).flip(0), (1, -1)),
    "masked": lambda t, x: x[x > 0.1].sum() + x.masked_fill(x > 1, 0.0).mean(),
    "as_strided": lambda t, x: x.as_strided((3, 3), (2, 5), 1) ** 3,
}


def _put(t, x):
    y = x * 1
    y[0, [0, 2]] = x[1, :2] * 3
    y[:, 1, ::2] += 5
    y[y > 5] = 0
    return y


def _chain(t, x):
    y = x * 2
    v = y[1].t()
    v.sin_()
    y.add_(x, alpha=0.5)
    y[0] *= y[1].detach().clone()
    v.mul_(x[0].t())
    return y


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name):
    data = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)

    def program(t):
        x = t.tensor(data, requires_grad=True)
        y = PROGRAMS[name](t, x)
        (y * y).sum().backward()
        return y.detach().numpy(), x.grad.numpy()

    got, want = both(program)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-5)


def test_gradient_penalty_as_in_torch():
    data = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)

    def program(t):
        w = t.tensor(data, requires_grad=True)
        x = t.tensor(data.T.copy(), requires_grad=True)
        y = (w @ x).tanh().pow(2).sum()
        (g,) = t.autograd.grad(y, x, create_graph=True)
        (g.norm() + y).backward()
        return w.grad.numpy(), x.grad.numpy()

    got, want = both(program)
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
