"""One kernel compiled and run by itself, for tests and experiments."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..kernels.ir import Kernel
from .code import Code
from .emit import ModuleEmitter
from .native import compile_object
from .processor import Processor, host
from .runtime import pool


def kernel_text(kernel: Kernel, target: Processor) -> str:
    """LLVM IR of one kernel behind ``run(i64* args, i32* status)``: buffer addresses, then
    sizes."""
    module = ModuleEmitter(kernel.name, target)
    name = module.kernel(kernel)
    loads, args = [], []
    for i in range(len(kernel.buffers) + len(kernel.sizes)):
        t = "ptr" if i < len(kernel.buffers) else "i64"
        loads.append(
            f"  %p{i} = getelementptr i64, ptr %args, i64 {i}\n  %v{i} = load {t}, ptr %p{i}\n"
        )
        args.append(f"{t} %v{i}")
    module.functions.append(
        f"define void @run(ptr %args, ptr %status) #0 {{\n{''.join(loads)}"
        f"  call void @{name}({', '.join([*args, 'ptr %status'])})\n  ret "
        f"void\n}}\n"
    )
    return module.text()


@lru_cache(maxsize=32)
def _code(text: str, target: Processor) -> Code:
    """A test runs the same kernel on arrays of many sizes."""
    return Code([compile_object(text, target)], ("run",), pool().address)


def run_kernel(
    kernel: Kernel,
    arrays: Sequence[np.ndarray],
    sizes: Sequence[int] = (),
    target: Processor | None = None,
) -> int:
    """Compile `kernel` and run it once on contiguous `arrays` (one a buffer, written in place): for
    tests.

    Returns the status: 0, or 1 + the site of a `fail` that was reached.
    """
    for b, a in zip(kernel.buffers, arrays, strict=True):
        if a.dtype != b.dtype.numpy or not a.flags.c_contiguous:
            raise TypeError(
                f"buffer {b.name}: expected a contiguous {b.dtype.numpy} array, got {a.dtype}"
            )
    target = target or host()
    code = _code(kernel_text(kernel, target), target)
    values = [a.ctypes.data for a in arrays] + [int(s) for s in sizes]
    if len(values) != len(kernel.buffers) + len(kernel.sizes):
        raise TypeError(f"kernel {kernel.name} takes {len(kernel.sizes)} sizes, got {len(sizes)}")
    args = (ctypes.c_int64 * max(1, len(values)))(*values)
    status = ctypes.c_int32(0)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("run"))
    entry(ctypes.addressof(args), ctypes.addressof(status))
    return status.value
