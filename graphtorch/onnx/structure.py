"""ONNX spelling of ops that move, index, contract, pool or normalise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphtorch.ir import dtype as dt
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim

from .builder import ELEM_TYPE, ModelBuilder
from .pointwise import E, Emit, cast, in_wide_integers, unsupported

STRUCTURE: dict[str, Emit] = {}
END = np.iinfo(np.int64).max  # a slice's stop that means "to the end"


def _emits(emit: E) -> E:
    STRUCTURE[emit.__name__.removeprefix("_")] = emit
    return emit


# ---- shape ---------------------------------------------------------------------------------------


@_emits
def _reshape(b: ModelBuilder, node: Node, x: list[str]) -> str:
    shape = node.attrs.shape
    if 0 in shape:
        return b.op("Reshape", [x[0], b.shape(shape)], allowzero=1)
    return b.op("Reshape", [x[0], b.shape(shape, infer_one=True)])


@_emits
def _within(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Identity", x[:1])  # ONNX has nothing that refuses values


@_emits
def _permute(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Transpose", x, perm=list(node.attrs.dims))


@_emits
def _expand(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Expand", [x[0], b.shape(node.attrs.shape)])


def _slice_bound(b: ModelBuilder, dims: Sequence[Dim], sizes: Sequence[Dim]) -> str:
    if all(isinstance(d, int) or d == s for d, s in zip(dims, sizes, strict=True)):
        return b.ints([d if isinstance(d, int) else END for d in dims])
    return b.shape(dims)


@_emits
def _slice(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a, sizes = node.attrs, node.operands[0].shape
    axes = [
        i
        for i, s in enumerate(sizes)
        if not (a.start[i] == 0 and a.stop[i] == s and a.step[i] == 1)
    ]
    if not axes:
        return b.op("Identity", x)
    start, stop = [a.start[i] for i in axes], [a.stop[i] for i in axes]
    return b.op(
        "Slice",
        [
            x[0],
            b.shape(start),
            _slice_bound(b, stop, [sizes[i] for i in axes]),
            b.ints(axes),
            b.ints([a.step[i] for i in axes]),
        ],
    )


@_emits
def _slice_update(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a, sizes = node.attrs, node.operands[0].shape
    axes = [
        i
        for i, s in enumerate(sizes)
        if not (a.start[i] == 0 and a.stop[i] == s and a.step[i] == 1)
    ]
    if not axes:
        return b.op("Identity", [x[1]])
    if len(axes) == 1 and a.step[axes[0]] == 1:
        return _splice(b, node, x, axes[0])
    if not all(isinstance(d, int) for d in (*a.start, *a.stop, *sizes)):
        raise unsupported(
            node, "a strided or multi-dimensional slice assignment needs static sizes"
        )
    ranges = [np.arange(lo, hi, st) for lo, hi, st in zip(a.start, a.stop, a.step, strict=True)]
    index = np.stack(np.meshgrid(*ranges, indexing="ij"), -1)
    return b.op("ScatterND", [x[0], b.constant(index, dt.i64, "index"), x[1]])


def _splice(b: ModelBuilder, node: Node, x: list[str], axis: int) -> str:
    """A contiguous slice along one axis is replaced by concatenating what surrounds it."""
    a, size = node.attrs, node.operands[0].shape[axis]
    parts = [x[1]]
    if a.start[axis] != 0:
        parts.insert(
            0, b.op("Slice", [x[0], b.ints([0]), b.shape([a.start[axis]]), b.ints([axis])])
        )
    if a.stop[axis] != size:
        parts.append(b.op("Slice", [x[0], b.shape([a.stop[axis]]), b.ints([END]), b.ints([axis])]))
    return b.op("Concat", parts, axis=axis)


@_emits
def _concat(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Concat", x, axis=node.attrs.dim)


@_emits
def _pad(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a, dtype = node.attrs, node.types[0].dtype
    if dtype is dt.boolean:  # ONNX Runtime pads numbers only
        padded = b.op(
            "Pad",
            [cast(b, x[0], dt.i32), b.shape([*a.low, *a.high]), b.constant(int(a.value), dt.i32)],
        )
        return cast(b, padded, dt.boolean)
    return b.op("Pad", [x[0], b.shape([*a.low, *a.high]), b.constant(a.value, dtype)])


@_emits
def _flip(b: ModelBuilder, node: Node, x: list[str]) -> str:
    dims = node.attrs.dims
    if not dims:
        return b.op("Identity", x)
    count = len(dims)
    return b.op(
        "Slice",
        [x[0], b.ints([-1] * count), b.ints([-END] * count), b.ints(dims), b.ints([-1] * count)],
    )


@_emits
def _iota(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a = node.attrs
    size = b.size(a.shape[a.dim])
    steps = b.op("Range", [b.constant(0, dt.i64), size, b.constant(1, dt.i64)])
    column: list[Dim] = [1] * len(a.shape)
    column[a.dim] = a.shape[a.dim]
    spread = b.op(
        "Expand", [b.op("Reshape", [steps, b.shape(column, infer_one=True)]), b.shape(a.shape)]
    )
    return spread if a.dtype is dt.i64 else cast(b, spread, a.dtype)


@_emits
def _constant(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.constant(node.attrs.value.numpy(), node.attrs.value.dtype)


@_emits
def _tril(b: ModelBuilder, node: Node, x: list[str]) -> str:
    upper = int(node.op.name == "triu")
    return b.op("Trilu", [x[0], b.constant(node.attrs.diagonal, dt.i64)], upper=upper)


STRUCTURE["triu"] = _tril


# ---- index ---------------------------------------------------------------------------------------


@_emits
def _gather(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("GatherElements", x, axis=node.attrs.dim)


@_emits
def _scatter(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("ScatterElements", x, axis=node.attrs.dim)


# of what stands at a place and what is scattered to it
REDUCTIONS = {
    "scatter_add": "add",
    "scatter_max": "max",
    "scatter_min": "min",
    "scatter_mul": "mul",
}


def _scatter_combining(b: ModelBuilder, node: Node, x: list[str]) -> str:
    reduction = REDUCTIONS[node.op.name]
    return b.op("ScatterElements", x, axis=node.attrs.dim, reduction=reduction)


STRUCTURE.update(dict.fromkeys(REDUCTIONS, _scatter_combining))


@_emits
def _index_select(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Gather", x, axis=node.attrs.dim)


def _indexed_first(rank: int, dims: Sequence[int]) -> list[int]:
    return [*dims, *(d for d in range(rank) if d not in dims)]


def _index_tensor(
    b: ModelBuilder, node: Node, indices: list[str], types: Sequence[int]
) -> tuple[str, int]:
    """Index arrays broadcast together and stacked along a new last axis, and their common rank."""
    shapes = [v.shape for v in node.operands[-len(indices) :]]
    rank = max(map(len, shapes))
    wide = [
        i if d == dt.i64 else cast(b, i, dt.i64)
        for i, d in zip(indices, (v.dtype for v in node.operands[-len(indices) :]), strict=True)
    ]
    if len(set(shapes)) > 1:
        from_shapes = [b.op("Shape", [w]) for w in wide]
        common = from_shapes[0]
        for other in from_shapes[1:]:
            zero = b.op("ConstantOfShape", [common])
            common = b.op("Shape", [b.op("Add", [zero, b.op("ConstantOfShape", [other])])])
        wide = [b.op("Expand", [w, common]) for w in wide]
    columns = [b.op("Unsqueeze", [w, b.ints([rank])]) for w in wide]
    return b.op("Concat", columns, axis=rank), rank


@_emits
def _index(b: ModelBuilder, node: Node, x: list[str]) -> str:
    dims, rank = node.attrs.dims, node.operands[0].rank
    if len(dims) == 1:
        return b.op("Gather", x, axis=dims[0])
    moved = b.op("Transpose", [x[0]], perm=_indexed_first(rank, dims))
    stacked, index_rank = _index_tensor(b, node, x[1:], dims)
    result = b.op("GatherND", [moved, stacked])
    consecutive = list(dims) == list(range(dims[0], dims[0] + len(dims)))
    if not consecutive or dims[0] == 0:
        return result
    lead, tail = list(range(index_rank)), list(range(index_rank, node.types[0].rank))
    return b.op("Transpose", [result], perm=[*tail[: dims[0]], *lead, *tail[dims[0] :]])


@_emits
def _index_put(b: ModelBuilder, node: Node, x: list[str]) -> str:
    dims, rank = node.attrs.dims, node.operands[0].rank
    if list(dims) != list(range(len(dims))):
        raise unsupported(
            node,
            "assignment through index tensors is exported for leading dimensions only; "
            "permute the tensor first",
        )
    stacked, index_rank = _index_tensor(b, node, x[2:], dims)
    shape = b.op("Shape", [stacked])
    lead = b.op("Slice", [shape, b.ints([0]), b.ints([index_rank])])
    rest = b.op("Slice", [b.op("Shape", [x[0]]), b.ints([len(dims)]), b.ints([rank])])
    source = b.op("Expand", [x[1], b.op("Concat", [lead, rest], axis=0)])
    attrs: dict[str, Any] = {"reduction": "add"} if node.attrs.accumulate else {}
    return b.op("ScatterND", [x[0], stacked, source], **attrs)


def _top(b: ModelBuilder, x: str, count: Dim, dim: int, largest: bool) -> list[str]:
    return b.multi("TopK", [x, b.shape([count])], 2, axis=dim, largest=int(largest), sorted=1)


@_emits
def _sort(b: ModelBuilder, node: Node, x: list[str]) -> list[str]:
    a = node.attrs
    return _top(b, x[0], node.operands[0].shape[a.dim], a.dim, a.descending)


@_emits
def _topk(b: ModelBuilder, node: Node, x: list[str]) -> list[str]:
    return _top(b, x[0], node.attrs.k, node.attrs.dim, node.attrs.largest)


# ---- contractions, windows, norms, losses --------------------------------------------------------


@_emits
@in_wide_integers
def _matmul(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("MatMul", x)


def _conv_attrs(node: Node) -> dict[str, Any]:
    a = node.attrs
    pads = [low for low, _ in a.padding] + [high for _, high in a.padding]
    kernel = node.operands[1].shape[2:]
    return {
        "strides": list(a.stride),
        "pads": pads,
        "dilations": list(a.dilation),
        "group": a.groups,
        "kernel_shape": [int(k) for k in kernel],
    }


@_emits
def _conv(b: ModelBuilder, node: Node, x: list[str]) -> str:
    return b.op("Conv", x, **_conv_attrs(node))


@_emits
def _conv_transpose(b: ModelBuilder, node: Node, x: list[str]) -> str:
    extra = node.attrs.output_padding
    if not all(isinstance(e, int) for e in extra):
        raise unsupported(
            node, "its output_padding depends on a symbolic size; make the spatial sizes static"
        )
    return b.op("ConvTranspose", x, output_padding=[int(e) for e in extra], **_conv_attrs(node))


def _window(node: Node) -> dict[str, Any]:
    a = node.attrs
    return {
        "kernel_shape": list(a.kernel),
        "strides": list(a.stride),
        "pads": [*a.padding, *a.padding],
        "ceil_mode": int(a.ceil_mode),
    }


@_emits
def _max_pool(b: ModelBuilder, node: Node, x: list[str]) -> list[str]:
    values, index = b.multi("MaxPool", x, 2, dilations=list(node.attrs.dilation), **_window(node))
    # ONNX counts through the whole tensor, PyTorch inside each plane
    spatial = node.operands[0].shape[2:]
    plane: Dim = 1
    for size in spatial:
        plane = plane * size
    return [values, b.op("Mod", [index, b.size(plane)])]


@_emits
def _avg_pool(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a = node.attrs
    counted = bool(a.count_include_pad or a.divisor)
    if a.ceil_mode and a.divisor:
        raise unsupported(node, "ceil_mode together with divisor_override has no ONNX operator")
    result = b.op("AveragePool", x, count_include_pad=int(counted), **_window(node))
    if not a.divisor:
        return result
    factor = float(np.prod(a.kernel)) / a.divisor
    return b.op("Mul", [result, b.scalar(factor, node.types[0].dtype)])


@_emits
def _adaptive_avg_pool(b: ModelBuilder, node: Node, x: list[str]) -> str:
    sizes, wanted = node.operands[0].shape[2:], node.attrs.output_size
    if all(w == 1 for w in wanted):
        return b.op("GlobalAveragePool", x)
    if all(
        isinstance(s, int) and isinstance(w, int) and s % w == 0
        for s, w in zip(sizes, wanted, strict=True)
    ):
        steps = [int(s) // int(w) for s, w in zip(sizes, wanted, strict=True)]
        return b.op("AveragePool", x, kernel_shape=steps, strides=steps)
    raise unsupported(node, f"pooling {list(sizes)} to {list(wanted)} needs windows of equal size")


@_emits
def _adaptive_max_pool(b: ModelBuilder, node: Node, x: list[str]) -> list[str]:
    sizes, wanted = node.operands[0].shape[2:], node.attrs.output_size
    if all(w == 1 for w in wanted):
        lines = b.op("Reshape", [x[0], b.ints([0, 0, -1])])
        place = b.op("ArgMax", [lines], axis=2, keepdims=1)
        return [b.op("GlobalMaxPool", x), b.op("Reshape", [place, b.ints([0, 0, *wanted])])]
    if not all(
        isinstance(s, int) and isinstance(w, int) and s % w == 0
        for s, w in zip(sizes, wanted, strict=True)
    ):
        raise unsupported(
            node, f"pooling {list(sizes)} to {list(wanted)} needs windows of equal size"
        )
    steps = [int(s) // int(w) for s, w in zip(sizes, wanted, strict=True)]
    values, index = b.multi("MaxPool", x, 2, kernel_shape=steps, strides=steps)
    return [values, b.op("Mod", [index, b.size(int(np.prod([int(s) for s in sizes])))])]


@_emits
def _softmax(b: ModelBuilder, node: Node, x: list[str]) -> str:
    kind = "Softmax" if node.op.name == "softmax" else "LogSoftmax"
    return b.op(kind, x, axis=node.attrs.dim)


STRUCTURE["log_softmax"] = _softmax


@_emits
def _layer_norm(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a, shape = node.attrs, node.operands[0].shape
    if len(x) == 1:
        tail = shape[len(shape) - a.axes :]
        x = [x[0], b.constant(np.ones([int(d) for d in tail]), node.types[0].dtype, "ones")]
    return b.op("LayerNormalization", x, axis=-a.axes, epsilon=a.eps)


@_emits
def _batch_norm(b: ModelBuilder, node: Node, x: list[str]) -> str:
    mean = node.operands[1]
    if len(x) == 3:
        size = mean.shape[0]
        if not isinstance(size, int):
            raise unsupported(node, "the number of channels must be static")
        ones, zeros = np.ones(size), np.zeros(size)
        x = [*x, b.constant(ones, mean.dtype, "ones"), b.constant(zeros, mean.dtype, "zeros")]
    return b.op("BatchNormalization", [x[0], x[3], x[4], x[1], x[2]], epsilon=node.attrs.eps)


@_emits
def _nll_loss(b: ModelBuilder, node: Node, x: list[str]) -> str:
    a = node.attrs
    return b.op("NegativeLogLikelihoodLoss", x, reduction=a.reduction, ignore_index=a.ignore_index)


# ---- random --------------------------------------------------------------------------------------


@_emits
def _random_uniform(b: ModelBuilder, node: Node, x: list[str]) -> str:
    kind = "RandomUniformLike" if node.op.name == "random_uniform" else "RandomNormalLike"
    a = node.attrs
    zeros = b.op("ConstantOfShape", [b.shape(a.shape)])
    return b.op(kind, [zeros], dtype=ELEM_TYPE[a.dtype])


STRUCTURE["random_normal"] = _random_uniform

assert not set(itertools.chain(STRUCTURE)) & {"region"}, "regions are made after export"
