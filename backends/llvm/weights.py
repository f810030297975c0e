"""Where the weights of a library lie, and how its `create` finds them.

They are bytes of the library, or a safetensors file that `create` maps, in one of two forms.
*Plain* are the weights as the model has them: `create` runs the prologue on them. *Prepared* is
what the prologue makes of them, followed by those weights that runs read as they are; that was
computed when the library was made, so that `create` has nothing to do, and any number of processes
share the pages. A library with its weights inside has one form; one with a file takes both, told
apart by their headers, since other weights of the same shapes come as plain ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..dataclass import dataclass
from ..kernels.program import abi
from ..kernels.program.program import Program
from ..kernels.program.table import Layout, Table, packed_bytes
from .native import has_assembler
from .processor import Processor

WEIGHT = 7  # the field of GtContext that has the places of weights


@dataclass(frozen=True)
class Stored:
    """A safetensors file.

    Attributes:
        header: the length of its text as 8 bytes, and that.
        size: bytes of data.
        offsets: where in the data each weight (by input position) begins.
    """

    header: bytes
    size: int
    offsets: dict[int, int]

    @property
    def text(self) -> bytes:
        """The header's JSON without what pads it."""
        return self.header[8:].rstrip(b" ")


@dataclass(frozen=True)
class Weights:
    """The weights of a library: at least one of `plain` and `prepared`.

    Attributes:
        stable: positions of the inputs that are weights.
        read: those of them that runs read as they are.
        embedded: the data that the library holds itself; None: it comes as a file.
    """

    stable: frozenset[int]
    read: tuple[int, ...]
    plain: Stored | None
    prepared: Stored | None
    embedded: Path | None


