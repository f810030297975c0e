"""Short-time Fourier transforms: a signal cut into overlapping frames, each transformed, and back.

https://docs.pytorch.org/docs/stable/generated/torch.stft.html
"""

from __future__ import annotations

import math
from typing import Any

from graphtorch.ir import ops

from ..._deferred.running import settle
from ..._deferred.storage import recorder
from ..._deferred.tensor import Tensor
from ..._deferred.write import cast_tensor
from ..._ops.base import FUNCTIONS, check_tensor, checked, run
from ..._settings import warn_once, warn_user
from .padding import pad

LEAST = 1e-11  # squares of the window that a place of the signal needs


def _window(name: str, window: Any, length: int, n_fft: int, like: Tensor) -> Tensor:
    """The window, `n_fft` wide: zeros stand around one that is shorter."""
    if not 0 < length <= n_fft:
        raise RuntimeError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={length}")
    if window is None:
        window = like.new_ones((length,))
    elif tuple(window.shape) != (length,):
        raise RuntimeError(
            f"{name}: expected a 1D window tensor of size equal to win_length={length}, but got "
            f"window with size {list(window.shape)}"
        )
    left = (n_fft - length) // 2
    return pad(window, (left, n_fft - length - left))


def _framed(input: Tensor, n_fft: int, hop: int, center: bool, pad_mode: str) -> Tensor:
    """The frames [B, count, n_fft] of a signal [L] or [B, L]."""
    if input.ndim not in (1, 2) or not (input.is_floating_point() or input.is_complex()):
        raise RuntimeError(
            "stft: expected a tensor of floating point or complex values with 1 or 2 "
            f"dimensions, got {input.ndim} of {input.dtype}"
        )
    x = input if input.ndim == 2 else input.unsqueeze(0)
    if center:
        x = pad(x.unsqueeze(1), (n_fft // 2, n_fft // 2), pad_mode).squeeze(1)
    length = x.shape[1]
    if not 0 < n_fft <= length:
        raise RuntimeError(f"stft: expected 0 < n_fft < {length}, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    return x.unfold(1, n_fft, hop)  # type: ignore[no-any-return]


def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """The spectrum of each frame of a signal.

    Args:
        input: [L] or [B, L].
        n_fft: elements of a frame.
        hop_length: between the beginnings of two frames; default n_fft // 4.
        window: [win_length] (default: n_fft ones), multiplied with each frame.
        center: frames are centred at multiples of `hop_length`: the signal is padded at both ends.
        normalized: divided by the root of n_fft.
        onesided: only the first n_fft // 2 + 1 frequencies; default: for real signals and windows.
        return_complex: False gives [..., 2] real numbers (deprecated).

    Returns:
        [B?, frequencies, frames].

    Raises:
        RuntimeError: sizes that do not fit; `return_complex` is left out for a real signal.
    """
    check_tensor("stft", "input", input)
    is_complex = input.is_complex() or (window is not None and window.is_complex())
    if return_complex is None and not is_complex:
        raise RuntimeError(
            "stft requires the return_complex parameter be given for real inputs, and will further "
            "require that return_complex=True in a future PyTorch release."
        )
    if window is None:
        warn_once(
            "A window was not provided. A rectangular window will be applied,which is known to "
            "cause spectral leakage. Other windows such as torch.hann_window or "
            "torch.hamming_window are recommended to reduce spectral leakage.To suppress this "
            "warning and use a rectangular window, explicitly set `window=torch.ones(n_fft, "
            "device=<device>)`."
        )
    if onesided is None:
        onesided = not is_complex
    x = _framed(input, n_fft, n_fft // 4 if hop_length is None else hop_length, center, pad_mode)
    frames = x * _window("stft", window, n_fft if win_length is None else win_length, n_fft, x)
    spectrum = _spectrum(frames, n_fft, onesided, is_complex)
    if normalized:
        spectrum = spectrum * (1 / math.sqrt(n_fft))
    made = spectrum.transpose(1, 2)
    made = made if input.ndim == 2 else made.squeeze(0)
    if return_complex or return_complex is None:
        return made  # type: ignore[no-any-return]
    warn_user(
        "stft with return_complex=False is deprecated. In a future pytorch release, stft will "
        "return complex tensors for all inputs, and return_complex=False will raise an error.",
    )
    return FUNCTIONS["view_as_real"](made.contiguous())  # type: ignore[no-any-return]


def _spectrum(frames: Tensor, n_fft: int, onesided: bool, is_complex: bool) -> Any:
    """The frequencies [B, count, n_fft] of frames, or [B, count, n_fft // 2 + 1] of one side."""
    dtype = frames._type.dtype
    if not dtype.is_complex:
        frames = cast_tensor(frames, dtype.complex)
    spectrum = run("Stft", ops.fft, frames, dim=2, inverse=False)
    if not onesided:
        return spectrum
    if is_complex:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    return spectrum.narrow(2, 0, n_fft // 2 + 1)


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Any = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal whose `stft` is nearest to `input` [B?, frequencies, frames], by overlap and add.

    Raises:
        RuntimeError: sizes that do not fit, or a window whose squares do not cover every place.
    """
    check_tensor("istft", "input", input)
    if window is None:
        warn_once(
            "A window was not provided. A rectangular window will be applied.Please provide the "
            "same window used by stft to make the inversion lossless.To suppress this warning and "
            "use a rectangular window, explicitly set `window=torch.ones(n_fft, device=<device>)`."
        )
    if not input.is_complex():
        raise RuntimeError(
            "istft requires a complex-valued input tensor matching the output from stft with "
            "return_complex=True."
        )
    hop = n_fft // 4 if hop_length is None else hop_length
    x = input if input.ndim == 3 else input.unsqueeze(0)
    if x.ndim != 3 or not x.numel():
        raise RuntimeError(
            "istft: expected a tensor with 2 or 3 dimensions that is not empty, got "
            f"{list(input.shape)}"
        )
    if onesided is None:
        onesided = x.shape[1] != n_fft
    bins = n_fft // 2 + 1 if onesided else n_fft
    if x.shape[1] != bins:
        raise RuntimeError(
            "istft: expected the frequency dimension (3rd to the last) of the input tensor to "
            f"match n_fft when onesided={onesided}, which is {bins}, but got "
            f"{x.shape[1]}"
        )
    if not 0 < hop <= (n_fft if win_length is None else win_length):
        raise RuntimeError("istft: expected 0 < hop_length <= win_length")
    real = x.real.new_zeros(())
    shape = _window("istft", window, n_fft if win_length is None else win_length, n_fft, real)
    frames = x.transpose(1, 2)
    if onesided:
        frames = FUNCTIONS["cat"]((frames, frames.narrow(2, 1, (n_fft - 1) // 2).flip(2).conj()), 2)
    made = run("Istft", ops.fft, frames, dim=2, inverse=True) * (1 / n_fft)
    if normalized:
        made = made * math.sqrt(n_fft)
    if not return_complex:
        made = made.real
    signal = _added(made * shape, hop)
    weight = _added(shape.square().expand(1, x.shape[2], n_fft), hop)
    start = n_fft // 2 if center else 0
    total = signal.shape[1]
    end = start + length if length is not None else total - n_fft // 2 if center else total
    stop = min(end, total)
    signal, weight = signal[:, start:stop], weight[:, start:stop]
    margin = weight.abs() - LEAST
    if recorder.capture is None:
        settle(margin._storage)  # of the window alone: the check belongs to this call
    covered = checked(margin, "positive", "window overlap add min: 1") + LEAST
    signal = signal / (weight if weight.is_complex() else covered)
    if end > total:
        signal = pad(signal, (0, end - total))
    return signal if input.ndim == 3 else signal.squeeze(0)


def _added(frames: Tensor, hop: int) -> Tensor:
    """Frames [B, count, n] added up at distances of `hop`: [B, n + hop (count - 1)]."""
    batch, count, n = frames.shape
    starts, inside = (FUNCTIONS["arange"](k, device=frames.device) for k in (count, n))
    places = (starts.unsqueeze(1) * hop + inside).reshape(-1)
    return frames.new_zeros((batch, n + hop * (count - 1))).index_add(
        1, places, frames.reshape(batch, -1)
    )  # type: ignore[no-any-return]
