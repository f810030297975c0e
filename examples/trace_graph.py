"""A function as a graph: print it, read the text back, run it on two targets."""

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends import Buffer, compile
from graphtorch.ir import parse

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Softmax(dim=1)).eval()
x = torch.randn(2, 4)

traced = torch.trace(model, x, dynamic={0: {0: torch.Dim("batch", min=1, max=8)}})
traced.print()

graph = parse(str(traced))
assert graph == traced.graph  # the text is complete
print("inputs:", [v.name for v in graph.inputs], "of which parameters:", list(traced.parameters))

arrays = [x.numpy(), *[traced.parameters[v.name].detach().numpy() for v in graph.inputs[1:]]]
expected = model(x).detach().numpy()
for target in ("reference", "llvm"):  # NumPy op by op, and native code
    (result,) = compile(graph, target)([Buffer.of(a) for a in arrays])
    difference = np.abs(result.numpy() - expected).max()
    print(f"{target:9s} differs from the model by {difference:.1e}")
    assert difference < 1e-6
