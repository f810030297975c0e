"""Executables: sizes, checks, donated and stable inputs, errors, threads, memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.backends.buffer import HUGE, discard, size_class
from graphtorch.backends.llvm import debug
from graphtorch.backends.llvm.executable import Executable, _overlapping
from graphtorch.backends.record import Record, dim_from_json, dim_to_json
from graphtorch.ir import ops
from graphtorch.ir.dtype import ALL, f32, i64
from graphtorch.ir.graph import Graph, Location, Type, Value, located
from graphtorch.ir.literal import Literal
from graphtorch.ir.shape import symbol


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def given(shape, dtype=f32, name="x") -> Value:
    return Value(Type(dtype, shape), name=name)


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def call(run, *arrays: np.ndarray) -> list[np.ndarray]:
    return [b.numpy() for b in run([Buffer.of(a) for a in arrays])]


def test_one_compile_serves_all_sizes():
    n, m = symbol("n", 1, 64), symbol("m")
    x, y = given((n, 2 * m), name="x"), given((m,), name="y")
    run = compile(
        Graph("g", [x, y], [ops.sum(ops.exp(x), dims=(0,), keepdim=False), ops.add(y, y)])
    )
    for rows, width in ((1, 1), (2, 7), (64, 100), (3, 0)):
        a, b = floats(rows, 2 * width), floats(width)
        total, twice = call(run, a, b)
        np.testing.assert_allclose(total, np.exp(a).sum(0), rtol=1e-5)
        assert (twice == 2 * b).all()
    with pytest.raises(RuntimeError, match=r"n is 65, but it was declared to be in 1\.\.64"):
        call(run, floats(65, 2), floats(1))
    with pytest.raises(RuntimeError, match="must be equal"):
        call(run, floats(3, 4), floats(3))
    with pytest.raises(RuntimeError, match="must be equal"):
        call(run, floats(3, 5), floats(2))


def test_outputs_that_are_constants():
    """Nobody computes them, twice is not once, and calls do not share their memory."""
    table = ops.constant(value=Literal.of(np.arange(5, dtype=np.float32)))
    one = ops.constant(value=Literal.of(1.0, f32))
    x = Value(Type(f32, (5,)), name="x")
    program = compile(Graph("g", [x], [table, ops.add(x, table), table, one]), "llvm")
    given = Buffer.of(np.ones(5, np.float32))
    first, second = ([b.numpy() for b in program([given])] for _ in range(2))
    first[0][:] = 7
    assert [a.tolist() for a in second] == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4], 1]


def test_inputs_are_checked():
    run = compile(Graph("g", [given((2, 3), name="weight")], []))
    with pytest.raises(TypeError, match="takes 1 inputs, but got 2"):
        call(run, floats(2, 3), floats(2, 3))
    with pytest.raises(
        RuntimeError, match=r"input 0 \(weight\) has shape \[3, 2\], expected \[2, 3\]"
    ):
        call(run, floats(3, 2))
    with pytest.raises(TypeError, match=r"input 0 \(weight\) is i64, expected f32"):
        call(run, np.zeros((2, 3), np.int64))
    with pytest.raises(ValueError, match="no target 'gpu'"):
        compile(Graph("g", [], []), "gpu")


def test_donated_inputs_are_written_in_place():
    p, g = given((1000,), name="p"), given((1000,), name="g")
    run = compile(Graph("step", [p, g], [ops.sub(p, g), ops.mul(g, g)], donates=[(0, 0)]))
    a, b = floats(1000), floats(1000, seed=1)
    old = Buffer.of(a.copy())
    updated, square = run([old, Buffer.of(b)])
    assert updated.address == old.address and square.address != old.address
    assert (updated.numpy() == a - b).all() and (square.numpy() == b * b).all()
    del old
    gc.collect()
    assert (updated.numpy() == a - b).all()


def test_a_donated_input_that_is_also_another_input_is_copied():
    p, g = given((100,), name="p"), given((100,), name="g")
    run = compile(Graph("step", [p, g], [ops.sub(p, g), ops.mul(g, g)], donates=[(0, 0)]))
    a = floats(100)
    both = Buffer.of(a.copy())
    updated, square = run([both, both])
    assert (
        (updated.numpy() == 0).all()
        and (square.numpy() == a * a).all()
        and (both.numpy() == a).all()
    )


def test_a_donated_input_is_as_it_was_after_an_error():
    p, g = given((1000,), name="p"), given((1000,), name="g")
    i = given((3,), i64, "i")
    picked = ops.index_select(g, i, dim=0)
    run = compile(Graph("step", [p, g, i], [picked, ops.sub(p, g)], donates=[(1, 0)]))
    a, b = floats(1000), floats(1000, seed=1)
    old = Buffer.of(a.copy())
    with pytest.raises(IndexError):
        run([old, Buffer.of(b), Buffer.of(np.array([0, 1000, 1]))])
    assert (old.numpy() == a).all()
    chosen, updated = run([old, Buffer.of(b), Buffer.of(np.array([0, 999, 1]))])
    assert updated.address == old.address and (updated.numpy() == a - b).all()
    assert (chosen.numpy() == b[[0, 999, 1]]).all()


def test_an_input_is_not_updated_before_something_that_may_fail():
    """Its result is looked up in: the error is known when the update is done."""
    p, g, i = given((1000,), name="p"), given((1000,), name="g"), given((3,), i64, "i")
    updated = ops.sub(p, g)
    chosen = ops.index_select(updated, i, dim=0)
    run = compile(Graph("step", [p, g, i], [updated, chosen], donates=[(0, 0)]))
    a, b = floats(1000), floats(1000, seed=1)
    old = Buffer.of(a.copy())
    with pytest.raises(IndexError):
        run([old, Buffer.of(b), Buffer.of(np.array([0, 1000, 1]))])
    assert (old.numpy() == a).all()
    found = run([old, Buffer.of(b), Buffer.of(np.array([0, 999, 1]))])
    assert (found[0].numpy() == a - b).all() and (old.numpy() == a).all()


KEPT = """
from graphtorch.backends import buffer

