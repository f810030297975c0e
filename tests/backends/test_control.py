"""Loops and branches in native code against the references, their text and their memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiled import assert_close, run
from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels.program.check_plan import check_plan
from graphtorch.backends.kernels.program.plan import plan
from graphtorch.backends.kernels.program.program import Launch, Loop, Program, flat
from graphtorch.backends.kernels.text import print_program
from graphtorch.backends.llvm import compiler
from graphtorch.ir import ops
from graphtorch.ir.dtype import boolean, f32, f64, i64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import pipeline
from graphtorch.ir.passes.autodiff import vjp
from graphtorch.ir.shape import Dim, symbol
from recurrences import BODIES, arrays_for, gru, looped, value


def with_gradients(graph: Graph) -> Graph:
    given = [Value(v.type, name=f"out{i}") for i, v in enumerate(graph.outputs)]
    found = vjp(graph.outputs, given, graph.inputs)
    return Graph(
        "both", [*graph.inputs, *given], [*graph.outputs, *(g for g in found if g is not None)]
    )


def program_of(graph: Graph, stable: tuple[int, ...] = ()) -> Program:
    program = lower(pipeline.run(graph, supports, "llvm"), stable=stable)
    check_plan(program, plan(program), {s.name: 7 for s in program.symbols})
    return program


def compare(graph: Graph, arrays: list[np.ndarray]) -> None:
    program_of(graph)
    for found, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_scans_and_their_gradients(name: str, reverse: bool) -> None:
    build, carries = BODIES[name]
    graph = with_gradients(looped(build(), carries, 5, reverse))
    compare(graph, arrays_for(graph))


def test_symbolic_sizes_are_one_program() -> None:
    graph = with_gradients(looped(gru(symbol("batch", 0, 64), 5, f32), 1, symbol("steps", 0, 64)))
    for steps, batch in ((0, 2), (1, 1), (4, 0), (9, 3)):
        compare(graph, arrays_for(graph, {"steps": steps, "batch": batch}))


def test_scan_in_a_scan() -> None:
    inner = gru(2, 3)
    h, xs, w, b = value("h", 2, 3), value("xs", 4, 2, 9), value("w", 9, 3), value("b", 9)
    last, ys, *_ = ops.scan(h, xs, w, b, body=inner, carries=1, stacked=1, length=4)
    body = Graph("outer", [h, xs, w, b], [ops.add(last, h), ops.sum(ys, dims=(0,), keepdim=False)])
    graph = with_gradients(looped(body, 1, 3))
    compare(graph, arrays_for(graph))


def test_text(golden: Callable[[str, str], None]) -> None:
    """A step reads and writes its slices in place, and the next one reads what this one stacked."""
    h, x, w = (
        value("h", 8, 16, dtype=f32),
        value("x", 8, 16, dtype=f32),
        value("w", 16, 16, dtype=f32),
    )
    y = ops.tanh(ops.add(x, ops.matmul(h, w)))
    graph = looped(Graph("rnn", [h, x, w], [y, y]), 1, symbol("steps", 1, 99))
    golden("scan_rnn", print_program(program_of(graph)))


def test_a_weight_is_packed_before_the_loop() -> None:
    graph = looped(gru(64, 32, f32), 1, 10)
    pack, loop, _copy = program_of(graph).launches
    assert isinstance(pack, Launch) and pack.label.startswith("pack")
    assert isinstance(loop, Loop) and not any(n.label.startswith("pack") for n in flat(loop.body))


def test_a_stable_weight_is_packed_once() -> None:
    program = program_of(looped(gru(64, 32, f32), 1, 10), stable=(2, 3))
    assert len(program.prologue) == 1 and isinstance(program.launches[0], Loop)


def test_code_does_not_grow_with_length() -> None:
    texts = [print_program(program_of(looped(gru(4, 8, f32), 1, n))) for n in (7, 700)]
    assert texts[0].count("\n") == texts[1].count("\n") and "loop 700 {" in texts[1]


def masked(batch: int, hidden: int) -> Graph:
    """Two carries, one of them masked, weights, a constant, and results of several shapes."""
    h, c = value("h", batch, hidden), value("c", batch, hidden)
    x, keep = value("x", batch, hidden), ops.constant(value=Literal.of(0.5, f64))
    w, b = value("w", hidden, hidden), value("b", hidden)
    a = ops.tanh(ops.add(ops.add(ops.matmul(h, w), x), b))
    new = ops.add(ops.mul(c, ops.expand(keep, shape=(batch, hidden))), a)
    some = ops.gt(ops.sum(x, dims=(1,), keepdim=True), ops.constant(value=Literal.of(0.0, f64)))
    wide = ops.concat(a, ops.slice(new, start=(0, 1), stop=(batch, 4), step=(1, 1)), dim=1)
    return Graph("masked", [h, c, x, w, b], [ops.where(some, a, h), new, wide, new])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("body", "carries", "parts"),
    [
        (gru(64, 64), 1, 4),
        (gru(24, 96), 1, 3),
        (masked(32, 128), 2, 2),
    ],
    ids=["gru 64", "gru 24", "masked"],
)
def test_loops_in_parts(body: Graph, carries: int, parts: int, reverse: bool) -> None:
    """Rows that do not meet: each thread runs whole loops. The gradient's loop is cut as well."""
    graph = with_gradients(looped(body, carries, 9, reverse))
    loops = [item for item in program_of(graph).launches if isinstance(item, Loop)]
    assert loops and all(loop.parts == parts for loop in loops)
    assert not any(
        "parallel" in print_program(Program("k", (), (), (), [n])) for n in flat(loops[0].body)
    )
    compare(graph, arrays_for(graph))


