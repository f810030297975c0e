"""Equal pieces are one kernel: within a program, between programs, and between processes by the
cache."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels.program import abi
from graphtorch.backends.kernels.program.program import Program, flat
from graphtorch.backends.llvm import compiler, units
from graphtorch.backends.llvm.processor import host
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.literal import Literal
from graphtorch.ir.passes import pipeline
from graphtorch.ir.passes.limits import Limits


def given(*shape: int, name: str = "x") -> Value:
    return Value(Type(f32, shape), name=name)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lowered(graph: Graph) -> Program:
    return lower(pipeline.run(graph, supports), host().machine)


def layers(count: int) -> Graph:
    """``x = x + softmax(tanh(x @ w))``, `count` times with weights of their own."""
    x = value = given(32, 32)
    weights = [given(32, 32, name=f"w{i}") for i in range(count)]
    for w in weights:
        value = ops.add(value, ops.softmax(ops.tanh(ops.matmul(value, w)), dim=1))
    return Graph("layers", [x, *weights], [value])


def stacked(count: int, axis: int = 0) -> Graph:
    """A batch of samples, each normalised and cut by itself."""
    samples = [given(1, 6, 8, name=f"x{i}") for i in range(count)]
    low, two = (ops.constant(value=Literal.of(np.array(v, np.float32))) for v in (0.3, 2.0))
    wide = [
        ops.pad(ops.mul(ops.sub(x, low), two), low=(0, 1, 1), high=(0, 1, 1), value=0.0)
        for x in samples
    ]
    parts = [ops.slice(x, start=(0, 1, 0), stop=(1, 7, 8), step=(1, 1, 1)) for x in wide]
    return Graph("stacked", samples, [ops.concat(*parts, dim=axis)])


def expected_stack(arrays: list[np.ndarray], axis: int) -> np.ndarray:
    def part(x: np.ndarray) -> np.ndarray:
        return np.pad((x - np.float32(0.3)) * np.float32(2), ((0, 0), (1, 1), (1, 1)))[:, 1:7, 0:8]

    return np.concatenate([part(x) for x in arrays], axis)


def test_equal_layers_share_their_kernels():
    few, many = lowered(layers(3)), lowered(layers(12))
    assert len(many.kernels()) == len(few.kernels())
    assert len(list(flat(many.launches))) == 4 * len(list(flat(few.launches)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parts_of_a_stack_are_launches_of_one_kernel(axis):
    program = lowered(stacked(40, axis))
    assert len(program.kernels()) <= 2
    arrays = [floats(1, 6, 8, seed=i) for i in range(40)]
    (got,) = compile(stacked(40, axis))([Buffer.of(a) for a in arrays])
    np.testing.assert_array_equal(got.numpy(), expected_stack(arrays, axis))


def test_parts_are_computed_where_they_belong():
    program = lowered(stacked(40))
    assert len(list(flat(program.launches))) == 40 and not program.temporaries()


def test_a_part_that_stands_twice_is_copied():
    x, y = given(4, name="x"), given(4, name="y")
    total = ops.exp(x)
    graph = Graph("twice", [x, y], [ops.concat(*[total, y] * 6, dim=0), total])
    a, b = floats(4), floats(4, seed=1)
    both, alone = compile(graph)([Buffer.of(a), Buffer.of(b)])
    np.testing.assert_allclose(both.numpy(), np.tile(np.concatenate([np.exp(a), b]), 6), rtol=1e-6)
    np.testing.assert_allclose(alone.numpy(), np.exp(a), rtol=1e-6)


def test_concatenations_of_concatenations():
    xs = [given(3, name=f"x{i}") for i in range(100)]
    inner = [ops.concat(*[ops.exp(x) for x in xs[i : i + 10]], dim=0) for i in range(0, 100, 10)]
    arrays = [floats(3, seed=i) for i in range(100)]
    (got,) = compile(Graph("nested", xs, [ops.concat(*inner, dim=0)]))(
        [Buffer.of(a) for a in arrays]
    )
    np.testing.assert_allclose(got.numpy(), np.exp(np.concatenate(arrays)), rtol=1e-6)


def test_slices_of_one_value_are_read_by_one_kernel():
    def steps(count: int) -> Graph:
        x = given(count, 5)
        rows = [ops.slice(x, start=(i, 0), stop=(i + 1, 5), step=(1, 1)) for i in range(count)]
        return Graph("steps", [x], [ops.tanh(ops.mul(r, ops.exp(r))) for r in rows])

    assert len(lowered(steps(30)).kernels()) == 1
    a = floats(30, 5)
    for i, row in enumerate(compile(steps(30))([Buffer.of(a)])):
        np.testing.assert_allclose(row.numpy()[0], np.tanh(a[i] * np.exp(a[i])), rtol=1e-5)


def test_no_kernel_has_many_buffers():
    xs = [given(7, name=f"x{i}") for i in range(200)]
    total = xs[0]
    for x in xs[1:]:
        total = ops.add(total, ops.exp(x))
    graph = Graph("sum", xs, [total])
    assert max(len(k.buffers) for k in lowered(graph).kernels()) <= Limits().buffers
    arrays = [floats(7, seed=i) for i in range(200)]
    (got,) = compile(graph)([Buffer.of(a) for a in arrays])
    np.testing.assert_allclose(
        got.numpy(), arrays[0] + sum(np.exp(a) for a in arrays[1:]), rtol=1e-4
    )


@pytest.fixture
def modules(monkeypatch, tmp_path) -> list[str]:
    """The modules that LLVM was given."""
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))
    made: list[str] = []
    plain = units.compile_object
    monkeypatch.setattr(
        units, "compile_object", lambda text, *a, **k: (made.append(text), plain(text, *a, **k))[1]
    )
    return made


def shared(name: str, extra: bool) -> Graph:
    x = given(77, 13)
    outputs = [
        ops.softmax(ops.exp(x), dim=1),
        *([ops.sum(x, dims=(0,), keepdim=False)] if extra else []),
    ]
    return Graph(name, [x], outputs)


def kernels_in(modules: list[str]) -> int:
    return sum(text.count("define weak_odr") for text in modules)


@pytest.mark.parametrize("cached", [False, True])
def test_programs_share_kernels(modules, monkeypatch, cached):
    if not cached:
        monkeypatch.setenv("GRAPHTORCH_CACHE", "off")
    first = compile(shared("first", False))
    assert kernels_in(modules) == len(set(first.record.launches.functions)) > 0
    before = kernels_in(modules)
    if cached:  # as another process would find it
        del first
        gc.collect()
        assert not any("first" in name for name in compiler._alive)
    second = compile(shared("second", True))
    new = set(second.record.launches.functions)
    assert 0 < kernels_in(modules) - before < len(new)
    a = floats(77, 13)
    y = second([Buffer.of(a)])[0].numpy()
    e = np.exp(np.exp(a))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-5)


def test_the_number_of_kernels_compiled_does_not_grow_with_layers(modules):
    counts = []
    for count in (3, 9):  # the first one reads an input, the last one writes an output
        before = kernels_in(modules)
        compile(layers(count))
        counts.append(kernels_in(modules) - before)
    assert counts[0] > 0 and counts[1] == 0


def test_launches_are_data():
    record = compile(layers(5)).record
    code, at, calls = record.launches.code, 0, 0
    while code[at] != abi.END:
        assert code[at] == abi.CALL
        calls += 1
        at += 3 + 2 * code[at + 2]
    assert calls == record.statistics["launches"] and at == len(code) - 1
