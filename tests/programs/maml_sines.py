"""Model-agnostic meta-learning on sine waves: gradients of inner loops whose number of steps and shots is drawn each time."""
import math
import random

import torch
import torch.nn.functional as F


def net(x, params):
    x = F.relu(F.linear(x, params[0], params[1]))
    x = F.relu(F.linear(x, params[2], params[3]))
    return F.linear(x, params[4], params[5])


class SineTask:
    def __init__(self):
        self.amplitude, self.phase = random.uniform(0.5, 3.0), random.uniform(0, 3.14)

    def sample(self, k):
        x = torch.rand(k, 1) * 10 - 5
        return x, self.amplitude * torch.sin(x + self.phase)


def adapt(params, x, y, steps, lr=0.01, create_graph=True):
    fast = params
    for _ in range(steps):
        loss = F.mse_loss(net(x, fast), y)
        grads = torch.autograd.grad(loss, fast, create_graph=create_graph)
        fast = [w - lr * g for w, g in zip(fast, grads)]
    return fast


def evaluate(params, tasks):
    after = 0.0
    for task in tasks:
        x, y = task.sample(10)
        fast = adapt(params, x, y, 5, create_graph=False)
        x, y = task.sample(50)
        after += F.mse_loss(net(x, fast), y).item()
    return after / len(tasks)


random.seed(0)
torch.manual_seed(0)
params = [torch.randn(40, 1), torch.zeros(40), torch.randn(40, 40) * 0.2, torch.zeros(40), torch.randn(1, 40) * 0.2, torch.zeros(1)]
for p in params:
    p.requires_grad_()
meta_optimizer = torch.optim.Adam(params, lr=1e-3)
held_out = [SineTask() for _ in range(10)]
losses = []
for iteration in range(70):
    meta_loss = 0.0
    for _ in range(4):
        task, shots, steps = SineTask(), random.randint(5, 10), random.randint(1, 3)
        x, y = task.sample(shots)
        fast = adapt(params, x, y, steps)
        x, y = task.sample(10)
        meta_loss = meta_loss + F.mse_loss(net(x, fast), y)
    meta_loss = meta_loss / 4
    meta_optimizer.zero_grad()
    meta_loss.backward()
    meta_optimizer.step()
    losses.append(meta_loss.item())
    if iteration % 20 == 0:
        print('iteration', iteration, 'finite', bool(torch.isfinite(meta_loss)))
print('meta-loss falls', sum(losses[-15:]) < sum(losses[:15]), 'finite after adapting', math.isfinite(evaluate(params, held_out)))
