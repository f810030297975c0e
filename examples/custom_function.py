"""A differentiable operation of one's own: forward and backward in Python, checked."""

import graphtorch as torch


class Swish(torch.autograd.Function):
    """x * sigmoid(b x), with the gradient written out."""

    @staticmethod
    def forward(ctx, x, b):
        s = torch.sigmoid(b * x)
        ctx.save_for_backward(x, b, s)
        return x * s

    @staticmethod
    def backward(ctx, grad):
        x, b, s = ctx.saved_tensors
        slope = s * (1 - s)
        grad_x = grad * (s + b * x * slope)
        grad_b = (grad * x * x * slope).sum()
        return grad_x, grad_b


torch.manual_seed(0)
x = torch.randn(5, dtype=torch.float64, requires_grad=True)
b = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)

y = Swish.apply(x, b)
y.sum().backward()
print("x     ", x.detach())
print("y     ", y.detach())
print("dy/dx ", x.grad)
print("dy/db ", b.grad.item())

by_hand = x.grad.clone(), b.grad.clone()
automatic = torch.autograd.grad((x * torch.sigmoid(b * x)).sum(), (x, b))
for mine, expected in zip(by_hand, automatic, strict=True):
    assert torch.allclose(mine, expected)
step = 1e-6
with torch.no_grad():
    difference = (Swish.apply(x, b + step) - Swish.apply(x, b - step)).sum() / (2 * step)
assert torch.allclose(by_hand[1], difference)
print("agrees with autograd and with finite differences")
