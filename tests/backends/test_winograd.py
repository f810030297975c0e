"""Winograd's filtering: the transforms against the reference, the three steps against a
convolution."""

from __future__ import annotations

import numpy as np
import pytest

from contracting import check
from graphtorch.backends.buffer import Buffer
from graphtorch.backends.cpu.contraction.schedule import Machine
from graphtorch.backends.llvm.compiler import compile_native as compile_graph
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType, f32, f64
from graphtorch.ir.evaluate import evaluate
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.ops.winograd import FORMS
from graphtorch.ir.passes import cse, winograd
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.rewrite import inline
from graphtorch.ir.shape import Dim, symbol

BATCH = symbol("batch")
MACHINES = {"sse": Machine(16, 16), "avx2": Machine(32, 16), "avx512": Machine(64, 32)}


def filtered(
    padding: tuple[tuple[int, int], tuple[int, int]], shape: tuple[Dim, ...], tile: int = 4
) -> object:
    """The epilogue of a result that is made of transformed tiles."""

    def build(x: Value, bias: Value) -> Value:
        tiled = ops.winograd_image(x, padding=padding, tile=tile)
        made = ops.winograd_result(tiled, shape=shape, tile=tile)
        return ops.relu(ops.add(made, bias))

    return build


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("size", "padding", "channels"),
    [
        ((8, 12), ((1, 1), (1, 1)), 16),
        ((7, 9), ((1, 1), (0, 2)), 20),
        ((6, 6), ((0, 0), (0, 0)), 3),
        ((13, 5), ((2, 0), (1, 1)), 33),
    ],
)
def test_transforms(
    tile: int,
    machine: str,
    size: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    channels: int,
) -> None:
    out = tuple(s + sum(p) - 2 for s, p in zip(size, padding, strict=True))
    check(
        filtered(padding, (2, *out, channels), tile),
        [(2, *size, channels), (channels,)],  # type: ignore[arg-type]
        machine=MACHINES[machine],
    )


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 3)])
def test_transforms_of_gradients(tile: int, machine: str, size: tuple[int, int]) -> None:
    check(
        lambda g: ops.winograd_result_grad(g, tile=tile),
        [(2, *size, 19)],
        machine=MACHINES[machine],
    )


def test_no_such_tiles() -> None:
    with pytest.raises(RuntimeError, match="tiles are of 2 or 4, not 3"):
        ops.winograd_result_grad(Value(Type(f32, (1, 4, 4, 8)), name="g"), tile=3)


@pytest.mark.parametrize("images", [0, 1, 3])
def test_symbolic_batch(images: int) -> None:
    build = filtered(((1, 1), (1, 1)), (BATCH, 9, 8, 16))
    check(build, [(BATCH, 9, 8, 16), (16,)], batch=images)  # type: ignore[arg-type]


PADDINGS = ((1, 1), (1, 1)), ((0, 2), (2, 1))
PLACE = {"stride": (1, 1), "dilation": (1, 1), "groups": 1}
KINDS = ("conv", "conv with bias", "conv_transpose", "weight_grad")


def layer(
    kind: str,
    size: int,
    channels: int,
    filters: int,
    dtype: DType = f32,
    images: Dim = 2,
    padding: tuple[tuple[int, int], ...] = PADDINGS[0],
    **place: object,
) -> Graph:
    """A convolution, or a gradient of one, and what comes after it."""
    place = {**PLACE, "padding": padding, **place}
    tall, wide = (size + sum(p) - 2 for p in padding)
    shapes: dict[str, tuple[Dim, ...]] = {
        "image": (images, size, size, channels),
        "taps": (filters, channels, 3, 3),
        "result": (images, tall, wide, filters),
        "bias": (filters,),
    }
    image, taps, result, bias = (Value(Type(dtype, s), name=n) for n, s in shapes.items())
    if kind == "conv_transpose":
        inputs = [result, taps]
        made = ops.channels_last_conv_transpose(*inputs, output_padding=(0, 0), **place)
    elif kind == "weight_grad":
        inputs = [image, result]
        made = ops.channels_last_conv_weight_grad(*inputs, kernel=(3, 3), **place)
    else:
        inputs = [image, taps, *([bias] if "bias" in kind else [])]
        made = ops.channels_last_conv(*inputs, **place)
    return Graph("g", inputs, [ops.relu(made)])


