"""LLVM IR text to machine code in this process, and code's lifetime."""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from collections.abc import Mapping, Sequence

import llvmlite.binding as llvm
import numpy as np

from ..kernels.ir import Kernel
from .emit import ModuleEmitter
from .target import Target, host

_lock = threading.Lock()  # LLVM's global context is not thread-safe


@functools.cache
def initialize() -> None:
    """Register LLVM's code generators, once a process."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


@functools.lru_cache(maxsize=16)
def target_machine(target: Target, pic: bool = False) -> llvm.TargetMachine:
    """LLVM's code generator for `target`; `pic` for code that goes into a library."""
    initialize()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic" if pic else "default", jit=not pic)


def optimize(text: str, target: Target, speed: int = 3, pic: bool = False) -> llvm.ModuleRef:
    """`text` parsed, verified and run through LLVM's own pipeline."""
    machine = target_machine(target, pic)
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed)
    options.loop_vectorization = options.slp_vectorization = True
    options.loop_interleaving = options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compile_object(text: str, target: Target, pic: bool = False) -> bytes:
    """Relocatable object code of the LLVM IR `text`."""
    with _lock:
        return target_machine(target, pic).emit_object(optimize(text, target, pic=pic))


def compile_assembly(text: str, target: Target) -> str:
    """Assembly of the LLVM IR `text`, for people."""
    with _lock:
        return target_machine(target).emit_assembly(optimize(text, target))


@functools.cache
def _linker() -> llvm.LLJIT:
    """LLVM's in-process linker: one a process; each `Code` is a library of its own in it."""
    initialize()
    machine = llvm.Target.from_triple(host().triple).create_target_machine(
        cpu=host().cpu, features=host().features, opt=3, jit=True)
    return llvm.create_lljit_compiler(machine)  # owns the machine


class Code:
    """Object code loaded into this process. Its memory is freed when the last reference goes."""

    _serial = itertools.count()

    def __init__(self, obj: bytes, exports: Sequence[str], imports: Mapping[str, int] | None = None):
        """Args:
            exports: functions to look up with `address`.
            imports: addresses of functions that the code calls, beside libc's and libm's.
        """
        builder = llvm.JITLibraryBuilder().add_object_img(obj).add_current_process()
        for name in exports:
            builder.export_symbol(name)
        for name, address in (imports or {}).items():
            builder.import_symbol(name, address)
        with _lock:
            self._library = builder.link(_linker(), f"gt{next(self._serial)}")

    def address(self, name: str) -> int:
        """Address of the function `name`, one of the exports."""
        return self._library[name]


def kernel_text(kernel: Kernel, target: Target) -> str:
    """LLVM IR of one kernel behind ``run(i64* args, i32* status)``: buffer addresses, then sizes."""
    module = ModuleEmitter(kernel.name, target)
    name = module.kernel(kernel)
    loads, args = [], []
    for i, item in enumerate((*kernel.buffers, *kernel.sizes)):
        t = "ptr" if i < len(kernel.buffers) else "i64"
        loads.append(f"  %p{i} = getelementptr i64, ptr %args, i64 {i}\n  %v{i} = load {t}, ptr %p{i}\n")
        args.append(f"{t} %v{i}")
    module.functions.append(f"define void @run(ptr %args, ptr %status) #0 {{\n{''.join(loads)}"
                            f"  call void @{name}({', '.join([*args, 'ptr %status'])})\n  ret void\n}}\n")
    return module.text()


def run_kernel(kernel: Kernel, arrays: Sequence[np.ndarray], sizes: Sequence[int] = (),
               target: Target | None = None) -> int:
    """Compile `kernel` and run it once on contiguous `arrays` (one a buffer, written in place): for tests.

    Returns the status: 0, or 1 + the site of a `fail` that was reached.
    """
    for b, a in zip(kernel.buffers, arrays, strict=True):
        if a.dtype != b.dtype.numpy or not a.flags.c_contiguous:
            raise TypeError(f"buffer {b.name}: expected a contiguous {b.dtype.numpy} array, got {a.dtype}")
    code = Code(compile_object(kernel_text(kernel, target or host()), target or host()), ["run"])
    values = [a.ctypes.data for a in arrays] + [int(s) for s in sizes]
    if len(values) != len(kernel.buffers) + len(kernel.sizes):
        raise TypeError(f"kernel {kernel.name} takes {len(kernel.sizes)} sizes, got {len(sizes)}")
    args = (ctypes.c_int64 * max(1, len(values)))(*values)
    status = ctypes.c_int32(0)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("run"))
    entry(ctypes.addressof(args), ctypes.addressof(status))
    return status.value
