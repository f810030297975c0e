"""Nets with attention, for images and for words."""

from __future__ import annotations

import math
from typing import Any

from .convolutional import inverted
from .parts import Library, Module, encoder, head, joints, residual, unit


def vit(torch: Library, width: int, depth: int, heads: int, size: int) -> Module:
    """A vision transformer (Dosovitskiy et al., 2021) on patches of 16 pixels."""
    nn = torch.nn

    class Vit(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, width, 16, 16)
            self.cls = nn.Parameter(torch.zeros(1, 1, width))
            self.position = nn.Parameter(torch.zeros(1, (size // 16) ** 2 + 1, width))
            self.blocks, self.norm = encoder(torch, depth, width, heads), nn.LayerNorm(width)
            self.head = nn.Linear(width, 1000)

        def forward(self, x: Any) -> Any:
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.position
            return self.head(self.norm(self.blocks(x))[:, 0])

    return Vit()


def vit_s16(torch: Library, small: bool = False) -> Module:
    return vit(torch, 48, 2, 3, 32) if small else vit(torch, 384, 12, 6, 224)


def bertbase(torch: Library, small: bool = False) -> Module:
    """The encoder of BERT-base, without its embeddings."""
    return encoder(torch, 2, 32, 4) if small else encoder(torch, 12, 768, 12)


# ------------------------------------------------------------------------------------------- images


def swin_t(torch: Library, small: bool = False) -> Module:
    """Swin-T (Liu et al., 2021): attention in windows of 7 x 7, every other time shifted."""
    nn = torch.nn
    width, depths, side = (24, (2, 2), 14) if small else (96, (2, 2, 6, 2), 56)
    layers: list[Module] = [
        nn.Conv2d(3, width, 4, 4),
        joints(torch).Apply(lambda x: x.permute(0, 2, 3, 1)),
        nn.LayerNorm(width),
    ]
    for stage, depth in enumerate(depths):
        if stage:
            layers.append(_merging(torch, width))
            width, side = 2 * width, side // 2
        layers += [
            _swin_block(torch, width, side, 3 if i % 2 and side > 7 else 0) for i in range(depth)
        ]
    pool = joints(torch).Apply(lambda x: x.mean((1, 2)))
    return nn.Sequential(*layers, nn.LayerNorm(width), pool, nn.Linear(width, 1000))


def _merging(torch: Library, width: int) -> Module:
    """Two by two neighbours become one with twice the channels."""
    nn = torch.nn
    gathered = joints(torch).Apply(
        lambda x: torch.cat(
            [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)],
            -1,
        )
    )
    norm, narrow = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)
    return nn.Sequential(gathered, norm, narrow)


def _swin_block(torch: Library, width: int, side: int, shift: int) -> Module:
    nn = torch.nn
    attention = _windowed(torch, width, side, shift)
    mlp = nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )
    return nn.Sequential(
        residual(torch, nn.Sequential(nn.LayerNorm(width), attention)), residual(torch, mlp)
    )


