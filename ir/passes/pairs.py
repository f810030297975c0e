"""Complex values as pairs of real ones: targets compute with real numbers only.

Every complex value of a graph becomes two values, its real and its imaginary part. Where memory is
seen from outside, elements stay as they are, the parts of each side by side: a complex input or
output of type c64[a, b] becomes one of type f32[a, b, 2]. Graphs inside of loops and branches take
and give the parts as two values.

An op on complex values has a rule here, or decomposes into ops that have. What has neither
(factorizations) is `foreign`: whoever compiles a graph has to run those nodes by themselves.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias, Union

from .. import ops
from ..dtype import boolean
from ..graph import Graph, Node, Type, Value, located, topological
from ..literal import Literal
from ..op import Kind
from ..ops.checks import attrs_of
from ..ops.common import Expr, cast_to, fn, number, zeros
from ..ops.common import expand_to as expanded
from ..ops.control import CondAttrs, WhileAttrs
from ..ops.reduce import Along, Reduce
from ..ops.scan_grad import ScanAttrs
from ..ops.shape import PadAttrs, slice_dim
from . import pair_math
from .pair_math import Complex


class Pair(NamedTuple):
    """The real and the imaginary part, both of the complex value's shape."""

    re: Value
    im: Value


Parts: TypeAlias = Union[Value, Pair]  # what stands for a value: itself where it is real
Rule: TypeAlias = Callable[..., Sequence[Parts]]  # of a node and what stands for its operands
RULES: dict[str, Rule] = {}
STATIC: set[str] = set()  # ops whose rules need to know the sizes


def run(graph: Graph) -> Graph:
    """`graph` on real values only; itself where it has no others.

    Raises:
        NotImplementedError: a node is `foreign`; names the op and the user's line.
    """
    return _rewritten(graph, _halves, _joined) if has_complex(graph) else graph


def foreign(graph: Graph) -> list[Node]:
    """The nodes on complex values that cannot be expressed in real ones."""
    return [node for node in graph.nodes if is_complex(node) and not _has_rule(node)]


def has_complex(graph: Graph) -> bool:
    """Whether a value of `graph`, or of a graph inside its loops and branches, is complex."""
    return any(v.dtype.is_complex for v in graph.inputs) or any(is_complex(n) for n in graph.nodes)


def is_complex(node: Node) -> bool:
    """Whether a node reads or makes complex values, or holds a graph that does."""
    return (
        any(t.dtype.is_complex for t in node.types)
        or any(v.dtype.is_complex for v in node.operands)
        or any(has_complex(body) for body in _bodies(node))
    )


def _bodies(node: Node) -> list[Graph]:
    if node.op.kind is not Kind.CONTROL:
        return []
    return [
        b
        for f in dataclasses.fields(node.attrs)
        if isinstance(b := getattr(node.attrs, f.name), Graph)
    ]


def _has_rule(node: Node) -> bool:
    if node.op.name in RULES:
        return not any(foreign(body) for body in _bodies(node)) and (
            node.op.name not in STATIC or all(v.type.is_static for v in node.operands)
        )
    if node.op.is_core:
        return False
    parts = topological(tuple(node.op.decompose(node)), node.operands)  # type: ignore[operator]
    return all(not is_complex(n) or _has_rule(n) for n in parts)


# ----------------------------------------------------------------------------------------- the walk


class _Split:
    """What stands for the values met so far."""

    def __init__(self, found: dict[Value, Parts]):
        self.found = found

    def parts(self, value: Value) -> Parts:
        return self.found.get(value, value)

    def visit(self, node: Node) -> None:
        if not is_complex(node):
            kept = node.with_operands(tuple([self.real(v) for v in node.operands]))
            if kept is not node:
                self.found.update(zip(node.results(), kept.results(), strict=True))
            return
        rule = RULES.get(node.op.name)
        if rule is not None:
            results = rule(node, *[self.parts(v) for v in node.operands])
        elif node.op.is_core:
            place = f" (recorded at {node.location})" if node.location else ""
            raise NotImplementedError(
                f"pairs: {node.op.name} of complex numbers has no rule{place}, only NumPy computes "
                "it: instead of on a GPU do so on the CPU (x.cpu())"
            )
        else:
            results = self.decomposed(node)
        self.found.update(zip(node.results(), results, strict=True))

    def real(self, value: Value) -> Value:
        found = self.parts(value)
        assert isinstance(found, Value)
        return found

    def decomposed(self, node: Node) -> Sequence[Parts]:
        values = tuple(node.op.decompose(node))  # type: ignore[operator]
        for inner in topological(values, node.operands):
            self.visit(inner)
        return [self.parts(v) for v in values]


