"""A table of tensor ops: shape, index, contraction, window, norm and loss, with PyTorch's name for
each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphtorch.ir import ops
from graphtorch.ir.graph import Value

Builder = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """`op` on operands of `shapes` (float data) followed by `integers` (index operands)."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    op: Builder
    torch: Builder | None = None
    integers: tuple[Any, ...] = ()
    # (operand, axis) pairs that become one symbol each per size
    symbolic: tuple[tuple[int, int], ...] = ()
    positive: tuple[int, ...] = ()
    wide: bool = False  # there is no 16-bit form, in PyTorch either


def unary(
    name: str,
    size: tuple[int, ...],
    torch: Builder | None = None,
    /,
    symbolic: Sequence[int] = (),
    **attrs: Any,
) -> Case:
    made = getattr(ops, name.split()[0])
    return Case(
        name, (size,), lambda x: made(x, **attrs), torch, symbolic=tuple((0, a) for a in symbolic)
    )


def F() -> Any:
    return T().nn.functional


def T() -> Any:
    import pytest  # samples are read by tools as well, where there may be none

    return pytest.importorskip("torch")


SHAPE = [
    unary("reshape", (2, 3, 4), lambda x: x.reshape(4, 6), shape=(4, 6)),
    unary("reshape 0-d", (1, 1), lambda x: x.reshape(()), shape=()),
    unary("reshape empty", (0, 3), lambda x: x.reshape(3, 0), shape=(3, 0)),
    unary("permute", (2, 3, 4), lambda x: x.permute(2, 0, 1), symbolic=(0, 1, 2), dims=(2, 0, 1)),
    unary("permute 0-d", (), lambda x: x, dims=()),
    unary("expand", (3, 1), lambda x: x.expand(2, 3, 4), shape=(2, 3, 4)),
    unary("expand 0-d", (), lambda x: x.expand(2, 2), shape=(2, 2)),
    unary("expand to empty", (1, 3), lambda x: x.expand(0, 3), shape=(0, 3)),
    Case(
        "slice",
        ((5, 4),),
        lambda x: ops.slice(x, start=(1, 0), stop=(4, x.shape[1]), step=(1, 1)),
        lambda x: x[1:4],
        symbolic=((0, 1),),
    ),
    Case(
        "slice symbolic",
        ((5, 4),),
        lambda x: ops.slice(x, start=(0, 0), stop=(x.shape[0], 3), step=(2, 1)),
        lambda x: x[::2, :3],
        symbolic=((0, 0),),
    ),
    unary("slice step", (7, 5), lambda x: x[1:7:3, 0:5:2], start=(1, 0), stop=(7, 5), step=(3, 2)),
    unary("slice empty", (4, 2), lambda x: x[2:2], start=(2, 0), stop=(2, 2), step=(1, 1)),
    unary(
        "pad",
        (2, 3),
        lambda x: F().pad(x, (1, 2, 0, 1), value=1.5),
        symbolic=(0, 1),
        low=(0, 1),
        high=(1, 2),
        value=1.5,
    ),
    unary("pad 0-d", (), lambda x: x, low=(), high=(), value=0),
    unary(
        "pad empty", (0, 2), lambda x: F().pad(x, (0, 0, 1, 1)), low=(1, 0), high=(1, 0), value=0
    ),
    unary("flip", (2, 3, 2), lambda x: x.flip(0, 2), symbolic=(0, 1), dims=(0, 2)),
    unary("tril", (2, 4, 3), lambda x: x.tril(-1), symbolic=(0, 1), diagonal=-1),
    unary("triu", (4, 3), lambda x: x.triu(1), symbolic=(0, 1), diagonal=1),
    Case(
        "slice_update",
        ((5, 4), (2, 4)),
        lambda x, y: ops.slice_update(x, y, start=(1, 0), stop=(5, 4), step=(2, 1)),
        lambda x, y: T().slice_scatter(x, y, 0, 1, 5, 2),
    ),
    Case(
        "concat",
        ((2, 3), (2, 1), (2, 0)),
        lambda *xs: ops.concat(*xs, dim=1),
        lambda *xs: T().cat(xs, 1),
        symbolic=((0, 0), (1, 0), (2, 0), (0, 1)),
    ),
]