class WeightsText:
    """The part of the C ABI's text (library.py) that finds weights and hands them to kernels."""

    name: str
    program: Program
    launches: Table
    layout: Layout
    weights: Weights
    target: Processor
    PACKED = 6  # the field of GtContext that has the packed memory which runs read

    # ---- what the text around it has

    def _string(self, label: str, text: str) -> str:
        raise NotImplementedError

    def _allocate(self, label: str, size: int, field: int, then: str) -> str:
        raise NotImplementedError

    def _frame(self, code: str, symbols: str) -> str:
        raise NotImplementedError

    @staticmethod
    def _word(label: str, index: int, value: str) -> str:
        raise NotImplementedError

    # ---- data

    def _data(self) -> str:
        """The weights' bytes, or the headers that files may have."""
        name, weights = self.name, self.weights
        if weights.embedded is not None:
            if not weights.embedded.stat().st_size:
                return f"@{name}.data = internal constant [1 x i8] zeroinitializer, align 64\n"
            return file_bytes(f"{name}.data", weights.embedded, self.target)
        text = ""
        if weights.prepared is not None:
            text += constant_bytes(f"{name}.prepared", weights.prepared.header)
        if weights.plain is not None:
            text += constant_bytes(f"{name}.plain", weights.plain.text)
        return text

    # ---- create

    def _find_weights(self) -> str:
        """Finds the weights, runs the prologue if need be, and leaves `create`."""
        return self._inside() if self.weights.embedded is not None else self._mapped()

    def _inside(self) -> str:
        message = self._string(
            "msg.embedded",
            f"{self.name}_create: the weights are embedded, pass NULL for their file",
        )
        weights, data = self.weights, f"@{self.name}.data"
        if weights.prepared is not None:
            rest = self._when_prepared(weights.prepared, data)
        else:
            assert weights.plain is not None
            rest = self._when_plain(weights.plain, data)
        return f"""  %given = icmp ne ptr %path, null
  br i1 %given, label %surplus, label %inside
surplus:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr @{self.name}.error, i64 256, ptr {message})
  br label %fail
inside:
{rest}"""

    def _mapped(self) -> str:
        name, weights = self.name, self.weights
        missing = self._string(
            "msg.missing", f"{name}_create: pass the path of the safetensors file with the weights"
        )
        unread = self._string(
            "msg.unread", f"{name}_create: cannot open or map the weights file '%s'"
        )
        fail = f"call i32 (ptr, i64, ptr, ...) @snprintf(ptr @{name}.error, i64 256, ptr"
        assert weights.plain is not None
        return f"""  %no_path = icmp eq ptr %path, null
  br i1 %no_path, label %missing, label %open
missing:
  {fail} {missing})
  br label %fail
open:
  %file = call i32 (ptr, i32, ...) @open(ptr %path, i32 0)
  %closed = icmp slt i32 %file, 0
  br i1 %closed, label %unread, label %measure
unread:
  {fail} {unread}, ptr %path)
  br label %fail
measure:
  %bytes = call i64 @lseek(i32 %file, i64 0, i32 2)
  %some = icmp sgt i64 %bytes, 8
  br i1 %some, label %map, label %shut
shut:
  call i32 @close(i32 %file)
  br label %other
other:
  {fail} {self._expected()}, ptr %path)
  br label %fail
map:
  %mapped = call ptr @mmap(ptr null, i64 %bytes, i32 1, i32 2, i32 %file, i64 0)
  call i32 @close(i32 %file)
  %address = ptrtoint ptr %mapped to i64
  %bad_map = icmp eq i64 %address, -1
  br i1 %bad_map, label %unread, label %compare
compare:
  %map.p = getelementptr %GtContext, ptr %context, i32 0, i32 3
  store ptr %mapped, ptr %map.p
  %length.p = getelementptr %GtContext, ptr %context, i32 0, i32 4
  store i64 %bytes, ptr %length.p
{self._compare_prepared(weights.prepared)}
{self._compare_plain(weights.plain)}"""

    def _expected(self) -> str:
        sizes = [
            str(len(stored.header) + stored.size)
            for stored in (self.weights.prepared, self.weights.plain)
            if stored is not None
        ]
        return self._string(
            "msg.other",
            f"{self.name}_create: '%s' is not the weights file this library was compiled with: "
            f"expected {' or '.join(sizes)} bytes with the same tensors in the same order",
        )

    def _compare_prepared(self, prepared: Stored | None) -> str:
        """Goes on with a file that is the prepared one, byte for byte of its header."""
        if prepared is None:
            return "  br label %plain.b"
        length = len(prepared.header)
        return f"""  %prepared.size = icmp eq i64 %bytes, {length + prepared.size}
  br i1 %prepared.size, label %prepared.b, label %plain.b
prepared.b:
  %prepared.differ = call i32 @memcmp(ptr %mapped, ptr @{self.name}.prepared, i64 {length})
  %prepared.same = icmp eq i32 %prepared.differ, 0
  br i1 %prepared.same, label %prepared, label %plain.b
prepared:
  %prepared.data = getelementptr i8, ptr %mapped, i64 {length}
{self._when_prepared(prepared, "%prepared.data")}"""

    def _compare_plain(self, plain: Stored) -> str:
        """Goes on with a file of the same tensors; spaces may pad its header."""
        length = len(plain.text)
        return f"""plain.b:
  %text.length = load i64, ptr %mapped, align 8
  %rest = sub i64 %bytes, {plain.size + 8}
  %fits = icmp eq i64 %text.length, %rest
  %beyond = and i64 %text.length, 7
  %even = icmp eq i64 %beyond, 0
  %long = icmp uge i64 %text.length, {length}
  %fits.even = and i1 %fits, %even
  %plain.size = and i1 %fits.even, %long
  br i1 %plain.size, label %plain.text, label %other
plain.text:
  %text = getelementptr i8, ptr %mapped, i64 8
  %plain.differ = call i32 @memcmp(ptr %text, ptr @{self.name}.plain, i64 {length})
  %plain.same = icmp eq i32 %plain.differ, 0
  br i1 %plain.same, label %plain, label %other
plain:
  %plain.data = getelementptr i8, ptr %text, i64 %text.length
{self._when_plain(plain, "%plain.data")}"""

    def _when_prepared(self, prepared: Stored, data: str) -> str:
        """What the prologue would make begins the data at `data`."""
        lines = [
            f"  %made.p = getelementptr %GtContext, ptr %context, i32 0, i32 {self.PACKED}",
            f"  store ptr {data}, ptr %made.p",
            *self._places("prepared", prepared, data),
            "  ret ptr %context",
        ]
        return "\n".join(lines)

    def _when_plain(self, plain: Stored, data: str) -> str:
        """Runs the prologue on the weights at `data`."""
        lines = [
            self._allocate("packed", packed_bytes(self.program), 1, "pack"),
            "pack:",
            "  %own.p = getelementptr %GtContext, ptr %context, i32 0, i32 1",
            "  %own = load ptr, ptr %own.p",
            f"  %made.q = getelementptr %GtContext, ptr %context, i32 0, i32 {self.PACKED}",
            "  store ptr %own, ptr %made.q",
            *self._places("plain", plain, data),
            self._run_prologue(plain, data) if self.program.prologue else "  ret ptr %context",
        ]
        return "\n".join(lines)

    def _places(self, label: str, stored: Stored, data: str) -> list[str]:
        """Tells runs where the weights lie that they read as they are."""
        lines = []
        for i, position in enumerate(self.weights.read):
            place = f"%{label}.{i}"
            lines += [
                f"  {place} = getelementptr i8, ptr {data}, i64 {stored.offsets[position]}",
                f"  {place}.p = getelementptr %GtContext, ptr %context, i32 0, i32 {WEIGHT}, "
                f"i64 {i}",
                f"  store ptr {place}, ptr {place}.p",
            ]
        return lines

    def _run_prologue(self, plain: Stored, data: str) -> str:
        # What depends on weights only does not depend on symbols: any values will do.
        count = max(1, len(self.program.symbols))
        return f"""  %symbols = alloca [{count} x i64], align 64
  call void @llvm.memset.p0.i64(ptr %symbols, i8 0, i64 {8 * count}, i1 false)
{self._frame("prologue", "%symbols")}
{self._prologue_weights(plain, data)}
{self._memory_arguments()}
{self._end_of_prologue()}"""

    def _prologue_weights(self, plain: Stored, data: str) -> str:
        """Stores the addresses of all weights into ``%args``."""
        return self._weight_words((data, i, offset) for i, offset in plain.offsets.items())

    def _end_of_prologue(self) -> str:
        """Runs the prologue's launches and leaves `create`."""
        return "  call i32 @gt_run(ptr %args)\n  ret ptr %context"

    # ---- run

    def _weight_words(self, places: Iterable[tuple[str, int, int]]) -> str:
        """Stores the addresses of weights into ``%args``: each is told from a base, has a position
        as an input, and begins an offset from the base."""
        lines = []
        for base, position, offset in places:
            lines += [
                f"  %w{position} = getelementptr i8, ptr {base}, i64 {offset}",
                self._word(f"w{position}", abi.HEADER + position, f"ptr %w{position}"),
            ]
        return "\n".join(lines)

    def _weight_arguments(self) -> str:
        """Stores the addresses of the weights that a run reads as they are."""
        lines = []
        for i, position in enumerate(self.weights.read):
            lines += [
                f"  %w{position}.at = getelementptr %GtContext, ptr %context, i32 0, "
                f"i32 {WEIGHT}, i64 {i}",
                f"  %w{position} = load ptr, ptr %w{position}.at",
                self._word(f"w{position}", abi.HEADER + position, f"ptr %w{position}"),
            ]
        return "\n".join(lines)

    def _memory_arguments(self) -> str:
        """Stores the addresses of the context's memory."""
        return "\n".join(
            [
                "  %arena.m = load ptr, ptr %context",
                self._word("arena.a", self.layout.arena, "ptr %arena.m"),
                f"  %packed.f = getelementptr %GtContext, ptr %context, i32 0, i32 {self.PACKED}",
                "  %packed.m = load ptr, ptr %packed.f",
                self._word("packed.a", self.layout.packed, "ptr %packed.m"),
            ]
        )


def file_bytes(symbol: str, file: Path, target: Processor) -> str:
    """The bytes of a file as a constant of the library."""
    if not has_assembler(target):
        return constant_bytes(symbol, file.read_bytes())
    path = str(file).replace("\\", "/")
    # The assembler reads the file: a string constant of megabytes would have to be parsed as text.
    lines = [
        ".section .rodata",
        ".p2align 6",
        f"\\22{symbol}\\22:",
        f".incbin \\22{path}\\22",
        ".text",
    ]
    return (
        "".join(f'module asm "{line}"\n' for line in lines)
        + f"@{symbol} = external hidden constant [{file.stat().st_size} x i8], align 64\n"
    )


def constant_bytes(name: str, data: bytes) -> str:
    digits = "\\" + data.hex("\\")
    return f'@{name} = internal constant [{len(data)} x i8] c"{digits}", align 64\n'
