"""Libraries written for PyTorch, unmodified, on graphtorch and on PyTorch. `tools/libraries.py`
runs many more."""

from __future__ import annotations

import importlib.util

import pytest

from libraries.running import difference, run

pytest.importorskip("torch")

SELECTION = [
    (
        "vision",
        1e-4,
        "torchvision",
        (
            "resnet18",
            "mobilenet_v3_small",
            "vit_b_32",
            "operators",
            "transforms",
            "subclasses",
            "features",
        ),
    ),
    (
        "augmentation",
        1e-6,
        "torchvision.transforms",
        (
            "v1 ColorJitter",
            "v2 RandomResizedCrop",
            "v2 RandomErasing",
            "v2 RandAugment",
            "boxes detection",
        ),
    ),
    (
        "language+generation+exporting",
        1e-3,
        "transformers",
        (
            "bert",
            "gpt2",
            "llama",
            "t5",
            "vit",
            "falcon",
            "gpt2 generates",
            "pipelines",
            "bert exported",
        ),
    ),
    (
        "metrics",
        1e-4,
        "torchmetrics",
        (
            "MulticlassAccuracy",
            "BinaryAUROC",
            "R2Score",
            "PearsonCorrCoef",
            "StructuralSimilarityIndexMeasure",
        ),
    ),
    ("training", 1e-4, "einops", ("einops", "safetensors")),
]


@pytest.mark.parametrize(
    ("module", "tolerance", "package", "names"), SELECTION, ids=[s[2] for s in SELECTION]
)
def test_a_library_computes_what_it_computes_on_pytorch(
    module: str, tolerance: float, package: str, names: tuple[str, ...]
) -> None:
    if importlib.util.find_spec(package.partition(".")[0]) is None:
        pytest.skip(f"{package} is not installed")
    mine, other = run("graphtorch", module, names), run("torch", module, names)
    errors = {n: r[n] for r in (mine, other) for n in names if isinstance(r[n], str)}
    assert not errors
    far = {n: difference(mine[n], other[n]) for n in names}
    assert {n: d for n, d in far.items() if d > tolerance} == {}
