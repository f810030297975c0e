"""Which kernels may write an output over the input it takes over."""

from __future__ import annotations

import pytest

from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Const, Kernel, KType, Name, load, reduce
from graphtorch.backends.kernels.program.donation import elementwise
from graphtorch.ir.dtype import f32

N = Name("n")


def same_index(b, x, y):
    with b.loop(N, "parallel", name="t", step=64) as t, b.loop(t + 64, "vector", lo=t) as i:
        j = b.let(i * 2 + 1)
        b.store(y, j, load(x, j) * 2.0)


def explicit_lanes(b, x, y):
    with b.loop(N, step=8) as i:
        b.store(y, i, load(x, i, 8) * 2.0)


def neighbour(b, x, y):
    with b.loop(N, "vector") as i:
        b.store(y, i, load(x, i + 1))


def second_read(b, x, y):
    with b.loop(N, "vector") as i:
        b.store(y, i, load(x, i))
        b.let(load(x, i))


def earlier_loop(b, x, y):
    total = b.var(Const(0.0, KType(f32)))
    with b.loop(N, "vector") as i:
        b.assign(total, total + load(x, i))
    with b.loop(N, "vector") as i:
        b.store(y, i, load(x, i) / total)


def loop_that_repeats_elements(b, x, y):
    with b.loop(4), b.loop(N, "vector") as i:
        b.store(y, i, load(x, i) + 1.0)


def other_width(b, x, y):
    with b.loop(N) as i:
        b.store(y, i, reduce("add", load(x, i, 8)))


def reads_the_result(b, x, y):
    with b.loop(N) as i:
        b.store(y, i, load(x, i) + load(y, i))


@pytest.mark.parametrize(
    "make, allowed",
    [
        (same_index, True),
        (explicit_lanes, True),
        (neighbour, False),
        (second_read, False),
        (earlier_loop, False),
        (loop_that_repeats_elements, False),
        (other_width, False),
        (reads_the_result, False),
    ],
)
def test_in_place_only_element_by_element(make, allowed):
    x, y, b = Buffer("x", f32), Buffer("y", f32, "readwrite"), Builder()
    make(b, x, y)
    assert elementwise(Kernel("k", (x, y), (N,), b.body), x, y) is allowed
