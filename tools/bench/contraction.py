"""Matrix products and convolutions kernel by kernel, against the multiply-add peak measured in the
same run.

    python tools/bench contraction [case ...] [--asm]

A line is one kernel: its time on one and on all threads, its share of the peak, its schedule. Times
are lower quartiles of calls in a warm cache, less the cost of an empty call. `--asm` also counts
spills.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Const, Kernel, KType, fma, load
from graphtorch.backends.kernels.program.program import Launch, Slot
from graphtorch.backends.llvm.code import Code
from graphtorch.backends.llvm.jit import kernel_text
from graphtorch.backends.llvm.native import compile_assembly, compile_object
from graphtorch.backends.llvm.processor import host
from graphtorch.backends.llvm.runtime import get_num_threads, pool, set_num_threads
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import fuse
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.shape import evaluate, symbol

ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
BATCH = symbol("batch")


class Bound:
    """A compiled kernel bound to memory."""

    def __init__(self, kernel: Kernel, addresses: Sequence[int], sizes: Sequence[int]):
        self.text = kernel_text(kernel, host())
        start = time.perf_counter()
        self.code = Code([compile_object(self.text, host())], ["run"], pool().address)
        self.compile_seconds = time.perf_counter() - start
        self.args = (ctypes.c_int64 * (len(addresses) + len(sizes) + 1))(*addresses, *sizes)
        self.status = ctypes.c_int32(0)
        self.entry = ENTRY(self.code.address("run"))
        self.where = ctypes.addressof(self.args), ctypes.addressof(self.status)
        self.memory: np.ndarray | None = None  # kept alive for the addresses

    def __call__(self) -> None:
        self.entry(*self.where)

    def seconds(self, budget: float = 0.15) -> float:
        """Lower quartile: of times that others' work on the machine can only lengthen."""
        self()
        times: list[float] = []
        end = time.perf_counter() + budget
        while time.perf_counter() < end or len(times) < 15:
            start = time.perf_counter()
            self.entry(*self.where)
            times.append(time.perf_counter() - start)
        return sorted(times)[len(times) // 4]


def empty() -> Bound:
    return Bound(Kernel("empty", (), (), []), [], [])


def peak_kernel(threads: int, rounds: int = 20_000) -> tuple[Bound, int]:
    """Independent chains of vector multiply-adds in registers, a task a thread; and their FLOPs."""
    b = Builder()
    out = Buffer("out", f32, "readwrite", 64)
    # a product and a sum by themselves take longer, so that more have to be under way
    lanes, chains = host().machine.lanes(4), 12 if host().fma else 14
    kind = KType(f32, lanes)
    with b.loop(threads, "parallel", "task") as task:
        first = b.let(task * (lanes * chains), "first")
        x = b.let(load(out, first, lanes), "x")
        sums = [b.var(Const(float(i), kind), "c") for i in range(chains)]
        with b.loop(rounds):
            for c in sums:
                b.assign(c, fma(x, c, x))
        for i, c in enumerate(sums):
            b.store(out, first + i * lanes, c)
    memory = aligned(lanes * chains * threads, np.dtype(np.float32))
    bound = Bound(Kernel("peak", (out,), (), b.body), [memory.ctypes.data], [])
    bound.memory = memory
    return bound, 2 * lanes * chains * rounds * threads


def peak() -> float:
    """Multiply-adds a second on one core, in FLOP/s."""
    call, flops = peak_kernel(1)
    return max(flops / call.seconds() for _ in range(3))


def aligned(elements: int, dtype: np.dtype) -> np.ndarray:
    raw = np.zeros(elements * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + elements * dtype.itemsize].view(dtype)


def linear(act: bool = True) -> Callable[..., Value]:
    def build(x: Value, w: Value, b: Value) -> Value:
        y = ops.add(ops.matmul(x, ops.permute(w, dims=(1, 0))), b)
        return ops.relu(y) if act else y

    return build


def conv(relu: bool = True, **attrs: object) -> Callable[..., Value]:
    place = {
        "stride": (1, 1),
        "padding": ((0, 0), (0, 0)),
        "dilation": (1, 1),
        "groups": 1,
        **attrs,
    }

    def build(x: Value, w: Value, b: Value) -> Value:
        y = ops.conv(x, w, b, **place)
        return ops.relu(y) if relu else y

    return build


PLACE = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}


def transposed(x: Value) -> Value:
    return ops.permute(x, dims=(1, 0))


