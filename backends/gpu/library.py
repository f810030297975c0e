"""A program for GPUs as a library that needs NVIDIA's driver and nothing else where it runs.

The C ABI is that of libraries for CPUs (llvm/library.py), with DLPack tensors in CUDA memory. The
host's part is LLVM code: the same loop walks the table of launches, whose kernels are functions
that work out grids and call the driver (driver.py). Kernels are in the library as images: a cubin
for each of some machines, and PTX that drivers compile for others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from graphtorch.ir.shape import Condition, bounds

from ..dataclass import dataclass
from ..kernels import ir as k
from ..kernels.ir import Expr, Name
from ..kernels.program.plan import Plan
from ..kernels.program.program import Program, Slot
from ..kernels.program.table import Table
from ..llvm import cpuid, tensor_check
from ..llvm import walk as host_walk
from ..llvm.emit import ModuleEmitter
from ..llvm.library import Abi, merged, table_text
from ..llvm.processor import Processor
from ..llvm.tensor_check import constant_string
from ..llvm.weights import Stored, Weights, file_bytes
from . import driver, emulated, nvrtc
from .device import DeviceError, Piece
from .unit import Stage
from .walk import Kernel

ALIGNMENT = 256  # bytes: of each weight on the GPU
EMULATED = "emulated"  # the architecture of the emulated device
WANTED = ("sm_80", "sm_90", "sm_100", "sm_120", "compute_90")
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)(a?)")


@dataclass(frozen=True)
class Image:
    """The pieces of a unit as one kind of machine takes them, one file each."""

    architecture: str
    files: tuple[Path, ...]

    @property
    def machine(self) -> tuple[int, int, int]:
        """Kind of image, major and minor version of what it is for."""
        if self.architecture == EMULATED:
            return driver.EXACT, *emulated.CAPABILITY
        kind, major, minor, exact = _parts(self.architecture)
        return (
            driver.PTX if kind == "compute" else driver.EXACT if exact else driver.CUBIN,
            major,
            minor,
        )


def _parts(architecture: str) -> tuple[str, int, int, str]:
    found = _ARCHITECTURE.fullmatch(architecture)
    if found is None:
        raise ValueError(
            f"aot.compile: there is no architecture {architecture!r}: pass names such as sm_90 "
            "for machine code and compute_90 for PTX, which drivers compile for later "
            "GPUs"
        )
    return found[1], int(found[2]), int(found[3]), found[4]


def architectures(emulates: bool) -> tuple[str, ...]:
    """Those that a library is made for unless somebody says: what this NVRTC knows of `WANTED`.

    Raises: RuntimeError: there is no NVRTC.
    """
    if emulates:
        return (EMULATED,)
    if nvrtc.library() is None:
        raise RuntimeError(
            'aot.compile(device="cuda") compiles kernels with NVRTC, and there is none: '
            "pip install nvidia-cuda-nvrtc"
        )
    known = set(nvrtc.architectures())
    return tuple(name for name in WANTED if _parts(name)[1] * 10 + _parts(name)[2] in known)


def check_architectures(names: Sequence[str]) -> None:
    """Raises: ValueError: one is not an architecture, or not known to this NVRTC; or there is
    none."""
    if not names:
        raise ValueError(
            "aot.compile: architectures is empty: a library needs code for one at least"
        )
    for name in names:
        if name != EMULATED:
            kind, major, minor, _ = _parts(name)
            if nvrtc.library() is not None and major * 10 + minor not in nvrtc.architectures():
                raise ValueError(
                    f"aot.compile: NVRTC {nvrtc.version()} does not know {name}, but "
                    + ", ".join(f"{kind}_{n}" for n in nvrtc.architectures())
                )


def images(
    pieces: Sequence[Piece], names: Sequence[str], folder: Path, threads: int
) -> list[Image]:
    """`pieces` compiled for each of the architectures, as files in `folder`.

    Raises: RuntimeError: there is no compiler, or it refuses the text.
    """
    texts = [p.text for p in pieces]
    made = []
    try:
        for name in names:
            codes = (
                emulated.codes(pieces) if name == EMULATED else nvrtc.cubins(texts, name, threads)
            )
            files = tuple(folder / f"{name}.{i}" for i in range(len(codes)))
            for file, code in zip(files, codes, strict=True):
                file.write_bytes(code)
            made.append(Image(name, files))
    except DeviceError as error:
        raise RuntimeError(f"aot.compile: {error}") from error
    return made


@dataclass(frozen=True)
class Code:
    """The kernels of a program.

    Attributes:
        kernels: by number, as the table of launches calls them.
        pieces: the texts that they are in.
        images: these, compiled.
    """

    kernels: Sequence[Kernel]
    pieces: Sequence[Piece]
    images: Sequence[Image]

    @property
    def stages(self) -> list[Stage]:
        """All CUDA functions, in the order of their numbers."""
        return list(dict.fromkeys(s for kernel in self.kernels for s in kernel.stages))


def library_text(
    name: str,
    program: Program,
    plan: Plan,
    table: Table,
    code: Code,
    weights: Weights,
    metadata: str,
    target: Processor,
    conditions: Sequence[Condition] = (),
) -> str:
    """LLVM IR of the whole library.

    Args: target: the host's machine.
    """
    functions = [f"{name}.kernel{i}" for i in range(len(table.kernels))]
    stages = code.stages
    numbers = {stage.function: i for i, stage in enumerate(stages)}
    context = driver.context_type(len(code.pieces), len(stages))
    return merged(
        (
            ModuleEmitter(name, target).text(),
            tensor_check.check_function(tensor_check.CUDA),
            _LIBC.replace("CONTEXT", context),
            driver.text(len(code.pieces), len(stages), len(code.images), bool(program.errors)),
            host_walk.loop(driver.LOOK, driver.FAILED),
            "".join(
                _launcher(f, kernel, numbers)
                for f, kernel in zip(functions, code.kernels, strict=True)
            ),
            table_text(name, table, functions),
            _images_text(code, stages, target),
            CudaAbi(name, program, plan, table, weights, metadata, target, conditions).text(),
        )
    )


_LIBC = """
declare ptr @calloc(i64, i64)
declare void @free(ptr)
declare i32 @open(ptr, i32, ...)
declare i32 @close(i32)
declare i64 @lseek(i32, i64, i32)
declare i32 @memcmp(ptr, ptr, i64)
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
CONTEXT"""


def _images_text(code: Code, stages: Sequence[Stage], target: Processor) -> str:
    """The images, what they are for, and the kernels in them."""
    piece_of = {name: i for i, piece in enumerate(code.pieces) for name in piece.kernels}
    text, labels = [], []
    for i, image in enumerate(code.images):
        for j, file in enumerate(image.files):
            labels.append(f"gt.image.{i}.{j}")
            text.append(file_bytes(labels[-1], file, target))
    rows = [_struct("i32", *image.machine) for image in code.images]
    text.append(
        f"@gt.machines = private constant [{len(rows)} x {{ i32, i32, i32 }}] [{', '.join(rows)}]\n"
    )
    text.append(
        f"@gt.images = private constant [{len(labels)} x ptr] "
        f"[{', '.join(f'ptr @{label}' for label in labels)}]\n"
    )
    text.append(constant_string("gt.machines.text", ", ".join(i.architecture for i in code.images)))
    names = [constant_string(f"gt.kernel.{i}", stage.function) for i, stage in enumerate(stages)]
    kernels = [
        f"{{ ptr, i32, i32 }} {{ ptr @gt.kernel.{i}, i32 {piece_of[s.function]}, i32 {s.shared} }}"
        for i, s in enumerate(stages)
    ]
    text += names
    text.append(
        f"@gt.kernels = private constant [{len(kernels)} x {{ ptr, i32, i32 }}] "
        f"[{', '.join(kernels)}]\n"
    )
    return "".join(text)


def _struct(kind: str, *values: int) -> str:
    kinds = ", ".join(kind for _ in values)
    return f"{{ {kinds} }} {{ {', '.join(f'{kind} {v}' for v in values)} }}"


# ----------------------------------------------------------------------------------------- launches


def _launcher(name: str, kernel: Kernel, numbers: Mapping[str, int]) -> str:
    """A function that launches a kernel's stages one after the other, on the operands of the
    table."""
    lines = []
    for i in range(len(kernel.sizes)):
        lines += [
            f"  %size{i}.p = getelementptr i64, ptr %operands, i64 {kernel.buffers + i}",
            f"  %size{i} = load i64, ptr %size{i}.p",
        ]
    operands = kernel.buffers + len(kernel.sizes)
    for j, stage in enumerate(kernel.stages):
        count, block = "1", 1
        if stage.tasks is not None:
            counts = Counts(f"s{j}", stage)
            count, block = counts.count(), stage.threads
            lines += counts.lines
        lines.append(
            f"  call void @gt.cuda.stage(ptr %state, i64 {numbers[stage.function]}, i64 {count}, "
            f"i32 {block}, i32 {stage.shared}, ptr %operands, i64 {operands})"
        )
    head = f"define internal void @{name}(ptr %operands, ptr %state) {{"
    return "\n".join([head, *lines, "  ret void", "}", ""])


class Counts:
    """Emits how many iterations the loop of a stage has, over the kernel's sizes ``%size0`` and so
    on."""

    def __init__(self, prefix: str, stage: Stage):
        assert stage.tasks is not None
        self.lines: list[str] = []
        self._prefix = prefix
        self._tasks = stage.tasks
        self._known: dict[Name, str] = {n: f"%size{i}" for i, n in enumerate(stage.tasks.sizes)}

    def count(self) -> str:
        """An operand that is the number of iterations; -1 where that depends on what is in
        memory."""
        tasks = self._tasks
        if tasks.count([1] * len(tasks.sizes)) is None:
            return "-1"
        for let in tasks.lets:
            self._known[let.name] = self._value(let.value)
        low, high, step = (self._value(e) for e in (tasks.loop.lo, tasks.loop.hi, tasks.loop.step))
        span = self._let(f"sub i64 {high}, {low}")
        more = self._let(f"add i64 {span}, {self._let(f'sub i64 {step}, 1')}")
        whole = self._let(f"sdiv i64 {more}, {step}")
        return self._select(f"icmp sgt i64 {span}, 0", whole, "0")

    def _let(self, text: str) -> str:
        name = f"%{self._prefix}.{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def _select(self, condition: str, then: str, orelse: str) -> str:
        return self._let(f"select i1 {self._let(condition)}, i64 {then}, i64 {orelse}")

    def _value(self, e: Expr) -> str:
        if isinstance(e, k.Const):
            return str(int(e.value))
        if isinstance(e, Name):
            return self._known[e]
        assert isinstance(e, k.Binary)
        a, b = self._value(e.a), self._value(e.b)
        if e.op in ("min", "max"):
            return self._select(f"icmp {'slt' if e.op == 'min' else 'sgt'} i64 {a}, {b}", a, b)
        if e.op in ("div", "rem"):
            return self._divided(e.op, a, b)
        return self._let(f"{e.op} i64 {a}, {b}")

    def _divided(self, op: str, a: str, b: str) -> str:
        """x / 0 = x % 0 = 0, as in kernels."""
        divisor = self._select(f"icmp eq i64 {b}, 0", "1", b)
        found = self._let(f"{'sdiv' if op == 'div' else 'srem'} i64 {a}, {divisor}")
        return self._select(f"icmp eq i64 {b}, 0", "0", found)


# ------------------------------------------------------------------------------------------ the ABI


class CudaAbi(Abi):
    """Emits the functions of the C ABI: as `Abi`, with a GPU's memory.

    What C calls enters the driver's context that `create` found, calls the function of `Abi`, and
    leaves.
    """

    PACKED = 1

    def text(self) -> str:
        who = [
            constant_string(f"{self.name}.who.{f}", f"{self.name}_{f}") for f in ("create", "run")
        ]
        entries = self._entries()  # before the texts of its messages are written
        return "\n".join([*who, super().text(), entries])

    def _head(self, result: str, function: str, arguments: str) -> str:
        more = ", ptr %place" if function == "create" else ""
        return f"define internal {result} @{self.name}.own.{function}({arguments}{more}) {{"

    def _entry(self) -> str:
        return self._lacking()

    def _entries(self) -> str:
        """The functions that C calls."""
        return self._create_entry() + self._run_entry() + self._destroy_entry()

    def _create_entry(self) -> str:
        name = self.name
        return f"""
