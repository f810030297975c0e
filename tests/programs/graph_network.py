"""Message passing over random graphs of different sizes, batched as one big graph: index_add_ and scatter for the sums."""
import random

import torch
from torch import nn


def random_graph():
    n = random.randint(5, 20)
    edges = set()
    for _ in range(random.randint(n, 3 * n)):
        a, b = random.randrange(n), random.randrange(n)
        if a != b:
            edges.update({(a, b), (b, a)})
    edges = sorted(edges) or [(0, 1), (1, 0)]
    label = int(len(edges) > 2.6 * n)
    return n, torch.tensor(edges).t(), label


def collate(graphs):
    sources, targets, batch, offset = [], [], [], 0
    for i, (n, edges, _) in enumerate(graphs):
        sources.append(edges[0] + offset)
        targets.append(edges[1] + offset)
        batch.append(torch.full((n,), i, dtype=torch.long))
        offset += n
    labels = torch.tensor([g[2] for g in graphs])
    return torch.cat(sources), torch.cat(targets), torch.cat(batch), labels


def scatter_mean(src, index, size):
    out = torch.zeros(size, src.size(1)).index_add_(0, index, src)
    count = torch.zeros(size).scatter_add_(0, index, torch.ones_like(index, dtype=src.dtype))
    return out / count.clamp(min=1).unsqueeze(1)


class GraphConv(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.message = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU())
        self.update = nn.GRUCell(width, width)

    def forward(self, x, src, dst):
        m = self.message(torch.cat([x[src], x[dst]], dim=1))
        return self.update(torch.zeros_like(x).index_add(0, dst, m), x)


class GraphNet(nn.Module):
    def __init__(self, width=32, layers=3):
        super().__init__()
        self.embed = nn.Linear(1, width)
        self.layers = nn.ModuleList([GraphConv(width) for _ in range(layers)])
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, src, dst, batch, graphs):
        degree = torch.bincount(dst, minlength=len(batch)).float().unsqueeze(1)
        x = self.embed(degree / 5)
        for layer in self.layers:
            x = layer(x, src, dst)
        return self.head(scatter_mean(x, batch, graphs))


random.seed(0)
torch.manual_seed(0)
train, test = [random_graph() for _ in range(320)], [random_graph() for _ in range(100)]
model = GraphNet()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(5):
    random.shuffle(train)
    for i in range(0, len(train), 16):
        src, dst, batch, labels = collate(train[i:i + 16])
        loss = nn.functional.cross_entropy(model(src, dst, batch, len(labels)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()
correct = 0
with torch.no_grad():
    for i in range(0, len(test), 10):
        src, dst, batch, labels = collate(test[i:i + 10])
        correct += (model(src, dst, batch, len(labels)).argmax(dim=1) == labels).sum().item()
print('graphs', len(train) + len(test), 'nodes of the last batch', len(batch), 'accuracy above 0.7', correct / len(test) > 0.7)
