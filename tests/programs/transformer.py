"""A tiny causal transformer that learns to copy: python transformer.py [--init w.pt] [--save w.pt]"""
import argparse
import math

import numpy as np
import torch
import torch.nn as nn


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, max_len=64):
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, d_model)
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x):
        return x + self.pe[:, : x.size(1)]


class TinyTransformer(nn.Module):
    def __init__(self, vocabulary=12, d_model=32):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.position = PositionalEncoding(d_model)
        layer = nn.TransformerEncoderLayer(d_model, nhead=4, dim_feedforward=64, dropout=0.0,
                                           batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(d_model, vocabulary)
        self.d_model = d_model

    def forward(self, tokens, mask):
        x = self.position(self.embedding(tokens) * math.sqrt(self.d_model))
        return self.head(self.encoder(x, mask=mask))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--init")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--save")
    args = parser.parse_args()
    model = TinyTransformer()
    if args.init:
        model.load_state_dict(torch.load(args.init))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    mask = nn.Transformer.generate_square_subsequent_mask(11)
    rng = np.random.default_rng(0)
    for step in range(args.steps):
        half = torch.as_tensor(rng.integers(0, 12, (16, 6)))
        sequence = torch.cat([half, half], dim=1)
        logits = model(sequence[:, :-1], mask)
        loss = loss_fn(logits.transpose(1, 2), sequence[:, 1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        warmup.step()
        if step % 4 == 0:
            print(f"{step:3d} {loss.item():.6f}")
    if args.save:
        torch.save(model.state_dict(), args.save)
