"""Iterative magnitude pruning with rewinding (lottery tickets), then structured pruning that really makes the layers smaller."""
import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.nn.utils.prune as prune
from sklearn.datasets import load_digits

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data, dtype=torch.float32) / 16
y = torch.tensor(digits.target, dtype=torch.long)
train_x, train_y, test_x, test_y = x[:1300], y[:1300], x[1300:], y[1300:]


class LeNet300(nn.Module):
    def __init__(self, a=100, b=50):
        super(LeNet300, self).__init__()
        self.fc1 = nn.Linear(64, a)
        self.fc2 = nn.Linear(a, b)
        self.fc3 = nn.Linear(b, 10)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def fit(net, steps):
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(train_x), (128,))
        loss = F.cross_entropy(net(train_x[rows]), train_y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test(net):
    with torch.no_grad():
        return (net(test_x).argmax(dim=1) == test_y).double().mean().item()


net = LeNet300()
initial = copy.deepcopy(net.state_dict())
layers = [net.fc1, net.fc2, net.fc3]
fit(net, 60)
print('dense', test(net) > 0.7)
for round in range(4):
    prune.global_unstructured([(m, 'weight') for m in layers], pruning_method=prune.L1Unstructured, amount=0.3)
    with torch.no_grad():
        for name, module in net.named_children():
            module.weight_orig.copy_(initial[name + '.weight'])
            module.bias.copy_(initial[name + '.bias'])
    fit(net, 60)
    zeros = sum(int((m.weight == 0).sum()) for m in layers)
    total = sum(m.weight.nelement() for m in layers)
    print('round', round, 'sparsity', int(100 * zeros / total + 0.5), 'accurate', test(net) > 0.6)
for m in layers:
    prune.remove(m, 'weight')
print('permanent', sorted(net.state_dict()) == sorted(initial))

while net.fc1.out_features > 25:
    keep1 = net.fc1.weight.abs().sum(1).topk(int(net.fc1.out_features * 0.7)).indices.sort().values
    keep2 = net.fc2.weight.abs().sum(1).topk(int(net.fc2.out_features * 0.8)).indices.sort().values
    small = LeNet300(len(keep1), len(keep2))
    small.fc1.weight.data = net.fc1.weight.data[keep1].clone()
    small.fc1.bias.data = net.fc1.bias.data[keep1].clone()
    small.fc2.weight.data = net.fc2.weight.data[keep2][:, keep1].clone()
    small.fc2.bias.data = net.fc2.bias.data[keep2].clone()
    small.fc3.weight.data = net.fc3.weight.data[:, keep2].clone()
    small.fc3.bias.data = net.fc3.bias.data.clone()
    net = small
    fit(net, 25)
    print('width', net.fc1.out_features, net.fc2.out_features, 'accurate', test(net) > 0.6)
