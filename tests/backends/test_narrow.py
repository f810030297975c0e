"""Products of numbers of 8 and 16 bits: exact sums, whatever instruction makes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from contracting import program_of, run
from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import limits, supports
from graphtorch.backends.kernels import ir as k
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Const, Kernel, KType, load
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.program.program import Program
from graphtorch.backends.kernels.text import print_program
from graphtorch.backends.kernels.verify import KernelError, verify, verify_program
from graphtorch.backends.llvm.jit import kernel_text, run_kernel
from graphtorch.backends.llvm.native import compile_assembly
from graphtorch.backends.llvm.processor import named
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f32, i8, i16, i32, u8
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import pipeline
from graphtorch.ir.shape import symbol

X86 = "x86_64-unknown-linux-gnu"
MACHINES = {
    "sse": Machine(16, 16),
    "avx2": Machine(32, 16),
    "avx512": Machine(64, 32, quads=True, bfloat=True),
    "avx_vnni": Machine(32, 16, quads=True),
}
INTEGERS = [(i8, i8), (i16, i16), (u8, i8)]
SIZES = [(1, 4, 1), (5, 8, 3), (17, 132, 65), (64, 256, 100), (1, 768, 257), (0, 8, 3), (9, 8, 0)]


def all_of(dtype: DType, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers from the whole range, with as many of its ends as of all others."""
    info, rng = np.iinfo(dtype.numpy), np.random.default_rng(seed)
    found = rng.integers(info.min, info.max, shape, dtype=np.int64, endpoint=True)
    ends = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.5, ends, found).astype(dtype.numpy)


def product(x: tuple[object, ...], w: tuple[int, ...], types: tuple[DType, DType]) -> Graph:
    values = [Value(Type(t, s), name=n) for t, s, n in zip(types, (x, w), "xw", strict=True)]
    return Graph("case", values, [ops.narrow_linear(*values)])


def wrapped(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The sums in Python's integers, of which 32 bits are kept."""
    return (x.astype(np.int64) @ w.astype(np.int64).T).astype(np.int32)


@pytest.mark.parametrize("types", INTEGERS, ids=str)
@pytest.mark.parametrize(("m", "depth", "n"), SIZES)
def test_sums_are_exact(types: tuple[DType, DType], m: int, depth: int, n: int) -> None:
    arrays = [all_of(types[0], (m, depth), 0), all_of(types[1], (n, depth), 1)]
    graph = product((m, depth), (n, depth), types)
    for stable in ((), (1,)):
        (got,) = run(program_of(graph, stable), arrays, {})
        np.testing.assert_array_equal(got, wrapped(*arrays))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("types", [*INTEGERS, (bf16, bf16), (f32, bf16)], ids=str)
def test_any_vector_width(machine: str, types: tuple[DType, DType]) -> None:
    """What has no instruction here is spelled out."""
    shapes = (3, 7, 40), (37, 40)
    graph = product(*shapes, types)
    arrays = [
        all_of(t, s, i)
        if t.is_integer
        else np.random.default_rng(i).standard_normal(s).astype(bf16.numpy).astype(t.numpy)
        for i, (t, s) in enumerate(zip(types, shapes, strict=True))
    ]
    program = program_of(graph, (1,), MACHINES[machine])
    verify_program(program)
    (got,) = run(program, arrays, {})
    (expected,) = evaluate(graph, arrays)
    np.testing.assert_allclose(got, expected, rtol=0, atol=0 if types[0].is_integer else 2e-5)


@pytest.mark.parametrize("rows", [0, 1, 6, 50])
def test_one_kernel_for_every_batch(rows: int) -> None:
    graph = product((symbol("b"), 64), (30, 64), (i16, i16))
    arrays = [all_of(i16, (rows, 64), 0), all_of(i16, (30, 64), 1)]
    (got,) = run(program_of(graph, (1,)), arrays, {"b": rows})
    np.testing.assert_array_equal(got, wrapped(*arrays))


def test_few_results_of_many_products_are_summed_in_parts() -> None:
    graph = product((2, 40000), (3, 40000), (i16, i16))
    arrays = [all_of(i16, (2, 40000), 0), all_of(i16, (3, 40000), 1)]
    (got,) = run(program_of(graph), arrays, {})
    np.testing.assert_array_equal(got, wrapped(*arrays))


def test_rows_that_are_no_words_are_multiplied_one_by_one() -> None:
    graph = product((5, 7), (3, 7), (i8, i8))
    (node,) = graph.nodes
    assert not supports(node)
    arrays = [all_of(i8, (5, 7), 0), all_of(i8, (3, 7), 1)]
    final = pipeline.run(graph, supports)
    assert "narrow_linear" not in str(final)
    np.testing.assert_array_equal(evaluate(final, arrays)[0], wrapped(*arrays))


def test_weights_of_16_bits_stay_so_where_few_rows_read_them() -> None:
    for rows, dtype in ((1, bf16), (16, f32)):
        program = program_of(product((rows, 64), (48, 64), (f32, bf16)), (1,), MACHINES["avx2"])
        assert [s.dtype for s in program.packed()] == [dtype]


# -------------------------------------------------------------------------------------- low_linear


def low(x: tuple[object, ...], w: tuple[int, int], precision: str, bias: bool = True) -> Graph:
    values = [Value(Type(f32, s), name=n) for s, n in zip((x, w, w[:1]), "xwb", strict=True)]
    y = ops.low_linear(*values[:2], precision=precision)
    return Graph("case", values, [ops.relu(ops.add(y, values[2])) if bias else y])


def program_on(graph: Graph, machine: Machine) -> Program:
    final = pipeline.run(graph, supports, limits=limits(machine), stable=(1, 2))
    return lower(final, machine, (1, 2))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 6, 65), (33, 768)], ids=str)
