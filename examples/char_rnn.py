"""A GRU learns a text letter by letter, in one compiled loop, and then writes on from its first
words."""

import graphtorch as torch
from graphtorch import nn

TEXT = "the quick brown fox jumps over the lazy dog. the five boxing wizards jump quickly. " * 6
LETTERS = sorted(set(TEXT))


class CharRNN(nn.Module):
    def __init__(self, hidden=96):
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS), 16)
        self.gru = nn.GRU(16, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(LETTERS))

    def forward(self, letters, state=None):
        output, state = self.gru(self.embed(letters), state)
        return self.head(output), state


torch.manual_seed(0)
model = CharRNN()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
codes = torch.tensor([LETTERS.index(c) for c in TEXT])


@torch.compile
def step(x, y):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x)[0].flatten(0, 1), y.flatten())
    loss.backward()
    optimizer.step()
    return loss


for i in range(201):
    starts = torch.randint(0, len(TEXT) - 41, (16,)).tolist()
    pieces = torch.stack([codes[s : s + 41] for s in starts])
    loss = step(pieces[:, :-1], pieces[:, 1:])
    if i % 50 == 0:
        print(f"step {i:3d}  loss {loss.item():.3f}")


@torch.no_grad()
def write(start, count):
    """`start`, continued by the most likely letter `count` times."""
    letters, state = [LETTERS.index(c) for c in start], None
    given = torch.tensor([letters])
    for _ in range(count):
        scores, state = model(given, state)
        letters.append(int(scores[0, -1].argmax()))
        given = torch.tensor([[letters[-1]]])
    return "".join(LETTERS[i] for i in letters)


written = write("the quick ", 60)
print(written)
assert loss.item() < 0.5 and "brown fox jumps over" in written
