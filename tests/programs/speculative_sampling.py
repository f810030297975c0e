"""Speculative decoding with nucleus sampling: a small model drafts, a larger one accepts a prefix whose length is chance."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
VOCAB = 64


class TinyLM(nn.Module):
    def __init__(self, dim, layers, heads=2, max_len=96):
        super().__init__()
        self.tok, self.pos = nn.Embedding(VOCAB, dim), nn.Embedding(max_len, dim)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(dim, VOCAB)

    def forward(self, ids):
        t = ids.size(1)
        mask = torch.triu(torch.full((t, t), float('-inf')), diagonal=1)
        x = self.tok(ids) + self.pos(torch.arange(t))
        return self.head(self.blocks(x, mask=mask))


def nucleus(logits, p=0.9, temperature=0.7):
    probs = F.softmax(logits / temperature, dim=-1)
    ordered, indices = torch.sort(probs, descending=True, dim=-1)
    remove = ordered.cumsum(-1) - ordered > p
    ordered[remove] = 0.0
    kept = torch.zeros_like(probs).scatter_(-1, indices, ordered)
    return kept / kept.sum(-1, keepdim=True)


def train(model, steps):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        start = torch.randint(0, VOCAB, (32, 1))
        ids = (start + torch.arange(13) * (1 + start % 3)) % VOCAB
        loss = F.cross_entropy(model(ids[:, :-1]).reshape(-1, VOCAB), ids[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@torch.no_grad()
def generate(target, draft, ids, length, gamma):
    accepted_total = drafted_total = 0
    while ids.size(1) < length:
        prefix, drafts, q = ids.size(1), ids, []
        for _ in range(min(gamma, length - prefix)):
            q.append(nucleus(draft(drafts)[0, -1]))
            drafts = torch.cat([drafts, torch.multinomial(q[-1], 1)[None]], dim=1)
        p = nucleus(target(drafts)[0, prefix - 1:])
        accepted = 0
        for i, q_i in enumerate(q):
            token = drafts[0, prefix + i]
            if torch.rand(()) < (p[i, token] / q_i[token]).clamp(max=1):
                accepted += 1
            else:
                residual = (p[i] - q_i).clamp(min=0)
                drafts = torch.cat([drafts[:, :prefix + i], torch.multinomial(residual / residual.sum(), 1)[None]], dim=1)
                break
        else:
            drafts = torch.cat([drafts, torch.multinomial(p[len(q)], 1)[None]], dim=1)
        accepted_total, drafted_total, ids = accepted_total + accepted, drafted_total + len(q), drafts
    return ids[:, :length], accepted_total / drafted_total


target, draft = TinyLM(64, 2), TinyLM(32, 1)
print('target trained', train(target, 60) < 4.5, 'draft trained', train(draft, 60) < 4.5)
target.eval(), draft.eval()
for gamma in (2, 3, 5):
    out, rate = generate(target, draft, torch.zeros(1, 1, dtype=torch.long), 48, gamma)
    print('gamma', gamma, 'length', out.size(1), 'rate is a rate', 0 <= rate <= 1, 'in range', bool((out < VOCAB).all()))
