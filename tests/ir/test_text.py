"""The text form: complete, exact, and refused with a place where it is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.ir import ops
from graphtorch.ir.dtype import ALL, bf16, c64, f32, f64, i64, u8
from graphtorch.ir.graph import Graph, Location, Type, Value, located
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import fuse
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.shape import symbol
from graphtorch.ir.text import ParseError, parse


def round_trip(graph: Graph) -> Graph:
    text = str(graph)
    again = parse(text)
    assert again == graph
    assert str(again) == text
    return again


def constant(value: object, dtype: object = None) -> Graph:
    return Graph("c", [], [ops.constant(value=Literal.of(value, dtype))])


def test_golden(golden: Callable[[str, str], None]) -> None:
    n = symbol("batch", 1, 64)
    x = Value(Type(f32, (n, 3)), name="x")
    w = Value(Type(f32, (5, 3)), name="fc.weight")
    with located(Location('net "a".py', 12)):
        y = ops.relu(ops.matmul(x, ops.permute(w, dims=(1, 0))))
    with located(Location("net.py", 13)):
        values, indices = ops.sort(ops.reshape(y, shape=(5 * n,)), dim=0, descending=True)
    scaled = ops.mul(w, ops.constant(value=Literal.of(-0.0, f32)))
    graph = Graph("net", [x, w], [values, scaled, indices], donates=[(1, 1)])
    golden("text_net", str(round_trip(graph)))
    golden("text_net_fused", str(round_trip(fuse.run(graph, Limits()))))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_literals_of_every_dtype(dtype: object) -> None:
    rng = np.random.default_rng(0)
    for shape in ((), (3,), (2, 0), (5, 7)):
        data = rng.integers(
            0, 2 if dtype.is_bool else 256, (*shape, dtype.itemsize), dtype=np.uint8
        )
        array = data.view(dtype.numpy)[..., 0] if not dtype.is_bool else data[..., 0].astype(bool)
        round_trip(constant(array, dtype))


@pytest.mark.parametrize(
    "value", [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, 0.1, 1e300, -5.5, 2**-1074]
)
def test_floats_keep_their_bits(value: float) -> None:
    for dtype in (f64, f32, bf16):
        with np.errstate(over="ignore"):
            graph = round_trip(constant(value, dtype))
        assert "(" in str(graph), "short ones are readable"
    x = Value(Type(f64, (2,)), name="x")
    padded = ops.pad(x, low=(1,), high=(0,), value=math.nan if math.isnan(value) else value)
    again = round_trip(Graph("g", [x], [padded]))
    found = again.nodes[0].attrs.value
    assert np.float64(found).tobytes() == np.float64(value).tobytes()


def test_payload_of_a_nan_survives() -> None:
    round_trip(constant(np.array([0x7FC00001], np.uint32).view(np.float32)))


def test_long_literals_are_base64() -> None:
    assert '"' in str(round_trip(constant(np.arange(100.0))))
    assert str(round_trip(constant([1 + 2j, -0.0j], c64))).count(",") == 3


def test_sizes() -> None:
    n, m = symbol("n"), symbol("m", 2)
    plain = (n, 2 * n, n + m - 1, n * m, -n + 5)
    for dim in (*plain, n // 2, (n + 1) % m, n // 2 * (m % 3) - 7, (n // 2 + 1) // m):
        x = Value(Type(f32, (dim, 4)), name="x")
        round_trip(Graph("g", [x], [ops.reshape(x, shape=(1, dim, 2, 2))]))


def test_names() -> None:
    names = [
        "x",
        "a.b",
        "été",
        "two words",
        '"',
        "0",
        "nan",
        "f32",
        "return",
        "%1",
        "a..b",
        "\n",
        "x0",
    ]
    inputs = [Value(Type(f32), name=n) for n in names]
    round_trip(Graph("my graph", inputs, inputs))
    round_trip(Graph("empty", [], []))


def test_nested_graphs_have_their_own_names() -> None:
    inner = Value(Type(f32, (symbol("n"),)), name="x")
    body = Graph("body", [inner], [ops.neg(inner), inner])
    x = Value(Type(f32, (symbol("n"),)), name="y")
    results = ops.region(x, kind="loop", body=body)
    round_trip(Graph("g", [x], results))


def test_spaces_comments_and_trailing_commas_do_not_matter() -> None:
    text = """graph g (%x : f32[2,3,] ,)  # inputs
    { %a1 = neg ( %x ) : f32 [2, 1+2]
      return %a1 }"""
    x = Value(Type(f32, (2, 3)), name="x")
    assert parse(text) == Graph("g", [x], [ops.neg(x)])


ERRORS = [
    ("grph g() { return }", 1, 1, "expected 'graph'"),
    ("graph g(%x: f32[2]) {\n  return %y\n}", 2, 10, "%y is not defined before its use"),
    ("graph g(%x: f32[2]) {\n  %0 = nge(%x) : f32[2]\n  return\n}", 2, 8, "unknown op 'nge'"),
    ("graph g(%x: f31[2]) { return }", 1, 13, "expected a dtype"),
    ("graph g(%x: f32[n]) { return }", 1, 17, "'n' is not declared"),
    ("graph g(%x: f32[4//0]) { return }", 1, 18, "division by zero"),
    ("graph g(%x: f32[2]) { return", 1, 29, "expected '%', got 'end of text'"),
    ("graph g(%x: f32[2], %x: f32[2]) { return }", 1, 21, "%x is defined twice"),
    ("graph g(%x: f32[2]) { return %x into %0 }", 1, 38, "%0 is not defined"),
    ("graph g() { return } graph", 1, 22, "expected nothing after the graph"),
    ("graph g() { $ }", 1, 13, "unexpected character '$'"),
    ("graph g<n in 5..2>() { return }", 1, 18, "expected 0 <= min <= max"),
    ("graph g<nan>() { return }", 1, 12, "not a free identifier"),
    ("graph g(%x: f32[2]) { %0 = permute(%x) : f32[2]\n return }", 1, 40, "lacks attribute dims"),
    (
        "graph g(%x: f32[2]) { %0 = permute(%x) {dim=1} : f32[2]\n return }",
        1,
        41,
        "'dim' is unexpected",
    ),
    (
        "graph g(%x: f32[2]) { %0, %1 = neg(%x) : f32[2]\n return }",
        1,
        23,
        "2 values on the left have 1",
    ),
    (
        "graph g() { %0 = constant() {value=f32[2](1.0)} : f32[2]\n return }",
        1,
        42,
        "has 8 bytes, got 4",
    ),
    ('graph g() { %0 = constant() {value=f32[1]"A"} : f32[1]\n return }', 1, 45, ""),
    ("graph g() { %0 = constant() {value=u8[](256)} : u8[]\n return }", 1, 45, ""),
    ("graph g() { %0 = constant() {value=bool[](1)} : bool[]\n return }", 1, 45, "True or False"),
    ("graph g(%x: f32[2]) { %0 = neg(%x) : f32[2] @ here\n return }", 1, 47, "file name in quotes"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), ERRORS)
def test_bad_text_is_refused_where_it_is_wrong(
    text: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert isinstance(caught.value, ValueError)


def test_any_prefix_of_a_text_is_refused_cleanly() -> None:
    x = Value(Type(i64, (symbol("n", 1, 5), 2)), name="x")
    y = ops.pad(ops.neg(x), low=(0, 1), high=(0, 0), value=3)
    text = str(Graph("g", [x], [y, ops.constant(value=Literal.of([1, 2], u8))]))
    for end in range(len(text)):
        with pytest.raises(ParseError):
            parse(text[:end])
