"""Activation layers, and attention; each is a function of `nn.functional`."""

from __future__ import annotations

from typing import Any

from ..._deferred.tensor import Tensor
from .. import functional as F
from .. import init
from ..functional.multi_head import Projections, additive_mask, attend
from ..parameter import Parameter
from ._build import buffer, parameter
from ._thin import inplace_note, thin, with_inplace
from .linear import NonDynamicallyQuantizableLinear
from .module import Module

Sigmoid = thin("Sigmoid", F.sigmoid, lambda: None, "1 / (1 + exp(-x)).")
Tanh = thin("Tanh", F.tanh, lambda: None, "Hyperbolic tangent.")
LogSigmoid = thin("LogSigmoid", F.logsigmoid, lambda: None, "log(sigmoid(x)).")
Softsign = thin("Softsign", F.softsign, lambda: None, "x / (1 + |x|).")
Tanhshrink = thin("Tanhshrink", F.tanhshrink, lambda: None, "x - tanh(x).")

ReLU = thin("ReLU", F.relu, lambda inplace=False: None, "max(x, 0).", shown=inplace_note)
SiLU = thin("SiLU", F.silu, lambda inplace=False: None, "x sigmoid(x).", shown=inplace_note)
Mish = thin("Mish", F.mish, lambda inplace=False: None, "x tanh(softplus(x)).", shown=inplace_note)
SELU = thin(
    "SELU", F.selu, lambda inplace=False: None, "Self-normalising `ELU`.", shown=inplace_note
)
Hardswish = thin(
    "Hardswish", F.hardswish, lambda inplace=False: None, "x min(max(x + 3, 0), 6) / 6."
)
Hardsigmoid = thin(
    "Hardsigmoid", F.hardsigmoid, lambda inplace=False: None, "min(max(x + 3, 0), 6) / 6."
)

ELU = thin(
    "ELU",
    F.elu,
    lambda alpha=1.0, inplace=False: None,
    "x where x > 0, else alpha (exp(x) - 1).",
    shown=with_inplace("alpha={self.alpha}"),
)
CELU = thin(
    "CELU",
    F.celu,
    lambda alpha=1.0, inplace=False: None,
    "x where x > 0, else alpha (exp(x / alpha) - 1).",
    shown=with_inplace("alpha={self.alpha}"),
)
LeakyReLU = thin(
    "LeakyReLU",
    F.leaky_relu,
    lambda negative_slope=0.01, inplace=False: None,
    "x where x > 0, else negative_slope x.",
    shown=with_inplace("negative_slope={self.negative_slope}"),
)
RReLU = thin(
    "RReLU",
    F.rrelu,
    lambda lower=1.0 / 8, upper=1.0 / 3, inplace=False: None,
    "`LeakyReLU` with random slopes in training.",
    added=("training",),
    shown=with_inplace("lower={self.lower}, upper={self.upper}"),
)
Threshold = thin(
    "Threshold",
    F.threshold,
    lambda threshold, value, inplace=False: None,
    "x where x > threshold, else value.",
    shown=with_inplace("threshold={self.threshold}, value={self.value}"),
)

GELU = thin(
    "GELU",
    F.gelu,
    lambda approximate="none": None,
    "x Phi(x), or its tanh approximation.",
    shown="approximate={approximate!r}",
)
GLU = thin(
    "GLU",
    F.glu,
    lambda dim=-1: None,
    "a sigmoid(b) for the halves a, b of x along dim.",
    shown="dim={dim}",
)
Hardshrink = thin(
    "Hardshrink",
    F.hardshrink,
    lambda lambd=0.5: None,
    "x where |x| > lambd, else 0.",
    shown="{lambd}",
)
Softshrink = thin(
    "Softshrink",
    F.softshrink,
    lambda lambd=0.5: None,
    "x moved towards 0 by lambd.",
    shown="{lambd}",
)
Softplus = thin(
    "Softplus",
    F.softplus,
    lambda beta=1.0, threshold=20.0: None,
    "log(1 + exp(beta x)) / beta.",
    shown="beta={beta}, threshold={threshold}",
)
Softmin = thin(
    "Softmin", F.softmin, lambda dim=None: None, "softmax(-x) along dim.", shown="dim={dim}"
)
Softmax = thin(
    "Softmax",
    F.softmax,
    lambda dim=None: None,
    "exp(x) / sum(exp(x)) along dim.",
    shown="dim={dim}",
)
LogSoftmax = thin(
    "LogSoftmax",
    F.log_softmax,
    lambda dim=None: None,
    "log(softmax(x)) along dim.",
    shown="dim={dim}",
)


