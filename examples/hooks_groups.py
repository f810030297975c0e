"""Hooks that watch and change what flows through a model, and parameter groups with their own
settings."""

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

shapes, norms = {}, {}
for name, layer in model.named_children():  # after each layer's forward

    def note(_layer, _inputs, output, name=name):
        shapes[name] = tuple(output.shape)

    layer.register_forward_hook(note)
# when a gradient arrives: note its size, then clip it
for name, parameter in model.named_parameters():

    def clip(gradient, name=name):
        norms[name] = gradient.norm().item()
        return gradient.clamp(-0.1, 0.1)

    parameter.register_hook(clip)

optimizer = torch.optim.SGD(
    [
        {"params": model[0].parameters(), "lr": 0.5, "weight_decay": 1e-4},
        {"params": model[2].parameters()},
    ],
    lr=0.05,
    momentum=0.9,
)

x = torch.randn(64, 8)
y = x[:, :1].sin()
losses = []
for _ in range(60):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    assert all(p.grad.abs().max() <= 0.1 for p in model.parameters())
    optimizer.step()
    losses.append(loss.item())

print("outputs of the layers", shapes)
print("norms of the last gradients", {name: round(norm, 4) for name, norm in norms.items()})
for group in optimizer.param_groups:
    print(
        f"group of {len(group['params'])}: lr {group['lr']}, weight decay {group['weight_decay']}"
    )
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
assert shapes == {"0": (64, 16), "1": (64, 16), "2": (64, 1)}
assert losses[-1] < 0.2 * losses[0]
