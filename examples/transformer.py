"""A small Transformer that learns to sort digits, written token by token with a causal decoder."""

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

DIGITS, LENGTH, START = 10, 6, 10
torch.manual_seed(0)


class Sorter(nn.Module):
    def __init__(self, size=32):
        super().__init__()
        self.tokens = nn.Embedding(DIGITS + 1, size)
        self.places = nn.Parameter(torch.randn(LENGTH, size) * 0.1)
        self.transformer = nn.Transformer(size, 4, 1, 1, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(size, DIGITS)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, source, target):
        length = target.shape[1]
        source, target = (self.tokens(t) + self.places[: t.shape[1]] for t in (source, target))
        return self.head(self.transformer(source, target, tgt_mask=self.mask[:length, :length]))


model = Sorter()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)


@torch.compile
def step(source, target):
    optimizer.zero_grad()
    logits = model(source, F.pad(target[:, :-1], (1, 0), value=START))
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    loss.backward()
    optimizer.step()
    return loss


for i in range(201):
    source = torch.randint(0, DIGITS, (64, LENGTH))
    loss = step(source, source.sort(1).values)
    if i % 50 == 0:
        print(f"step {i:3d}  loss {loss.item():.4f}")

model.eval()
source = torch.randint(0, DIGITS, (200, LENGTH))
written = torch.full((200, 1), START)
with torch.no_grad():
    for _ in range(LENGTH):
        following = model(source, written)[:, -1].argmax(-1, keepdim=True)
        written = torch.cat([written, following], 1)
print("input  ", source[0].tolist(), "\nwritten", written[0, 1:].tolist())
correct = (written[:, 1:] == source.sort(1).values).all(1).float().mean().item()
print(f"sorted without a mistake: {correct:.1%}")
assert correct > 0.8
