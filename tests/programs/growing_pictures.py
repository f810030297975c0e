"""A curriculum on pictures that grow: the same convolutional net on digits resized to 8, 12, 16, 20 and 24 pixels."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)
train_x, train_y, test_x, test_y = images[:1200], labels[:1200], images[1200:], labels[1200:]


class ConvBlock(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block1 = ConvBlock(1, 16)
        self.block2 = ConvBlock(16, 32)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x):
        x = self.pool(self.block1(x))
        x = self.block2(x)
        x = F.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.head(x)


def resized(x, size):
    return F.interpolate(x, size=(size, size), mode='bilinear', align_corners=False)


model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=5 * 10)
losses = []
for size, batch_size in [(8, 120), (12, 120), (16, 120), (20, 120), (24, 120)]:
    model.train()
    order = torch.randperm(len(train_x))
    for i in range(0, len(order), batch_size):
        idx = order[i:i + batch_size]
        x = resized(train_x[idx], size)
        if torch.rand(1).item() < 0.5:
            x = x + 0.05 * torch.randn_like(x)
        loss = F.cross_entropy(model(x), train_y[idx])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        accuracy = (model(resized(test_x, size)).argmax(1) == test_y).float().mean().item()
    print('size', size, 'finite', losses[-1] == losses[-1])
print('final accuracy above 0.3', accuracy > 0.3, 'loss falls', sum(losses[-10:]) < 0.7 * sum(losses[:10]))