define ptr @{name}_create(ptr %path) {cpuid.BASELINE} {{
entry:
  %place = alloca %GtPlace
  store i8 0, ptr @{name}.error
{self._ask_processor("begin", "fail")}
begin:
  %begun = call i32 @gt.cuda.begin(ptr @{name}.error, ptr @{name}.who.create, ptr %place)
  %open = icmp eq i32 %begun, 0
  br i1 %open, label %make, label %fail
make:
  %context = call ptr @{name}.own.create(ptr %path, ptr %place)
  call void @gt.cuda.leave()
  %none = icmp eq ptr %context, null
  br i1 %none, label %give, label %done
give:
  call void @gt.cuda.end(ptr %place)
  br label %fail
fail:
  ret ptr null
done:
  ret ptr %context
}}
"""

    def _run_entry(self) -> str:
        name = self.name
        return f"""\
define i32 @{name}_run(ptr %context, ptr %in, i32 %in_count, ptr %out, i32 %out_count) {{
entry:
  %none = icmp eq ptr %context, null
  br i1 %none, label %bad, label %there
bad:
  ret i32 {tensor_check.NULL}
there:
  %error = getelementptr %GtContext, ptr %context, i32 0, i32 {driver.ERROR}
  %entered = call i32 @gt.cuda.enter(ptr %error, ptr @{name}.who.run, ptr %context)
  %in.context = icmp eq i32 %entered, 0
  br i1 %in.context, label %go, label %broken
broken:
  ret i32 {tensor_check.DRIVER}
go:
  %code = call i32 @{name}.own.run(ptr %context, ptr %in, i32 %in_count, ptr %out, i32 %out_count)
  call void @gt.cuda.leave()
  ret i32 %code
}}
"""

    def _destroy_entry(self) -> str:
        name = self.name
        return f"""\
