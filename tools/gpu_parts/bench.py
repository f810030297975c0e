"""Kernels, in time: beside PyTorch's on the same GPU, and beside copying memory.

They are graphs of one or a few ops, compiled and called as a program calls them, in arrays that
both libraries read. Every result is compared as well. Times are medians by the GPU's clock.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import graphtorch
from graphtorch.backends.gpu import compiler, devices
from graphtorch.ir import ops
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value

from .common import (
    TOLERANCE,
    Case,
    Row,
    difference,
    guarded,
    on_gpu,
    our_event,
    ours,
    seconds,
    theirs,
    torch_device,
    torch_event,
)

ELEMENTS = 1 << 26
ROWS = (1 << 16, 1 << 10)
LONG_ROWS = (1 << 9, 1 << 17)
SQUARE = (8192, 8192)
SIZES = (1024, 2048, 4096, 8192)
EMULATED = 48  # no size is larger on the emulated device


def cases(options: argparse.Namespace) -> Iterator[Case]:
    listed = [
        ("device", machine),
        ("copy bandwidth", bandwidth),
        *pointwise(),
        *reductions(),
        *moves(),
        *products(),
        *attention(),
    ]
    for name, case in listed:
        yield name, functools.partial(guarded, case)


def machine() -> Row:
    """What the numbers were measured on."""
    import torch

    p = devices.device().properties
    return {
        "text": f"{p.name}, sm_{p.capability[0]}{p.capability[1]}, {p.multiprocessors} "
        f"multiprocessors, {p.memory >> 30} GiB, PyTorch {torch.__version__}"
    }


@functools.cache
def copied() -> float:
    """Bytes a second, read and written, of a large copy by PyTorch."""
    import torch

    a = torch.zeros(ELEMENTS if on_gpu() else 1 << 20, device=torch_device())
    b = torch.empty_like(a)
    return 2 * a.nbytes / seconds(lambda: b.copy_(a), torch_event)


def bandwidth() -> Row:
    return {"bandwidth": copied(), "text": f"{copied() / 1e9:.0f} GB/s read and written"}


def scaled(*shape: int) -> tuple[int, ...]:
    """A shape, smaller on the emulated device."""
    return shape if on_gpu() else tuple(min(n, EMULATED) for n in shape)


# ------------------------------------------------------------------------------------------ kernels


def kernel(
    make: Callable[..., Value],
    reference: Callable[..., Any],
    shapes: Sequence[Sequence[int]],
    dtypes: Sequence[str] = ("float32",),
    work: Callable[..., dict[str, float]] | None = None,
    tolerance: str = "",
) -> Callable[[], Row]:
    """A case: `make` on values, `reference` on tensors of PyTorch's; `work` gives bytes or
    operations."""

    def case() -> Row:
        import torch

        torch.manual_seed(0)
        named = [dtypes[i % len(dtypes)] for i in range(len(shapes))]
        tensors = [random(torch, shape, named[i], shapes[0][0]) for i, shape in enumerate(shapes)]
        buffers = [ours(t) for t in tensors]
        values = [Value(Type(b.dtype, b.shape), name=f"x{i}") for i, b in enumerate(buffers)]
        start = time.monotonic()
        executable = compiler.compile(Graph("bench", values, [make(*values)]), devices.device())
        compiled = time.monotonic() - start
        expected = reference(*tensors)
        result = executable(buffers)[0]
        error = difference(theirs(result), expected)
        limit = TOLERANCE[tolerance or DType.named(result.dtype.name).name]
        bytes_moved = sum(t.nbytes for t in tensors) + expected.nbytes
        del result, expected
        row: Row = {
            "compile": compiled,
            "error": f"differs by {error:.1e}",
            "ok": error <= limit,
            "worst": error,
            "launches": launches(executable),
            "kernels": resources(executable),
        }
        row["seconds"] = seconds(lambda: executable(buffers), our_event)
        row["torch"] = seconds(lambda: reference(*tensors), torch_event)
        if work is None:
            row["bytes"] = bytes_moved
            row["of_copy"] = bytes_moved / row["seconds"] / copied()
        else:
            row |= work(*shapes)
        return row

    return case


def launches(executable: Any) -> int:
    return next((p.whole.launches for p in executable._prepared.values()), 0)


def resources(executable: Any) -> dict[str, tuple[int, int]]:
    """Registers and bytes of local memory of each kernel; on the emulated device nothing is
    known."""
    return executable.module.resources() if on_gpu() else {}


def random(torch: Any, shape: Sequence[int], dtype: str, below: int) -> Any:
    """Normal numbers; integers from 0 up to `below`."""
    if dtype == "int64":
        return torch.randint(0, below, tuple(shape), device=torch_device())
    return torch.randn(*shape, device=torch_device(), dtype=torch.float32).to(getattr(torch, dtype))


def pointwise() -> Iterator[tuple[str, Callable[[], Row]]]:
    import torch

    functional, n = torch.nn.functional, scaled(ELEMENTS)
    yield "add f32", kernel(ops.add, torch.add, [n, n])
    yield (
        "x * y + x f32",
        kernel(lambda x, y: ops.add(ops.mul(x, y), x), lambda x, y: x * y + x, [n, n]),
    )
    yield "gelu f32", kernel(lambda x: ops.gelu(x, approximate="none"), functional.gelu, [n])
    yield "exp f32", kernel(ops.exp, torch.exp, [n])
    yield "tanh bf16", kernel(ops.tanh, torch.tanh, [n], ["bfloat16"])
    yield "add f16", kernel(ops.add, torch.add, [n, n], ["float16"])
    yield (
        "f32 to bf16",
        kernel(
            lambda x: ops.cast(x, dtype=DType.named("bf16")), lambda x: x.to(torch.bfloat16), [n]
        ),
    )
    yield (
        "bias + relu f32",
        kernel(
            lambda x, b: ops.relu(ops.add(x, b)),
            lambda x, b: torch.relu(x + b),
            [scaled(*ROWS), scaled(*ROWS)[1:]],
        ),
    )


def reductions() -> Iterator[tuple[str, Callable[[], Row]]]:
    import torch

    functional, n, rows = torch.nn.functional, scaled(ELEMENTS), scaled(*ROWS)
    yield "sum of all f32", kernel(summed(0), torch.sum, [n])
    yield "sum of all bf16", kernel(summed(0), torch.sum, [n], ["bfloat16"])
    yield "sum of rows f32", kernel(summed(1), lambda x: x.sum(1), [rows])
    yield "sum of columns f32", kernel(summed(0), lambda x: x.sum(0), [rows])
    yield (
        "max of rows f32",
        kernel(lambda x: ops.max(x, dims=(1,), keepdim=False), lambda x: x.amax(1), [rows]),
    )
    yield (
        "mean of squares f32",
        kernel(
            lambda x: ops.mean(ops.mul(x, x), dims=(1,), keepdim=False),
            lambda x: (x * x).mean(1),
            [rows],
        ),
    )
    for name, shape, dtype in (
        ("f32", rows, "float32"),
        ("bf16", rows, "bfloat16"),
        ("f32, long rows", scaled(*LONG_ROWS), "float32"),
    ):
        yield (
            f"softmax {name}",
            kernel(
                lambda x: ops.softmax(x, dim=1),
                lambda x: functional.softmax(x, 1),
                [shape],
                [dtype],
            ),
        )
    yield (
        "log softmax f32",
        kernel(lambda x: ops.log_softmax(x, dim=1), lambda x: functional.log_softmax(x, 1), [rows]),
    )
    width = rows[1:]
    for name, dtype in (("f32", "float32"), ("bf16", "bfloat16")):
        yield (
            f"layer norm {name}",
            kernel(
                lambda x, w, b: ops.layer_norm(x, w, b, axes=1, eps=1e-5),
                lambda x, w, b: functional.layer_norm(x, width, w, b),
                [rows, width, width],
                [dtype],
            ),
        )


def summed(dim: int) -> Callable[[Value], Value]:
    return lambda x: ops.sum(x, dims=(dim,), keepdim=False)


def moves() -> Iterator[tuple[str, Callable[[], Row]]]:
    square = scaled(*SQUARE)
    for name, dtype in (("f32", "float32"), ("bf16", "bfloat16")):
        yield (
            f"transpose {name}",
            kernel(lambda x: turned(x, True), lambda x: x.t().contiguous(), [square], [dtype]),
        )
    heads = scaled(64, 1024, 16, 64)
    yield (
        "heads forward f32",
        kernel(
            lambda x: ops.permute(x, dims=(0, 2, 1, 3)),
            lambda x: x.transpose(1, 2).contiguous(),
            [heads],
        ),
    )
    yield (
        "transposed add f32",
        kernel(lambda x, y: ops.add(x, turned(y, True)), lambda x, y: x + y.t(), [square, square]),
    )
    yield (
        "cumsum of rows f32",
        kernel(lambda x: ops.cumsum(x, dim=1), lambda x: x.cumsum(1), [scaled(*ROWS)]),
    )
    yield (
        "rows by index f32",
        kernel(
            lambda x, i: ops.index_select(x, i, dim=0),
            lambda x, i: x.index_select(0, i),
            [scaled(*ROWS), scaled(ROWS[0])],
            ["float32", "int64"],
        ),
    )


# ------------------------------------------------------------------------------------- contractions


def products() -> Iterator[tuple[str, Callable[[], Row]]]:
    import torch

    def operations(a: Sequence[int], b: Sequence[int], *_: object) -> dict[str, float]:
        return {"operations": 2.0 * a[0] * a[1] * b[1]}

    for n in SIZES:
        shape = scaled(n, n)
        for dtype in ("bfloat16", "float16", "float32"):
            yield (
                f"matmul {n} {dtype}",
                kernel(ops.matmul, torch.matmul, [shape, shape], [dtype], operations),
            )
        for name, dynamic in (("", False), (" any size", None)):
            yield f"matmul {n} tf32{name}", functools.partial(tf32, shape[0], dynamic)
    (n,) = scaled(SIZES[2])
    for name, a, b in (("ta", True, False), ("tb", False, True)):
        yield (
            f"matmul {SIZES[2]} bfloat16 {name}",
            kernel(
                lambda x, y, a=a, b=b: ops.matmul(turned(x, a), turned(y, b)),
                lambda x, y, a=a, b=b: torch.matmul(x.t() if a else x, y.t() if b else y),
                [(n, n), (n, n)],
                ["bfloat16"],
                operations,
            ),
        )
    yield (
        f"linear + gelu {SIZES[2]} bfloat16",
        kernel(
            lambda x, w, b: ops.gelu(
                ops.add(ops.matmul(x, ops.permute(w, dims=(1, 0))), b), approximate="none"
            ),
            lambda x, w, b: torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b)),
            [(n, n), (n, n), (n,)],
            ["bfloat16"],
            operations,
        ),
    )


def turned(x: Value, yes: bool) -> Value:
    return ops.permute(x, dims=(1, 0)) if yes else x


def tf32(n: int, dynamic: bool | None) -> Row:
    """A product whose factors may be rounded to TF32, as a compiled function of the front end's:
    for these sizes, or for those that came before as well."""
    import torch

    a, b = (torch.randn(n, n) for _ in range(2))
    mine = [graphtorch.tensor(x.numpy()).to("cuda") for x in (a, b)]
    tensors = [x.to(torch_device()) for x in (a, b)]
    graphtorch.set_float32_matmul_precision("high")
    torch.set_float32_matmul_precision("high")
    try:
        product = graphtorch.compile(lambda x, y: x @ y, dynamic=dynamic)
        found = torch.from_numpy(product(*mine).cpu().numpy())
        error = difference(found, torch.matmul(*tensors).cpu())
        return {
            "worst": error,
            "ok": error <= TOLERANCE["tf32"],
            "error": f"differs by {error:.1e}",
            "seconds": seconds(lambda: product(*mine), our_event),
            "torch": seconds(lambda: torch.matmul(*tensors), torch_event),
            "operations": 2.0 * n**3,
        }
    finally:
        graphtorch.set_float32_matmul_precision("highest")
        torch.set_float32_matmul_precision("highest")


def attention() -> Iterator[tuple[str, Callable[[], Row]]]:
    import torch

    functional = torch.nn.functional
    for rows, heads, length, width in ((8, 16, 1024, 64), (2, 16, 4096, 128)):
        shape = (rows, heads, length, width) if on_gpu() else (1, 2, 24, 16)
        for dtype in ("bfloat16", "float32"):
            for causal in (False, True):
                scale = shape[-1] ** -0.5
                yield (
                    f"attention {length}x{width} {dtype}{' causal' if causal else ''}",
                    kernel(
                        lambda q, k, v, c=causal, s=scale: ops.attention(
                            q, k, v, scale=s, is_causal=c
                        )[0],
                        lambda q, k, v, c=causal: functional.scaled_dot_product_attention(
                            q, k, v, is_causal=c
                        ),
                        [shape] * 3,
                        [dtype],
                        lambda q, *_, c=causal: {
                            "operations": 4.0 * math.prod(q) * q[2] / (2 if c else 1)
                        },
                    ),
                )


# ------------------------------------------------------------------------------------------ table


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        if "text" in row:
            lines.append(f"  {row['name']}: {row['text']}")
        elif "seconds" not in row:
            lines.append(f"  {row['name']}: {row.get('error', '')}")
        else:
            lines.append(
                f"  {row['name']:<34} {row['seconds'] * 1e3:9.3f} ms, PyTorch "
                f"{row['torch'] * 1e3:9.3f} ms = {row['torch'] / row['seconds']:5.2f}x  "
                f"{rate(row)}" + used(row) + ("" if row["ok"] else f"  WRONG: {row['error']}")
            )
    compiled = [row["compile"] for row in rows if "compile" in row]
    if compiled:
        lines.append(
            f"  {len(compiled)} kernels compiled in {sum(compiled):.1f} s, the slowest in "
            f"{max(compiled):.1f} s"
        )
    return lines


def used(row: dict[str, Any]) -> str:
    """The most registers of a thread, and local memory where there is any, which should not be."""
    kernels = list(row.get("kernels", {}).values())
    if not kernels:
        return ""
    local = max(size for _, size in kernels)
    return f" {max(count for count, _ in kernels)} regs" + (f" {local} B LOCAL" if local else "")


def rate(row: dict[str, Any]) -> str:
    if "operations" in row:
        return f"{row['operations'] / row['seconds'] / 1e12:7.1f} TFLOP/s"
    if "of_copy" in row:
        return f"{row['bytes'] / row['seconds'] / 1e9:6.0f} GB/s {row['of_copy']:5.0%} of copy"
    return ""
