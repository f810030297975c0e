"""Matrix products: shapes, layouts, dtypes, epilogues, symbolic sizes, machines, schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from contracting import check, graph_of, program_of
from graphtorch.backends.cpu.contraction.schedule import chunks, padded, row_sizes
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.text import print_program
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f16, f32, f64, i32, i64, u8
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import fuse
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.shape import symbol

BATCH = symbol("batch")
MACHINES = {"sse": Machine(16, 16), "avx2": Machine(32, 16), "avx512": Machine(64, 32)}


def turned(x: Value) -> Value:
    return ops.permute(x, dims=(*range(x.rank - 2), x.rank - 1, x.rank - 2))


def times_turned(a: Value, b: Value) -> Value:
    return ops.matmul(a, turned(b))


def turned_times(a: Value, b: Value) -> Value:
    return ops.matmul(turned(a), b)


def linear(x: Value, w: Value, b: Value) -> Value:
    return ops.relu(ops.add(times_turned(x, w), b))


SIZES = [
    (1, 1, 1),
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 200, 100),
    (64, 100, 10),
    (5, 7, 3),
    (17, 33, 65),
    (130, 70, 257),
]


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_sizes_and_layouts(m: int, k: int, n: int) -> None:
    check(ops.matmul, [(m, k), (k, n)])
    check(times_turned, [(m, k), (n, k)], stable=(1,))
    check(turned_times, [(k, m), (k, n)])


def test_large_operands_are_packed() -> None:
    program = check(ops.matmul, [(128, 512), (512, 1024)])
    assert [launch.label.split()[0] for launch in program.launches] == ["pack", "pack", "matmul"]


@pytest.mark.parametrize(
    ("most", "labels"),
    [(1 << 20, ["pack", "matmul"]), (64, ["matmul"])],
)
def test_columns_whose_sizes_are_not_known_are_packed(most: int, labels: list[str]) -> None:
    """They may be large; those that cannot be are read where they lie."""
    m, k, n = (symbol(name, 1, most) for name in "mkn")
    machine = Machine(32, 16, (32 << 10, 512 << 10, 16 << 20))
    program = check(ops.matmul, [(m, k), (k, n)], machine=machine, m=41, k=37, n=50)
    assert [launch.label.split()[0] for launch in program.launches] == labels


@pytest.mark.parametrize("size", [5, 9, 16])
def test_lanes_of_one_address_in_two_rows_of_a_tile(size: int) -> None:
    """Two rows of a piece of a matrix lie as far apart as two vectors of a tile, whose last lanes
    are not read."""
    m, n = symbol("m", 1, 24), symbol("n", 1, 16)

    def build(x: Value, w: Value, table: Value) -> Value:
        piece = ops.slice(table, start=(0, 0), stop=(m, n), step=(1, 1))
        return ops.add(ops.matmul(x, ops.permute(w, dims=(1, 0))), piece)

    check(build, [(m, 3), (n, 3), (24, 16)], m=13, n=size)


@pytest.mark.parametrize("dtype", [f64, bf16, f16, i32, i64, u8])
def test_dtypes(dtype: DType) -> None:
    check(ops.matmul, [(13, 40), (40, 21)], dtype)
    check(times_turned, [(13, 40), (21, 40)], dtype)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("m", "k", "n"), [(17, 33, 65), (64, 100, 10), (3, 50, 100)])
def test_any_vector_width(machine: str, m: int, k: int, n: int) -> None:
    check(times_turned, [(m, k), (n, k)], machine=MACHINES[machine])
    check(ops.matmul, [(m, k), (k, n)], machine=MACHINES[machine])


@pytest.mark.parametrize("size", [0, 1, 2, 7, 64])
def test_one_kernel_for_every_batch(size: int) -> None:
    program = check(linear, [(BATCH, 100), (30, 100), (30,)], stable=(1, 2), batch=size)
    assert len(program.launches) == 1


@pytest.mark.parametrize("size", [0, 1, 50])
def test_other_symbolic_sizes(size: int) -> None:
    check(ops.matmul, [(6, 50), (50, BATCH)], batch=size)
    check(ops.matmul, [(6, BATCH), (BATCH, 20)], batch=size)
    check(times_turned, [(6, BATCH), (20, BATCH)], batch=size)
    check(times_turned, [(BATCH, 8), (BATCH, 8)], batch=size)


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 4, 17, 20), (3, 4, 20, 9)],
        [(3, 1, 17, 20), (4, 20, 9)],
        [(3, 5, 17, 20), (20, 9)],
        [(17, 20), (3, 20, 9)],
        [(BATCH, 4, 17, 20), (BATCH, 4, 20, 9)],
    ],
)
def test_batches_broadcast(shapes: list[tuple[int, ...]]) -> None:
    check(ops.matmul, shapes, **({"batch": 3} if BATCH in shapes[0] else {}))


def test_batch_of_transposed() -> None:
    check(times_turned, [(3, 4, 17, 20), (3, 4, 9, 20)])


EPILOGUES: dict[str, tuple[Callable[..., Value], list[tuple[int, ...]]]] = {
    "bias and scale of rows": (
        lambda a, b, c, d: ops.mul(ops.relu(ops.add(ops.matmul(a, b), c)), d),
        [(33, 20), (20, 50), (50,), (33, 1)],
    ),
    "gelu and residual": (
        lambda a, b, c: ops.add(ops.gelu(ops.matmul(a, b), approximate="none"), c),
        [(33, 20), (20, 50), (33, 50)],
    ),
    "transposed residual": (
        lambda a, b, c: ops.add(ops.matmul(a, b), turned(c)),
        [(33, 20), (20, 50), (50, 33)],
    ),
    "batch with residual": (
        lambda a, b, c: ops.add(ops.matmul(a, b), c),
        [(2, 5, 7), (7, 9), (2, 5, 9)],
    ),
}


@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(name: str) -> None:
    build, shapes = EPILOGUES[name]
    check(build, shapes)


@pytest.mark.parametrize("n", [3, 8, 17, 24])
@pytest.mark.parametrize("read", ["turned", "mirrored", "shifted", "of the operand"])
def test_square_residuals_are_read_where_their_view_says(n: int, read: str) -> None:
    """Their shape is the result's, whatever the view between them."""

    def build(a: Value, b: Value, c: Value) -> Value:
        if read == "mirrored":
            c = ops.flip(c, dims=(1,))
        elif read == "shifted":
            c = ops.slice(c, start=(0, 1), stop=(n, n), step=(1, 1))
            c = ops.pad(c, low=(0, 0), high=(0, 1), value=0)
        else:
            c = turned(a if read == "of the operand" else c)
        return ops.add(c, ops.matmul(a, b))

    check(build, [(n, n), (n, n), (n, n)])


