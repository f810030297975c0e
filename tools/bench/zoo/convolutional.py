"""Convolutional nets. A smaller `scale` gives fewer layers of fewer channels, of the same kinds."""

from __future__ import annotations

import functools
from typing import Any

from .parts import Library, Module, head, joints, residual, squeeze, unit


def mlp(torch: Library, small: bool = False) -> Module:
    nn, scale = torch.nn, 10 if small else 1
    sizes = (30 if small else 1000, 100 // scale, 10)
    return nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:]))


def lenet(torch: Library, small: bool = False) -> Module:
    """LeNet-5 (LeCun et al., 1998), as tutorials write it."""
    nn = torch.nn
    layers: list[Module] = []
    for channels, out in ((1, 6), (6, 16)):
        layers += [nn.Conv2d(channels, out, 5), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(84, 10))


def basic(torch: Library, channels: int, out: int, stride: int) -> Module:
    """A block of a residual net of fewer layers (He et al., 2015)."""
    nn = torch.nn
    body = nn.Sequential(
        *unit(torch, channels, out, 3, stride, act=nn.ReLU), *unit(torch, out, out, 3)
    )
    return nn.Sequential(residual(torch, body, _short(torch, channels, out, stride)), nn.ReLU())


def bottleneck(torch: Library, channels: int, width: int, stride: int) -> Module:
    """A block of a residual net of 50 layers or more (He et al., 2015)."""
    nn, out = torch.nn, 4 * width
    body = nn.Sequential(
        *unit(torch, channels, width, 1, act=nn.ReLU),
        *unit(torch, width, width, 3, stride, act=nn.ReLU),
        *unit(torch, width, out, 1),
    )
    return nn.Sequential(residual(torch, body, _short(torch, channels, out, stride)), nn.ReLU())


def _short(torch: Library, channels: int, out: int, stride: int) -> Module:
    """The branch around a residual body."""
    if stride == 1 and channels == out:
        return torch.nn.Identity()
    return torch.nn.Sequential(*unit(torch, channels, out, 1, stride))


