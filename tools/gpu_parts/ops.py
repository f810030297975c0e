"""Every op record's samples, with gradients, on the device beside the NumPy reference."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from graphtorch.backends import Buffer
from graphtorch.backends import compile as compile_for
from graphtorch.backends.gpu import compiler, devices
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.device import Module
from graphtorch.backends.gpu.executable import Built, Executable
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir.dtype import ALL, DType, f64
from op_samples import Sample, differs, in_every_dtype, with_kernels

from .common import Case, Row, error_of, guarded, on_gpu, say, selected

UNIT = 110  # samples whose kernels are one unit
# Smallest steps by which results may differ on a GPU, whose functions are not the host's, and where
# they are of f64: series and small factors cost some.
STEPS = 64
SHOWN = 40


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """A case for each sample in each dtype; those of one unit come after another."""
    every = ["own", *(d.name for d in ALL)]
    for dtype in every if "all" in options.dtypes else options.dtypes:
        named = [(f"{dtype} {sample.name}", sample) for sample in samples_in(dtype)]
        chosen = list(selected(named, options.only))
        groups: list[Group] = []
        for i in reversed(range(0, len(chosen), UNIT)):
            groups.insert(
                0, Group([s for _, s in chosen[i : i + UNIT]], groups[0] if groups else None)
            )
        for i, (name, _) in enumerate(chosen):
            compared = functools.partial(compare, groups[i // UNIT], i % UNIT, dtype)
            yield name, functools.partial(guarded, compared)


def samples_in(name: str) -> Iterator[Sample]:
    """The samples in a dtype, of ops that take it; "own": each in that which it is written in."""
    if name == "own":
        yield from with_kernels()
    else:
        yield from (s for s, dtype in in_every_dtype() if dtype is DType.named(name))


class Group:
    """Samples that are compiled together, by a thread of their own, and the group that comes
    next."""

    compiler = ThreadPoolExecutor(1)

    def __init__(self, samples: Sequence[Sample], following: Group | None):
        self.samples = samples
        self._following = following
        self._started: Future[tuple[Module, list[Built | Exception]]] | None = None

    def start(self) -> None:
        if self._started is None:
            self._started = self.compiler.submit(self._compile)

    def compiled(self) -> tuple[Module, list[Built | Exception]]:
        """The loaded unit, and for each sample what calls it, or why it has no code."""
        self.start()
        if self._following:
            self._following.start()
        assert self._started is not None
        return self._started.result()

    def _compile(self) -> tuple[Module, list[Built | Exception]]:
        device, unit = devices.device(), Unit()
        start = time.monotonic()
        built = [attempt(sample, unit) for sample in self.samples]
        lowered = time.monotonic()
        pieces = unit.pieces(device.compilers)
        module = device.load(pieces)
        say(
            f"ops: {len(unit.exports)} kernels in {len(pieces)} pieces: {lowered - start:.1f} s to "
            f"lower, {time.monotonic() - lowered:.1f} s to compile"
        )
        return module, built


def attempt(sample: Sample, unit: Unit) -> Built | Exception:
    try:
        return compiler.build(sample.graph(), unit)
    except Exception as error:
        return error


def compare(group: Group, i: int, dtype: str) -> Row:
    """The worst error of a sample's results; wrong where it is beyond what rounding explains."""
    sample = group.samples[i]
    module, built = group.compiled()
    made = built[i]
    if isinstance(made, Exception):
        raise made
    device = devices.device()
    found = Executable(made, module, device)([DeviceBuffer.of(x, device) for x in sample.arrays])
    mine = [x.numpy() for x in found]
    reference = compile_for(sample.graph(), "reference")
    want = [x.numpy() for x in reference([Buffer.of(x) for x in sample.arrays])]
    worst = max(map(error_of, mine, want), default=0.0)
    numbers = f64 if dtype == "own" else DType.named(dtype)
    wide = dtype == "own" or (on_gpu() and numbers.itemsize > 2)
    wrong = differs(mine, want, numbers, STEPS if wide else 8)
    return {"error": wrong, "worst": worst, "ok": False} if wrong else {"worst": worst}


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    wrong = [row for row in rows if not row["ok"]]
    compared = [row for row in rows if "worst" in row]
    lines = [f"  {row['name']}: {row['error']}" for row in wrong[:SHOWN]]
    worst = sorted((r for r in compared if r["ok"]), key=lambda r: -r["worst"])[:5]
    lines.append(
        "  largest errors of what is right: "
        + ", ".join(f"{r['name']} {r['worst']:.1e}" for r in worst)
    )
    lines.append(f"  {len(compared)} samples compared, {len(wrong)} wrong")
    return lines