buffer.FREE_LIMIT, size = 1 << 20, 1 << 18
blocks = [buffer.Block(size) for _ in range(24)]
del blocks[:11]  # 11 of 24 are kept: fewer than are in use
assert buffer._kept == 11 * size, buffer._kept
del blocks[:2]
assert buffer._kept <= 6 * size and buffer._total == buffer._kept + 11 * size
del blocks[:]
assert buffer._kept <= buffer.FREE_LIMIT and buffer._total == buffer._kept
"""


def test_as_much_memory_is_kept_as_is_in_use():
    subprocess.run([sys.executable, "-c", KEPT], check=True)


def test_what_shares_memory_with_another_input_is_found():
    memory = Buffer.empty(f32, (100,))
    whole = [memory.part(offset, (size,)) for offset, size in ((0, 40), (10, 5), (12, 20), (40, 9))]
    apart = [memory.part(60, (10,)), memory.part(70, (0,)), memory.part(70, (5,))]
    assert _overlapping([*whole, *apart]) == {0, 1, 2}
    assert _overlapping([*apart, *whole[::-1]]) == {4, 5, 6}


def test_index_errors_name_op_and_line():
    x, i = given((10, 2)), given((3,), i64, "i")
    with located(Location("user.py", 42)):
        picked = ops.index_select(x, i, dim=0)
    run = compile(Graph("g", [x, i], [picked]))
    a = floats(10, 2)
    assert (call(run, a, np.array([0, 9, 3]))[0] == a[[0, 9, 3]]).all()
    for bad in (10, -1, 2**62, -(2**63)):
        with pytest.raises(IndexError, match=r"user\.py:42"):
            call(run, a, np.array([0, bad, 3]))
    assert (call(run, a, np.array([1, 1, 1]))[0] == a[[1, 1, 1]]).all()


def test_stable_inputs_are_packed_once_for_each_buffer():
    x, w = given((64, 128)), given((128, 256), name="w")
    run = compile(Graph("g", [x, w], [ops.matmul(x, w)]), stable=(1,))
    a, first, second = floats(64, 128), floats(128, 256, seed=1), floats(128, 256, seed=2)
    for weight in (first, first, second, first):
        np.testing.assert_allclose(call(run, a, weight)[0], a @ weight, rtol=1e-3, atol=1e-4)
    kept = Buffer.of(first)
    for scale in (1, 2):
        y = run([Buffer.of(a * scale), kept])[0].numpy()
        np.testing.assert_allclose(y, scale * a @ first, rtol=1e-3, atol=1e-4)


def test_memory_that_preparing_weights_took_is_used_again():
    size = 1100  # its temporaries are large enough to be given to the system
    x, v, w = given((size, size)), given((size, size), name="v"), given((size, size), name="w")
    product = ops.matmul(ops.exp(v), ops.tanh(w))
    run = compile(Graph("g", [x, v, w], [ops.matmul(ops.tanh(x), product)]), stable=(1, 2))
    sizes = [d for d in (run.record.arena, run.record.packed) if isinstance(d, int)]
    assert run.record.prologue and len(sizes) == 2 and min(sizes) >= HUGE
    a, first, second = (0.1 * floats(size, size, seed=s) for s in (1, 2, 3))
    weights = [Buffer.of(first), Buffer.of(second)]
    for one, other in ((0, 1), (0, 1), (1, 0), (1, 1), (0, 1)):
        u, t = weights[one], weights[other]
        (y,) = run([Buffer.of(a), u, t])
        want = np.tanh(a) @ (np.exp(u.numpy()) @ np.tanh(t.numpy()))
        np.testing.assert_allclose(y.numpy(), want, rtol=1e-3, atol=2e-3)


def test_only_whole_pages_inside_are_discarded():
    buffer = Buffer.empty(f32, (3 * HUGE // 4,))
    array = buffer.numpy()
    array[:] = np.arange(array.size)
    size = array.nbytes // 3
    discard(buffer.address + 4 * 100, size)
    kept = np.concatenate([array[:100], array[100 + size // 4 :]])
    want = np.arange(array.size, dtype=np.float32)
    np.testing.assert_array_equal(kept, np.concatenate([want[:100], want[100 + size // 4 :]]))
    array[:] = want[::-1]
    np.testing.assert_array_equal(array, want[::-1])
    discard(buffer.address + 1, 64)  # no whole page
    np.testing.assert_array_equal(array, want[::-1])


def test_many_threads_share_an_executable():
    x = given((256, 256))
    h = ops.matmul(x, ops.tanh(x))
    run = compile(Graph("g", [x], [ops.softmax(ops.matmul(h, x), dim=1)]))
    inputs = [floats(256, 256, seed=s) for s in range(6)]
    expected = [call(run, a)[0].copy() for a in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(15):
            if not np.allclose(call(run, inputs[index])[0], expected[index], atol=1e-6):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_results_survive_their_executable():
    x = given((1 << 16,))
    run = compile(Graph("g", [x], [ops.exp(x)]))
    a = floats(1 << 16)
    y = call(run, a)[0]
    before = y.copy()
    del run
    gc.collect()
    again = [call(compile(Graph("g", [x], [ops.exp(x)])), a + i)[0] for i in range(3)]
    assert (y == before).all() and len(again) == 3


def test_records_survive_json():
    n, m = symbol("n", 1, 64), symbol("m")
    dim = (n * m + 3) // 4 * 5 + n % 3 - 7
    assert (
        dim_from_json(dim_to_json(dim), {s.name: s for s in (n.terms[0][0][0], m.terms[0][0][0])})
        == dim
    )
    x = given((n, 2 * m))
    run = compile(Graph("g", [x], [ops.exp(x)]))
    assert isinstance(run, Executable) and Record.from_json(run.record.to_json()) == run.record


def test_debug_stages_are_printed(monkeypatch, capsys):
    monkeypatch.setenv("GRAPHTORCH_DEBUG", "all")
    x = given((37,))
    compile(Graph("shown", [x], [ops.exp(x)]))
    text = capsys.readouterr().err
    untuned = [stage for stage in debug.STAGES if stage != "tuning"]  # nothing is measured here
    assert [stage for stage in debug.STAGES if f"---- {stage} of shown" in text] == untuned
    monkeypatch.setenv("GRAPHTORCH_DEBUG", "kernel")
    with pytest.warns(RuntimeWarning, match="known are graph, passes"):
        debug.wanted()


# ---- buffers


@pytest.mark.parametrize("dtype", ALL)
def test_buffers_are_arrays(dtype):
    a = np.arange(12).reshape(3, 4).astype(dtype.numpy)
    b = Buffer.of(a)
    assert b.numpy() is a and (b.dtype, b.shape, b.nbytes) == (dtype, (3, 4), 12 * dtype.itemsize)
    made = Buffer.empty(dtype, (3, 4))
    made.numpy()[...] = a
    assert (
        made.address % 64 == 0 and (made.numpy() == a).all() and made.numpy().dtype == dtype.numpy
    )
    assert (made.part(4, (2, 2)).numpy() == a.reshape(-1)[4:8].reshape(2, 2)).all()
    assert (Buffer.of(a.T).numpy() == a.T).all() and Buffer.of(a.T).shape == (4, 3)
    with pytest.raises(IndexError):
        b.part(10, (3,))


def test_views_keep_memory_alive():
    views = [Buffer.empty(f32, (1000,)).part(10, (5,)).numpy() for _ in range(50)]
    for i, v in enumerate(views):
        v[...] = i
    gc.collect()
    for _ in range(50):
        Buffer.empty(f32, (1000,)).numpy()[...] = -1
    assert all((v == i).all() for i, v in enumerate(views))


def test_size_classes():
    for size in (0, 1, 64, 65, 4096, 4097, 10**6, 2**31 + 1):
        assert size <= size_class(size) <= max(64, size * 1.125 + 64)
        assert size_class(size_class(size)) == size_class(size)
    assert Buffer.empty(f32, (0, 3)).numpy().shape == (0, 3)
    assert Buffer.empty(f32, ()).numpy().shape == ()


def test_outputs_that_are_constants_or_inputs_are_filled():
    c = ops.constant(value=Literal.of([2, 3], i64))
    x = Value(Type(f32, (2,)), name="x")
    total = ops.add(c, c)
    graph = Graph("f", [x], [c, x, c, total, x], [c.node, total.node])
    run = compile(graph)
    for _ in range(2):
        found = [b.numpy().tolist() for b in run([Buffer.of(np.array([5, 6], np.float32))])]
        assert found == [[2, 3], [5, 6], [2, 3], [4, 6], [5, 6]]
    assert [b.numpy().tolist() for b in compile(Graph("g", [], [c], [c.node]))([])] == [[2, 3]]


def test_inputs_that_stay_are_given_apart():
    x, w = Value(Type(f32, (2,)), name="x"), Value(Type(f32, (2,)), name="w")
    out = ops.mul(x, w)
    run = compile(Graph("f", [x, w], [out], [out.node]), stable=(1,))
    one, fixed = Buffer.of(np.array([1, 2], np.float32)), [Buffer.of(np.array([3, 4], np.float32))]
    for weights in (fixed, fixed, [Buffer.of(np.array([5, 6], np.float32))], fixed):
        expected = [1 * weights[0].numpy()[0], 2 * weights[0].numpy()[1]]
        assert run([one], weights)[0].numpy().tolist() == expected
        assert run([one, *weights])[0].numpy().tolist() == expected
    with pytest.raises(RuntimeError, match="shape"):
        run([one], [Buffer.of(np.zeros(3, np.float32))])
    with pytest.raises(TypeError, match="takes 2 inputs"):
        run([one], [*fixed, *fixed])
    with pytest.raises(TypeError, match="takes 2 inputs"):
        run([], fixed)
