"""Complex numbers and other views of bytes inside compiled functions, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import graphtorch

DTYPES = (
    "float32",
    "float64",
    "int16",
    "uint8",
    "complex64",
    "bfloat16",
    "int64",
    "complex128",
    "int8",
    "int32",
)


def elements(x: Any) -> np.ndarray:
    bits = (torch if isinstance(x, torch.Tensor) else graphtorch).int16
    return np.asarray((x.view(bits) if str(x.dtype) == "torch.bfloat16" else x).detach().numpy())


def rotated(m: Any) -> Callable[..., Any]:
    """Rotary embeddings as they are written with complex numbers."""

    def embed(x: Any, freqs: Any) -> Any:
        z = m.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return m.view_as_real(z * freqs[: x.shape[1]].view(1, x.shape[1], 1, -1)).flatten(3)

    def step(q: Any, k: Any, angles: Any) -> Any:
        freqs = m.polar(m.ones_like(angles), angles)
        a, b = embed(q, freqs), embed(k, freqs)
        loss = (a * b).sum() + (a**2).mean()
        return a, b, loss, *m.autograd.grad(loss, (q, k))

    return step


def test_rotary_embeddings() -> None:
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(2, 5, 3, 8)).astype(np.float32) for _ in range(2)]
    angles = rng.normal(size=(9, 4)).astype(np.float32)
    results = []
    for m in (torch, graphtorch):
        q, k = (m.tensor(a, requires_grad=True) for a in given)
        step = rotated(m) if m is torch else m.compile(rotated(m), fullgraph=True)
        for _ in range(3):
            found = step(q, k, m.tensor(angles))
        results.append([elements(t) for t in found])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_parameters_that_are_complex() -> None:
    rng = np.random.default_rng(0)
    start = (rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))).astype(np.complex64)
    results = []
    for m in (torch, graphtorch):
        w = m.nn.Parameter(m.tensor(start))
        optimizer = m.optim.Adam([w], lr=0.1)

        def step(x: Any, m: Any = m, w: Any = w, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (w @ x - x.conj()).abs().square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = step if m is torch else m.compile(step)
        losses = [run(m.tensor(start * (i % 2 + 1))).item() for i in range(6)]
        results.append([np.array(losses), elements(w)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_bytes_under_another_dtype(source: str, target: str) -> None:
    numbers = np.random.default_rng(0).integers(0, 100, (3, 16))
    found = []
    for m in (torch, graphtorch):
        x = m.tensor(numbers).to(getattr(m, source))

        def seen(x: Any, m: Any = m) -> Any:
            return x.view(getattr(m, target)), x.view(getattr(m, target)).clone()

        found.append([elements(t).tobytes() for t in seen(x)])
        if m is graphtorch:
            compiled = m.compile(seen, fullgraph=True)
            for _ in range(2):
                found.append([elements(t).tobytes() for t in compiled(x)])
            assert compiled(x)[0].data_ptr() == x.data_ptr()
    assert all(f == found[0] for f in found)


def test_writes_through_a_view_of_bits() -> None:
    def clear_signs(m: Any, x: Any) -> Any:
        bits = x.view(m.int32)
        bits.bitwise_and_(0x7FFFFFFF)
        return x * 2, bits

    results = []
    for m in (torch, graphtorch):
        x = m.tensor([-1.0, 2.0, -3.0])
        run: Any = clear_signs if m is torch else m.compile(clear_signs, fullgraph=True)
        for _ in range(3):
            doubled, bits = run(m, x)
            x.neg_()
        bits[0] = 0
        results.append([t.tolist() for t in (x, doubled, bits)])
    assert results[0] == results[1]


def test_views_of_bits_take_no_part_in_gradients() -> None:
    for m in (torch, graphtorch):
        x = m.ones(4, requires_grad=True)
        for target in (m.int32, m.complex64, m.float32):
            assert not (x * 2).view(target).requires_grad
        z = m.zeros(3, dtype=m.complex64, requires_grad=True)
        assert not z.view(m.float32).requires_grad
        (x * (x.view(m.int32) > 0)).sum().backward()
        assert x.grad.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    "shape, cut", [((4, 7), 6), ((4, 6), 3), ((6, 4), None), ((4, 3), 3), ((), None)]
)
def test_what_cannot_be_seen_as_another_dtype(shape: tuple[int, ...], cut: int | None) -> None:
    messages = []
    for m in (torch, graphtorch):
        x = m.zeros(shape)
        x = x.t() if len(shape) == 2 and cut is None else x[:, -cut:] if cut else x
        with pytest.raises(RuntimeError) as caught:
            x.view(m.float64)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_one_complex_value_does_not_hold_up_the_rest() -> None:
    """Plain code: what has no native code alone is run by NumPy."""

    def run(m: Any, big: Any, z: Any) -> Any:
        total = z.new_zeros(())
        for _ in range(4):
            factor = m.linalg.cholesky(z @ z.mH + 3 * m.eye(3, dtype=z.dtype))
            total = total + (big @ big).sum() + factor.sum()
        return total, (z * z.conj()).real.sum()

    rng = np.random.default_rng(0)
    big, z = rng.normal(size=(64, 64)), rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))
    expected = [t.numpy() for t in run(torch, torch.tensor(big), torch.tensor(z))]
    for function in (run, graphtorch.compile(run)):
        for _ in range(4):
            found = function(graphtorch, graphtorch.tensor(big), graphtorch.tensor(z))
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a.numpy(), b, rtol=1e-9)
    assert "cholesky: by NumPy" in function.explain() and "matmul" in function.explain()