def test_all_machines_compute_alike(machine: str, precision: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    graph = low(shape, (21, shape[-1]), precision)
    arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs]
    program = program_on(graph, MACHINES[machine])
    verify_program(program)
    (got,) = run(program, arrays, {})
    (expected,) = evaluate(graph, arrays)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=3e-5)


def test_golden_kernels(golden: Callable[[str, str], None]) -> None:
    program = program_on(low((24, 32), (48, 32), "int8"), MACHINES["avx2"])
    golden("narrow_linear_avx2", print_program(program))


# ------------------------------------------------------------------------------------ instructions


def dot_kernel(kind: str, lanes: int) -> Kernel:
    sums = k.WORDS[kind][2]
    x, w, y, b = Buffer("x", i32), Buffer("w", i32), Buffer("y", sums, "readwrite"), Builder()
    b.store(
        y, 0, k.dot(kind, load(x, Const(0), lanes), load(w, Const(0), lanes), load(y, 0, lanes))
    )
    return Kernel("k", (x, w, y), (), b.body)


@pytest.mark.parametrize(
    ("cpu", "features", "kind", "lanes", "instruction"),
    [
        ("x86-64", "", "i16", 4, "pmaddwd"),
        ("x86-64-v3", "", "i16", 8, "vpmaddwd"),
        ("x86-64-v4", "", "i16", 16, "vpmaddwd"),
        ("x86-64-v4", "+avx512vnni", "u8_i8", 16, "vpdpbusd"),
        ("x86-64-v4", "+avx512vnni", "i8_u8", 8, "vpdpbusd"),
        ("x86-64-v3", "+avxvnni", "u8_i8", 8, "vpdpbusd"),
        ("alderlake", "", "u8_i8", 4, "vpdpbusd"),
        ("znver4", "", "u8_i8", 16, "vpdpbusd"),
        ("x86-64-v4", "+avx512bf16", "bf16", 16, "vdpbf16ps"),
        ("cooperlake", "", "bf16", 8, "vdpbf16ps"),
    ],
)
def test_machines_multiply_by_their_instruction(
    cpu: str, features: str, kind: str, lanes: int, instruction: str
) -> None:
    target = named(X86, cpu, features)
    asm = compile_assembly(kernel_text(dot_kernel(kind, lanes), target), target)
    assert instruction in asm


@pytest.mark.parametrize("kind", k.WORDS)
@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_a_dot_adds_the_products_of_a_word(kind: str, lanes: int) -> None:
    left, right, sums = k.WORDS[kind]
    count = lanes * 4 // left.itemsize
    if sums is f32:
        x, w = (
            np.random.default_rng(i).standard_normal(count).astype(bf16.numpy) for i in range(2)
        )
        before = np.linspace(-1, 1, lanes, dtype=np.float32)
    else:
        x, w = all_of(left, (count,), 0), all_of(right, (count,), 1)
        before = np.arange(lanes, dtype=np.int32) - 3
    got = before.copy()
    run_kernel(dot_kernel(kind, lanes), [x.view(np.int32), w.view(np.int32), got])
    wide = np.float64 if sums is f32 else np.int64
    products = (x.astype(wide) * w.astype(wide)).reshape(lanes, -1).sum(1)
    np.testing.assert_allclose(
        got, (products + before).astype(got.dtype), rtol=0, atol=1e-6 if sums is f32 else 0
    )


def test_processors_say_what_they_multiply() -> None:
    def found(cpu: str, features: str = "") -> tuple[bool, bool]:
        machine = named(X86, cpu, features).machine
        return machine.quads, machine.bfloat

    assert found("x86-64-v4") == found("x86-64-v3") == found("skylake-avx512") == (False, False)
    assert found("znver4") == found("sapphirerapids") == (True, True)
    assert found("alderlake") == found("icelake-server") == (True, False)
    assert found("x86-64-v4", "+avx512bf16") == (False, True)
    arm = named("aarch64-unknown-linux-gnu", "neoverse-n1").machine
    assert not arm.quads and not arm.bfloat


@pytest.mark.parametrize(
    "wrong",
    [
        lambda e: k.Dot("i4", e.a, e.b, e.c, e.type),
        lambda e: k.Dot("bf16", e.a, e.b, e.c, e.type),
        lambda e: k.Dot("i16", k.cast(e.a, f32), e.b, e.c, e.type),
        lambda e: k.Dot("i16", e.a, e.b, e.c, KType(i32, 4)),
    ],
)
def test_wrong_dots_are_refused(wrong: Callable[[k.Dot], k.Dot]) -> None:
    kernel = dot_kernel("i16", 8)
    verify(kernel)
    (store,) = kernel.body
    store.value = wrong(store.value)
    with pytest.raises(KernelError):
        verify(kernel)
