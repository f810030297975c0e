"""A character model with an LSTM: python char_rnn.py [--init w.pt] [--save w.pt] [--steps 30]"""
import argparse

import torch
import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("--init")
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--save")
args = parser.parse_args()

text = "the quick brown fox jumps over the lazy dog and runs away from the lazy cat. " * 4
chars = sorted(set(text))
index_of = {c: i for i, c in enumerate(chars)}
data = torch.tensor([index_of[c] for c in text], dtype=torch.long)


class CharRNN(nn.Module):
    def __init__(self, vocabulary, hidden=32, layers=2):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 16)
        self.rnn = nn.LSTM(16, hidden, num_layers=layers, batch_first=True)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(self, x, state=None):
        y, state = self.rnn(self.embed(x), state)
        return self.out(y), state


model = CharRNN(len(chars))
if args.init is not None:
    model.load_state_dict(torch.load(args.init))
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.005)
criterion = nn.CrossEntropyLoss()
batch, length = 4, 16
rows = data[: batch * (len(data) // batch)].view(batch, -1)

state = None
for step in range(args.steps):
    start = (step * length) % (rows.shape[1] - length - 1)
    x, y = rows[:, start:start + length], rows[:, start + 1:start + length + 1]
    output, state = model(x, state)
    state = tuple(s.detach() for s in state)
    loss = criterion(output.reshape(-1, len(chars)), y.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.5)
    optimizer.step()
    if (step + 1) % 5 == 0:
        print("step {} loss {:.6f}".format(step + 1, loss.item()))

model.eval()
with torch.no_grad():
    x, state, said = torch.tensor([[index_of["t"]]]), None, "t"
    for _ in range(10):
        output, state = model(x, state)
        x = output[:, -1].argmax(dim=-1, keepdim=True)
        said += chars[x.item()]
print(len(said))
if args.save:
    torch.save(model.state_dict(), args.save)
