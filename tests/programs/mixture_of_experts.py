"""Mixture of experts: a gate sends every row to two of eight experts, each takes its rows by index_select and gives them back by index_add."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


class Expert(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)))


class MoE(nn.Module):
    def __init__(self, dim, hidden, num_experts=8, top_k=2):
        super().__init__()
        self.gate = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(dim, hidden) for _ in range(num_experts))
        self.num_experts, self.top_k = num_experts, top_k

    def forward(self, x):
        shape = x.shape
        x = x.view(-1, shape[-1])
        probs = F.softmax(self.gate(x), dim=-1)
        weights, chosen = torch.topk(probs, self.top_k, dim=-1)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        out, load = torch.zeros_like(x), []
        for i, expert in enumerate(self.experts):
            rows, slot = torch.where(chosen == i)
            load.append(rows.numel())
            if rows.numel() == 0:
                continue
            part = expert(torch.index_select(x, 0, rows)) * weights[rows, slot].unsqueeze(-1)
            out = out.index_add(0, rows, part)
        fraction = torch.tensor(load, dtype=x.dtype) / sum(load)
        self.balance = self.num_experts * (fraction * probs.mean(0)).sum()
        self.load = load
        return out.view(shape)


class Model(nn.Module):
    def __init__(self, vocab=16, dim=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.mix = nn.GRU(dim, dim, batch_first=True)
        self.norm, self.moe, self.head = nn.LayerNorm(dim), MoE(dim, 64), nn.Linear(dim, vocab)

    def forward(self, ids):
        h, _ = self.mix(self.embed(ids))
        h = h + self.moe(self.norm(h))
        return self.head(h)


def batch(n=16, length=10):
    """Each sequence goes on by a rule that its first token chooses."""
    rows = [torch.randint(0, 16, (n,)), torch.randint(0, 16, (n,))]
    for _ in range(length - 1):
        rows.append(torch.where(rows[0] % 2 == 0, rows[-1] + rows[0] + 1, rows[-1] * 3 + 1) % 16)
    return torch.stack(rows, dim=1)


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
losses, used = [], set()
for step in range(60):
    ids = batch()
    logits = model(ids[:, :-1])
    loss = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:])
    total = loss + 0.01 * model.moe.balance
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    losses.append(loss.item())
    used.update(i for i, n in enumerate(model.moe.load) if n)
    if step % 20 == 0:
        print('step', step, 'rows', sum(model.moe.load), 'balance at least one half', model.moe.balance.item() > 0.5)
print('experts used', len(used) > 4, 'loss falls', losses[-1] < losses[0] - 0.3)