@pytest.mark.parametrize(
    "body",
    [
        gru(33, 96, f32),  # no part size divides the batch
        gru(32, 8, f32),  # too little work
        gru(symbol("batch", 1, 64), 96, f32),
        Graph(
            "mixed",
            (v := [value("h", 64, 64, dtype=f32), value("x", 64, 64, dtype=f32)]),
            [ops.matmul(ops.softmax(ops.matmul(v[0], v[1]), dim=0), v[0]), v[1]],
        ),  # rows meet
    ],
    ids=["33", "small", "symbolic", "mixed"],
)
def test_loops_that_stay_whole(body: Graph) -> None:
    (loop,) = [i for i in program_of(looped(body, 1, 20)).launches if isinstance(i, Loop)]
    assert loop.parts == 1


def projected(
    batch: int, hidden: int, length: Dim = 6, reverse: bool = False, kept: bool = False
) -> Graph:
    """A GRU over x [length, batch, 24], projected for all steps at once; `kept`: the projected
    input is a result as well."""
    body, gates = gru(batch, hidden), 3 * hidden
    h, x, v, u = (
        value("h", batch, hidden),
        value("x", length, batch, 24),
        value("v", gates, 24),
        value("u", gates),
    )
    w, b = value("w", gates, hidden), value("b", gates)
    flat = ops.reshape(x, shape=(length * batch, 24))
    rows = ops.add(ops.matmul(flat, ops.permute(v, dims=(1, 0))), u)
    all_steps = ops.reshape(rows, shape=(length, batch, gates))
    results = ops.scan(
        h, all_steps, w, b, body=body, carries=1, stacked=1, length=length, reverse=reverse
    )
    return Graph("projected", [h, x, v, u, w, b], [*results, *([all_steps] * kept)])


def products(program: Program) -> tuple[int, int]:
    """How many products the steps of a program's loops hold, and how many it has beside them."""
    inside = [n for i in program.launches if isinstance(i, Loop) for n in flat([i])]
    beside = [i for i in program.launches if isinstance(i, Launch)]
    counts = (sum("matmul" in n.kernel.name for n in launches) for launches in (inside, beside))
    return next(counts), next(counts)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [6, symbol("length", 1, 99)])
def test_a_projection_is_computed_in_the_parts_of_a_loop(length: Dim, reverse: bool) -> None:
    graph = projected(64, 64, length, reverse)
    assert products(program_of(graph)) == (2, 0)
    sizes = {s.name: 6 for s in graph.symbols()}
    arrays = arrays_for(graph, sizes)
    for found, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        assert_close(found, expected)


def test_gradients_of_a_loop_with_its_projection() -> None:
    compare(with_gradients(projected(32, 96)), arrays_for(with_gradients(projected(32, 96))))


@pytest.mark.parametrize(
    "graph",
    [projected(33, 96), projected(64, 8), projected(64, 64, kept=True)],
    ids=["rows that are no parts", "small", "read elsewhere"],
)
def test_a_projection_of_all_steps(graph: Graph) -> None:
    assert products(program_of(graph)) == (1, 1)
    compare(graph, arrays_for(graph))


def test_explain_counts_every_step() -> None:
    graph = looped(gru(64, 32, f32), 1, 10)
    text = compiler.compile(graph).explain()
    assert " x 10" in text and f"{2 * 64 * 32 * 96 * 10:,}" in text


# -------------------------------------------------------------------------------------- cond, while


@pytest.mark.parametrize("truth", [False, True])
def test_cond(truth: bool) -> None:
    p, x, w = (
        Value(Type(boolean), name="p"),
        value("x", 40, 16, dtype=f32),
        value("w", 16, 32, dtype=f32),
    )
    a, b = value("a", 40, 16, dtype=f32), value("b", 16, 32, dtype=f32)
    then = Graph("then", [a, b], [ops.relu(ops.matmul(a, b)), a])
    orelse = Graph("orelse", [a, b], [ops.sigmoid(ops.matmul(a, b)), ops.neg(a)])
    graph = Graph("g", [p, x, w], [*ops.cond(p, x, w, then=then, orelse=orelse), ops.matmul(x, w)])
    both = Graph("both", graph.inputs, [*graph.outputs, *vjp(graph.outputs, graph.outputs, [x, w])])
    compare(both, [np.array(truth), *arrays_for(graph)[1:]])


def test_cond_inside_a_scan() -> None:
    h, x = value("h", 3), value("x", 3)
    a, b = value("a", 3), value("b", 3)
    positive = ops.gt(
        ops.sum(x, dims=(0,), keepdim=False), ops.constant(value=Literal.of(0.0, f64))
    )
    step = ops.cond(
        positive,
        h,
        x,
        then=Graph("t", [a, b], [ops.add(a, b)]),
        orelse=Graph("f", [a, b], [ops.mul(a, b)]),
    )
    graph = with_gradients(looped(Graph("b", [h, x], [step, step]), 1, 6))
    compare(graph, arrays_for(graph))


@pytest.mark.parametrize("start", [0.1, 8.0, 1000.0])
def test_while_loop(start: float) -> None:
    x, n, limit = value("x", 3), Value(Type(i64), name="n"), value("limit")
    test = Graph("test", [x, n, limit], [ops.gt(ops.sum(x, dims=(0,), keepdim=False), limit)])
    half, one = (ops.constant(value=Literal.of(v, t)) for v, t in ((0.5, f64), (1, i64)))
    body = Graph("body", [x, n, limit], [ops.mul(x, half), ops.add(n, one)])
    inputs = [value("x0", 3), Value(Type(i64), name="n0"), value("limit0")]
    graph = Graph("g", inputs, list(ops.while_loop(*inputs, test=test, body=body, carries=2)))
    compare(graph, [np.full(3, start), np.array(0), np.array(2.0)])
