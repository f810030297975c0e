"""A neural ODE fitted to a spiral with an adaptive Bogacki-Shampine solver: the number of steps follows the error."""
import torch
import torch.nn as nn


class ODEFunc(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        for m in self.net.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, mean=0, std=0.1)
                nn.init.constant_(m.bias, val=0)
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(y ** 3)


class Spiral(nn.Module):
    def forward(self, t, y):
        return (y ** 3) @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])


def odeint(func, y0, times, rtol=1e-3, atol=1e-4):
    t, y, h, results = times[0].item(), y0, 0.05, [y0]
    k1, rejected = func(t, y), 0
    for end in times[1:].tolist():
        while t < end - 1e-9:
            h = min(h, end - t)
            k2 = func(t + h / 2, y + h / 2 * k1)
            k3 = func(t + 3 * h / 4, y + 3 * h / 4 * k2)
            y_new = y + h * (2 / 9 * k1 + 1 / 3 * k2 + 4 / 9 * k3)
            k4 = func(t + h, y_new)
            error = h * (-5 / 72 * k1 + 1 / 12 * k2 + 1 / 9 * k3 - 1 / 8 * k4)
            scale = atol + rtol * torch.max(y.abs(), y_new.abs())
            ratio = (error / scale).pow(2).mean().sqrt().item()
            if ratio <= 1:
                t, y, k1 = t + h, y_new, k4
            else:
                rejected += 1
            h *= min(5.0, max(0.2, 0.9 * (ratio + 1e-10) ** (-1 / 3)))
        results.append(y)
    return torch.stack(results), rejected


torch.manual_seed(0)
true_y0 = torch.tensor([[2.0, 0.0]])
t = torch.linspace(0.0, 8.0, 161)
with torch.no_grad():
    true_y, rejected = odeint(Spiral(), true_y0, t)
print('true solution', tuple(true_y.shape), 'shrinks', bool(true_y[-1].norm() < 2))
func = ODEFunc()
optimizer = torch.optim.RMSprop(func.parameters(), lr=5e-3)
losses, evaluations = [], []
for itr in range(40):
    s = torch.randint(0, len(t) - 10, (16,))
    batch_y0 = true_y[s]
    batch_t = t[:10]
    batch_y = torch.stack([true_y[s + i] for i in range(10)], dim=0)
    func.nfe = 0
    optimizer.zero_grad()
    pred_y, _ = odeint(func, batch_y0, batch_t)
    loss = torch.mean(torch.abs(pred_y - batch_y))
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    evaluations.append(func.nfe)
print('iterations', len(losses), 'evaluations', min(evaluations) >= 28)
print('loss falls', sum(losses[-8:]) < sum(losses[:8]))
