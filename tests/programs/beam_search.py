"""Beam search over a small GRU language model: the set of live beams and their length change at every step."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
corpus = "the cat sat on the mat . the dog sat on the log . a cat and a dog ran . the bird flew over the log .".split()
vocab = ['<s>', '</s>'] + sorted(set(corpus))
stoi = {w: i for i, w in enumerate(vocab)}
sentences, current = [], []
for word in corpus:
    if word == '.':
        sentences.append([0] + current + [1])
        current = []
    else:
        current.append(stoi[word])


class LM(nn.Module):
    def __init__(self, n, dim=64):
        super().__init__()
        self.emb = nn.Embedding(n, dim)
        self.rnn = nn.GRU(dim, dim, batch_first=True)
        self.fc = nn.Linear(dim, n)

    def forward(self, tokens, hidden=None):
        out, hidden = self.rnn(self.emb(tokens), hidden)
        return self.fc(out), hidden


def beam_search(model, beam_width, max_len, alpha=0.7):
    tokens = torch.tensor([[0]])
    scores = torch.zeros(1)
    hidden, finished = None, []
    for step in range(max_len):
        logits, hidden = model(tokens[:, -1:], hidden)
        logp = F.log_softmax(logits[:, -1], dim=-1)
        total = (scores.unsqueeze(1) + logp).view(-1)
        top, where = total.topk(min(2 * beam_width, total.numel()))
        rows, words = where // len(vocab), where % len(vocab)
        keep = []
        for k, (score, word) in enumerate(zip(top.tolist(), words.tolist())):
            if word == 1:
                finished.append((score / (step + 1) ** alpha, tokens[rows[k]].tolist() + [1]))
            elif len(keep) < beam_width:
                keep.append(k)
        if not keep or len(finished) >= 3 * beam_width:
            break
        keep = torch.tensor(keep)
        rows, words, scores = rows[keep], words[keep], top[keep]
        tokens = torch.cat([tokens[rows], words.unsqueeze(1)], dim=1)
        hidden = hidden[:, rows].contiguous()
    return sorted(finished, reverse=True)


model = LM(len(vocab))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for epoch in range(40):
    for s in sentences:
        x = torch.tensor(s).unsqueeze(0)
        logits, _ = model(x[:, :-1])
        loss = F.cross_entropy(logits.squeeze(0), x[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print('fitted', loss.item() < 0.7)
model.eval()
with torch.no_grad():
    for width in (1, 3, 5, 8, 12):
        found = beam_search(model, width, 20)
        print('beam', width, 'found', len(found) > 0, 'ends', all(s[-1] == 1 for _, s in found))
    wide = beam_search(model, 12, 20)
print('all sentences are beams', sum(s in [t for _, t in wide] for s in sentences) >= 2)
