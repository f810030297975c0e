"""The text of functions that multiply tiles of shared memory by four warps (`MultiplyTiles`).

On GPUs of compute capability 9.0 each is a few instructions ``wgmma``, which one after another add
the products of 32 bytes of depth: https://docs.nvidia.com/cuda/parallel-thread-execution, section
"Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
"""

from __future__ import annotations

from graphtorch.ir.dtype import DType, f32

from ..dataclass import dataclass
from ..kernels.ir import DEPTH, FRAGMENT, MultiplyTiles, Tile
from .types import memory

STEP = 32  # bytes of depth of one instruction
STEPS = DEPTH // STEP
LINES = 2048  # bytes from one step to the next where a line holds rows, not depth


@dataclass(frozen=True)
class Form:
    """What tells functions from each other.

    Attributes:
        columns: rows of the right tile.
        left, right: which tiles are turned; None: the left one is in registers.
        fresh: the first step does not add to sums that are there.
    """

    dtype: DType
    columns: int
    left: bool | None
    right: bool
    fresh: bool

    @staticmethod
    def of(s: MultiplyTiles) -> Form:
        left = s.a.turned if isinstance(s.a, Tile) else None
        return Form(s.dtype, s.b.rows, left, s.b.turned, s.fresh)

    @property
    def name(self) -> str:
        ways = "r" if self.left is None else "nt"[self.left]
        end = "_fresh" if self.fresh else ""
        return f"gt_tiles_{self.dtype.name}_{self.columns}{ways}{'nt'[self.right]}{end}"

    def text(self) -> str:
        """A function of the sums of a thread, the two factors, and the line that it is called
        on."""
        c_type = memory(self.dtype)
        flags = [t for t in (self.left, self.right, self.fresh) if t is not None]
        told = ", ".join("true" if f else "false" for f in flags)
        if self.left is None:
            kind, x = "gt_multiply_fragment", ""
        else:
            kind, x = "gt_multiply_tiles", "x = gt_tile(a), "
        left = "gt_u32" if self.left is None else c_type
        emulated = f"{kind}<{self.columns}, {told}, {c_type}>"
        return "\n".join(
            [
                f"GT_FUNCTION void {self.name}(float* d, {left}* a, {c_type}* b, gt_u32 line) {{",
                "#ifdef GT_EMULATED",
                f"  gt::multiply(d, a, b, line, {emulated});",
                "#else",
                f"  const gt_u64 {x}y = gt_tile(b);",
                '  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");',
                *(self._step(i) for i in range(STEPS)),
                '  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");',
                "#endif",
                "}",
                "",
            ]
        )

    def _step(self, i: int) -> str:
        count, dtype, fresh = self.columns // 2, self.dtype, self.fresh and i == 0
        kind = "tf32" if dtype is f32 else dtype.name
        sums = ", ".join(f"%{j}" for j in range(count))
        outputs = ", ".join(f'"{"=" if fresh else "+"}f"(d[{j}])' for j in range(count))
        factors, y = self._left(i), f'"l"(y + {i * (LINES if self.right else STEP) // 16})'
        names = [f"%{count + j}" for j in range(len(factors) + 1)]
        left = names[0] if len(factors) == 1 else f"{{{', '.join(names[:-1])}}}"
        # p: the sums so far count; then: no factor is negated, and which tiles are turned
        turned = [] if dtype is f32 else [int(t) for t in (self.left, self.right) if t is not None]
        last = ", ".join(map(str, ["p", 1, 1, *turned]))
        operation = f"wgmma.mma_async.sync.aligned.m64n{self.columns}k{STEP // dtype.itemsize}.f32"
        return (
            f'  asm volatile("{{.reg .pred p; setp.{"ne" if fresh else "eq"}.b32 p, 0, 0; '
            f'{operation}.{kind}.{kind} "\n'
            f'               "{{{sums}}}, {left}, {names[-1]}, {last};}}"\n'
            f"               : {outputs} : {', '.join([*factors, y])});"
        )

    def _left(self, i: int) -> list[str]:
        if self.left is not None:
            return [f'"l"(x + {i * (LINES if self.left else STEP) // 16})']
        each = FRAGMENT // STEPS
        return [f'"r"(a[{i * each + j}])' for j in range(each)]
