"""A program as a self-contained library: its entry, the thread pool, and the C ABI around them.

    int32_t     gt_abi_version(void)
    NAME_context *NAME_create(const char *weights)
    int32_t     NAME_run(context, const DLTensor *in, int32_t n, DLTensor *out, int32_t n)
    size_t      NAME_workspace_size(context)       const char *NAME_last_error(context or NULL)
    const char *NAME_metadata(void)                void NAME_set_num_threads(int32_t)
    void        NAME_destroy(context)

Where the weights lie is told in weights.py. Only libc and libm symbols are used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphtorch.ir.dtype import DType, Kind
from graphtorch.ir.dtype import bf16 as BF16
from graphtorch.ir.graph import Type
from graphtorch.ir.shape import UNBOUNDED, Condition, Dim, SymInt, bounds, plain_symbol

from ..kernels.program import abi
from ..kernels.program.plan import Plan
from ..kernels.program.program import Program, Slot
from ..kernels.program.table import Layout, Table
from . import cpuid, runtime, tensor_check, walk
from .emit import ModuleEmitter
from .processor import Processor
from .sizes import Sizes
from .tensor_check import constant_string
from .weights import Weights, WeightsText, constant_bytes

ABI_VERSION = 1
# a bound above this means "no bound": the arena then grows when a call needs it
LARGEST_ARENA = 1 << 40

# DLPack type codes
CODES = {Kind.BOOL: 6, Kind.FLOAT: 2, Kind.COMPLEX: 5}


def library_text(
    name: str,
    program: Program,
    plan: Plan,
    table: Table,
    weights: Weights,
    metadata: str,
    target: Processor,
    conditions: Sequence[Condition] = (),
) -> str:
    """LLVM IR of the whole library; a call whose sizes do not meet `conditions` is refused."""
    module = ModuleEmitter(name, target)
    left_out = table.once if weights.plain is None else set()  # nobody runs the prologue
    functions = [None if i in left_out else f"{name}.kernel{i}" for i in range(len(table.kernels))]
    for function, (kernel, memory) in zip(functions, table.kernels, strict=True):
        if function is not None:
            module.launcher(function, kernel, memory, "internal")
    return merged(
        (
            module.text(),
            runtime.text(target, "internal"),
            walk.text("internal"),
            tensor_check.check_function(),
            LIBC,
            context_type(weights),
            table_text(name, table, functions),
            Abi(name, program, plan, table, weights, metadata, target, conditions).text(),
        )
    )


def table_text(name: str, table: Table, functions: Sequence[str | None]) -> str:
    """The table of launches as constants of the library; `functions`: None for one that is never
    called."""

    def words(label: str, width: int, values: Sequence[int]) -> str:
        rows = ", ".join(f"i{width} {v}" for v in values)
        return f"@{name}.{label} = internal constant [{len(values)} x i{width}] [{rows}]\n"

    pointers = ", ".join(f"ptr @{f}" if f else "ptr null" for f in functions)
    text = [
        words("launches", 32, table.launches),
        words("prologue", 32, table.prologue),
        f"@{name}.functions = internal constant [{len(functions)} x ptr] [{pointers}]\n",
        constant_bytes(f"{name}.constants", table.constants or bytes(1)),
    ]
    if not symbolic(table):
        text.append(words("launch_sizes", 64, [int(d) for d in table.sizes]))  # type: ignore[arg-type]
    return "".join(text)


def symbolic(table: Table) -> bool:
    """Whether the sizes of a table's launches depend on symbols."""
    return not all(isinstance(d, int) for d in table.sizes)


def merged(parts: Sequence[str]) -> str:
    """One module from several texts: a function is declared once, and not at all where it is
    defined."""
    lines = [line for part in parts for line in part.splitlines()]
    known = {
        m.group(1) for line in lines if line.startswith("define ") and (m := _FUNCTION.search(line))
    }
    kept = []
    for line in lines:
        if line.startswith("declare "):
            found = _FUNCTION.search(line)
            if found and found.group(1) in known:
                continue
            if found:
                known.add(found.group(1))
        kept.append(line)
    return "\n".join(kept) + "\n"