# name: builder, shapes of its inputs, positions of stable inputs
CASES: dict[str, tuple[Callable[..., Value], list[tuple[object, ...]], tuple[int, ...]]] = {
    "matmul 1024": (ops.matmul, [(1024, 1024), (1024, 1024)], ()),
    "matmul 1024 weights": (
        lambda a, b: ops.matmul(a, transposed(b)),
        [(1024, 1024), (1024, 1024)],
        (1,),
    ),
    "matmul 512": (ops.matmul, [(512, 512), (512, 512)], ()),
    "mlp_b64 fc1": (linear(), [(64, 1000), (100, 1000), (100,)], (1, 2)),
    "mlp_b64 fc2": (linear(False), [(64, 100), (10, 100), (10,)], (1, 2)),
    "mlp_b1 fc1": (linear(), [(1, 1000), (100, 1000), (100,)], (1, 2)),
    "mlp any fc1": (linear(), [(BATCH, 1000), (100, 1000), (100,)], (1, 2)),
    "mlp train fc1": (linear(), [(64, 1000), (100, 1000), (100,)], ()),
    "mlp train dw1": (lambda g, x: ops.matmul(transposed(g), x), [(64, 100), (64, 1000)], ()),
    "mlp train dw2": (lambda g, x: ops.matmul(transposed(g), x), [(64, 10), (64, 100)], ()),
    "mlp train dx2": (ops.matmul, [(64, 10), (10, 100)], ()),
    "lenet_b1 conv1": (conv(), [(1, 1, 32, 32), (6, 1, 5, 5), (6,)], (1, 2)),
    "lenet_b1 conv2": (conv(), [(1, 6, 14, 14), (16, 6, 5, 5), (16,)], (1, 2)),
    "lenet_b1 fc1": (linear(), [(1, 400), (120, 400), (120,)], (1, 2)),
    "lenet_b1 fc2": (linear(), [(1, 120), (84, 120), (84,)], (1, 2)),
    "lenet_b1 fc3": (linear(False), [(1, 84), (10, 84), (10,)], (1, 2)),
    "lenet_b64 conv1": (conv(), [(64, 1, 32, 32), (6, 1, 5, 5), (6,)], (1, 2)),
    "lenet_b64 conv2": (conv(), [(64, 6, 14, 14), (16, 6, 5, 5), (16,)], (1, 2)),
    "lenet_b64 fc1": (linear(), [(64, 400), (120, 400), (120,)], (1, 2)),
    "lenet_b64 fc2": (linear(), [(64, 120), (84, 120), (84,)], (1, 2)),
    "lenet train dw conv1": (
        lambda x, g: ops.conv_weight_grad(x, g, kernel=(5, 5), **PLACE),
        [(64, 1, 32, 32), (64, 6, 28, 28)],
        (),
    ),
    "lenet train dw conv2": (
        lambda x, g: ops.conv_weight_grad(x, g, kernel=(5, 5), **PLACE),
        [(64, 6, 14, 14), (64, 16, 10, 10)],
        (),
    ),
    "lenet train dx conv2": (
        lambda g, w: ops.conv_transpose(g, w, output_padding=(0, 0), **PLACE),
        [(64, 16, 10, 10), (16, 6, 5, 5)],
        (),
    ),
    "resnet 56x56x64": (
        conv(padding=((1, 1), (1, 1))),
        [(1, 64, 56, 56), (64, 64, 3, 3), (64,)],
        (1, 2),
    ),
    "resnet 7x7x512": (
        conv(padding=((1, 1), (1, 1))),
        [(1, 512, 7, 7), (512, 512, 3, 3), (512,)],
        (1, 2),
    ),
    "resnet 1x1": (conv(), [(1, 64, 56, 56), (256, 64, 1, 1), (256,)], (1, 2)),
    "mobilenet depthwise": (
        conv(padding=((1, 1), (1, 1)), groups=144),
        [(1, 144, 56, 56), (144, 1, 3, 3), (144,)],
        (1, 2),
    ),
    "attention scores": (
        lambda q, k: ops.matmul(q, ops.permute(k, dims=(0, 2, 1))),
        [(12, 128, 64), (12, 128, 64)],
        (),
    ),
}


def graph_of(name: str) -> Graph:
    build, shapes, _ = CASES[name]
    values = [Value(Type(f32, shape), name=f"x{i}") for i, shape in enumerate(shapes)]
    return fuse.run(Graph("bench", values, [build(*values)]), Limits())


def measure(name: str, best: float, overhead: float, asm: bool) -> None:
    sizes = {"batch": 64}
    program = lower(graph_of(name), host().machine, CASES[name][2])
    memory: dict[Slot, np.ndarray] = {}

    def address(slot: Slot) -> int:
        if slot not in memory:
            memory[slot] = aligned(max(1, int(evaluate(slot.elements, sizes))), slot.dtype.numpy)
            memory[slot][:] = np.random.default_rng(0).random(memory[slot].shape)
        return memory[slot].ctypes.data

    def bind(launch: Launch) -> Bound:
        return Bound(
            launch.kernel,
            [address(s) for s in launch.slots],
            [int(evaluate(d, sizes)) for d in launch.sizes],
        )

    for launch in program.prologue:
        bind(launch)()
    for launch in program.launches:
        report(name, launch, bind(launch), int(evaluate(launch.flops, sizes)), best, overhead, asm)


def report(
    name: str, launch: Launch, call: Bound, flops: int, best: float, overhead: float, asm: bool
) -> None:
    threads = get_num_threads()
    set_num_threads(1)
    one = max(call.seconds() - overhead, 1e-9)
    set_num_threads(threads)
    many = max(call.seconds() - overhead, 1e-9)
    share = f"{flops / one / best:6.1%} {flops / many / best / threads:6.1%}" if flops else " " * 13
    spills = f"  {spill_count(call.text)} spills" if asm else ""
    times = f"{one * 1e6:9.2f} {many * 1e6:9.2f} us {share}"
    compiled = f"compile {call.compile_seconds * 1e3:4.0f} ms"
    print(f"{name:22s} {times}  {compiled}{spills}  {launch.label}", flush=True)


def spill_count(text: str) -> int:
    """Vector registers stored to the stack; the few outside of the inner loops do not matter."""
    return len(
        re.findall(r"vmovup[sd]\s+%[yz]mm\d+, -?\d*\(%rsp\)", compile_assembly(text, host()))
    )


def main() -> None:
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    best, call = peak(), empty()
    overhead = call.seconds()
    print(
        f"multiply-add peak {best / 1e9:.1f} GFLOP/s a core, empty call {overhead * 1e6:.2f} us; "
        f"columns: 1 thread, {get_num_threads()} threads, shares of the peak"
    )
    for name in CASES:
        if not names or any(n in name for n in names):
            measure(name, best, overhead, "--asm" in sys.argv)


if __name__ == "__main__":
    main()
