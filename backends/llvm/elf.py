"""Object code in this process without LLVM: relocatable ELF files for x86-64, as `native` makes
them.

LLVM generates code for this process in its large code model, in which every reference is a 64-bit
address. So linking is copying and adding, and a process whose code is in the cache need not load
LLVM, which takes a tenth of a second and 50 MiB. What is not known here (another machine, another
kind of file, symbol or relocation) is refused with `Unknown`, and left to LLVM's linker.

The format: https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..dataclass import dataclass, field


def _record(**fields: str) -> np.dtype:
    return np.dtype([(name, f"<{kind}") for name, kind in fields.items()])


SECTION = _record(
    name="u4", type="u4", flags="u8", address="u8", offset="u8", size="u8", link="u4", info="u4",
    align="u8", entry="u8",
)  # fmt: skip
SYMBOL = _record(name="u4", info="u1", other="u1", section="u2", value="u8", size="u8")
RELOCATION = _record(offset="u8", info="u8", addend="i8")

# the first bytes of a 64-bit little-endian file; then its type (relocatable) and machine (x86-64)
MAGIC, RELOCATABLE, X86_64 = b"\x7fELF\x02\x01\x01", 1, 62
SYMBOLS, RELOCATIONS, NO_BITS = 2, 4, 8  # types of sections
UNWINDING = 0x70000001  # for exceptions, which none of this code throws
# sections whose contents are loaded: constructors, tables of them and groups are not among them
LOADED = {1, NO_BITS}
WRITABLE, ALLOCATED, CODE, THREAD = 1, 2, 4, 0x400  # flags of sections
UNDEFINED, SPECIAL = 0, 0xFF00  # numbers of sections that are none
LOCAL, GLOBAL, WEAK = range(3)
ADDRESS = 1  # the relocation R_X86_64_64: the symbol's address and the addend
PLAIN_SYMBOLS = {0, 1, 2, 3, 4}  # none, data, function, section, file
PROTECTIONS = (mmap.PROT_READ | mmap.PROT_EXEC, mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)

_process = ctypes.CDLL(None) if sys.platform == "linux" else None
if _process is not None:
    _process.mmap.restype = ctypes.c_void_p
    _process.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
    )  # fmt: skip
    _process.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _process.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Unknown(Exception):
    """This is nothing that can be linked here."""


def require(condition: Any, what: str) -> None:
    if not condition:
        raise Unknown(what)


@dataclass(slots=True)
class File:
    """A relocatable file: `places` gets where in memory each of its sections to load begins."""

    content: bytes
    sections: Any
    symbols: Any
    names: bytes
    places: dict[int, int] = field(default_factory=dict)

    def name(self, symbol: Any) -> str:
        start = int(symbol["name"])
        return self.names[start : self.names.index(b"\0", start)].decode()

    def part(self, section: Any) -> bytes:
        return self.content[int(section["offset"]) : int(section["offset"] + section["size"])]


class Linked:
    """Object code in memory of its own, until `close`."""

    def __init__(
        self, objects: Sequence[bytes], exports: Sequence[str], imports: Mapping[str, int]
    ):
        """Args: as `Code` takes them.

        Raises:
            Unknown: the objects cannot be linked here.
            OSError: the system gives no memory for code.
        """
        require(_process is not None and platform.machine() == "x86_64", "the machine")
        files = [_read(content) for content in objects]
        groups = _groups(files)
        self._size = groups[-1]
        self._start = _memory(self._size)
        try:
            self._symbols = self._defined(files)
            missing = [name for name in exports if name not in self._symbols]
            require(not missing, f"no function {missing}")
            self._fill(files, imports)
            self._protect(groups)
        except BaseException:
            self.close()
            raise

    def address(self, name: str) -> int:
        return self._symbols[name]

    def close(self) -> None:
        if self._start:
            assert _process is not None
            _process.munmap(self._start, self._size)
            self._start = 0

    def _defined(self, files: Sequence[File]) -> dict[str, int]:
        """The address of each symbol that files share; of several that are weak the first."""
        found: dict[str, int] = {}
        strong: set[str] = set()
        for file in files:
            for symbol in file.symbols[file.symbols["info"] >> 4 != LOCAL]:
                binding, kind = symbol["info"] >> 4, symbol["info"] & 15
                require(binding in (GLOBAL, WEAK) and kind in PLAIN_SYMBOLS, "a kind of symbol")
                if symbol["section"] == UNDEFINED:
                    continue
                require(int(symbol["section"]) in file.places, "where a symbol lies")
                name = file.name(symbol)
                if binding == GLOBAL:
                    require(name not in strong, f"{name} twice")
                    strong.add(name)
                elif name in found:
                    continue
                place = file.places[int(symbol["section"])] + int(symbol["value"])
                found[name] = self._start + place
        return found

    def _fill(self, files: Sequence[File], imports: Mapping[str, int]) -> None:
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * self._size).from_address(self._start))
        for file in files:
            for number, place in file.places.items():
                section = file.sections[number]
                if section["type"] != NO_BITS:
                    part = file.part(section)
                    memory[place : place + len(part)] = np.frombuffer(part, np.uint8)
            values = self._values(file, imports)
            for section in file.sections[file.sections["type"] == RELOCATIONS]:
                if int(section["info"]) in file.places:
                    self._relocate(file, section, values, memory)

    def _values(self, file: File, imports: Mapping[str, int]) -> np.ndarray:
        """The address of each of a file's symbols."""
        values = np.zeros(len(file.symbols), np.uint64)
        for i, symbol in enumerate(file.symbols):
            section = int(symbol["section"])
            if symbol["info"] >> 4 == LOCAL:
                if section in file.places:
                    values[i] = self._start + file.places[section] + int(symbol["value"])
            else:
                values[i] = self._address(file.name(symbol), imports)
        return values

    def _address(self, name: str, imports: Mapping[str, int]) -> int:
        known = self._symbols.get(name, imports.get(name))
        if known is not None:
            return known
        try:
            return ctypes.cast(getattr(_process, name), ctypes.c_void_p).value or 0
        except AttributeError:
            raise Unknown(f"no function {name}") from None

    @staticmethod
    def _relocate(file: File, section: Any, values: np.ndarray, memory: np.ndarray) -> None:
        rows = np.frombuffer(file.part(section), RELOCATION)
        symbols = (rows["info"] >> np.uint64(32)).astype(np.int64)
        require((rows["info"] & np.uint64(0xFFFFFFFF) == ADDRESS).all(), "a relocation")
        defined = file.symbols["info"][symbols] >> 4 != LOCAL
        require((defined | (values[symbols] != 0)).all(), "what a relocation refers to")
        limit = int(file.sections[int(section["info"])]["size"])
        require((rows["offset"] + np.uint64(8) <= limit).all(), "where a relocation lies")
        words = values[symbols] + rows["addend"].view(np.uint64)
        first = file.places[int(section["info"])] + rows["offset"].astype(np.int64)
        memory[first[:, None] + np.arange(8)] = words[:, None].view(np.uint8)

    def _protect(self, groups: Sequence[int]) -> None:
        """Code is never writable once it may run."""
        assert _process is not None
        for first, last, protection in zip(groups[:-1], groups[1:], PROTECTIONS, strict=True):
            if last > first and _process.mprotect(self._start + first, last - first, protection):
                raise OSError(ctypes.get_errno(), "the system does not let memory hold code")


