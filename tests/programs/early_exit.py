"""A net with early exits: confident samples leave, so every block sees another number of rows."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(7)
data = load_digits()
dataset = TensorDataset(torch.tensor(data.data / 16.0, dtype=torch.float32), torch.tensor(data.target))
train_set, test_set = random_split(dataset, [1400, len(dataset) - 1400])


class EarlyExitNet(nn.Module):
    def __init__(self, width=96, blocks=4, classes=10):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList()
        self.exits = nn.ModuleList()
        for _ in range(blocks):
            self.blocks.append(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(0.1)))
            self.exits.append(nn.Linear(width, classes))

    def forward(self, x):
        h, outputs = self.stem(x), []
        for block, leave in zip(self.blocks, self.exits):
            h = h + block(h)
            outputs.append(leave(h))
        return outputs

    @torch.no_grad()
    def predict(self, x, threshold):
        h = self.stem(x)
        prediction = torch.full((x.size(0),), -1, dtype=torch.long)
        alive, used = torch.arange(x.size(0)), []
        for i, (block, leave) in enumerate(zip(self.blocks, self.exits)):
            used.append(len(alive))
            h = h + block(h)
            confidence, label = F.softmax(leave(h), dim=1).max(dim=1)
            done = confidence > threshold if i + 1 < len(self.blocks) else torch.ones_like(confidence, dtype=torch.bool)
            prediction[alive[done]] = label[done]
            h, alive = h[~done], alive[~done]
            if alive.numel() == 0:
                break
        return prediction, used


model = EarlyExitNet()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(6):
    model.train()
    for x, y in DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True):
        outputs = model(x)
        loss = sum((i + 1) * F.cross_entropy(out, y) for i, out in enumerate(outputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()
for threshold in (0.5, 0.8, 0.95, 0.99):
    right, rows, total = 0, 0, 0
    for x, y in DataLoader(test_set, batch_size=50):
        prediction, used = model.predict(x, threshold)
        right += (prediction == y).sum().item()
        rows += sum(used)
        total += len(y)
    print('threshold', threshold, 'accurate', right / total > 0.8, 'saves work', rows < 4 * total)
