"""Functions of functions: a gradient for each sample, learning through an inner loop, an ensemble
at once."""

import graphtorch as torch
from graphtorch import nn
from graphtorch.func import functional_call, grad, stack_module_state, vmap

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
parameters = dict(model.named_parameters())
x = torch.linspace(-2, 2, 12).unsqueeze(1)
y = x.sin()


def loss(parameters, x, y):
    return nn.functional.mse_loss(functional_call(model, parameters, (x,)), y)


# the gradient of each sample by itself: which of them pull hardest?
each = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
pull = sum(g.flatten(1).square().sum(1) for g in each.values()).sqrt()
assert torch.allclose(each["0.weight"].mean(0), grad(loss)(parameters, x, y)["0.weight"], atol=1e-6)
print("hardest sample", pull.argmax().item(), "pull", round(pull.max().item(), 3))

# meta-learning: find weights from which three steps of gradient descent fit any phase of the wave
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
losses = []
for _ in range(80):
    target = (x + 0.5 * torch.rand(1)).sin()
    fast = dict(model.named_parameters())
    for _ in range(3):
        gradient = grad(loss)(fast, x, target)
        fast = {name: p - 0.1 * gradient[name] for name, p in fast.items()}
    outer = loss(fast, x, target)
    optimizer.zero_grad()
    outer.backward()
    optimizer.step()
    losses.append(outer.item())
print("after three steps:", round(losses[0], 3), "->", round(losses[-1], 3))
assert losses[-1] < losses[0] / 2

# five models as one function of their stacked parameters
models = [nn.Linear(1, 1) for _ in range(5)]
stacked, buffers = stack_module_state(models)
answers = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(stacked, buffers)
assert answers.shape == (5, 12, 1) and torch.allclose(answers[3], models[3](x), atol=1e-6)
print("spread of the ensemble", round(answers.std(0).mean().item(), 3))
