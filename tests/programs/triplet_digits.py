"""A Siamese embedding of digits by triplets that a random sampler draws; the hard ones of each batch are kept by a mask."""
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, DataLoader


class TripletDigits(Dataset):
    def __init__(self, images, targets):
        self.images, self.targets = images, targets
        self.label_to_indices = {label: np.where(targets == label)[0] for label in set(targets)}

    def __getitem__(self, index):
        label = self.targets[index]
        positive_index = index
        while positive_index == index:
            positive_index = np.random.choice(self.label_to_indices[label])
        negative_label = np.random.choice(list(set(self.targets) - {label}))
        negative_index = np.random.choice(self.label_to_indices[negative_label])
        return tuple(torch.from_numpy(self.images[i]).unsqueeze(0) for i in (index, positive_index, negative_index))

    def __len__(self):
        return len(self.images)


class EmbeddingNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.convnet = nn.Sequential(nn.Conv2d(1, 16, 3), nn.PReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 2), nn.PReLU())
        self.fc = nn.Sequential(nn.Linear(128, 64), nn.PReLU(), nn.Linear(64, 8))

    def forward(self, x):
        output = self.convnet(x)
        output = output.view(output.size(0), -1)
        return F.normalize(self.fc(output), dim=1)


random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
digits = load_digits()
images = (digits.images / 16.0).astype(np.float32)
train = TripletDigits(images[:600], digits.target[:600])
loader = DataLoader(train, batch_size=40, shuffle=True)
net, margin = EmbeddingNet(), 0.5
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
active = []
for epoch in range(4):
    for anchor, positive, negative in loader:
        a, p, n = net(anchor), net(positive), net(negative)
        distance_positive = (a - p).pow(2).sum(1)
        distance_negative = (a - n).pow(2).sum(1)
        losses = F.relu(distance_positive - distance_negative + margin)
        hard = losses[losses > 0]
        active.append(len(hard))
        if len(hard) == 0:
            continue
        loss = hard.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print('epoch', epoch, 'some are hard', sum(active[-15:]) > 0)
net.eval()
with torch.no_grad():
    known = net(torch.from_numpy(images[:600]).unsqueeze(1))
    query = net(torch.from_numpy(images[600:1000]).unsqueeze(1))
    nearest = torch.cdist(query, known).topk(5, largest=False).indices
    votes = torch.from_numpy(digits.target)[:600][nearest].mode(dim=1).values
accuracy = (votes.numpy() == digits.target[600:1000]).mean()
print('fewer hard triplets', sum(active[-15:]) < sum(active[:15]), '5-nn accuracy above 0.6', bool(accuracy > 0.6))
