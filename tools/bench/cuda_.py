"""Kernels for GPUs looked at without one: what the emulated device counts, and what NVRTC says they
take.

    python -m tools.bench cuda --emulated [NAME ...] [--json FILE]   counts, for a set of kernels
    python -m tools.bench cuda --races [NAME ...]                    missing barriers in blocks
    python -m tools.bench cuda --resources [NAME ...] [--json FILE]  registers, spills; for all ops

A row is a kernel of a small program. "sectors" is how many times as many sectors of 32 bytes its
requests move as their bytes need, "turns" how many times as many turns the banks of shared memory
take as without conflicts, in all and in main loops: 1.00 is ideal. Lines with conflicts come after
the table. FLOPs are those of its loops. "H100" is the least time
that an H100 (SXM) takes for it: its bytes, each moved once, at 3.35 TB/s, or its operations at 67
TFLOP/s, those of tensor cores at 989, of TF32 at half of that; the larger is named. Cases called
tf32 may round factors of f32, and so may those called warpgroups, which are for GPUs whose warps
multiply in fours.

On a machine with a GPU `tools/gpu.py --bench` measures instead.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends.gpu import compiler, nvrtc
from graphtorch.backends.gpu.buffer import DeviceBuffer
from graphtorch.backends.gpu.device import Launch, Piece, Series
from graphtorch.backends.gpu.emulated import EmulatedDevice, EmulatedModule
from graphtorch.backends.gpu.executable import Executable
from graphtorch.backends.gpu.machine import LARGE, Gpu, Tf32
from graphtorch.backends.gpu.operations import Operations, operations
from graphtorch.backends.gpu.traces import SECTOR, Counts, main_loops
from graphtorch.backends.gpu.unit import Unit
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
BANDWIDTH, PLAIN, MATRICES = 3.35e12, 67e12, 989e12  # of an H100 SXM: bytes and operations a second
# https://resources.nvidia.com/en-us-tensor-core (f32 without, bf16 with tensor cores, neither
# sparse)
PIECES = 64  # of all kernels: what was compiled before an interruption is in the disk cache
WIDTH = 100  # of a line of a kernel's text that is printed
ARCHITECTURES = ("sm_80", "sm_90")  # and the newest that NVRTC knows
WARPGROUPS = "sm_90a"  # whose tensor cores four warps use together

Row = dict[str, Any]


# ------------------------------------------------------------------------------------ the fixed set


Make = Callable[[], Graph]


def function(call: Callable[..., Any], *shapes: Sequence[int], dtype: Any = torch.float32) -> Make:
    """The graph of a function of tensors of these shapes."""

    def make() -> Graph:
        given = [torch.zeros(*shape, dtype=dtype) for shape in shapes]
        return torch.trace(call, *given).graph

    return make


def lenet_step() -> Graph:
    """A step of the LeNet's training, batch 2, as one graph."""
    sys.path.insert(0, str(ROOT / "tools"))
    import replay_graphs  # what tools/replay.py lowers: it has this step

    made: Graph = replay_graphs.step(
        lenet, lambda: (torch.zeros(2, 1, 28, 28), torch.tensor([3, 1]))
    )().graph
    return made


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def attention(causal: bool, dtype: Any) -> Callable[[], Graph]:
    return function(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal),
        *[(1, 2, 128, 64)] * 3,
        dtype=dtype,
    )


def attention_grad(dtype: Any, heads: int) -> Callable[[], Graph]:
    """Attention of 64 queries and keys with its gradients."""

    def call(q: Any, k: Any, v: Any, g: Any) -> Any:
        given = [t.detach().requires_grad_() for t in (q, k, v)]
        F.scaled_dot_product_attention(*given).backward(g)
        return [t.grad for t in given]

    return function(call, *[(1, 2, 64, heads)] * 4, dtype=dtype)


def layer_norm(x: Any, w: Any, b: Any) -> Any:
    return F.layer_norm(x, (512,), w, b)


def linear_gelu(x: Any, w: Any, b: Any) -> Any:
    return F.gelu(F.linear(x, w, b))


def convolution(x: Any, w: Any, b: Any) -> Any:
    return F.conv2d(x, w, b, padding=1)


def residual(x: Any, w: Any, y: Any) -> Any:
    """The end of a block of a net whose images have their channels last."""
    x, y = (t.permute(0, 3, 1, 2) for t in (x, y))
    return F.relu(F.conv2d(x, w) + y).permute(0, 2, 3, 1)


