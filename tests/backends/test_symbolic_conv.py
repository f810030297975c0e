"""Convolutions of images whose number, height and width are known at run time only: one program
beside the reference at many sizes, and how such sizes are divided into tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from contracting import check, graph_of, program_of
from graphtorch.backends.buffer import Buffer
from graphtorch.backends.cpu.contraction.choice import likely_extents, sweeps
from graphtorch.backends.cpu.contraction.schedule import Machine, any_row_sizes, sweep
from graphtorch.backends.kernels.text import print_program
from graphtorch.backends.llvm.compiler import compile_native
from graphtorch.ir import ops
from graphtorch.ir.dtype import f64
from graphtorch.ir.evaluate import evaluate as interpret
from graphtorch.ir.graph import Value
from graphtorch.ir.op import Op
from graphtorch.ir.shape import Dim, evaluate, likely, symbol, unit

BATCH, HEIGHT, WIDTH = symbol("batch", 0, 64), symbol("height", 1, 512), symbol("width", 1, 512)
IMAGE = HEIGHT, WIDTH
# odd, even, of one pixel, smaller than a tile, longer than a block of one
SIZES = [(1, 1, 1), (2, 3, 5), (1, 7, 7), (3, 8, 4), (1, 13, 1), (1, 17, 34), (5, 6, 9), (0, 4, 4)]
TOLERANCE = 3e-5  # of the largest result: Winograd's transforms lose some digits

LAST = {
    ops.conv: ops.channels_last_conv,
    ops.conv_transpose: ops.channels_last_conv_transpose,
}
MACHINES = {"sse": Machine(16, 16), "avx2": Machine(32, 16), "avx512": Machine(64, 32)}
Case = tuple[Callable[..., Value], list[Sequence[Dim]]]


def layer(
    channels: int,
    filters: int,
    kernel: int = 3,
    op: Op = ops.conv,
    image: tuple[Dim, Dim] = IMAGE,
    groups: int = 1,
    bias: bool = True,
    last: bool = False,
    **given: Any,
) -> Case:
    """A convolution of images [batch, channels, *image], or [batch, *image, channels], and a
    ReLU."""
    turned = op is ops.conv_transpose
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": groups}
    if turned:
        attrs["output_padding"] = (0, 0)
    each = (channels, filters // groups) if turned else (filters, channels // groups)
    shapes = [(BATCH, channels, *image), (*each, kernel, kernel), *([(filters,)] if bias else [])]
    if last:
        op, shapes[0] = LAST[op], (BATCH, *image, channels)
    return lambda *v: ops.relu(op(*v, **{**attrs, **given})), shapes


def weight_grad(channels: int, filters: int, last: bool = False) -> Case:
    """The gradient of 3 x 3 filters."""
    attrs = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    shapes = [(BATCH, *IMAGE, c) if last else (BATCH, c, *IMAGE) for c in (channels, filters)]
    op = ops.channels_last_conv_weight_grad if last else ops.conv_weight_grad
    return lambda *v: op(*v, kernel=(3, 3), **attrs), shapes


WIDE = ((4, 4), (4, 4))
CASES: dict[str, Case] = {
    "3x3": layer(40, 24),
    "3x3 by tiles of Winograd": layer(64, 64, last=True),
    "few channels": layer(3, 20),
    "padding larger than the image": layer(16, 48, 5, padding=WIDE),
    "one side padded": layer(16, 17, padding=((2, 0), (0, 2))),
    "stride": layer(24, 32, stride=(2, 2)),
    "stride 3 of few channels": layer(3, 16, 7, padding=((3, 3), (3, 3)), stride=(3, 2)),
    "dilation": layer(32, 20, padding=WIDE, dilation=(4, 4)),
    "groups": layer(24, 40, groups=4),
    "depthwise": layer(40, 40, groups=40),
    "depthwise of a stride": layer(20, 20, 5, groups=20, padding=((2, 2), (2, 2)), stride=(2, 2)),
    "depthwise, dilated": layer(16, 16, groups=16, padding=((2, 2), (2, 2)), dilation=(2, 2)),
    "1x1": layer(48, 72, 1, padding=((0, 0), (0, 0))),
    "1x1 of a stride": layer(48, 24, 1, padding=((0, 0), (0, 0)), stride=(2, 2)),
    "one result": layer(32, 1, 1, padding=((0, 0), (0, 0))),
    "no bias": layer(32, 96, bias=False),
    "transposed": layer(24, 16, op=ops.conv_transpose),
    "transposed, of a stride": layer(
        32, 24, 2, op=ops.conv_transpose, padding=((0, 0), (0, 0)), stride=(2, 2)
    ),
    "transposed by tiles of Winograd": layer(64, 64, op=ops.conv_transpose, last=True),
    "gradient of filters": weight_grad(12, 20),
    "gradient of filters by tiles of Winograd": weight_grad(64, 64, last=True),
    # of known images an unknown number, which tiles do not divide
    "batch": layer(32, 40, image=(7, 7)),
    "batch of small images": layer(32, 40, image=(2, 3)),
    "batch of large images": layer(16, 24, 1, image=(20, 9), padding=((0, 0), (0, 0))),
    "batch, depthwise": layer(40, 40, image=(9, 11), groups=40),
    "batch by tiles of Winograd": layer(64, 64, image=(14, 14), last=True),
    "height": layer(32, 40, image=(HEIGHT, 12)),
    "width": layer(32, 40, image=(5, WIDTH)),
}


@pytest.mark.parametrize("name", CASES)
def test_one_program_for_all_sizes(name: str) -> None:
    """Of the whole pipeline: with images turned and Winograd's tiles where these pay."""
    graph, exact = graph_of(*CASES[name]), graph_of(*CASES[name], f64)
    known = [i for i, v in enumerate(graph.inputs) if not unknown(v)]
    program = compile_native(graph, stable=known)
    assert ("winograd" in program.explain()) == ("Winograd" in name)
    for images, height, width in SIZES:
        values = {"batch": images, "height": height, "width": width}
        rng = np.random.default_rng(images + 10 * height + 100 * width)
        shapes = [[int(evaluate(d, values)) for d in v.shape] for v in graph.inputs]
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        (got,) = program([Buffer.of(a) for a in arrays])
        (expected,) = interpret(exact, [a.astype(np.float64) for a in arrays])
        most = max(1.0, float(np.abs(expected).max(initial=0)))
        assert got.shape == expected.shape
        np.testing.assert_allclose(got.numpy() / most, expected / most, rtol=0, atol=TOLERANCE)


