"""A whole training step compiled once; a scheduler changes the learning rate without compiling
anything."""

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)
teacher = torch.randn(20, 3)  # the labels follow from a hidden linear rule


@torch.compile
def step(x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


for i in range(200):
    x = torch.randn(64, 20)
    loss = step(x, (x @ teacher).argmax(1))
    scheduler.step()  # a new learning rate each time
    if i % 40 == 0:
        lr = scheduler.get_last_lr()[0]
        print(f"step {i:3d}  lr {lr:.5f}  loss {loss.item():.4f}  graphs {step.recorded}")

x = torch.randn(1000, 20)
accuracy = (model(x).argmax(1) == (x @ teacher).argmax(1)).float().mean().item()
print(f"accuracy {accuracy:.3f}; {step.recorded} graphs recorded in 200 steps")
assert accuracy > 0.9
assert step.recorded <= 2  # the first step also makes the optimizer's state