def pooled(grad: bool, pool: Callable[..., Any], **window: Any) -> Callable[..., Any]:
    """A pool of images whose channels lie side by side, [N, 1, *S, C], or its gradient."""

    def call(x: Any, g: Any) -> Any:
        x = x.detach().requires_grad_()
        y = pool(x, (3, 3, 1), (2, 2, 1), (1, 1, 0), **window)
        if grad:
            y.backward(g)
        return x.grad if grad else y

    return call


def depthwise(gradient: str = "") -> Make:
    """A depthwise convolution of such an image, or a gradient of it."""

    def make() -> Graph:
        f32 = DType.named("f32")
        x, w, g = (
            Value(Type(f32, s), name=n)
            for n, s in (("x", IMAGE), ("w", (32, 1, 3, 3)), ("g", IMAGE))
        )
        window = {
            "stride": (1, 1),
            "padding": ((1, 1), (1, 1)),
            "dilation": (1, 1),
            "groups": 32,
        }
        if gradient == "of filters":
            found = ops.channels_last_conv_weight_grad(x, g, **window, kernel=(3, 3))
            return Graph("weight", [x, g], [found])
        if gradient == "of the image":
            found = ops.channels_last_conv_transpose(g, w, **window, output_padding=(0, 0))
            return Graph("image", [g, w], [found])
        return Graph("conv", [x, w], [ops.channels_last_conv(x, w, **window)])

    return make


def batch_norm(x: Any) -> Any:
    centered = x - x.mean((0, 1, 2))
    return centered * (centered.square().mean((0, 1, 2)) + 1e-5).rsqrt()


IMAGE = (4, 32, 32, 32)
POOLED = (4, 1, 32, 32, 32), (4, 1, 16, 16, 32)
BF16 = torch.bfloat16
SQUARE = (256, 256)
CASES: dict[str, Callable[[], Graph]] = {
    "x * y + x f32": function(lambda x, y: x * y + x, SQUARE, SQUARE),
    "gelu bf16": function(F.gelu, SQUARE, dtype=BF16),
    "bias + relu f32": function(lambda x, b: F.relu(x + b), SQUARE, (256,)),
    "f32 to bf16": function(lambda x: x.to(BF16), SQUARE),
    "sum of rows f32": function(lambda x: x.sum(1), SQUARE),
    "sum of columns f32": function(lambda x: x.sum(0), SQUARE),
    "sum of all f32": function(lambda x: x.sum(), SQUARE),
    "max of rows bf16": function(lambda x: x.amax(1), SQUARE, dtype=BF16),
    "softmax f32": function(lambda x: x.softmax(1), (64, 512)),
    "softmax bf16": function(lambda x: x.softmax(1), (64, 512), dtype=BF16),
    "softmax of long rows f16": function(lambda x: x.softmax(1), (2, 40960), dtype=torch.float16),
    "layer norm f32": function(layer_norm, (64, 512), (512,), (512,)),
    "layer norm bf16": function(layer_norm, (64, 512), (512,), (512,), dtype=BF16),
    "transpose f32": function(lambda x: x.t().contiguous(), SQUARE),
    "transpose bf16": function(lambda x: x.t().contiguous(), SQUARE, dtype=BF16),
    "heads forward f32": function(lambda x: x.transpose(1, 2).contiguous(), (2, 32, 4, 64)),
    "cumsum of rows f32": function(lambda x: x.cumsum(1), (64, 512)),
    "cumsum of long rows f32": function(lambda x: x.cumsum(1), (2, 1 << 15)),
    "cumsum of columns f32": function(lambda x: x.cumsum(0), SQUARE),
    "matmul 256 f32": function(torch.matmul, SQUARE, SQUARE),
    "matmul 256 bf16": function(torch.matmul, SQUARE, SQUARE, dtype=BF16),
    "matmul 256 tf32": function(torch.matmul, SQUARE, SQUARE),
    "conv 3x3 tf32": function(convolution, (2, 16, 16, 16), (32, 16, 3, 3), (32,)),
    "conv 1x1 + add warpgroups": function(
        residual, (2, 16, 16, 32), (64, 32, 1, 1), (2, 16, 16, 64)
    ),
    "matmul 512 bf16": function(torch.matmul, (512, 512), (512, 512), dtype=BF16),
    "linear + gelu bf16": function(linear_gelu, SQUARE, SQUARE, (256,), dtype=BF16),
    "conv 3x3 f32": function(convolution, (2, 16, 16, 16), (32, 16, 3, 3), (32,)),
    "attention 128x64 f32": attention(False, torch.float32),
    "attention 128x64 bf16": attention(False, BF16),
    "attention 128x64 bf16 causal": attention(True, BF16),
    "attention gradients 64x64 f64": attention_grad(torch.float64, 64),
    "attention gradients 64x256 bf16": attention_grad(BF16, 256),
    "turned max pool f32": function(pooled(False, F.max_pool3d), *POOLED),
    "turned max pool bf16": function(pooled(False, F.max_pool3d), *POOLED, dtype=BF16),
    "turned max pool gradient f32": function(pooled(True, F.max_pool3d), *POOLED),
    "turned avg pool f32": function(pooled(False, F.avg_pool3d), *POOLED),
    "turned avg pool gradient f32": function(pooled(True, F.avg_pool3d), *POOLED),
    "turned batch norm f32": function(batch_norm, (16, 16, 16, 32)),
    "turned depthwise conv f32": depthwise(),
    "turned depthwise conv gradient of the image f32": depthwise("of the image"),
    "turned depthwise conv gradient of filters f32": depthwise("of filters"),
    "lenet step": lenet_step,
}


