"""A convolutional network on real handwritten digits (8x8 pixels, shipped with scikit-learn)."""

import sys

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

try:
    from sklearn.datasets import load_digits
except ImportError:
    print("skipped: this example reads its data from scikit-learn (pip install scikit-learn)")
    sys.exit(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.head(x.flatten(1))


torch.manual_seed(0)
digits = load_digits()
images = torch.from_numpy((digits.images / 16).astype(np.float32)).unsqueeze(1)
labels = torch.from_numpy(digits.target.astype(np.int64))
order = torch.randperm(len(labels))
train, test = order[:1440], order[1440:]

model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(8):
    for batch in train[torch.randperm(len(train))].split(96):
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}  loss {loss.item():.4f}")

model.eval()
with torch.no_grad():
    accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
print(f"accuracy {accuracy:.3f} on {len(test)} held-out digits")
assert accuracy > 0.95
