"""What the ops of vision.py mean, in NumPy: loops over regions, bins and samples, as the papers
have them.

A region's bins are lists of *taps*, pixels with weights, and a divisor: a result is the sum of the
weighted pixels divided by it, and a gradient goes back to the same pixels. Every product and every
sum is rounded by itself, so that code generators can put the same samples into the same bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .common import quiet, wide

FARTHEST = 2**31 - 1  # bounds of whole coordinates: those of an i32
# what a maximum of whatever dtype begins with, as in torchvision
LOWEST = -float(np.finfo(np.float32).max)

Tap = tuple[int, int, Any]  # row, column, weight


class Bin(NamedTuple):
    """One bin of region `k`: row `i` and column `j` of its result."""

    k: int
    image: int
    i: int
    j: int
    taps: list[Tap]
    divisor: Any


def whole(x: Any) -> int:
    """An integer as a float, NaN as 0 and what lies beyond an i32 as its bound."""
    return int(min(max(x, -FARTHEST - 1), FARTHEST)) if x == x else 0


def rounded(x: Any) -> int:
    """The nearest integer, halves away from zero."""
    down = np.trunc(x)
    return whole(down + np.copysign(type(x)(1), x) if abs(x - down) >= 0.5 else down)


def images(rois: np.ndarray, count: int) -> Iterator[tuple[int, int]]:
    """Each region and its image.

    Raises: IndexError: there is no such image.
    """
    for k, index in enumerate(rois[:, 0]):
        image = whole(np.trunc(index))
        if not 0 <= image < count:
            raise IndexError(f"region {k} is of image {image}, but there are {count} images")
        yield k, image


# bilinear samples ---------------------------------------------------------------------------------


def _line(start: Any, length: Any, bins: int, ratio: int, size: int) -> tuple[int, list[list[Any]]]:
    """How many samples a bin has along one axis, and for each bin the coordinates of those that
    matter."""
    real = type(start)
    step = length / real(bins)
    count = ratio if ratio > 0 else whole(np.ceil(step))
    places = []
    for i in range(bins):
        base = start + real(i) * step
        first, last = 0, count
        # without what surely lies outside: the number of samples follows from the data
        if ratio <= 0:
            apart = step / real(count)
            first = max(0, whole(np.floor((real(-1) - base) / apart)) - 1)
            last = min(count, whole(np.ceil((real(size) - base) / apart)) + 1)
        places.append(
            [base + (real(s) + real(0.5)) * step / real(count) for s in range(first, last)]
        )
    return count, places


def _beside(at: Any, size: int) -> list[tuple[int, Any]]:
    """The pixels beside a coordinate, with weights; none beyond one pixel outside the image."""
    if not -1 <= at <= size:
        return []
    at = max(at, type(at)(0))
    low = int(at)
    return (
        [(size - 1, type(at)(1))]
        if low >= size - 1
        else [(low, 1 - (at - low)), (low + 1, at - low)]
    )


def align_bins(
    attrs: Any, shape: Sequence[int], rois: np.ndarray, sensitive: bool
) -> Iterator[Bin]:
    """The bins of `roi_align`, or of `ps_roi_align`."""
    real = rois.dtype.type
    shifted = sensitive or attrs.aligned
    for k, image in images(rois, shape[0]):
        ends = rois[k, 1:] * real(attrs.scale) - real(0.5 if shifted else 0)
        lengths = ends[2:] - ends[:2]
        if not shifted:
            lengths = np.where(lengths < 1, real(1), lengths)
        columns, rows = (
            _line(ends[a], lengths[a], attrs.size[1 - a], attrs.ratio, shape[3 - a]) for a in (0, 1)
        )
        divisor = real(rows[0] * columns[0] if sensitive else max(rows[0] * columns[0], 1))
        for i, j in itertools.product(*map(range, attrs.size)):
            taps = [
                (y, x, wy * wx)
                for at in rows[1][i]
                for y, wy in _beside(at, shape[2])
                for over in columns[1][j]
                for x, wx in _beside(over, shape[3])
            ]
            yield Bin(k, image, i, j, taps, divisor)


# whole pixels -------------------------------------------------------------------------------------


def _spans(low: Any, high: Any, bins: int, more: int, size: int) -> list[range]:
    """The pixels of each bin along one axis."""
    real = type(low)
    start = rounded(low)
    step = real(max(rounded(high) - start + more, 1)) / real(bins)
    return [
        range(
            min(max(whole(np.floor(real(i) * step)) + start, 0), size),
            min(max(whole(np.ceil(real(i + 1) * step)) + start, 0), size),
        )
        for i in range(bins)
    ]


def pool_bins(attrs: Any, shape: Sequence[int], rois: np.ndarray, sensitive: bool) -> Iterator[Bin]:
    """The bins of `roi_pool`, which take in a region's last pixel, or of `ps_roi_pool`, which do
    not, nor an image's last row and column."""
    real = rois.dtype.type
    more = 0 if sensitive else 1
    for k, image in images(rois, shape[0]):
        ends = rois[k, 1:] * real(attrs.scale)
        columns, rows = (
            _spans(ends[a], ends[a + 2], attrs.size[1 - a], more, shape[3 - a] - 1 + more)
            for a in (0, 1)
        )
        for i, j in itertools.product(*map(range, attrs.size)):
            taps = [(y, x, real(1)) for y in rows[i] for x in columns[j]]
            yield Bin(k, image, i, j, taps, real(max(len(taps), 1)))


