"""A deep ensemble by deepcopy: members trained on bootstrap samples, an average of weights, disagreement as uncertainty."""
import copy

import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

torch.manual_seed(0)
wine = load_wine()
X = ((wine.data - wine.data.mean(0)) / wine.data.std(0)).astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(X, wine.target, test_size=0.3, random_state=0)
X_train, y_train = torch.from_numpy(X_train), torch.from_numpy(y_train).long()
X_test, y_test = torch.from_numpy(X_test), torch.from_numpy(y_test).long()


class MLP(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1 = nn.Linear(13, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 3)
        self.drop = nn.Dropout(p=0.2)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = self.drop(torch.relu(self.fc2(x)))
        return self.out(x)


def reset(model):
    for layer in model.children():
        if hasattr(layer, 'reset_parameters'):
            layer.reset_parameters()
    return model


base = MLP(32)
members = [reset(copy.deepcopy(base)) for _ in range(6)]
criterion = nn.CrossEntropyLoss()
for number, member in enumerate(members):
    rows = torch.randint(0, len(X_train), (len(X_train) - 7 * number,))
    xb, yb = X_train[rows], y_train[rows]
    optimizer = torch.optim.Adam(member.parameters(), lr=1e-2)
    best, best_loss, patience = None, float('inf'), 0
    for epoch in range(50):
        member.train()
        optimizer.zero_grad()
        loss = criterion(member(xb), yb)
        loss.backward()
        optimizer.step()
        member.eval()
        with torch.no_grad():
            val = criterion(member(X_test), y_test).item()
        if val < best_loss:
            best, best_loss, patience = copy.deepcopy(member.state_dict()), val, 0
        else:
            patience += 1
            if patience == 10:
                break
    member.load_state_dict(best)

with torch.no_grad():
    probs = torch.stack([m.eval()(X_test).softmax(dim=-1) for m in members])
mean = probs.mean(dim=0)
entropy = -(mean * mean.clamp_min(1e-12).log()).sum(-1)
noise = torch.randn_like(X_test) * 4
with torch.no_grad():
    far = torch.stack([m(noise) for m in members]).softmax(-1)
print('members', len(members), 'different', bool((members[0].fc1.weight != members[1].fc1.weight).any()))
print('ensemble accuracy above 0.85:', (mean.argmax(-1) == y_test).float().mean().item() > 0.85)
print('noise is less certain:', bool(far.std(0).mean() > probs.std(0).mean()), tuple(entropy.shape))
# model soup: continue all from one member, then average the weights
soup = copy.deepcopy(members[0])
tuned = []
for seed in range(4):
    torch.manual_seed(seed)
    model = copy.deepcopy(members[0]).train()
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(10):
        rows = torch.randperm(len(X_train))[:64]
        opt.zero_grad()
        criterion(model(X_train[rows]), y_train[rows]).backward()
        opt.step()
    tuned.append(model)
with torch.no_grad():
    for params in zip(soup.parameters(), *(m.parameters() for m in tuned)):
        params[0].copy_(torch.stack(list(params[1:])).mean(0))
print('soup accuracy above 0.8:', (soup.eval()(X_test).argmax(-1) == y_test).float().mean().item() > 0.8)