def _read(content: bytes) -> File:
    """A file's tables."""
    require(len(content) >= 64 and content[:7] == MAGIC, "a format")
    kind, machine = (int.from_bytes(content[i : i + 2], "little") for i in (16, 18))
    require((kind, machine) == (RELOCATABLE, X86_64), "a machine")
    start = int.from_bytes(content[40:48], "little")
    count = int.from_bytes(content[60:62], "little")
    require(count and start + count * SECTION.itemsize <= len(content), "a table of sections")
    sections = np.frombuffer(content, SECTION, count, start)
    tables = sections[sections["type"] == SYMBOLS]
    require(len(tables) == 1, "a table of symbols")
    file = File(content, sections, None, b"")
    file.symbols = np.frombuffer(file.part(tables[0]), SYMBOL)
    file.names = file.part(sections[int(tables[0]["link"])])
    return file


def _groups(files: Sequence[File]) -> list[int]:
    """Places sections in memory: code, constants and variables, each group on pages of its own.

    Returns: where each group begins, and the end.
    """
    ends, end = [0], 0
    for wanted in (_is_code, _is_constant, _is_variable):
        for file in files:
            for number in _loaded(file):
                section = file.sections[number]
                if wanted(int(section["flags"])):
                    align = max(1, int(section["align"]))
                    require(align <= mmap.PAGESIZE, "an alignment")
                    end = -(-end // align) * align
                    file.places[number] = end
                    end += int(section["size"])
        end = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        ends.append(end)
    return ends


def _loaded(file: File) -> Iterator[int]:
    for number, section in enumerate(file.sections):
        if int(section["flags"]) & ALLOCATED and int(section["type"]) != UNWINDING:
            require(int(section["type"]) in LOADED, "a type of section")
            require(not int(section["flags"]) & THREAD, "variables of threads")
            yield number


def _is_code(flags: int) -> bool:
    return bool(flags & CODE)


def _is_constant(flags: int) -> bool:
    return not flags & (CODE | WRITABLE)


def _is_variable(flags: int) -> bool:
    return not flags & CODE and bool(flags & WRITABLE)


def _memory(size: int) -> int:
    assert _process is not None
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    start = _process.mmap(
        None, max(size, 1), protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    if start is None or start == ctypes.c_void_p(-1).value:
        raise MemoryError(f"out of memory: could not get {size:,} bytes for code")
    return int(start)