Enter: TypeAlias = Callable[[Value], tuple[list[Value], Parts]]
Leave: TypeAlias = Callable[[Parts], list[Value]]


def _rewritten(graph: Graph, enter: Enter, leave: Leave) -> Graph:
    """`enter` says which inputs take the place of one and what stands for it, `leave` what is
    returned."""
    inputs: list[Value] = []
    found: dict[Value, Parts] = {}
    with located(None):
        for value in graph.inputs:
            made, found[value] = enter(value)
            inputs += made
    split = _Split(found)
    for node in graph.nodes:
        with located(node.location):
            split.visit(node)
    outputs = [v for value in graph.outputs for v in leave(split.parts(value))]
    return Graph(graph.name, inputs, outputs, donates=graph.donates)


def _halves(value: Value) -> tuple[list[Value], Parts]:
    if not value.dtype.is_complex:
        return [value], value
    memory = Value(Type(value.dtype.real, (*value.shape, 2)), name=value.name)
    return [memory], Pair(*[_half(memory, i) for i in range(2)])


def _half(memory: Value, index: int) -> Value:
    part = slice_dim(memory, memory.rank - 1, index, index + 1)
    return ops.reshape(part, shape=memory.shape[:-1])


def _joined(parts: Parts) -> list[Value]:
    if isinstance(parts, Value):
        return [parts]
    shape = (*parts.re.shape, 1)
    return [ops.concat(*[ops.reshape(p, shape=shape) for p in parts], dim=len(shape) - 1)]


def _apart(value: Value) -> tuple[list[Value], Parts]:
    if not value.dtype.is_complex:
        return [value], value
    real = value.type.with_dtype(value.dtype.real)
    pair = Pair(Value(real, name=f"{value.name}_re"), Value(real, name=f"{value.name}_im"))
    return list(pair), pair


def _flat(*parts: Parts) -> list[Value]:
    return [v for p in parts for v in ([p] if isinstance(p, Value) else p)]


# ------------------------------------------------------------------------------------------ rules


