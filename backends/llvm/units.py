"""Kernels to object code: each different one once, in this process and, by the disk cache, in all
of them.

A *unit* is a kernel as programs call it, with the pattern of its buffers. Its name is a hash of its
structure and of the target, so equal kernels of any two programs are one unit. Units that are not
known yet are compiled a few to a module (a module costs LLVM milliseconds by itself), on all
processors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from .. import cache
from ..dataclass import dataclass
from ..kernels.ir import For, Kernel, Store, walk
from ..kernels.text import nameless
from . import debug
from .emit import ModuleEmitter
from .image import Image, find, remember
from .native import compile_assembly, compile_object
from .processor import Processor, available_cpus, host
from .runtime import pool_object

MODULE_TEXT = 96 << 10  # characters of LLVM IR that are worth a module


@dataclass(frozen=True, eq=False)
class Unit:
    """A kernel and the pattern of its buffers (see `ModuleEmitter.kernel`).

    `loops` says whether it has loops that LLVM is to vectorise and unroll.
    """

    name: str
    kernel: Kernel
    memory: tuple[int, ...]
    loops: bool


def unit(kernel: Kernel, memory: tuple[int, ...], target: Processor, once: bool = False) -> Unit:
    """The unit of `kernel`: the name does not depend on what the kernel, or the program, is called.

    A kernel that runs `once` (it packs weights) is not worth what optimising its loops takes.
    """
    loops = not once and has_loops(kernel)
    aligns = [b.align for b in kernel.buffers]
    key = cache.key("kernel", nameless(kernel), repr((aligns, memory, loops)), repr(target))
    return Unit(f"k_{key[:32]}", kernel, memory, loops)


def has_loops(kernel: Kernel) -> bool:
    """Whether LLVM has loops to vectorise in `kernel`: not where all of it is written in
    vectors."""
    statements = list(walk(kernel.body))
    vectors = any(isinstance(s, Store) and s.value.type.lanes > 1 for s in statements)
    return not vectors or any(isinstance(s, For) and s.kind == "vector" for s in statements)


def images(units: Sequence[Unit], target: Processor, program: str = "") -> list[Image]:
    """Object code that defines `units` (and maybe others); `program` is a name for dumps."""
    found = {u.name: image for u in units if (image := find(u.name)) is not None}
    missing = {u.name: u for u in units if u.name not in found}
    for image in _compile(_modules(list(missing.values()), target), target, program):
        found.update(dict.fromkeys(image.names, image))
        cache.store(image.names, {"names": image.names}, image.code)
    made = list(dict.fromkeys(found[u.name] for u in units))
    remember(made)
    return made


class Module(NamedTuple):
    """LLVM IR of a few units, and their names."""

    names: tuple[str, ...]
    text: str
    loops: bool


def _modules(units: Sequence[Unit], target: Processor) -> Iterator[Module]:
    """A few units at a time, those with and those without loops by themselves."""
    for loops in (True, False):
        module, names = ModuleEmitter("kernels", target), list[str]()
        chosen = [u for u in units if u.loops is loops]
        for u in chosen:
            # two images may define the same unit
            module.launcher(u.name, u.kernel, u.memory, "weak_odr")
            names.append(u.name)
            if u is chosen[-1] or sum(map(len, module.functions)) >= MODULE_TEXT:
                yield Module(tuple(names), module.text(), loops)
                module, names = ModuleEmitter("kernels", target), []


def _compile(modules: Iterator[Module], target: Processor, program: str) -> list[Image]:
    """Object code of `modules`, made on all processors while the next ones are written."""
    waiting: list[tuple[tuple[str, ...], Future[bytes]]] = []
    with ThreadPoolExecutor(available_cpus(), "graphtorch-compile") as pool:
        if target == host():
            pool.submit(pool_object)  # what runs the kernels, needed next
        for names, text, loops in modules:
            debug.show("llvm", program, lambda text=text: text)  # type: ignore[misc]
            debug.show("asm", program, lambda text=text: compile_assembly(text, target))  # type: ignore[misc]
            waiting.append((names, pool.submit(compile_object, text, target, loops=loops)))
        return [Image(names, code.result()) for names, code in waiting]
