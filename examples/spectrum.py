"""Fourier transforms: the tones in a noisy signal, and a filter that learns which of them to keep.

python examples/spectrum.py
"""

from __future__ import annotations

import graphtorch as torch

RATE = 256  # samples a second


def tones(signal: torch.Tensor, count: int = 2) -> list[float]:
    """The `count` strongest frequencies of a real signal, in Hz, in rising order."""
    strength = torch.fft.rfft(signal).abs()
    frequencies = torch.fft.rfftfreq(signal.shape[-1], d=1 / RATE)
    return sorted(frequencies[strength.topk(count).indices].tolist())


@torch.compile
def filtered(signal: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """`signal` with each of its frequencies multiplied by a gain between 0 and 1."""
    return torch.fft.irfft(torch.fft.rfft(signal) * torch.sigmoid(gains), n=signal.shape[-1])


def main() -> None:
    torch.manual_seed(0)
    time = torch.arange(RATE) / RATE
    low, high = torch.sin(2 * torch.pi * 12 * time), torch.sin(2 * torch.pi * 60 * time)
    found = tones(low + high + 0.3 * torch.randn(RATE))
    print("tones of the signal:", found)
    assert found == [12.0, 60.0]

    gains = torch.zeros(RATE // 2 + 1, requires_grad=True)
    optimizer = torch.optim.Adam([gains], lr=0.3)
    for step in range(120):
        signal = low + high + 0.3 * torch.randn(RATE)
        loss = torch.nn.functional.mse_loss(filtered(signal, gains), low)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(f"step {step:3d}: loss {loss.item():.4f}")
    kept = torch.sigmoid(gains)
    print(
        f"loss {loss.item():.4f}; the filter keeps {kept[12]:.2f} of 12 Hz and {kept[60]:.2f} of "
        "60 Hz"
    )
    assert kept[12] > 0.9 and kept[60] < 0.1


if __name__ == "__main__":
    main()
