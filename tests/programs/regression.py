"""Fit a noisy line, then a small network on a sine: python regression.py [--steps 60]"""
import argparse

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--init", default=None)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--save", default=None)
args = parser.parse_args()

rng = np.random.default_rng(0)
x = torch.from_numpy(rng.uniform(-3, 3, (256, 1))).float()
y = torch.sin(x) + 0.1 * torch.tensor(rng.standard_normal((256, 1)), dtype=torch.float32)

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)).to(device)
if args.init:
    model.load_state_dict(torch.load(args.init))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=20, gamma=0.5)

for step in range(args.steps):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x.to(device)), y.to(device))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    if step % 10 == 0:
        print(f"step {step} loss {loss.item():.6f} lr {scheduler.get_last_lr()[0]:.4f}")

model.eval()
with torch.no_grad():
    error = (model(x) - torch.sin(x)).abs().max()
print(f"final {error:.4f}")
if args.save:
    torch.save(model.state_dict(), args.save)
