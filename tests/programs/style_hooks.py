"""Neural style by forward hooks: the picture itself is the parameter, Gram matrices of hooked layers, at three sizes."""
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

torch.manual_seed(0)


def gram_matrix(input):
    a, b, c, d = input.size()
    features = input.view(a * b, c * d)
    return torch.mm(features, features.t()).div(a * b * c * d)


def stripes(size):
    x = torch.arange(size).float()
    wave = torch.sin(x.unsqueeze(0) * 0.8 + x.unsqueeze(1) * 0.3)
    return torch.stack([wave, wave.flip(0), wave.t()]).unsqueeze(0) * 0.5 + 0.5


def disc(size):
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing='ij')
    inside = (x ** 2 + y ** 2 < 0.5).float()
    return torch.stack([inside, 1 - inside, 0.5 * inside]).unsqueeze(0)


cnn = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()).eval()
for p in cnn.parameters():
    p.requires_grad_(False)

activations, calls = {}, []


def save(name):
    def hook(module, inputs, output):
        activations[name] = output
    return hook


handles = [cnn[i].register_forward_hook(save(f'conv_{i}')) for i in (0, 2, 5, 7)]
counter = cnn[7].register_forward_pre_hook(lambda module, inputs: calls.append(tuple(inputs[0].shape)))
picture, first, last = None, {}, {}
for size in (16, 24, 32):
    content, style = disc(size), stripes(size)
    with torch.no_grad():
        cnn(content)
        wanted = activations['conv_7'].clone()
        cnn(style)
        grams = {k: gram_matrix(v) for k, v in activations.items()}
    if picture is None:
        picture = content.clone()
    else:
        picture = F.interpolate(picture.detach(), size=(size, size), mode='nearest')
    picture.requires_grad_(True)
    norms = []
    picture.register_hook(lambda g: norms.append(g.norm().item()))
    optimizer = optim.Adam([picture], lr=0.03)
    for step in range(30):
        optimizer.zero_grad()
        cnn(picture)
        content_loss = F.mse_loss(activations['conv_7'], wanted)
        style_loss = sum(F.mse_loss(gram_matrix(activations[k]), g) for k, g in grams.items())
        loss = content_loss + 1e4 * style_loss
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            picture.clamp_(0, 1)
        first.setdefault(size, loss.item())
        last[size] = loss.item()
    print('size', size, 'loss falls', last[size] < first[size], 'hook calls', len(norms), 'in range', bool((picture >= 0).all() and (picture <= 1).all()))
for h in handles:
    h.remove()
counter.remove()
activations.clear()
cnn(picture)
print('hooks removed', len(activations) == 0, 'calls', len(calls), 'shapes', sorted(set(calls)))