def test_result_before_and_after_the_epilogue() -> None:
    a, b = (Value(Type(f64, s), name=n) for s, n in (((5, 7), "a"), ((7, 9), "b")))
    product = ops.matmul(a, b)
    graph = fuse.run(Graph("both", [a, b], [product, ops.relu(product)]), Limits())
    assert len(graph.nodes) == 1
    assert len(program_of(graph).launches) == 1


def test_casts_are_absorbed() -> None:
    def mixed(a: Value, b: Value) -> Value:
        return ops.cast(
            ops.matmul(ops.cast(a, dtype=f64), turned(ops.cast(b, dtype=f64))), dtype=bf16
        )

    program = check(mixed, [(5, 30), (40, 30)], bf16)
    assert not any(launch.label == "operand" for launch in program.launches)


def test_long_k_is_summed_in_parts() -> None:
    program = check(ops.matmul, [(10, 30000), (30000, 7)])
    assert "parts" in program.launches[-1].label
    check(
        lambda a, b, c: ops.relu(ops.add(turned_times(a, b), c)),
        [(30001, 10), (30001, 37), (10, 1)],
    )


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", [f32, bf16])
def test_few_rows_take_dot_products(rows: int, dtype: DType) -> None:
    program = check(times_turned, [(rows, 77), (101, 77)], dtype)
    assert [launch.label.split("[")[1][:3] for launch in program.launches] == ["dot"]
    check(ops.matmul, [(101, 77), (77, rows)], dtype)