def unknown(value: Value) -> bool:
    return not all(isinstance(d, int) for d in value.shape)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"stride": (2, 2)},
        {"padding": WIDE, "dilation": (4, 4)},
        {"groups": 24},
        {"kernel": 1, "padding": ((0, 0), (0, 0))},
        {"image": (7, 7)},
        {"op": ops.conv_transpose},
    ],
    ids=str,
)
def test_any_vector_width(given: dict[str, Any], machine: str) -> None:
    build, shapes = layer(24, 24, last=True, **given)
    for batch, height, width in SIZES:
        sizes = {"batch": batch, "height": height, "width": width}
        sizes = {"batch": batch} if "image" in given else sizes
        check(build, shapes, stable=(1, 2), machine=MACHINES[machine], **sizes)


# ------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("most", range(1, 29))
@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 7, 14, 16, 49])
def test_tiles_leave_no_row_of_any_number(step: int, most: int) -> None:
    sizes = any_row_sizes(step, most)
    assert max(sizes) == sizes[0] <= most
    for times in range(40):
        assert sum(size * count for size, count in sweep(step * times, sizes)) == step * times


def test_tiles_divide_what_is_known_of_a_number() -> None:
    assert any_row_sizes(1, 4) == (4, 3, 2, 1)
    assert any_row_sizes(1, 6) == (6, 4, 2, 1)
    assert any_row_sizes(16, 6) == (4,)  # always a multiple of it
    assert any_row_sizes(9, 6) == (6, 3)
    assert any_row_sizes(10, 6) == (5,)


def test_units_of_sizes() -> None:
    assert unit(12) == 12
    assert unit(0) == 0
    assert unit(49 * BATCH) == 49
    assert unit(6 * BATCH * HEIGHT + 4 * WIDTH) == 2
    assert unit((HEIGHT + 1) // 2 * 8) == 8


def test_likely_sizes() -> None:
    half = (HEIGHT + 1) // 2
    assert likely(5, 224) == 5
    assert likely(half, 224) == 112
    assert likely(half, 10_000) == 256  # as large as the range allows
    assert likely(symbol("many", 300) - 1, 224) == 299
    assert likely(HEIGHT - 9, 5) == 1
    assert likely(7 // (HEIGHT - 5), 5) == 5  # a size that no run has
    assert likely_extents(4 * BATCH)[0] % 4 == 0
    assert likely_extents(half) == [80, 112, 160]
    covered = sum(size * times for size, times in sweeps(BATCH, any_row_sizes(1, 6)))
    assert covered == pytest.approx(64)  # the average is of as many rows as a guess says


def test_rows_of_a_batch_are_those_of_each_image() -> None:
    """One schedule for one image and for many; small images are one matrix."""

    def schedule(images: Dim, side: int) -> str:
        place = {"image": (side, side), "padding": ((0, 0), (0, 0))}
        build, shapes = layer(64, 64, 1, last=True, **place)
        given = [(images, *shape[1:]) if i == 0 else shape for i, shape in enumerate(shapes)]
        program = program_of(graph_of(build, given), (1, 2), MACHINES["avx2"])
        return program.launches[-1].label  # type: ignore[union-attr]

    assert schedule(BATCH, 28) == schedule(1, 28)
    assert schedule(BATCH, 4) != schedule(1, 4)
    assert "serial" not in schedule(BATCH, 28)


def test_depthwise_convolutions_of_unknown_size_use_threads() -> None:
    build, shapes = layer(40, 40, image=(9, 11), groups=40, last=True)
    program = program_of(graph_of(build, shapes), (1, 2), MACHINES["avx2"])
    assert [launch.label for launch in program.launches] == [  # type: ignore[union-attr]
        "channels_last_conv+relu [diagonal, 6/5 x 8, pack b]"
    ]


@pytest.mark.parametrize("name", ["3x3", "depthwise", "batch"])
def test_golden_kernels(name: str, golden: Callable[[str, str], None]) -> None:
    given = {
        "3x3": {"image": (6, WIDTH)},
        "depthwise": {"groups": 8},
        "batch": {"kernel": 1, "image": (7, 7), "padding": ((0, 0), (0, 0))},
    }[name]
    build, shapes = layer(8, 8, last=True, **given)
    program = program_of(graph_of(build, shapes), (1, 2), MACHINES["avx2"])
    golden(f"symbolic_conv_{name}", print_program(program))