def rule(*names: str, static: bool = False) -> Callable[[Rule], Rule]:
    """Register what ops are in terms of the parts; `static`: where the sizes are known."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        STATIC.update(names if static else ())
        return function

    return register


@rule(
    "detach",
    "neg",
    "add",
    "sub",
    "where",
    "reshape",
    "permute",
    "expand",
    "slice",
    "flip",
    "slice_update",
    "concat",
    "gather",
    "index",
    "index_select",
    "scatter",
    "scatter_add",
    "index_put",
    "sum",
    "cumsum",
    "tril",
    "triu",
    "require",
)
def _part_by_part(node: Node, *operands: Parts) -> Sequence[Parts]:
    """Of linear ops and of those that move elements."""
    halves = []
    for i in range(2):
        values = tuple([p if isinstance(p, Value) else p[i] for p in operands])
        halves.append(node.op.node(values, node.attrs, node.location).result())
    return (Pair(*halves),)


def _complex(parts: Parts) -> Complex:
    assert isinstance(parts, Pair)
    return Complex(Expr(parts.re), Expr(parts.im))


def _pair(found: Complex, type: Type) -> Sequence[Parts]:
    """The parts of a result, which may have come out smaller than its shape."""
    return (Pair(expanded(found.re.value, type.shape), expanded(found.im.value, type.shape)),)


def _pointwise(function: Callable[..., Complex]) -> Rule:
    return lambda node, *xs: _pair(function(*map(_complex, xs)), node.types[0])


RULES.update({name: _pointwise(function) for name, function in pair_math.FUNCTIONS.items()})
RULES.update({"mul": _pointwise(pair_math.mul), "div": _pointwise(pair_math.div)})


@rule("pow")
def _pow(node: Node, x: Parts, y: Parts) -> Sequence[Parts]:
    """A small whole exponent multiplies, as in NumPy and PyTorch."""
    exponent = node.operands[1].node
    if exponent is not None and exponent.op is ops.constant and node.operands[1].rank == 0:
        known = exponent.attrs.value.item()  # type: ignore[attr-defined]
        if known.imag == 0 and known.real == int(known.real) != 0 and abs(known.real) < WHOLE_LIMIT:
            return _pair(pair_math.whole_power(_complex(x), int(known.real)), node.types[0])
    return _pair(pair_math.pow(_complex(x), _complex(y)), node.types[0])


WHOLE_LIMIT = 100  # exponents beyond it go through the logarithm


@rule("abs")
def _abs(node: Node, x: Parts) -> Sequence[Parts]:
    return (pair_math.modulus(_complex(x)).value,)


@rule("angle")
def _angle(node: Node, x: Parts) -> Sequence[Parts]:
    return (pair_math.argument(_complex(x)).value,)


@rule("real")
def _real(node: Node, x: Pair) -> Sequence[Parts]:
    return (x.re,)


@rule("imag")
def _imag(node: Node, x: Pair) -> Sequence[Parts]:
    return (x.im,)


@rule("conj")
def _conj(node: Node, x: Pair) -> Sequence[Parts]:
    return (Pair(x.re, ops.neg(x.im)),)


@rule("complex")
def _of_parts(node: Node, re: Value, im: Value) -> Sequence[Parts]:
    shape = node.types[0].shape
    return (Pair(expanded(re, shape), expanded(im, shape)),)


@rule("cast")
def _cast(node: Node, x: Parts) -> Sequence[Parts]:
    target = node.types[0].dtype
    if isinstance(x, Value):
        re = cast_to(x, target.real)
        return (Pair(re, zeros(re.type)),)
    if target is boolean:
        return ((fn.ne(Expr(x.re), 0) | fn.ne(Expr(x.im), 0)).value,)
    re, im = (cast_to(p, target.real) for p in x)
    return (Pair(re, im) if target.is_complex else re,)


def _both(join: str) -> Rule:
    """A condition that both parts, or one of them, have to fulfil."""

    def apply(node: Node, *operands: Pair) -> Sequence[Parts]:
        return (getattr(ops, join)(*[node.op(*[p[i] for p in operands]) for i in range(2)]),)

    return apply


RULES.update(dict.fromkeys(("eq", "isfinite"), _both("logical_and")))
RULES.update(dict.fromkeys(("ne", "isnan", "isinf"), _both("logical_or")))


@rule("constant")
def _constant(node: Node) -> Sequence[Parts]:
    array, real = node.attrs.value.numpy(), node.types[0].dtype.real  # type: ignore[attr-defined]
    return (
        Pair(*[ops.constant(value=Literal.of(part, real)) for part in (array.real, array.imag)]),
    )


@rule("bitcast")
def _bitcast(node: Node, x: Parts) -> Sequence[Parts]:
    """Through the reals as they lie in memory."""
    [memory], target = _joined(x), node.types[0]
    if isinstance(x, Pair):
        *lead, last, _ = (1, *memory.shape)
        memory = ops.reshape(memory, shape=(*lead, last * 2))
    elif memory.rank == 0:
        memory = ops.reshape(memory, shape=(1,))
    if not target.dtype.is_complex:
        return (ops.reshape(ops.bitcast(memory, dtype=target.dtype), shape=target.shape),)
    memory = ops.reshape(ops.bitcast(memory, dtype=target.dtype.real), shape=(*target.shape, 2))
    return (Pair(*[_half(memory, i) for i in range(2)]),)


@rule("size")
def _size(node: Node, x: Pair) -> Sequence[Parts]:
    return (node.op.node((x.re,), node.attrs, node.location).result(),)


@rule("pad")
def _pad(node: Node, x: Pair) -> Sequence[Parts]:
    attrs = attrs_of(node, PadAttrs)
    value = complex(attrs.value)
    parts = zip(x, (value.real, value.imag), strict=True)
    return (
        Pair(
            *[
                node.op.node((p,), dataclasses.replace(attrs, value=v), node.location).result()
                for p, v in parts
            ]
        ),
    )


# ------------------------------------------------------------------------------------- contractions


@rule("matmul")
def _matmul(node: Node, a: Pair, b: Pair) -> Sequence[Parts]:
    """One real product: [re im] [[re im] [-im re]]."""
    rows, columns, width = a.re.rank - 1, b.re.rank - 1, b.re.shape[-1]
    left = ops.concat(*a, dim=rows)
    right = ops.concat(
        ops.concat(*b, dim=columns), ops.concat(ops.neg(b.im), b.re, dim=columns), dim=columns - 1
    )
    both = ops.matmul(left, right)
    last = both.rank - 1
    return (Pair(slice_dim(both, last, 0, width), slice_dim(both, last, width, width + width)),)


@rule("conv", "conv_transpose", "conv_weight_grad")
def _bilinear(node: Node, x: Pair, w: Pair, *bias: Pair) -> Sequence[Parts]:
    """Four real ones."""

    def of(a: Value, b: Value, *c: Value) -> Value:
        return node.op.node((a, b, *c), node.attrs, node.location).result()

    re = ops.sub(of(x.re, w.re, *[b.re for b in bias]), of(x.im, w.im))
    im = ops.add(of(x.re, w.im, *[b.im for b in bias]), of(x.im, w.re))
    return (Pair(re, im),)


# ----------------------------------------------------------------------------------------- products


@rule("prod", static=True)
def _prod(node: Node, x: Pair) -> Sequence[Parts]:
    """By halves: the first half of the factors times the second, again and again."""
    attrs = attrs_of(node, Reduce)
    kept = [d for d in range(x.re.rank) if d not in attrs.dims]
    moved = [ops.permute(p, dims=(*kept, *attrs.dims)) for p in x]
    lead = tuple([x.re.shape[d] for d in kept])
    count = int(functools.reduce(lambda a, d: a * int(x.re.shape[d]), attrs.dims, 1))  # type: ignore[call-overload]
    factors = Pair(*[ops.reshape(p, shape=(*lead, count)) for p in moved])
    if count == 0:
        one, nothing = (number(v, x.re.dtype) for v in (1, 0))
        return (Pair(*[expanded(v, node.types[0].shape) for v in (one, nothing)]),)
    while count > 1:
        half = count // 2
        parts = [
            Pair(*[slice_dim(p, len(lead), a, b) for p in factors])
            for a, b in ((0, half), (half, 2 * half), (2 * half, count))
        ]
        factors, count = _times(parts[0], parts[1]), half
        if parts[2].re.shape[-1]:
            factors = Pair(
                *[ops.concat(p, q, dim=len(lead)) for p, q in zip(factors, parts[2], strict=True)]
            )
            count += 1
    return (Pair(*[ops.reshape(p, shape=node.types[0].shape) for p in factors]),)


@rule("cumprod", static=True)
def _cumprod(node: Node, x: Pair) -> Sequence[Parts]:
    """Each element times the one that is 1, 2, 4, ... places before it."""
    dim, shift = attrs_of(node, Along).dim, 1
    length = int(x.re.shape[dim])  # type: ignore[call-overload]
    while shift < length:
        low = tuple(shift if d == dim else 0 for d in range(x.re.rank))
        before = [
            ops.pad(slice_dim(p, dim, 0, length - shift), low=low, high=(0,) * len(low), value=v)
            for p, v in zip(x, (1.0, 0.0), strict=True)
        ]
        x, shift = _times(x, Pair(*before)), 2 * shift
    return (x,)


def _times(x: Pair, y: Pair) -> Pair:
    found = pair_math.mul(_complex(x), _complex(y))
    return Pair(found.re.value, found.im.value)


# ------------------------------------------------------------------------------------- control flow


def _inside(graph: Graph) -> Graph:
    return _rewritten(graph, _apart, lambda p: _flat(p))


def _results(node: Node, made: Sequence[Value]) -> Sequence[Parts]:
    """What stands for a node's results, which came as flat values."""
    values = iter(made)
    return [
        Pair(next(values), next(values)) if t.dtype.is_complex else next(values) for t in node.types
    ]


