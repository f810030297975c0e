"""Functions behind the layers of `nn`. Each checks its arguments and applies ops of the IR to
tensors."""

from __future__ import annotations

import sys

from ..._ops.accept import accepting
from ..._torch.absent import attribute_of
from .activation import *  # noqa: F403
from .activation import __all__ as _activation
from .attention import scaled_dot_product_attention
from .conv import (
    bilinear,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    linear,
)
from .ctc import ctc_loss
from .distance import cosine_similarity, normalize, pairwise_distance, pdist
from .dropouts import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from .embedding_bag import embedding_bag
from .fractional import *  # noqa: F403
from .fractional import __all__ as _fractional
from .grid import affine_grid, grid_sample
from .loss import *  # noqa: F403
from .loss import __all__ as _loss
from .multi_head import multi_head_attention_forward
from .normalization import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from .padding import pad
from .pooling import *  # noqa: F403
from .pooling import __all__ as _pooling
from .sparse import embedding, one_hot
from .vision import (
    channel_shuffle,
    fold,
    interpolate,
    pixel_shuffle,
    pixel_unshuffle,
    unfold,
    upsample,
    upsample_bilinear,
    upsample_nearest,
)

__all__ = [
    *_activation,
    *_fractional,
    *_loss,
    *_pooling,
    "affine_grid",
    "alpha_dropout",
    "batch_norm",
    "bilinear",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_similarity",
    "ctc_loss",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "embedding",
    "embedding_bag",
    "feature_alpha_dropout",
    "fold",
    "grid_sample",
    "group_norm",
    "instance_norm",
    "interpolate",
    "layer_norm",
    "linear",
    "local_response_norm",
    "multi_head_attention_forward",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pdist",
    "pixel_shuffle",
    "pixel_unshuffle",
    "rms_norm",
    "scaled_dot_product_attention",
    "unfold",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]

_files = [module for name, module in sys.modules.items() if name.startswith(f"{__name__}.")]
for _name in __all__:  # here and in their files: the layers take them from either
    _function = globals()[_name]
    _taking = accepting(_name, _function, __name__)
    for _names in (globals(), *(vars(module) for module in _files)):
        if _names.get(_name) is _function:
            _names[_name] = _taking

# not loaded before it is used, as few programs do
__getattr__ = attribute_of(__name__, (), {"linear_cross_entropy": ".classifier"})
