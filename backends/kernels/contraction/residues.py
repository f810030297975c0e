"""Transposed convolutions of a stride, gradients of images most of all, without products by zeros.

Such a convolution reads an image with ``stride - 1`` zeros between its elements. Which taps of the
kernel meet elements depends on the result's position o modulo the stride alone: with
``o = stride o' + r`` an element is met where

    stride o' + r + dilation k - low = 0 modulo stride

whose solutions are every ``stride / gcd(stride, dilation)``-th tap k, from a first one on, or none.
So each residue r is a convolution of its own, dense, of stride 1, that stores each `stride`-th
result.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from graphtorch.ir.shape import Dim, evaluate

from ...dataclass import dataclass
from ..body.space import coefficient
from .problem import Axis, Contraction, Gate, Source, axis

CLASSES = 16  # launches that are not too many


@dataclass(frozen=True)
class _Line:
    """A spatial dimension: a gate, the axes of the result and of the kernel that it depends on, and
    how: ``out + dilation tap + start``. There is no axis of a single tap."""

    gate: Gate
    out: Axis
    tap: Axis | None
    dilation: int
    start: int

    @property
    def taps(self) -> int:
        extent = 1 if self.tap is None else self.tap.extent
        assert isinstance(extent, int)
        return extent


def dense(p: Contraction) -> list[Contraction]:
    """The parts of a contraction whose right operand has zeros between its elements; itself where
    it has none, or where these would be too many."""
    lines = _lines(p)
    classes = math.prod(line.gate.step for line in lines)
    if not 1 < classes <= CLASSES:
        return [p]
    found = []
    for residues in itertools.product(*(range(line.gate.step) for line in lines)):
        if not any(_beyond(line, r) for line, r in zip(lines, residues, strict=True)):
            found.append(_part(p, lines, residues))
    return found


def _lines(p: Contraction) -> list[_Line]:
    """The dimensions with zeros between elements; none where one of them is of another form."""
    found = []
    for gate in p.b.gates:
        if gate.step == 1:
            continue
        outs, taps = (
            [x for x in axes if coefficient(gate.coordinate, x.name) != 0] for axes in (p.n, p.k)
        )
        if len(outs) != 1 or len(taps) > 1 or not all(isinstance(x.extent, int) for x in taps):
            return []
        out, tap = outs[0], taps[0] if taps else None
        step = coefficient(gate.coordinate, out.name)
        dilation = 1 if tap is None else coefficient(gate.coordinate, tap.name)
        start = evaluate(gate.coordinate, {x.name: 0 for x in (*outs, *taps)})
        if step != 1 or not isinstance(dilation, int) or not isinstance(start, int):
            return []
        found.append(_Line(gate, out, tap, dilation, start))
    return found


def _beyond(line: _Line, residue: int) -> bool:
    """Whether no result has this residue."""
    return isinstance(line.out.extent, int) and residue >= line.out.extent


def _taps(line: _Line, residue: int) -> range:
    """The taps that meet elements."""
    step = line.gate.step
    apart = step // math.gcd(step, line.dilation)
    met = (k for k in range(apart) if (residue + line.dilation * k + line.start) % step == 0)
    return range(next(met, line.taps), line.taps, apart)


def _part(p: Contraction, lines: list[_Line], residues: tuple[int, ...]) -> Contraction:
    """The results of these residues."""
    pairs = list(zip(lines, residues, strict=True))
    if not all(_taps(line, r) for line, r in pairs):
        return _nothing(p, pairs)
    renamed, values, b = dict[Axis, Axis](), dict[str, Dim](), p.b
    for line, r in pairs:
        taps, step = _taps(line, r), line.gate.step
        renamed[line.out], values[line.out.name] = _results(p, line, r)
        coordinate = renamed[line.out].variable + (r + line.dilation * taps[0] + line.start) // step
        if line.tap is not None:
            tap = renamed[line.tap] = axis(p.space, len(taps))
            values[line.tap.name] = taps.step * tap.variable + taps[0]
            coordinate = coordinate + taps.step * line.dilation // step * tap.variable
        b = _moved(b, line.gate, coordinate)
    return _substituted(replace(p, b=b), renamed, values)


def _results(p: Contraction, line: _Line, residue: int) -> tuple[Axis, Dim]:
    """The axis of the results of a residue, and where they are."""
    step = line.gate.step
    out = axis(p.space, (line.out.extent + (step - 1 - residue)) // step)
    return out, step * out.variable + residue


def _moved(source: Source, gate: Gate, coordinate: Dim) -> Source:
    """The operand where that gate is one of elements side by side."""
    plain = Gate(coordinate, gate.extent)
    gates = tuple(plain if g is gate else g for g in source.gates)
    return replace(source, address=source.address + gate.stride * coordinate, gates=gates)


def _nothing(p: Contraction, pairs: list[tuple[_Line, int]]) -> Contraction:
    """Results that no element is met for: sums of nothing."""
    renamed, values = dict[Axis, Axis](), dict[str, Dim]()
    for line, r in pairs:
        renamed[line.out], values[line.out.name] = _results(p, line, r)
    for x in p.k:
        values[x.name] = 0
    empty = replace(p, k=[axis(p.space, 0)], b=replace(p.b, gates=()))
    return _substituted(empty, renamed, values)


def _substituted(p: Contraction, renamed: dict[Axis, Axis], values: dict[str, Dim]) -> Contraction:
    """`p` over other axes, in which the variables of those before are polynomials."""

    def change(dim: Dim) -> Dim:
        return evaluate(dim, values)

    def axes(before: list[Axis]) -> list[Axis]:
        return [renamed.get(x, x) for x in before]

    return replace(
        p,
        batch=axes(p.batch),
        m=axes(p.m),
        n=axes(p.n),
        k=axes(p.k),
        a=p.a.mapped(change),
        b=p.b.mapped(change),
        index=tuple(map(change, p.index)),
        address=change(p.address),
    )


__all__ = ["dense"]