# references ---------------------------------------------------------------------------------------


def _own(bin: Bin, attrs: Any, sensitive: bool) -> slice:
    """The channels that a bin reads: all, or those that belong to it."""
    height, width = attrs.size
    return slice(bin.i * width + bin.j, None, height * width) if sensitive else slice(None)


@quiet
def means(bins: Any, sensitive: bool, attrs: Any, x: np.ndarray, rois: np.ndarray) -> np.ndarray:
    """Sums over taps, divided."""
    a, regions = wide(x), wide(rois)
    channels = x.shape[1] // (attrs.size[0] * attrs.size[1]) if sensitive else x.shape[1]
    found = np.zeros((len(rois), channels, *attrs.size), a.dtype)
    for bin in bins(attrs, x.shape, regions, sensitive):
        plane = a[bin.image, _own(bin, attrs, sensitive)]
        total = np.zeros(channels, a.dtype)
        for row, column, weight in bin.taps:
            total += weight * plane[:, row, column]
        found[bin.k, :, bin.i, bin.j] = total / bin.divisor
    return found.astype(x.dtype)


@quiet
def means_grad(
    bins: Any, sensitive: bool, attrs: Any, g: np.ndarray, rois: np.ndarray
) -> np.ndarray:
    """What `means` does, transposed."""
    a, regions = wide(g), wide(rois)
    total = np.zeros(tuple(map(int, attrs.shape)), a.dtype)
    for bin in bins(attrs, total.shape, regions, sensitive):
        plane = total[bin.image, _own(bin, attrs, sensitive)]
        for row, column, weight in bin.taps:
            plane[:, row, column] += weight * (a[bin.k, :, bin.i, bin.j] / bin.divisor)
    return total.astype(g.dtype)


