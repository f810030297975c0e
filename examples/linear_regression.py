"""Linear regression with an optimizer: recover the weights that made the data."""

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
true_weight = torch.tensor([[2.0, -3.4, 0.7]])
true_bias = 4.2
x = torch.randn(1000, 3)
y = x @ true_weight.T + true_bias + 0.01 * torch.randn(1000, 1)

model = nn.Linear(3, 1)
criterion = nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for step in range(100):
    loss = criterion(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.6f}")

print("weight", model.weight.detach())
print("bias  ", model.bias.detach())
assert torch.allclose(model.weight, true_weight, atol=0.01)
assert abs(model.bias.item() - true_bias) < 0.01
