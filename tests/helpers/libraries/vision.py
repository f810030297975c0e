"""Cases of torchvision: models, operators, transforms, data sets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from libraries.running import fill, integers, rand

Case = Callable[[Any], Any]
# billions of operations, or gigabytes
LARGE = {"vit_h_14", "regnet_y_128gf", "vit_l_16", "vit_l_32"}
SIZES = {
    "inception_v3": 96,
    "maxvit_t": 224,
    "alexnet": 96,
    "squeezenet1_0": 96,
    "squeezenet1_1": 96,
}
OPTIONS: dict[str, dict[str, Any]] = {"maxvit_t": {"input_size": (224, 224)}}
SMALL = {"min_size": 96, "max_size": 128}


def _classifier(name: str, torch: Any) -> Any:
    from torchvision import models

    options = {"image_size": 64} if name.startswith("vit") else OPTIONS.get(name, {})
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False}
    model = fill(torch, getattr(models, name)(weights=None, **options)).eval()
    size = SIZES.get(name, 64)
    with torch.no_grad():
        return model(rand(torch, 1, 3, size, size))


def _segmenter(name: str, torch: Any) -> Any:
    from torchvision.models import segmentation

    model = fill(torch, getattr(segmentation, name)(weights=None, weights_backbone=None)).eval()
    with torch.no_grad():
        return model(rand(torch, 1, 3, 65, 65))


def _detector(name: str, torch: Any, **options: Any) -> Any:
    from torchvision.models import detection

    model = fill(
        torch, getattr(detection, name)(weights=None, weights_backbone=None, **options)
    ).eval()
    with torch.no_grad():
        found = model(
            [rand(torch, 3, 80, 100, seed=1).sigmoid(), rand(torch, 3, 90, 70, seed=2).sigmoid()]
        )
    return [{k: v for k, v in one.items() if k in ("boxes", "scores", "labels")} for one in found]


HEADS = ("head", "rpn.head", "roi_heads.box_predictor", "roi_heads.keypoint_predictor")


def _detector_in_parts(name: str, torch: Any, **options: Any) -> Any:
    """A detector, what its heads say and what is selected by it.

    Of scores that differ in the last digit a selection may take another one. So what a head gave is
    compared, and replaced by numbers that are the same on both frameworks: what is selected then
    has to be the same.
    """
    from torchvision.models import detection

    model = fill(
        torch, getattr(detection, name)(weights=None, weights_backbone=None, **options)
    ).eval()
    given: list[Any] = []

    def replace(module: Any, inputs: Any, outputs: Any) -> Any:
        given.append(outputs)
        return _same_numbers(torch, outputs)

    for path, module in model.named_modules():
        if path in HEADS:
            module.register_forward_hook(replace)
    with torch.no_grad():
        found = model(
            [rand(torch, 3, 80, 100, seed=1).sigmoid(), rand(torch, 3, 90, 70, seed=2).sigmoid()]
        )
    assert given and all(len(one["boxes"]) for one in found), "nothing was compared"
    return [given, found]


def _same_numbers(torch: Any, x: Any) -> Any:
    """Other numbers in the place of those of tensors, which follow from the shapes alone."""
    if hasattr(x, "items"):
        return {k: _same_numbers(torch, v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(_same_numbers(torch, v) for v in x)
    return rand(torch, *x.shape, seed=sum(x.shape))


def _boxes(torch: Any, n: int, seed: int, size: float = 64.0) -> Any:
    draw = np.random.default_rng(seed)
    low = draw.uniform(0, size * 0.7, (n, 2))
    high = low + draw.uniform(2, size * 0.3, (n, 2))
    return torch.from_numpy(np.concatenate([low, high], 1).astype(np.float32))


def operators(torch: Any) -> Any:
    """Boxes, non-maximum suppression, regions with gradients."""
    from torchvision import ops

    a, b, many = _boxes(torch, 5, 1), _boxes(torch, 7, 2), _boxes(torch, 60, 3)
    scores = rand(torch, 60, seed=4)
    regions = torch.cat([torch.arange(5).remainder(2)[:, None].float(), a], 1)
    aligned = []
    x = rand(torch, 2, 3, 16, 16).requires_grad_()
    for ratio, flag in ((2, False), (2, True), (-1, True), (0, False)):
        y = ops.roi_align(x, regions, (3, 4), 0.25, ratio, flag)
        (y * rand(torch, *y.shape, seed=3)).sum().backward()
        aligned.append(y)
    return [
        ops.box_iou(a, b),
        ops.generalized_box_iou(a, b),
        ops.nms(many, scores, 0.3),
        ops.batched_nms(many, scores, torch.arange(60) % 3, 0.2),
        aligned,
        x.grad,
    ]


def transforms(torch: Any) -> Any:
    """Transforms that draw nothing, on tensors, Pillow images and boxes."""
    from PIL import Image
    from torchvision import transforms as v1
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    pixels = integers(torch, 256, 3, 24, 32).to(torch.uint8)
    given = [pixels, pixels.float() / 255, Image.fromarray(pixels.permute(1, 2, 0).numpy())]
    boxes = tv_tensors.BoundingBoxes(
        [[2.0, 3, 10, 12], [5, 5, 20, 18]], format="XYXY", canvas_size=(24, 32)
    )
    found: list[Any] = []
    for kind in (v1, v2):
        made = [
            kind.Resize((10, 12)),
            kind.CenterCrop(16),
            kind.Pad(3, fill=1),
            kind.FiveCrop(8),
            kind.Grayscale(3),
            kind.RandomHorizontalFlip(1.0),
            kind.RandomVerticalFlip(1.0),
            kind.RandomInvert(1.0),
            kind.RandomPosterize(3, 1.0),
            kind.RandomAutocontrast(1.0),
            kind.RandomEqualize(1.0),
            kind.RandomAdjustSharpness(2, 1.0),
            kind.RandomGrayscale(1.0),
        ]
        found += [t(x) for t in made for x in given if not (x is given[1] and _for_bytes(t))]
        found += [
            kind.Normalize([0.5] * 3, [0.2] * 3)(given[1]),
            kind.ConvertImageDtype(torch.float32)(pixels),
        ]
    for t in (v2.Resize((10, 12)), v2.RandomHorizontalFlip(1.0), v2.CenterCrop(16)):
        found += list(t(tv_tensors.Image(pixels), boxes))
    return found


def _for_bytes(transform: Any) -> bool:
    return type(transform).__name__ in ("RandomPosterize", "RandomEqualize")


def subclasses(torch: Any) -> Any:
    """tv_tensors: what stays an image, and what becomes a plain tensor."""
    from torchvision import tv_tensors

    image = tv_tensors.Image(integers(torch, 256, 3, 4, 5).to(torch.uint8))
    with tv_tensors.set_return_type("TVTensor"):
        kept = image + 1
    made = (
        image,
        image + 1,
        image.clone(),
        tv_tensors.wrap(image * 2, like=image),
        kept,
        image.sum(),
        image[0],
    )
    return [[type(x).__name__ for x in made], image + 1, repr(image)]


def features(torch: Any) -> Any:
    """Models cut by `torch.fx`."""
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    model = fill(torch, resnet18()).eval()
    cut = create_feature_extractor(model, {"layer1": "a", "layer3.0.relu": "b", "avgpool": "c"})
    return [cut(rand(torch, 1, 3, 64, 64)), get_graph_node_names(model)[1]]


def _classifiers() -> dict[str, Case]:
    try:
        from torchvision import models
    except ImportError:
        return {}
    return {
        n: functools.partial(_classifier, n)
        for n in models.list_models(module=models)
        if n not in LARGE
    }


CASES: dict[str, Case] = {
    **_classifiers(),
    **{
        n: functools.partial(_segmenter, n)
        for n in ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
    },
    **{
        n: functools.partial(_detector, n, **options)
        for n, options in {
            "fasterrcnn_resnet50_fpn": {"num_classes": 5, **SMALL},
            "retinanet_resnet50_fpn": {"num_classes": 5, **SMALL},
            "maskrcnn_resnet50_fpn": {"num_classes": 5, **SMALL},
            "ssd300_vgg16": {"num_classes": 5},
        }.items()
    },
    **{
        n: functools.partial(_detector_in_parts, n, **options)
        for n, options in {
            "fcos_resnet50_fpn": {"num_classes": 5, **SMALL},
            "ssdlite320_mobilenet_v3_large": {"num_classes": 5},
            "keypointrcnn_resnet50_fpn": {"num_keypoints": 5, **SMALL},
        }.items()
    },
    "operators": operators,
    "transforms": transforms,
    "subclasses": subclasses,
    "features": features,
}
