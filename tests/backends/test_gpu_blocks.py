"""Kernels with blocks of threads: their text, what is refused, and what the emulated device
finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.backends.gpu import nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.device import DeviceError
from graphtorch.backends.gpu.emulated import ORDERS, EmulatedDevice
from graphtorch.backends.gpu.emulated import compiler as cxx
from graphtorch.backends.gpu.unit import Unit
from graphtorch.backends.gpu.walk import Kernel as Launched
from graphtorch.backends.kernels import ir as k
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Const, Expr, Kernel, KType, Name, binary, load
from graphtorch.backends.kernels.text import print_kernel
from graphtorch.backends.kernels.verify import KernelError, verify
from graphtorch.ir.dtype import DType, boolean, f32, i32

emulated = pytest.mark.skipif(cxx() is None, reason="the emulated CUDA device needs a C++ compiler")
ROWS, LENGTH = Name("rows"), Name("n")


def sums(
    threads: int = 64, dtype: DType = f32, op: str = "add", start: float | int | bool = 0.0
) -> Kernel:
    """A block sums a row: x [rows, n] -> y [rows]."""
    b, x, y = Builder(), Buffer("x", dtype), Buffer("y", dtype, "write")
    with b.block_loop(ROWS, threads, "row") as row:
        total = b.var(Const(start, KType(dtype)))
        with b.loop(LENGTH, "thread") as i:
            b.assign(total, binary(op, total, load(x, row * LENGTH + i)))
        result = b.block_reduce(op, total, threads)
        with b.loop(1, "thread", "first"):
            b.store(y, row, result)
    return Kernel("sums", (y, x), (ROWS, LENGTH), b.body)


def reversed_rows(size: int = 64, barrier: bool = True, divergent: bool = False) -> Kernel:
    """Rows of `size` backwards, by way of shared memory; with a barrier left out, or under a
    condition."""
    b, x, y = Builder(), Buffer("x", f32), Buffer("y", f32, "write")
    with b.block_loop(ROWS, 32, "row") as row:
        held = b.shared(f32, size, "held")
        with b.loop(size, "thread") as i:
            b.store(held, i, load(x, row * size + i))
        if divergent:
            with b.loop(16, "thread", "t"):
                b.barrier()
        elif barrier:
            b.barrier()
        with b.loop(size, "thread") as i:
            b.store(y, row * size + i, load(held, size - 1 - i))
    return Kernel("reversed", (y, x), (ROWS,), b.body)


def run(
    kernel: Kernel, x: np.ndarray, shape: tuple[int, ...], *sizes: int, order: int = 0
) -> np.ndarray:
    device, unit = EmulatedDevice(order), Unit()
    stages = unit.kernel(kernel, (0, 1))
    launches = Launched(tuple(stages), 2, ("gt_i64",) * len(sizes)).launches(
        ((0, 0), (1, 0)), sizes
    )
    arrays = [
        DeviceBuffer.of(a, device) for a in (np.zeros(shape, x.dtype), x, np.zeros(1, np.int32))
    ]
    series = device.load(unit.pieces(device.compilers)).series(list(launches))
    series([a.address for a in arrays], [a.nbytes for a in arrays])
    return arrays[0].numpy()


# ------------------------------------------------------------------------------------------ text


def test_text(golden: Callable[[str, str], None]) -> None:
    kernel, unit = sums(), Unit()
    verify(kernel)
    unit.kernel(kernel, (0, 1))
    golden("gpu_block", print_kernel(kernel) + "\n" + unit.text())


@pytest.mark.skipif(
    nvrtc.library() is None, reason="pip install nvidia-cuda-nvrtc compiles kernels for GPUs"
)
def test_nvrtc_takes_it() -> None:
    unit = Unit()
    for kernel in (sums(), sums(dtype=boolean, op="or", start=False), reversed_rows(20000)):
        unit.kernel(kernel, (0, 1))
    assert nvrtc.compile(unit.text(), "sm_80").startswith(b"\x7fELF")


# ------------------------------------------------------------------------------------------ runs

OPS: dict[str, tuple[DType, float | int | bool, Callable[..., np.ndarray]]] = {
    "add": (f32, 0.0, np.sum),
    "mul": (f32, 1.0, np.prod),
    "max": (f32, -np.inf, np.max),
    "min": (i32, 1 << 30, np.min),
    "or": (boolean, False, np.any),
    "and": (boolean, True, np.all),
}


@emulated
@pytest.mark.parametrize("op", OPS)
def test_a_block_reduces_a_row(op: str) -> None:
    dtype, start, reduced = OPS[op]
    rng = np.random.default_rng(0)
    for order, (rows, length) in enumerate([(3, 1), (2, 200), (1, 63)]):
        x = (
            (rng.random((rows, length)) > 0.01).astype(dtype.numpy)
            if dtype is boolean
            else (rng.standard_normal((rows, length)) * 1.5).astype(dtype.numpy)
        )
        found = run(sums(64, dtype, op, start), x, (rows,), rows, length, order=order)
        np.testing.assert_allclose(found, reduced(x, axis=1), 1e-5)


@emulated
@pytest.mark.parametrize("size", [64, 20000])
def test_threads_share_memory(size: int) -> None:
    """More than a kernel may declare is asked for at the launch."""
    kernel = reversed_rows(size)
    assert [s.shared for s in Unit().kernel(kernel, (0, 1))] == [0 if size == 64 else size * 4]
    x = np.random.default_rng(0).standard_normal((2, size)).astype(np.float32)
    assert (run(kernel, x, x.shape, 2) == x[:, ::-1]).all()


@emulated
def test_nothing_is_launched_for_no_rows() -> None:
    assert run(sums(), np.zeros((0, 4), np.float32), (0,), 0, 4).shape == (0,)


@emulated
@pytest.mark.parametrize("order", range(ORDERS))
def test_a_missing_barrier_is_found(order: int) -> None:
    x = np.zeros((1, 64), np.float32)
    with pytest.raises(
        DeviceError, match=r"kernel k_reversed, line \d+: .* with no barrier between"
    ):
        run(reversed_rows(barrier=False), x, x.shape, 1, order=order)


@emulated
def test_a_divergent_barrier_is_found() -> None:
    x = np.zeros((1, 64), np.float32)
    with pytest.raises(DeviceError, match=r"kernel k_reversed, line \d+: .*barrier"):
        run(reversed_rows(divergent=True), x, x.shape, 1)


# ------------------------------------------------------------------------------------------ refused

T, V = KType(f32), Name("v", KType(f32))


Build = Callable[[Builder, Expr], object]


def planted(build: Build, threads: int = 64) -> Callable[[], Kernel]:
    """A kernel with what `build` puts into its block loop."""

    def make() -> Kernel:
        b, y = Builder(), Buffer("y", f32, "write")
        with b.block_loop(ROWS, threads, "row") as row:
            build(b, row)
        return Kernel("planted", (y,), (ROWS,), b.body)

    return make


def within_threads(count: int, build: Build) -> Build:
    def inside(b: Builder, row: Expr) -> None:
        with b.loop(count, "thread", "t") as t:
            build(b, t)

    return inside


def under(condition: Callable[[Expr], Expr], build: Callable[[Builder], object]) -> Build:
    def inside(b: Builder, t: Expr) -> None:
        with b.when(condition(t)):
            build(b)

    return inside


def barrier(b: Builder, *_: Expr) -> None:
    b.barrier()


def warp(b: Builder, *_: Expr) -> None:
    b.let(k.warp_reduce("add", Const(1.0, T)))


def assigned(b: Builder, row: Expr) -> None:
    """A barrier in a loop whose end each thread has for itself."""
    end = b.var(Const(0), "end")
    with b.loop(4, "thread", "t") as t:
        b.assign(end, t)
    with b.loop(end):
        b.barrier()


def bare(stmt: k.Stmt) -> Callable[[], Kernel]:
    return lambda: Kernel("planted", (), (), [stmt])


REFUSED: dict[str, tuple[Callable[[], Kernel], str, str]] = {
    "too many threads": (planted(barrier, 2048), "threads", "2048 threads"),
    "half a warp": (planted(barrier, 48), "threads", "48 threads"),
    "threads alone": (
        bare(k.For(Name("i"), Const(0), Const(4), Const(1), "thread")),
        "threads",
        "no block",
    ),
    "threads in threads": (
        planted(within_threads(4, within_threads(4, lambda b, t: None))),
        "threads",
        "another",
    ),
    "shared alone": (
        bare(k.Scratch(Buffer("s", f32), 4, "shared")),
        "threads",
        "not declared by the block",
    ),
    "shared by threads": (
        planted(within_threads(4, lambda b, t: b.shared(f32, 4))),
        "threads",
        "declared",
    ),
    "odd memory": (bare(k.Scratch(Buffer("s", f32), 4, "odd")), "buffer", "'odd'"),
    "barrier alone": (bare(k.Barrier()), "barrier", "no block loop"),
    "barrier of threads": (planted(within_threads(64, barrier)), "barrier", "different times"),
    "barrier under a register": (planted(assigned), "barrier", "different times"),
    "warp alone": (bare(k.Let(V, k.warp_reduce("add", Const(1.0, T)))), "warp", "no block loop"),
    "part of a warp": (planted(within_threads(48, warp)), "warp", "different times"),
    "lanes apart": (
        planted(within_threads(64, under(lambda t: binary("lt", t, 40), warp))),
        "warp",
        "different",
    ),
    "lane alone": (
        bare(k.Let(V, k.from_lane(Const(1.0, T), Const(0)))),
        "warp",
        "no block loop",
    ),
    "lanes of some threads": (
        planted(
            within_threads(
                64,
                under(
                    lambda t: binary("lt", t, 40),
                    lambda b: b.let(k.from_lane(Const(1.0, T), Const(0))),
                ),
            )
        ),
        "warp",
        "different",
    ),
    "width": (
        planted(lambda b, r: b.let(k.WarpReduce("add", Const(1.0, T), 3, T))),
        "warp",
        "3 neighbours",
    ),
    "block inside": (
        planted(lambda b, r: b.emit(k.For(Name("j"), r, r, Const(1), "block", [], 32))),
        "loop",
        "stands inside",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    make, rule, detail = REFUSED[name]
    with pytest.raises(KernelError, match=f"rule '{rule}'") as error:
        verify(make())
    assert detail in str(error.value).split("\n")[0]


ALLOWED: dict[str, Callable[[], Kernel]] = {
    "a barrier under what all threads agree on": planted(
        under(lambda row: binary("lt", row, 4), barrier)
    ),
    "a warp under what its threads agree on": planted(
        within_threads(64, under(lambda t: binary("lt", t // 32, 1), warp))
    ),
    "a warp of whole ones": planted(within_threads(128, warp)),
    "sums": sums,
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str) -> None:
    verify(ALLOWED[name]())


@pytest.mark.parametrize(
    ("count", "narrow"), [(1 << 20, True), (1 << 31, True), ((1 << 31) + 1, False), (ROWS, False)]
)
def test_indices_are_divided_in_32_bits_where_they_fit(count: int | Expr, narrow: bool) -> None:
    b, y, unit = Builder(), Buffer("y", f32, "write"), Unit()
    with b.loop(count, "parallel") as i:
        b.store(y, b.let(i // 3) * 7 + i % 3, Const(1.0, T))
    unit.kernel(Kernel("divided", (y,), (ROWS,), b.body), (0,))
    assert unit.text().count("(gt_u32)") == (4 if narrow else 0)