def machine(name: str, warpgroups: bool = False) -> Gpu:
    """What a case is compiled for."""
    # the only GPUs for which images are turned
    warpgroups |= "warpgroups" in name or name.startswith("turned")
    rounds = "tf32" in name or warpgroups
    return replace(LARGE, tf32=Tf32(rounds, rounds), warpgroups=warpgroups)


def selected(patterns: Sequence[str]) -> Iterator[tuple[str, Callable[[], Graph]]]:
    for name, make in CASES.items():
        if not patterns or any(fnmatch.fnmatch(name, p) for p in patterns):
            yield name, make


# ------------------------------------------------------------------------------------------ counts


class Noting:
    """A module that notes what is launched."""

    def __init__(self, module: EmulatedModule):
        self.module = module
        self.launches: list[Launch] = []

    def series(self, launches: Sequence[Launch]) -> Series:
        self.launches += launches
        return self.module.series(launches)

    def text(self, kernel: str) -> str:
        """Of the unit that the kernel is in."""
        return self.module.pieces[kernel].text


def inputs(graph: Graph) -> list[np.ndarray]:
    """Numbers that no sum of is 0, and small ones for integers, which may be places."""
    rng = np.random.default_rng(0)
    made = []
    for value in graph.inputs:
        shape = tuple(int(d) for d in value.shape)
        made.append(
            np.asarray(
                rng.uniform(0.1, 1.0, shape)
                if value.dtype.is_floating_point
                else rng.integers(0, 2, shape)
            ).astype(value.dtype.numpy)
        )
    return made


def watched(name: str, graph: Graph) -> int:
    """How many kernels the program has, run where every access to a block's memory is looked at.

    Raises: DeviceError: two threads race there.
    """
    device, unit = EmulatedDevice(watched=True), Unit()
    built = compiler.build(graph, unit, machine=machine(name))
    module = device.load(unit.pieces(device.compilers))
    Executable(built, module, device)([DeviceBuffer.of(x, device) for x in inputs(graph)])
    device.synchronize()
    return len(unit.exports)


def counted(name: str, graph: Graph) -> list[Row]:
    """A row for each kernel of the program, from one run on a device that notes every access."""
    device, unit = EmulatedDevice(traced=True), Unit()
    built = compiler.build(graph, unit, machine=machine(name))
    module = Noting(device.load(unit.pieces(device.compilers)))
    Executable(built, module, device)([DeviceBuffer.of(x, device) for x in inputs(graph)])
    device.synchronize()
    done = flops(unit, module.launches)
    rate = MATRICES / 2 if machine(name).tf32.products else MATRICES
    rows = []
    for kernel, c in device.counts.items():
        row: Row = {"case": name, "kernel": kernel, **vars(c), **banks(c, module.text(kernel))}
        work = done.get(kernel)
        if work is not None:
            row.update(flops=work.plain + work.matrices, **roofline(c.touched * SECTOR, work, rate))
        rows.append(row)
    return rows