def resnet18(torch: Library, small: bool = False) -> Module:
    nn = torch.nn
    layers, channels = [*unit(torch, 3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for stage, depth in enumerate((1, 1) if small else (2, 2, 2, 2)):
        for i in range(depth):
            layers.append(basic(torch, channels, 64 << stage, 2 if i == 0 and stage else 1))
            channels = 64 << stage
    return nn.Sequential(*layers, *head(torch, channels))


def resnet50(torch: Library, small: bool = False) -> Module:
    nn = torch.nn
    layers, channels = [*unit(torch, 3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for stage, depth in enumerate((1, 1) if small else (3, 4, 6, 3)):
        for i in range(depth):
            layers.append(bottleneck(torch, channels, 64 << stage, 2 if i == 0 and stage else 1))
            channels = 256 << stage
    return nn.Sequential(*layers, *head(torch, channels))


def inverted(
    torch: Library,
    channels: int,
    out: int,
    stride: int,
    hidden: int,
    size: int = 3,
    act: Any = None,
    gate: Module = None,
) -> Module:
    """An inverted residual block (Sandler et al., 2018), with `gate` before its projection."""
    nn = torch.nn
    act = act or nn.ReLU
    body = nn.Sequential(
        *(unit(torch, channels, hidden, 1, act=act) if hidden != channels else []),
        *unit(torch, hidden, hidden, size, stride, hidden, act),
        *([gate] if gate is not None else []),
        *unit(torch, hidden, out, 1),
    )
    return residual(torch, body) if stride == 1 and channels == out else body


def mobilenetv2(torch: Library, small: bool = False) -> Module:
    """MobileNetV2 (Sandler et al., 2018)."""
    nn = torch.nn
    stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    layers, channels = unit(torch, 3, 32, 3, 2, act=nn.ReLU6), 32
    for factor, out, count, stride in stages[: 2 if small else None]:
        for i in range(count):
            step = stride if i == 0 else 1
            layers.append(inverted(torch, channels, out, step, channels * factor, act=nn.ReLU6))
            channels = out
    return nn.Sequential(*layers, *unit(torch, channels, 1280, 1, act=nn.ReLU6), *head(torch, 1280))


def mobilenetv3(torch: Library, small: bool = False) -> Module:
    """MobileNetV3-Large (Howard et al., 2019)."""
    nn = torch.nn
    relu, swish = nn.ReLU, nn.Hardswish
    rows = [  # kernel, expanded, out, squeezed, activation, stride
        (3, 16, 16, False, relu, 1),
        (3, 64, 24, False, relu, 2),
        (3, 72, 24, False, relu, 1),
        (5, 72, 40, True, relu, 2),
        (5, 120, 40, True, relu, 1),
        (5, 120, 40, True, relu, 1),
        (3, 240, 80, False, swish, 2),
        (3, 200, 80, False, swish, 1),
        (3, 184, 80, False, swish, 1),
        (3, 184, 80, False, swish, 1),
        (3, 480, 112, True, swish, 1),
        (3, 672, 112, True, swish, 1),
        (5, 672, 160, True, swish, 2),
        (5, 960, 160, True, swish, 1),
        (5, 960, 160, True, swish, 1),
    ]
    layers, channels = unit(torch, 3, 16, 3, 2, act=swish), 16
    for size, hidden, out, squeezed, act, stride in rows[: 5 if small else None]:
        gate = (
            squeeze(torch, hidden, _eighths(hidden // 4), relu, nn.Hardsigmoid)
            if squeezed
            else None
        )
        layers.append(inverted(torch, channels, out, stride, hidden, size, act, gate))
        channels = out
    last = 6 * channels
    return nn.Sequential(
        *layers,
        *unit(torch, channels, last, 1, act=swish),
        *head(torch, last, 1280),
        swish(),
        nn.Linear(1280, 1000),
    )


def _eighths(channels: int) -> int:
    """The nearest multiple of 8 that is not less than nine tenths."""
    near = (channels + 4) // 8 * 8
    return near if near >= 0.9 * channels else near + 8


def efficientnet_b0(torch: Library, small: bool = False) -> Module:
    """EfficientNet-B0 (Tan and Le, 2019)."""
    nn = torch.nn
    stages = [  # factor, kernel, stride, out, count
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ]
    layers, channels = unit(torch, 3, 32, 3, 2, act=nn.SiLU), 32
    for factor, size, stride, out, count in stages[: 3 if small else None]:
        for i in range(count):
            hidden, step = channels * factor, stride if i == 0 else 1
            gate = squeeze(torch, hidden, max(1, channels // 4), nn.SiLU, nn.Sigmoid)
            layers.append(inverted(torch, channels, out, step, hidden, size, nn.SiLU, gate))
            channels = out
    last = 4 * channels
    return nn.Sequential(*layers, *unit(torch, channels, last, 1, act=nn.SiLU), *head(torch, last))


def regnety(torch: Library, small: bool = False) -> Module:
    """RegNetY-400MF (Radosavovic et al., 2020): grouped bottlenecks with squeeze."""
    nn = torch.nn
    layers, channels = unit(torch, 3, 32, 3, 2, act=nn.ReLU), 32
    for width, depth in list(zip((48, 104, 208, 440), (1, 3, 6, 6), strict=True))[
        : 2 if small else 4
    ]:
        for i in range(depth):
            stride = 2 if i == 0 else 1
            body = nn.Sequential(
                *unit(torch, channels, width, 1, act=nn.ReLU),
                *unit(torch, width, width, 3, stride, width // 8, nn.ReLU),
                squeeze(torch, width, channels // 4, nn.ReLU, nn.Sigmoid),
                *unit(torch, width, width, 1),
            )
            layers += [residual(torch, body, _short(torch, channels, width, stride)), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, *head(torch, channels))


def dense(torch: Library, channels: int) -> Module:
    """A layer of a dense block, which adds 32 channels to what it reads."""
    nn = torch.nn
    body = nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 32, 3, padding=1, bias=False),
    )
    return joints(torch).Concat(nn.Identity(), body)


def densenet121(torch: Library, small: bool = False) -> Module:
    """DenseNet-121 (Huang et al., 2017)."""
    nn = torch.nn
    layers, channels = [*unit(torch, 3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    depths = (2, 3) if small else (6, 12, 24, 16)
    for i, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(dense(torch, channels))
            channels += 32
        if i + 1 < len(depths):
            conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), conv, nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *head(torch, channels))


def unet(torch: Library, small: bool = False) -> Module:
    """Levels down and up again, joined on the way up (Ronneberger et al., 2015)."""
    nn, width = torch.nn, 8 if small else 32

    def pair(channels: int, out: int) -> list[Module]:
        return [
            *unit(torch, channels, out, 3, act=nn.ReLU),
            *unit(torch, out, out, 3, act=nn.ReLU),
        ]

    inner: list[Module] = []
    for level in reversed(range(2 if small else 4)):
        here, below = width << level, width << (level + 1)
        up = nn.ConvTranspose2d(below, here, 2, 2)
        under = nn.Sequential(nn.MaxPool2d(2), *pair(here, below), *inner, up)
        inner = [joints(torch).Concat(nn.Identity(), under), *pair(below, here)]
    return nn.Sequential(*pair(3, width), *inner, nn.Conv2d(width, 1, 1))


def convnext_t(torch: Library, small: bool = False) -> Module:
    """ConvNeXt-T (Liu et al., 2022)."""
    nn, depths = torch.nn, (1, 2) if small else (3, 3, 9, 3)
    width = 16 if small else 96
    layers = [nn.Conv2d(3, width, 4, 4), *_channel_norm(torch, width)]
    for stage, depth in enumerate(depths):
        if stage:
            down = nn.Conv2d(width, 2 * width, 2, 2)
            layers += [*_channel_norm(torch, width), down]
            width *= 2
        layers += [_convnext_block(torch, width) for _ in range(depth)]
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(width, eps=1e-6),
        nn.Linear(width, 1000),
    )


def _moved(torch: Library, *dims: int) -> Module:
    return joints(torch).Apply(lambda x: x.permute(*dims))


def _channel_norm(torch: Library, width: int) -> list[Module]:
    """Layer norm over the channels of images."""
    norm = torch.nn.LayerNorm(width, eps=1e-6)
    return [_moved(torch, 0, 2, 3, 1), norm, _moved(torch, 0, 3, 1, 2)]


def _convnext_block(torch: Library, width: int) -> Module:
    nn = torch.nn

    class Scale(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(width))

        def forward(self, x: Any) -> Any:
            return x * self.weight

    body = nn.Sequential(
        nn.Conv2d(width, width, 7, padding=3, groups=width),
        _moved(torch, 0, 2, 3, 1),
        nn.LayerNorm(width, eps=1e-6),
        nn.Linear(width, 4 * width),
        nn.GELU(),
        nn.Linear(4 * width, width),
        Scale(),
        _moved(torch, 0, 3, 1, 2),
    )
    return residual(torch, body)


def shufflenetv2(torch: Library, small: bool = False) -> Module:
    """ShuffleNetV2 1x (Ma et al., 2018): halves of the channels, joined and shuffled."""
    nn = torch.nn
    layers, channels = [*unit(torch, 3, 24, 3, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 24
    for out, depth in list(zip((116, 232, 464), (4, 8, 4), strict=True))[: 1 if small else 3]:
        for i in range(depth):
            layers += [_shuffled(torch, channels, out, i == 0), _shuffle(torch)]
            channels = out
    last = 64 if small else 1024
    return nn.Sequential(*layers, *unit(torch, channels, last, 1, act=nn.ReLU), *head(torch, last))


def _shuffle(torch: Library) -> Module:
    return joints(torch).Apply(
        lambda x: x.unflatten(1, (2, x.shape[1] // 2)).transpose(1, 2).flatten(1, 2)
    )


def _shuffled(torch: Library, channels: int, out: int, first: bool) -> Module:
    """The two branches of a block; the first of a stage halves the image."""
    nn, half, stride = torch.nn, out // 2, 2 if first else 1
    read = channels if first else half
    body = [
        *unit(torch, read, half, 1, act=nn.ReLU),
        *unit(torch, half, half, 3, stride, half),
        *unit(torch, half, half, 1, act=nn.ReLU),
    ]
    if first:
        short = [
            *unit(torch, read, read, 3, 2, read),
            *unit(torch, read, half, 1, act=nn.ReLU),
        ]
    else:
        apply = joints(torch).Apply
        short = [apply(lambda x: x.chunk(2, 1)[0])]
        body = [apply(lambda x: x.chunk(2, 1)[1]), *body]
    return joints(torch).Concat(nn.Sequential(*short), nn.Sequential(*body))


def yolo(torch: Library, small: bool = False) -> Module:
    """A one-stage detector of the YOLO family: cross-stage backbone, spatial pyramid, features
    joined up and down again, a head at strides 8, 16 and 32."""
    nn, width = torch.nn, 8 if small else 32
    act = functools.partial(nn.SiLU)

    class Yolo(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            sizes = [width << i for i in range(1, 6)]
            stem = unit(torch, 3, width, 3, 2, act=act)
            depths = (1, 1, 1, 1) if small else (1, 2, 3, 1)
            stages = [
                nn.Sequential(*unit(torch, i, o, 3, 2, act=act), cross_stage(torch, o, o, n))
                for i, o, n in zip([width, *sizes], sizes, depths, strict=False)
            ]
            self.low = nn.Sequential(*stem, *stages[:2])
            self.middle, high = stages[2:4]
            self.high = nn.Sequential(high, pyramid(torch, sizes[3]))
            c8, c16, c32 = sizes[1:4]
            self.up = nn.Upsample(scale_factor=2, mode="nearest")
            self.narrow16 = nn.Sequential(*unit(torch, c32, c16, 1, act=act))
            self.join16 = cross_stage(torch, 2 * c16, c16, 1)
            self.narrow8 = nn.Sequential(*unit(torch, c16, c8, 1, act=act))
            self.join8 = cross_stage(torch, 2 * c8, c8, 1)
            self.down8 = nn.Sequential(*unit(torch, c8, c8, 3, 2, act=act))
            self.out16 = cross_stage(torch, 2 * c8, c16, 1)
            self.down16 = nn.Sequential(*unit(torch, c16, c16, 3, 2, act=act))
            self.out32 = cross_stage(torch, 2 * c16, c32, 1)
            self.heads = nn.ModuleList(nn.Conv2d(c, 3 * 85, 1) for c in (c8, c16, c32))

        def forward(self, x: Any) -> Any:
            low = self.low(x)
            middle = self.middle(low)
            top = self.narrow16(self.high(middle))
            across = self.narrow8(self.join16(torch.cat([self.up(top), middle], 1)))
            p8 = self.join8(torch.cat([self.up(across), low], 1))
            p16 = self.out16(torch.cat([self.down8(p8), across], 1))
            p32 = self.out32(torch.cat([self.down16(p16), top], 1))
            found = [h(p).flatten(2) for h, p in zip(self.heads, (p8, p16, p32), strict=True)]
            return torch.cat(found, 2).transpose(1, 2).sigmoid()

    return Yolo()


def cross_stage(torch: Library, channels: int, out: int, depth: int) -> Module:
    """Half of the channels through residual bottlenecks, half around them (Wang et al., 2020)."""
    nn, half = torch.nn, out // 2
    act = nn.SiLU
    steps = [
        residual(
            torch,
            nn.Sequential(
                *unit(torch, half, half, 1, act=act), *unit(torch, half, half, 3, act=act)
            ),
        )
        for _ in range(depth)
    ]
    main = nn.Sequential(*unit(torch, channels, half, 1, act=act), *steps)
    around = nn.Sequential(*unit(torch, channels, half, 1, act=act))
    return nn.Sequential(
        joints(torch).Concat(main, around), *unit(torch, 2 * half, out, 1, act=act)
    )


def pyramid(torch: Library, channels: int) -> Module:
    """Pools of 5, 9 and 13 pixels, as pools of pools of 5."""
    nn, half = torch.nn, channels // 2

    def pools(count: int) -> Module:
        return nn.Sequential(*(nn.MaxPool2d(5, 1, 2) for _ in range(count)))

    return nn.Sequential(
        *unit(torch, channels, half, 1, act=nn.SiLU),
        joints(torch).Concat(*(pools(i) for i in range(4))),
        *unit(torch, 4 * half, channels, 1, act=nn.SiLU),
    )


def tcn(torch: Library, small: bool = False) -> Module:
    """A temporal convolutional net (Bai et al., 2018): causal convolutions, dilated twice as far
    at each level."""
    nn, width, levels = torch.nn, 16 if small else 64, 3 if small else 8

    def causal(channels: int, dilation: int) -> list[Module]:
        reach = 2 * dilation
        return [
            nn.ConstantPad1d((reach, 0), 0.0),
            nn.Conv1d(channels, width, 3, dilation=dilation),
            nn.ReLU(),
        ]

    layers: list[Module] = []
    for level in range(levels):
        channels = width if level else 8
        body = nn.Sequential(*causal(channels, 1 << level), *causal(width, 1 << level))
        short = nn.Conv1d(channels, width, 1) if channels != width else None
        layers += [residual(torch, body, short), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv1d(width, 10, 1))