_FUNCTION = re.compile(r"@([\w.$]+)\(")


def exported(name: str) -> list[str]:
    """The symbols a library defines."""
    parts = [
        "create",
        "run",
        "workspace_size",
        "last_error",
        "metadata",
        "set_num_threads",
        "destroy",
    ]
    return ["gt_abi_version", *(f"{name}_{p}" for p in parts)]


LIBC = """
declare ptr @calloc(i64, i64)
declare ptr @realloc(ptr, i64)
declare void @free(ptr)
declare i32 @posix_memalign(ptr, i64, i64)
declare i32 @open(ptr, i32, ...)
declare i32 @close(i32)
declare i64 @lseek(i32, i64, i32)
declare i32 @memcmp(ptr, ptr, i64)
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""


def context_type(weights: Weights) -> str:
    """GtContext: arena, packed memory of its own, bytes of the arena, mapped weights, bytes mapped,
    last error, packed memory that runs read, and each weight that they read.

    gpu/driver.py has one that begins so.
    """
    places = f"[{len(weights.read)} x ptr]"
    return f"%GtContext = type {{ ptr, ptr, i64, ptr, i64, [256 x i8], ptr, {places} }}\n"


def dtype_code(dtype: DType) -> int:
    """DLPack's type code."""
    if dtype is BF16:
        return 4
    return CODES.get(dtype.kind, 0 if dtype.signed else 1)


