"""Gaussian process regression by Cholesky: hyperparameters by the marginal likelihood, data that grow point by point (Bayesian optimisation)."""
import math

import torch

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def rbf(a, b, lengthscale, variance):
    d = (a.unsqueeze(1) - b.unsqueeze(0)).pow(2).sum(-1)
    return variance * torch.exp(-0.5 * d / lengthscale ** 2)


class GP(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.log_lengthscale = torch.nn.Parameter(torch.tensor(0.0))
        self.log_variance = torch.nn.Parameter(torch.tensor(0.0))
        self.log_noise = torch.nn.Parameter(torch.tensor(-2.0))

    def factor(self, x):
        k = rbf(x, x, self.log_lengthscale.exp(), self.log_variance.exp())
        return torch.linalg.cholesky(k + (self.log_noise.exp() + 1e-6) * torch.eye(len(x)))

    def nll(self, x, y):
        l = self.factor(x)
        alpha = torch.cholesky_solve(y.unsqueeze(1), l).squeeze(1)
        return 0.5 * y @ alpha + torch.log(torch.diagonal(l)).sum() + 0.5 * len(x) * math.log(2 * math.pi)

    @torch.no_grad()
    def predict(self, x, y, new):
        l = self.factor(x)
        ks = rbf(x, new, self.log_lengthscale.exp(), self.log_variance.exp())
        mean = ks.t() @ torch.cholesky_solve(y.unsqueeze(1), l).squeeze(1)
        v = torch.linalg.solve_triangular(l, ks, upper=False)
        return mean, (self.log_variance.exp() - (v ** 2).sum(0)).clamp(min=1e-9)


def f(x):
    return (torch.sin(3 * x[:, 0]) + 0.5 * x[:, 0] + torch.cos(2 * x[:, 1]))


def fit(gp, x, y, steps):
    optimizer = torch.optim.Adam(gp.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = gp.nll(x, y)
        loss.backward()
        optimizer.step()
    return loss.item()


x = torch.rand(40, 2) * 4 - 2
y = f(x) + 0.05 * torch.randn(40)
gp = GP()
before = gp.nll(x, y).item()
after = fit(gp, x, y, 60)
test = torch.rand(100, 2) * 3 - 1.5
mean, var = gp.predict(x, y, test)
error = (mean - f(test)).pow(2).mean().sqrt().item()
print('likelihood grows', after < before, 'rmse below 0.5:', error < 0.5, 'variance positive', bool((var > 0).all()))

# Bayesian optimisation: expected improvement over a random set, one more point each round
x, y = x[:5].clone(), f(x[:5])
gp = GP()
start = y.max().item()
for round in range(20):
    fit(gp, x, y, 4)
    candidates = torch.rand(200, 2) * 4 - 2
    mean, var = gp.predict(x, y, candidates)
    std, best = var.sqrt(), y.max()
    z = (mean - best) / std
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    pdf = torch.exp(-0.5 * z ** 2) / math.sqrt(2 * math.pi)
    ei = (mean - best) * cdf + std * pdf
    new = candidates[ei.argmax()].unsqueeze(0)
    x, y = torch.cat([x, new]), torch.cat([y, f(new)])
print('points', len(x), 'improved', y.max().item() > start, 'close to the best', y.max().item() > 1.5)
sample = gp.factor(x).detach() @ torch.randn(len(x))
print('a draw from the prior', tuple(sample.shape), bool(sample.isfinite().all()))
