"""Save and load weights: as PyTorch's archive, and as safetensors."""

import tempfile
from pathlib import Path

import graphtorch as torch
from graphtorch import nn


def make():
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))


torch.manual_seed(0)
model = make()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(5):  # so that there is something worth saving
    loss = model(torch.randn(16, 6)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
model.eval()
x = torch.randn(3, 6)
expected = model(x)

with tempfile.TemporaryDirectory() as folder:
    checkpoint, weights = Path(folder) / "checkpoint.pt", Path(folder) / "model.safetensors"
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 5}, checkpoint
    )
    torch.save_safetensors(model.state_dict(), weights)
    for path in (checkpoint, weights):
        print(f"{path.name}: {path.stat().st_size} bytes")

    loaded = torch.load(checkpoint)  # only data is read: loading runs no code of the file
    again = make()
    print(again.load_state_dict(loaded["model"]))
    resumed = torch.optim.Adam(again.parameters(), lr=1.0)
    resumed.load_state_dict(loaded["optimizer"])

    other = make()
    other.load_state_dict(torch.load_safetensors(weights))

print("epoch", loaded["epoch"], "lr", resumed.param_groups[0]["lr"])
assert torch.equal(again.eval()(x), expected)
assert torch.equal(other.eval()(x), expected)
assert resumed.param_groups[0]["lr"] == 1e-2
