"""Classify 8 x 8 images of bars: python cnn.py [--init w.pt] [--save w.pt] [--epochs 3]"""
import argparse

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset


class Bars(Dataset):
    """Noisy images with a bright row (class 0-3) or column (class 4-7)."""

    def __init__(self, count, seed):
        rng = np.random.default_rng(seed)
        self.labels = rng.integers(0, 8, count)
        self.images = rng.normal(0, 0.5, (count, 1, 8, 8)).astype(np.float32)
        for image, label in zip(self.images, self.labels):
            place = 2 * (label % 4)
            if label < 4:
                image[0, place:place + 2] += 1
            else:
                image[0, :, place:place + 2] += 1

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16 * 2 * 2, 8)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = x.view(x.size(0), -1)
        return self.fc(x)


def test(model, loader):
    model.eval()
    correct, total = 0, 0
    with torch.no_grad():
        for images, labels in loader:
            _, predicted = torch.max(model(images).data, 1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return correct / total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--init", default=None)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save", default=None)
    args = parser.parse_args()
    model = Net()
    if args.init:
        model.load_state_dict(torch.load(args.init, map_location="cpu"))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    train_loader = DataLoader(Bars(256, 0), batch_size=64, shuffle=False)
    test_loader = DataLoader(Bars(100, 1), batch_size=50)
    for epoch in range(args.epochs):
        model.train()
        running = 0.0
        for i, (images, labels) in enumerate(train_loader):
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
        print("epoch %d loss %.6f accuracy %.3f" % (epoch + 1, running / (i + 1), test(model, test_loader)))
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