def _width(values: Iterable[Value]) -> int:
    return sum(1 + v.dtype.is_complex for v in values)


@rule("scan")
def _scan(node: Node, *operands: Parts) -> Sequence[Parts]:
    attrs = attrs_of(node, ScanAttrs)
    carried, stacked = (
        node.operands[: attrs.carries],
        node.operands[attrs.carries :][: attrs.stacked],
    )
    inner = dataclasses.replace(
        attrs, body=_inside(attrs.body), carries=_width(carried), stacked=_width(stacked)
    )
    return _results(node, node.op.node(tuple(_flat(*operands)), inner, node.location).results())


@rule("while_loop")
def _while(node: Node, *operands: Parts) -> Sequence[Parts]:
    attrs = attrs_of(node, WhileAttrs)
    inner = WhileAttrs(
        _inside(attrs.test), _inside(attrs.body), _width(node.operands[: attrs.carries])
    )
    return _results(node, node.op.node(tuple(_flat(*operands)), inner, node.location).results())


@rule("cond")
def _cond(node: Node, *operands: Parts) -> Sequence[Parts]:
    attrs = attrs_of(node, CondAttrs)
    inner = CondAttrs(_inside(attrs.then), _inside(attrs.orelse))
    return _results(node, node.op.node(tuple(_flat(*operands)), inner, node.location).results())
