"""A polynomial fit through a Function of one's own, hooks and LBFGS."""
import argparse
import math
import sys

import torch


class LegendrePolynomial3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return 0.5 * (5 * input ** 3 - 3 * input)

    @staticmethod
    def backward(ctx, grad_output):
        input, = ctx.saved_tensors
        return grad_output * 1.5 * (5 * input ** 2 - 1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.full((), 0.0))
        self.b = torch.nn.Parameter(torch.full((), -1.0))
        self.c = torch.nn.Parameter(torch.full((), 0.0))
        self.d = torch.nn.Parameter(torch.full((), 0.3))

    def forward(self, x):
        P3 = LegendrePolynomial3.apply
        return self.a + self.b * P3(self.c + self.d * x)


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("--init")
    parser.add_argument("--save")
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    x = torch.linspace(-math.pi, math.pi, 500)
    y = torch.sin(x)
    model = Model()
    if args.init:
        model.load_state_dict(torch.load(args.init))
    norms = []
    model.a.register_hook(lambda grad: norms.append(grad.abs().item()))
    learning_rate = 5e-6
    for t in range(args.steps):
        loss = (model(x) - y).pow(2).sum()
        if t % 20 == 19:
            print(t, loss.item())
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= learning_rate * p.grad
                p.grad = None
    print("gradients seen", len(norms), "largest %.4f" % max(norms, default=0))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.mean((model(x) - y) ** 2)
        loss.backward()
        return loss

    for _ in range(min(3, args.steps)):
        print("lbfgs %.6f" % optimizer.step(closure).item())
    if args.save:
        torch.save(model.state_dict(), args.save)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
