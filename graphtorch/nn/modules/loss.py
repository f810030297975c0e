"""Loss layers; each is a function of `nn.functional`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from ..functional.loss import legacy_reduction
from .module import Module


class _Loss(Module):
    reduction: str

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
    ):
        super().__init__()
        self.reduction = legacy_reduction(reduction, size_average, reduce)


class _WeightedLoss(_Loss):
    """A loss with a weight for each class, kept as a buffer."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ):
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


def _loss(
    name: str,
    function: Callable[..., Tensor],
    doc: str,
    *,
    order: str,
    weighted: bool = False,
    **options: Any,
) -> Any:
    """A loss class whose further constructor arguments are `options` (name = default).

    `order` names the positional ones; those of `options` that it leaves out are keyword only.
    """
    base: type[_Loss] = _WeightedLoss if weighted else _Loss
    names = order.split()

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) > len(names):
            raise TypeError(
                f"{name}.__init__() takes at most {len(names)} arguments ({order}), got {len(args)}"
            )
        given = dict(zip(names, args, strict=False))
        for key, value in kwargs.items():
            if key not in {*names, *options, "reduction"} or key in given:
                raise TypeError(
                    f"{name}.__init__() got an unexpected keyword argument '{key}'; "
                    f"expected {order}"
                )
            given[key] = value
        own = {k: given.pop(k, default) for k, default in options.items()}
        base.__init__(self, **given)
        for key, value in own.items():
            if key == "delta" and not isinstance(value, (float, int)):
                raise TypeError(f"delta must be a float or int, got: {type(value)}")
            if key == "pos_weight":
                self.register_buffer(key, value)
            else:
                setattr(self, key, value)

    def forward(self: Any, *inputs: Tensor) -> Tensor:
        passed = {key: getattr(self, key) for key in options}
        if weighted:
            passed["weight"] = self.weight
        return function(*inputs, reduction=self.reduction, **passed)

    return type(
        name,
        (base,),
        {"__init__": __init__, "forward": forward, "__doc__": doc, "__module__": __name__},
    )


_FLAGS = "size_average reduce reduction"
L1Loss = _loss("L1Loss", F.l1_loss, "|x - t|.", order=_FLAGS)
MSELoss = _loss("MSELoss", F.mse_loss, "(x - t)^2.", order=_FLAGS)
SmoothL1Loss = _loss(
    "SmoothL1Loss",
    F.smooth_l1_loss,
    "Quadratic below beta, linear above.",
    order=_FLAGS + " beta",
    beta=1.0,
)
HuberLoss = _loss(
    "HuberLoss",
    F.huber_loss,
    "Quadratic below delta, linear above.",
    order="reduction delta",
    delta=1.0,
)
NLLLoss = _loss(
    "NLLLoss",
    F.nll_loss,
    "-weight[t] logp[t].",
    weighted=True,
    order="weight size_average ignore_index reduce reduction",
    ignore_index=-100,
)
CrossEntropyLoss = _loss(
    "CrossEntropyLoss",
    F.cross_entropy,
    "`NLLLoss` of the log-softmax over classes (dim 1).",
    weighted=True,
    order="weight size_average ignore_index reduce reduction label_smoothing",
    ignore_index=-100,
    label_smoothing=0.0,
)
BCELoss = _loss(
    "BCELoss",
    F.binary_cross_entropy,
    "-(t log x + (1 - t) log(1 - x)).",
    weighted=True,
    order="weight " + _FLAGS,
)
BCEWithLogitsLoss = _loss(
    "BCEWithLogitsLoss",
    F.binary_cross_entropy_with_logits,
    "`BCELoss` of sigmoid(x).",
    weighted=True,
    order="weight " + _FLAGS + " pos_weight",
    pos_weight=None,
)
KLDivLoss = _loss(
    "KLDivLoss",
    F.kl_div,
    "t (log t - x) for log-probabilities x.",
    order=_FLAGS + " log_target",
    log_target=False,
)
PoissonNLLLoss = _loss(
    "PoissonNLLLoss",
    F.poisson_nll_loss,
    "exp(x) - t x.",
    order="log_input full size_average eps reduce reduction",
    log_input=True,
    full=False,
    eps=1e-8,
)
GaussianNLLLoss = _loss(
    "GaussianNLLLoss",
    F.gaussian_nll_loss,
    "0.5 (log var + (x - t)^2 / var).",
    order="full eps reduction",
    full=False,
    eps=1e-6,
)
HingeEmbeddingLoss = _loss(
    "HingeEmbeddingLoss",
    F.hinge_embedding_loss,
    "x where t = 1, max(0, margin - x) where t = -1.",
    order="margin " + _FLAGS,
    margin=1.0,
)
MarginRankingLoss = _loss(
    "MarginRankingLoss",
    F.margin_ranking_loss,
    "max(0, -t (x1 - x2) + margin).",
    order="margin " + _FLAGS,
    margin=0.0,
)
SoftMarginLoss = _loss("SoftMarginLoss", F.soft_margin_loss, "log(1 + exp(-t x)).", order=_FLAGS)
MultiLabelMarginLoss = _loss(
    "MultiLabelMarginLoss",
    F.multilabel_margin_loss,
    "Hinge loss between the listed classes and the others.",
    order=_FLAGS,
)
MultiLabelSoftMarginLoss = _loss(
    "MultiLabelSoftMarginLoss",
    F.multilabel_soft_margin_loss,
    "Mean over classes of `BCEWithLogitsLoss`.",
    weighted=True,
    order="weight " + _FLAGS,
)
MultiMarginLoss = _loss(
    "MultiMarginLoss",
    F.multi_margin_loss,
    "Hinge loss between the target and the other classes.",
    weighted=True,
    order="p margin weight " + _FLAGS,
    p=1,
    margin=1.0,
)
CosineEmbeddingLoss = _loss(
    "CosineEmbeddingLoss",
    F.cosine_embedding_loss,
    "1 - cos where t = 1, max(0, cos - margin) where t = -1.",
    order="margin " + _FLAGS,
    margin=0.0,
)
TripletMarginLoss = _loss(
    "TripletMarginLoss",
    F.triplet_margin_loss,
    "max(0, d(a, p) - d(a, n) + margin).",
    order="margin p eps swap " + _FLAGS,
    margin=1.0,
    p=2.0,
    eps=1e-6,
    swap=False,
)
TripletMarginWithDistanceLoss = _loss(
    "TripletMarginWithDistanceLoss",
    F.triplet_margin_with_distance_loss,
    "`TripletMarginLoss` with another distance.",
    order="",
    distance_function=None,
    margin=1.0,
    swap=False,
)


class CTCLoss(_Loss):
    """Minus the log-probability of all alignments of a target; see `functional.ctc_loss`."""

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        return F.ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
        )