define void @{name}_destroy(ptr %context) {{
entry:
  %place = alloca %GtPlace
  %none = icmp eq ptr %context, null
  br i1 %none, label %done, label %there
there:
  %driver.p = getelementptr %GtContext, ptr %context, i32 0, i32 {driver.CONTEXT}
  call void @llvm.memcpy.p0.p0.i64(ptr %place, ptr %driver.p, \
i64 ptrtoint (ptr getelementptr (%GtPlace, ptr null, i32 1) to i64), i1 false)
  %error = getelementptr %GtContext, ptr %context, i32 0, i32 {driver.ERROR}
  %entered = call i32 @gt.cuda.enter(ptr %error, ptr @{name}.who.run, ptr %context)
  call void @{name}.own.destroy(ptr %context)
  %in.context = icmp eq i32 %entered, 0
  br i1 %in.context, label %leave, label %end
leave:
  call void @gt.cuda.leave()
  br label %end
end:
  call void @gt.cuda.end(ptr %place)
  br label %done
done:
  ret void
}}
"""

    # ---- create

    def _checked(self, label: str, call: str, then: str) -> str:
        """A call that returns 0, or leaves a message and makes `create` fail."""
        return f"""  %{label}.code = call i32 @gt.cuda.{call}
  %{label}.good = icmp eq i32 %{label}.code, 0
  br i1 %{label}.good, label %{then}, label %fail"""

    def _who(self, function: str = "create") -> str:
        """The first two arguments of most functions: where messages go, and in whose name."""
        error = f"@{self.name}.error" if function == "create" else "%error"
        return f"ptr {error}, ptr @{self.name}.who.{function}"

    def _begin(self) -> str:
        copied = "i64 ptrtoint (ptr getelementptr (%GtPlace, ptr null, i32 1) to i64)"
        return "\n".join(
            [
                "  %driver.p = getelementptr %GtContext, ptr %context, i32 0, "
                f"i32 {driver.CONTEXT}",
                f"  call void @llvm.memcpy.p0.p0.i64(ptr %driver.p, ptr %place, {copied}, "
                "i1 false)",
                self._checked("load", f"load({self._who()}, ptr %context)", "functions.b"),
                "functions.b:",
                self._checked("functions", f"functions({self._who()}, ptr %context)", "status.b"),
                "status.b:",
                self._allocate("status", 4, driver.STATUS, "clear.b"),
                "clear.b:",
                "  %status.place = load ptr, ptr %status.field",
                self._checked(
                    "clear", f"clear({self._who()}, ptr %status.place, i64 4)", "memory.b"
                ),
                "memory.b:",
            ]
        )

    def _allocate(self, label: str, size: int, field: int, then: str) -> str:
        if not size:
            return f"  br label %{then}"
        return (
            f"  %{label}.field = getelementptr %GtContext, ptr %context, i32 0, i32 {field}\n"
            + self._checked(label, f"allocate({self._who()}, ptr %{label}.field, i64 {size})", then)
        )

    def _when_plain(self, plain: Stored, data: str) -> str:
        """Copies weights and constants to the GPU first."""
        constants = len(self.launches.constants)
        rows, size = self._weight_rows()
        return "\n".join(
            [
                self._upload(
                    "constants",
                    driver.CONSTANTS,
                    [(0, 0, constants)] if constants else [],
                    f"@{self.name}.constants",
                    constants,
                ),
                self._upload("weights", driver.WEIGHTS, rows, data, size),
                super()._when_plain(plain, data),
            ]
        )

    def _upload(
        self, label: str, field: int, rows: Sequence[tuple[int, int, int]], source: str, size: int
    ) -> str:
        # the driver has neither memory nor copies of 0 bytes
        rows = [row for row in rows if row[2]]
        if not rows:
            return ""
        table = ", ".join(_struct("i64", *row) for row in rows)
        self._globals.append(
            f"@{self.name}.rows.{label} = private constant [{len(rows)} x "
            f"{{ i64, i64, i64 }}] [{table}]\n"
        )
        return "\n".join(
            [
                f"  %{label}.place = getelementptr %GtContext, ptr %context, i32 0, i32 {field}",
                self._checked(
                    label,
                    f"upload({self._who()}, ptr %{label}.place, i64 {size}, ptr {source}, ptr "
                    f"@{self.name}.rows.{label}, i64 "
                    f"{len(rows)})",
                    f"{label}.done",
                ),
                f"{label}.done:",
            ]
        )

    def _weight_rows(self) -> tuple[list[tuple[int, int, int]], int]:
        """Each weight's offset in the data, its offset on the GPU and its bytes; and the bytes of
        all."""
        assert self.weights.plain is not None
        rows, end = [], 0
        for position, slot in self._weight_slots():
            size = int(slot.elements) * slot.dtype.itemsize
            rows.append((self.weights.plain.offsets[position], end, size))
            end += -(-size // ALIGNMENT) * ALIGNMENT
        return rows, end

    def _weight_slots(self) -> Iterator[tuple[int, Slot]]:
        return ((s.index, s) for s in self.program.inputs if s.index in self.weights.stable)

    def _release(self) -> str:
        return f"  call void @{self.name}.own.destroy(ptr %context)"

    def _freed(self) -> str:
        lines = []
        for field in (0, 1, driver.WEIGHTS, driver.CONSTANTS, driver.STATUS):
            lines += [
                f"  %f{field} = getelementptr %GtContext, ptr %context, i32 0, i32 {field}",
                f"  call void @gt.cuda.free(ptr %f{field})",
            ]
        return "\n".join([*lines, "  call void @gt.cuda.unload(ptr %context)"])

    # ---- run

    def _constants(self) -> str:
        return "%constants.m"

    def _lines_for_constants(self) -> Sequence[str]:
        return (
            "  %constants.f = getelementptr %GtContext, ptr %context, i32 0, "
            f"i32 {driver.CONSTANTS}",
            "  %constants.m = load ptr, ptr %constants.f",
        )

    def _weight_arguments(self) -> str:
        starts = [row[1] for row in self._weight_rows()[0]]
        return "\n".join(
            [
                "  %gpu.weights.p = getelementptr %GtContext, ptr %context, i32 0, "
                f"i32 {driver.WEIGHTS}",
                "  %gpu.weights = load ptr, ptr %gpu.weights.p",
                self._weight_words(
                    ("%gpu.weights", position, start)
                    for (position, _), start in zip(self._weight_slots(), starts, strict=True)
                ),
            ]
        )

    def _prologue_weights(self, plain: Stored, data: str) -> str:
        return self._weight_arguments()

    def _end_of_prologue(self) -> str:
        return f"""  %prologue = call i32 @gt.cuda.run({self._who()}, ptr %args, ptr %context)
  %prepared = icmp sge i32 %prologue, 0
  br i1 %prepared, label %prologue.done, label %fail
