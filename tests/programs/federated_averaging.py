"""Federated averaging: clients with tables of different sizes train copies, the server averages their state dicts."""
import copy
import random

import numpy as np
import torch
from torch import nn
from sklearn.datasets import load_breast_cancer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(30, 32)
        self.bn = nn.BatchNorm1d(32)
        self.fc2 = nn.Linear(32, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.bn(self.fc1(x))))


class Client(object):
    def __init__(self, x, y, batch_size=24):
        self.x, self.y, self.batch_size = x, y, batch_size

    def train(self, net, epochs):
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.5)
        epoch_loss = []
        for _ in range(epochs):
            batch_loss = []
            for rows in torch.randperm(len(self.x)).split(self.batch_size):
                if len(rows) < 2:
                    continue
                net.zero_grad()
                loss = nn.functional.cross_entropy(net(self.x[rows]), self.y[rows])
                loss.backward()
                optimizer.step()
                batch_loss.append(loss.item())
            epoch_loss.append(sum(batch_loss) / len(batch_loss))
        return net.state_dict(), sum(epoch_loss) / len(epoch_loss)


def FedAvg(w, sizes):
    w_avg = copy.deepcopy(w[0])
    total = sum(sizes)
    for k in w_avg.keys():
        if w_avg[k].dtype == torch.long:
            continue
        w_avg[k] = w_avg[k] * (sizes[0] / total)
        for i in range(1, len(w)):
            w_avg[k] += w[i][k] * (sizes[i] / total)
    return w_avg


random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
data = load_breast_cancer()
x, y = torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)
x = (x - x.mean(0)) / x.std(0)
order = torch.from_numpy(np.random.permutation(len(x)))
x, y = x[order], y[order]
test_x, test_y, x, y = x[:120], y[:120], x[120:], y[120:]
sizes = [37, 52, 64, 75, 93, 128]
clients, start = [], 0
for n in sizes:
    clients.append(Client(x[start:start + n], y[start:start + n]))
    start += n
global_net, losses = Net(), []
for round in range(6):
    chosen = random.sample(range(len(clients)), 4)
    weights, local = [], []
    for i in chosen:
        w, loss = clients[i].train(net=copy.deepcopy(global_net), epochs=random.randint(1, 2))
        weights.append(copy.deepcopy(w))
        local.append(loss)
    global_net.load_state_dict(FedAvg(weights, [sizes[i] for i in chosen]))
    losses.append(sum(local) / len(local))
    drift = max((w['fc1.weight'] - global_net.fc1.weight).norm().item() for w in weights)
    print('round', round, 'clients', chosen, 'drift', drift > 0)
global_net.eval()
with torch.no_grad():
    accuracy = (global_net(test_x).argmax(1) == test_y).float().mean().item()
print('loss falls', losses[-1] < losses[0], 'accuracy above 0.85:', accuracy > 0.85)
