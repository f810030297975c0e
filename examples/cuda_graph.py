"""A training step as one CUDA graph: recorded once, replayed on tensors that stay in place."""

import os
import shutil
import sys

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

if not torch.cuda.is_available():
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        print("there is neither a GPU nor a C++ compiler to emulate one")
        sys.exit()
    os.environ["GRAPHTORCH_CUDA"] = "emulated"  # the same kernels, run on the CPU

torch.manual_seed(0)
batches = [(x, x.sin()) for x in (6 * torch.rand(32, 1, device="cuda") - 3 for _ in range(4))]


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)).cuda()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    optimizer.zero_grad(set_to_none=True)  # gradients are then part of the graph
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


# Line by line first, for comparison.
plain, optimizer = made()
expected = [step(plain, optimizer, *batches[i % 4]).item() for i in range(40)]

model, optimizer = made()
x, y = (torch.zeros(32, 1, device="cuda") for _ in range(2))  # where each batch is put
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):  # nothing runs here: it is recorded
    loss = step(model, optimizer, x, y)

losses = []
for i in range(40):
    batch = batches[i % 4]
    x.copy_(batch[0])
    y.copy_(batch[1])
    graph.replay()  # forward, backward and update: one call
    losses.append(loss.item())

print(f"loss of the first step {losses[0]:.4f}, of the last {losses[-1]:.4f}")
difference = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
print(f"largest difference from the same steps line by line {difference:.1e}")
assert losses[-1] < losses[0] / 4 and difference < 1e-5
