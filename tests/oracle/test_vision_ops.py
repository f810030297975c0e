"""``torch.ops.torchvision`` against the definitions of its operators, written with NumPy once more:
samples by hat functions over whole rows and columns, bins by slices."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphtorch as gt
from graphtorch.autograd import gradcheck, gradgradcheck

TV = gt.ops.torchvision
ROIS = np.array(
    [
        [0, 1.0, 1, 9, 7],
        [1, 2.2, 0.4, 6, 8],
        [1, -6, -5, 30, 25],
        [0, 4, 4, 4, 4],
        [1, 7, 8.5, 2, 3],
        [0, 40, 40, 50, 60],
    ]
)
SCALE, SIZE, SHAPE = 0.625, (3, 2), (2, 12, 7, 9)


def feature_map(dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(3).normal(size=SHAPE).astype(dtype)


def hats(at: np.ndarray, size: int, closed: bool) -> np.ndarray:
    """Weights of pixels for samples at coordinates. `closed`: the border's pixels go on for one
    pixel."""
    near = np.clip(at, 0, size - 1) if closed else at
    inside = (at >= -1) & (at <= size) if closed else np.ones(at.shape, bool)
    return np.maximum(0, 1 - np.abs(near[:, None] - np.arange(size))) * inside[:, None]


def aligned_bins(low: float, high: float, bins: int, ratio: int, least: float) -> list[np.ndarray]:
    length = max(high - low, least)
    count = ratio if ratio > 0 else max(int(np.ceil(length / bins)), 0)
    return [
        low + length / bins * (i + (np.arange(count) + 0.5) / max(count, 1)) for i in range(bins)
    ]


def align(
    x: np.ndarray, rois: np.ndarray, ratio: int, aligned: bool, sensitive: bool = False
) -> np.ndarray:
    (height, width), shift = SIZE, 0.5 * aligned
    found = np.zeros((len(rois), x.shape[1], *SIZE))
    for k, (image, *ends) in enumerate(rois):
        x1, y1, x2, y2 = (e * SCALE - shift for e in ends)
        least = -np.inf if aligned else 1.0
        axes = (y1, y2, height), (x1, x2, width)
        rows, columns = (aligned_bins(a, b, n, ratio, least) for a, b, n in axes)
        for i, j in np.ndindex(height, width):
            down, over = hats(rows[i], x.shape[2], True), hats(columns[j], x.shape[3], True)
            total = np.einsum("sh,chw,tw->c", down, x[int(image)], over)
            found[k, :, i, j] = total / max(len(down) * len(over), 1)
    return own_channels(found) if sensitive else found


def own_channels(found: np.ndarray) -> np.ndarray:
    height, width = SIZE
    parts = found.reshape(len(found), -1, height, width, height, width)
    return np.einsum("kcijij->kcij", parts)


def away_from_zero(x: float) -> int:
    return int(np.sign(x) * np.floor(abs(x) + 0.5))


def pool(x: np.ndarray, rois: np.ndarray, sensitive: bool) -> np.ndarray:
    (height, width), more = SIZE, int(not sensitive)
    found = np.zeros((len(rois), x.shape[1], *SIZE))
    for k, (image, *ends) in enumerate(rois):
        x1, y1, x2, y2 = (away_from_zero(e * SCALE) for e in ends)
        for i, j in np.ndindex(height, width):
            spans = []
            for low, high, n, b, size in (
                (y1, y2, height, i, x.shape[2]),
                (x1, x2, width, j, x.shape[3]),
            ):
                step, size = max(high - low + more, 1) / n, size - 1 + more
                first, last = int(np.floor(b * step)) + low, int(np.ceil((b + 1) * step)) + low
                spans.append(slice(min(max(first, 0), size), min(max(last, 0), size)))
            pixels = x[int(image)][(slice(None), *spans)].reshape(x.shape[1], -1)
            if pixels.size:
                found[k, :, i, j] = pixels.mean(1) if sensitive else pixels.max(1)
    return own_channels(found) if sensitive else found


def deform(x: Any, w: Any, offset: Any, mask: Any, bias: Any, groups: int, parts: int) -> Any:
    """With stride 2 and padding 1 along rows, 1 and 0 along columns."""
    outs, per_group, kh, kw = w.shape
    n, channels, oh, ow = len(x), x.shape[1], *offset.shape[2:]
    columns = np.zeros((n, channels, kh, kw, oh, ow))
    moves = offset.reshape(n, parts, kh, kw, 2, oh, ow)
    shares = mask.reshape(n, parts, kh, kw, oh, ow)
    for b, c, i, j, p, q in np.ndindex(*columns.shape):
        part = c * parts // channels
        dy, dx = moves[b, part, i, j, :, p, q]
        down = hats(np.array([2 * p - 1 + i + dy]), x.shape[2], False)
        over = hats(np.array([q + j + dx]), x.shape[3], False)
        columns[b, c, i, j, p, q] = (down @ x[b, c] @ over.T).item() * shares[b, part, i, j, p, q]
    grouped = columns.reshape(n, groups, per_group, kh, kw, oh, ow)
    found = np.einsum(
        "gocij,ngcijpq->ngopq", w.reshape(groups, outs // groups, per_group, kh, kw), grouped
    )
    return found.reshape(n, outs, oh, ow) + bias[:, None, None]


def suppressed(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        for j in kept:
            sides = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            common = np.maximum(sides, 0).prod()
            areas = (boxes[[i, j], 2:] - boxes[[i, j], :2]).prod(1).sum()
            if common / (areas - common) > threshold:
                break
        else:
            kept.append(i)
    return kept


POOLS: dict[str, tuple[Any, Any]] = {
    **{
        f"roi_align {ratio} {aligned}": (
            lambda x, r, n=ratio, a=aligned: TV.roi_align(x, r, SCALE, *SIZE, n, a),
            lambda x, r, n=ratio, a=aligned: align(x, r, n, a),
        )
        for ratio, aligned in itertools.product((0, 1, 2, -1), (False, True))
    },
    "roi_pool": (lambda x, r: TV.roi_pool(x, r, SCALE, *SIZE)[0], lambda x, r: pool(x, r, False)),
    "ps_roi_align": (
        lambda x, r: TV.ps_roi_align(x, r, SCALE, *SIZE, 2)[0],
        lambda x, r: align(x, r, 2, True, True),
    ),
    "ps_roi_pool": (
        lambda x, r: TV.ps_roi_pool(x, r, SCALE, *SIZE)[0],
        lambda x, r: pool(x, r, True),
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_over_regions(name: str) -> None:
    """Also of regions outside the image, without an area and turned round, and of none."""
    mine, wanted = POOLS[name]
    x = feature_map()
    expected = wanted(x, ROIS)
    compiled = gt.compile(mine)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5), (np.float16, 4e-3)):
        given = gt.tensor(x.astype(dtype)), gt.tensor(ROIS.astype(dtype))
        if dtype is np.float16:
            expected = wanted(
                x.astype(dtype).astype(np.float64), ROIS.astype(dtype).astype(np.float64)
            )
        for found in (mine(*given), compiled(*given)):
            assert found.dtype is given[0].dtype
            assert np.abs(found.double().numpy() - expected).max() < tolerance
    assert mine(gt.tensor(x), gt.zeros(0, 5, dtype=gt.float64)).shape == (0, *expected.shape[1:])


@pytest.mark.parametrize("name", [n for n in POOLS if not n.startswith("roi_align -1")])
def test_gradients_reach_the_feature_map(name: str) -> None:
    rois = gt.tensor(ROIS[[0, 1, 2, 5]])
    x = gt.tensor(feature_map()[:, :6], requires_grad=True)
    assert gradcheck(lambda x: POOLS[name][0](x, rois), (x,), fast_mode=True)
    assert gradgradcheck(lambda x: POOLS[name][0](x, rois), (x,), fast_mode=True)


@pytest.mark.parametrize("name", ["roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool"])
def test_gradients_by_name(name: str) -> None:
    x, rois = gt.tensor(feature_map(), requires_grad=True), gt.tensor(ROIS)
    more = {"roi_align": (2, True), "ps_roi_align": (2,)}.get(name, ())
    found = getattr(TV, name)(x, rois, SCALE, *SIZE, *more)
    y, *read = found if isinstance(found, tuple) else (found,)
    g = gt.randn(*y.shape, dtype=gt.float64)
    (wanted,) = gt.autograd.grad(y, x, g)
    ratio, aligned = (more, ()) if name == "ps_roi_align" else ((), more)
    got = getattr(TV, f"_{name}_backward")(g, rois, *read, SCALE, *SIZE, *ratio, *SHAPE, *aligned)
    assert gt.allclose(got, wanted, atol=1e-12)


def test_regions_of_images_that_are_not_there() -> None:
    x = gt.zeros(2, 4, 5, 5)
    for wrong in (2.0, -1.0):
        rois = gt.tensor([[0, 1.0, 1, 3, 3], [wrong, 1, 1, 3, 3]])
        for op in (
            lambda r: TV.roi_align(x, r, 1.0, 2, 2, 2),
            lambda r: TV.roi_pool(x, r, 1.0, 2, 2)[0],
        ):
            with pytest.raises(IndexError, match="image"):
                op(rois)
            with pytest.raises(IndexError, match="image"):
                gt.compile(op)(rois).sum().item()
    with pytest.raises(RuntimeError, match="same type"):
        TV.roi_align(x, gt.zeros(1, 5, dtype=gt.float64), 1.0, 2, 2, 2)
    with pytest.raises(RuntimeError, match=r"\[K, 5\]"):
        TV.roi_align(x, gt.zeros(1, 4), 1.0, 2, 2, 2)
    with pytest.raises(RuntimeError, match="multiple"):
        TV.ps_roi_pool(x, gt.zeros(1, 5), 1.0, 3, 3)


def test_vmap_over_maps_and_over_regions() -> None:
    x, rois = gt.randn(3, 2, 8, 6, 7), gt.tensor(np.stack([ROIS[:3], ROIS[2:5], ROIS[3:]])).float()
    for op in (
        lambda x, r: TV.roi_align(x, r, SCALE, 2, 2, 2, True),
        lambda x, r: TV.ps_roi_pool(x, r, SCALE, 2, 2)[0],
    ):
        for dims in ((0, None), (None, 0), (0, 0)):
            given = x if dims[0] == 0 else x[0], rois if dims[1] == 0 else rois[0]
            found = gt.func.vmap(op, in_dims=dims)(*given)
            pairs = list(zip(given, dims, strict=True))
            each = [op(*[a if d is None else a[i] for a, d in pairs]) for i in range(3)]
            assert gt.allclose(found, gt.stack(each), atol=1e-6)


def deform_arrays(groups: int, parts: int) -> list[np.ndarray]:
    draw = np.random.default_rng(5)
    shapes = (
        (2, 4, 6, 5),
        (6, 4 // groups, 3, 2),
        (2, 2 * parts * 6, 3, 4),
        (2, parts * 6, 3, 4),
        (6,),
    )
    return [draw.normal(size=s) * (1.5 if i == 2 else 1) for i, s in enumerate(shapes)]


@pytest.mark.parametrize(
    ("groups", "parts", "use_mask"), [(1, 1, True), (2, 4, True), (2, 2, False)]
)
def test_deformable_convolutions(groups: int, parts: int, use_mask: bool) -> None:
    x, w, offset, mask, bias = arrays = deform_arrays(groups, parts)
    options = 2, 1, 1, 0, 1, 1, groups, parts, use_mask
    wanted = deform(x, w, offset, mask if use_mask else np.ones_like(mask), bias, groups, parts)
    for dtype, tolerance in ((gt.float64, 1e-12), (gt.float32, 1e-5), (gt.float16, 3e-2)):
        given = [gt.tensor(a).to(dtype) for a in arrays]
        found = TV.deform_conv2d(*given, *options)
        assert found.dtype is dtype
        assert np.abs(found.double().numpy() - wanted).max() < tolerance * np.abs(wanted).max()
    leaves = [gt.tensor(a, requires_grad=True) for a in arrays]
    checked = leaves if use_mask else [*leaves[:3], leaves[4]]

    def function(*ts: Any) -> Any:
        x, w, offset, *rest = ts
        m, b = rest if use_mask else (gt.tensor(mask), rest[0])
        return TV.deform_conv2d(x, w, offset, m, b, *options)

    assert gradcheck(function, checked, fast_mode=True)
    assert gradgradcheck(function, checked, fast_mode=True)
    y = function(*checked)
    found = TV._deform_conv2d_backward(gt.ones_like(y), *leaves, *options)
    for g, leaf in zip(gt.autograd.grad(y.sum(), checked), checked, strict=True):
        assert any(g.shape == f.shape and gt.allclose(f, g) for f in found), leaf.shape


def test_deformable_convolutions_that_do_not_fit() -> None:
    x, w, offset, mask, bias = (gt.tensor(a) for a in deform_arrays(1, 1))
    options = 2, 1, 1, 0, 1, 1, 1, 1, True
    for given, words in (
        ((x, w, offset[:, 1:], mask, bias), "offset must have shape"),
        ((x, w, offset, mask[:, :, 1:], bias), "mask must have shape"),
        ((x[:, 1:], w, offset, mask, bias), "does not fit"),
        ((x, w, offset, mask, bias[1:]), "bias of shape"),
        ((x.float(), w, offset, mask, bias), "same type"),
    ):
        with pytest.raises(RuntimeError, match=words):
            TV.deform_conv2d(*given, *options)


def test_suppression() -> None:
    draw = np.random.default_rng(7)
    low = draw.uniform(0, 40, (90, 2))
    boxes = np.concatenate([low, low + draw.uniform(1, 20, (90, 2))], 1).astype(np.float32)
    scores = draw.integers(0, 50, 90).astype(np.float32)  # with ties: the first comes first
    for threshold in (0.0, 0.3, 0.7, 1.0):
        found = TV.nms(gt.tensor(boxes), gt.tensor(scores), threshold)
        assert found.dtype is gt.int64 and found.tolist() == suppressed(boxes, scores, threshold)
    double = TV.nms(gt.tensor(boxes).double(), gt.tensor(scores).double(), 0.3)
    assert double.tolist() == suppressed(boxes.astype(np.float64), scores, 0.3)
    assert TV.nms(gt.zeros(0, 4), gt.zeros(0), 0.5).shape == (0,)


def test_suppression_compares_with_the_threshold_as_it_is() -> None:
    """An overlap of 0.3 in f32 is more than 0.3."""
    boxes = gt.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    assert TV.nms(boxes, gt.tensor([1.0, 0.5]), 0.3).tolist() == [0]
    assert TV.nms(boxes.double(), gt.tensor([1.0, 0.5]).double(), 0.3).tolist() == [0, 1]


def test_suppression_in_a_compiled_function_ends_a_segment() -> None:
    function = gt.compile(lambda b, s: b[TV.nms(b * 1.0, s, 0.5)] * 2)
    boxes = gt.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.9], [5, 5, 6, 6]])
    for scores in ([0.1, 0.9, 0.5], [0.9, 0.1, 0.5], [0.1, 0.9, 0.5]):
        kept = suppressed(boxes.numpy(), np.array(scores), 0.5)
        assert function(boxes, gt.tensor(scores)).tolist() == (boxes[kept] * 2).tolist()
    with pytest.raises(RuntimeError, match="size of the result depends on the data"):
        gt.compile(lambda b, s: TV.nms(b * 1.0, s, 0.5), fullgraph=True)(boxes, gt.rand(3))
