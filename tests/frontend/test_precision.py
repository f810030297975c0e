"""compile(precision=): inference by products of few digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import aot, nn

INT8, BF16 = 5e-2, 1e-2  # of the largest number of a result, for random layers one after another


class Net(nn.Module):
    """Odd sizes, a layer without a bias, one that is used twice, and a product of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(13, 30), nn.Linear(30, 30, bias=False)
        self.head = nn.Linear(30, 5)

    def forward(self, x: Any) -> Any:
        h = self.second(nn.functional.gelu(self.first(x)))
        h = h + self.second(h)
        return self.head(nn.functional.softmax(h @ h.mT, -1) @ h)


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def rows(n: int, *lead: int) -> Any:
    torch.manual_seed(n)
    return torch.randn(*lead, n, 13)


def error(found: Any, expected: Any) -> float:
    a, b = found.detach().numpy(), expected.detach().numpy()
    return float(np.abs(a - b).max() / np.abs(b).max())


def used(compiled: Any) -> list[str]:
    return [line for line in compiled.explain().splitlines() if "narrow_linear" in line]


@pytest.mark.parametrize(("precision", "bound"), [("int8", INT8), ("bf16", BF16)])
def test_results_are_near_those_of_f32(precision: str, bound: float) -> None:
    model = net()
    compiled = torch.compile(model, precision=precision)
    with torch.no_grad():
        for x in (rows(1), rows(7), rows(8), rows(5, 3), rows(64), rows(0)):
            expected, found = model(x), compiled(x)
            assert found.shape == expected.shape
            if found.numel():
                assert 0 < error(found, expected) < bound
    assert used(compiled)


def test_linear_is_the_formula() -> None:
    """One layer against whole numbers in NumPy."""
    torch.manual_seed(0)
    layer = nn.Linear(77, 33)
    x = torch.randn(9, 77)
    x[2] = 0
    with torch.no_grad():
        found = torch.compile(layer, precision="int8")(x).numpy()
    w, b, a = (t.detach().numpy() for t in (layer.weight, layer.bias, x))
    (qa, sa), (qw, sw) = map(quantised, (a, w))
    expected = (qa @ qw.T) * (sa * sw.T) + b
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[2], b)


def quantised(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top = np.abs(v).max(1, keepdims=True)
    factor = np.float32(127) / np.where(top == 0, np.float32(1), top)
    return np.rint(v * factor).astype(np.int64), top.astype(np.float64) / 127


def test_every_precision_has_programs_of_its_own() -> None:
    model, x = net(), rows(6)
    with torch.no_grad():
        results = [
            torch.compile(model, precision=p)(x).numpy()
            for p in (None, "int8", "bf16", None, "int8")
        ]
        np.testing.assert_allclose(results[0], model(x).numpy(), atol=1e-5)
    np.testing.assert_array_equal(results[0], results[3])
    np.testing.assert_array_equal(results[1], results[4])
    assert np.abs(results[0] - results[1]).max() > np.abs(results[0] - results[2]).max() > 1e-6


def test_changing_sizes_have_one_program() -> None:
    model = net()
    plain = {n: torch.compile(model, precision="int8", dynamic=False) for n in range(2, 20, 3)}
    compiled = torch.compile(model, precision="int8")
    with torch.no_grad():
        for n, alone in plain.items():
            np.testing.assert_allclose(
                compiled(rows(n)).numpy(), alone(rows(n)).numpy(), rtol=1e-4, atol=1e-5
            )
    assert compiled.recorded <= 2


def test_new_weights_are_quantised_again() -> None:
    model, x = net(), rows(6)
    compiled = torch.compile(model, precision="int8")
    with torch.no_grad():
        before = compiled(x).numpy()
        for p in model.parameters():
            p.mul_(1.5)
        after = compiled(x)
        assert error(after, model(x)) < INT8
        assert np.abs(after.numpy() - before).max() > 0.1 * np.abs(before).max()


def test_matrices_that_are_arguments_are_not() -> None:
    compiled = torch.compile(lambda x, w: x @ w, precision="int8")
    x, w = torch.randn(4, 8), torch.randn(8, 3)
    np.testing.assert_allclose(compiled(x, w).numpy(), (x @ w).numpy(), rtol=1e-5, atol=1e-6)
    assert not used(compiled)


def test_a_matrix_from_outside_is() -> None:
    w = torch.randn(8, 3)

    @torch.compile(precision="bf16")
    def product(x: Any) -> Any:
        return x @ w

    x = torch.randn(4, 8)
    exact = x.bfloat16().float() @ w.bfloat16().float()
    np.testing.assert_allclose(product(x).numpy(), exact.numpy(), rtol=1e-5, atol=1e-5)
    assert np.abs(product(x).numpy() - (x @ w).numpy()).max() > 1e-5


def test_rows_with_nan_spoil_no_others() -> None:
    model, x = nn.Linear(13, 4), rows(6)
    x[1, 3], x[4, 0] = float("nan"), float("inf")
    with torch.no_grad():
        found = torch.compile(model, precision="int8")(x).numpy()
        expected = model(x).numpy()
    bad = np.isnan(found).any(1)
    assert list(bad) == [False, True, False, False, True, False]
    assert np.isnan(found[bad]).all()
    np.testing.assert_allclose(found[~bad], expected[~bad], atol=0.1)


def test_values_that_python_reads_do_not_undo_it() -> None:
    layer = nn.Linear(13, 4)

    @torch.compile(precision="int8")
    def choose(x: Any) -> Any:
        y = layer(x)
        return y * 2 if y.sum() > 0 else -y

    with torch.no_grad():
        x = rows(5)
        alone = torch.compile(layer, precision="int8")(x)
        expected = alone * 2 if alone.sum() > 0 else -alone
        for _ in range(2):
            np.testing.assert_allclose(choose(x).numpy(), expected.numpy(), rtol=1e-6)


# ----------------------------------------------------------------------------------------- refusals


def test_gradients_are_refused() -> None:
    model, x = net(), rows(4)
    compiled = torch.compile(model, precision="int8")
    with pytest.raises(RuntimeError, match=r"no gradient.*torch.no_grad.*requires_grad_\(False\)"):
        compiled(x)
    with torch.no_grad():
        compiled(x)
    with pytest.raises(RuntimeError, match="no gradient"):
        compiled(x)
    with torch.inference_mode():
        compiled(x)
    model.requires_grad_(False)
    assert error(compiled(x), model(x)) < INT8
    with pytest.raises(RuntimeError, match="no gradient"):
        compiled(x.clone().requires_grad_())


def test_steps_of_training_are_refused_and_change_nothing() -> None:
    model, x = net(), rows(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone().numpy() for p in model.parameters()]

    @torch.compile(precision="bf16")
    def step(x: Any) -> Any:
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    with pytest.raises(RuntimeError, match="precision='bf16' have no gradient"):
        step(x)
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), old)
        assert p.grad is None