prologue.done:
  ret ptr %context"""

    def _launches(self) -> str:
        return f"""  %status = call i32 @gt.cuda.run({self._who("run")}, ptr %args, ptr %context)
  %driver.good = icmp sge i32 %status, 0
  br i1 %driver.good, label %ran, label %driver.bad
driver.bad:
  ret i32 {tensor_check.DRIVER}
ran:"""

    def _check(self, side: str, i: int, bind: bool) -> str:
        label = f"{side}{i}.{'gpu' if bind else 'gpu.compare'}"
        base = f"{side}{i}.{'bind' if bind else 'compare'}"
        return (
            super()._check(side, i, bind)
            + f"""
  %{label}.c = call i32 @gt.cuda.same_gpu(ptr %error, ptr {self._role(side)}, i32 {i}, \
ptr %{base}.t, ptr %{base}.s, ptr %context)
  %{label}.ok = icmp eq i32 %{label}.c, 0
  br i1 %{label}.ok, label %{label}.next, label %{label}.bad
{label}.bad:
  ret i32 %{label}.c
{label}.next:"""
        )

    def _grow(self) -> str:
        if self._arena_bytes() or bounds(self.plan.size) == (0, 0):
            return ""
        return f"""  %have.p = getelementptr %GtContext, ptr %context, i32 0, i32 2
  %have = load i64, ptr %have.p
  %enough = icmp uge i64 %have, %arena.size
  br i1 %enough, label %grown, label %grow
grow:
  call void @gt.cuda.free(ptr %context)
  store i64 0, ptr %have.p
  %grow.code = call i32 @gt.cuda.allocate({self._who("run")}, ptr %context, i64 %arena.size)
  %grow.bad = icmp ne i32 %grow.code, 0
  br i1 %grow.bad, label %bad_memory, label %larger
larger:
  store i64 %arena.size, ptr %have.p
  br label %grown
grown:"""


__all__ = [
    "EMULATED",
    "Code",
    "Image",
    "architectures",
    "check_architectures",
    "images",
    "library_text",
]
