"""A GAN on points of a ring: python gan.py [--init w.pt] [--save w.pt] [--steps 40]"""
import argparse

import numpy as np
import torch
import torch.nn as nn
from torch.autograd import Variable

parser = argparse.ArgumentParser()
parser.add_argument("--init", default="")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--save", default="")
opt = parser.parse_args()
rng = np.random.RandomState(1)


class Generator(nn.Module):
    def __init__(self):
        super(Generator, self).__init__()

        def block(in_feat, out_feat, normalize=True):
            layers = [nn.Linear(in_feat, out_feat)]
            if normalize:
                layers.append(nn.BatchNorm1d(out_feat, 0.8))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            return layers

        self.model = nn.Sequential(*block(8, 16, normalize=False), *block(16, 32), nn.Linear(32, 2),
                                   nn.Tanh())

    def forward(self, z):
        return self.model(z)


class Discriminator(nn.Module):
    def __init__(self):
        super(Discriminator, self).__init__()
        self.model = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2, inplace=True), nn.Linear(32, 16),
                                   nn.LeakyReLU(0.2, inplace=True), nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, points):
        return self.model(points)


adversarial_loss = torch.nn.BCELoss()
networks = nn.ModuleDict({"generator": Generator(), "discriminator": Discriminator()})
if opt.init:
    networks.load_state_dict(torch.load(opt.init))
generator, discriminator = networks["generator"], networks["discriminator"]
optimizer_G = torch.optim.Adam(generator.parameters(), lr=0.002, betas=(0.5, 0.999))
optimizer_D = torch.optim.Adam(discriminator.parameters(), lr=0.002, betas=(0.5, 0.999))
Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor

for i in range(opt.steps):
    angles = rng.uniform(0, 2 * np.pi, 64)
    valid = Variable(Tensor(64, 1).fill_(1.0), requires_grad=False)
    fake = Variable(Tensor(64, 1).fill_(0.0), requires_grad=False)
    real = Variable(Tensor(np.stack([np.cos(angles), np.sin(angles)], 1)))

    optimizer_G.zero_grad()
    z = Variable(Tensor(rng.normal(0, 1, (64, 8))))
    made = generator(z)
    g_loss = adversarial_loss(discriminator(made), valid)
    g_loss.backward()
    optimizer_G.step()

    optimizer_D.zero_grad()
    real_loss = adversarial_loss(discriminator(real), valid)
    fake_loss = adversarial_loss(discriminator(made.detach()), fake)
    d_loss = (real_loss + fake_loss) / 2
    d_loss.backward()
    optimizer_D.step()
    if i % 5 == 0:
        print("[step %d] [D loss: %f] [G loss: %f]" % (i, d_loss.item(), g_loss.item()))
if opt.save:
    torch.save(networks.state_dict(), opt.save)
