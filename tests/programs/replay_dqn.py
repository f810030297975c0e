"""DQN with a replay buffer and a target network on a small grid world; epsilon-greedy, one step of play, one of training."""
import random
from collections import deque, namedtuple

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

Transition = namedtuple('Transition', ('state', 'action', 'next_state', 'reward'))
random.seed(3)
np.random.seed(3)
torch.manual_seed(3)


class GridWorld:
    moves = [(0, 1), (0, -1), (1, 0), (-1, 0)]

    def __init__(self, size=4):
        self.size = size

    def reset(self):
        self.pos, self.t = [0, 0], 0
        return self.observe()

    def observe(self):
        grid = np.zeros((self.size, self.size), dtype=np.float32)
        grid[self.pos[0], self.pos[1]] = 1
        return grid.flatten()

    def step(self, action):
        for axis in range(2):
            self.pos[axis] = min(max(self.pos[axis] + self.moves[action][axis], 0), self.size - 1)
        self.t += 1
        won = self.pos == [self.size - 1, self.size - 1]
        return self.observe(), 1.0 if won else -0.02, won or self.t >= 40


class ReplayMemory(object):
    def __init__(self, capacity):
        self.memory = deque([], maxlen=capacity)

    def push(self, *args):
        self.memory.append(Transition(*args))

    def sample(self, batch_size):
        return random.sample(self.memory, batch_size)

    def __len__(self):
        return len(self.memory)


class DQN(nn.Module):
    def __init__(self, n_observations, n_actions):
        super(DQN, self).__init__()
        self.layer1 = nn.Linear(n_observations, 64)
        self.layer2 = nn.Linear(64, 64)
        self.layer3 = nn.Linear(64, n_actions)

    def forward(self, x):
        return self.layer3(F.relu(self.layer2(F.relu(self.layer1(x)))))


BATCH_SIZE, GAMMA, TAU = 32, 0.95, 0.05
env, memory, steps_done, durations = GridWorld(), ReplayMemory(2000), 0, []
policy_net, target_net = DQN(16, 4), DQN(16, 4)
target_net.load_state_dict(policy_net.state_dict())
optimizer = optim.AdamW(policy_net.parameters(), lr=2e-3, amsgrad=True)


def select_action(state):
    eps = max(0.05, 0.9 - steps_done / 600)
    if random.random() > eps:
        with torch.no_grad():
            return policy_net(state).max(1).indices.view(1, 1)
    return torch.tensor([[random.randrange(4)]], dtype=torch.long)


def optimize_model():
    if len(memory) < BATCH_SIZE:
        return
    batch = Transition(*zip(*memory.sample(BATCH_SIZE)))
    non_final_mask = torch.tensor(tuple(s is not None for s in batch.next_state), dtype=torch.bool)
    non_final_next_states = torch.cat([s for s in batch.next_state if s is not None])
    state_batch, action_batch, reward_batch = torch.cat(batch.state), torch.cat(batch.action), torch.cat(batch.reward)
    state_action_values = policy_net(state_batch).gather(1, action_batch)
    next_state_values = torch.zeros(BATCH_SIZE)
    with torch.no_grad():
        next_state_values[non_final_mask] = target_net(non_final_next_states).max(1).values
    expected = (next_state_values * GAMMA) + reward_batch
    loss = nn.SmoothL1Loss()(state_action_values, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(policy_net.parameters(), 100)
    optimizer.step()


for episode in range(1000):
    state = torch.tensor(env.reset(), dtype=torch.float32).unsqueeze(0)
    done = False
    while not done:
        action = select_action(state)
        steps_done += 1
        observation, reward, done = env.step(action.item())
        next_state = None if done else torch.tensor(observation).unsqueeze(0)
        memory.push(state, action, next_state, torch.tensor([reward]))
        state = next_state
        optimize_model()
        target_state, policy_state = target_net.state_dict(), policy_net.state_dict()
        for key in policy_state:
            target_state[key] = policy_state[key] * TAU + target_state[key] * (1 - TAU)
        target_net.load_state_dict(target_state)
        if steps_done >= 700:
            break
    durations.append(env.t)
    if steps_done >= 700:
        break
print('steps', steps_done, 'shorter at the end', sum(durations[-9:-1]) < sum(durations[:8]))
