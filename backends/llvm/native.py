"""LLVM IR text to machine code in this process, and code's lifetime."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import llvmlite.binding as llvm

from .target import Target, host

T = TypeVar("T")
_lock = threading.Lock()  # LLVM's global context is not thread-safe


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def initialize(everything: bool = False) -> None:
    """Register LLVM's code generators, once a process: this machine's, or those of all machines."""
    if everything:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # libraries take their weights in by .incbin


def has_assembler(target: Target) -> bool:
    """Whether llvmlite's LLVM reads assembly for `target`: it comes with this machine's assembler alone."""
    return target.triple.split("-")[0] == host().triple.split("-")[0]


@functools.lru_cache(maxsize=16)
def target_machine(target: Target, pic: bool = False) -> llvm.TargetMachine:
    """LLVM's code generator for `target`; `pic` for code that goes into a library."""
    initialize(target.triple != host().triple)
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


class Linker:
    """LLVM's in-process linker, good for `LIBRARIES` pieces of code: it keeps 9 KB of each for ever."""

    LIBRARIES = 256
    _current: Linker | None = None

    def __init__(self) -> None:
        initialize()
        machine = llvm.Target.from_triple(host().triple).create_target_machine(
            cpu=host().cpu, features=host().features, opt=3, jit=True)
        self._jit = llvm.create_lljit_compiler(machine)  # it owns the machine
        self._count = 0

    @classmethod
    def current(cls) -> Linker:
        """The linker to use now; an older one goes with the last code it holds."""
        if cls._current is None or cls._current._count >= cls.LIBRARIES:
            cls._current = Linker()
        return cls._current

    def link(self, builder: llvm.JITLibraryBuilder) -> llvm.ResourceTracker:
        self._count += 1
        return builder.link(self._jit, f"code{self._count}")


def immortal(x: T) -> T:
    """`x` with one reference too many: the pool's workers run its code until the process ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(x))
    return x


class Code:
    """Object code loaded into this process. Its memory is freed when the last reference goes."""

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
            self._linker = Linker.current()
            self._library = self._linker.link(builder)

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        library = getattr(self, "_library", None)
        if library is not None and not finalizing():  # at exit parts of llvmlite may be gone already
            library.close()  # before its linker

    def address(self, name: str) -> int:
        """Address of the function `name`, one of the exports."""
        return self._library[name]
