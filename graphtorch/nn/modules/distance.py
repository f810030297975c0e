"""Distance layers."""

from __future__ import annotations

from .. import functional as F
from ._thin import thin

CosineSimilarity = thin(
    "CosineSimilarity",
    F.cosine_similarity,
    lambda dim=1, eps=1e-8: None,
    "Cosine of the angle between x1 and x2 along dim.",
)
PairwiseDistance = thin(
    "PairwiseDistance",
    F.pairwise_distance,
    lambda p=2.0, eps=1e-6, keepdim=False: None,
    "||x1 - x2 + eps||_p along the last dim.",
)
