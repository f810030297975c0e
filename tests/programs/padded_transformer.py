"""A transformer encoder on sentences of different lengths: collate_fn pads, a key padding mask hides, the mean leaves pads out."""
import math
import random

import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

PAD = 0


class Brackets(Dataset):
    """Sequences of opening and closing brackets; is there more of the first kind?"""

    def __init__(self, size):
        self.data = []
        for _ in range(size):
            length = random.randint(4, 30)
            tokens = [random.randint(1, 4) for _ in range(length)]
            self.data.append((torch.tensor(tokens), int(tokens.count(1) > length / 4)))

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i]


def collate_fn(batch):
    texts, labels = zip(*batch)
    padded = pad_sequence(texts, batch_first=True, padding_value=PAD)
    return padded, padded == PAD, torch.tensor(labels, dtype=torch.float32)


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout=0.1, max_len=64):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(1, max_len, d_model)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.register_buffer('pe', pe)

    def forward(self, x):
        return self.dropout(x + self.pe[:, :x.size(1)])


class Classifier(nn.Module):
    def __init__(self, vocab=5, d_model=32):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model, padding_idx=PAD)
        self.pos = PositionalEncoding(d_model)
        layer = nn.TransformerEncoderLayer(d_model, nhead=4, dim_feedforward=64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.fc = nn.Linear(d_model, 1)

    def forward(self, x, mask):
        h = self.pos(self.embedding(x) * math.sqrt(32))
        h = self.encoder(h, src_key_padding_mask=mask)
        keep = (~mask).unsqueeze(-1).float()
        return self.fc((h * keep).sum(1) / keep.sum(1)).squeeze(-1)


random.seed(0)
torch.manual_seed(0)
train_loader = DataLoader(Brackets(480), batch_size=24, shuffle=True, collate_fn=collate_fn)
test_loader = DataLoader(Brackets(120), batch_size=30, collate_fn=collate_fn)
model, criterion = Classifier(), nn.BCEWithLogitsLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
for epoch in range(3):
    model.train()
    total = 0.0
    for x, mask, y in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(x, mask), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        total += loss.item() * len(y)
    print('epoch', epoch, 'mean loss below 1:', total / 480 < 1)
model.eval()
correct = 0
with torch.no_grad():
    for x, mask, y in test_loader:
        correct += ((model(x, mask) > 0).float() == y).sum().item()
print('accuracy above 0.6:', correct / 120 > 0.6)