I = np.array  # noqa: E741
INDEX = [
    Case(
        "gather",
        ((3, 4),),
        lambda x, i: ops.gather(x, i, dim=1),
        lambda x, i: x.gather(1, i),
        (I([[0, 3, 3], [1, 0, 2]]),),
    ),
    Case(
        "gather same rows",
        ((3, 4),),
        lambda x, i: ops.gather(x, i, dim=0),
        lambda x, i: x.gather(0, i),
        (I([[0, 2, 2, 1]]),),
    ),
    Case(
        "gather nothing",
        ((3, 4),),
        lambda x, i: ops.gather(x, i, dim=1),
        lambda x, i: x.gather(1, i),
        (np.zeros((3, 0), np.int64),),
    ),
    Case(
        "scatter",
        ((3, 5), (3, 2)),
        lambda x, s, i: ops.scatter(x, i, s, dim=1),
        lambda x, s, i: x.scatter(1, i, s),
        (I([[0, 4], [1, 2], [3, 0]]),),
    ),
    Case(
        "scatter small index",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter(x, i, s, dim=1),
        None,
        (I([[0, 4], [1, 2]]),),
    ),
    Case(
        "scatter_add",
        ((3, 5), (3, 2)),
        lambda x, s, i: ops.scatter_add(x, i, s, dim=1),
        lambda x, s, i: x.scatter_add(1, i, s),
        (I([[0, 0], [1, 2], [3, 3]]),),
    ),
    Case(
        "scatter_add small index",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_add(x, i, s, dim=0),
        None,
        (I([[0, 0], [1, 2]]),),
    ),
    Case(
        "scatter_max",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_max(x, i, s, dim=1),
        lambda x, s, i: x.scatter_reduce(1, i, s, "amax"),
        (I([[0, 0, 4, 0], [1, 2, 1, 1], [3, 3, 3, 3]]),),
    ),
    Case(
        "scatter_max small index",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_max(x, i, s, dim=0),
        None,
        (I([[0, 0], [1, 0]]),),
    ),
    Case(
        "scatter_min",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_min(x, i, s, dim=1),
        lambda x, s, i: x.scatter_reduce(1, i, s, "amin"),
        (I([[0, 0, 4, 0], [1, 2, 1, 1], [3, 3, 3, 3]]),),
    ),
    Case(
        "scatter_min small index",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_min(x, i, s, dim=0),
        None,
        (I([[0, 0], [1, 0]]),),
    ),
    Case(
        "scatter_mul",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_mul(x, i, s, dim=1),
        lambda x, s, i: x.scatter_reduce(1, i, s, "prod"),
        (I([[0, 0, 4, 0], [1, 2, 1, 1], [3, 3, 3, 3]]),),
    ),
    Case(
        "scatter_mul small index",
        ((3, 5), (3, 4)),
        lambda x, s, i: ops.scatter_mul(x, i, s, dim=0),
        None,
        (I([[0, 0], [1, 0]]),),
    ),
    Case(
        "index_select",
        ((3, 4, 2),),
        lambda x, i: ops.index_select(x, i, dim=1),
        lambda x, i: x.index_select(1, i),
        (I([3, 0, 3]),),
        symbolic=((0, 0), (0, 1)),
    ),
    Case(
        "index",
        ((4, 3),),
        lambda x, i: ops.index(x, i, dims=(0,)),
        lambda x, i: x[i],
        (I([[0, -1], [2, 0]]),),
        symbolic=((0, 0), (0, 1)),
    ),
    Case(
        "index two",
        ((4, 3, 2),),
        lambda x, i, j: ops.index(x, i, j, dims=(0, 1)),
        lambda x, i, j: x[i, j],
        (I([[0], [2]]), I([1, -1, 1])),
    ),
    Case(
        "index inner",
        ((2, 4, 3, 2),),
        lambda x, i, j: ops.index(x, i, j, dims=(1, 2)),
        lambda x, i, j: x[:, i, j],
        (I([0, 3, 3]), I([2, 1, 1])),
        symbolic=((0, 0),),
    ),
    Case(
        "index apart",
        ((4, 3, 2),),
        lambda x, i, j: ops.index(x, i, j, dims=(0, 2)),
        lambda x, i, j: x[i, :, j],
        (I([0, 3, 3]), I([0, 1, 1])),
    ),
    Case(
        "index inner apart",
        ((2, 4, 3, 2),),
        lambda x, i, j: ops.index(x, i, j, dims=(1, 3)),
        lambda x, i, j: x[:, i, :, j],
        (I([0, 3, 3]), I([0, 1, 1])),
    ),
    Case(
        "index 0-d",
        ((4, 3),),
        lambda x, i: ops.index(x, i, dims=(1,)),
        lambda x, i: x[:, i],
        (I(2),),
    ),
    Case(
        "index_put",
        ((4, 3), (2, 3)),
        lambda x, s, i: ops.index_put(x, s, i, dims=(0,), accumulate=False),
        lambda x, s, i: x.index_put((i,), s),
        (I([1, -1]),),
    ),
    Case(
        "index_put accumulate",
        ((4, 3), (3,)),
        lambda x, s, i: ops.index_put(x, s, i, dims=(0,), accumulate=True),
        lambda x, s, i: x.index_put((i,), s, accumulate=True),
        (I([1, 1, 0]),),
        symbolic=((0, 0),),
    ),
    Case(
        "index_put scalar",
        ((4, 3), ()),
        lambda x, s, i, j: ops.index_put(x, s, i, j, dims=(0, 1), accumulate=False),
        lambda x, s, i, j: x.index_put((i, j), s),
        (I([1, 2]), I([0, 2])),
    ),
    Case(
        "sort",
        ((3, 4),),
        lambda x: ops.sort(x, dim=1, descending=False),
        lambda x: x.sort(stable=True, dim=1),
        symbolic=((0, 0), (0, 1)),
    ),
    Case(
        "sort descending",
        ((3, 4),),
        lambda x: ops.sort(x, dim=0, descending=True),
        lambda x: x.sort(stable=True, dim=0, descending=True),
    ),
    Case(
        "topk",
        ((3, 5),),
        lambda x: ops.topk(x, k=2, dim=1, largest=True),
        lambda x: x.topk(2, 1),
        symbolic=((0, 0),),
    ),
    Case(
        "topk least",
        ((5, 3),),
        lambda x: ops.topk(x, k=3, dim=0, largest=False),
        lambda x: x.topk(3, 0, largest=False),
    ),
]

