"""An LSTM autoencoder on sine waves of different lengths: each series is one training step, as long as it is."""
import math
import random

import torch
import torch.nn as nn
from torch.utils.data import Dataset, DataLoader


class Waves(Dataset):
    def __init__(self, n, broken=False):
        self.items = []
        for _ in range(n):
            length = random.randint(12, 36)
            phase, speed = random.random() * 6.28, 0.2 + 0.3 * random.random()
            wave = torch.tensor([math.sin(phase + speed * t) for t in range(length)])
            if broken:
                wave[length // 2:] = torch.randn(length - length // 2)
            self.items.append(wave.unsqueeze(1))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, idx):
        return self.items[idx]


class Encoder(nn.Module):
    def __init__(self, n_features, embedding_dim):
        super().__init__()
        self.rnn1 = nn.LSTM(n_features, 2 * embedding_dim, batch_first=True)
        self.rnn2 = nn.LSTM(2 * embedding_dim, embedding_dim, batch_first=True)

    def forward(self, x):
        x, _ = self.rnn1(x)
        _, (hidden, _) = self.rnn2(x)
        return hidden[-1]


class Decoder(nn.Module):
    def __init__(self, embedding_dim, n_features):
        super().__init__()
        self.rnn1 = nn.LSTM(embedding_dim, 2 * embedding_dim, batch_first=True)
        self.output_layer = nn.Linear(2 * embedding_dim, n_features)

    def forward(self, x, seq_len):
        x = x.unsqueeze(1).repeat(1, seq_len, 1)
        x, _ = self.rnn1(x)
        return self.output_layer(x)


class Autoencoder(nn.Module):
    def __init__(self, embedding_dim=16):
        super().__init__()
        self.encoder, self.decoder = Encoder(1, embedding_dim), Decoder(embedding_dim, 1)

    def forward(self, x):
        return self.decoder(self.encoder(x), x.shape[1])


random.seed(1)
torch.manual_seed(1)
train, valid, odd = Waves(48), Waves(16), Waves(16, broken=True)
model = Autoencoder()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
criterion = nn.MSELoss()
history = []
for epoch in range(6):
    model.train()
    losses = []
    for seq in DataLoader(train, batch_size=1, shuffle=True):
        optimizer.zero_grad()
        loss = criterion(model(seq), seq)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    history.append(sum(losses) / len(losses))
model.eval()
with torch.no_grad():
    normal = [criterion(model(s.unsqueeze(0)), s.unsqueeze(0)).item() for s in valid]
    anomalous = [criterion(model(s.unsqueeze(0)), s.unsqueeze(0)).item() for s in odd]
print('epochs', len(history), 'loss falls', history[-1] < history[0])
print('mean anomaly score is higher', sum(anomalous) / 16 > sum(normal) / 16)