@pytest.mark.parametrize("size", [0, 1, 9, 100])
def test_dot_products_of_symbolic_length(size: int) -> None:
    check(times_turned, [(1, BATCH), (30, BATCH)], batch=size)


def test_constant_weights_are_packed_once() -> None:
    program = program_of(graph_of(linear, [(4, 30), (20, 30), (20,)]), stable=(1, 2))
    assert [launch.label for launch in program.prologue] == ["pack matmul columns"]
    assert len(program.launches) == 1


def test_remainders_take_narrow_vectors() -> None:
    assert [c.lanes for c in chunks(100, 16)] == [16] * 6 + [4]
    assert [(c.lanes, c.valid) for c in chunks(23, 16)] == [(16, 16), (8, 7)]
    assert padded(100, 16) == 100
    assert row_sizes(64, 9) == (8,)
    assert row_sizes(BATCH, 14) == (14, 4, 1)


@pytest.mark.parametrize("machine", ["avx2", "avx512"])
def test_golden_kernels(machine: str, golden: Callable[[str, str], None]) -> None:
    target = replace(MACHINES[machine])
    program = program_of(graph_of(linear, [(BATCH, 12), (20, 12), (20,)]), (1, 2), target)
    golden(f"contraction_linear_{machine}", print_program(program))


@pytest.mark.parametrize("rows", [128, 134, 259])
@pytest.mark.parametrize("dtype", [f32, bf16])
def test_narrow_tiles_are_packed_side_by_side(rows: int, dtype: DType) -> None:
    """Tiles that share cache lines are copied together, those left over by themselves."""
    program = check(turned_times, [(300, rows), (300, 100)], dtype)
    assert any(launch.label.startswith("pack matmul rows") for launch in program.launches)
    check(turned_times, [(3, 300, rows), (3, 300, 100)], dtype)


@pytest.mark.parametrize(("steps", "packed"), [(32, False), (600, True)])
def test_rows_far_apart_along_k_are_packed(steps: int, packed: bool) -> None:
    """Each step of k would touch another cache line of few used elements; where all of them stay
    in the first cache, nothing is copied."""
    machine = Machine(32, 16, (32 << 10, 512 << 10, 16 << 20))
    program = check(turned_times, [(steps, 96), (steps, 320)], machine=machine)
    labels = [launch.label for launch in program.launches]
    assert any(label.startswith("pack matmul rows") for label in labels) == packed


def test_columns_are_packed_for_rows_of_two_axes() -> None:
    """What counts is how often the columns are read, over all rows."""

    def build(x: Value, w: Value) -> Value:
        return ops.matmul(ops.permute(x, dims=(1, 0, 2)), w)

    program = check(build, [(4, 128, 300), (300, 400)])
    assert any(launch.label.startswith("pack matmul columns") for launch in program.launches)


def test_equal_copies_are_made_once() -> None:
    def steps(x: Value, w: Value) -> Value:
        return times_turned(times_turned(x, w), w)

    program = check(steps, [(40, 30), (30, 30)])
    assert sum(launch.label.startswith("pack") for launch in program.launches) == 1


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(3, 4, 3), (20, 8, 33)])
def test_positions_in_the_epilogue(shape: tuple[int, int, int], dim: int) -> None:
    rows, inside, columns = shape

    def build(a: Value, b: Value) -> Value:
        return ops.add(ops.matmul(a, b), ops.iota(shape=(rows, columns), dim=dim, dtype=f32))

    check(build, [(rows, inside), (inside, columns)])
