"""The text of functions that multiply tiles of shared memory by four warps (`MultiplyTiles`).

On GPUs of compute capability 9.0 each is a few instructions ``wgmma``, which one after another add
the products of 32 bytes of depth: https://docs.nvidia.com/cuda/parallel-thread-execution, section
"Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
"""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.dtype import DType, f32

from ..kernels.ir import DEPTH
from .types import memory

STEP = 32  # bytes of depth of one instruction
LINES = 2048  # bytes from one step to the next where a line holds rows, not depth


def tiles_text(name: str, dtype: DType, columns: int, turned: Sequence[bool]) -> str:
    """A function of the sums of a thread, the two tiles, and the line that it is called on."""
    c_type = memory(dtype)
    flags = ", ".join("true" if t else "false" for t in turned)
    return "\n".join(
        [
            f"GT_FUNCTION void {name}(float* d, {c_type}* a, {c_type}* b, gt_u32 line) {{",
            "#ifdef GT_EMULATED",
            f"  gt::multiply(d, a, b, line, gt_multiply_tiles<{columns}, {flags}, {c_type}>);",
            "#else",
            "  const gt_u64 x = gt_tile(a), y = gt_tile(b);",
            '  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");',
            *(_step(i, dtype, columns, turned) for i in range(DEPTH // STEP)),
            '  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");',
            "#endif",
            "}",
            "",
        ]
    )


def _step(i: int, dtype: DType, columns: int, turned: Sequence[bool]) -> str:
    count = columns // 2
    kind = "tf32" if dtype is f32 else dtype.name
    sums = ", ".join(f"%{j}" for j in range(count))
    outputs = ", ".join(f'"+f"(d[{j}])' for j in range(count))
    x, y = (f"{h} + {i * (LINES if t else STEP) // 16}" for h, t in zip("xy", turned, strict=True))
    # p: the sums so far count; then: no factor is negated, and which tiles are turned
    last = "p, 1, 1" if dtype is f32 else f"p, 1, 1, {int(turned[0])}, {int(turned[1])}"
    operation = f"wgmma.mma_async.sync.aligned.m64n{columns}k{STEP // dtype.itemsize}.f32"
    return (
        f'  asm volatile("{{.reg .pred p; setp.eq.b32 p, 0, 0; {operation}.{kind}.{kind} "\n'
        f'               "{{{sums}}}, %{count}, %{count + 1}, {last};}}"\n'
        f'               : {outputs} : "l"({x}), "l"({y}));'
    )
