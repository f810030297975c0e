"""What tensor ops refuse, when it is known while recording and when only the data tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluation import apply
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, boolean, c64, f32, f64, i32, i64
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.shape import symbol

N = symbol("n", min=1)


def v(*shape: Any, dtype: DType = f32) -> Value:
    return Value(Type(dtype, shape), name="x")


def index(*shape: Any) -> Value:
    return v(*shape, dtype=i64)


def conv(
    x: Value,
    w: Value,
    *b: Value,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Value:
    rank = w.rank - 2
    return ops.conv(
        x,
        w,
        *b,
        stride=(stride,) * rank,
        padding=((padding, padding),) * rank,
        dilation=(dilation,) * rank,
        groups=groups,
    )


def deconv(x: Value, w: Value, extra: int = 0) -> Value:
    rank = w.rank - 2
    return ops.conv_transpose(
        x,
        w,
        stride=(1,) * rank,
        padding=((0, 0),) * rank,
        dilation=(1,) * rank,
        groups=1,
        output_padding=(extra,) * rank,
    )


def pool(x: Value, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Value:
    n = x.rank - 2
    return ops.max_pool(
        x,
        kernel=(kernel,) * n,
        stride=(stride,) * n,
        padding=(padding,) * n,
        dilation=(dilation,) * n,
        ceil_mode=False,
    )


def mean_pool(x: Value, kernel: int, divisor: int | None = None) -> Value:
    return ops.avg_pool(
        x,
        kernel=(kernel,),
        stride=(1,),
        padding=(0,),
        ceil_mode=False,
        count_include_pad=True,
        divisor=divisor,
    )


def nll(x: Value, target: Value, *weight: Value, reduction: str = "mean") -> Value:
    return ops.nll_loss(x, target, *weight, reduction=reduction, ignore_index=-100)


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: ops.reshape(v(2, 3), shape=(4, 2)),
        RuntimeError,
        r"shape '\[4, 2\]' is invalid for input of size 6",
    ),
    (lambda: ops.reshape(v(N, 3), shape=(N, 4)), RuntimeError, "for every value of its symbols"),
    (lambda: ops.reshape(v(2, 3), shape=(-2, -3)), RuntimeError, "negative size -2"),
    (lambda: ops.permute(v(2, 3), dims=(0, 0)), RuntimeError, "dim 0 appears multiple times"),
    (
        lambda: ops.permute(v(2, 3), dims=(0,)),
        RuntimeError,
        r"input.dim\(\) = 2 is not equal to len\(dims\) = 1",
    ),
    (lambda: ops.permute(v(2, 3), dims=(0, 2)), IndexError, r"range of \[0, 1\], but got 2"),
    (lambda: ops.expand(v(2, 3), shape=(2, 4)), RuntimeError, "must match the existing size"),
    (lambda: ops.expand(v(2, 3), shape=(3,)), RuntimeError, "number of sizes provided"),
    (lambda: ops.expand(v(3), shape=(N,)), RuntimeError, r"expanded size of the tensor \(n\)"),
    (lambda: ops.slice(v(4), start=(0,), stop=(5,), step=(1,)), IndexError, r"0\.\.4"),
    (lambda: ops.slice(v(N), start=(0,), stop=(5,), step=(1,)), TypeError, "depends on the run"),
    (
        lambda: ops.slice(v(4), start=(0,), stop=(4,), step=(0,)),
        ValueError,
        "step must be positive",
    ),
    (
        lambda: ops.slice(v(4), start=(0, 0), stop=(4,), step=(1,)),
        RuntimeError,
        "2 entries for a tensor of 1",
    ),
    (
        lambda: ops.slice_update(v(4), v(3), start=(0,), stop=(4,), step=(2,)),
        RuntimeError,
        r"shape \[2\]",
    ),
    (
        lambda: ops.slice_update(v(4), v(2, dtype=f64), start=(0,), stop=(4,), step=(2,)),
        RuntimeError,
        "f64",
    ),
    (lambda: ops.concat(dim=0), ValueError, "non-empty list"),
    (lambda: ops.concat(v(), v(), dim=0), RuntimeError, "zero-dimensional"),
    (
        lambda: ops.concat(v(2, 3), v(2), dim=0),
        RuntimeError,
        "same number of dimensions: got 2 and 1",
    ),
    (
        lambda: ops.concat(v(2, 3), v(2, 4), dim=0),
        RuntimeError,
        "Expected size 3 but got size 4 for tensor number 1",
    ),
    (lambda: ops.concat(v(2), v(2, dtype=f64), dim=0), RuntimeError, "cast to one dtype"),
    (lambda: ops.concat(v(2, 3), dim=2), IndexError, "Dimension out of range"),
    (lambda: ops.pad(v(2), low=(-1,), high=(0,), value=0), RuntimeError, "negative padding"),
    (
        lambda: ops.pad(index(2), low=(1,), high=(0,), value=1.5),
        RuntimeError,
        "cannot be converted to type i64",
    ),
    (
        lambda: ops.pad(index(2), low=(1,), high=(0,), value=np.inf),
        RuntimeError,
        "cannot be converted",
    ),
    (lambda: conv(v(1, 3, 8), v(4, 3, 0)), RuntimeError, "kernel size should be greater than zero"),
    (lambda: ops.flip(v(2, 3), dims=(1, 1)), RuntimeError, "multiple times"),
    (lambda: ops.iota(shape=(3,), dim=1, dtype=i64), IndexError, "Dimension out of range"),
    (lambda: ops.iota(shape=(3,), dim=0, dtype=boolean), RuntimeError, "bool"),
    (lambda: ops.tril(v(3), diagonal=0), RuntimeError, "at least 2 dimensions"),
    (
        lambda: ops.gather(v(2, 3), index(3, 1), dim=1),
        RuntimeError,
        "Size does not match at dimension 0",
    ),
    (lambda: ops.gather(v(2, 3), index(3), dim=1), RuntimeError, "same number of dimensions"),
    (lambda: ops.gather(v(2, 3), v(2, 3), dim=1), RuntimeError, "int32/int64 for index"),
    (lambda: ops.gather(v(), index(), dim=0), IndexError, r"reshape it to \[1\]"),
    (
        lambda: ops.scatter(v(2, 3), index(2, 3), v(2, 2), dim=1),
        RuntimeError,
        "no larger size than src",
    ),
    (
        lambda: ops.scatter_add(v(2, 3), index(2, 3), v(2, 3, dtype=f64), dim=1),
        RuntimeError,
        "src.dtype",
    ),
    (lambda: ops.index_select(v(2, 3), index(2, 2), dim=1), IndexError, "supposed to be a vector"),
    (
        lambda: ops.index(v(2, 3), index(2), index(3), dims=(0, 1)),
        IndexError,
        r"shapes \[2\], \[3\]",
    ),
    (
        lambda: ops.index(v(2), index(2), index(2), dims=(0, 1)),
        IndexError,
        "too many indices for tensor of dimension 1",
    ),
    (lambda: ops.index(v(2, 3), index(2), index(2), dims=(1, 0)), IndexError, "must increase"),
    (lambda: ops.index(v(2, 3), v(2), dims=(0,)), IndexError, "tensors used as indices"),
    (
        lambda: ops.index_put(v(2, 3), v(5), index(2), dims=(0,), accumulate=False),
        RuntimeError,
        "cannot be broadcast",
    ),
    (
        lambda: ops.index_put(v(2, 3), v(3, dtype=f64), index(2), dims=(0,)),
        RuntimeError,
        "dtypes match",
    ),
    (
        lambda: ops.sort(v(3, dtype=c64), dim=0, descending=False),
        RuntimeError,
        "does not support complex",
    ),
    (
        lambda: ops.topk(v(3), k=4, dim=0, largest=True),
        RuntimeError,
        "selected index k out of range",
    ),
    (lambda: ops.searchsorted(v(2, 3), v(3, 3), right=False), RuntimeError, "first N-1 dimensions"),
    (
        lambda: ops.searchsorted(v(3), v(3, dtype=f64), right=False),
        RuntimeError,
        "cast to one dtype",
    ),
    (lambda: ops.matmul(v(2, 3), v(2, 3)), RuntimeError, r"cannot be multiplied \(2x3 and 2x3\)"),
    (
        lambda: ops.matmul(v(4, 2, 3), v(5, 3, 3)),
        RuntimeError,
        r"size of tensor a \(4\) must match",
    ),
    (lambda: ops.matmul(v(2, 3), v(3, 3, dtype=f64)), RuntimeError, "same dtype"),
    (lambda: ops.matmul(v(3), v(3, 3)), RuntimeError, "at least 2 dimensions"),
    (
        lambda: conv(v(1, 3, 8, 8), v(4, 2, 3, 3)),
        RuntimeError,
        r"to have 2 channels, but got 3 channels instead",
    ),
    (
        lambda: conv(v(1, 3, 2, 2), v(4, 3, 3, 3)),
        RuntimeError,
        "Kernel size can't be greater than actual input size",
    ),
    (
        lambda: conv(v(1, 3, 8, 8), v(4, 3, 3, 3), v(3)),
        RuntimeError,
        "1-dimensional with 4 elements",
    ),
    (
        lambda: conv(v(1, 3, 8), v(4, 1, 3), groups=3),
        RuntimeError,
        "to be divisible by 3 at dimension 0",
    ),
    (
        lambda: conv(v(1, 3, 8), v(4, 3, 3), padding=-1),
        RuntimeError,
        "negative padding is not supported",
    ),
    (
        lambda: conv(v(1, 3, 8), v(4, 3, 3), stride=0),
        RuntimeError,
        "non-positive stride is not supported",
    ),
    (
        lambda: conv(v(1, 3, 8), v(4, 3, 3), dilation=0),
        RuntimeError,
        "dilation should be greater than zero",
    ),
    (lambda: conv(v(3, 8), v(4, 3, 3)), RuntimeError, r"\[N, C, \*S\] of 3 dimensions"),
    (lambda: conv(v(1, 3, 8), v(4, 3, 3, dtype=f64)), RuntimeError, "same dtype"),
    (lambda: conv(v(1, 3, 8, dtype=i32), v(4, 3, 3, dtype=i32)), NotImplementedError, "'Int'"),
    (lambda: ops.svd(v(3)), RuntimeError, "at least 2 dimensions"),
    (lambda: ops.svd(v(3, 3, dtype=i64)), RuntimeError, "floating point or complex"),
    (lambda: ops.eigh(v(2, 3)), RuntimeError, "square matrices"),
    (
        lambda: ops.triangular_solve(v(3, 3), v(2, 1), upper=True),
        RuntimeError,
        "Incompatible shapes",
    ),
    (lambda: deconv(v(1, 3, 8), v(4, 3, 3)), RuntimeError, "to have 4 channels, but got 3"),
    (
        lambda: deconv(v(1, 3, 8), v(3, 3, 3), 1),
        RuntimeError,
        "output padding must be smaller than either stride",
    ),
    (
        lambda: pool(v(1, 3, 8, 8), 3, padding=2),
        RuntimeError,
        "pad should be at most half of kernel size",
    ),
    (
        lambda: pool(v(1, 3, 2, 2), 3),
        RuntimeError,
        r"Given input size: \(3x2x2\). Calculated output size: \(3x0x0\)",
    ),
    (lambda: pool(v(1, 3, 8), 3, stride=0), RuntimeError, "stride should be greater than zero"),
    (lambda: pool(v(1, 3, 0), 1), RuntimeError, "non-zero size"),
    (lambda: mean_pool(v(1, 3, 8), 3, divisor=0), RuntimeError, "divisor must be not zero"),
    (lambda: mean_pool(v(1, 3, 8, dtype=i64), 3), NotImplementedError, "'Long'"),
    (
        lambda: ops.max_pool_grad(v(1, 2, 3), index(1, 2, 4), spatial=(9,)),
        RuntimeError,
        "indices of shape",
    ),
    (lambda: ops.adaptive_avg_pool(v(1, 3, 0), output_size=(3,)), RuntimeError, "non-zero size"),
    (
        lambda: ops.adaptive_max_pool(v(1, 3, 4), output_size=(-3,)),
        RuntimeError,
        "greater than or equal to 0",
    ),
    (lambda: ops.softmax(v(1, 3), dim=4), IndexError, "Dimension out of range"),
    (lambda: ops.softmax(v(1, 3, dtype=i64), dim=1), NotImplementedError, "'Long'"),
    (lambda: ops.layer_norm(v(2, 3), axes=3, eps=0.1), RuntimeError, "normalized_shape"),
    (
        lambda: ops.layer_norm(v(2, 3), v(4), axes=1, eps=0.1),
        RuntimeError,
        r"weight of shape \[4\]",
    ),
    (lambda: ops.group_norm(v(2, 3), groups=2, eps=0.1), RuntimeError, "divisible by num_groups"),
    (
        lambda: ops.group_norm(v(2, 4), v(4), groups=2, eps=0.1),
        RuntimeError,
        "both weight and bias, or neither",
    ),
    (
        lambda: ops.batch_norm(v(2, 3), v(4), v(3), eps=0.1),
        RuntimeError,
        "running_mean should contain 3 elements not 4",
    ),
    (
        lambda: ops.batch_norm_train(v(1, 3), eps=0.1),
        ValueError,
        "Expected more than 1 value per channel",
    ),
    (
        lambda: nll(v(2, 3), index(3)),
        ValueError,
        r"batch_size \(2\) to match target batch_size \(3\)",
    ),
    (
        lambda: nll(v(2, 3, 4), index(2, 3)),
        RuntimeError,
        r"Expected target size \[2, 4\], got \[2, 3\]",
    ),
    (lambda: nll(v(2, 3), index(2), v(4)), RuntimeError, "either for all 3 classes or no classes"),
    (lambda: nll(v(2, 3), v(2)), RuntimeError, "expected target dtype to be Long"),
    (
        lambda: nll(v(2, 3), index(2), reduction="avg"),
        ValueError,
        "avg is not a valid value for reduction",
    ),
    (
        lambda: ops.cross_entropy(v(2, 3), index(2), label_smoothing=3.0),
        RuntimeError,
        "between 0.0 and 1.0",
    ),
]


@pytest.mark.parametrize(
    ("made", "kind", "words"), REFUSED, ids=[f"{i} {w[:30]}" for i, (_, _, w) in enumerate(REFUSED)]
)
def test_refused_while_recording(
    made: Callable[[], Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        made()


X = np.arange(6.0).reshape(2, 3)


def at(*values: int) -> np.ndarray:
    return np.array(values)


OUT_OF_RANGE: list[tuple[str, Callable[[], Any]]] = [
    ("gather", lambda: apply(ops.gather, X, at(7)[None], dim=1)),
    ("gather negative", lambda: apply(ops.gather, X, at(-1)[None], dim=1)),
    ("scatter", lambda: apply(ops.scatter, X, at(3)[None], X[:1, :1], dim=1)),
    ("scatter_add", lambda: apply(ops.scatter_add, X, at(2)[None], X[:1, :1], dim=0)),
    ("index_select", lambda: apply(ops.index_select, X, at(0, 3), dim=1)),
    ("index", lambda: apply(ops.index, X, at(-3), dims=(0,))),
    ("index_put", lambda: apply(ops.index_put, X, X[0], at(2), dims=(0,), accumulate=False)),
    (
        "max_pool_grad",
        lambda: apply(ops.max_pool_grad, X[None], np.full((1, 2, 3), 4), spatial=(4,)),
    ),
    ("nll_loss", lambda: apply(ops.nll_loss, X, at(1, 3), reduction="sum", ignore_index=0)),
    ("cross_entropy", lambda: apply(ops.cross_entropy, X, at(1, -3))),
]


@pytest.mark.parametrize(("name", "run"), OUT_OF_RANGE, ids=[n for n, _ in OUT_OF_RANGE])
def test_index_out_of_range_at_run_time(name: str, run: Callable[[], Any]) -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        run()
