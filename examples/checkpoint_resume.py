"""Interrupt training and resume it from a file: model, optimizer, schedule, random numbers continue
alike."""

import tempfile
from pathlib import Path

import graphtorch as torch
from graphtorch import nn

STEPS, CUT = 12, 5


def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)


def train(model, optimizer, schedule, steps):
    losses = []
    for _ in range(steps):
        x = torch.randn(32, 8)
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


expected = train(*make(), STEPS)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "step5.pt"
    parts = make()
    train(*parts, CUT)
    names = ("model", "optimizer", "schedule")
    saved = {name: part.state_dict() for name, part in zip(names, parts, strict=True)}
    torch.save({**saved, "random": torch.get_rng_state(), "step": CUT}, path)

    loaded = torch.load(path)  # data only: nothing in the file is run
    parts = make()
    for name, part in zip(names, parts, strict=True):
        part.load_state_dict(loaded[name])
    torch.set_rng_state(loaded["random"])
    resumed = train(*parts, STEPS - loaded["step"])

print("without interruption", [f"{x:.4f}" for x in expected[CUT:]])
print("resumed             ", [f"{x:.4f}" for x in resumed])
assert resumed == expected[CUT:]
