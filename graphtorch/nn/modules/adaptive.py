"""Softmax over many classes in clusters (https://arxiv.org/abs/1609.04309)."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from ..._deferred.storage import recorder
from ..._deferred.tensor import Tensor
from ..._ops.base import FUNCTIONS
from .. import functional as F
from .container import ModuleList, Sequential
from .linear import Linear
from .module import Module

ASMoutput = namedtuple("ASMoutput", ["output", "loss"])


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-probabilities of `n_classes` classes sorted by frequency, with fewer weights for the rare
    ones.

    The classes before ``cutoffs[0]`` and one entry for each cluster of later ones make up the head;
    a cluster multiplies its entry by a softmax of its own, over a projection to ``in_features /
    div_value^i``. All clusters are computed for all rows, so that no size depends on data.

    Args:
        cutoffs: increasing, between 1 and ``n_classes - 1``: where clusters begin.
        head_bias: whether the head has a bias.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        cutoffs = list(cutoffs)
        if not cutoffs:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        if (
            cutoffs != sorted(set(cutoffs))
            or cutoffs[0] <= 0
            or cutoffs[-1] > n_classes - 1
            or any(int(c) != c for c in cutoffs)
        ):
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an "
                "increasing order, where each value is between 1 and n_classes-1: got "
                f"{cutoffs} for n_classes={n_classes}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*cutoffs, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = cutoffs[0]
        self.n_clusters = len(cutoffs)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // div_value ** (i + 1))
            classes = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, hidden, False, device, dtype),
                    Linear(hidden, classes, False, device, dtype),
                )
            )

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for layer in (self.head, *(part for cluster in self.tail for part in cluster)):
            layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> ASMoutput:
        """The log-probabilities [N] of classes `target_` [N] for `input_` [N, in_features] (or []
        for [in_features]), and minus their mean.
        """
        batched = target_.dim() > 0
        self._check(input_, target_)
        x, target = (input_, target_) if batched else (input_.unsqueeze(0), target_.unsqueeze(0))
        column = target.unsqueeze(1)
        head_index, output = column, 0.0
        for i, cluster in enumerate(self.tail):
            low, high = self.cutoffs[i], self.cutoffs[i + 1]
            # a class beyond the last is out of range where it is looked up
            last = i + 1 == self.n_clusters
            inside = column >= low if last else (column >= low) & (column < high)
            within = (
                (column - low).clamp(min=0) if last else (column - low).clamp(0, high - low - 1)
            )
            found = F.log_softmax(cluster(x), 1).gather(1, within)
            output = output + FUNCTIONS["where"](inside, found, 0.0)
            head_index = FUNCTIONS["where"](inside, self.shortlist_size + i, head_index)
        output = (output + F.log_softmax(self.head(x), 1).gather(1, head_index)).squeeze(1)
        loss = (-output).mean()
        return ASMoutput(output if batched else output.squeeze(0), loss)

    def _check(self, input: Tensor, target: Tensor) -> None:
        if target.dim() > 1:
            raise RuntimeError(
                f"0D or 1D target tensor expected, multi-target not supported: got "
                f"{list(target.shape)}"
            )
        if target.dim() == 1 and input.shape[0] != target.shape[0]:
            raise RuntimeError(
                "Input and target should have the same size in the batch dimension: got "
                f"{list(input.shape)} and {list(target.shape)}"
            )
        if input.dim() != target.dim() + 1:
            raise RuntimeError(
                f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, "
                f"but found inputs with size {input.size()}"
            )
        if recorder.capture is None and target.numel():
            low, high = int(target.min().item()), int(target.max().item())
            if low < 0 or high >= self.n_classes:
                raise RuntimeError(
                    f"Target values should be in [0, {self.n_classes - 1}], but values in "
                    f"range [{low}, {high}] were found."
                )

    def log_prob(self, input: Tensor) -> Tensor:
        """Log-probabilities [N, n_classes] for [N, in_features]."""
        return self._full(input, self.head(input))

    def _full(self, input: Tensor, head_output: Tensor) -> Tensor:
        head = F.log_softmax(head_output, 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            at = self.shortlist_size + i
            parts.append(F.log_softmax(cluster(input), 1) + head[:, at : at + 1])
        return FUNCTIONS["cat"](parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class [N] for [N, in_features]: where the head's largest entry is a
        class, that class, else the most probable of all.
        """
        head = self.head(input)
        best = head.argmax(1)
        return FUNCTIONS["where"](
            best < self.shortlist_size, best, self._full(input, head).argmax(1)
        )