def replaced(graph: Graph, stable: bool = True) -> Graph | None:
    """The graph by way of tiles; None where it is left as it is."""
    found = winograd.run(graph, set(graph.inputs[1:]) if stable else set(), Limits())
    names = {n.op.name for n in found.nodes}
    assert bool({"winograd_image", "winograd_conv"} & names) == (found is not graph)
    return None if found is graph else found


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tile", [2, 4])
def test_steps_are_a_convolution(
    kind: str, tile: int, padding: tuple[tuple[int, int], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the rounding that the transforms cost: exact arithmetic would give the same numbers, in
    f32 1e-5 of the largest result is lost."""
    monkeypatch.setattr(winograd, "FORMS", {tile: FORMS[tile]})
    monkeypatch.setattr(winograd, "GAIN", 1e9)
    graph = layer(kind, 15, 48, 40, f32, padding=padding)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(v.shape) for v in graph.inputs]  # type: ignore[arg-type]
    (expected,) = evaluate(layer(kind, 15, 48, 40, f64, padding=padding), arrays)
    found = replaced(graph)
    assert found is not None
    single = [a.astype(np.float32) for a in arrays]
    most = np.abs(expected).max()
    (got,) = evaluate(found, single)
    assert 0 < np.abs(got - expected).max() < 2e-5 * most
    (native,) = compile_graph(graph, stable=range(1, len(arrays)))(
        [Buffer.of(np.ascontiguousarray(a)) for a in single]
    )
    assert np.abs(native.numpy() - expected).max() < 2e-5 * most


def test_where_it_pays() -> None:
    assert replaced(layer("conv", 28, 128, 128, images=1))
    assert replaced(layer("conv", 28, 128, 128, images=8), stable=False)
    assert replaced(layer("conv_transpose", 28, 128, 128, images=8), stable=False)
    assert replaced(layer("weight_grad", 28, 128, 128, images=8))
    assert replaced(layer("conv", 28, 128, 128, images=BATCH))
    assert not replaced(layer("conv", 28, 16, 128, images=1))  # few channels
    assert not replaced(layer("conv", 5, 512, 512, images=1))  # larger filters, hardly a tile
    assert not replaced(layer("conv", 28, 128, 128, f64, images=1))
    assert not replaced(layer("weight_grad", 28, 16, 16, images=8))
    for place in ({"stride": (2, 1)}, {"dilation": (1, 2)}):
        padding = ((2, 2), (2, 2))
        assert not replaced(layer("conv", 28, 128, 128, images=1, padding=padding, **place))


def test_larger_tiles_for_larger_images() -> None:
    def tile(size: int, channels: int) -> int:
        found = replaced(layer("conv", size, channels, channels, images=1))
        assert found is not None
        (node,) = (n for n in found.nodes if n.op in (ops.winograd_image, ops.winograd_conv))
        return int(node.attrs.tile)  # type: ignore[attr-defined]

    assert tile(56, 64) == 4
    assert tile(14, 256) == 2


def test_tiles_are_not_kept_for_a_gradient() -> None:
    """They are 2 to 4 times as large as the image that they are made of."""
    forward, back = layer("conv", 28, 128, 128), layer("weight_grad", 28, 128, 128)
    x, w = forward.inputs
    grad = inline(back, (x, forward.outputs[0]))
    both = winograd.run(Graph("g", [x, w], [*forward.outputs, *grad]), set(), Limits())
    assert sum(n.op is ops.winograd_image for n in cse.run(both).nodes) == 1
    assert sum(n.op is ops.winograd_conv for n in both.nodes) == 1


def test_steps_in_one_kernel_where_tiles_do_not_stay_near() -> None:
    def names(size: int, channels: int, images: int) -> set[str]:
        found = replaced(layer("conv", size, channels, channels, images=images))
        assert found is not None
        return {n.op.name for n in found.nodes}

    assert "winograd_conv" in names(56, 64, 1) and "winograd_conv" in names(28, 128, 8)
    assert "winograd_image" in names(28, 128, 1)  # all numbers fit next to the cores
    assert "winograd_image" in names(14, 256, 8)  # filters are read once only


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("images", [1, 3, 0, BATCH])
@pytest.mark.parametrize(("size", "width"), [((8, 12), 32), ((7, 9), 20), ((13, 5), 32)])
def test_one_kernel(machine: str, images: Dim, size: tuple[int, int], width: int) -> None:
    """Tasks of as many tiles, and of fewer; blocks of filters that fill vectors and do not."""
    for tile in (2, 4):
        check(
            lambda x, w, b, t=tile: ops.relu(
                ops.add(ops.winograd_conv(x, w, padding=((1, 1), (0, 2)), tile=t), b)
            ),
            [(images, *size, 19), ((tile + 2) ** 2, 2, 19, width), (2 * width,)],
            machine=MACHINES[machine],
            **({"batch": 3} if images is BATCH else {}),
        )
