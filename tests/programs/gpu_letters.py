"""A small transformer that learns to repeat letters, on a GPU where there is one.

python gpu_letters.py [--init w.pt] [--save w.pt] [--steps 10]
"""
import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--init", default="")
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--save", default="")
args = parser.parse_args()

device = "cuda:0" if torch.cuda.is_available() else "cpu"
LETTERS, LENGTH, WIDTH, HEADS = 12, 8, 16, 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(WIDTH, dim=2)
        q, k, v = (z.view(b, t, HEADS, c // HEADS).transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(LETTERS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.block = Block()
        self.head = nn.Linear(WIDTH, LETTERS)

    def forward(self, idx):
        where = torch.arange(idx.shape[1], device=idx.device)
        return self.head(self.block(self.tokens(idx) + self.places(where)))


torch.manual_seed(0)
model = Model()
if args.init:
    model.load_state_dict(torch.load(args.init, map_location=device))
model.to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
g = torch.Generator().manual_seed(3)
for step in range(args.steps):
    half = torch.randint(0, LETTERS, (6, LENGTH // 2), generator=g)
    x = torch.cat([half, half], 1).to(device)
    logits = model(x[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, LETTERS), x[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    print(f"step {step} loss {loss.item():.4f} norm {norm.item():.4f}")

model.eval()
with torch.no_grad():
    line = torch.tensor([[1, 5, 2, 7]], device=device)
    for _ in range(3):
        line = torch.cat([line, model(line[:, -4:])[:, -1].argmax(-1, keepdim=True)], 1)
print("drawn", line.cpu().tolist())
if args.save:
    torch.save({k: v.cpu() for k, v in model.state_dict().items()}, args.save)