class Hardtanh(Module):
    """x cut to [min_val, max_val]. Raises AssertionError where max_val <= min_val."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__()
        if max_val <= min_val:
            raise AssertionError(
                f"max_val must be larger than min_val, got {max_val} and {min_val}"
            )
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return with_inplace("min_val={self.min_val}, max_val={self.max_val}")(self)


class ReLU6(Hardtanh):
    """min(max(x, 0), 6)."""

    def __init__(self, inplace: bool = False):
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return inplace_note(self)


class PReLU(Module):
    """x where x >= 0, else weight x; `num_parameters` is 1 or the number of channels (dim 1)."""

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        self.num_parameters = num_parameters
        sizes = num_parameters if isinstance(num_parameters, (tuple, list)) else (num_parameters,)
        self.init = init
        self.weight = Parameter(buffer("ones", sizes, device, dtype) * init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softmax2d(Module):
    """Softmax over the channels of [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(
                f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead"
            )
        return F.softmax(input, -3)


class MultiheadAttention(Module):
    """`num_heads` attentions over parts of the embedding, side by side
    (https://arxiv.org/abs/1706.03762).

    Inputs are [L, N, E], with `batch_first` [N, L, E], or unbatched [L, E]; see
    `functional.multi_head_attention_forward`.

    Args:
        dropout: probability with which a share is dropped while training.
        bias: of the projections. add_bias_kv: one more, learned position of key and value.
        add_zero_attn: one more position of key and value, of zeros.
        kdim, vdim: sizes of key and value, default `embed_dim`; with others the projections have
            weights of their own instead of one `in_proj_weight`.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ):
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and "
                f"num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim == self.vdim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError(
                f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}"
            )
        shapes: dict[str, tuple[int, ...] | None] = {
            "in_proj_weight": (3 * embed_dim, embed_dim),
            "q_proj_weight": None,
            "k_proj_weight": None,
            "v_proj_weight": None,
        }
        if not self._qkv_same_embed_dim:
            shapes = {
                "in_proj_weight": None,
                "q_proj_weight": (embed_dim, embed_dim),
                "k_proj_weight": (embed_dim, self.kdim),
                "v_proj_weight": (embed_dim, self.vdim),
            }
        shapes["in_proj_bias"] = (3 * embed_dim,) if bias else None
        for name, shape in shapes.items():
            self.register_parameter(
                name, None if shape is None else parameter(shape, device, dtype)
            )
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype)
        self.bias_k = self.bias_v = None
        if add_bias_kv:
            self.bias_k, self.bias_v = (
                parameter((1, 1, embed_dim), device, dtype) for _ in range(2)
            )
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the projections anew (Glorot); biases are zero."""
        for weight in (
            self.in_proj_weight,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
        ):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        key_padding_mask = additive_mask(
            key_padding_mask, "key_padding_mask", query, attn_mask, "attn_mask"
        )
        attn_mask = additive_mask(attn_mask, "attn_mask", query)
        own = Projections(
            self.in_proj_weight,
            self.in_proj_bias,
            self.q_proj_weight,
            self.k_proj_weight,
            self.v_proj_weight,
            not self._qkv_same_embed_dim,
            self.out_proj.weight,
            self.out_proj.bias,
            self.bias_k,
            self.bias_v,
        )
        return attend(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            own,
            self.add_zero_attn,
            self.dropout if self.training else 0.0,
            key_padding_mask,
            need_weights,
            attn_mask,
            average_attn_weights,
            is_causal,
            self.batch_first,
            self.training,
        )

    def merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor
    ) -> tuple[Tensor | None, int | None]:
        """Both masks as one, and its kind: 1 a padding mask [N, L], 2 a mask [N, heads, L, L], None
        none."""
        if attn_mask is None:
            return key_padding_mask, None if key_padding_mask is None else 1
        n, length = query.shape[0], query.shape[1]
        shape = (n, self.num_heads, length, length)
        merged = attn_mask.reshape(shape) if attn_mask.dim() == 3 else attn_mask.expand(shape)
        if key_padding_mask is not None:
            merged = merged + key_padding_mask.reshape((n, 1, 1, length))
        return merged, 2