class Abi(WeightsText):
    """Emits the functions of the C ABI.

    Libraries for other devices (gpu/library.py) override what concerns memory and the run itself.
    """

    def __init__(
        self,
        name: str,
        program: Program,
        plan: Plan,
        launches: Table,
        weights: Weights,
        metadata: str,
        target: Processor,
        conditions: Sequence[Condition] = (),
    ):
        self.name = name
        self.conditions = conditions
        self.program = program
        self.plan = plan
        self.launches = launches
        self.layout = Layout(len(program.inputs), len(program.outputs))
        self.weights = weights
        self.metadata = metadata
        self.target = target
        self.inputs = [s for s in program.inputs if s.index not in weights.stable]
        self.outputs = list(program.outputs)
        self.table: list[Dim] = [SymInt.atom(s) for s in program.symbols]
        self._globals: list[str] = []

    def text(self) -> str:
        specs = "".join(self._specs("in", self.inputs) + self._specs("out", self.outputs))
        self._require_bound()
        functions = [
            self._sizes(),
            self._static_functions(),
            self._data(),
            self._create(),
            self._entry(),
            self._run(),
            self._destroy(),
        ]
        return "\n".join([specs, *self._globals, *functions])

    def _require_bound(self) -> None:
        plain = {s for slot in self.inputs for d in slot.shape for s in [plain_symbol(d)] if s}
        unbound = [s.name for s in self.program.symbols if s not in plain]
        if unbound:
            raise RuntimeError(
                f"aot.compile: the size {', '.join(unbound)} is no input's own dimension, so "
                "a call cannot tell it: mark a dimension of an input with this Dim "
                "itself"
            )

    # ---- data

    def _string(self, label: str, text: str) -> str:
        self._globals.append(constant_string(f"{self.name}.{label}", text))
        return f"@{self.name}.{label}"

    def _entry_of(self, dim: Dim) -> int:
        if dim not in self.table:
            self.table.append(dim)
        return self.table.index(dim)

    def _dim(self, dim: Dim) -> str:
        if isinstance(dim, int):
            return f"%GtDim {{ i32 0, i32 0, i64 {dim}, i64 {dim} }}"
        symbol = plain_symbol(dim)
        low, high = (symbol.min, symbol.max) if symbol else (0, UNBOUNDED)
        kind = 1 if symbol else 2
        return f"%GtDim {{ i32 {kind}, i32 {self._entry_of(dim)}, i64 {low}, i64 {high} }}"

    def _specs(self, side: str, slots: Sequence[Slot]) -> list[str]:
        rows, text = [], []
        for i, slot in enumerate(slots):
            dims = ", ".join(self._dim(d) for d in slot.shape) or self._dim(0)
            count = max(1, len(slot.shape))
            text.append(
                f"@{self.name}.{side}{i}.dims = private constant [{count} x %GtDim] [{dims}]\n"
            )
            label = self._string(f"{side}{i}.name", slot.name or f"output_{i}")
            dtype = self._string(f"{side}{i}.dtype", slot.dtype.torch_name)
            # a complex number is aligned as its parts are
            align = slot.dtype.itemsize // (2 if slot.dtype.is_complex else 1)
            rows.append(
                f"%GtSpec {{ ptr {label}, i32 {len(slot.shape)}, i32 {dtype_code(slot.dtype)}, i32 "
                f"{slot.dtype.bits}, i32 {align}, ptr @{self.name}.{side}{i}.dims, ptr "
                f"{dtype} }}"
            )
        table = ", ".join(rows) or "%GtSpec zeroinitializer"
        return [
            *text,
            f"@{self.name}.{side} = private constant [{max(1, len(rows))} x %GtSpec] [{table}]\n",
        ]

    # ---- functions

    def _sizes(self) -> str:
        """Fills in the sizes that follow from the symbols, and gives the arena's: ``i64
        NAME.sizes(i64*)``.

        Where launches depend on symbols, another function fills in theirs: ``void NAME.fill(i64*,
        i64*)``.
        """
        sizes = Sizes(self.program.symbols)
        for i, dim in enumerate(self.table[len(self.program.symbols) :], len(self.program.symbols)):
            sizes.store(dim, "%symbols", i)
        arena = sizes.value(self.plan.size)
        text = [
            f"define internal i64 @{self.name}.sizes(ptr %symbols) {{",
            *sizes.lines,
            f"  ret i64 {arena}",
            "}",
            "",
        ]
        if symbolic(self.launches):
            sizes = Sizes(self.program.symbols)
            for i, dim in enumerate(self.launches.sizes):
                sizes.store(dim, "%table", i)
            text += [
                f"define internal void @{self.name}.fill(ptr %symbols, ptr %table) {{",
                *sizes.lines,
                "  ret void",
                "}",
                "",
            ]
        return "\n".join(text)

    def _static_functions(self) -> str:
        name = self.name
        metadata = self._string("metadata", self.metadata)
        self._globals.append(f"@{name}.error = internal global [256 x i8] zeroinitializer\n")
        return f"""
define weak i32 @gt_abi_version() {{
  ret i32 {ABI_VERSION}
}}
define ptr @{name}_metadata() {{
  ret ptr {metadata}
}}
define void @{name}_set_num_threads(i32 %count) {{
  call void @gt_set_num_threads(i32 %count)
  ret void
}}
define ptr @{name}_last_error(ptr %context) {{
  %none = icmp eq ptr %context, null
  %own = getelementptr %GtContext, ptr %context, i32 0, i32 5
  %error = select i1 %none, ptr @{name}.error, ptr %own
  ret ptr %error
}}
define i64 @{name}_workspace_size(ptr %context) {{
  %none = icmp eq ptr %context, null
  br i1 %none, label %zero, label %read
zero:
  ret i64 0
read:
  %size.p = getelementptr %GtContext, ptr %context, i32 0, i32 2
  %size = load i64, ptr %size.p
  ret i64 %size
}}
"""

    def _arena_bytes(self) -> int:
        """What `create` allocates: enough for every size, or nothing where sizes have no bound."""
        high = bounds(self.plan.size)[1]
        return high if high <= LARGEST_ARENA else 0

    def _destroy(self) -> str:
        return f"""
{self._head("void", "destroy", "ptr %context")}
  %none = icmp eq ptr %context, null
  br i1 %none, label %done, label %release
release:
{self._freed()}
  %map.p = getelementptr %GtContext, ptr %context, i32 0, i32 3
  %map = load ptr, ptr %map.p
  %length.p = getelementptr %GtContext, ptr %context, i32 0, i32 4
  %length = load i64, ptr %length.p
  %mapped = icmp ne ptr %map, null
  br i1 %mapped, label %unmap, label %last
unmap:
  call i32 @munmap(ptr %map, i64 %length)
  br label %last
last:
  call void @free(ptr %context)
  br label %done
done:
  ret void
}}
"""

    def _freed(self) -> str:
        """Gives back what `create` and runs allocated, but for the mapped file."""
        return """\
  %arena = load ptr, ptr %context
  call void @free(ptr %arena)
  %packed.p = getelementptr %GtContext, ptr %context, i32 0, i32 1
  %packed = load ptr, ptr %packed.p
  call void @free(ptr %packed)"""

    def _head(self, result: str, function: str, arguments: str) -> str:
        """The beginning of a function that C calls; `create` by way of `_entry`."""
        if function == "create":
            return f"define internal {result} @{self.name}.create({arguments}) {{"
        return f"define {result} @{self.name}_{function}({arguments}) {{"

    def _entry(self) -> str:
        """What C calls to create a context: on a processor without what the code was generated for
        it refuses, before any of that code runs."""
        return f"""
{self._lacking()}
define ptr @{self.name}_create(ptr %path) {cpuid.BASELINE} {{
entry:
{self._ask_processor("make", "fail")}
make:
  %context = call ptr @{self.name}.create(ptr %path)
  ret ptr %context
fail:
  ret ptr null
}}
"""

    def _lacking(self) -> str:
        """The function that `_ask_processor` calls."""
        return cpuid.lacking_text(self.name, self.target.flags) if self.target.is_x86 else ""

    def _ask_processor(self, then: str, fail: str) -> str:
        """Goes on at `then`, or at `fail` with a message where the processor lacks a feature."""
        if not self.target.is_x86:
            return f"  br label %{then}"
        message = self._string(
            "msg.processor",
            f"{self.name}_create: compiled for processors with %s, which this one lacks: "
            "compile for it with aot.compile(target=...)",
        )
        return f"""  %lacking = call ptr @{self.name}.lacking()
  %able = icmp eq ptr %lacking, null
  br i1 %able, label %{then}, label %unable
unable:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr @{self.name}.error, i64 256, ptr {message},
    ptr %lacking)
  br label %{fail}"""

    def _begin(self) -> str:
        """What `create` does before it allocates memory."""
        return ""

    def _release(self) -> str:
        """Frees what `create` made so far."""
        return f"  call void @{self.name}_destroy(ptr %context)"

    def _create(self) -> str:
        memory = self._string("msg.memory", f"{self.name}_create: out of memory")
        text = [
            self._head("ptr", "create", "ptr %path"),
            "entry:",
            "  %slot = alloca ptr",
            f"  store i8 0, ptr @{self.name}.error",
            "  %context = call ptr @calloc(i64 1, i64 ptrtoint (ptr getelementptr (%GtContext, "
            "ptr null, i32 1) to i64))",
            "  %no_context = icmp eq ptr %context, null",
            "  br i1 %no_context, label %no_memory, label %arena.b",
            "arena.b:",
            self._begin(),
            self._allocate("arena", self._arena_bytes(), 0, "weights.b"),
            "weights.b:",
            "  %arena.p2 = getelementptr %GtContext, ptr %context, i32 0, i32 2",
            f"  store i64 {self._arena_bytes()}, ptr %arena.p2",
            self._find_weights(),
            "no_memory:",
            f"  call i32 (ptr, i64, ptr, ...) @snprintf(ptr @{self.name}.error, i64 256, "
            f"ptr {memory})",
            "  br label %fail",
            "fail:",
            self._release(),
            "  ret ptr null",
            "}",
            "",
        ]
        return "\n".join(text)

    def _allocate(self, label: str, size: int, field: int, then: str) -> str:
        if not size:
            return f"  br label %{then}"
        return f"""  %{label}.code = call i32 @posix_memalign(ptr %slot, i64 64, i64 {size})
  %{label}.bad = icmp ne i32 %{label}.code, 0
  br i1 %{label}.bad, label %no_memory, label %{label}.good
{label}.good:
  %{label}.memory = load ptr, ptr %slot
  %{label}.field = getelementptr %GtContext, ptr %context, i32 0, i32 {field}
  store ptr %{label}.memory, ptr %{label}.field
  br label %{then}"""

    def _frame(self, code: str, symbols: str) -> str:
        """A frame for a walk of the table `code`, and its header (abi.py)."""
        name, table = self.name, self.launches
        lines = [f"  %args = alloca [{table.words} x i64], align 64"]
        sizes = f"@{name}.launch_sizes"
        if symbolic(table):
            sizes = "%launch_sizes"
            lines += [
                f"  {sizes} = alloca [{len(table.sizes)} x i64], align 64",
                f"  call void @{name}.fill(ptr {symbols}, ptr {sizes})",
            ]
        words = {
            abi.CODE: f"ptr @{name}.{code}",
            abi.FUNCTIONS: f"ptr @{name}.functions",
            abi.OPERANDS: f"i64 {table.operands}",
            abi.WORDS: f"i64 {table.words}",
            abi.PART: "i64 0",
            abi.ZERO: "i64 0",
            abi.CONSTANTS: f"ptr {self._constants()}",
            abi.SIZES: f"ptr {sizes}",
        }
        lines += self._lines_for_constants()
        return "\n".join([*lines, *(self._word(f"h{i}", i, x) for i, x in words.items())])

    def _constants(self) -> str:
        """The address of the constants, once `_lines_for_constants` were run."""
        return f"@{self.name}.constants"

    def _lines_for_constants(self) -> Sequence[str]:
        return ()

    @staticmethod
    def _word(label: str, index: int, value: str) -> str:
        """Stores a word of the frame."""
        return (
            f"  %{label}.p = getelementptr i64, ptr %args, i64 {index}\n"
            f"  store {value}, ptr %{label}.p"
        )

    def _launches(self) -> str:
        """Runs the launches: ``%status`` is 0, or 1 + the site of an error."""
        return "  %status = call i32 @gt_run(ptr %args)"

    def _run(self) -> str:
        name, ins, outs = self.name, len(self.inputs), len(self.outputs)
        arguments = "ptr %context, ptr %in, i32 %in_count, ptr %out, i32 %out_count"
        text = [
            self._head("i32", "run", arguments),
            "entry:",
            f"  %sizes = alloca [{max(1, len(self.table))} x i64], align 64",
            "  %no_context = icmp eq ptr %context, null",
            "  br i1 %no_context, label %bad_context, label %counts",
            "bad_context:",
            f"  ret i32 {tensor_check.NULL}",
            "counts:",
            "  %error = getelementptr %GtContext, ptr %context, i32 0, i32 5",
            "  store i8 0, ptr %error",
            f"  %in.ok = icmp eq i32 %in_count, {ins}",
            f"  %out.ok = icmp eq i32 %out_count, {outs}",
            "  %count.ok = and i1 %in.ok, %out.ok",
            "  br i1 %count.ok, label %nulls, label %bad_count",
            "nulls:",
            "  %in.null = icmp eq ptr %in, null",
            f"  %in.bad = and i1 %in.null, {str(ins > 0).lower()}",
            "  %out.null = icmp eq ptr %out, null",
            f"  %out.bad = and i1 %out.null, {str(outs > 0).lower()}",
            "  %null.bad = or i1 %in.bad, %out.bad",
            "  br i1 %null.bad, label %bad_null, label %bind",
            "bind:",
        ]
        text += [
            f"  %s{i} = getelementptr i64, ptr %sizes, i64 {i}\n  store i64 -1, ptr %s{i}"
            for i in range(len(self.table))
        ]
        text += [self._check("in", i, bind=True) for i in range(ins)]
        text += [f"  %arena.size = call i64 @{name}.sizes(ptr %sizes)", self._check_conditions()]
        text += [
            self._check("in", i, bind=False) for i, s in enumerate(self.inputs) if _computed(s)
        ]
        text += [self._check("out", i, bind=False) for i in range(outs)]
        text += [
            self._grow(),
            self._frame("launches", "%sizes"),
            self._tensor_arguments(),
            self._weight_arguments(),
            self._memory_arguments(),
            self._launches(),
            self._report_status(),
            self._rejections(),
        ]
        return "\n".join([*text, "}", ""])

    def _check(self, side: str, i: int, bind: bool) -> str:
        label = f"{side}{i}.{'bind' if bind else 'compare'}"
        role = self._role(side)
        return f"""  %{label}.t = getelementptr %GtTensor, ptr %{side}, i64 {i}
  %{label}.s = getelementptr %GtSpec, ptr @{self.name}.{side}, i64 {i}
  %{label}.c = call i32 @gt_check(ptr %error, ptr {role}, i32 {i}, ptr %{label}.t, ptr %{label}.s, \
ptr %sizes, i1 {str(bind).lower()})
  %{label}.ok = icmp eq i32 %{label}.c, 0
  br i1 %{label}.ok, label %{label}.next, label %{label}.bad
{label}.bad:
  ret i32 %{label}.c
{label}.next:"""

    def _broken(self) -> str:
        """``i32 NAME.broken(i64*)``: 1 + the first condition that the symbols do not meet, or 0."""
        sizes, lines = Sizes(self.program.symbols), list[str]()
        found = "0"
        for i, condition in reversed(list(enumerate(self.conditions))):
            value = sizes.value(condition)
            lines += [
                f"  %bad{i} = icmp slt i64 {value}, 0",
                f"  %code{i} = select i1 %bad{i}, i32 {i + 1}, i32 {found}",
            ]
            found = f"%code{i}"
        return "\n".join(
            [
                f"define internal i32 @{self.name}.broken(ptr %symbols) {{",
                *sizes.lines,
                *lines,
                f"  ret i32 {found}",
                "}",
                "",
            ]
        )

    def _check_conditions(self) -> str:
        if not self.conditions:
            return ""
        count, label = len(self.conditions), f"@{self.name}.conditions"
        texts = [f"{self.name}_run: sizes do not meet {c} >= 0" for c in self.conditions]
        rows = ", ".join(
            f"ptr {self._string(f'condition{i}', text)}" for i, text in enumerate(texts)
        )
        self._globals += [f"{label} = private constant [{count} x ptr] [{rows}]\n", self._broken()]
        return f"""  %broken = call i32 @{self.name}.broken(ptr %sizes)
  %holds = icmp eq i32 %broken, 0
  br i1 %holds, label %held, label %bad_sizes
bad_sizes:
  %broken.i = sub i32 %broken, 1
  %broken.p = getelementptr ptr, ptr {label}, i32 %broken.i
  %broken.text = load ptr, ptr %broken.p
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, \
ptr {self._string("msg.sizes", "%s")}, \
ptr %broken.text)
  ret i32 {tensor_check.SHAPE}
held:"""

    def _role(self, side: str) -> str:
        label = f"@{self.name}.role.{side}"
        text = constant_string(
            label[1:], f"{self.name}_run: {'input' if side == 'in' else 'output'}"
        )
        if text not in self._globals:
            self._globals.append(text)
        return label

    def _grow(self) -> str:
        """A larger arena where no bound let `create` allocate it."""
        if self._arena_bytes() or bounds(self.plan.size) == (0, 0):
            return ""
        return """  %have.p = getelementptr %GtContext, ptr %context, i32 0, i32 2
  %have = load i64, ptr %have.p
  %enough = icmp uge i64 %have, %arena.size
  br i1 %enough, label %grown, label %grow
grow:
  %old = load ptr, ptr %context
  call void @free(ptr %old)
  store ptr null, ptr %context
  store i64 0, ptr %have.p
  %grow.code = call i32 @posix_memalign(ptr %context, i64 64, i64 %arena.size)
  %grow.bad = icmp ne i32 %grow.code, 0
  br i1 %grow.bad, label %bad_memory, label %larger
larger:
  store i64 %arena.size, ptr %have.p
  br label %grown
grown:"""

    def _tensor_arguments(self) -> str:
        lines = []
        placed = [("in", i, abi.HEADER + s.index) for i, s in enumerate(self.inputs)]
        placed += [("out", i, self.layout.first_output + i) for i in range(len(self.outputs))]
        for side, i, position in placed:
            v = f"%{side}{i}.arg"
            lines.append(f"""  {v}.t = getelementptr %GtTensor, ptr %{side}, i64 {i}
  {v}.d = load ptr, ptr {v}.t
  {v}.op = getelementptr %GtTensor, ptr {v}.t, i32 0, i32 9
  {v}.o = load i64, ptr {v}.op
  {v}.a = getelementptr i8, ptr {v}.d, i64 {v}.o
  {v}.p = getelementptr i64, ptr %args, i64 {position}
  store ptr {v}.a, ptr {v}.p""")
        return "\n".join(lines)

    def _report_status(self) -> str:
        """A data-dependent error becomes GT_INDEX or GT_VALUE with the site's message."""
        sites = self.program.errors
        if not sites:
            return "  ret i32 0"
        rows = ", ".join(
            f"ptr {self._string(f'site{i}', f'{self.name}_run: {s.op}: {s.message}')}"
            for i, s in enumerate(sites)
        )
        self._globals.append(
            f"@{self.name}.sites = private constant [{len(sites)} x ptr] [{rows}]\n"
        )
        codes = ", ".join(
            f"i32 {tensor_check.INDEX if site.kind == 'index' else tensor_check.VALUE}"
            for site in sites
        )
        self._globals.append(
            f"@{self.name}.codes = private constant [{len(sites)} x i32] [{codes}]\n"
        )
        return f"""  %fine = icmp eq i32 %status, 0
  br i1 %fine, label %done, label %bad_index
done:
  ret i32 0
bad_index:
  %site = sub i32 %status, 1
  %site.p = getelementptr ptr, ptr @{self.name}.sites, i32 %site
  %site.text = load ptr, ptr %site.p
  %percent = call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, \
ptr {self._string("msg.text", "%s")}, ptr %site.text)
  %code.p = getelementptr i32, ptr @{self.name}.codes, i32 %site
  %code = load i32, ptr %code.p
  ret i32 %code"""

    def _rejections(self) -> str:
        name, ins, outs = self.name, len(self.inputs), len(self.outputs)
        count = self._string(
            "msg.count", f"{name}_run: %d inputs and %d outputs given, expected {ins} and {outs}"
        )
        null = self._string("msg.null", f"{name}_run: the array of inputs or outputs is NULL")
        text = f"""bad_count:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr {count}, i32 %in_count, \
i32 %out_count)
  ret i32 {tensor_check.COUNT}
bad_null:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr {null})
  ret i32 {tensor_check.NULL}"""
        if not self._grow():
            return text
        memory = self._string("msg.grow", f"{name}_run: out of memory")
        return f"""{text}
bad_memory:
  call i32 (ptr, i64, ptr, ...) @snprintf(ptr %error, i64 256, ptr {memory})
  ret i32 {tensor_check.MEMORY}"""


def _computed(slot: Slot) -> bool:
    return any(isinstance(d, SymInt) and plain_symbol(d) is None for d in slot.shape)


def describe(slot: Slot, fallback: str) -> str:
    """One line for the header: name, element type and shape."""
    return f"{slot.name or fallback}: {slot.dtype.torch_name} {Type(slot.dtype, slot.shape).shape}"