def test_gradients_inside_are_refused() -> None:
    w = torch.randn(8, 3)

    @torch.compile(precision="int8")
    def slope(x: Any) -> Any:
        x = x.detach().requires_grad_()
        return torch.autograd.grad((x @ w).square().sum(), x)[0]

    with pytest.raises(RuntimeError, match="no gradient"):
        slope(torch.randn(4, 8))


@pytest.mark.parametrize("wrong", ["fp8", "INT8", 8, ""])
def test_other_names_are_refused(wrong: Any, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"expected 'bf16', 'int8', or None"):
        torch.compile(net(), precision=wrong)
    with pytest.raises(ValueError, match=r"aot.compile: precision=.*expected 'bf16', 'int8'"):
        aot.compile(net(), rows(2), tmp_path / "m.so", precision=wrong)


def test_decorators_and_copies_keep_it() -> None:
    import copy

    model = torch.compile(net(), precision="int8")
    with torch.no_grad():
        again = copy.deepcopy(model)
        np.testing.assert_array_equal(again(rows(3)).numpy(), model(rows(3)).numpy())
    assert used(again)


# ------------------------------------------------------------------------------------ ahead of time


@pytest.mark.parametrize("weights", ["embedded", "external"])
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_libraries_compute_the_same(tmp_path: Any, precision: str, weights: str) -> None:
    model = net()
    batch = torch.Dim("batch", min=1, max=64)
    made = aot.compile(
        model,
        rows(5),
        tmp_path / "low.so",
        dynamic={0: {0: batch}},
        precision=precision,
        weights=weights,
    )
    compiled = torch.compile(model, precision=precision)
    with made.load() as loaded, torch.no_grad():
        for n in (1, 5, 33):
            (found,) = [loaded(rows(n).numpy())]
            found = found[0] if isinstance(found, (tuple, list)) else found
            np.testing.assert_allclose(
                np.asarray(found), compiled(rows(n)).numpy(), rtol=1e-4, atol=1e-5
            )


def test_a_library_that_takes_gradients_is_refused(tmp_path: Any) -> None:
    w = torch.randn(8, 3)

    def slope(x: Any) -> Any:
        x = x.detach().requires_grad_()
        return torch.autograd.grad((x @ w).square().sum(), x)[0]

    with pytest.raises(RuntimeError, match=r"aot\.compile: products at precision='int8'"):
        aot.compile(slope, torch.randn(4, 8), tmp_path / "m.so", precision="int8")
