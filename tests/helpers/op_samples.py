"""Every op record with sample operands: the tables of cases, and what they leave out.

Tests map them over entries; tools/replay.py lowers them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from attention_cases import ATTENTION
from factor_cases import FACTOR
from graphtorch.ir import ops
from graphtorch.ir.dtype import ALL, DType, boolean, c128, f32, f64, i8, i64
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.op import OPS, Op
from graphtorch.ir.ops import mersenne
from graphtorch.ir.passes.autodiff import vjp
from tensor_cases import CASES, Case
from vision_cases import VISION

TABLE = [*CASES, *ATTENTION, *FACTOR, *VISION]
X = np.array([[0.3, -0.7, 1.1], [0.9, -0.2, 0.4]])
ABOVE_ONE = np.abs(X) + 1.5
FLAGS, WHOLE = X > 0, np.array([[3, -2, 1], [0, 5, -4]])
IN_TABLE = {"svd", "eig", "eigh", "qr", "cholesky", "lu", "pinv_of", "triangular_solve"}
SIMPLE = [
    n
    for n, op in OPS.items()
    if len(op.operands) in (1, 2, 3)
    and not op.is_variadic
    and not op.operands[-1].endswith("?")
    and n not in IN_TABLE
]
REDUCTIONS = ("sum", "prod", "max", "min", "mean", "logsumexp", "var", "any", "all")
ALONG = ("argmax", "argmin", "cumsum", "cumprod", "cummax", "cummin")
# NumPy computes them on CPUs, and GPUs refuse them
WITHOUT_KERNELS = {"eig"}
WITHOUT_COMPLEX = {"cholesky", "eigh", "lu", "qr", "svd", "triangular_solve"}  # so of these
WITHOUT_GRADIENTS = ("igamma", "igammac", "zeta", "dirichlet_grad", "standard_gamma_grad")  # loops


class Sample(NamedTuple):
    """`build` makes values of inputs like `arrays`; `gradients` says whether its graph has them
    too."""

    name: str
    build: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    gradients: bool = True

    def graph(self) -> Graph:
        values = values_for(self.arrays)
        made = self.build(*values)
        outputs = list(made) if isinstance(made, tuple) else [made]
        return Graph("test", values, with_gradients(outputs, values) if self.gradients else outputs)


def sample(name: str, build: Callable[..., Any], *arrays: Any, gradients: bool = True) -> Sample:
    return Sample(name, build, tuple(map(np.asarray, arrays)), gradients)


def values_for(arrays: Sequence[np.ndarray]) -> list[Value]:
    return [Value(Type(DType.of(a.dtype), a.shape), name=f"x{i}") for i, a in enumerate(arrays)]


def with_gradients(outputs: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    floats = [v for v in outputs if v.dtype.is_differentiable]
    found = vjp(floats, floats, [v for v in inputs if v.dtype.is_differentiable])
    return [*outputs, *(g for g in found if g is not None)]


def every() -> Iterator[Sample]:
    """All samples: together they have every op that is no fused region."""
    yield from chain.from_iterable(map(pointwise, SIMPLE))
    yield from map(of_case, TABLE)
    yield from chain.from_iterable(map(reductions, REDUCTIONS))
    yield from chain.from_iterable(map(along, ALONG))
    yield from map(draw, RANDOM)
    yield from chain.from_iterable(group() for group in GROUPS)
    yield repeated()


def with_kernels() -> Iterator[Sample]:
    """The samples that every target with kernels takes."""
    return (s for s in every() if s.name not in WITHOUT_KERNELS)


# ------------------------------------------------------------------------------------- by dtype


def in_dtype(sample: Sample, dtype: DType) -> Sample | None:
    """The sample with its numbers in another dtype; None where its op does not take that.

    Numbers are its floats, of which whole ones are made for integers, and where it has none what a
    pointwise op is given: other samples' integers are places and sizes.
    """
    own = own_dtype(sample)
    if own is None or (sample.name in SIMPLE and own.kind is not dtype.kind):
        return None  # pointwise ops have samples of every kind
    arrays = tuple(numbers_in(a, dtype) if DType.of(a.dtype) is own else a for a in sample.arrays)
    changed = sample._replace(arrays=arrays)
    return changed if is_taken(changed) else None


def is_taken(sample: Sample) -> bool:
    """Whether the records of a sample's ops take its operands."""
    try:
        sample._replace(gradients=False).graph()
    except (TypeError, RuntimeError, ValueError):
        return False
    return True


