"""Activation layers; each is a function of `nn.functional`."""

from __future__ import annotations

from typing import Any

from ...tensor import Tensor
from .. import functional as F
from ..parameter import Parameter
from ._build import buffer
from ._thin import inplace_note, thin, with_inplace
from .module import Module

Sigmoid = thin("Sigmoid", F.sigmoid, lambda: None, "1 / (1 + exp(-x)).")
Tanh = thin("Tanh", F.tanh, lambda: None, "Hyperbolic tangent.")
LogSigmoid = thin("LogSigmoid", F.logsigmoid, lambda: None, "log(sigmoid(x)).")
Softsign = thin("Softsign", F.softsign, lambda: None, "x / (1 + |x|).")
Tanhshrink = thin("Tanhshrink", F.tanhshrink, lambda: None, "x - tanh(x).")

ReLU = thin("ReLU", F.relu, lambda inplace=False: None, "max(x, 0).", shown=inplace_note)
SiLU = thin("SiLU", F.silu, lambda inplace=False: None, "x sigmoid(x).", shown=inplace_note)
Mish = thin("Mish", F.mish, lambda inplace=False: None, "x tanh(softplus(x)).", shown=inplace_note)
SELU = thin("SELU", F.selu, lambda inplace=False: None, "Self-normalising `ELU`.", shown=inplace_note)
Hardswish = thin("Hardswish", F.hardswish, lambda inplace=False: None, "x min(max(x + 3, 0), 6) / 6.")
Hardsigmoid = thin("Hardsigmoid", F.hardsigmoid, lambda inplace=False: None, "min(max(x + 3, 0), 6) / 6.")

ELU = thin("ELU", F.elu, lambda alpha=1.0, inplace=False: None, "x where x > 0, else alpha (exp(x) - 1).",
           shown=with_inplace("alpha={self.alpha}"))
CELU = thin("CELU", F.celu, lambda alpha=1.0, inplace=False: None,
            "x where x > 0, else alpha (exp(x / alpha) - 1).",
            shown=with_inplace("alpha={self.alpha}"))
LeakyReLU = thin("LeakyReLU", F.leaky_relu, lambda negative_slope=0.01, inplace=False: None,
                 "x where x > 0, else "
                 "negative_slope x.", shown=with_inplace("negative_slope={self.negative_slope}"))
RReLU = thin("RReLU", F.rrelu, lambda lower=1.0 / 8, upper=1.0 / 3, inplace=False: None,
             "`LeakyReLU` with random slopes in training.", added=("training",),
             shown=with_inplace("lower={self.lower}, upper={self.upper}"))
Threshold = thin("Threshold", F.threshold, lambda threshold, value, inplace=False: None,
                 "x where x > threshold, else value.",
                 shown=with_inplace("threshold={self.threshold}, value={self.value}"))

GELU = thin("GELU", F.gelu, lambda approximate="none": None, "x Phi(x), or its tanh approximation.",
            shown="approximate={approximate!r}")
GLU = thin("GLU", F.glu, lambda dim=-1: None, "a sigmoid(b) for the halves a, b of x along dim.",
           shown="dim={dim}")
Hardshrink = thin("Hardshrink", F.hardshrink, lambda lambd=0.5: None, "x where |x| > lambd, else 0.",
                  shown="{lambd}")
Softshrink = thin("Softshrink", F.softshrink, lambda lambd=0.5: None, "x moved towards 0 by lambd.",
                  shown="{lambd}")
Softplus = thin("Softplus", F.softplus, lambda beta=1.0, threshold=20.0: None, "log(1 + exp(beta x)) / beta.",
                shown="beta={beta}, threshold={threshold}")
Softmin = thin("Softmin", F.softmin, lambda dim=None: None, "softmax(-x) along dim.", shown="dim={dim}")
Softmax = thin("Softmax", F.softmax, lambda dim=None: None, "exp(x) / sum(exp(x)) along dim.",
               shown="dim={dim}")
LogSoftmax = thin("LogSoftmax", F.log_softmax, lambda dim=None: None, "log(softmax(x)) along dim.",
                  shown="dim={dim}")


class Hardtanh(Module):
    """x cut to [min_val, max_val]. Raises AssertionError where max_val <= min_val."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__()
        if max_val <= min_val:
            raise AssertionError(f"max_val must be larger than min_val, got {max_val} and {min_val}")
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

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None):
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(buffer("ones", (num_parameters,), device, dtype) * init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Softmax2d(Module):
    """Softmax over the channels of [N, C, H, W] or [C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
        return F.softmax(input, -3)
