"""Every differentiable op record under `gradcheck` and `gradgradcheck`, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from attention_cases import ATTENTION
from elementwise_cases import named, operands, points
from factor_cases import FACTOR
from graphtorch._ops.base import run
from graphtorch.autograd import gradcheck, gradgradcheck
from graphtorch.ir import ops
from graphtorch.ir.graph import Type, Value, topological
from graphtorch.ir.op import OPS, NoGradient
from tensor_cases import CASES, Case
from vision_cases import VISION

APART = {
    **dict.fromkeys(
        ("scan", "cond", "while_loop"), "bodies that are graphs: tested with what makes them"
    ),
    **dict.fromkeys(
        ("bernoulli", "poisson", "binomial"),
        "its gradient is zero by definition; differences see the jumps",
    ),
    **dict.fromkeys(
        ("mersenne_poisson", "mersenne_binomial"), "its gradient is zero by definition"
    ),
    **dict.fromkeys(
        ("standard_gamma", "mersenne_gamma"),
        "samples by rejection jump; tests/frontend/test_special.py has its gradient",
    ),
    **dict.fromkeys(
        ("igamma", "igammac", "zeta"), "one operand only, or once only: test_special.py"
    ),
}
NO_SECOND: dict[str, str] = {}  # cases without a second derivative, and why

TEN = np.array([-2.3, -1.4, -0.8, -0.3, -0.1, 0.2, 0.45, 0.7, 1.3, 2.2])
UNIT = np.array([-0.9, -0.6, -0.25, 0.1, 0.3, 0.8])
ABOVE = np.array([1.2, 1.6, 2.5])
NUMBERS = [np.array(x) for x in (0.1, 0.9, 0.2, 0.3, 0.7, 0.01, 0.8)]
COMPLEX = np.array([0.3 + 0.4j, -1.2 + 0.7j, 2.1 - 1.3j])
MATRIX = np.array([[0.3, -1.2, 2.1], [1.7, 0.6, -0.4]])
ALONG = {"dims": (1,), "keepdim": False}
POOL = {"kernel": (2,), "stride": (2,), "padding": (0,), "ceil_mode": False}
MEAN_POOL = {**POOL, "count_include_pad": True, "divisor": None}
LINE = np.arange(6.0).reshape(1, 2, 3) * 0.7 - 1
PIXELS = np.sin(np.arange(24.0)).reshape(1, 4, 3, 2)
FILTERS = np.cos(np.arange(36.0)).reshape(2, 2, 3, 3)
TRANSFORMED = np.cos(np.arange(64.0)).reshape(16, 1, 2, 2)
STEP = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}

Sample = tuple[str, tuple[Any, ...], dict[str, Any]]


def plain(name: str, *arrays: Any, **attrs: Any) -> Sample:
    return name, arrays, attrs


SAMPLES: list[Sample] = [
    *[
        plain(name, *map(np.array, operands(name, points(name, case, "smooth"))), **case.attrs)
        for name, case in named()
        if not isinstance(OPS[name].vjp, NoGradient)
    ],
    *[plain(name, TEN) for name in ("i0", "i0e", "i1", "i1e")],
    *[plain("polygamma", np.concatenate([UNIT, ABOVE]), n=n) for n in (1, 2)],
    *[
        plain(name, COMPLEX)
        for name in ("abs", "angle", "conj", "exp", "imag", "log", "real", "sqrt", "sin")
    ],
    plain("add", COMPLEX, COMPLEX * 2),
    plain("adam_update", *[UNIT, UNIT * 2, UNIT + 1, UNIT + 2], *NUMBERS),
    plain("momentum_update", UNIT, UNIT * 2, UNIT + 1, *NUMBERS[:2], nesterov=True),
    plain("muladd", TEN, TEN[::-1].copy(), TEN * 0.5),
    plain("concat", TEN, UNIT, dim=0),
    *[plain("linear", x, MATRIX) for x in (LINE, LINE[0], LINE[0, 0])],
    *[plain("affine", LINE[0, :, 0], x, MATRIX) for x in (LINE, LINE[0], LINE[0, 0])],
    plain("affine", COMPLEX[:2], COMPLEX, MATRIX + 1j * MATRIX[::-1]),
    plain("mul", COMPLEX, COMPLEX + 1),
    *[plain("fft", COMPLEX, dim=0, inverse=inverse) for inverse in (False, True)],
    plain("complex", TEN, UNIT[:1]),
    plain("pow", TEN, np.array(3.0)),
    plain("where", TEN > 0, TEN, UNIT[:1]),
    *[plain(name, MATRIX, **ALONG) for name in ("sum", "mean", "prod", "max", "min", "logsumexp")],
    plain("prod", np.array([[0.0, 2.0], [0.0, 0.0]]), **ALONG),
    plain("var", MATRIX, **ALONG, correction=1.0),
    *[plain(name, MATRIX, dim=1) for name in ("cumsum", "cumprod", "cummax", "cummin")],
    plain("avg_pool_grad", LINE[:, :, :1], spatial=(3,), **MEAN_POOL),
    plain("adaptive_avg_pool_grad", LINE[:, :, :2], spatial=(3,)),
    plain("max_pool_grad", LINE[:, :, :1], np.array([[[1], [0]]]), spatial=(3,)),
    plain("max_pool_input_grad", LINE[:, :, :1], LINE, kernel=(2,), stride=(2,)),
    plain("channels_last_conv", PIXELS, FILTERS, **STEP),
    plain("channels_last_conv_transpose", PIXELS, FILTERS, **STEP, output_padding=(0, 0)),
    plain("channels_last_conv_weight_grad", PIXELS, PIXELS[..., :1], **STEP, kernel=(3, 3)),
    plain("winograd_conv", PIXELS, TRANSFORMED, padding=((1, 1), (1, 1)), tile=2),
    plain("winograd_image", PIXELS, padding=((1, 1), (1, 1)), tile=2),
    plain("winograd_result", TRANSFORMED[:, 0].repeat(2, 1), shape=(1, 4, 3, 2), tile=2),
    plain("winograd_result_grad", PIXELS, tile=2),
]


def check(function: Callable[..., Any], arrays: Any, second: bool = True) -> None:
    """Both checks along a random direction of tensors that hold `arrays`."""
    tensors = [torch.tensor(a) for a in arrays]
    for t in tensors:
        t.requires_grad_(t.dtype.is_floating_point or t.dtype.is_complex)

    def of_tensors(*given: Any) -> Any:
        return run("Case", function, *given)

    outputs = of_tensors(*tensors)
    if not any(o.requires_grad for o in (outputs if isinstance(outputs, tuple) else (outputs,))):
        return
    assert gradcheck(of_tensors, tensors, fast_mode=True)
    if second:
        assert gradgradcheck(of_tensors, tensors, fast_mode=True)


@pytest.mark.parametrize(("name", "arrays", "attrs"), SAMPLES, ids=[s[0] for s in SAMPLES])
def test_elementwise_and_reductions(name: str, arrays: Any, attrs: dict[str, Any]) -> None:
    check(lambda *values: getattr(ops, name)(*values, **attrs), arrays)


def data(case: Case) -> list[np.ndarray]:
    """Distinct numbers, so that no maximum changes within a step."""
    rng = np.random.default_rng(7)
    arrays = []
    for position, shape in enumerate(case.shapes):
        count = int(np.prod(shape))
        array = (rng.permutation(count) * 0.37 - count * 0.15 + rng.uniform(0, 0.1, count)).reshape(
            shape
        )
        array = array / max(1.0, np.abs(array).max(initial=0) / 3)
        arrays.append(np.abs(array) + 0.5 if position in case.positive else array)
    return [*arrays, *case.integers]


TABLE = [c for c in (*CASES, *FACTOR, *ATTENTION, *VISION) if not any(0 in s for s in c.shapes)]


@pytest.mark.parametrize("case", TABLE, ids=lambda c: c.name)
def test_tensor_ops(case: Case) -> None:
    check(case.op, data(case), case.name not in NO_SECOND)


def test_every_differentiable_record_is_among_them() -> None:
    made = set()
    for case in TABLE:
        made |= ops_in(case.op, data(case))
    for name, arrays, attrs in SAMPLES:
        made |= ops_in(lambda *v, n=name, a=attrs: getattr(ops, n)(*v, **a), arrays)
    differentiable = {name for name, op in OPS.items() if not isinstance(op.vjp, NoGradient)}
    assert differentiable - made - APART.keys() == set()


def ops_in(build: Callable[..., Any], arrays: Any) -> set[str]:
    from graphtorch.ir.dtype import DType

    values = [Value(Type(DType.of(np.asarray(a).dtype), np.shape(a)), name="x") for a in arrays]
    results = build(*values)
    return {n.op.name for n in topological(results if isinstance(results, tuple) else (results,))}