LINALG = [
    Case("matmul", ((2, 3), (3, 4)), ops.matmul, lambda a, b: a @ b, symbolic=((0, 0), (1, 1))),
    Case(
        "matmul batch",
        ((5, 1, 2, 3), (4, 3, 2)),
        ops.matmul,
        lambda a, b: a @ b,
        symbolic=((0, 0),),
    ),
    Case("matmul empty", ((2, 0), (0, 3)), ops.matmul, lambda a, b: a @ b),
]


def conv_case(
    name: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    extra: Any = None,
    groups: int = 1,
    bias: bool = False,
    symbolic: Sequence[int] = (),
) -> Case:
    """A convolution, or with `extra` output padding a transposed one."""
    theirs = {"stride": stride, "dilation": dilation, "groups": groups}
    if extra is not None:
        theirs["output_padding"] = extra
    mine = {**theirs, "padding": tuple((p, p) for p in padding)}
    theirs["padding"] = padding
    op = ops.conv if extra is None else ops.conv_transpose
    function = f"{op.name}{len(x) - 2}d"
    channels = w[0] if extra is None else w[1] * groups
    return Case(
        name,
        (x, w, (channels,)) if bias else (x, w),
        lambda *v: op(*v, **mine),
        lambda *v: getattr(F(), function)(*v, **theirs),
        symbolic=tuple((0, a) for a in symbolic),
    )


