"""``torch.fft``, ``stft`` and ``istft`` against PyTorch: values, gradients, shapes, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

LENGTHS = (1, 2, 3, 8, 15, 64, 67, 100, 131)
NAMES = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
MANY = (
    "fftn",
    "ifftn",
    "rfftn",
    "irfftn",
    "hfftn",
    "ihfftn",
    "fft2",
    "ifft2",
    "rfft2",
    "irfft2",
    "hfft2",
    "ihfft2",
)


def numbers(name: str, *shape: int, dtype: str = "complex128") -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    real = rng.standard_normal(shape)
    if name.startswith(("rfft", "ihfft")):
        return real
    return (real + 1j * rng.standard_normal(shape)).astype(dtype)


def both(
    function: Any, array: np.ndarray, compiled: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and gradients of ``function(package, x)`` in PyTorch and here."""
    found = []
    for package in (torch, gt):

        def call(x: Any, package: Any = package) -> Any:
            return function(package, x)

        x = package.tensor(array).requires_grad_()
        y = (gt.compile(call) if compiled and package is gt else call)(x)
        flat = package.view_as_real(y.resolve_conj()) if y.is_complex() else y
        weight = (
            np.cos(np.arange(flat.numel()))
            .reshape(flat.shape)
            .astype(str(flat.dtype).split(".")[-1])
        )
        (flat * package.tensor(weight)).sum().backward()
        found.append([t.detach().resolve_conj().numpy() for t in (y, x.grad)])
    return list(zip(*found, strict=True))


def same(
    function: Any, array: np.ndarray, tolerance: float = 1e-10, compiled: bool = False
) -> None:
    for theirs, ours in both(function, array, compiled):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        largest = max(1, np.abs(theirs).max(initial=0))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", LENGTHS)
def test_lengths(name: str, n: int) -> None:
    if name in ("irfft", "hfft") and n == 1:
        same(lambda p, x: getattr(p.fft, name)(x, n=1), numbers(name, 2, n))
    else:
        same(lambda p, x: getattr(p.fft, name)(x), numbers(name, 2, n))
    same(lambda p, x: getattr(p.fft, name)(x, dim=0, norm="ortho"), numbers(name, n + 1, 3))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", [None, "forward", "backward", "ortho"])
@pytest.mark.parametrize("n", [None, 4, 9, 12])
def test_options(name: str, norm: str | None, n: int | None) -> None:
    same(lambda p, x: getattr(p.fft, name)(x, n=n, dim=1, norm=norm), numbers(name, 2, 9, 3))


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "ortho"},
        {"s": (4, 6)},
        {"dim": (0, 2)},
        {"s": (3, 5), "dim": (1, 0), "norm": "forward"},
        {"s": (-1, 4)},
    ],
)
def test_several_dimensions(name: str, options: dict[str, Any]) -> None:
    same(lambda p, x: getattr(p.fft, name)(x, **options), numbers(name, 3, 4, 5))


@pytest.mark.parametrize("name", [*NAMES, "fft2", "irfftn"])
@pytest.mark.parametrize("n", [6, 100, 131])
def test_compiled(name: str, n: int) -> None:
    same(lambda p, x: getattr(p.fft, name)(x, norm="ortho"), numbers(name, 3, n), compiled=True)
    array = numbers(name, 3, n)
    narrow = array.astype("complex64" if array.dtype.kind == "c" else "float32")
    same(lambda p, x: getattr(p.fft, name)(x, norm="ortho"), narrow, 2e-6, compiled=True)


def test_second_derivatives() -> None:
    x = gt.tensor(numbers("rfft", 7)).requires_grad_()
    assert gt.autograd.gradgradcheck(lambda x: gt.view_as_real(gt.fft.rfft(x)).square().sum(), (x,))


def test_frequencies_and_shifts() -> None:
    for n in (1, 4, 7):
        for name in ("fftfreq", "rfftfreq"):
            theirs, ours = (getattr(p.fft, name)(n, d=0.5) for p in (torch, gt))
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)
        array = np.arange(3.0 * n).reshape(3, n)
        for name in ("fftshift", "ifftshift"):
            for dim in (None, 1, (0, 1), -2):
                theirs, ours = (getattr(p.fft, name)(p.tensor(array), dim=dim) for p in (torch, gt))
                assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda p: p.fft.fft(p.ones(3), n=0),
        lambda p: p.fft.rfft(p.ones(3, dtype=p.complex64)),
        lambda p: p.fft.fft(p.ones(3), norm="best"),
        lambda p: p.fft.fft(p.ones(3), dim=1),
        lambda p: p.fft.fftn(p.ones(3, 3), dim=(0, 0)),
        lambda p: p.fft.fftn(p.ones(3, 3), s=(2, 2, 2)),
        lambda p: p.fft.irfft(p.ones(1, dtype=p.complex64)),
        lambda p: p.stft(p.ones(8), 4),
        lambda p: p.stft(p.ones(8), 20, return_complex=True),
        lambda p: p.stft(p.ones(8), 4, window=p.ones(3), return_complex=True),
        lambda p: p.istft(p.ones(3, 3), 4),
    ],
)
def test_errors(call: Any) -> None:
    for package in (torch, gt):
        with pytest.raises((RuntimeError, IndexError)) as raised:
            call(package)
        if package is torch:
            kind = raised.type
    assert raised.type is kind


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hop_length": 3},
        {"win_length": 6},
        {"center": False},
        {"normalized": True},
        {"onesided": False},
        {"pad_mode": "constant"},
        {"window": True},
        {"window": True, "win_length": 5, "hop_length": 2},
    ],
)
@pytest.mark.parametrize("shape", [(40,), (2, 33)])
def test_short_time(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    def given(p: Any, **more: Any) -> dict[str, Any]:
        found = {
            k: v for k, v in {**options, **more}.items() if k in more or k not in ("pad_mode",)
        }
        if "window" in options:
            found["window"] = p.hann_window(options.get("win_length", 8), dtype=p.float64)
        return found

    extra = {"pad_mode": options["pad_mode"]} if "pad_mode" in options else {}
    same(
        lambda p, x: p.stft(x, 8, return_complex=True, **given(p, **extra)), numbers("rfft", *shape)
    )
    if options.get("center", True) or "window" not in options:
        same(
            lambda p, x: p.istft(p.stft(x, 8, return_complex=True, **given(p)), 8, **given(p)),
            numbers("rfft", *shape),
        )
        same(
            lambda p, x: p.istft(
                p.stft(x, 8, return_complex=True, **given(p)), 8, length=shape[-1], **given(p)
            ),
            numbers("rfft", *shape),
        )


def test_short_time_as_one_graph_and_windows_that_leave_places_out() -> None:
    window = gt.hann_window(8, dtype=gt.float64)
    x = gt.tensor(numbers("rfft", 40))

    def there_and_back(x: Any) -> Any:
        spectrum = gt.stft(x, 8, window=window, return_complex=True)
        return gt.istft(spectrum, 8, window=window, length=40)

    np.testing.assert_allclose(
        gt.compile(there_and_back, fullgraph=True)(x).numpy(), x.numpy(), atol=1e-12
    )
    for package in (torch, gt):
        edge = package.hann_window(8, dtype=package.float64)
        spectrum = package.stft(
            package.tensor(numbers("rfft", 40)), 8, window=edge, center=False, return_complex=True
        )
        with pytest.raises(RuntimeError, match="window overlap add min"):
            package.istft(spectrum, 8, window=edge, center=False)
