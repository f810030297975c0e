"""Convolutions of images whose channels are neighbours, against the reference: geometry, groups,
views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from contracting import check
from graphtorch.backends.cpu.contraction.schedule import Machine
from graphtorch.backends.kernels.ir import For, walk
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, bf16, f64
from graphtorch.ir.graph import Value
from graphtorch.ir.op import Op
from graphtorch.ir.shape import Dim, symbol

BATCH = symbol("batch")
MACHINES = {"sse": Machine(16, 16), "avx2": Machine(32, 16), "avx512": Machine(64, 32)}
ONE = ((1, 1), (1, 1))
Case = tuple[Callable[..., Value], list[Sequence[Dim]]]


def last(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    return (shape[0], *shape[2:], shape[1])


def made(op: Op, shapes: Sequence[Sequence[Dim]], images: int = 1, **given: object) -> Case:
    """A case from the shapes of the plain op."""
    rank = len(shapes[0]) - 2
    ones = (1,) * rank
    attrs = {"stride": ones, "padding": ((0, 0),) * rank, "dilation": ones, "groups": 1, **given}
    return lambda *v: op(*v, **attrs), [last(s) if i < images else s for i, s in enumerate(shapes)]


def conv(*shapes: Sequence[Dim], **given: object) -> Case:
    return made(ops.channels_last_conv, shapes, **given)


def transposed(*shapes: Sequence[Dim], **given: object) -> Case:
    given = {"output_padding": (0,) * (len(shapes[0]) - 2), **given}
    return made(ops.channels_last_conv_transpose, shapes, **given)


def weight_grad(kernel: tuple[int, ...], *shapes: Sequence[Dim], **given: object) -> Case:
    return made(ops.channels_last_conv_weight_grad, shapes, 2, kernel=kernel, **given)


CASES = {
    "few channels": conv((2, 3, 19, 21), (20, 3, 3, 3), (20,), stride=(2, 2), padding=ONE),
    "asymmetric padding": conv((2, 3, 9, 11), (7, 3, 3, 3), padding=((1, 2), (0, 1))),
    "dilation": conv((2, 3, 19, 21), (20, 3, 3, 3), dilation=(2, 3)),
    "groups": conv((2, 6, 10, 10), (8, 3, 3, 3), (8,), groups=2),
    "depthwise": conv((2, 40, 14, 14), (40, 1, 3, 3), (40,), groups=40, padding=ONE),
    "depthwise stride": conv(
        (1, 24, 15, 14), (24, 1, 5, 5), groups=24, stride=(2, 2), padding=((2, 2), (2, 2))
    ),
    "depthwise, two filters a channel": conv((1, 6, 9, 9), (12, 1, 3, 3), groups=6),
    "1x1": conv((2, 64, 14, 14), (32, 64, 1, 1), (32,)),
    "one channel": conv((2, 1, 28, 30), (20, 1, 3, 3), (20,), padding=ONE),
    "one vector of results": conv((2, 1, 28, 30), (6, 1, 5, 5), (6,)),
    "1x1 stride": conv((1, 32, 14, 14), (48, 32, 1, 1), stride=(2, 2)),
    "3x3": conv((1, 64, 28, 28), (64, 64, 3, 3), padding=ONE),
    "1d": conv((2, 5, 40), (12, 5, 5), padding=((2, 2),)),
    "3d": conv((2, 3, 6, 7, 8), (5, 3, 3, 3, 3), padding=((1, 1),) * 3, stride=(1, 2, 1)),
    "no images": conv((0, 3, 9, 11), (7, 3, 3, 3)),
    "input": transposed((2, 16, 10, 10), (16, 6, 5, 5)),
    "input stride": transposed(
        (2, 16, 10, 10), (16, 6, 3, 3), (6,), stride=(2, 2), padding=ONE, output_padding=(1, 1)
    ),
    "input depthwise": transposed(
        (2, 16, 10, 10), (16, 1, 3, 3), groups=16, stride=(2, 1), padding=((1, 0), (3, 1))
    ),
    "input 1d dilation": transposed((2, 4, 10), (4, 3, 3), stride=(3,), dilation=(2,)),
    "weight": weight_grad((3, 3), (4, 8, 14, 14), (4, 12, 14, 14), padding=ONE),
    "weight 1x1": weight_grad((1, 1), (4, 24, 14, 14), (4, 32, 14, 14)),
    "weight stride": weight_grad((3, 3), (4, 8, 14, 14), (4, 12, 7, 7), stride=(2, 2), padding=ONE),
    "weight groups": weight_grad((3, 3), (4, 8, 14, 14), (4, 12, 14, 14), groups=2, padding=ONE),
    "weight depthwise": weight_grad(
        (3, 3), (4, 24, 14, 14), (4, 24, 14, 14), groups=24, padding=ONE
    ),
}


RESIDUES = {
    "3x3": transposed(
        (2, 32, 7, 9), (32, 24, 3, 3), (24,), stride=(2, 2), padding=ONE, output_padding=(1, 1)
    ),
    "odd size": transposed((2, 32, 7, 9), (32, 24, 3, 3), stride=(2, 2), padding=ONE),
    "1x1, most results meet nothing": transposed(
        (2, 32, 7, 7), (32, 24, 1, 1), (24,), stride=(2, 2), output_padding=(1, 1)
    ),
    "one dimension": transposed((2, 32, 7, 9), (32, 24, 3, 3), stride=(1, 3), padding=ONE),
    "kernel of the stride": transposed((2, 32, 5, 6), (32, 8, 2, 2), stride=(2, 2)),
    "7x7": transposed((1, 32, 9, 8), (32, 5, 7, 7), stride=(2, 2), padding=((3, 3), (3, 2))),
    "depthwise": transposed((2, 40, 7, 9), (40, 1, 3, 3), groups=40, stride=(2, 2), padding=ONE),
    "groups": transposed((2, 64, 7, 9), (64, 4, 3, 3), groups=2, stride=(2, 2), padding=ONE),
    "dilation": transposed((2, 32, 9), (32, 4, 4), stride=(4,), dilation=(2,), padding=((1, 2),)),
    "3d": transposed((1, 16, 3, 4, 5), (16, 4, 3, 3, 3), stride=(2, 1, 2)),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", RESIDUES)
def test_no_zeros_between_elements_are_multiplied(name: str, machine: str) -> None:
    """A contraction a residue of the stride, none of which copies the image with zeros in it."""
    build, shapes = RESIDUES[name]
    program = check(build, shapes, stable=(1,), machine=MACHINES[machine])
    assert len(program.launches) > 1
    assert not any(launch.label.startswith("pad") for launch in program.launches)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_residues_of_a_symbolic_batch(size: int) -> None:
    place = {"stride": (2, 2), "padding": ONE, "output_padding": (1, 1)}
    check(*transposed((BATCH, 32, 7, 9), (32, 24, 3, 3), (24,), **place), batch=size)


@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name: str) -> None:
    build, shapes = CASES[name]
    check(build, shapes, stable=() if name.startswith("weight") else (1,))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "name",
    [
        "few channels",
        "one channel",
        "groups",
        "depthwise",
        "3x3",
        "input",
        "weight",
        "weight depthwise",
    ],
)
def test_any_vector_width(machine: str, name: str) -> None:
    build, shapes = CASES[name]
    check(build, shapes, machine=MACHINES[machine])


def test_one_channel_has_its_zeros_in_memory() -> None:
    """Tiles would ask for each product whether its pixel is one."""
    program = check(*CASES["one channel"], stable=(1,), machine=MACHINES["avx2"])
    assert [launch.label.split()[0] for launch in program.launches] == ["pad", "channels_last_conv"]


@pytest.mark.parametrize("name", ["one vector of results", "1x1"])
def test_pixels_that_neighbours_share_are_not_kept_in_registers(name: str) -> None:
    """One row of such a tile reads what another reads at the next step."""
    program = check(*CASES[name], stable=(1,), machine=MACHINES["avx2"])
    (launch,) = program.launches
    kinds = {s.kind for s in walk(launch.kernel.body) if isinstance(s, For)}
    assert ("single" in kinds) is (name == "one vector of results")


@pytest.mark.parametrize("dtype", [f64, bf16])
def test_dtypes(dtype: DType) -> None:
    for name in ("few channels", "depthwise", "weight stride"):
        check(*CASES[name], dtype)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_symbolic_batch(size: int) -> None:
    check(*conv((BATCH, 6, 14, 14), (16, 6, 5, 5), (16,), padding=ONE), stable=(1, 2), batch=size)
    check(*conv((BATCH, 16, 9, 9), (16, 1, 3, 3), groups=16, padding=ONE), batch=size)
    check(*weight_grad((5, 5), (BATCH, 6, 14, 14), (BATCH, 16, 10, 10)), batch=size)


SHORT = {
    "3x3": ((12, 64, 6, 6), (12, 96, 6, 6), {"padding": ONE}),
    "stride": ((24, 48, 7, 9), (24, 128, 4, 5), {"padding": ONE, "stride": (2, 2)}),
    "groups": ((16, 16, 6, 5), (16, 256, 6, 5), {"padding": ONE, "groups": 2}),
    "parts": ((64, 16, 6, 6), (64, 96, 6, 6), {"padding": ONE}),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SHORT)
def test_short_rows_of_pixels_are_one_loop(name: str, machine: str) -> None:
    """Copies have the pixels that filters of a gradient meet one after the other, as gradients of
    results do."""
    x, g, place = SHORT[name]
    program = check(*weight_grad((3, 3), x, g, **place), machine=MACHINES[machine])
    (launch,) = (n for n in program.launches if "[tile" in n.label)
    assert "pack a" in launch.label
    loops = [s for s in walk(launch.kernel.body) if isinstance(s, For) and s.var.name[0] == "k"]
    inside = {id(s) for loop in loops for s in walk(loop.body)}
    assert loops and not any(id(loop) in inside for loop in loops)


@pytest.mark.parametrize("size", [0, 1, 20])
def test_short_rows_of_a_symbolic_batch(size: int) -> None:
    check(
        *weight_grad((3, 3), (BATCH, 24, 6, 6), (BATCH, 128, 6, 6), padding=ONE),
        batch=size,
    )


@pytest.mark.parametrize(("channels", "room"), [(24, 24), (64, 80), (128, 144)])
def test_pixels_of_copies_are_not_a_multiple_of_few_lines_apart(channels: int, room: int) -> None:
    """One place of a cache would have to hold what most of a kernel's reads are."""
    program = check(*weight_grad((3, 3), (1, channels, 9, 9), (1, 8, 9, 9), padding=ONE))
    (pad,) = (n for n in program.launches if n.label == "pad")
    (copy,) = (s for s, b in zip(pad.slots, pad.kernel.buffers, strict=True) if b.access == "write")
    assert copy.elements == 11 * 11 * room


def test_an_image_in_the_other_order_is_read_where_it_lies() -> None:
    def build(x: Value, w: Value) -> Value:
        return CASES["1x1"][0](ops.permute(x, dims=(0, 2, 3, 1)), w)

    program = check(build, [(2, 64, 14, 14), (32, 64, 1, 1)], stable=(1,))
    assert not any(
        launch.label.startswith(("copy", "permute", "operand")) for launch in program.launches
    )
