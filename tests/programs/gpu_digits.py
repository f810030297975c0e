"""A convolutional net for drawn digits, on a GPU where there is one.

python gpu_digits.py [--init w.pt] [--save w.pt] [--steps 12]
"""
import argparse

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--init", default="")
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--save", default="")
args = parser.parse_args()

use_cuda = torch.cuda.is_available()
device = torch.device("cuda" if use_cuda else "cpu")
torch.manual_seed(1)
if use_cuda:
    torch.cuda.manual_seed_all(1)

rng = np.random.RandomState(0)
strokes = rng.rand(4, 12, 12).astype(np.float32) > 0.6
labels = rng.randint(0, 4, 64)
images = (strokes[labels] + 0.3 * rng.randn(64, 12, 12)).astype(np.float32)
data = TensorDataset(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())
loader = DataLoader(data, batch_size=16, shuffle=False, pin_memory=use_cuda)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 6 * 6, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(x.flatten(1))


model = Net()
if args.init:
    model.load_state_dict(torch.load(args.init, map_location="cpu"))
model = model.to(device)
if use_cuda:
    assert next(model.parameters()).is_cuda
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
criterion = nn.CrossEntropyLoss().to(device)

done = 0
while done < args.steps:
    for x, y in loader:
        if done == args.steps:
            break
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        optimizer.zero_grad()
        out = model(x)
        loss = criterion(out, y)
        loss.backward()
        optimizer.step()
        right = (out.argmax(1) == y).sum().item()
        print("step %d loss %.4f right %d" % (done, loss.item(), right))
        done += 1

if use_cuda:
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() > 0
if args.save:
    torch.save(model.cpu().state_dict(), args.save)