CONV = [
    conv_case("conv1d", (2, 3, 7), (4, 3, 3), (1,), (1,), (1,), bias=True, symbolic=(0, 2)),
    conv_case(
        "conv1d stride leaves a rest", (2, 3, 8), (4, 3, 3), (2,), (0,), (1,), symbolic=(0, 2)
    ),
    conv_case(
        "conv2d",
        (2, 4, 6, 5),
        (6, 2, 3, 2),
        (2, 1),
        (1, 0),
        (1, 2),
        groups=2,
        bias=True,
        symbolic=(0, 2, 3),
    ),
    conv_case("conv2d depthwise", (1, 3, 5, 5), (6, 1, 3, 3), (2, 2), (2, 2), (1, 1), groups=3),
    conv_case("conv3d", (1, 2, 3, 4, 3), (2, 2, 2, 2, 1), (1, 2, 1), (0, 1, 0), (1, 1, 1)),
    conv_case("conv2d no batch", (0, 2, 4, 4), (2, 2, 3, 3), (1, 1), (0, 0), (1, 1), bias=True),
    Case(
        "conv lopsided padding",
        ((1, 2, 5), (3, 2, 2)),
        lambda x, w: ops.conv(x, w, stride=(2,), padding=((2, 0),), dilation=(1,), groups=1),
        lambda x, w: F().conv1d(F().pad(x, (2, 0)), w, stride=2),
    ),
    conv_case(
        "conv_transpose1d", (2, 3, 4), (3, 2, 3), (2,), (1,), (1,), (1,), bias=True, symbolic=(0, 2)
    ),
    conv_case(
        "conv_transpose2d",
        (1, 4, 3, 3),
        (4, 2, 3, 2),
        (2, 3),
        (1, 0),
        (1, 2),
        (1, 2),
        groups=2,
        bias=True,
    ),
    conv_case("conv_transpose1d wide", (1, 2, 3), (2, 2, 2), (1,), (0,), (3,), (2,), bias=True),
    conv_case(
        "conv_transpose3d",
        (1, 2, 2, 2, 2),
        (2, 1, 2, 1, 2),
        (1, 2, 1),
        (0, 0, 0),
        (1, 1, 1),
        (0, 0, 0),
    ),
    Case(
        "conv_weight_grad",
        ((2, 4, 6), (2, 6, 2)),
        lambda x, g: ops.conv_weight_grad(
            x, g, kernel=(3,), stride=(2,), padding=((0, 0),), dilation=(1,), groups=2
        ),
        lambda x, g: T().nn.grad.conv1d_weight(x, (6, 2, 3), g, stride=2, groups=2),
        symbolic=((0, 0), (1, 0)),
    ),
]


def max_case(
    name: str,
    x: tuple[int, ...],
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil: bool = False,
    symbolic: Sequence[int] = (),
) -> Case:
    rank = len(kernel)
    attrs = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil,
    }
    function = f"max_pool{rank}d"
    return Case(
        name,
        (x,),
        lambda v: ops.max_pool(v, **attrs),
        lambda v: getattr(F(), function)(
            v, kernel, stride, padding, dilation, ceil, return_indices=True
        ),
        symbolic=tuple((0, a) for a in symbolic),
    )


def avg_case(
    name: str,
    x: tuple[int, ...],
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil: bool = False,
    count: bool = True,
    divisor: int | None = None,
    symbolic: Sequence[int] = (),
) -> Case:
    attrs = {
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil,
        "count_include_pad": count,
        "divisor": divisor,
    }
    extra = () if len(kernel) == 1 else (divisor,)
    function = f"avg_pool{len(kernel)}d"
    return Case(
        name,
        (x,),
        lambda v: ops.avg_pool(v, **attrs),
        lambda v: getattr(F(), function)(v, kernel, stride, padding, ceil, count, *extra),
        symbolic=tuple((0, a) for a in symbolic),
    )


