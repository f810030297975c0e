"""Functions of this package that PyTorch also offers as ``torch.name``, and as methods of
tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._deferred.tensor import Tensor
from ..._ops.base import with_out
from . import (
    activation,
    conv,
    distance,
    dropouts,
    loss,
    normalization,
    pooling,
    recurrent,
    sparse,
    spectral,
    vision,
)

Function = Callable[..., Any]


def _softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    return activation.softmax(input, dim, dtype=dtype)


def _log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    return activation.log_softmax(input, dim, dtype=dtype)


def _embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse_grad: bool = False,
) -> Tensor:
    row = None if padding_idx == -1 else padding_idx
    return sparse.embedding(
        indices, weight, row, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse_grad
    )


def _batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    return normalization.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )


def _instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    return normalization.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    return normalization.layer_norm(input, normalized_shape, weight, bias, eps)


def _dropout(input: Tensor, p: float, train: bool) -> Tensor:
    return dropouts.dropout(input, p, train)


def _dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    return dropouts.dropout(input, p, train, inplace=True)


def _feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    return (
        dropouts.dropout2d(input, p, train)
        if input.dim() in (3, 4)
        else dropouts.dropout3d(input, p, train)
    )


def _named(module: Any, names: str) -> dict[str, Function]:
    return {name: getattr(module, name) for name in names.split()}


FUNCTIONS: dict[str, Function] = {
    **_named(
        activation, "celu celu_ selu selu_ rrelu rrelu_ prelu hardshrink threshold threshold_ relu_"
    ),
    **_named(
        conv, "bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
    ),
    **_named(distance, "cosine_similarity pairwise_distance pdist"),
    **_named(dropouts, "alpha_dropout feature_alpha_dropout"),
    **_named(
        loss,
        "binary_cross_entropy_with_logits cosine_embedding_loss hinge_embedding_loss kl_div "
        "margin_ranking_loss poisson_nll_loss triplet_margin_loss",
    ),
    **_named(normalization, "group_norm rms_norm"),
    **_named(
        pooling,
        "adaptive_avg_pool1d adaptive_max_pool1d avg_pool1d max_pool1d max_pool2d max_pool3d "
        "max_pool1d_with_indices",
    ),
    **_named(
        recurrent, "gru gru_cell lstm lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell"
    ),
    **_named(spectral, "istft stft"),
    **_named(vision, "channel_shuffle pixel_shuffle pixel_unshuffle"),
    "batch_norm": _batch_norm,
    "dropout": _dropout,
    "dropout_": _dropout_,
    "embedding": _embedding,
    "feature_dropout": _feature_dropout,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "log_softmax": with_out("log_softmax", _log_softmax),
    "softmax": with_out("softmax", _softmax),
}
METHODS: dict[str, Function] = {
    "hardshrink": activation.hardshrink,
    "log_softmax": _log_softmax,
    "prelu": activation.prelu,
    "istft": spectral.istft,
    "softmax": _softmax,
    "stft": spectral.stft,
}
