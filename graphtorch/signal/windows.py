"""Windows of `M` samples for spectra, ``torch.signal.windows``.

Of each: `sym` False gives the first `M` of `M + 1` samples, as for spectra of what goes on. float32
or float64, on the CPU unless asked for elsewhere.

Raises: ValueError: a negative length, another dtype or layout, parameters out of range.

Formulas: https://docs.pytorch.org/docs/stable/signal.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import _types
from .._deferred.tensor import Tensor
from .._ops.base import FUNCTIONS
from .._torch.absent import attribute_of

Line = Callable[[np.ndarray, float], np.ndarray]  # of places 0 .. M - 1 and the last place


def _made(
    name: str,
    M: int,
    line: Line,
    sym: bool,
    dtype: Any,
    layout: Any,
    device: Any,
    requires_grad: bool,
) -> Tensor:
    kind = _types.dtype._of[_types.default_dtype()] if dtype is None else dtype
    if not isinstance(M, int):
        raise TypeError(f"{name}(): the length must be an int, not {type(M).__name__}")
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if layout is not _types.strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    if kind.name not in ("float32", "float64"):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {kind}")
    last = float(M - 1 if sym else M)
    found = line(np.arange(M, dtype=np.float64), last) if M > 1 else np.ones(M)
    return FUNCTIONS["tensor"](  # type: ignore[no-any-return]
        found, dtype=kind, device=device, requires_grad=requires_grad
    )


def _window(name: str, doc: str, line_of: Callable[..., Line], **parameters: Any) -> Any:
    """The function of a window whose `parameters` (name = default) make its line."""

    def window(
        M: int,
        *,
        sym: bool = True,
        dtype: Any = None,
        layout: Any = _types.strided,
        device: Any = None,
        requires_grad: bool = False,
        **given: Any,
    ) -> Tensor:
        wrong = given.keys() - parameters.keys()
        if wrong:
            raise TypeError(f"{name}() got an unexpected keyword argument '{min(wrong)}'")
        missing = [k for k, v in parameters.items() if v is ... and k not in given]
        if missing:
            raise TypeError(f"{name}() missing 1 required keyword-only argument: '{missing[0]}'")
        line = line_of(sym, **{**parameters, **given})
        return _made(name, M, line, sym, dtype, layout, device, requires_grad)

    window.__name__ = window.__qualname__ = name
    window.__doc__ = doc
    return window


def _positive(what: str, x: float) -> None:
    if x <= 0:
        raise ValueError(f"{what} must be positive, got: {x} instead.")


def _cosines(sym: bool, a: Any) -> Line:
    if not isinstance(a, Iterable):
        raise TypeError("Coefficients must be a list/tuple")
    amounts = list(a)
    if not amounts:
        raise ValueError("Coefficients cannot be empty")

    def line(n: np.ndarray, last: float) -> np.ndarray:
        turn = 2 * math.pi * n / last
        return sum(  # type: ignore[return-value]
            ((-1) ** i * x * np.cos(i * turn) for i, x in enumerate(amounts)), np.zeros(len(n))
        )

    return line


def _exponential(sym: bool, center: float | None, tau: float) -> Line:
    _positive("Tau", tau)
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    return lambda n, last: np.exp(-np.abs(n - (last / 2 if center is None else center)) / tau)


def _gaussian(sym: bool, std: float) -> Line:
    _positive("Standard deviation", std)
    return lambda n, last: np.exp(-(((n - last / 2) / std) ** 2) / 2)


def _kaiser(sym: bool, beta: float) -> Line:
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")

    def line(n: np.ndarray, last: float) -> np.ndarray:
        x = 2 * n / last - 1
        return np.i0(beta * np.sqrt(np.maximum(1 - x * x, 0))) / np.i0(beta)  # type: ignore[no-any-return]

    return line


def _fixed(*a: float) -> Callable[..., Line]:
    return lambda sym: _cosines(sym, a)


bartlett = _window(
    "bartlett",
    "1 - |x| for places x from -1 to 1.",
    lambda sym: lambda n, last: 1 - np.abs(2 * n / last - 1),
)
cosine = _window(
    "cosine",
    "Half a period of a sine, whose zeros are half a sample outside.",
    lambda sym: lambda n, last: np.sin(math.pi * (n + 0.5) / (last + 1)),
)
exponential = _window(
    "exponential",
    "exp(-|n - center| / tau); `center` is the middle unless given, with ``sym=False``.",
    _exponential,
    center=None,
    tau=1.0,
)
gaussian = _window("gaussian", "exp(-((n - middle) / std)^2 / 2).", _gaussian, std=1.0)
general_cosine = _window(
    "general_cosine", "The sum of (-1)^i a[i] cos(2 pi i n / (M - 1)).", _cosines, a=...
)
general_hamming = _window(
    "general_hamming",
    "alpha - (1 - alpha) cos(2 pi n / (M - 1)).",
    lambda sym, alpha: _cosines(sym, (alpha, 1.0 - alpha)),
    alpha=0.54,
)
kaiser = _window("kaiser", "I0(beta sqrt(1 - x^2)) / I0(beta).", _kaiser, beta=12.0)
blackman = _window("blackman", "`general_cosine` of 0.42, 0.5, 0.08.", _fixed(0.42, 0.5, 0.08))
hamming = _window("hamming", "`general_hamming` of 0.54.", _fixed(0.54, 0.46))
hann = _window("hann", "`general_hamming` of 0.5.", _fixed(0.5, 0.5))
nuttall = _window(
    "nuttall",
    "`general_cosine` of 0.3635819, 0.4891775, 0.1365995, 0.0106411.",
    _fixed(0.3635819, 0.4891775, 0.1365995, 0.0106411),
)

__all__ = [
    "bartlett",
    "blackman",
    "cosine",
    "exponential",
    "gaussian",
    "general_cosine",
    "general_hamming",
    "hamming",
    "hann",
    "kaiser",
    "nuttall",
]
__getattr__ = attribute_of(__name__)
