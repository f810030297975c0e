"""LLVM IR text to machine code, and LLVM's linker for this process."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ..buffer import MADV_DONTNEED, advise, give_back
from ..locks import lock_across_forks, open_after_forks
from .processor import Processor, host

_lock = lock_across_forks()  # the linker is shared
# llvmlite lets one thread at a time into most of LLVM, by a lock that a child would find held for
# ever
open_after_forks(llvm.ffi.lib._lock._lock)


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
    let_code_go()  # loading it has read all tables of addresses, which are never read again


def has_assembler(target: Processor) -> bool:
    """Whether llvmlite's LLVM reads assembly for `target`: it comes with this machine's assembler
    alone."""
    return target.triple.split("-")[0] == host().triple.split("-")[0]


def target_machine(target: Processor, pic: bool = False) -> llvm.TargetMachine:
    """A code generator of LLVM's for `target`; `pic` for code that goes into a library."""
    initialize(target.triple != host().triple)
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="pic" if pic else "default",
        jit=not pic,
    )


class Compilation:
    """One module on its way to code, with a context of its own: any number may be under way at
    once.

    `loops` says that it has loops which LLVM is to vectorise and unroll; what has its vectors
    written out only needs its variables in registers and its arithmetic simplified, which takes a
    fifth as long.
    """

    def __init__(self, text: str, target: Processor, pic: bool = False, loops: bool = True):
        self._machine = target_machine(target, pic)
        self._module = llvm.parse_assembly(text, llvm.create_context())
        options = llvm.create_pipeline_tuning_options(3)
        options.slp_vectorization = False  # takes as long as all the rest, for nothing
        builder = llvm.create_pass_builder(self._machine, options)
        if loops:
            self._run(builder.getModulePassManager(), builder)
        else:
            self._simplify(builder)

    def _run(self, passes: llvm.ModulePassManager, builder: llvm.PassBuilder) -> None:
        _unlocked("LLVMPY_RunNewModulePassManager")(passes, self._module, builder)

    def _simplify(self, builder: llvm.PassBuilder) -> None:
        inline, passes = (
            llvm.create_new_module_pass_manager(),
            llvm.create_new_function_pass_manager(),
        )
        inline.add_always_inliner_pass()
        inline.add_global_dead_code_eliminate_pass()
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        self._run(inline, builder)
        for function in self._module.functions:
            if not function.is_declaration:
                _unlocked("LLVMPY_RunNewFunctionPassManager")(passes, function, builder)

    def object(self) -> bytes:
        """Relocatable object code."""
        return self._emitted(True)

    def assembly(self) -> str:
        """Assembly, for people."""
        return self._emitted(False).decode()

    def _emitted(self, as_object: bool) -> bytes:
        with llvm.ffi.OutputString() as message:
            memory = _unlocked("LLVMPY_TargetMachineEmitToMemory")(
                self._machine, self._module, int(as_object), message
            )
            if not memory:
                raise RuntimeError(str(message))
        try:
            size = llvm.ffi.lib.LLVMPY_GetBufferSize(memory)
            return ctypes.string_at(llvm.ffi.lib.LLVMPY_GetBufferStart(memory), size)
        finally:
            llvm.ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)


def _unlocked(name: str) -> Callable[..., Any]:
    """A function of llvmlite's library without the lock that llvmlite holds during each call.

    LLVM itself works on several modules at once where each has its context and its code generator.
    """
    return getattr(getattr(llvm.ffi.lib, "_lib", llvm.ffi.lib), name)


def compile_object(text: str, target: Processor, pic: bool = False, loops: bool = True) -> bytes:
    """Relocatable object code of the LLVM IR `text`; `loops` as for `Compilation`."""
    return Compilation(text, target, pic, loops).object()


def compile_assembly(text: str, target: Processor) -> str:
    """Assembly of the LLVM IR `text`, for people."""
    return Compilation(text, target).assembly()


def let_go() -> None:
    """Take what LLVM left behind out of this process's memory: what it freed, and its code, which
    are 70 MiB after a large program. Code comes back from the system's cache of the file when it is
    used again.
    """
    give_back()
    let_code_go()


def let_code_go() -> None:
    """Take LLVM's code, and what else is only read of its file, out of this process's memory."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # not everywhere may a process look at its memory
        for first, last in read_only_parts(Path("/proc/self/maps").read_text(), _LIBRARY):
            if is_as_in_file(first, last):
                advise(first, last, MADV_DONTNEED)


_LIBRARY = "libllvmlite.so"
# bits of an entry of /proc/self/pagemap: https://docs.kernel.org/admin-guide/mm/pagemap.html
_HERE, _SWAPPED, _OF_FILE = (np.uint64(1 << bit) for bit in (63, 62, 61))


def read_only_parts(maps: str, name: str) -> Iterator[tuple[int, int]]:
    """Where parts of the file `name` lie in memory that nobody can write to: read off a text such
    as /proc/self/maps."""
    mapping = rf"^(\w+)-(\w+) (\S+) .*/{re.escape(name)}$"
    for first, last, rights in re.findall(mapping, maps, re.MULTILINE):
        if "w" not in rights:
            yield int(first, 16), int(last, 16)


def is_as_in_file(first: int, last: int) -> bool:
    """Whether no page of memory that was mapped from a file was written to (as those that hold
    addresses are, when a library is loaded).

    Raises OSError where the system does not tell.
    """
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(first // mmap.PAGESIZE * 8)
        pages = np.frombuffer(file.read((last - first) // mmap.PAGESIZE * 8), np.uint64)
    own = ((pages & _HERE) != 0) & ((pages & _OF_FILE) == 0) | ((pages & _SWAPPED) != 0)
    return len(pages) > 0 and not own.any()


class Linker:
    """LLVM's in-process linker, good for `LIBRARIES` pieces of code: it keeps 9 KB of each for
    ever."""

    LIBRARIES = 256
    _current: Linker | None = None

    def __init__(self) -> None:
        initialize()
        machine = llvm.Target.from_triple(host().triple).create_target_machine(
            cpu=host().cpu, features=host().features, opt=3, jit=True
        )
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


class Linked:
    """Object code loaded by LLVM, until `close`."""

    def __init__(
        self, objects: Sequence[bytes], exports: Sequence[str], imports: Mapping[str, int]
    ):
        """Args: as `Code` takes them."""
        builder = llvm.JITLibraryBuilder().add_current_process()
        for image in objects:
            builder.add_object_img(image)
        for name in exports:
            builder.export_symbol(name)
        for name, address in imports.items():
            builder.import_symbol(name, address)
        with _lock:
            self._linker = Linker.current()
            self._library = self._linker.link(builder)

    def address(self, name: str) -> int:
        return int(self._library[name])

    def close(self) -> None:
        self._library.close()  # before its linker
