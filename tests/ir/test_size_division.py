"""Quotients and remainders of symbolic sizes: right for every value, and one form for equal
ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphtorch.ir.shape import bounds, evaluate, floordiv, modulo, symbol

N, M = symbol("n", 1), symbol("m")
coefficient = st.integers(-12, 12)


@given(
    coefficient,
    coefficient,
    coefficient,
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(0, 30),
)
def test_division_is_pythons(a: int, b: int, c: int, divisor: int, n: int, m: int) -> None:
    size, values = a * N + b * M + c, {"n": n, "m": m}
    whole = evaluate(size, values)
    quotient = floordiv(size, divisor)
    assert evaluate(quotient, values) == whole // divisor
    assert evaluate(modulo(size, divisor), values) == whole % divisor
    low, high = bounds(quotient)
    assert low <= whole // divisor <= high


def test_equal_quotients_have_one_form() -> None:
    assert (N - 1) // 2 + 1 == (N + 1) // 2  # a strided convolution written two ways
    assert (2 * N - 1) // 2 == N - 1
    assert (2 * N + 1) // 4 == N // 2
    assert (6 * N + 4) // 3 == 2 * N + 1
    assert (2 * N - 1) % 2 == 1
