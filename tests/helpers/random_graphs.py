"""Random graphs, by seed: small, valid, of many ops and dtypes, and arrays to run them on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from graphtorch.ir import dtype as dt
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value, topological
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import legalize
from graphtorch.ir.shape import broadcast

DTYPES = (dt.f32, dt.f32, dt.f32, dt.f64, dt.i32, dt.i64, dt.boolean, dt.bf16)
UNARY = (
    "neg",
    "abs",
    "square",
    "exp",
    "tanh",
    "sigmoid",
    "relu",
    "floor",
    "sin",
    "erf",
    "gelu",
    "silu",
    "softplus",
    "rsqrt",
    "log1p",
    "sqrt",
)
UNARY_INT = (
    "neg",
    "abs",
    "square",
    "sign",
)
BINARY = (
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "atan2",
    "copysign",
)
BINARY_INT = (
    "add",
    "sub",
    "mul",
    "floor_div",
    "remainder",
    "maximum",
    "minimum",
    "bitwise_and",
    "bitwise_xor",
)
BINARY_BOOL = (
    "logical_and",
    "logical_or",
    "logical_xor",
)
COMPARE = (
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
)
REDUCE = (
    "sum",
    "max",
    "min",
    "mean",
    "logsumexp",
    "var",
)
SIZE_LIMIT = 4000

# Results that are the same on every machine: no rounding. Whatever jumps (floor, comparisons, casts
# to whole numbers) is applied to such only, so that a difference in the last bit never becomes one
# in the first.
EXACT = frozenset(
    (
        "neg",
        "abs",
        "maximum",
        "minimum",
        "relu",
        "floor",
        "copysign",
        "where",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_xor",
        "logical_not",
        "reshape",
        "permute",
        "expand",
        "slice",
        "flip",
        "pad",
        "concat",
        "index_select",
        "gather",
        "max",
        "min",
        "any",
        "all",
        "constant",
        "argmax",
        "argmin",
        "sign",
    )
)


def is_exact(value: Value) -> bool:
    """Whether two correct implementations give `value` the same bits."""
    if value.node is None or value.dtype.is_integer or value.dtype.is_bool:
        return True
    if value.node.op is ops.cast:
        return is_exact(value.node.operands[0])
    return value.node.op.name in EXACT and all(map(is_exact, value.node.operands))


PRECISION = {"bf16": 0.1, "f16": 0.02, "f32": 2e-4, "f64": 1e-9, "c64": 2e-4, "c128": 1e-9}


def tolerance(value: Value) -> float:
    """How far two correct results may be apart: as the narrowest float on the way allows; 0 if
    exact."""
    if is_exact(value):
        return 0
    nodes = topological([value])
    dtypes = {v.dtype.name for n in nodes for v in (*n.operands, *n.results()) if not is_exact(v)}
    return max((PRECISION[d] for d in dtypes if d in PRECISION), default=0)


def assert_close(
    graph: Graph, found: Sequence[np.ndarray], expected: Sequence[np.ndarray], what: str
) -> None:
    """Compare a graph's outputs within their tolerances."""
    for i, (value, a, b) in enumerate(zip(graph.outputs, found, expected, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: output {i}"
        limit = tolerance(value)
        if a.dtype.kind in "bui":
            np.testing.assert_array_equal(a, b, err_msg=f"{what}: output {i}")
        else:
            wide = np.complex128 if a.dtype.kind == "c" else np.float64
            np.testing.assert_allclose(
                a.astype(wide),
                b.astype(wide),
                rtol=limit,
                atol=limit,
                err_msg=f"{what}: output {i}",
            )


def evaluate(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """By the references, but every array is contiguous: NumPy's sums depend on strides in the last
    bit."""
    known = dict(zip(graph.inputs, arrays, strict=True))
    flat = legalize.run(graph, lambda n: n.op is not ops.region)
    for node in flat.nodes:
        with np.errstate(all="ignore"):
            found = node.op.reference(node.attrs, *(known[v] for v in node.operands))
        for value, array in zip(
            node.results(), found if isinstance(found, tuple) else (found,), strict=True
        ):
            known[value] = np.ascontiguousarray(array).reshape(array.shape)
    return [known[v] for v in flat.outputs]


def as_pairs(array: np.ndarray) -> np.ndarray:
    """Complex numbers as the reals that lie in memory."""
    if array.dtype.kind != "c":
        return array
    return np.ascontiguousarray(array).reshape(-1).view(array.real.dtype).reshape(*array.shape, 2)


def as_complex(array: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The opposite, where `like` is complex."""
    if like.dtype.kind != "c":
        return array
    return np.ascontiguousarray(array).reshape(-1).view(like.dtype).reshape(like.shape)


class Generator:
    """Grows a graph node by node from the values it has."""

    dtypes: tuple[DType, ...] = DTYPES

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.inputs = [
            Value(Type(self.random.choice(self.dtypes), self.shape()), name=f"x{i}")
            for i in range(3)
        ]
        self.inputs.append(Value(Type(dt.f32, self.shape(2)), name="x3"))
        self.values = list(self.inputs)

    def shape(self, least: int = 0) -> tuple[int, ...]:
        rank = self.random.choice((0, 1, 2, 2, 2, 3, 3, 4))
        return tuple(self.random.choice((1, 2, 3, 4, 5, 8, 17)) for _ in range(max(rank, least)))

    def pick(self, accepts: Callable[[Value], bool] = lambda v: True) -> Value | None:
        found = [v for v in self.values if accepts(v)]
        recent = found[-4:] if self.random.random() < 0.6 else found
        return self.random.choice(recent) if recent else None

    def graph(self, nodes: int) -> Graph:
        """A graph of at least `nodes` nodes, all of whose last results (and some others) are
        outputs."""
        steps = [
            self.unary,
            self.binary,
            self.binary,
            self.compare,
            self.where,
            self.cast,
            self.view,
            self.view,
            self.reduce,
            self.reduce,
            self.matmul,
            self.lookup,
            self.softmax,
            self.pad,
            self.concat,
        ]
        while len(self.values) - len(self.inputs) < nodes:
            made = self.random.choice(steps)()
            if made is not None and _size(made) <= SIZE_LIMIT:
                self.values.append(made)
        count = self.random.randint(1, 3)
        made = self.values[len(self.inputs) :]
        return Graph("random", self.inputs, [made[-1], *self.random.choices(made, k=count - 1)])

    def arrays(self, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [_array(v.type, rng) for v in self.inputs]

    # ---- one node each; None where nothing fits

    def number(self, dtype: DType) -> Value:
        value = (
            self.random.choice((0, 1, 2, -1, 0.5, 3))
            if dtype.is_floating_point
            else self.random.choice((0, 1, 3))
        )
        return ops.constant(value=Literal.of(value, dtype))

    def partner(self, x: Value) -> Value | None:
        """A value of the same dtype that broadcasts with `x`."""
        if self.random.random() < 0.25:
            return self.number(x.dtype)
        y = self.pick(lambda v: v.dtype is x.dtype and _broadcasts(v, x))
        if y is None or self.random.random() < 0.2:
            y = self.row(x) or y
        return y

    def row(self, x: Value) -> Value | None:
        """A part of `x` that broadcasts along one of its axes."""
        axes = [d for d in range(x.rank) if x.shape[d] > 0]
        if not axes:
            return None
        axis = self.random.choice(axes)
        stop = tuple(1 if d == axis else s for d, s in enumerate(x.shape))
        return ops.slice(x, start=(0,) * x.rank, stop=stop, step=(1,) * x.rank)

    def unary(self) -> Value | None:
        x = self.pick(lambda v: not v.dtype.is_bool)
        if x is None:
            return None
        name = self.random.choice(UNARY if x.dtype.is_floating_point else UNARY_INT)
        if name == "floor" and not is_exact(x):
            return None
        if name in ("sqrt", "rsqrt", "log1p"):
            x = ops.add(ops.abs(x), ops.constant(value=Literal.of(0.5, x.dtype)))
        attrs = {"gelu": {"approximate": "none"}, "softplus": {"beta": 1.0, "threshold": 20.0}}.get(
            name, {}
        )
        return getattr(ops, name)(x, **attrs)

    def binary(self) -> Value | None:
        x = self.pick()
        y = self.partner(x) if x is not None else None
        if x is None or y is None:
            return None
        names = (
            BINARY_BOOL if x.dtype.is_bool else BINARY if x.dtype.is_floating_point else BINARY_INT
        )
        name = self.random.choice(names)
        if name == "copysign" and not (is_exact(x) and is_exact(y)):
            return None
        return getattr(ops, name)(*self.random.sample((x, y), 2))

    def compare(self) -> Value | None:
        x = self.pick(is_exact)
        y = self.partner(x) if x is not None else None
        return (
            None
            if x is None or y is None or not is_exact(y)
            else getattr(ops, self.random.choice(COMPARE))(x, y)
        )

    def where(self) -> Value | None:
        x = self.pick()
        y = self.partner(x) if x is not None else None
        if x is None or y is None:
            return None
        shape = broadcast(x.shape, y.shape)
        condition = self.pick(lambda v: v.dtype.is_bool and _fits(v.shape, shape))
        if condition is None and not is_exact(x):
            return None
        if condition is None:
            condition = ops.ne(x, ops.constant(value=Literal.of(0, x.dtype)))
        return ops.where(condition, x, y)

    def cast(self) -> Value | None:
        x = self.pick()
        target = self.random.choice(self.dtypes)
        if x is None or x.dtype is target or (not target.is_floating_point and not is_exact(x)):
            return None
        return ops.cast(x, dtype=target)

    def view(self) -> Value | None:
        x = self.pick(lambda v: v.rank > 0)
        if x is None:
            return None
        return self.random.choice((self.reshape, self.permute, self.expand, self.slice, self.flip))(
            x
        )

    def reshape(self, x: Value) -> Value:
        shape = list(x.shape)
        axis = self.random.randrange(len(shape))
        if self.random.random() < 0.5 and len(shape) > 1 and axis + 1 < len(shape):
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
        elif self.random.random() < 0.5 and shape[axis] % 2 == 0:
            shape[axis : axis + 1] = [2, shape[axis] // 2]
        else:
            shape.insert(axis, 1)
        return ops.reshape(x, shape=tuple(shape))

    def permute(self, x: Value) -> Value:
        return ops.permute(x, dims=tuple(self.random.sample(range(x.rank), x.rank)))

    def expand(self, x: Value) -> Value:
        shape = tuple(3 if d == 1 else d for d in x.shape)
        return ops.expand(x, shape=shape if self.random.random() < 0.5 else (2, *shape))

    def slice(self, x: Value) -> Value:
        start = tuple(self.random.randrange(d) if d else 0 for d in x.shape)
        stop = tuple(
            self.random.randint(a, d) if self.random.random() < 0.1 else d
            for a, d in zip(start, x.shape, strict=True)
        )
        return ops.slice(
            x, start=start, stop=stop, step=tuple(self.random.choice((1, 1, 2)) for _ in x.shape)
        )

    def flip(self, x: Value) -> Value:
        return ops.flip(x, dims=(self.random.randrange(x.rank),))

    def pad(self) -> Value | None:
        x = self.pick(lambda v: v.rank > 0)
        if x is None:
            return None
        low, high = (tuple(self.random.choice((0, 0, 1, 2)) for _ in x.shape) for _ in range(2))
        return ops.pad(x, low=low, high=high, value=1 if not x.dtype.is_floating_point else 0.5)

    def concat(self) -> Value | None:
        x = self.pick(lambda v: v.rank > 0)
        if x is None:
            return None
        dim = self.random.randrange(x.rank)
        other = self.pick(
            lambda v: (
                v.dtype is x.dtype
                and v.rank == x.rank
                and all(
                    a == b or d == dim
                    for d, (a, b) in enumerate(zip(v.shape, x.shape, strict=True))
                )
            )
        )
        return ops.concat(x, other or x, dim=dim)

    def reduce(self) -> Value | None:
        x = self.pick(lambda v: v.rank > 0 and all(d > 1 for d in v.shape))
        if x is None:
            return None
        dims = tuple(sorted(self.random.sample(range(x.rank), self.random.randint(1, x.rank))))
        keepdim = self.random.random() < 0.5
        if x.dtype.is_bool:
            return getattr(ops, self.random.choice(("any", "all")))(x, dims=dims, keepdim=keepdim)
        if self.random.random() < 0.15 and is_exact(x):
            return getattr(ops, self.random.choice(("argmax", "argmin")))(
                x, dim=dims[0], keepdim=keepdim
            )
        if not x.dtype.is_floating_point:
            return ops.max(x, dims=dims, keepdim=keepdim)
        name = self.random.choice(REDUCE)
        extra = {"correction": 1.0} if name == "var" else {}
        return getattr(ops, name)(x, dims=dims, keepdim=keepdim, **extra)

    def softmax(self) -> Value | None:
        x = self.pick(lambda v: v.rank > 0 and v.dtype.is_floating_point and 0 not in v.shape)
        if x is None:
            return None
        if self.random.random() < 0.3:
            return ops.layer_norm(x, axes=1, eps=1e-5)
        op = self.random.choice((ops.softmax, ops.log_softmax))
        return op(x, dim=self.random.randrange(x.rank))

    def matmul(self) -> Value | None:
        x = self.pick(lambda v: v.rank >= 2 and v.dtype in (dt.f32, dt.f64))
        if x is None:
            return None
        y = self.pick(lambda v: v.rank == 2 and v.dtype is x.dtype and v.shape[0] == x.shape[-1])
        if y is None:
            y = ops.permute(x, dims=(*range(x.rank - 2), x.rank - 1, x.rank - 2))
        return ops.matmul(x, y)

    def lookup(self) -> Value | None:
        x = self.pick(lambda v: v.rank > 0 and all(d > 0 for d in v.shape))
        if x is None:
            return None
        dim = self.random.randrange(x.rank)
        positions = np.random.default_rng(self.random.randrange(99)).integers(0, x.shape[dim], 4)
        index = ops.constant(value=Literal.of(positions, dt.i64))
        if self.random.random() < 0.5:
            return ops.index_select(x, index, dim=dim)
        shape = tuple(4 if d == dim else s for d, s in enumerate(x.shape))
        aligned = ops.reshape(index, shape=tuple(4 if d == dim else 1 for d in range(x.rank)))
        return ops.gather(x, ops.expand(aligned, shape=shape), dim=dim)


class UnsignedGenerator(Generator):
    """Graphs of unsigned numbers, small ones and some near the end of their range."""

    dtypes = (dt.u16, dt.u32, dt.u64, dt.u64, dt.u8, dt.i64, dt.f32, dt.f64, dt.boolean)

    def binary(self) -> Value | None:
        x = self.pick(lambda v: v.dtype.is_integer)
        y = self.partner(x) if x is not None else None
        if x is None or y is None or self.random.random() < 0.4:
            return super().binary()
        name = self.random.choice(
            ("trunc_div", "fmod", "pow", "shift_left", "shift_right", "bitwise_or", "fmax", "fmin")
        )
        return getattr(ops, name)(*self.random.sample((x, y), 2))  # type: ignore[no-any-return]

    def reduce(self) -> Value | None:
        x = self.pick(lambda v: v.dtype.is_integer and v.rank > 0 and all(d > 1 for d in v.shape))
        if x is None or self.random.random() < 0.3:
            return super().reduce()
        dim, name = self.random.randrange(x.rank), self.random.choice(SCANS)
        if name in ("sum", "prod", "min"):
            return getattr(ops, name)(x, dims=(dim,), keepdim=True)  # type: ignore[no-any-return]
        if name == "sort":
            return ops.sort(x, dim=dim, descending=self.random.random() < 0.5)[
                self.random.randrange(2)
            ]
        found = getattr(ops, name)(x, dim=dim)
        return found[self.random.randrange(2)] if isinstance(found, tuple) else found


SCANS = ("cumsum", "cumprod", "cummax", "cummin", "sort", "sum", "prod", "min")


class ComplexGenerator(Generator):
    """Graphs of complex values and real ones, which meet."""

    def __init__(self, seed: int):
        super().__init__(seed)
        numbers = (dt.c64, dt.c64, dt.c128, dt.f32)
        self.inputs = [
            Value(Type(self.random.choice(numbers), self.shape()), name=f"x{i}") for i in range(3)
        ]
        self.inputs.append(Value(Type(dt.c64, self.shape(2)), name="x3"))
        self.values = list(self.inputs)

    def number(self, dtype: DType) -> Value:
        if not dtype.is_complex:
            return super().number(dtype)
        return ops.constant(value=Literal.of(self.random.choice((0.5, 2, -1, 1j, 0.5 - 2j)), dtype))

    def unary(self) -> Value | None:
        x = self.pick(lambda v: v.dtype.is_complex)
        if x is None or self.random.random() < 0.2:
            return super().unary() if x is None or x.dtype.is_floating_point else None
        if self.random.random() < 0.3:
            return getattr(ops, self.random.choice(("abs", "real", "imag")))(x)
        bounded = ops.div(x, ops.cast(ops.add(ops.abs(x), self.one(x)), dtype=x.dtype))
        names = (
            "exp",
            "log1p",
            "sqrt",
            "sin",
            "cosh",
            "tanh",
            "conj",
            "neg",
            "square",
            "reciprocal",
            "asin",
        )
        name = self.random.choice(names)
        # away from poles and cuts, where a difference in the last bit is none in the first
        shifted = ops.add(bounded, ops.constant(value=Literal.of(1.5 + 1.5j, x.dtype)))
        return getattr(ops, name)(shifted)

    def one(self, x: Value) -> Value:
        return ops.constant(value=Literal.of(1, x.dtype.real))

    def binary(self) -> Value | None:
        x = self.pick(lambda v: v.dtype.is_complex)
        y = self.partner(x) if x is not None else None
        if x is None or y is None:
            return super().binary()
        if self.random.random() < 0.2:
            y = ops.add(ops.mul(y, ops.conj(y)), ops.constant(value=Literal.of(1, x.dtype)))
            return ops.div(x, y)
        return getattr(ops, self.random.choice(("add", "sub", "mul")))(
            *self.random.sample((x, y), 2)
        )

    def compare(self) -> Value | None:
        return None

    def cast(self) -> Value | None:
        x = self.pick()
        if x is None or x.dtype.is_bool or x.dtype.is_integer:
            return None
        if self.random.random() < 0.5 and x.dtype is not dt.c128:
            targets = (dt.c64, dt.c128) if x.dtype is dt.f32 else (dt.c128, dt.f32)
            return ops.cast(x, dtype=self.random.choice(targets))
        return None if x.dtype.is_complex or x.dtype is dt.f64 else ops.complex(x, ops.neg(x))

    def reduce(self) -> Value | None:
        x = self.pick(lambda v: v.dtype.is_complex and v.rank > 0 and all(d > 1 for d in v.shape))
        if x is None:
            return super().reduce()
        dims = tuple(sorted(self.random.sample(range(x.rank), self.random.randint(1, x.rank))))
        name = self.random.choice(("sum", "mean", "var", "cumsum", "prod"))
        if name == "cumsum":
            return ops.cumsum(x, dim=dims[0])
        extra = {"correction": 1.0} if name == "var" else {}
        return getattr(ops, name)(
            x, dims=dims[:1] if name == "prod" else dims, keepdim=True, **extra
        )

    def matmul(self) -> Value | None:
        x = self.pick(lambda v: v.rank >= 2 and v.dtype.is_complex)
        if x is None:
            return None
        return ops.matmul(x, ops.permute(x, dims=(*range(x.rank - 2), x.rank - 1, x.rank - 2)))


def _size(value: Value) -> int:
    return int(np.prod(value.shape, dtype=np.int64))


def _broadcasts(a: Value, b: Value) -> bool:
    try:
        return int(np.prod(broadcast(a.shape, b.shape), dtype=np.int64)) <= SIZE_LIMIT
    except RuntimeError:
        return False


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return broadcast(shape, target) == target
    except RuntimeError:
        return False


def _array(type: Type, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(int(d) for d in type.shape)
    if type.dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if type.dtype.is_integer:
        return rng.integers(-5, 6, shape).astype(type.dtype.numpy)
    if type.dtype.is_complex:
        return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(
            type.dtype.numpy
        )
    return rng.normal(size=shape).astype(type.dtype.numpy)
