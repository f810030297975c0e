"""Sparse gradients: of a large table only the rows that a batch looks up are touched."""

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
words, size = 10_000, 16
table = nn.Embedding(words, size, sparse=True)
head = nn.Linear(size, 2)
sparse_optimizer = torch.optim.SparseAdam(table.parameters(), lr=0.05)
dense_optimizer = torch.optim.Adam(head.parameters(), lr=0.05)

sentences = torch.randint(0, 50, (32, 6))  # 50 of the 10,000 words occur
labels = (sentences.sum(1) % 2).long()
before = table.weight.detach().clone()
losses = []
for _ in range(30):
    loss = nn.functional.cross_entropy(head(table(sentences).mean(1)), labels)
    sparse_optimizer.zero_grad()
    dense_optimizer.zero_grad()
    loss.backward()
    sparse_optimizer.step()
    dense_optimizer.step()
    losses.append(loss.item())

gradient = table.weight.grad
merged = gradient.coalesce()
print("layout", gradient.layout, "entries", gradient._nnz(), "rows", merged._nnz())
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
changed = (table.weight.detach() != before).any(1)
print("rows changed", int(changed.sum()))

assert gradient.is_sparse and merged.is_coalesced()
assert losses[-1] < losses[0] / 2
assert not changed[50:].any() and int(changed.sum()) == merged._nnz()
