"""Cases of torchvision's transforms, first and second version, on every kind of input that they
take.

Each call starts from the same seeds of PyTorch's, Python's and NumPy's streams, and what the
streams give after it belongs to the result: a transform that drew once too often is seen though its
own numbers are right.
"""

from __future__ import annotations

import functools
import importlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from libraries.running import integers, rand

Make = Callable[[Any, Any], list[Any]]  # (torchvision.transforms or its v2, torch) -> transforms
SEEDS = (0, 1, 2)
FILTERS = ("NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS")
OF_TENSORS = FILTERS[:4]
MODES = ("constant", "edge", "reflect", "symmetric")


def _seed(torch: Any, seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def _streams(torch: Any) -> list[Any]:
    return [torch.rand(2), random.random(), float(np.random.rand())]


def _inputs(torch: Any, kinds: str) -> Iterator[tuple[str, Any]]:
    """An image as bytes, floats, a batch, a tensor of strides, Pillow's modes: by letters of
    `kinds`."""
    from PIL import Image

    pixels = integers(torch, 256, 3, 26, 34).to(torch.uint8)
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    made = {
        "u": lambda: pixels,
        "f": lambda: pixels.float() / 255,
        "d": lambda: pixels.double() / 255,
        "i": lambda: pixels.to(torch.int32),
        "b": lambda: integers(torch, 256, 2, 3, 20, 25, seed=1).to(torch.uint8),
        "g": lambda: rand(torch, 2, 1, 20, 25, seed=2).sigmoid(),
        "s": lambda: (rand(torch, 34, 26, 3, seed=3).sigmoid()).permute(2, 1, 0),
        "p": lambda: Image.fromarray(array),
        "l": lambda: Image.fromarray(array[:, :, 0].copy()),
        "a": lambda: array,
    }
    for kind in kinds:
        yield kind, made[kind]()


def _called(torch: Any, transform: Any, *given: Any, seeds: tuple[int, ...] = SEEDS) -> list[Any]:
    found = []
    for seed in seeds:
        _seed(torch, seed)
        found.append([_plain(transform(*given)), _streams(torch)])
    return found


def _plain(x: Any) -> Any:
    """Results as `flat` takes them, with the kinds of tv_tensors, and the mode of an image, beside
    them."""
    if isinstance(x, (list, tuple)):
        return [_plain(one) for one in x]
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if hasattr(x, "detach"):
        return [type(x).__name__, getattr(x, "canvas_size", None), str(getattr(x, "format", "")), x]
    return [x.mode, np.array(x)] if hasattr(x, "getbands") else x


def _images(make: Make, kinds: str, version: int, torch: Any) -> Any:
    """All transforms that `make` gives, on all inputs."""
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    found: dict[str, Any] = {}
    for i, transform in enumerate(make(v1 if version == 1 else v2, torch)):
        only = getattr(transform, "only", kinds)
        for kind, x in _inputs(torch, "".join(k for k in kinds if k in only)):
            found[f"{i}{kind}"] = _called(torch, transform, x)
    return found


def _only(kinds: str, transform: Any) -> Any:
    """`transform`, for these of the inputs alone: not every filter takes tensors."""
    transform.only = kinds
    return transform


def _filter(name: str) -> Any:
    return getattr(importlib.import_module("torchvision.transforms").InterpolationMode, name)


def _resizes(t: Any, _: Any) -> list[Any]:
    sizes = ((13, 40), 11, (60, 9))
    filters = [(f, s, a) for f in OF_TENSORS for s in sizes for a in (True, False)]
    rest = [_only("pl", t.Resize(s, _filter(f))) for f in FILTERS[4:] for s in sizes[:2]]
    return (
        [t.Resize(s, _filter(f), antialias=a) for f, s, a in filters]
        + rest
        + [t.Resize(10, max_size=12)]
    )


def _pads(t: Any, _: Any) -> list[Any]:
    widths: tuple[Any, ...] = (3, [2, 5], [1, 2, 3, 4])
    return [t.Pad(w, padding_mode=m) for w in widths for m in MODES] + [
        t.Pad(2, 7),
        t.Pad([-2, 1], 0),
    ]


def _affines(t: Any, _: Any) -> list[Any]:
    return [
        t.RandomAffine(30),
        t.RandomAffine(
            (-20, 50), (0.1, 0.3), (0.7, 1.4), (-10, 10, -5, 15), _filter("BILINEAR"), 5
        ),
        t.RandomAffine(15, shear=12, fill=1, center=(3, 4)),
        t.RandomAffine(0, (0.2, 0.2), interpolation=_filter("BILINEAR")),
    ]


def _rotations(t: Any, _: Any) -> list[Any]:
    return [
        t.RandomRotation(40),
        t.RandomRotation((10, 80), _filter("BILINEAR"), expand=True),
        t.RandomRotation(25, _filter("BILINEAR"), center=(5, 6), fill=9),
        t.RandomRotation((90, 90), expand=True),
    ]


def _crops(t: Any, _: Any) -> list[Any]:
    return [
        t.RandomCrop(12),
        t.RandomCrop((16, 20), padding=4, padding_mode="reflect"),
        t.RandomCrop((50, 40), pad_if_needed=True, fill=3),
        t.RandomCrop((26, 20), padding=[1, 2, 3, 4], fill=1),
    ]


def _resized_crops(t: Any, _: Any) -> list[Any]:
    kinds = [(f, a) for f in OF_TENSORS for a in (True, False)]
    return [
        t.RandomResizedCrop((14, 10), interpolation=_filter(f), antialias=a) for f, a in kinds
    ] + [
        t.RandomResizedCrop(30, (0.9, 1.0), (2.9, 3.0)),
    ]


def _whitening(t: Any, torch: Any) -> list[Any]:
    n = 3 * 26 * 34
    matrix = rand(torch, n, 5, seed=4) @ rand(torch, 5, n, seed=5) / n
    return [t.LinearTransformation(matrix, rand(torch, n, seed=6))]


def _converts(t: Any, torch: Any) -> list[Any]:
    kinds = (torch.float32, torch.float64, torch.uint8, torch.int16, torch.int32, torch.int64)
    scaled = [t.ConvertImageDtype(kind) for kind in kinds]
    for one in scaled[4:]:
        _only("ui", one)  # floats do not fit: an error
    more = (
        [_only("ufi", t.ToDtype(k, scale=s)) for k in kinds[:4] for s in (True, False)]
        if hasattr(t, "ToDtype")
        else []
    )
    return scaled + more


def _policies(t: Any, _: Any) -> list[Any]:
    return [
        t.AutoAugment(policy, interpolation=_filter(f))
        for policy, f in zip(
            importlib.import_module("torchvision.transforms").AutoAugmentPolicy,
            ("NEAREST", "BILINEAR", "NEAREST"),
            strict=True,
        )
    ]


def _pipelines(t: Any, torch: Any) -> list[Any]:
    training = [t.RandomResizedCrop(16), t.RandomHorizontalFlip(), t.TrivialAugmentWide()]
    numbers = [
        t.ConvertImageDtype(torch.float32),
        t.Normalize([0.48, 0.46, 0.41], [0.23, 0.22, 0.22]),
        t.RandomErasing(0.9),
    ]
    some = [t.RandomRotation(20), t.ColorJitter(0.3), t.RandomInvert(1.0)]
    return [
        _only("u", t.Compose(training + numbers)),
        _only("p", t.Compose([*training, t.PILToTensor(), *numbers])),
        t.Compose([t.RandomApply(some, 0.6), t.RandomOrder(some), t.RandomChoice(some)]),
    ]


# name: (transforms, inputs)
IMAGES: dict[str, tuple[Make, str]] = {
    "Resize": (_resizes, "ufpbs"),
    "CenterCrop": (
        lambda t, _: [t.CenterCrop(16), t.CenterCrop((15, 41)), t.CenterCrop(60)],
        "ufpbl",
    ),
    "RandomCrop": (_crops, "ufpb"),
    "RandomResizedCrop": (_resized_crops, "ufpg"),
    "Pad": (_pads, "ufpb"),
    "RandomHorizontalFlip": (lambda t, _: [t.RandomHorizontalFlip()], "ufpbi"),
    "RandomVerticalFlip": (lambda t, _: [t.RandomVerticalFlip(0.4)], "ufpbi"),
    "ColorJitter": (
        lambda t, _: [
            t.ColorJitter(0.4, 0.3, 0.5, 0.2),
            t.ColorJitter(brightness=(0.5, 2)),
            t.ColorJitter(contrast=0.9),
            t.ColorJitter(saturation=0.9),
            t.ColorJitter(hue=(-0.5, 0.5)),
        ],
        "ufpdb",
    ),
    "RandomRotation": (_rotations, "ufpb"),
    "RandomAffine": (_affines, "ufpb"),
    "RandomPerspective": (
        lambda t, _: [
            t.RandomPerspective(0.5, 0.9),
            t.RandomPerspective(0.3, 1.0, _filter("NEAREST"), fill=3),
        ],
        "ufpb",
    ),
    "ElasticTransform": (
        lambda t, _: [
            t.ElasticTransform(),
            t.ElasticTransform([20.0, 60.0], [2.0, 4.0], _filter("NEAREST"), fill=2),
        ],
        "ufp",
    ),
    "GaussianBlur": (
        lambda t, _: [t.GaussianBlur(5), t.GaussianBlur((3, 7), (0.1, 3.0))],
        "ufpbgd",
    ),
    "RandomErasing": (
        lambda t, _: [
            t.RandomErasing(0.9),
            t.RandomErasing(1.0, value="random"),
            t.RandomErasing(1.0, (0.1, 0.5), (0.2, 4), value=[1, 2, 3]),
        ],
        "ufd",
    ),
    "RandomGrayscale": (lambda t, _: [t.RandomGrayscale(0.5)], "ufpb"),
    "Grayscale": (lambda t, _: [t.Grayscale(), t.Grayscale(3)], "ufpdi"),
    "Normalize": (
        lambda t, _: [
            t.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            t.Normalize([0.5], [0.1]),
        ],
        "fds",
    ),
    "RandomPosterize": (lambda t, _: [t.RandomPosterize(3), t.RandomPosterize(1, 1.0)], "upb"),
    "RandomSolarize": (
        lambda t, _: [_only("upb", t.RandomSolarize(128, 1.0)), _only("f", t.RandomSolarize(0.3))],
        "ufpb",
    ),
    "RandomEqualize": (lambda t, _: [t.RandomEqualize(1.0), t.RandomEqualize()], "upb"),
    "RandomAutocontrast": (lambda t, _: [t.RandomAutocontrast(1.0)], "ufpbd"),
    "RandomAdjustSharpness": (
        lambda t, _: [t.RandomAdjustSharpness(f, 1.0) for f in (0.0, 0.5, 2.0)],
        "ufpbd",
    ),
    "RandomInvert": (lambda t, _: [t.RandomInvert()], "ufpbi"),
    "AutoAugment": (_policies, "upb"),
    "RandAugment": (lambda t, _: [t.RandAugment(), t.RandAugment(4, 25, fill=3)], "upb"),
    "TrivialAugmentWide": (lambda t, _: [t.TrivialAugmentWide()], "upb"),
    "AugMix": (lambda t, _: [t.AugMix(), t.AugMix(7, 2, 3, 0.5, False)], "upb"),
    "FiveCrop": (lambda t, _: [t.FiveCrop((10, 12))], "ufpb"),
    "TenCrop": (lambda t, _: [t.TenCrop(9), t.TenCrop(9, vertical_flip=True)], "ufpb"),
    "LinearTransformation": (_whitening, "f"),
    "ConvertImageDtype": (_converts, "ufdi"),
    "ToTensor": (lambda t, _: [t.ToTensor()], "pal"),
    "PILToTensor": (lambda t, _: [t.PILToTensor()], "pl"),
    "ToPILImage": (lambda t, _: [t.ToPILImage(), _only("ufa", t.ToPILImage("RGB"))], "ufda"),
    "pipelines": (_pipelines, "up"),
}


def _noise(t: Any, _: Any) -> list[Any]:
    return [t.GaussianNoise(), t.GaussianNoise(0.1, 0.3, clip=False)]


# those that the second version alone has
NEWER: dict[str, tuple[Make, str]] = {
    "GaussianNoise": (_noise, "ufb"),
    "RandomChannelPermutation": (lambda t, _: [t.RandomChannelPermutation()], "ufpb"),
    "RandomPhotometricDistort": (lambda t, _: [t.RandomPhotometricDistort(p=0.7)], "ufpb"),
    "RandomZoomOut": (lambda t, _: [t.RandomZoomOut(4), t.RandomZoomOut((1, 2, 3), p=0.9)], "ufpb"),
    "ScaleJitter": (
        lambda t, _: [t.ScaleJitter((20, 30)), t.ScaleJitter((9, 9), (0.5, 1))],
        "ufpb",
    ),
    "RandomShortestSize": (lambda t, _: [t.RandomShortestSize([9, 14, 30], 33)], "ufpb"),
    "RandomResize": (lambda t, _: [t.RandomResize(8, 40)], "ufpb"),
    "RGB": (lambda t, _: [t.RGB()], "upl"),
    "ToImage": (
        lambda t, torch: [t.ToImage(), t.Compose([t.ToImage(), t.ToDtype(torch.float32, True)])],
        "upal",
    ),
    "ToPureTensor": (lambda t, _: [t.Compose([t.ToImage(), t.ToPureTensor()])], "up"),
    "Identity": (lambda t, _: [t.Identity(), t.Lambda(lambda x: x[..., 0])], "uf"),
    "UniformTemporalSubsample": (lambda t, _: [t.UniformTemporalSubsample(1)], "b"),
}


def _sample(torch: Any) -> dict[str, Any]:
    """A sample of detection: an image, boxes of three forms, masks, key points, labels."""
    tv = importlib.import_module("torchvision.tv_tensors")
    boxes = torch.tensor([[2.0, 3, 10, 12], [5, 5, 20, 18], [15, 8, 33, 25], [1, 1, 2, 3]])
    sizes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    about = {"canvas_size": (26, 34)}
    return {
        "image": tv.Image(integers(torch, 256, 3, 26, 34).to(torch.uint8)),
        "video": tv.Video(integers(torch, 256, 4, 3, 26, 34, seed=2).to(torch.uint8)),
        "boxes": tv.BoundingBoxes(boxes, format="XYXY", **about),
        "sizes": tv.BoundingBoxes(sizes, format="XYWH", **about),
        "whole": tv.BoundingBoxes(boxes.long(), format="XYXY", **about),
        "centres": tv.BoundingBoxes(
            torch.cat([boxes[:, :2] + sizes[:, 2:] / 2, sizes[:, 2:]], 1), format="CXCYWH", **about
        ),
        "turned": tv.BoundingBoxes(
            torch.cat([boxes[:, :2] + sizes[:, 2:] / 2, sizes[:, 2:], boxes[:, 3:] * 7], 1),
            format="CXCYWHR",
            **about,
        ),
        "points": tv.KeyPoints(boxes.view(4, 2, 2), **about),
        "mask": tv.Mask(integers(torch, 2, 4, 26, 34, seed=3).to(torch.uint8)),
        "labels": torch.arange(4),
        "name": "a sample",
    }


def _one_form(sample: dict[str, Any]) -> dict[str, Any]:
    """What transforms that drop boxes take: boxes of one form."""
    return {k: sample[k] for k in ("image", "boxes", "mask", "labels")}


def _samples(make: Make, keep: Callable[[Any], Any], torch: Any) -> Any:
    from torchvision.transforms import v2

    return [_called(torch, t, keep(_sample(torch))) for t in make(v2, torch)]


def _formats(t: Any, _: Any) -> list[Any]:
    clamp = [t.ClampBoundingBoxes()]
    return [t.ConvertBoundingBoxFormat(f) for f in ("XYXY", "XYWH", "CXCYWH")] + clamp


def _upright(sample: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in sample.items() if k != "turned"}


SAMPLES: dict[str, tuple[Make, Callable[[Any], Any]]] = {
    "Resize": (lambda t, _: [t.Resize((13, 40)), t.Resize(11)], dict),
    "CenterCrop": (lambda t, _: [t.CenterCrop(16), t.CenterCrop((15, 41))], dict),
    "Pad": (lambda t, _: [t.Pad([1, 2, 3, 4], 2)], dict),
    "RandomCrop": (lambda t, _: [t.RandomCrop(12), t.RandomCrop(30, 5)], dict),
    "RandomResizedCrop": (lambda t, _: [t.RandomResizedCrop((14, 10))], dict),
    "RandomHorizontalFlip": (lambda t, _: [t.RandomHorizontalFlip()], dict),
    "RandomVerticalFlip": (lambda t, _: [t.RandomVerticalFlip()], dict),
    "RandomRotation": (lambda t, _: _rotations(t, _)[:3], dict),
    "RandomAffine": (_affines, dict),
    "RandomPerspective": (lambda t, _: [t.RandomPerspective(0.5, 1.0)], dict),
    "ElasticTransform": (lambda t, _: [t.ElasticTransform()], dict),
    "RandomZoomOut": (lambda t, _: [t.RandomZoomOut(4)], dict),
    "ScaleJitter": (lambda t, _: [t.ScaleJitter((20, 30))], dict),
    "RandomShortestSize": (lambda t, _: [t.RandomShortestSize([9, 14, 30], 33)], dict),
    "RandomIoUCrop": (lambda t, _: [t.RandomIoUCrop(), t.RandomIoUCrop(0.5, 0.9)], _one_form),
    "SanitizeBoundingBoxes": (
        lambda t, _: [
            t.SanitizeBoundingBoxes(5),
            t.SanitizeBoundingBoxes(min_area=4),
            t.Compose([t.RandomIoUCrop(), t.SanitizeBoundingBoxes()]),
        ],
        _one_form,
    ),
    "formats": (_formats, _upright),
    "RandomErasing": (lambda t, _: [t.RandomErasing(1.0)], dict),
    "detection": (
        lambda t, torch: [
            t.Compose(
                [
                    t.RandomPhotometricDistort(),
                    t.RandomZoomOut(fill=0),
                    t.RandomIoUCrop(),
                    t.RandomHorizontalFlip(),
                    t.Resize((24, 24)),
                    t.SanitizeBoundingBoxes(),
                    t.ToDtype(torch.float32, scale=True),
                ]
            )
        ],
        _one_form,
    ),
}


def _mixes(torch: Any) -> Any:
    """MixUp and CutMix on batches with labels as numbers and as one-hot rows."""
    from torchvision.transforms import v2

    images = integers(torch, 256, 4, 3, 12, 15).to(torch.uint8)
    labels = integers(torch, 5, 4, seed=1)
    hot = torch.nn.functional.one_hot(labels, 5).float()
    found = []
    for t in (
        v2.MixUp(num_classes=5),
        v2.CutMix(num_classes=5),
        v2.MixUp(alpha=0.3, num_classes=5),
    ):
        found += [_called(torch, t, images.float() / 255, y) for y in (labels, hot)]
    return found


def _workers(torch: Any) -> Any:
    """A loader whose workers draw."""
    from torchvision.datasets import FakeData
    from torchvision.transforms import v2

    steps = [
        v2.ToImage(),
        v2.RandomResizedCrop(8),
        v2.RandAugment(),
        v2.ToDtype(torch.float32, scale=True),
    ]
    made = v2.Compose(steps)
    loader = torch.utils.data.DataLoader(
        FakeData(6, (3, 16, 16), 3, made), 2, shuffle=True, num_workers=1
    )
    _seed(torch, 3)
    return list(loader)


def _gradients(torch: Any) -> Any:
    """Transforms of floats are differentiable."""
    from torchvision.transforms import v2

    found = []
    for t in (
        v2.Resize(11),
        v2.GaussianBlur(5),
        v2.RandomPerspective(p=1.0, fill=None),
        v2.ColorJitter(0.4, 0.3, 0.5),
    ):
        x = rand(torch, 3, 16, 18, seed=3).sigmoid().requires_grad_()
        _seed(torch, 0)
        (t(x) ** 2).sum().backward()
        found.append(x.grad)
    return found


CASES: dict[str, Callable[[Any], Any]] = {
    **{
        f"v{v} {n}": functools.partial(_images, m, k, v)
        for n, (m, k) in IMAGES.items()
        for v in (1, 2)
    },
    **{f"v2 {n}": functools.partial(_images, m, k, 2) for n, (m, k) in NEWER.items()},
    **{f"boxes {n}": functools.partial(_samples, m, k) for n, (m, k) in SAMPLES.items()},
    "v2 MixUp and CutMix": _mixes,
    "workers": _workers,
    "gradients": _gradients,
}
