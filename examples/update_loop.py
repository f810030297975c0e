"""The update written by hand: gradients by autograd, in-place steps under `no_grad`."""

import math

import graphtorch as torch

torch.manual_seed(0)
x = torch.linspace(-math.pi, math.pi, 2000)
y = torch.sin(x)
# fit sin by a polynomial of degree 3
powers = torch.stack([torch.ones_like(x), x, x**2, x**3], dim=1)

coefficients = torch.randn(4, requires_grad=True)
scale = torch.tensor([1.0, 1.0, 1e-1, 1e-2])  # the columns differ in size: so do the step sizes
first = None
for step in range(1500):
    loss = (powers @ coefficients - y).square().mean()
    loss.backward()
    with torch.no_grad():
        coefficients -= 0.1 * scale * coefficients.grad  # in place: `coefficients` stays a leaf
        coefficients.grad.zero_()
    first = first or loss.item()
    if step % 300 == 0:
        print(f"step {step:4d}  loss {loss.item():.5f}")

a, b, c, d = coefficients.tolist()
print(f"sin(x) ~ {a:.3f} + {b:.3f} x + {c:.3f} x^2 + {d:.3f} x^3")
print(f"loss {first:.2f} -> {loss.item():.5f}")
assert coefficients.is_leaf and coefficients.grad.abs().max() == 0
assert loss.item() < 0.006  # least squares gives 0.0044
assert abs(b - 0.857) < 0.05 and abs(d + 0.093) < 0.01
