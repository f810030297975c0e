"""Memory of a plain training loop that prints its loss now and then: it has to stay flat.

  python tools/bench/memory.py [--steps 10000] [--every 100]

Prints the resident memory at each tenth of the loop, and fails where the second half grew by more
than 1 MiB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import graphtorch as torch
from graphtorch import nn

GROWTH = 1.0  # MiB


def resident() -> float:
    """MiB of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=100)
    options = parser.parse_known_args()[0]  # (the name of this benchmark may stand before)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1000, 0.9)
    seen = []
    for step in range(1, options.steps + 1):
        x = torch.randn(32, 16)
        loss = (net(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % options.every == 0:
            value = loss.item()
        if step % max(1, options.steps // 10) == 0:
            seen.append(resident())
            print(f"step {step:6d}  loss {value:.4f}  {seen[-1]:.1f} MiB", flush=True)
    growth = seen[-1] - seen[len(seen) // 2 - 1]
    print(f"growth over the second half: {growth:.2f} MiB")
    return int(growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
