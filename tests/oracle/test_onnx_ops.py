"""Every op's ONNX spelling: ONNX Runtime gives what the op's reference gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.ir import dtype as dt
from graphtorch.ir import ops
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import symbol
from graphtorch.onnx.export import to_model

onnxruntime = pytest.importorskip("onnxruntime")
from onnx.reference import ReferenceEvaluator  # noqa: E402 - after the check that the oracles are there

F = Type(dt.f32, (3, 4))
I = Type(dt.i64, (3, 4))  # noqa: E741 - F, I and B are the types of the tables below
B = Type(dt.boolean, (3, 4))
IMAGE = Type(dt.f32, (2, 4, 8, 8))
PLANES = Type(dt.f32, (2, 12, 5, 6))
ROIS = np.array([[0, 1, 0, 7, 5], [1, -3, 2, 20, 9], [0, 2, 3, 2, 3]], np.float32)
VECTOR = Type(dt.f32, (4,))
WINDOW = {"stride": (2, 1), "padding": ((1, 0), (1, 1)), "dilation": (1, 2)}
HEADS = Type(dt.f32, (2, 3, 5, 4))
BLIND = np.tri(5, k=-1) > 0  # the first row sees nothing


class Case(NamedTuple):
    name: str
    types: list[Type]
    build: Callable[..., Any]
    arrays: list[np.ndarray] | None = None
    opset: int = 18


def array(type: Type, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if type.dtype.is_bool:
        return rng.integers(0, 2, type.shape).astype(bool)
    if type.dtype.is_integer:
        return rng.integers(1, 5, type.shape).astype(type.dtype.numpy)
    return rng.uniform(0.1, 0.9, type.shape).astype(type.dtype.numpy)


def index(*values: object) -> np.ndarray:
    return np.array(values, np.int64)


UNARY = [
    "neg",
    "abs",
    "sign",
    "square",
    "reciprocal",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "atanh",
    "erf",
    "erfc",
    "sigmoid",
    "floor",
    "ceil",
    "round",
    "trunc",
    "isnan",
    "isinf",
    "isfinite",
    "relu",
    "silu",
    "log_sigmoid",
    "hardsigmoid",
    "hardswish",
    "mish",
    "softsign",
]
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "floor_div",
    "trunc_div",
    "remainder",
    "fmod",
    "pow",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "atan2",
    "copysign",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "hypot",
    "logaddexp",
    "xlogy",
]
INTEGER = [
    "add",
    "sub",
    "mul",
    "floor_div",
    "trunc_div",
    "remainder",
    "maximum",
    "minimum",
    "eq",
    "lt",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
]

CASES = [
    *(Case(n, [F], getattr(ops, n)) for n in UNARY),
    Case("acosh", [F], ops.acosh, [array(F, 0) + 1]),
    *(Case(n, [F, F], getattr(ops, n)) for n in BINARY),
    *(Case(f"{n} i64", [I, I], getattr(ops, n)) for n in INTEGER),
    *(
        Case(f"{n} bool", [B, B], getattr(ops, n))
        for n in (
            "logical_and",
            "logical_or",
            "logical_xor",
            "eq",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
        )
    ),
    *(
        Case(f"{n} {d}", [Type(d, (3, 4))] * 2, getattr(ops, n))
        for n in ("shift_left", "shift_right")
        for d in (dt.u8, dt.u32, dt.u64, dt.i64)
    ),
    Case("bitwise_not bool", [B], ops.bitwise_not, None, 17),
    *(
        Case(f"gelu {a} opset {o}", [F], lambda x, a=a: ops.gelu(x, approximate=a), None, o)
        for a in ("none", "tanh")
        for o in (17, 20)
    ),
    Case("softplus", [F], lambda x: ops.softplus(x, beta=2.0, threshold=0.5)),
    Case("elu", [F], lambda x: ops.elu(ops.neg(x), alpha=1.5, scale=1.1, input_scale=0.9)),
    Case("leaky_relu", [F], lambda x: ops.leaky_relu(ops.neg(x), slope=0.1)),
    Case("hardtanh", [F], lambda x: ops.hardtanh(x, low=-0.2, high=0.5)),
    Case("where", [B, F, F], ops.where),
    *(
        Case(f"cast {d}", [F], lambda x, d=d: ops.cast(x, dtype=d))
        for d in (dt.i64, dt.f64, dt.boolean, dt.f16)
    ),
    *(
        Case(
            f"{n} {d} opset {o}",
            [F],
            lambda x, n=n, d=d: getattr(ops, n)(x, dims=d, keepdim=len(d) == 1),
            None,
            o,
        )
        for n in ("sum", "prod", "max", "min", "mean", "logsumexp")
        for d in ((1,), (0, 1))
        for o in (17, 18)
    ),
    *(
        Case(n, [B], lambda x, n=n: getattr(ops, n)(x, dims=(1,), keepdim=False))
        for n in ("any", "all")
    ),
    Case("var", [F], lambda x: ops.var(x, dims=(1,), keepdim=False, correction=1.0)),
    *(
        Case(n, [F], lambda x, n=n: getattr(ops, n)(x, dim=1, keepdim=False))
        for n in ("argmax", "argmin")
    ),
    Case("cumsum", [F], lambda x: ops.cumsum(x, dim=1)),
    Case("reshape", [F], lambda x: ops.reshape(x, shape=(2, 6))),
    Case("permute", [F], lambda x: ops.permute(x, dims=(1, 0))),
    Case("expand", [F], lambda x: ops.expand(x, shape=(2, 3, 4))),
    Case("slice", [F], lambda x: ops.slice(x, start=(0, 1), stop=(3, 4), step=(1, 2))),
    Case(
        "slice_update",
        [F, Type(dt.f32, (3, 2))],
        lambda x, y: ops.slice_update(x, y, start=(0, 1), stop=(3, 3), step=(1, 1)),
    ),
    Case(
        "slice_update strided",
        [F, Type(dt.f32, (2, 2))],
        lambda x, y: ops.slice_update(x, y, start=(0, 1), stop=(3, 4), step=(2, 2)),
    ),
    Case("concat", [F, F], lambda x, y: ops.concat(x, y, dim=1)),
    Case("pad", [F], lambda x: ops.pad(x, low=(1, 0), high=(0, 2), value=0.5)),
    Case("flip", [F], lambda x: ops.flip(x, dims=(0, 1))),
    Case("iota", [F], lambda x: ops.iota(shape=(3, 4), dim=1, dtype=dt.f32)),
    Case("tril", [F], lambda x: ops.tril(x, diagonal=1)),
    Case("triu", [F], lambda x: ops.triu(x, diagonal=0)),
    Case("gather", [F, I], lambda x, i: ops.gather(x, i, dim=0), [array(F, 0), array(I, 1) % 3]),
    Case(
        "scatter_add",
        [F, I, F],
        lambda x, i, s: ops.scatter_add(x, i, s, dim=0),
        [array(F, 0), array(I, 1) % 3, array(F, 2)],
    ),
    Case(
        "index_select",
        [F, Type(dt.i64, (2,))],
        lambda x, i: ops.index_select(x, i, dim=1),
        [array(F, 0), index(3, 1)],
    ),
    *(
        Case(
            f"index {d}",
            [IMAGE, Type(dt.i64, (2, 1)), Type(dt.i64, (3,))],
            lambda x, i, j, d=d: ops.index(x, i, j, dims=d),
            [array(IMAGE, 0), index([1], [-1]), index(0, 1, 3)],
        )
        for d in ((1, 2), (0, 2), (2, 3))
    ),
    Case(
        "index one",
        [IMAGE, Type(dt.i64, (2, 3))],
        lambda x, i: ops.index(x, i, dims=(1,)),
        [array(IMAGE, 0), index([3, 0, 1], [-1, 2, 2])],
    ),
    *(
        Case(
            f"index_put {a}",
            [F, Type(dt.f32, (2, 4)), Type(dt.i64, (2,))],
            lambda x, s, i, a=a: ops.index_put(x, s, i, dims=(0,), accumulate=a),
            [array(F, 0), array(Type(dt.f32, (2, 4)), 1), index(2, 0)],
        )
        for a in (False, True)
    ),
    Case("sort", [F], lambda x: ops.sort(x, dim=1, descending=True)),
    *(
        Case(
            f"roi_align {ratio} {aligned}",
            [IMAGE, Type(dt.f32, (3, 5))],
            lambda x, r, n=ratio, a=aligned: ops.roi_align(
                x, r, scale=0.5, size=(2, 3), ratio=n, aligned=a
            ),
            [array(IMAGE, 0), ROIS],
        )
        for ratio, aligned in ((2, True), (2, False), (0, True), (0, False))
    ),
    Case(
        "roi_pool",
        [IMAGE, Type(dt.f32, (3, 5))],
        lambda x, r: ops.roi_pool(x, r, scale=0.5, size=(2, 3))[0],
        [array(IMAGE, 0), ROIS],
    ),
    *(
        Case(
            f"ps_roi_align {ratio}",
            [PLANES, Type(dt.f32, (3, 5))],
            lambda x, r, n=ratio: ops.ps_roi_align(x, r, scale=0.5, size=(2, 3), ratio=n),
            [array(PLANES, 0), ROIS],
        )
        for ratio in (2, 0)
    ),
    *(
        Case(
            f"ps_roi_pool {scale}",
            [PLANES, Type(dt.f32, (3, 5))],
            lambda x, r, s=scale: ops.ps_roi_pool(x, r, scale=s, size=(2, 3)),
            [array(PLANES, 0), ROIS],
        )
        for scale in (0.5, 1.0)
    ),
    Case("topk", [F], lambda x: ops.topk(x, k=2, dim=1, largest=False)),
    Case("matmul", [F, Type(dt.f32, (4, 5))], ops.matmul),
    Case(
        "conv",
        [IMAGE, Type(dt.f32, (6, 2, 3, 3)), Type(dt.f32, (6,))],
        lambda x, w, b: ops.conv(x, w, b, groups=2, **WINDOW),
    ),
    Case(
        "conv_transpose",
        [IMAGE, Type(dt.f32, (4, 3, 3, 3))],
        lambda x, w: ops.conv_transpose(x, w, groups=2, output_padding=(1, 0), **WINDOW),
    ),
    Case(
        "max_pool",
        [IMAGE],
        lambda x: ops.max_pool(
            x, kernel=(3, 2), stride=(2, 2), padding=(1, 0), dilation=(1, 1), ceil_mode=True
        ),
    ),
    *(
        Case(
            f"avg_pool {d} {c}",
            [IMAGE],
            lambda x, d=d, c=c: ops.avg_pool(
                x,
                kernel=(3, 2),
                stride=(2, 2),
                padding=(1, 0),
                ceil_mode=False,
                count_include_pad=c,
                divisor=d,
            ),
        )
        for d in (None, 5)
        for c in (True, False)
    ),
    *(
        Case(
            f"adaptive_avg_pool {s}",
            [IMAGE],
            lambda x, s=s: ops.adaptive_avg_pool(x, output_size=s),
        )
        for s in ((1, 1), (2, 4))
    ),
    Case("adaptive_max_pool", [IMAGE], lambda x: ops.adaptive_max_pool(x, output_size=(2, 4))),
    *(Case(n, [F], lambda x, n=n: getattr(ops, n)(x, dim=0)) for n in ("softmax", "log_softmax")),
    Case("layer_norm", [F], lambda x: ops.layer_norm(x, axes=1, eps=1e-5)),
    Case(
        "layer_norm affine",
        [F, VECTOR, VECTOR],
        lambda x, w, b: ops.layer_norm(x, w, b, axes=1, eps=1e-5),
    ),
    Case("rms_norm", [F, VECTOR], lambda x, w: ops.rms_norm(x, w, axes=1, eps=1e-5)),
    Case(
        "batch_norm",
        [IMAGE, *[VECTOR] * 4],
        lambda x, m, v, w, b: ops.batch_norm(x, m, v, w, b, eps=1e-5),
    ),
    Case(
        "batch_norm_train",
        [IMAGE, VECTOR, VECTOR],
        lambda x, w, b: ops.batch_norm_train(x, w, b, eps=1e-5),
    ),
    Case(
        "group_norm",
        [IMAGE, VECTOR, VECTOR],
        lambda x, w, b: ops.group_norm(x, w, b, groups=2, eps=1e-5),
    ),
    *(
        Case(
            f"attention {name} opset {o}",
            [HEADS] * 3 + [t for t in [mask] if t is not None],
            lambda *x, c=causal: ops.attention(*x, scale=0.3, is_causal=c)[0],
            arrays,
            o,
        )
        for o in (18, 23)
        for name, mask, causal, arrays in (
            ("", None, False, None),
            ("causal", None, True, None),
            ("added", Type(dt.f32, (2, 1, 1, 5)), False, None),
            (
                "boolean",
                Type(dt.boolean, (5, 5)),
                False,
                [*map(array, [HEADS] * 3, range(3)), BLIND],
            ),
        )
    ),
    Case(
        "attention with its log-sum-exp",
        [HEADS] * 3,
        lambda *x: ops.attention(*x, scale=0.3),
        None,
        23,
    ),
    Case(
        "attention of grouped heads",
        [Type(dt.f32, (2, 1, 3, 5, 4)), *[Type(dt.f32, (2, 1, 1, 5, 4))] * 2],
        lambda *x: ops.attention(*x, scale=0.3)[0],
        None,
        23,
    ),
    *(
        Case(
            f"nll_loss {r}",
            [F, Type(dt.i64, (3,))],
            lambda x, t, r=r: ops.nll_loss(x, t, reduction=r, ignore_index=-100),
            [array(F, 0), index(0, 3, 1)],
        )
        for r in ("none", "mean", "sum")
    ),
    *(
        Case(
            f"cross_entropy {r}",
            [F, Type(dt.i64, (3,))],
            lambda x, t, r=r: ops.cross_entropy(
                x, t, reduction=r, ignore_index=3, label_smoothing=0.1
            ),
            [array(F, 0), index(0, 3, 1)],
        )
        for r in ("none", "mean", "sum")
    ),
]


def run_both(graph: Graph, arrays: list[np.ndarray], opset: int = 18) -> None:
    model = to_model(graph, {}, opset=opset)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    results = session.run(None, {v.name: a for v, a in zip(graph.inputs, arrays, strict=True)})
    for got, want in zip(results, evaluate(graph, arrays), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), 1e-4, 1e-5)


WHOLE = [
    "neg",
    "abs",
    "sign",
    "square",
    "relu",
    "isnan",
    "isfinite",
    "add",
    "sub",
    "mul",
    "floor_div",
    "trunc_div",
    "remainder",
    "fmod",
    "maximum",
    "fmin",
    "eq",
    "ne",
    "lt",
    "ge",
    "bitwise_and",
    "bitwise_xor",
    "shift_left",
    "shift_right",
]


@pytest.mark.parametrize("dtype", [dt.u8, dt.u16, dt.u32, dt.u64], ids=str)
def test_unsigned_numbers_of_the_whole_range(dtype: dt.DType) -> None:
    """By ONNX's reference: ONNX Runtime has not every operator on these dtypes."""
    top = 2**dtype.bits - 1
    arrays = [
        np.array(row, dtype.numpy)
        for row in (
            [[0, 1, 2, top, top - 1, top // 2], [top // 2 + 1, 3, 5, 7, top - 2, top // 3]],
            [[1, top, 3, 2, top - 1, top // 2], [top // 2 + 1, top, 2, 1, 9, 15]],
        )
    ]
    x, y = (Value(Type(dtype, a.shape), name=n) for n, a in zip("xy", arrays, strict=True))
    row: dict[str, Any] = {"dims": (1,), "keepdim": False}
    signed = dt.DType.named(f"i{dtype.bits}")
    results = [
        *[getattr(ops, n)(*(x, y)[: getattr(ops, n).arity()[0]]) for n in WHOLE],
        *[getattr(ops, n)(x, **row) for n in ("sum", "prod", "max", "min")],
        *[
            ops.cast(x, dtype=d)
            for d in dt.ALL
            if d.kind < dt.Kind.COMPLEX and d not in (dt.f16, dt.bf16)
        ],
        ops.cumsum(x, dim=1),
        ops.argmax(x, dim=1, keepdim=False),
        ops.bitcast(x, dtype=signed),
        ops.matmul(x, ops.permute(y, dims=(1, 0))),
        ops.where(ops.gt(x, y), x, y),
        ops.concat(x, y, dim=0),
        ops.pad(x, low=(1, 0), high=(0, 2), value=3),
    ]
    graph = Graph("g", [x, y], results)
    found = ReferenceEvaluator(to_model(graph, {}, opset=18)).run(
        None, dict(zip("xy", arrays, strict=True))
    )
    for result, got, want in zip(results, found, evaluate(graph, arrays), strict=True):
        assert got.dtype == want.dtype, result.node
        np.testing.assert_array_equal(got, want, err_msg=str(result.node))


def test_dtypes_that_an_operator_lacks_are_named() -> None:
    x = Value(Type(dt.u32, (1, 1, 6)), name="x")
    window = {"kernel": (2,), "stride": (2,), "padding": (0,), "dilation": (1,), "ceil_mode": False}
    with pytest.raises(RuntimeError, match=r"MaxPool.*uint32.*convert them"):
        to_model(Graph("g", [x], [ops.max_pool(x, **window)[0]]), {}, opset=18)
    with pytest.raises(RuntimeError, match="no powers of u32"):
        to_model(Graph("g", [x], [ops.pow(x, x)]), {}, opset=18)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_op(case: Case) -> None:
    inputs = [Value(t, name=f"x{i}") for i, t in enumerate(case.types)]
    results = case.build(*inputs)
    arrays = case.arrays or [array(t, i) for i, t in enumerate(case.types)]
    run_both(
        Graph("g", inputs, results if isinstance(results, tuple) else (results,)),
        arrays,
        case.opset,
    )


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_sizes_computed_from_a_symbolic_one(batch: int) -> None:
    n = symbol("n", 1, 64)
    x = Value(Type(dt.f32, (n, 4)), name="x")
    doubled = ops.reshape(ops.concat(x, x, dim=0), shape=(2, n, 4))
    rows = ops.add(x, ops.iota(shape=(n, 4), dim=0, dtype=dt.f32))
    graph = Graph("g", [x], [doubled, ops.mean(ops.softmax(rows, dim=0), dims=(0,), keepdim=False)])
    run_both(graph, [array(Type(dt.f32, (batch, 4)), 0)])


def test_an_op_without_a_spelling_is_named() -> None:
    x = Value(F, name="x")
    with pytest.raises(NotImplementedError, match="cumprod"):
        to_model(Graph("g", [x], [ops.cumprod(x, dim=1)]), {})


def test_names_are_checked() -> None:
    x = Value(F, name="x")
    graph = Graph("g", [x], [ops.neg(x)])
    with pytest.raises(ValueError, match="input_names has 2"):
        to_model(graph, {}, input_names=["a", "b"])
    with pytest.raises(ValueError, match="opset_version=11"):
        to_model(graph, {}, opset=11)
    model = to_model(graph, {}, input_names=["image"], output_names=["image_negated"])
    assert [v.name for v in model.graph.input] == ["image"]
    assert [v.name for v in model.graph.output] == ["image_negated"]


@pytest.mark.parametrize("name", ["roi_pool", "ps_roi_pool", "ps_roi_align"])
def test_regions_of_a_model_with_any_number_of_them(name: str, tmp_path: Path) -> None:
    operator = getattr(gt.ops.torchvision, name)
    more = (2,) if name == "ps_roi_align" else ()

    class Pooled(gt.nn.Module):
        def forward(self, x: Any, rois: Any) -> Any:
            return operator(x, rois, 0.5, 2, 3, *more)[0]

    x, rois, place = gt.tensor(array(PLANES, 0)), gt.tensor(ROIS), str(tmp_path / "model.onnx")
    gt.onnx.export(
        Pooled(),
        (x, rois[:2]),
        place,
        input_names=["x", "rois"],
        dynamic_axes={"x": {0: "batch"}, "rois": {0: "regions"}},
    )
    session = onnxruntime.InferenceSession(place)
    (found,) = session.run(None, {"x": x.numpy(), "rois": rois.numpy()})
    np.testing.assert_allclose(found, Pooled()(x, rois).numpy(), 1e-4, 1e-5)


def test_places_of_maxima_of_regions_are_refused(tmp_path: Path) -> None:
    class Places(gt.nn.Module):
        def forward(self, x: Any, rois: Any) -> Any:
            return gt.ops.torchvision.roi_pool(x, rois, 0.5, 2, 3)

    with pytest.raises(RuntimeError, match="does not say where maxima are"):
        gt.onnx.export(Places(), (gt.ones(1, 2, 8, 8), gt.ones(2, 5)), str(tmp_path / "model.onnx"))