def no_complex(sample: Sample) -> bool:
    """Whether GPUs refuse the sample in complex numbers, by the op's name."""
    return sample.name.split()[0] in WITHOUT_COMPLEX


def own_dtype(sample: Sample) -> DType | None:
    """The dtype of a sample's numbers: see `in_dtype`."""
    dtypes = [DType.of(a.dtype) for a in sample.arrays]
    for dtype in (f64, *((c128, i64, boolean) if sample.name in SIMPLE else ())):
        if dtype in dtypes:
            return dtype
    return None


def numbers_in(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Numbers of an array as another dtype has them."""
    if dtype.is_differentiable:
        return array.astype(dtype.numpy)
    if dtype.is_bool:
        return np.asarray(array > 0)
    whole = np.rint(4 * array) if array.dtype.kind == "f" else array
    return np.asarray(whole if dtype.signed else np.abs(whole), dtype.numpy)


def differs(
    found: Sequence[np.ndarray], want: Sequence[np.ndarray], dtype: DType, steps: int = 8
) -> str:
    """What is wrong with the results of a sample in a dtype; empty where nothing is.

    Integers are equal; the largest error of floats is as many of the dtype's smallest steps,
    relative to the largest number of all results, of which gradients are made: sums are rounded in
    other orders than NumPy's.
    """
    scale = max((largest(x) for x in want), default=0.0) or 1.0
    for i, (a, b) in enumerate(zip(found, want, strict=True)):
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return f"result {i}: {a.dtype} {a.shape} instead of {b.dtype} {b.shape}"
        step = max(step_of(DType.of(b.dtype)), step_of(dtype))
        if error(a, b) > (steps * step * scale if DType.of(b.dtype).is_differentiable else 0):
            return f"result {i}: {a.ravel()[:4]} instead of {b.ravel()[:4]}"
    return ""


def largest(array: np.ndarray) -> float:
    """The largest finite magnitude among floats; 0 of others."""
    if not DType.of(array.dtype).is_differentiable:
        return 0.0
    sizes = np.abs(array.astype(complex))
    return float(sizes[np.isfinite(sizes)].max(initial=0.0))


def error(found: np.ndarray, want: np.ndarray) -> float:
    """The largest difference; infinite where NaN differ.

    An infinity is as far from the largest finite number as that is from the one before: which of
    both a sum becomes that ends there is a matter of rounding.
    """
    if not DType.of(want.dtype).is_differentiable:
        return float((found != want).any())
    a, b = (_within(x) for x in (found, want))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def _within(x: np.ndarray) -> np.ndarray:
    """`x` as complex numbers, real infinities as the number that would follow the largest."""
    if x.dtype.kind == "c":
        return x
    info = ml_dtypes.finfo(x.dtype)
    end = float(info.max) * (1 + float(info.eps) / 2)
    return np.clip(x.astype(float), -end, end).astype(complex)


def step_of(dtype: DType) -> float:
    """The distance from 1 to the next number of a dtype of floats; 0 of others."""
    return float(ml_dtypes.finfo(dtype.real.numpy).eps) if dtype.is_differentiable else 0.0


def in_every_dtype() -> Iterator[tuple[Sample, DType]]:
    """The samples that targets with kernels take, in every dtype but their own that their ops
    take."""
    for sample in with_kernels():
        for dtype in ALL:
            if dtype is own_dtype(sample) or (dtype.is_complex and no_complex(sample)):
                continue
            if (changed := in_dtype(sample, dtype)) is not None:
                yield changed, dtype
    for dtype in ALL:
        yield from ((sample, dtype) for sample in drawn_in(dtype) if is_taken(sample))


# ------------------------------------------------------------------------------------------ by kind


def of_case(case: Case) -> Sample:
    rng = np.random.default_rng(11)
    floats = []
    for position, shape in enumerate(case.shapes):
        array = rng.permutation(math.prod(shape)).reshape(shape) * 0.31 + rng.uniform(0, 0.1, shape)
        array = array / max(1.0, np.abs(array).max(initial=0) / 3)
        shift = 0.5 if position in case.positive else -array.mean() if array.size else 0
        floats.append(array + shift)
    return sample(case.name, case.op, *floats, *case.integers)


def accepts(op: Op, *arrays: np.ndarray) -> bool:
    """Whether the op takes such operands, without attributes."""
    try:
        op(*values_for(arrays))
    except Exception:
        return False
    return True


def pointwise(name: str) -> Iterator[Sample]:
    """An op on operands of one shape, of shapes that broadcast, and on scalars, in each kind of
    dtype."""
    op = OPS[name]
    taken = [
        s for s in (ABOVE_ONE, X, FLAGS, WHOLE, X + 1j) if accepts(op, *[s] * len(op.operands))
    ]
    looped = name in WITHOUT_GRADIENTS
    for x in taken:
        operands = [x, x[1], x[:, :1]][: len(op.operands)] if len(op.operands) > 1 else [x]
        if not accepts(op, *operands):
            operands = [x] * len(op.operands)
        if looped:
            operands = [o if i == 0 else o * 0.5 + 1 for i, o in enumerate(operands)]
        yield sample(name, op, *operands, gradients=not looped)
    if taken and len(op.operands) > 1:
        scalar = taken[0][0, 0]
        operands = [np.asarray(o) for o in (taken[0], scalar, scalar)][: len(op.operands)]
        if accepts(op, *operands):
            yield sample(name, op, *operands, gradients=False)


def reductions(name: str) -> Iterator[Sample]:
    x = FLAGS if name in ("any", "all") else X
    more = {"correction": 1.0} if name == "var" else {}
    for dims, keepdim in (((0,), False), ((1,), True), ((0, 1), False), ((), True)):
        yield sample(name, lambda x, d=dims, k=keepdim: OPS[name](x, dims=d, keepdim=k, **more), x)
    for dims in ((), (0,)):
        yield sample(name, lambda x, d=dims: OPS[name](x, dims=d, keepdim=False, **more), x[0, 0])


def along(name: str) -> Iterator[Sample]:
    more = {"keepdim": False} if name.startswith("arg") else {}
    for x, dim in ((X, 0), (X, 1), (X[0, 0], 0)):
        yield sample(name, lambda x, d=dim: OPS[name](x, dim=d, **more), x)


def others() -> Iterator[Sample]:
    yield sample("cast", lambda x: ops.cast(x, dtype=f32), X)
    yield sample("polygamma", lambda x: ops.polygamma(x, n=1), ABOVE_ONE)
    yield sample("where", lambda x: ops.where(ops.gt(x, x), x, x), X)
    yield sample("where", lambda c, x, y: ops.where(c, x, y), FLAGS[0], X, X[1, 0])
    yield sample("bitcast", lambda x: ops.bitcast(x, dtype=i64), X)
    yield sample("bitcast", lambda x: ops.bitcast(x, dtype=i8), X)
    yield sample("fft", lambda x: ops.fft(x, dim=0, inverse=False), X + 1j)
    yield sample("size", lambda x: ops.mul(x, ops.cast(ops.size(x, dim=1), dtype=x.dtype)), X)
    yield sample("within", lambda x: ops.within(x, rule="positive", message="no"), ABOVE_ONE)
    yield sample(
        "require", lambda x, info: ops.require(x, info, message="no"), X, np.zeros((), np.int32)
    )
    yield sample("concat", lambda x, y, z: ops.concat(x, y, z, dim=1), X, X[:, :1], X)
    yield sample("concat", lambda x: ops.concat(x, x, dim=0), X)
    images = np.random.default_rng(4).permutation(32).reshape(1, 2, 4, 4) / 8
    yield sample(
        "max_pool_input_grad",
        lambda g, x: ops.max_pool_input_grad(g, x, kernel=(2, 2), stride=(2, 2)),
        np.cos(images[:, :, :2, :2]),
        images,
    )


def products() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for a, b in (
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 2, 3), (5, 3, 1)),
    ):
        yield sample("matmul", ops.matmul, rng.standard_normal(a), rng.standard_normal(b))
    for shape in ((3,), (2, 3), (2, 2, 3)):
        x, w, b = (rng.standard_normal(s) for s in (shape, (4, 3), (4,)))
        yield sample("linear", ops.linear, x, w)
        yield sample("affine", ops.affine, b, x, w)


def products_of_few_digits() -> Iterator[Sample]:
    rng = np.random.default_rng(3)
    for shape in ((8,), (2, 8), (2, 2, 7)):
        x, w = (rng.standard_normal(s).astype(np.float32) for s in (shape, (4, shape[-1])))
        for precision in ("int8", "bf16"):
            op = partial(ops.low_linear, precision=precision)
            yield sample("low_linear", op, x, w, gradients=False)
        q, v = ((30 * a).astype(np.int8) for a in (x, w))
        yield sample("narrow_linear", ops.narrow_linear, q, v, gradients=False)


def convolutions() -> Iterator[Sample]:
    for groups in (1, 2):
        rng = np.random.default_rng(1)
        place: dict[str, Any] = {
            "stride": (2,),
            "padding": ((1, 1),),
            "dilation": (1,),
            "groups": groups,
        }
        x, w, b = (rng.standard_normal(s) for s in ((2, 4, 5), (6, 4 // groups, 3), (6,)))
        yield sample("conv", lambda *v, p=place: ops.conv(*v, **p), x, w, b)
        w = rng.standard_normal((4, 6 // groups, 3))
        yield sample(
            "conv_transpose",
            lambda *v, p=place: ops.conv_transpose(*v, **p, output_padding=(0,)),
            x,
            w,
            b,
        )
        g = rng.standard_normal((2, 6, 3))
        yield sample(
            "conv_weight_grad", lambda *v, p=place: ops.conv_weight_grad(*v, kernel=(3,), **p), x, g
        )


def channels_last() -> Iterator[Sample]:
    for groups in (1, 2):
        rng = np.random.default_rng(3)
        place: dict[str, Any] = {
            "stride": (2,),
            "padding": ((1, 1),),
            "dilation": (1,),
            "groups": groups,
        }
        x, w, b = (rng.standard_normal(s) for s in ((2, 5, 4), (6, 4 // groups, 3), (6,)))
        yield sample(
            "channels_last_conv", lambda *v, p=place: ops.channels_last_conv(*v, **p), x, w, b
        )
        w = rng.standard_normal((4, 6 // groups, 3))
        yield sample(
            "channels_last_conv_transpose",
            lambda *v, p=place: ops.channels_last_conv_transpose(*v, **p, output_padding=(0,)),
            x,
            w,
            b,
        )
        g = rng.standard_normal((2, 3, 6))
        yield sample(
            "channels_last_conv_weight_grad",
            lambda *v, p=place: ops.channels_last_conv_weight_grad(*v, kernel=(3,), **p),
            x,
            g,
        )


def minimal_filtering() -> Iterator[Sample]:
    rng = np.random.default_rng(4)
    x, large, small = (rng.standard_normal(s) for s in ((2, 7, 5, 3), (36, 8, 3), (16, 24, 3)))
    padding = ((1, 1), (2, 0))
    for tile, m in ((4, large), (2, small)):
        yield sample(
            "winograd_image", lambda x, t=tile: ops.winograd_image(x, padding=padding, tile=t), x
        )
        yield sample(
            "winograd_result",
            lambda m, t=tile: ops.winograd_result(m, shape=(2, 7, 5, 3), tile=t),
            m,
        )
        yield sample(
            "winograd_conv",
            lambda x, w, t=tile: ops.winograd_conv(x, w, padding=padding, tile=t),
            x,
            rng.standard_normal(((tile + 2) ** 2, 2, x.shape[3], 5)),
        )
        yield sample(
            "winograd_result_grad", lambda g, t=tile: ops.winograd_result_grad(g, tile=t), x
        )


def updates() -> Iterator[Sample]:
    rng = np.random.default_rng(9)
    p, g, m = (rng.standard_normal((3, 4)) for _ in range(3))
    second = rng.random((3, 4)) + 0.1
    numbers = [np.array(x) for x in (0.1, 0.99, 0.01, 0.02, 0.3, 1e-3, 0.9)]
    for count in (6, 7):
        yield sample("adam_update", ops.adam_update, p, g, m, second, *numbers[:count])
    for nesterov in (False, True):
        yield sample(
            "momentum_update",
            lambda *v, n=nesterov: ops.momentum_update(*v, nesterov=n),
            p,
            g,
            m,
            *numbers[:2],
        )


def positions() -> Iterator[Sample]:
    """Advanced indexing with positions side by side, apart, and of several shapes."""
    x = np.random.default_rng(2).standard_normal((3, 4, 5, 2))
    a, b = np.array([2, 0]), np.array([[1, 0], [2, -1], [0, 1]])
    for dims in ((0, 1), (1, 2), (0, 2), (1, 3), (2,), (0,)):
        indices = [a, b][: len(dims)] if max(dims) < 3 else [a % 2, b % 2]
        yield sample("index", lambda x, *i, d=dims: ops.index(x, *i, dims=d), x, *indices)
        taken = x[tuple(indices[dims.index(d)] if d in dims else slice(None) for d in range(4))]
        for accumulate in (True, False):
            if accumulate or len(dims) == 1:

                def put(
                    x: Value, s: Value, *i: Value, d: Any = dims, acc: bool = accumulate
                ) -> Value:
                    return ops.index_put(x, s, *i, dims=d, accumulate=acc)

                yield sample("index_put", put, x, np.cos(taken), *indices)
                yield sample("index_put", put, x, np.float64(3.5), *indices, gradients=accumulate)
    for dim in range(4):
        yield sample("index_select", lambda x, i, d=dim: ops.index_select(x, i, dim=d), x, a % 2)
    line = np.sort(X[0])
    yield sample("searchsorted", ops.searchsorted, line, X, gradients=False)
    yield sample("searchsorted", ops.searchsorted, line, X[0, 1], gradients=False)
    yield sample("searchsorted", ops.searchsorted, np.sort(X), X[:, :2], gradients=False)


# ------------------------------------------------------------------------------------------ control


def body(name: str, inputs: Sequence[Value], *outputs: Value) -> Graph:
    return Graph(name, inputs, outputs)


def like(*values: Value) -> list[Value]:
    """Inputs of a body of such types."""
    return [Value(v.type, name=f"x{i}") for i, v in enumerate(values)]


def step(carry: Value, x: Value, weight: Value) -> Graph:
    after = ops.tanh(ops.add(ops.mul(carry, weight), x))
    return body("step", [carry, x, weight], after, ops.mul(after, x))


def loops() -> Iterator[Sample]:
    steps = np.random.default_rng(3).standard_normal((4, 3))
    for reverse in (False, True):

        def scan(c: Value, xs: Value, w: Value, reverse: bool = reverse) -> Any:
            graph = step(*like(c, w, w))
            return ops.scan(c, xs, w, body=graph, carries=1, stacked=1, length=4, reverse=reverse)

        yield sample("scan", scan, X, steps, X[1])


def branches() -> Iterator[Sample]:
    def cond(p: Value, x: Value, y: Value) -> Any:
        a, b = like(x, y)
        then, orelse = (
            body(n, [a, b], o, ops.exp(b)) for n, o in (("a", ops.mul(a, b)), ("b", ops.add(a, b)))
        )
        return ops.cond(p, x, y, then=then, orelse=orelse)

    for holds in (True, False):
        yield sample("cond", cond, np.bool_(holds), X, X[1])


def repeated() -> Sample:
    """A loop that ends after as many steps as its last operand says."""

    def loop(*given: Value) -> Any:
        x, n, limit = like(*given)
        test = body("test", [x, n, limit], ops.lt(n, limit))
        one = ops.constant(value=Literal.of(1, i64))
        step = body("body", [x, n, limit], ops.mul(x, ops.sin(x)), ops.add(n, one))
        return ops.while_loop(*given, test=test, body=step, carries=2)

    return sample("while_loop", loop, X, np.int64(0), np.int64(4), gradients=False)


# ----------------------------------------------------------------------------------- random numbers


def places(name: str, count: int) -> list[np.ndarray]:
    """`count` places in streams, one for each entry: what the op takes after its parameters."""
    if name.startswith("mersenne"):
        states = np.stack([mersenne.seeded_state(i) for i in range(count)])
        return [states, np.arange(count) * 400] if name == "mersenne_skip" else [states]
    return [np.arange(count) + 5, np.arange(count) * 8]


SHAPED: dict[str, Any] = {"shape": (2, 3)}
RANDOM: dict[str, tuple[list[np.ndarray], dict[str, Any]]] = {
    "random_uniform": ([], SHAPED | {"dtype": f64}),
    "random_normal": ([], SHAPED | {"dtype": f64}),
    "random_int": ([], SHAPED | {"dtype": i64, "low": 0, "high": 1000}),
    **dict.fromkeys(("standard_gamma", "poisson"), ([ABOVE_ONE], {})),
    **dict.fromkeys(("mersenne_gamma", "mersenne_poisson"), ([ABOVE_ONE], {"single": False})),
    "binomial": ([np.full((4, 6), 90.0), np.full((4, 6), 0.4)], {}),
    "mersenne_binomial": ([np.full((4, 6), 90.0), np.full((4, 6), 0.4)], {"single": False}),
    "mersenne_words": ([], SHAPED),
    "mersenne_normals": ([], SHAPED),
    "mersenne_skip": ([], {}),
}


def draw(name: str) -> Sample:
    """A draw from the first of `places`."""
    parameters, attrs = RANDOM[name]
    return sample(
        name,
        lambda *x: OPS[name](*x, **attrs),
        *parameters,
        *[s[0] for s in places(name, 1)],
        gradients=False,
    )


GIVEN = np.arange(64, dtype=np.int32) * 123457
WORDS: dict[str, dict[str, Any]] = {
    "words_to_float": {"shape": (64,), "dtype": f32},
    "words_to_normal": {"shape": (48,), "dtype": f32, "rest": True, "cephes": True},
    "words_to_integer": {"low": 0, "high": 9, "shape": (64,), "dtype": i64, "wide": False},
}


def drawn_in(dtype: DType) -> Iterator[Sample]:
    """Draws of another dtype than in their samples, and what is made of words."""
    tables = [(n, [s[0] for s in places(n, 1)], a) for n, (p, a) in RANDOM.items() if not p]
    for name, arrays, attrs in (*tables, *((n, [GIVEN], a) for n, a in WORDS.items())):
        if attrs.get("dtype", dtype) is not dtype:
            attrs = attrs | {"dtype": dtype} | ({"high": 90} if "high" in attrs else {})
            made = sample(name, lambda *x, n=name, a=attrs: OPS[n](*x, **a), *arrays)
            yield made._replace(gradients=False)


def words() -> Iterator[Sample]:
    """What is made of random words."""
    yield sample("permutation", ops.permutation, GIVEN)
    yield sample("words_to_wide", lambda w: ops.words_to_wide(w, shape=(4, 8)), GIVEN)
    for name, attrs in WORDS.items():
        yield sample(name, lambda w, n=name, a=attrs: OPS[n](w, **a), GIVEN)
    yield sample("bernoulli", ops.bernoulli, X * X, X[::-1] * X)
    yield sample("muladd", ops.muladd, X, X * 2, X[0])


GROUPS = (
    others,
    products,
    products_of_few_digits,
    convolutions,
    channels_last,
    minimal_filtering,
    updates,
    positions,
    loops,
    branches,
    words,
)
