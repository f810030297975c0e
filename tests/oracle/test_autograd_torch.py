"""autograd.functional, gradcheck, anomaly detection and higher derivatives: the same programs on
PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
MODULES = (torch, graphtorch)


def plain(x: Any) -> Any:
    """Tensors of a nest as lists."""
    if isinstance(x, (tuple, list)):
        return [plain(v) for v in x]
    return np.round(x.detach().numpy(), 5).tolist() if hasattr(x, "detach") else x


def outcome(program: Callable[[Any], Any], module: Any) -> Any:
    try:
        return plain(program(module))
    except Exception as error:
        return type(error).__name__, str(error)


def points(m: Any) -> tuple[Any, Any]:
    return m.tensor([1.0, 2.0]), m.tensor([3.0, 4.0, 5.0])


def two(a: Any, b: Any) -> tuple[Any, Any]:
    return a * b.sum(), (a**2).sum() * b


def scalar(a: Any, b: Any) -> Any:
    return (a.sum() * b**3).sum()


def F(m: Any) -> Any:
    return m.autograd.functional


FUNCTIONAL = {
    "jacobian": lambda m: F(m).jacobian(two, points(m)),
    "jacobian of one": lambda m: F(m).jacobian(lambda a: a**2, points(m)[0]),
    "hessian": lambda m: F(m).hessian(scalar, points(m)),
    "hessian of one": lambda m: F(m).hessian(lambda a: (a**3).sum(), points(m)[0]),
    "vjp": lambda m: F(m).vjp(two, points(m), points(m)),
    "jvp": lambda m: F(m).jvp(two, points(m), points(m)),
    "vhp": lambda m: F(m).vhp(scalar, points(m), points(m)),
    "hvp": lambda m: F(m).hvp(scalar, points(m), points(m)),
    "independent": lambda m: F(m).jacobian(lambda a, b: a * 2, points(m)),
    "no vector": lambda m: F(m).vjp(lambda a: a * 2, points(m)[0]),
    "not a scalar": lambda m: F(m).hvp(lambda a: a * 2, points(m)[0], points(m)[0]),
    "not a tensor": lambda m: F(m).jacobian(lambda a: a, 3),
    "wrong vector": lambda m: F(m).vjp(lambda a: a * 2, *points(m)),
    "strict": lambda m: F(m).jacobian(lambda a: a.detach(), points(m)[0], strict=True),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functional(name: str) -> None:
    expected, found = (outcome(FUNCTIONAL[name], m) for m in MODULES)
    assert found == expected


def test_functional_keeps_the_graph() -> None:
    found = []
    for m in MODULES:
        x = m.tensor([0.5, 1.5], requires_grad=True)
        matrix = F(m).jacobian(lambda a: a**3, x, create_graph=True)
        found.append(plain(m.autograd.grad(matrix.sum(), x)))
    assert found[0] == found[1]


class Wrong:
    """An operation whose gradient is not the derivative."""

    def __init__(self, m: Any):
        class Twice(m.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return g * 3

        self.apply = Twice.apply


@pytest.mark.parametrize("fast", [False, True])
def test_gradcheck_finds_a_wrong_gradient(fast: bool) -> None:
    for m in MODULES:
        x = m.ones(2, dtype=m.float64, requires_grad=True)
        with pytest.raises(
            RuntimeError, match="Jacobian mismatch for output 0 with respect to input 0"
        ):
            m.autograd.gradcheck(Wrong(m).apply, (x,), fast_mode=fast)
        assert (
            m.autograd.gradcheck(Wrong(m).apply, (x,), raise_exception=False, fast_mode=fast)
            is False
        )
        assert m.autograd.gradgradcheck(lambda x: (x**3).sum(), (x,), fast_mode=fast)


def test_gradcheck_of_complex_functions() -> None:
    for m in MODULES:
        c = m.tensor([0.3 + 0.4j, -1.2 + 0.7j], dtype=m.complex128, requires_grad=True)
        assert m.autograd.gradcheck(lambda c: c * c.conj() * c.sin(), (c,))
        assert m.autograd.gradcheck(lambda c: c.abs(), (c,))
        assert m.autograd.gradgradcheck(lambda c: (c * c).real, (c,))


def test_gradcheck_wants_a_gradient_and_double_precision() -> None:
    for m in MODULES:
        with pytest.raises(
            ValueError, match="expects at least one input tensor to require gradient"
        ):
            m.autograd.gradcheck(m.sin, (m.ones(2),))
        with pytest.warns(
            UserWarning, match="Input #0 requires gradient and is not a double precision"
        ):
            m.autograd.gradcheck(m.sin, (m.ones(2, requires_grad=True),), eps=1e-2, atol=1e-2)


def test_anomaly_detection_names_the_forward_line() -> None:
    for m in MODULES:
        x = m.tensor([-1.0, 1.0], requires_grad=True)
        with warnings.catch_warnings(record=True) as caught, m.autograd.detect_anomaly():
            warnings.simplefilter("always")
            y = x.sqrt()  # this line
            with pytest.raises(
                RuntimeError, match="Function 'SqrtBackward0' returned nan values in its 0th"
            ):
                y.sum().backward()
        texts = [str(w.message) for w in caught]
        assert any("y = x.sqrt()  # this line" in text and __file__ in text for text in texts), (
            texts
        )
        assert not m.is_anomaly_enabled()
        with m.autograd.set_detect_anomaly(True, check_nan=False):
            assert m.is_anomaly_enabled() and not m.is_anomaly_check_nan_enabled()
            x.sqrt().sum().backward()


def test_batched_gradients() -> None:
    found = []
    for m in MODULES:
        x = m.tensor([1.0, 2.0], requires_grad=True)
        found.append(plain(m.autograd.grad(x**2, x, m.eye(2), is_grads_batched=True)))
    assert found[0] == found[1]


def test_second_gradient_through_an_operation_with_several_results() -> None:
    found = []
    for m in MODULES:
        x = m.tensor([[2.0, 1.0], [0.5, 3.0]], dtype=m.float64, requires_grad=True)
        (g,) = m.autograd.grad(m.linalg.lu_factor(x)[0].square().sum(), x, create_graph=True)
        found.append(plain(m.autograd.grad(g.square().sum(), x)))
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 2, 4), (1, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gradients_of_triangular_factors_of_any_shape(shape: tuple[int, ...], dtype: str) -> None:
    numbers = np.random.default_rng(0)
    given = numbers.standard_normal(shape) + 1j * numbers.standard_normal(shape)
    found = []
    for m in MODULES:
        x = m.tensor(
            (given if dtype == "complex128" else given.real).tolist(),
            dtype=getattr(m, dtype),
            requires_grad=True,
        )
        _, lower, upper = m.linalg.lu(x.reshape(shape))
        packed = m.linalg.lu_factor_ex(x.reshape(shape)).LU
        total = (
            lower.abs().sin().sum()
            + (upper * upper.conj()).real.sum()
            + (packed.real * 3).cos().sum()
        )
        (g,) = m.autograd.grad(total, x, create_graph=True)
        (h,) = m.autograd.grad(g.abs().square().sum(), x)
        found.append((g.detach().numpy(), h.detach().numpy()))
    for mine, other in zip(*found, strict=True):
        np.testing.assert_allclose(mine, other, 1e-10, 1e-10)


GRADIENTS: list[Callable[[Any, Any], Any]] = [
    lambda t, g: g[:1],
    lambda t, g: g.sum(),
    lambda t, g: g[None],
    lambda t, g: g[:, None],
    lambda t, g: t.ones(4),
    lambda t, g: t.ones(2, 3),
    lambda t, g: g.double(),
    lambda t, g: g.long(),
    lambda t, g: g * 1j,
    lambda t, g: 3.0,
]


@pytest.mark.parametrize("number", range(len(GRADIENTS)))
@pytest.mark.parametrize("inner", [False, True])
def test_gradients_of_a_function_fit_its_operands(number: int, inner: bool) -> None:
    """Sums over added dimensions, casts; everything else is refused, never passed on."""

    def outcome(t: Any) -> Any:
        class Scaled(t.autograd.Function):  # type: ignore[misc, name-defined]
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return GRADIENTS[number](t, g)

        x = t.ones(3, requires_grad=True)
        y = Scaled.apply(x * 1 if inner else x)
        kind = type(y.grad_fn)
        assert kind.__name__ == "ScaledBackward" == y.grad_fn.name()
        assert type(Scaled.apply(x).grad_fn) is kind
        try:
            (gradient,) = t.autograd.grad(y.sum(), x)
        except RuntimeError as error:
            return type(error), "invalid gradient" in str(error)
        return str(gradient.dtype), gradient.tolist()

    assert outcome(graphtorch) == outcome(torch)


@pytest.mark.parametrize("size", [(3,), (), (2, 1), (1, 2, 3), (4,), (1, 3)])
def test_sums_to_a_size(size: tuple[int, ...]) -> None:
    def outcome(t: Any, *shape: int) -> Any:
        try:
            return t.ones(shape).sum_to_size(size).tolist()
        except RuntimeError as error:
            return str(error)

    for shape in ((1,), (3,), (2, 3), ()):
        assert outcome(graphtorch, *shape) == outcome(torch, *shape)
