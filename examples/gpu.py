"""A small net on a GPU where there is one, else on the CPU: the same program."""

import graphtorch as torch
from graphtorch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
print("device", torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU")
torch.manual_seed(0)

# Two half moons: what is drawn on the CPU is moved once, and stays there.
angle = torch.rand(256) * torch.pi
kind = torch.arange(256) % 2
side = 1.0 - 2.0 * kind
x = torch.stack([side * angle.cos() + kind, side * angle.sin() + 0.5 * kind], dim=1).to(device)
y = kind.to(device)

model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)  # after the model is where it is to be
criterion = nn.CrossEntropyLoss()

for step in range(80):
    loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:2d}  loss {loss.item():.4f}")  # reading a number waits for the GPU

accuracy = (model(x).argmax(1) == y).float().mean().item()
print(f"accuracy {accuracy:.3f}")
assert accuracy > 0.95
assert all(p.device.type == device.type and p.grad.device == p.device for p in model.parameters())
# for machines without a GPU
state = {name: value.cpu() for name, value in model.state_dict().items()}
assert all(value.device.type == "cpu" for value in state.values())
