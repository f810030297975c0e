"""A data set of one's own, read by worker processes, in batches and in a new order each epoch."""

import numpy as np

import graphtorch as torch
from graphtorch.utils.data import DataLoader, Dataset, random_split


class Waves(Dataset):
    """Noisy waves; the label is how often one oscillates. Samples are made when they are asked
    for."""

    def __init__(self, count, length=64):
        self.count, self.length = count, length

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        random = np.random.default_rng(i)
        label = i % 4
        x = np.sin(np.linspace(0, 2 * np.pi * (label + 1), self.length)) + random.normal(
            0, 0.3, self.length
        )
        return x.astype(np.float32), label


torch.manual_seed(0)
train, held_back = random_split(Waves(600), [0.8, 0.2])
loader = DataLoader(train, batch_size=32, shuffle=True, num_workers=2, persistent_workers=True)
model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

for epoch in range(4):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch}: loss {total / len(loader):.3f}")

right = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(held_back, batch_size=60))
print("right", right, "of", len(held_back), "from batches of", x.shape)
assert right > 0.9 * len(held_back)
