"""A child-sum Tree-LSTM on arithmetic expressions: every tree has another shape, inner nodes have one to three children."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F

random.seed(0)
torch.manual_seed(0)


class Tree(object):
    def __init__(self, token, children=()):
        self.token, self.children = token, list(children)

    def value(self):
        kids = [c.value() for c in self.children]
        if self.token == 'neg':
            return -kids[0]
        if self.token in ('max', 'min'):
            return max(kids) if self.token == 'max' else min(kids)
        return sum(kids) if kids else int(self.token)

    def size(self):
        return 1 + sum(c.size() for c in self.children)


def random_tree(depth):
    if depth == 0 or random.random() < 0.2:
        return Tree(str(random.randint(0, 9)))
    token = random.choice(['neg', 'max', 'min', 'sum'])
    n = 1 if token == 'neg' else random.randint(2, 3)
    return Tree(token, [random_tree(depth - 1) for _ in range(n)])


class ChildSumTreeLSTM(nn.Module):
    def __init__(self, vocab, in_dim=16, mem_dim=32):
        super().__init__()
        self.mem_dim, self.vocab = mem_dim, vocab
        self.emb = nn.Embedding(len(vocab), in_dim)
        self.ioux = nn.Linear(in_dim, 3 * mem_dim)
        self.iouh = nn.Linear(mem_dim, 3 * mem_dim, bias=False)
        self.fx = nn.Linear(in_dim, mem_dim)
        self.fh = nn.Linear(mem_dim, mem_dim, bias=False)
        self.out = nn.Linear(mem_dim, 2)

    def node(self, inputs, child_c, child_h):
        child_h_sum = torch.sum(child_h, dim=0, keepdim=True)
        iou = self.ioux(inputs) + self.iouh(child_h_sum)
        i, o, u = torch.split(iou, iou.size(1) // 3, dim=1)
        i, o, u = torch.sigmoid(i), torch.sigmoid(o), torch.tanh(u)
        f = torch.sigmoid(self.fh(child_h) + self.fx(inputs).repeat(len(child_h), 1))
        c = torch.mul(i, u) + torch.sum(torch.mul(f, child_c), dim=0, keepdim=True)
        return c, torch.mul(o, torch.tanh(c))

    def encode(self, tree):
        inputs = self.emb(torch.tensor([self.vocab[tree.token]]))
        if not tree.children:
            child_c = inputs.detach().new(1, self.mem_dim).fill_(0.)
            child_h = inputs.detach().new(1, self.mem_dim).fill_(0.)
        else:
            child_c, child_h = zip(*(self.encode(c) for c in tree.children))
            child_c, child_h = torch.cat(child_c, dim=0), torch.cat(child_h, dim=0)
        return self.node(inputs, child_c, child_h)

    def forward(self, tree):
        return self.out(self.encode(tree)[1])


vocab = {t: i for i, t in enumerate([str(d) for d in range(10)] + ['neg', 'max', 'min', 'sum'])}
trees = [random_tree(3) for _ in range(100)]
model = ChildSumTreeLSTM(vocab)
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
for epoch in range(2):
    random.shuffle(trees)
    loss, correct, total = 0.0, 0, 0.0
    optimizer.zero_grad()
    for k, tree in enumerate(trees):
        target = torch.tensor([int(tree.value() > 3)])
        output = model(tree)
        err = F.cross_entropy(output, target)
        total += err.item()
        (err / 10).backward()
        correct += int(output.argmax(1) == target)
        if (k + 1) % 10 == 0:
            optimizer.step()
            optimizer.zero_grad()
    print('epoch', epoch, 'trees', len(trees), 'nodes', sum(t.size() for t in trees), 'mean loss below 1:', total / len(trees) < 1)
print('better than guessing', correct / len(trees) > 0.5)