def maxima(attrs: Any, x: np.ndarray, rois: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greatest pixel of each bin and its place in the plane; 0 and -1 where a bin has no
    pixels."""
    a, width = wide(x), x.shape[3]
    found = np.zeros((len(rois), x.shape[1], *attrs.size), a.dtype)
    places = np.full(found.shape, -1, np.int32)
    for bin in pool_bins(attrs, x.shape, wide(rois), False):
        for c in range(x.shape[1] if bin.taps else 0):
            best, place = a.dtype.type(LOWEST), -1
            for row, column, _ in bin.taps:
                if a[bin.image, c, row, column] > best:
                    best, place = a[bin.image, c, row, column], row * width + column
            found[bin.k, c, bin.i, bin.j], places[bin.k, c, bin.i, bin.j] = best, place
    with np.errstate(over="ignore"):
        return found.astype(x.dtype), places


def maxima_grad(attrs: Any, g: np.ndarray, rois: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each gradient added where its maximum was found."""
    total = np.zeros(tuple(map(int, attrs.shape)), wide(g).dtype)
    width = total.shape[3]
    for k, image in images(wide(rois), total.shape[0]):
        for c, i, j in np.ndindex(*g.shape[1:]):
            if places[k, c, i, j] >= 0:
                total[image, c, places[k, c, i, j] // width, places[k, c, i, j] % width] += g[
                    k, c, i, j
                ]
    return total.astype(g.dtype)


# sampling at coordinates --------------------------------------------------------------------------


def _open_beside(at: Any, size: int) -> list[tuple[int, Any, int]]:
    """The pixels beside a coordinate that the image has, with their weights and how these grow with
    it."""
    low = np.floor(at)
    sides = ((whole(low), 1 - (at - low), -1), (whole(low) + 1, at - low, 1))
    return [side for side in sides if 0 <= side[0] < size]


def samples(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear samples; what lies outside the image is 0."""
    a = wide(x)
    found = np.zeros((*x.shape[:2], *rows.shape[1:]), a.dtype)
    for n, *at in np.ndindex(*rows.shape):
        place = (n, *at)
        for row, wy, _ in _open_beside(wide(rows)[place], x.shape[2]):
            for column, wx, _ in _open_beside(wide(columns)[place], x.shape[3]):
                found[(n, slice(None), *at)] += wy * wx * a[n, :, row, column]
    return found.astype(x.dtype)


def samples_grad(
    g: np.ndarray, x: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of `samples` with respect to the image and to both coordinates."""
    a, h = wide(x), wide(g)
    gx, gy, gz = (np.zeros(t.shape, a.dtype) for t in (x, rows, columns))
    for n, *at in np.ndindex(*rows.shape):
        place, all_channels = (n, *at), (n, slice(None), *at)
        for row, wy, dy in _open_beside(wide(rows)[place], x.shape[2]):
            for column, wx, dx in _open_beside(wide(columns)[place], x.shape[3]):
                gx[n, :, row, column] += wy * wx * h[all_channels]
                slope = (a[n, :, row, column] * h[all_channels]).sum()
                gy[place] += dy * wx * slope
                gz[place] += dx * wy * slope
    return gx.astype(x.dtype), gy.astype(rows.dtype), gz.astype(columns.dtype)


def deformed(
    attrs: Any,
    x: np.ndarray,
    weight: np.ndarray,
    offset: np.ndarray,
    bias: np.ndarray,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """A convolution with taps that move, one result after the other."""
    a, w, moves = wide(x), wide(weight), wide(offset)
    outs, per_group, height, width = weight.shape
    each = x.shape[1] // attrs.offset_groups
    found = np.zeros((len(x), outs, *offset.shape[2:]), a.dtype) + wide(bias)[:, None, None]
    for n, o, p, q, c, i, j in np.ndindex(
        len(x), outs, *offset.shape[2:], per_group, height, width
    ):
        channel = o // (outs // attrs.groups) * per_group + c
        tap = channel // each * height * width + i * width + j
        row = (
            p * attrs.stride[0] - attrs.padding[0] + i * attrs.dilation[0] + moves[n, 2 * tap, p, q]
        )
        column = (
            q * attrs.stride[1]
            - attrs.padding[1]
            + j * attrs.dilation[1]
            + moves[n, 2 * tap + 1, p, q]
        )
        value = sum(
            wy * wx * a[n, channel, y, z]
            for y, wy, _ in _open_beside(row, x.shape[2])
            for z, wx, _ in _open_beside(column, x.shape[3])
        )
        found[n, o, p, q] += (
            w[o, c, i, j] * value * (1 if mask is None else wide(mask)[n, tap, p, q])
        )
    return found.astype(x.dtype)


# suppression --------------------------------------------------------------------------------------


@quiet
def kept(threshold: float, boxes: np.ndarray) -> np.ndarray:
    """Which boxes [*, N, 4] stay, those before them first."""
    found = np.ones(boxes.shape[:-1], np.bool_)
    for place in np.ndindex(*boxes.shape[:-2]):
        for i, first in enumerate(wide(boxes[place])):
            for j in range(i + 1, len(boxes[place]) if found[(*place, i)] else 0):
                if _overlap(first, wide(boxes[place])[j]) > threshold:
                    found[(*place, j)] = False
    return found


def _overlap(a: np.ndarray, b: np.ndarray) -> Any:
    """Intersection over union, as a Python number."""
    sides = np.where(b[2:] < a[2:], b[2:], a[2:]) - np.where(a[:2] < b[:2], b[:2], a[:2])
    low, high = np.where(sides > 0, sides, type(sides[0])(0))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    common = low * high
    return float(common / (areas[0] + areas[1] - common))
