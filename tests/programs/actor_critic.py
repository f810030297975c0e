"""Advantage actor-critic with GAE on a point that has to reach a target: episodes of different lengths, discrete and continuous heads."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Categorical, Normal, kl_divergence


class Corridor:
    """Walk right along a line; the speed of each step is chosen too."""

    def reset(self):
        self.x, self.t = random.uniform(-1, 0), 0
        return [self.x, 0.0]

    def step(self, direction, speed):
        self.x += (0.2 if direction == 1 else -0.2) * min(max(speed, 0.0), 1.5)
        self.t += 1
        reached = self.x > 1
        return [self.x, self.t / 30], (5.0 if reached else -0.1), reached or self.t >= 30


class ActorCritic(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh())
        self.direction, self.speed, self.value = nn.Linear(hidden, 2), nn.Linear(hidden, 1), nn.Linear(hidden, 1)
        self.log_std = nn.Parameter(torch.zeros(1) - 0.5)

    def forward(self, state):
        h = self.body(state)
        return Categorical(logits=self.direction(h)), Normal(self.speed(h).squeeze(-1), self.log_std.exp()), self.value(h).squeeze(-1)


def gae(rewards, values, gamma=0.98, lam=0.95):
    advantages, advantage, following = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards), reversed(values)):
        delta = reward + gamma * following - value
        advantage = delta + gamma * lam * advantage
        following = value
        advantages.insert(0, advantage)
    return torch.tensor(advantages)


random.seed(5)
torch.manual_seed(5)
model, env = ActorCritic(), Corridor()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
totals, divergences = [], []
for episode in range(50):
    state, done = env.reset(), False
    states, directions, speeds, rewards, values = [], [], [], [], []
    while not done:
        with torch.no_grad():
            d, s, v = model(torch.tensor([state]))
        direction, speed = d.sample(), s.sample()
        states.append(state)
        directions.append(direction)
        speeds.append(speed)
        values.append(v.item())
        state, reward, done = env.step(direction.item(), speed.item())
        rewards.append(reward)
    states, directions, speeds = torch.tensor(states), torch.cat(directions), torch.cat(speeds)
    advantages = gae(rewards, values)
    returns = advantages + torch.tensor(values)
    if len(rewards) > 1:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    with torch.no_grad():
        old_d, old_s, _ = model(states)
        old = old_d.log_prob(directions) + old_s.log_prob(speeds)
    for _ in range(2):
        d, s, v = model(states)
        ratio = (d.log_prob(directions) + s.log_prob(speeds) - old).exp()
        policy_loss = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        entropy = d.entropy().mean() + 0.1 * s.entropy().mean()
        loss = policy_loss + 0.5 * F.mse_loss(v, returns) - 0.01 * entropy
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    with torch.no_grad():
        new_d, new_s, _ = model(states)
        divergences.append((kl_divergence(old_d, new_d) + kl_divergence(old_s, new_s)).mean().item())
    totals.append(sum(rewards))
print('episodes', len(totals), 'divergence small', 0 <= max(divergences) < 1)
print('learns', sum(totals[-15:]) > sum(totals[:15]))
