"""Convolutions and their gradients: geometry, groups, dims, dtypes, symbolic sizes, machines."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from contracting import check, graph_of, program_of
from graphtorch.backends.kernels.machine import Machine
from graphtorch.backends.kernels.text import print_program
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f32, f64
from graphtorch.ir.graph import Value
from graphtorch.ir.shape import symbol

BATCH = symbol("batch")
MACHINES = {"sse": Machine(16, 16), "avx2": Machine(32, 16), "avx512": Machine(64, 32)}


def place(rank: int, given: dict[str, object]) -> dict[str, object]:
    ones, nothing = (1,) * rank, ((0, 0),) * rank
    return {"stride": ones, "padding": nothing, "dilation": ones, "groups": 1, **given}


def conv(rank: int = 2, **given: object) -> Callable[..., Value]:
    return lambda x, w, *b: ops.conv(x, w, *b, **place(rank, given))


def transposed(rank: int = 2, **given: object) -> Callable[..., Value]:
    attrs = place(rank, {"output_padding": (0,) * rank, **given})
    return lambda x, w, *b: ops.conv_transpose(x, w, *b, **attrs)


def weight_grad(*kernel: int, **given: object) -> Callable[..., Value]:
    return lambda x, g: ops.conv_weight_grad(x, g, kernel=kernel, **place(len(kernel), given))


ONE = ((1, 1), (1, 1))
FORWARD = {
    "lenet 1": (conv(), [(2, 1, 32, 32), (6, 1, 5, 5), (6,)]),
    "lenet 2": (conv(), [(3, 6, 14, 14), (16, 6, 5, 5), (16,)]),
    "asymmetric padding": (conv(padding=((1, 2), (0, 1))), [(2, 3, 9, 11), (7, 3, 3, 3)]),
    "stride": (conv(stride=(2, 3), padding=ONE), [(2, 3, 19, 21), (20, 3, 3, 3)]),
    "dilation": (conv(dilation=(2, 3)), [(2, 3, 19, 21), (20, 3, 3, 3)]),
    "groups": (conv(groups=2), [(2, 6, 10, 10), (8, 3, 3, 3), (8,)]),
    "depthwise": (conv(groups=8, padding=ONE), [(2, 8, 14, 14), (8, 1, 3, 3)]),
    "depthwise stride": (
        conv(groups=8, stride=(2, 2), padding=ONE),
        [(2, 8, 14, 14), (8, 1, 3, 3)],
    ),
    "1x1": (conv(), [(2, 64, 14, 14), (32, 64, 1, 1)]),
    "3x3": (conv(padding=ONE), [(1, 64, 28, 28), (64, 64, 3, 3)]),
    "patches": (conv(stride=(16, 16)), [(1, 3, 64, 64), (48, 3, 16, 16)]),
    "1d": (conv(1, padding=((2, 2),)), [(2, 5, 40), (12, 5, 5)]),
    "3d": (conv(3, padding=((1, 1),) * 3, stride=(1, 2, 1)), [(2, 3, 6, 7, 8), (5, 3, 3, 3, 3)]),
    "no images": (conv(), [(0, 3, 9, 11), (7, 3, 3, 3)]),
    "whole image": (conv(), [(2, 3, 5, 5), (7, 3, 5, 5)]),
}
BACKWARD = {
    "input": (transposed(), [(2, 16, 10, 10), (16, 6, 5, 5)]),
    "input stride": (
        transposed(stride=(2, 2), padding=ONE, output_padding=(1, 1)),
        [(2, 16, 10, 10), (16, 6, 3, 3), (6,)],
    ),
    "input groups": (
        transposed(groups=2, stride=(2, 1), padding=((1, 0), (3, 1))),
        [(2, 16, 10, 10), (16, 3, 3, 3)],
    ),
    "input 1d dilation": (transposed(1, stride=(3,), dilation=(2,)), [(2, 4, 10), (4, 3, 3)]),
    "weight 1": (weight_grad(5, 5), [(4, 1, 32, 32), (4, 6, 28, 28)]),
    "weight 2": (weight_grad(5, 5), [(20, 6, 14, 14), (20, 16, 10, 10)]),
    "weight in parts": (weight_grad(5, 5), [(37, 1, 32, 32), (37, 6, 28, 28)]),
    "weight stride": (
        weight_grad(3, 3, stride=(2, 2), padding=ONE),
        [(4, 8, 14, 14), (4, 12, 7, 7)],
    ),
    "weight groups": (weight_grad(3, 3, groups=2, padding=ONE), [(4, 8, 14, 14), (4, 12, 14, 14)]),
    "weight 3d": (weight_grad(2, 3, 2), [(2, 3, 5, 6, 7), (2, 4, 4, 4, 6)]),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward(name: str) -> None:
    build, shapes = FORWARD[name]
    check(build, shapes, stable=(1,))


@pytest.mark.parametrize("name", BACKWARD)
def test_gradients(name: str) -> None:
    build, shapes = BACKWARD[name]
    check(build, shapes)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["lenet 2", "stride", "groups", "weight 2", "input"])
def test_any_vector_width(machine: str, name: str) -> None:
    build, shapes = {**FORWARD, **BACKWARD}[name]
    check(build, shapes, machine=MACHINES[machine])


@pytest.mark.parametrize("dtype", [f64, bf16])
def test_dtypes(dtype: DType) -> None:
    check(conv(), [(2, 3, 9, 11), (7, 3, 3, 3), (7,)], dtype)
    check(weight_grad(3, 3), [(2, 3, 9, 11), (2, 7, 7, 9)], dtype)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_symbolic_batch(size: int) -> None:
    check(conv(), [(BATCH, 6, 14, 14), (16, 6, 5, 5), (16,)], stable=(1, 2), batch=size)
    check(conv(padding=ONE), [(BATCH, 3, 9, 9), (4, 3, 3, 3)], batch=size)
    check(weight_grad(5, 5), [(BATCH, 6, 14, 14), (BATCH, 16, 10, 10)], batch=size)
    check(transposed(), [(BATCH, 16, 10, 10), (16, 6, 5, 5)], batch=size)


def test_symbolic_image() -> None:
    side = symbol("side", 1)
    check(conv(padding=ONE), [(2, 3, side, side), (7, 3, 3, 3)], side=13)
    check(conv(stride=(2, 2)), [(2, 3, side + 4, side), (20, 3, 3, 3)], side=11)


def test_relu_and_residual_are_fused() -> None:
    def block(x: Value, w: Value, b: Value, y: Value) -> Value:
        return ops.relu(ops.add(conv(padding=ONE)(x, w, b), y))

    program = check(block, [(2, 16, 10, 10), (16, 16, 3, 3), (16,), (2, 16, 10, 10)], stable=(1, 2))
    assert [launch.label.split()[0] for launch in program.launches] == ["pad", "conv+add+relu"]


@pytest.mark.parametrize("name", ["few channels", "many channels"])
def test_golden_kernels(name: str, golden: Callable[[str, str], None]) -> None:
    channels = {"few channels": 3, "many channels": 8}[name]
    graph = graph_of(conv(), [(1, 2, 6, 10), (channels, 2, 3, 3), (channels,)], f32)
    golden(
        f"contraction_conv_{name.split()[0]}",
        print_program(program_of(graph, (1, 2), MACHINES["avx2"])),
    )


@pytest.mark.parametrize("channels", [16, 20])
def test_depthwise_channels_last(channels: int, golden: Callable[[str, str], None]) -> None:
    """Pixels outside, channels inside: what a task reads and writes next lies next in memory."""
    attrs = place(2, {"groups": channels, "padding": ONE})
    shapes = [(2, 5, 19, channels), (channels, 1, 3, 3), (channels,)]
    make = functools.partial(ops.channels_last_conv, **attrs)
    check(make, shapes, machine=MACHINES["avx2"])
    program = program_of(graph_of(make, shapes, f32), (1, 2), MACHINES["avx2"])
    if channels == 16:
        golden("contraction_depthwise", print_program(program))
