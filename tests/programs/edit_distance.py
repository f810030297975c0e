"""Dynamic programming on tensors, one element at a time: a multiplication table, edit distances, a knapsack, longest common parts."""
import random
import torch

random.seed(0)


def multiplication_table(n):
    c = torch.zeros(n, n, dtype=torch.int64)
    for i in range(n):
        for j in range(n):
            c[i, j] = i * j
    return c


def edit_distance(a, b):
    d = torch.zeros(len(a) + 1, len(b) + 1, dtype=torch.long)
    d[:, 0] = torch.arange(len(a) + 1)
    d[0, :] = torch.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost = 0 if a[i - 1] == b[j - 1] else 1
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + cost)
    return d[len(a), len(b)].item()


def longest_common(a, b):
    x, y = torch.tensor([ord(c) for c in a]), torch.tensor([ord(c) for c in b])
    same = (x[:, None] == y[None, :]).int()
    table = torch.zeros(len(a) + 1, len(b) + 1, dtype=torch.int32)
    for i in range(len(a)):
        table[i + 1, 1:] = (table[i, :-1] + 1) * same[i]
    best = table.max().item()
    row = (table == best).nonzero()[0, 0].item()
    return a[row - best:row]


def knapsack(weights, values, capacity):
    best = torch.zeros(capacity + 1)
    for w, v in zip(weights, values):
        taken = best.clone()
        taken[w:] = torch.maximum(best[w:], best[:capacity + 1 - w] + v)
        best = taken
    return best[-1].item()


def viterbi(log_start, log_move, log_emit, seen):
    score, back = log_start + log_emit[:, seen[0]], []
    for s in seen[1:]:
        step = score.unsqueeze(1) + log_move
        score, pointer = step.max(dim=0)
        score = score + log_emit[:, s]
        back.append(pointer)
    path = [int(score.argmax())]
    for pointer in reversed(back):
        path.append(int(pointer[path[-1]]))
    return path[::-1]


table = multiplication_table(20)
print('table', table.sum().item(), table[19, 19].item(), bool((table == table.t()).all()))
for a, b in (('kitten', 'sitting'), ('intention', 'execution'), ('graph', 'photograph'), ('saturday', 'sunday')):
    print(a, b, edit_distance(a, b), longest_common(a, b))
weights, values = [random.randint(1, 12) for _ in range(20)], [random.randint(1, 30) for _ in range(20)]
print('knapsack', [knapsack(weights[:n], values[:n], 40) for n in range(1, 21, 3)])
start, move = torch.tensor([0.6, 0.4]).log(), torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log()
emit = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]]).log()
for n in (3, 7, 12, 25):
    print('viterbi', ''.join(map(str, viterbi(start, move, emit, [random.randrange(3) for _ in range(n)]))))
triangle = [torch.tensor([1])]
for _ in range(15):
    row = torch.ones(len(triangle[-1]) + 1, dtype=torch.long)
    row[1:-1] = triangle[-1][1:] + triangle[-1][:-1]
    triangle.append(row)
print('pascal', triangle[-1].tolist()[:6], sum(int(r.sum()) for r in triangle))
