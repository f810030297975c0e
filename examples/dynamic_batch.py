"""One compiled graph for all batch sizes: `Dim` marks a size that may change."""

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10)
).eval()
batch = torch.Dim("batch", min=1, max=64)
compiled = torch.compile(model, dynamic={0: {0: batch}})  # axis 0 of the first argument

worst = 0.0
with torch.no_grad():
    for size in (1, 2, 7, 64):
        x = torch.randn(size, 3, 16, 16)
        y = compiled(x)
        worst = max(worst, (y - model(x)).abs().max().item())
        print(f"batch {size:2d} -> {tuple(y.shape)}, graphs recorded so far: {compiled.recorded}")

print(f"largest difference from the model itself {worst:.1e}")
assert compiled.recorded == 1
assert worst < 1e-5