def banks(c: Counts, text: str) -> Row:
    """What a kernel did to shared memory, in all and in its main loops, and the lines with
    conflicts."""
    loops, lines = main_loops(text), text.split("\n")
    inside = c.within(loops)
    return {
        **vars(c.within()),
        "loop_turns": inside.turns,
        "loop_least": inside.least,
        "lines": [
            {"line": n, "text": lines[n - 1].strip(), "loop": n in loops, **vars(t)}
            for n, t in sorted(c.lines.items())
            if t.turns > t.least
        ],
    }


def flops(unit: Unit, launches: Iterable[Launch]) -> dict[str, Operations]:
    """Operations of each kernel in these launches; those are left out that depend on what is in
    memory."""
    stages = {
        stage.function: (kernel, i)
        for kernel, stages in unit.kernels()
        for i, stage in enumerate(stages)
    }
    found: dict[str, Operations] = {}
    for launch in launches:
        kernel, i = stages[launch.function]
        one = operations(kernel, [size for _, size in launch.sizes])[i]
        if one is not None:
            found.setdefault(launch.function, Operations()).add(one)
    return found


def roofline(moved: int, work: Operations, rate: float) -> Row:
    """Least microseconds on an H100, and what they are needed for."""
    times = {
        "memory": moved / BANDWIDTH,
        "FLOPs": work.plain / PLAIN,
        "tensor cores": work.matrices / rate,
    }
    limit = max(times, key=lambda name: times[name])
    return {"us": times[limit] * 1e6, "limit": limit}


# ---------------------------------------------------------------------------------------- resources


def resources(unit: Unit, architecture: str, held: str = "") -> dict[str, nvrtc.Resources]:
    """What NVRTC says of the kernels of a unit in whose text `held` is."""

    def one(piece: Piece) -> dict[str, nvrtc.Resources]:
        return nvrtc.resources(piece.text, architecture)

    pieces = [p for p in unit.pieces(PIECES) if held in p.text]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(chain.from_iterable(found.items() for found in pool.map(one, pieces)))


def architectures() -> tuple[str, ...]:
    newest = f"sm_{max(nvrtc.architectures())}"
    return (*ARCHITECTURES, *({newest} - set(ARCHITECTURES)))


