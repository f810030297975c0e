"""What the compiler did: kernels, FLOPs, bytes and memory; and schedules by measurement."""

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 10), nn.LogSoftmax(1)
)
compiled = torch.compile(model.eval())

with torch.no_grad():
    y = compiled(torch.randn(32, 256))

text = compiled.explain()
print(text)
operations = len(compiled.graphs[0].nodes)
print(f"{operations} operations recorded")
assert torch.allclose(y.exp().sum(1), torch.ones(32))
assert "FLOP" in text

tuned = torch.compile(model, tune=1)  # seconds; tune=True takes up to 30 for each program
with torch.no_grad():
    z = tuned(torch.zeros(32, 256))
print(tuned.explain().splitlines()[-1])
assert torch.allclose(z.exp().sum(1), torch.ones(32))
assert "by measurement" in tuned.explain()
