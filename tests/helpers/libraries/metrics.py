"""Cases of torchmetrics: two batches, what they give together, and again after a reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libraries.running import integers, rand

CASES: dict[str, Callable[[Any], Any]] = {}


def _classes(torch: Any) -> Any:
    return rand(torch, 40, 5).softmax(-1), integers(torch, 5, 40, seed=1)


def _binary(torch: Any) -> Any:
    return rand(torch, 40).sigmoid(), integers(torch, 2, 40, seed=1)


def _labels(torch: Any) -> Any:
    return rand(torch, 40, 4).sigmoid(), integers(torch, 2, 40, 4, seed=1)


def _numbers(torch: Any) -> Any:
    x = rand(torch, 40)
    return x, x + 0.3 * rand(torch, 40, seed=1)


def _positive(torch: Any) -> Any:
    return [t.abs() + 0.1 for t in _numbers(torch)]


def _images(torch: Any) -> Any:
    x = rand(torch, 4, 3, 48, 48).sigmoid()
    return x * 0.9 + 0.05, x


def _sounds(torch: Any) -> Any:
    x = rand(torch, 4, 200)
    return x + 0.1 * rand(torch, 4, 200, seed=1), x


def add(part: str, name: str, data: Callable[[Any], Any], **options: Any) -> None:
    """A case for a metric of a part of the library."""

    def case(torch: Any) -> Any:
        import torchmetrics

        metric = getattr(getattr(torchmetrics, part), name)(**options)
        a, b = data(torch)
        half = len(a) // 2
        steps = [metric(a[:half], b[:half]), metric(a[half:], b[half:])]
        found = [steps, metric.compute()]
        metric.reset()
        metric.update(a, b)
        return [*found, metric.compute()]

    CASES[name] = case


KINDS = (
    "Accuracy",
    "Precision",
    "Recall",
    "F1Score",
    "Specificity",
    "StatScores",
    "ConfusionMatrix",
    "CohenKappa",
    "MatthewsCorrCoef",
    "JaccardIndex",
    "HammingDistance",
    "AUROC",
    "AveragePrecision",
    "CalibrationError",
)
for _kind in KINDS:
    add("classification", f"Multiclass{_kind}", _classes, num_classes=5)
    add("classification", f"Binary{_kind}", _binary)
    if _kind not in ("CohenKappa", "CalibrationError"):
        add("classification", f"Multilabel{_kind}", _labels, num_labels=4)
for _name in (
    "MeanSquaredError",
    "MeanAbsoluteError",
    "R2Score",
    "PearsonCorrCoef",
    "SpearmanCorrCoef",
    "ExplainedVariance",
    "LogCoshError",
    "ConcordanceCorrCoef",
    "KendallRankCorrCoef",
    "RelativeSquaredError",
):
    add("regression", _name, _numbers)
for _name in (
    "MeanSquaredLogError",
    "MeanAbsolutePercentageError",
    "SymmetricMeanAbsolutePercentageError",
    "WeightedMeanAbsolutePercentageError",
    "TweedieDevianceScore",
):
    add("regression", _name, _positive)
add("image", "StructuralSimilarityIndexMeasure", _images, data_range=1.0)
add("image", "PeakSignalNoiseRatio", _images, data_range=1.0)
add("image", "UniversalImageQualityIndex", _images)
add("image", "SpectralAngleMapper", _images)
for _name in (
    "SignalNoiseRatio",
    "ScaleInvariantSignalDistortionRatio",
    "ScaleInvariantSignalNoiseRatio",
):
    add("audio", _name, _sounds)