POOL = [
    max_case("max_pool1d", (2, 3, 7), (3,), (2,), (1,), (1,), symbolic=(0, 2)),
    max_case("max_pool2d", (2, 3, 6, 5), (2, 3), (2, 1), (1, 1), (1, 2), symbolic=(0, 2, 3)),
    max_case(
        "max_pool2d ceil", (1, 2, 6, 7), (3, 2), (2, 3), (1, 0), (1, 1), True, symbolic=(2, 3)
    ),
    max_case(
        "max_pool2d ceil drops", (1, 2, 5, 5), (2, 2), (2, 2), (1, 1), (1, 1), True, symbolic=(2, 3)
    ),
    max_case("max_pool3d", (1, 2, 4, 4, 4), (2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
    max_case("max_pool no batch", (0, 2, 4), (2,), (2,), (0,), (1,)),
    avg_case("avg_pool1d", (2, 3, 7), (3,), (2,), (1,), symbolic=(0, 2)),
    avg_case("avg_pool2d", (2, 3, 6, 5), (2, 3), (2, 1), (1, 1), count=False, symbolic=(0, 2, 3)),
    avg_case("avg_pool2d ceil", (1, 2, 6, 7), (3, 2), (2, 3), (1, 0), True, symbolic=(2, 3)),
    avg_case("avg_pool2d ceil without pad", (1, 2, 6, 7), (3, 2), (2, 3), (1, 0), True, False),
    avg_case("avg_pool2d ceil drops", (1, 2, 5, 5), (2, 2), (2, 2), (1, 1), True),
    avg_case("avg_pool2d gaps", (1, 2, 7, 7), (2, 2), (3, 3), (0, 0)),
    avg_case("avg_pool2d divisor", (1, 2, 5, 5), (2, 3), (2, 2), (1, 1), True, True, 5),
    avg_case("avg_pool3d", (1, 2, 4, 4, 4), (2, 2, 2), (2, 2, 2), (1, 0, 1), True),
    unary(
        "adaptive_avg_pool",
        (2, 3, 7, 5),
        lambda x: F().adaptive_avg_pool2d(x, (3, 2)),
        output_size=(3, 2),
        symbolic=(0, 2, 3),
    ),
    unary(
        "adaptive_avg_pool up", (1, 2, 3), lambda x: F().adaptive_avg_pool1d(x, 5), output_size=(5,)
    ),
    Case(
        "adaptive_max_pool",
        ((2, 3, 7, 5),),
        lambda x: ops.adaptive_max_pool(x, output_size=(3, 2)),
        lambda x: F().adaptive_max_pool2d(x, (3, 2), return_indices=True),
        symbolic=((0, 0), (0, 2), (0, 3)),
    ),
    Case(
        "adaptive_max_pool up",
        ((1, 2, 3),),
        lambda x: ops.adaptive_max_pool(x, output_size=(5,)),
        lambda x: F().adaptive_max_pool1d(x, 5, return_indices=True),
    ),
]


def batch_norm_torch(x: Any, *affine: Any) -> Any:
    dims = [d for d in range(x.ndim) if d != 1]
    return (
        F().batch_norm(x, None, None, *affine, training=True, eps=0.1),
        x.mean(dims),
        x.var(dims, correction=0),
    )


NORM = [
    unary("softmax", (3, 4), lambda x: x.softmax(1), symbolic=(0, 1), dim=1),
    unary("softmax inner", (2, 3, 4), lambda x: x.softmax(1), dim=1),
    unary("softmax nothing", (2, 0), lambda x: x.softmax(1), dim=1),
    unary("log_softmax", (3, 4), lambda x: x.log_softmax(0), symbolic=(0, 1), dim=0),
    Case(
        "layer_norm",
        ((2, 3, 4), (3, 4), (3, 4)),
        lambda *v: ops.layer_norm(*v, axes=2, eps=0.1),
        lambda x, w, b: F().layer_norm(x, (3, 4), w, b, 0.1),
        symbolic=((0, 0),),
    ),
    Case(
        "layer_norm w",
        ((2, 4), (4,)),
        lambda *v: ops.layer_norm(*v, axes=1, eps=0.1),
        lambda x, w: F().layer_norm(x, (4,), w, None, 0.1),
        symbolic=((0, 0), (0, 1), (1, 0)),
    ),
    Case(
        "layer_norm plain",
        ((4,),),
        lambda *v: ops.layer_norm(*v, axes=1, eps=0.1),
        lambda x: F().layer_norm(x, (4,), eps=0.1),
    ),
    Case(
        "layer_norm empty",
        ((0, 4), (4,), (4,)),
        lambda *v: ops.layer_norm(*v, axes=1, eps=0.1),
        lambda x, w, b: F().layer_norm(x, (4,), w, b, 0.1),
    ),
    Case(
        "within",
        ((2, 3),),
        lambda x: ops.within(x, rule="finite", message="there are numbers that are not finite"),
        lambda x: x,
        symbolic=((0, 0),),
    ),
    Case(
        "rms_norm",
        ((2, 3, 4), (4,)),
        lambda *v: ops.rms_norm(*v, axes=1, eps=0.1),
        lambda x, w: F().rms_norm(x, (4,), w, 0.1),
        symbolic=((0, 0),),
    ),
    Case(
        "rms_norm plain",
        ((2, 3, 4),),
        lambda *v: ops.rms_norm(*v, axes=2, eps=0.1),
        lambda x: F().rms_norm(x, (3, 4), None, 0.1),
    ),
    Case(
        "batch_norm",
        ((2, 3, 4), (3,), (3,), (3,), (3,)),
        lambda *v: ops.batch_norm(*v, eps=0.1),
        lambda x, m, v, w, b: F().batch_norm(x, m, v, w, b, eps=0.1),
        symbolic=((0, 0), (0, 2)),
        positive=(2,),
    ),
    Case(
        "batch_norm plain",
        ((2, 3), (3,), (3,)),
        lambda *v: ops.batch_norm(*v, eps=0.1),
        lambda x, m, v: F().batch_norm(x, m, v, eps=0.1),
        positive=(2,),
    ),
    Case(
        "batch_norm_train",
        ((4, 3, 2), (3,), (3,)),
        lambda *v: ops.batch_norm_train(*v, eps=0.1),
        batch_norm_torch,
        symbolic=((0, 0), (0, 2)),
    ),
    Case(
        "batch_norm_train plain",
        ((4, 3),),
        lambda *v: ops.batch_norm_train(*v, eps=0.1),
        batch_norm_torch,
        symbolic=((0, 0),),
    ),
    Case(
        "group_norm",
        ((2, 4, 3, 2), (4,), (4,)),
        lambda *v: ops.group_norm(*v, groups=2, eps=0.1),
        lambda x, w, b: F().group_norm(x, 2, w, b, 0.1),
        symbolic=((0, 0), (0, 2)),
    ),
    Case(
        "group_norm plain",
        ((2, 4, 3),),
        lambda *v: ops.group_norm(*v, groups=4, eps=0.1),
        lambda x: F().group_norm(x, 4, eps=0.1),
    ),
]


def loss_cases(name: str) -> list[Case]:
    cases = []
    for reduction in ("none", "mean", "sum"):
        for weighted in (False, True):
            for spatial in ((), (2,)):
                for smoothing in (0.0, 0.2) if name == "cross_entropy" else (None,):
                    cases.append(loss_case(name, reduction, weighted, spatial, smoothing))
    return cases


def loss_case(
    name: str, reduction: str, weighted: bool, spatial: tuple[int, ...], smoothing: float | None
) -> Case:
    target = I([[0, 2], [1, 1], [4, 3]]) if spatial else I([0, 1, 4])
    attrs: dict[str, Any] = {"reduction": reduction, "ignore_index": 1}
    if smoothing is not None:
        attrs["label_smoothing"] = smoothing
    shapes = ((3, 5, *spatial), (5,)) if weighted else ((3, 5, *spatial),)
    made = getattr(ops, name)

    def torch(x: Any, *rest: Any) -> Any:
        return getattr(F(), name)(x, rest[-1], rest[0] if weighted else None, **attrs)

    def op(x: Value, *rest: Value) -> Value:
        return made(x, rest[-1], *rest[:-1], **attrs)

    marks = [" weight" * weighted, " spatial" * bool(spatial), f" {smoothing}" * bool(smoothing)]
    label = f"{name} {reduction}{''.join(marks)}"
    return Case(
        label, shapes, op, torch, (target,), positive=(1,), symbolic=((0, 1), *((1, 0),) * weighted)
    )


CASES = [
    *SHAPE,
    *INDEX,
    *LINALG,
    *CONV,
    *POOL,
    *NORM,
    *loss_cases("nll_loss"),
    *loss_cases("cross_entropy"),
]