def every_op() -> Iterator[tuple[str, Graph]]:
    """The samples of all op records, as the tests have them."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    import op_samples  # tables of the tests

    for sample in op_samples.with_kernels():
        yield f"op {sample.name}", sample.graph()


def taken(names: Sequence[str]) -> Iterator[Row]:
    """A row for each kernel and architecture; a kernel that several programs have comes once."""
    graphs = [(name, make()) for name, make in selected(names)]
    graphs += every_op() if not names else ()
    for warpgroups, those in ((False, architectures()), (True, (WARPGROUPS,))):
        unit, case_of, blocks = Unit(), dict[str, str](), set[str]()
        for name, graph in graphs:
            if machine(name).warpgroups and not warpgroups:
                continue
            for kernel in compiler.build(graph, unit, machine=machine(name, warpgroups)).kernels:
                for stage in kernel.stages:
                    case_of.setdefault(stage.function, name)
                    blocks |= {stage.function} if stage.threads else set()
        for architecture in those:
            held = "wgmma" if architecture == WARPGROUPS else ""  # what no other architecture has
            for kernel, uses in resources(unit, architecture, held).items():
                yield {
                    "case": case_of[kernel],
                    "kernel": kernel,
                    "architecture": architecture,
                    "blocks": kernel in blocks,
                    **vars(uses),
                }


# ------------------------------------------------------------------------------------------ tables


def ratio(a: int, b: int) -> str:
    return f"{a / b:.2f}" if b else "-"


COLUMNS: dict[str, Callable[[Row], str]] = {
    "requests": lambda r: f"{r['requests']:,}",
    "sectors": lambda r: ratio(r["sectors"], r["ideal"]),
    "shared": lambda r: f"{r['shared']:,}",
    "turns": lambda r: ratio(r["turns"], r["least"]),
    "of loops": lambda r: ratio(r["loop_turns"], r["loop_least"]),
    "barriers": lambda r: f"{r['barriers']:,}",
    "KiB": lambda r: f"{r['touched'] * SECTOR / 1024:,.0f}",
    "MFLOP": lambda r: f"{r['flops'] / 1e6:.2f}" if "flops" in r else "-",
    "H100 us": lambda r: f"{r['us']:.3f}" if "us" in r else "-",
    "limit": lambda r: r.get("limit", "-"),
    "regs": lambda r: str(r.get("registers", "-")),
    "spilled": lambda r: str(r.get("spilled", "-")),
    "smem": lambda r: str(r.get("declared", "-")),
}


def table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(x.rjust(w) for x, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


def emulated(names: Sequence[str]) -> list[Row]:
    """Print the table of counts."""
    rows: list[Row] = []
    for name, make in selected(names):
        graph = make()
        found = counted(name, graph)
        if nvrtc.library() is not None:
            unit, gpu = Unit(), machine(name)
            compiler.build(graph, unit, machine=gpu)
            uses = resources(unit, WARPGROUPS if gpu.warpgroups else "sm_90")
            for row in found:
                of_it = uses[row["kernel"]]
                row.update(registers=of_it.registers, spilled=of_it.spilled, declared=of_it.shared)
        rows += found
    lines = [["kernel", *COLUMNS]]
    lines += [
        [f"{row['case']}: {row['kernel']}", *(write(row) for write in COLUMNS.values())]
        for row in rows
    ]
    print(table(lines))
    conflicts(rows)
    return rows


def conflicts(rows: Sequence[Row]) -> None:
    """Print the lines that the banks of shared memory take more turns for than they need."""
    found = [
        [
            f"{row['case']}: {row['kernel']}",
            "loop" if line["loop"] else "",
            f"{line['shared']:,}",
            ratio(line["turns"], line["least"]),
            line["text"][:WIDTH],
        ]
        for row in rows
        for line in row["lines"]
    ]
    if found:
        print("\n" + table([["lines with conflicts", "in a", "shared", "turns", "text"], *found]))


def raced(names: Sequence[str]) -> list[Row]:
    """Print for each case whether threads of a block race; the first that do end it."""
    rows: list[Row] = []
    for name, make in selected(names):
        rows.append({"case": name, "kernels": watched(name, make())})
        print(f"{name}: {rows[-1]['kernels']} kernels without a race")
    return rows


def used(names: Sequence[str]) -> list[Row]:
    """Print what kernels take: how many there are, the most of each, and every one that spills."""
    if nvrtc.library() is None:
        raise SystemExit(
            "registers are told by NVRTC, and there is none: pip install nvidia-cuda-nvrtc"
        )
    rows = list(taken(names))
    lines = [
        [
            "architecture",
            "kernels",
            "of blocks",
            "most registers",
            "most shared",
            "that spill",
            "of blocks",
        ]
    ]
    for name in (*architectures(), WARPGROUPS):
        own = [r for r in rows if r["architecture"] == name]
        spills = [r for r in own if r["spilled"]]
        counts = (
            len(own),
            sum(r["blocks"] for r in own),
            max((r["registers"] for r in own), default=0),
            max((r["shared"] for r in own), default=0),
            len(spills),
            sum(r["blocks"] for r in spills),
        )
        lines.append([name, *map(str, counts)])
    print(table(lines))
    shown = [r for r in rows if r["spilled"] or names]
    if shown:
        fields = ("registers", "spilled", "stack", "shared")
        print()
        print(
            table(
                [
                    ["kernel", "architecture", *fields],
                    *[
                        [
                            f"{r['case']}: {r['kernel']}",
                            r["architecture"],
                            *(str(r[f]) for f in fields),
                        ]
                        for r in shown
                    ],
                ]
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", help=f"cases: {', '.join(CASES)}; * and ? stand for anything"
    )
    parser.add_argument("--emulated", action="store_true", help="counts, on the emulated device")
    parser.add_argument("--races", action="store_true", help="races in shared memory")
    parser.add_argument("--resources", action="store_true", help="what kernels take, by NVRTC")
    parser.add_argument("--json", type=Path, help="where the rows are written to")
    options = parser.parse_args()
    ways = {"emulated": emulated, "races": raced, "resources": used}
    chosen = [way for name, way in ways.items() if getattr(options, name)]
    if len(chosen) != 1:
        raise SystemExit(
            "cuda: one of --emulated, --races, --resources; on a GPU tools/gpu.py --bench measures"
        )
    rows = chosen[0](options.names)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
