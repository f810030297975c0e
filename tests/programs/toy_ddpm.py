"""Denoising diffusion on two moons: random steps while training, then the chain of samplers, also with strides (DDIM)."""
import math

import numpy as np
import torch
from torch import nn
from sklearn.datasets import make_moons

torch.manual_seed(0)
np.random.seed(0)
data = torch.tensor(make_moons(1000, noise=0.05, random_state=0)[0], dtype=torch.float32)
data = (data - data.mean(0)) / data.std(0)
T = 50
betas = torch.linspace(1e-4, 0.2, T)
alphas = 1.0 - betas
alphas_cumprod = torch.cumprod(alphas, dim=0)
sqrt_alphas_cumprod, sqrt_one_minus = torch.sqrt(alphas_cumprod), torch.sqrt(1.0 - alphas_cumprod)


class SinusoidalEmbedding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, time):
        half = self.dim // 2
        freq = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
        angles = time[:, None].float() * freq[None, :]
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class Denoiser(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.time_mlp = nn.Sequential(SinusoidalEmbedding(32), nn.Linear(32, hidden), nn.SiLU())
        self.inp = nn.Linear(2, hidden)
        self.mid = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.out = nn.Linear(hidden, 2)

    def forward(self, x, t):
        return self.out(self.mid(self.inp(x) + self.time_mlp(t)))


def extract(a, t, x_shape):
    return a.gather(-1, t).reshape(t.shape[0], *((1,) * (len(x_shape) - 1)))


@torch.no_grad()
def p_sample_loop(model, n):
    x = torch.randn(n, 2)
    for i in reversed(range(T)):
        t = torch.full((n,), i, dtype=torch.long)
        mean = (x - extract(betas, t, x.shape) * model(x, t) / extract(sqrt_one_minus, t, x.shape)) / extract(alphas, t, x.shape).sqrt()
        x = mean if i == 0 else mean + extract(betas, t, x.shape).sqrt() * torch.randn_like(x)
    return x


@torch.no_grad()
def ddim(model, n, steps):
    x, times = torch.randn(n, 2), torch.linspace(T - 1, 0, steps).long().tolist()
    for now, then in zip(times, times[1:] + [-1]):
        eps = model(x, torch.full((n,), now))
        x0 = (x - sqrt_one_minus[now] * eps) / sqrt_alphas_cumprod[now]
        before = alphas_cumprod[then] if then >= 0 else torch.tensor(1.0)
        x = before.sqrt() * x0 + (1 - before).sqrt() * eps
    return x


model = Denoiser()
ema = {k: v.clone() for k, v in model.state_dict().items()}
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
losses = []
for step in range(250):
    x0 = data[torch.randint(0, len(data), (128,))]
    t = torch.randint(0, T, (128,)).long()
    noise = torch.randn_like(x0)
    noisy = extract(sqrt_alphas_cumprod, t, x0.shape) * x0 + extract(sqrt_one_minus, t, x0.shape) * noise
    loss = nn.functional.smooth_l1_loss(model(noisy, t), noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        for k, v in model.state_dict().items():
            ema[k].mul_(0.98).add_(v, alpha=0.02)
    losses.append(loss.item())
print('loss falls', sum(losses[-30:]) < sum(losses[:30]))
model.load_state_dict(ema)
samples = p_sample_loop(model, 200)
print('samples', tuple(samples.shape), 'finite', bool(samples.isfinite().all()), 'near', bool(samples.abs().mean() < 3))
for steps in (5, 10, 25):
    made = ddim(model, 100, steps)
    print('ddim', steps, 'finite', bool(torch.isfinite(made).all()))
