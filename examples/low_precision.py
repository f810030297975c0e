"""Inference by fewer digits: products with weights in 8-bit integers, or in bfloat16."""

import time

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(512, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 10)
).eval()
x = torch.randn(64, 512)


def milliseconds(call):
    call(x)  # recorded and compiled
    times = []
    for _ in range(20):
        start = time.perf_counter()
        call(x).numpy()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


with torch.no_grad():  # gradients are refused: train in full precision
    exact = model(x)
    for precision in (None, "bf16", "int8"):
        compiled = torch.compile(model, precision=precision)
        y = compiled(x)
        error = ((y - exact).abs().max() / exact.abs().max()).item()
        same = (y.argmax(1) == exact.argmax(1)).float().mean().item()
        print(
            f"{precision or 'f32':4s} {milliseconds(compiled):6.2f} ms, largest error {error:.1e}, "
            f"{same:.0%} of the rows have the same largest output"
        )
        assert error < {None: 1e-5, "bf16": 2e-2, "int8": 5e-2}[precision]