def _windowed(torch: Library, width: int, side: int, shift: int, window: int = 7) -> Module:
    """Attention within windows, with a learned bias for each relative place."""
    nn, F = torch.nn, torch.nn.functional
    count, heads, area = side // window, max(1, width // 32), window * window
    if width % heads:
        raise ValueError(f"a width of {width} does not divide into {heads} heads")

    class Windowed(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
            self.register_buffer("index", _relative(torch, window))
            self.register_buffer("mask", _other_regions(torch, side, window, shift))

        def bias(self) -> Any:
            of_places = self.table[self.index.flatten()].view(area, area, heads)
            return of_places.permute(2, 0, 1).unsqueeze(0) + self.mask.unsqueeze(1)

        def forward(self, x: Any) -> Any:
            n = x.shape[0]
            if shift:
                x = torch.roll(x, (-shift, -shift), (1, 2))
            x = x.view(n, count, window, count, window, width).transpose(2, 3)
            x = self.qkv(x.reshape(n * count * count, area, width))
            q, k, v = x.view(-1, area, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            bias = self.bias().repeat(n, 1, 1, 1) if n > 1 else self.bias()
            x = F.scaled_dot_product_attention(q, k, v, bias).transpose(1, 2)
            x = self.out(x.reshape(n, count, count, window, window, width))
            x = x.transpose(2, 3).reshape(n, side, side, width)
            return torch.roll(x, (shift, shift), (1, 2)) if shift else x

    return Windowed()


def _relative(torch: Library, window: int) -> Any:
    """For each two places of a window, which row of the bias table their distance has."""
    along = torch.arange(window)
    apart = along.view(-1, 1) - along.view(1, -1) + window - 1
    rows = apart.view(window, 1, window, 1) * (2 * window - 1) + apart.view(1, window, 1, window)
    return rows.reshape(window * window, window * window)


def _other_regions(torch: Library, side: int, window: int, shift: int) -> Any:
    """-100 where a shifted window holds two places that are no neighbours in the image."""
    count, area = side // window, window * window
    if not shift:
        return torch.zeros(1, area, area)
    place = torch.arange(side)
    region = (place >= side - window).long() + (place >= side - shift).long()
    regions = region.view(-1, 1) * 3 + region.view(1, -1)
    regions = regions.view(count, window, count, window).transpose(1, 2).reshape(-1, area)
    return (regions.unsqueeze(1) != regions.unsqueeze(2)).float() * -100.0


def mobilevit(torch: Library, small: bool = False) -> Module:
    """MobileViT-XS (Mehta and Rastegari, 2022), its attention from PyTorch's encoder."""
    nn = torch.nn
    act = nn.SiLU
    widths = (16, 16, 24, 32) if small else (16, 32, 48, 64)
    layers = unit(torch, 3, widths[0], 3, 2, act=act)

    def step(channels: int, out: int, stride: int) -> Module:
        return inverted(torch, channels, out, stride, 4 * channels, act=act)

    layers += [step(widths[0], widths[1], 1), step(widths[1], widths[2], 2)]
    layers += [step(widths[2], widths[2], 1), step(widths[2], widths[3], 2)]
    channels = widths[3]
    stages = ((48, 1),) if small else ((96, 2), (120, 4), (144, 3))
    for i, (width, depth) in enumerate(stages):
        if i:
            layers.append(step(channels, channels + 16, 2))
            channels += 16
        layers.append(_global(torch, channels, width, depth))
    last = 4 * channels
    return nn.Sequential(*layers, *unit(torch, channels, last, 1, act=act), *head(torch, last))


def _global(torch: Library, channels: int, width: int, depth: int) -> Module:
    """Attention between the pixels that stand at one place of all 2 x 2 patches."""
    nn = torch.nn

    class Global(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            local = unit(torch, channels, channels, 3, act=nn.SiLU)
            self.into = nn.Sequential(*local, nn.Conv2d(channels, width, 1, bias=False))
            self.blocks = encoder(torch, depth, width, 4, 2)
            self.norm = nn.LayerNorm(width)
            self.back = nn.Sequential(*unit(torch, width, channels, 1, act=nn.SiLU))
            self.join = nn.Sequential(*unit(torch, 2 * channels, channels, 3, act=nn.SiLU))

        def forward(self, x: Any) -> Any:
            y = self.into(x)
            n, _, h, w = y.shape
            y = y.view(n, width, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1)
            y = self.norm(self.blocks(y.reshape(4 * n, h * w // 4, width)))
            y = y.view(n, 2, 2, h // 2, w // 2, width).permute(0, 5, 3, 1, 4, 2)
            return self.join(torch.cat([x, self.back(y.reshape(n, width, h, w))], 1))

    return Global()


# -------------------------------------------------------------------------------------------- words


def gpt2(torch: Library, small: bool = False) -> Module:
    """GPT-2 small (Radford et al., 2019) for one more word: its arguments are the word, its place
    and the keys and values of those before, [layers, 2, batch, heads, words, size]; it gives the
    scores of the next word and the keys and values with those of this one."""
    nn, F = torch.nn, torch.nn.functional
    vocabulary, context, width, layers, heads = (
        (96, 32, 32, 2, 4) if small else (50257, 1024, 768, 12, 12)
    )

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            gelu = nn.GELU(approximate="tanh")
            up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.mlp = nn.Sequential(up, gelu, down)

        def forward(self, x: Any, past: Any) -> tuple[Any, Any]:
            n, t, _ = x.shape
            parts = self.qkv(self.norm1(x)).view(n, t, 3, heads, width // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width)
            x = x + self.out(y)
            return x + self.mlp(self.norm2(x)), torch.stack([k, v])

    class Gpt2(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, word: Any, place: Any, past: Any) -> tuple[Any, Any]:
            x, kept = self.words(word) + self.places(place), []
            for i, block in enumerate(self.blocks):
                x, both = block(x, past[i])
                kept.append(both)
            return self.head(self.norm(x)), torch.stack(kept)

    return Gpt2()


def t5_encoder(torch: Library, small: bool = False) -> Module:
    """The encoder of T5-small (Raffel et al., 2020): RMS norms, and a bias for each distance that
    all layers share."""
    nn, F = torch.nn, torch.nn.functional
    vocabulary, width, layers, heads = (96, 32, 2, 4) if small else (32128, 512, 6, 8)

    class Attention(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))

        def forward(self, x: Any, bias: Any) -> Any:
            n, t, _ = x.shape
            q, k, v = (
                f(x).view(n, t, heads, width // heads).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            )
            y = F.scaled_dot_product_attention(q, k, v, bias, scale=1.0)
            return self.o(y.transpose(1, 2).reshape(n, t, width))

    class T5(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(vocabulary, width)
            self.bias = nn.Embedding(32, heads)
            self.attention = nn.ModuleList(Attention() for _ in range(layers))
            self.mlps = nn.ModuleList(
                nn.Sequential(
                    nn.Linear(width, 4 * width, bias=False),
                    nn.ReLU(),
                    nn.Linear(4 * width, width, bias=False),
                )
                for _ in range(layers)
            )
            self.norms = nn.ModuleList(rms_norm(torch, width) for _ in range(2 * layers + 1))

        def forward(self, words: Any) -> Any:
            x = self.words(words)
            apart = torch.arange(words.shape[1])
            bias = self.bias(_buckets(torch, apart.view(1, -1) - apart.view(-1, 1)))
            bias = bias.permute(2, 0, 1).unsqueeze(0)
            for i, (attention, mlp) in enumerate(zip(self.attention, self.mlps, strict=True)):
                x = x + attention(self.norms[2 * i](x), bias)
                x = x + mlp(self.norms[2 * i + 1](x))
            return self.norms[-1](x)

    return T5()


def rms_norm(torch: Library, width: int) -> Module:
    """T5's norm, in the operations of its authors: PyTorch's exporter knows no other."""
    nn = torch.nn

    class Norm(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x: Any) -> Any:
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    return Norm()


def _buckets(torch: Library, apart: Any, count: int = 16, farthest: int = 128) -> Any:
    """T5's buckets of distances: near ones each for itself, farther ones by their logarithm."""
    near, far = count // 2, apart.abs()
    scaled = torch.log(far.clamp(min=1).float() / near) / math.log(farthest / near)
    wide = (near + (scaled * (count - near)).long()).clamp(max=count - 1)
    return (apart > 0).long() * count + torch.where(far < near, far, wide)
