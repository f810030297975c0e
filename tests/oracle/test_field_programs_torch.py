"""What programs of tutorials met, against PyTorch: each case prints what both print."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch

torch = pytest.importorskip("torch")


def ints(t: Any) -> Any:
    """A 0-d index whose value nobody has asked for."""
    return t.argmax(t.tensor([0.0, 2.0, 1.0]))


def written(t: Any, key: Callable[[Any], Any], value: Any) -> Any:
    x = t.ones(3, 2)
    x[key(ints(t))] = t.tensor(value)
    return x.tolist()


KEYS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "row": (lambda b: b, [7, 8]),
    "column": (lambda b: (slice(None), b), [-1, -2, -3]),
    "row of all": (lambda b: (b, slice(None)), [True, False]),
    "element": (lambda b: (b, b), 3),
    "row with a leading one": (lambda b: (b,), [[4, 5]]),
}


@pytest.mark.parametrize("name", KEYS)
def test_integers_written_at_a_computed_place_are_cast(name: str) -> None:
    key, value = KEYS[name]
    assert written(graphtorch, key, value) == written(torch, key, value)


def test_index_tensors_beside_a_computed_place_are_not_cast() -> None:
    for t in (graphtorch, torch):
        x = t.ones(3, 2)
        with pytest.raises(RuntimeError, match="source and destination dtypes match"):
            x[ints(t), t.tensor([0, 1])] = t.tensor([3, 4])


def pushed(t: Any) -> Any:
    """The push of a function that uses a parameter from outside, differentiated by it."""
    w = t.tensor([0.5, -1.0, 2.0], requires_grad=True)
    x = t.tensor([1.0, 2.0, 3.0])
    out, product = t.func.jvp(lambda x: (x * w).sin(), (x,), (t.ones(3),))
    product.sum().backward()
    return out.requires_grad, product.requires_grad, w.grad.numpy()


def test_a_push_is_differentiable_by_what_the_function_uses() -> None:
    ours, theirs = pushed(graphtorch), pushed(torch)
    assert ours[:2] == theirs[:2] == (True, True)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-5)


def test_a_push_of_constants_has_no_history() -> None:
    for t in (graphtorch, torch):
        w, x = t.ones(3, requires_grad=True), t.ones(3)
        free = t.func.jvp(lambda x: x.sin(), (x,), (x,))
        with t.no_grad():
            quiet = t.func.jvp(lambda x, w=w: x * w, (x,), (x,))
        assert not any(y.requires_grad for y in (*free, *quiet))


def test_numbers_read_without_gradients_do_not_warn() -> None:
    for t in (graphtorch, torch):
        loss = t.ones(3, requires_grad=True).sum()
        with t.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            assert float(loss) == int(loss) == t.tensor([loss]).item() == 3


@pytest.mark.parametrize("name", ["sum", "prod", "median", "nanmedian"])
def test_out_needs_dim(name: str) -> None:
    for t in (graphtorch, torch):
        with pytest.raises(TypeError):
            getattr(t, name)(t.ones(2, 3), out=t.empty(()))
    found = graphtorch.empty(0)
    assert graphtorch.sum(graphtorch.ones(2, 3), 1, out=found).tolist() == [3, 3]


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "unsafe_split": lambda t, x: t.unsafe_split(x, 3),
    "unsafe_split along 1": lambda t, x: x.unsafe_split(1, dim=1),
    "unsafe_split_with_sizes": lambda t, x: x.unsafe_split_with_sizes((1, 3)),
    "unsafe_chunk": lambda t, x: t.unsafe_chunk(x, 3),
    "narrow_copy": lambda t, x: (x.narrow_copy(0, 1, 2), t.narrow_copy(x, 1, 1, 1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_pieces(name: str) -> None:
    def found(t: Any) -> Any:
        x = t.arange(8.0).reshape(4, 2).requires_grad_()
        pieces = CALLS[name](t, x)
        pieces[0].mul_(2)  # the pieces are no views to autograd: this may be written to
        sum((i + 1) * (p * p).sum() for i, p in enumerate(pieces)).backward()
        return [p.tolist() for p in pieces], x.grad.tolist(), [p._base is None for p in pieces]

    assert found(graphtorch) == found(torch)


def test_new_empty_strided() -> None:
    for t in (graphtorch, torch):
        made = t.ones(1, dtype=t.float64).new_empty_strided((2, 3), (1, 4))
        assert (made.shape, made.stride(), made.dtype) == ((2, 3), (1, 4), t.float64)
        assert t.ones(1).new_empty_strided((2,), (3,), dtype=t.int32).dtype is t.int32


def test_a_strided_tensor_that_requires_grad_is_a_leaf() -> None:
    for t in (graphtorch, torch):
        made = t.empty_strided((2, 3), (1, 4), requires_grad=True)
        assert made.is_leaf and made.requires_grad and made._base is None


def doubled_once(t: Any) -> Any:
    class Doubled(t.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            return x * factor

        @staticmethod
        @t.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2, None

    return Doubled.apply


def test_a_gradient_that_may_be_taken_once_raises_when_it_is_taken_twice() -> None:
    for t in (graphtorch, torch):
        w = t.tensor([1.0, -2.0], requires_grad=True)
        loss = doubled_once(t)(w, 2.0).pow(2).sum()
        (found,) = t.autograd.grad(loss, w, create_graph=True)
        assert found.requires_grad and found.grad_fn.name().endswith("Error")
        assert found.tolist() == [8, -16]
        with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
            (w.sum() + found.square().sum()).backward()  # a penalty, as WGAN-GP's


def test_a_gradient_that_may_be_taken_once_and_is_constant_has_no_history() -> None:
    for t in (graphtorch, torch):
        w = t.tensor([1.0, -2.0], requires_grad=True)
        (found,) = t.autograd.grad(doubled_once(t)(w, 2.0).sum(), w, create_graph=True)
        assert not found.requires_grad and found.tolist() == [2, 2]
