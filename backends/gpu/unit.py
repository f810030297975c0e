"""Kernels as the text of one CUDA C unit.

A kernel of the loop-level IR becomes one CUDA function for each of its *stages*: each parallel loop
is a grid of threads, one a task, each block loop a grid of blocks, one an iteration, and what
stands between them is run by one thread. The stages are launched one after the other, so that a
later one sees what an earlier one wrote.

    extern "C" __global__ void k(x0 *, ..., gt_i64 n, ..., gt_i32 *status)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from graphtorch.ir.dtype import DType, boolean

from ..dataclass import dataclass
from ..kernels import ir as k
from ..kernels.body.maths import functions
from ..kernels.builder import Builder
from ..kernels.ir import DEPTH, Buffer, Expr, For, Kernel, KType, Let, Name, Stmt
from .device import Piece
from .expressions import Expressions
from .tiles import Form
from .types import memory, register

PIECE = 8 << 10  # characters of kernels that are not worth a piece of their own
# bytes of shared memory that a function may declare; more is asked for at the launch
SHARED_LIMIT = 48 << 10
UNROLLED = 16  # iterations of a thread, where each thread is known to have as many
IN_REGISTERS = 64  # elements of scratch that a thread may have there
LOCAL_LIMIT = 256 << 10  # bytes of scratch that a thread may have: its local memory ends at 512 KiB


@dataclass(frozen=True)
class Stage:
    """One CUDA function of a kernel.

    Attributes:
        function: its name.
        tasks: how many iterations its loop has, of the kernel's sizes; None where one thread does
            all.
        threads: of a block, which has one iteration at a time; 0 where each thread has one.
        shared: bytes of shared memory to ask for at the launch.
    """

    function: str
    tasks: Tasks | None
    threads: int = 0
    shared: int = 0


@dataclass(frozen=True)
class Tasks:
    """The bounds of a parallel or block loop, and the names that they are made of, in order."""

    loop: For
    lets: tuple[Let, ...]
    sizes: tuple[Name, ...]

    def count(self, sizes: Sequence[int]) -> int | None:
        """The number of iterations; None where that depends on what is in memory."""
        known = dict(zip(self.sizes, sizes, strict=True))
        try:
            for let in self.lets:
                known[let.name] = evaluate(let.value, known)
            lo, hi, step = (
                evaluate(e, known) for e in (self.loop.lo, self.loop.hi, self.loop.step)
            )
        except KeyError:
            return None
        return max(0, -(-(hi - lo) // step))


def evaluate(e: Expr, known: Mapping[Name, int]) -> int:
    """An index expression as a number. Raises: KeyError where it needs more than sizes."""
    if isinstance(e, k.Const):
        return int(e.value)
    if isinstance(e, Name):
        return known[e]
    if isinstance(e, k.Binary) and e.op in _ARITHMETIC:
        return _ARITHMETIC[e.op](evaluate(e.a, known), evaluate(e.b, known))
    raise KeyError(e)


def _truncated(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
    "div": _truncated,
    "rem": lambda a, b: a - _truncated(a, b) * b if b else 0,
}


class Unit:
    """Collects the functions of one unit: kernels, and the elementary functions that they call."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.exports: dict[str, int] = {}  # names of kernels, and which of the functions they are
        self._math: dict[tuple[str, DType], str | None] = {}
        self._kernels: dict[tuple[Kernel, tuple[int, ...]], list[Stage]] = {}
        self._symbols: set[str] = set()
        self._tiles: set[Form] = set()

    def text(self) -> str:
        """The unit, without the prelude that it is compiled after."""
        return "\n".join(self.functions)

    def pieces(self, most: int) -> list[Piece]:
        """The unit as texts that can be compiled side by side: kernels by the order of their first
        use.

        Args: most: how many at most; a small unit stays whole.
        """
        length = sum(len(self.functions[i]) for i in self.exports.values())
        limit = max(PIECE, -(-length // most))
        groups: list[dict[str, int]] = []
        size = limit
        for name, i in self.exports.items():
            if size >= limit:
                groups.append({})
                size = 0
            groups[-1][name] = i
            size += len(self.functions[i])
        return [self._piece(group) for group in groups]

    def _piece(self, kernels: Mapping[str, int]) -> Piece:
        """Some of the kernels, with the functions that kernels call."""
        left_out = set(self.exports.values()) - set(kernels.values())
        text = "\n".join(f for i, f in enumerate(self.functions) if i not in left_out)
        return Piece(text, tuple(kernels))

    def math(self, op: str, dtype: DType) -> str | None:
        """The name of the function that our own expansion of `op` became; None where there is
        none."""
        key = op, dtype
        if key not in self._math:
            definition = functions.definition(op, dtype)
            name = f"gt_math_{op}_{dtype.name}"
            self._math[key] = None if definition is None else name
            if definition is not None:
                self.functions.append(_math_text(self, name, definition, KType(dtype)))
        return self._math[key]

    def tiles(self, product: k.MultiplyTiles) -> str:
        """The name of the function that multiplies two such tiles."""
        form = Form.of(product)
        if form not in self._tiles:
            self._tiles.add(form)
            self.functions.append(form.text())
        return form.name

    def kernel(self, kernel: Kernel, shared: tuple[int, ...]) -> list[Stage]:
        """The stages of `kernel`, written at its first use.

        Args: shared: for each buffer the first one that has the same memory: an update in place.
        """
        key = kernel, shared
        if key not in self._kernels:
            self._kernels[key] = [self._stage(kernel, shared, part) for part in parts(kernel)]
        return self._kernels[key]

    def kernels(self) -> Iterator[tuple[Kernel, list[Stage]]]:
        """The kernels so far, and the stages of each."""
        return ((kernel, stages) for (kernel, _), stages in self._kernels.items())

    def _symbol(self, hint: str) -> str:
        """A name that no other function of the unit has."""
        name, count = f"k_{hint}", 0
        while name in self._symbols:
            count += 1
            name = f"k_{hint}_{count}"
        self._symbols.add(name)
        return name

    def _stage(self, kernel: Kernel, shared: tuple[int, ...], part: Part) -> Stage:
        name = self._symbol(kernel.name)
        writer = Writer(self, kernel.name, _shared_memory(part.body))
        for i, b in enumerate(kernel.buffers):
            writer.buffers[b] = f"b{i}_{b.name}"
        writer.names.update({n: f"n{i}_{n.name}" for i, n in enumerate(kernel.sizes)})
        for let in part.lets:
            writer.statement(let)
        loop = part.loop
        if loop is None:
            writer.statements(part.body)
        elif loop.kind == "block":
            writer.blocks(loop)
        else:
            writer.grid(loop)
        threads = 0 if loop is None else loop.threads
        resident = f", {loop.resident}" if loop and loop.resident else ""
        bounds = f"__launch_bounds__({threads}{resident}) "
        bounds = bounds if threads else ""
        parameters = ", ".join(_parameters(kernel, shared, writer))
        head = f'extern "C" __global__ void {bounds}{name}({parameters})'
        self.functions.append("\n".join([f"// {kernel.name}", head + " {", *writer.lines, "}", ""]))
        self.exports[name] = len(self.functions) - 1
        tasks = None if loop is None else Tasks(loop, tuple(part.lets), kernel.sizes)
        return Stage(name, tasks, threads, writer.dynamic)


def _shared_memory(body: Sequence[Stmt]) -> int:
    """Bytes that the threads of a block share."""
    end = 0
    for s in k.walk(body):
        if isinstance(s, k.Scratch) and s.space == "shared":
            end = _placed(s, end)[1]
    return end


def _placed(s: k.Scratch, before: int) -> tuple[int, int]:
    """Where shared memory begins and ends behind the first `before` bytes of it."""
    begin = -(-before // s.buffer.align) * s.buffer.align
    return begin, begin + s.size * s.buffer.dtype.itemsize


def _parameters(kernel: Kernel, shared: tuple[int, ...], writer: Expressions) -> Iterator[str]:
    for i, b in enumerate(kernel.buffers):
        alone = shared.count(shared[i]) == 1
        const = "const " if b.access == "read" and alone else ""
        yield f"{const}{memory(b.dtype)}* {'__restrict__ ' if alone else ''}{writer.buffers[b]}"
    for n in kernel.sizes:
        yield f"{register(n.type)} {writer.names[n]}"
    yield "gt_i32* status"


def _math_text(unit: Unit, name: str, definition: functions.Definition, t: KType) -> str:
    """An elementary function from its expansion; each operation rounds by itself."""
    b = Builder()
    args = [Name(f"x{i}", t) for i in range(definition.arity)]
    result = definition.expand(b, *args)
    writer = Writer(unit, name)
    writer.strict = True
    writer.names.update({a: a.name for a in args})
    writer.statements(b.body)
    head = f"GT_FUNCTION {register(t)} {name}({', '.join(f'{register(t)} {a.name}' for a in args)})"
    return "\n".join([head + " {", *writer.lines, f"  return {writer.value(result)};", "}", ""])


# ------------------------------------------------------------------------------------------ stages


@dataclass
class Part:
    """Statements of a kernel's top level: a parallel or block loop, or others; and the names they
    use from before."""

    lets: list[Let]
    loop: For | None
    body: list[Stmt]


def parts(kernel: Kernel) -> list[Part]:
    """A kernel cut at its parallel and block loops.

    Raises: TypeError where a register or scratch memory lives across one.
    """
    found: list[Part] = []
    lets: list[Let] = []
    for s in kernel.body:
        if isinstance(s, For) and s.kind in ("parallel", "block"):
            found.append(Part(list(lets), s, [s]))
        elif isinstance(s, Let):
            lets.append(s)
            if found and found[-1].loop is None:
                found[-1].body.append(s)
        else:
            if not found or found[-1].loop is not None:
                found.append(Part(list(lets), None, []))
            found[-1].body.append(s)
    for part in found:
        part.lets = _used(part.lets, part.body)
    _check_alone(kernel, found)
    return found


def _check_alone(kernel: Kernel, found: Sequence[Part]) -> None:
    for part in found:
        own = {s.name for s in k.walk(part.body) if isinstance(s, k.Var)}
        own_memory = {s.buffer for s in k.walk(part.body) if isinstance(s, k.Scratch)}
        for other in found:
            if other is not part and (
                own & names_in(other.body) or own_memory & buffers_in(other.body)
            ):
                raise TypeError(
                    f"kernel {kernel.name}: a register lives across a loop over tasks or blocks, "
                    "whose threads are others than those before"
                )


def _used(lets: Sequence[Let], body: Sequence[Stmt]) -> list[Let]:
    """Those of `lets` that `body` needs, by way of others as well."""
    needed = names_in(body)
    kept: list[Let] = []
    for let in reversed(lets):
        if let.name in needed:
            kept.append(let)
            needed |= names_in([let])
    return kept[::-1]


def names_in(body: Sequence[Stmt]) -> set[Name]:
    """The names that occur in `body`."""
    return {e for e in _atoms(body) if isinstance(e, Name)}


def buffers_in(body: Sequence[Stmt]) -> set[Buffer]:
    """The buffers that occur in `body`."""
    return {e for e in _atoms(body) if isinstance(e, Buffer)}


def _atoms(body: Sequence[Stmt]) -> Iterator[Name | Buffer]:
    """The names and buffers of statements and of all that they hold. What several expressions
    share is looked at once."""
    waiting: list[Any] = [body]
    seen: set[int] = set()
    while waiting:
        x = waiting.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, (Name, Buffer)):
            yield x
        elif isinstance(x, (list, tuple)):
            waiting += x
        elif isinstance(x, (Expr, k.Ref, k.Tile, k.Fragment)) or type(x) in _STATEMENTS:
            waiting += [getattr(x, name) for name in _field_names(type(x))]  # type: ignore[arg-type]


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


# --------------------------------------------------------------------------------------- statements


class Writer(Expressions):
    """Writes the statements of one function into `lines`."""

    def __init__(self, unit: Unit, kernel: str, shared: int = 0):
        """Args: shared: bytes of memory that the threads of a block share."""
        super().__init__(unit, kernel)
        self.lines: list[str] = []
        self.dynamic = shared if shared > SHARED_LIMIT else 0
        self._shared = 0  # bytes of it so far
        self._threads = 0
        self._depth = 1
        self._given: dict[str, int] = {}
        self._local = 0  # bytes of scratch so far

    def put(self, text: str) -> None:
        self.lines.append("  " * self._depth + text)

    def fresh(self, hint: str) -> str:
        """A name that no other has in this function."""
        count = self._given.get(hint, 0)
        self._given[hint] = count + 1
        return f"v_{hint}" if not count else f"v_{hint}_{count}"

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.put(f"{head} {{" if head else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.put("}")

    def statements(self, body: Sequence[Stmt]) -> None:
        for s in body:
            self.statement(s)

    def statement(self, s: Stmt) -> None:
        _STATEMENTS[type(s)](self, s)

    @contextmanager
    def loop(self, head: str) -> Iterator[None]:
        with self.block(head):
            self.loops += 1
            yield
            self.loops -= 1

    def variable(self, s: For) -> str:
        """The name of a loop's variable."""
        self.ranges.loop(s)
        name = self.names[s.var] = self.fresh(s.var.name)
        return name

    def grid(self, s: For) -> None:
        """A parallel loop: iterations by threads, as many at a time as there are."""
        lo, hi, step = (self.value(e, index=True) for e in (s.lo, s.hi, s.step))
        i = self.variable(s)
        first, stride = f"{lo} + gt_thread() * {step}", f"gt_threads() * {step}"
        with self.loop(f"for (gt_i64 {i} = {first}; {i} < {hi}; {i} += {stride})"):
            self.statements(s.body)

    def blocks(self, s: For) -> None:
        """A block loop: iterations by blocks, as many at a time as there are."""
        lo, hi, step = (self.value(e, index=True) for e in (s.lo, s.hi, s.step))
        i = self.variable(s)
        self._threads = s.threads
        first, stride = f"{lo} + (gt_i64)blockIdx.x * {step}", f"(gt_i64)gridDim.x * {step}"
        with self.loop(f"for (gt_i64 {i} = {first}; {i} < {hi}; {i} += {stride})"):
            self.statements(s.body)
            if any(isinstance(x, k.Scratch) and x.space == "shared" for x in k.walk(s.body)):
                # before the next iteration writes to what others still read
                self.put("__syncthreads();")

    def _thread_loop(self, s: For) -> None:
        """Iterations by the threads of the block, which are known to be as many as the kernel is
        made for."""
        lo, hi, step = (self.value(e, index=True) for e in (s.lo, s.hi, s.step))
        i = self.variable(s)
        threads = self._threads
        if isinstance(s.hi, k.Const) and (lo, step) == ("0ll", "1ll"):
            times, rest = divmod(int(s.hi.value), threads)
            if (times == 0) != (rest == 0) and times <= UNROLLED:
                self._dealt(s, i, times, rest)
                return
        first, stride = f"{lo} + (gt_i64)threadIdx.x * {step}", f"{threads}ll * {step}"
        with self.loop(f"for (gt_i64 {i} = {first}; {i} < {hi}; {i} += {stride})"):
            self.statements(s.body)

    def _dealt(self, s: For, i: str, times: int, rest: int) -> None:
        """`times` iterations for each thread; or one for each of the first `rest`."""
        n = f"{i}_n"
        head = f"if (threadIdx.x < {rest})" if rest else ""
        if times > 1:
            self.put("#pragma unroll")
            head = f"for (int {n} = 0; {n} < {times}; {n}++)"
        with self.loop(head):
            before = f"{n} * {self._threads} + " if times > 1 else ""
            self.put(f"const gt_i64 {i} = {before}threadIdx.x;")
            self.statements(s.body)

    def _for(self, s: For) -> None:
        if s.kind == "thread":
            self._thread_loop(s)
            return
        lo, hi, step = (self.value(e, index=True) for e in (s.lo, s.hi, s.step))
        i = self.variable(s)
        if s.kind == "unroll":
            self.put("#pragma unroll")
        elif s.kind == "rolled" or self._indexes_memory(s):
            self.put("#pragma unroll 1")
        with self.loop(f"for (gt_i64 {i} = {lo}; {i} < {hi}; {i} += {step})"):
            self.statements(s.body)

    def _indexes_memory(self, s: For) -> bool:
        """Whether a loop goes over scratch that is too large for registers.

        Unrolled, its indices would be constants, and the compiler would take it for registers, and
        spill.
        """
        large = {b for b in self.private if self.sizes[b] > IN_REGISTERS}
        return bool(large) and not large.isdisjoint(buffers_in(s.body))

    def _let(self, s: Let) -> None:
        self.ranges.let(s)
        text = self.value(s.value)
        name = self.names[s.name] = self.fresh(s.name.name)
        self.made_in[s.name] = self.loops
        self.put(f"const {register(s.name.type)} {name} = {text};")

    def _var(self, s: k.Var) -> None:
        text = self.value(s.value)
        name = self.names[s.name] = self.fresh(s.name.name)
        self.made_in[s.name] = self.loops
        # A bool that changes gets a register: assemblers keep it among predicates, and spill those.
        c_type = "gt_u32" if s.name.type.dtype is boolean else register(s.name.type)
        self.put(f"{c_type} {name} = {text};")

    def _assign(self, s: k.Assign) -> None:
        self.put(f"{self.value(s.name)} = {self.value(s.value)};")

    def _store(self, s: k.Store) -> None:
        if s.value.type.dtype is not s.buffer.dtype:
            raise TypeError(
                f"kernel {self.kernel}: {s.value.type} stored to {s.buffer.name} of "
                f"{s.buffer.dtype}"
            )
        if s.value.type.lanes > 1:
            self._move(s)
            return
        text = f"{self.element(s.buffer, s.index, stored=True)} = {self.value(s.value)};"
        self.put(text if s.mask is None else f"if ({self.value(s.mask)}) {text}")

    def _atomic_add(self, s: k.AtomicAdd) -> None:
        self.put(
            f"gt_atomic_add(GT_SHARE({self._where(s.buffer, s.index)}), {self.value(s.value)});"
        )

    def _move(self, s: k.Store) -> None:
        """A vector from memory to memory, one access each where it is aligned: all that vectors do
        here."""
        source, lanes = s.value, s.value.type.lanes
        plain = (
            isinstance(source, k.Load)
            and (s.mask, source.mask) == (None, None)
            and s.index.type.lanes == source.index.type.lanes == 1
        )
        if not plain or not isinstance(source, k.Load):
            raise TypeError(
                f"kernel {self.kernel}: {s.value.type} is computed, which vectors on a GPU are "
                "not: they are moved between buffers only"
            )
        to = self.elements(s.buffer, s.index, lanes, stored=True)
        how = (
            "take"
            if s.buffer in self.private
            else "give"
            if source.buffer in self.private
            else "move"
        )
        known = ", true" if source.aligned else ""
        read = self.elements(source.buffer, source.index, lanes)
        self.put(f"gt_{how}<{lanes}{known}>({to}, {read});")

    def _scratch(self, s: k.Scratch) -> None:
        if s.space == "shared":
            self._share(s)
            return
        self._local += s.size * s.buffer.dtype.itemsize
        if self._local > LOCAL_LIMIT:
            raise TypeError(
                f"kernel {self.kernel}: a thread's scratch memory of {self._local:,} bytes is "
                "too large for a GPU"
            )
        name = self.buffers[s.buffer] = self.fresh(s.buffer.name)
        self.sizes[s.buffer] = s.size
        self.private.add(s.buffer)
        self.put(f"{memory(s.buffer.dtype)} {name}[{s.size}];")

    def _share(self, s: k.Scratch) -> None:
        name = self.buffers[s.buffer] = self.fresh(s.buffer.name)
        self.sizes[s.buffer] = s.size
        c_type = memory(s.buffer.dtype)
        begin, self._shared = _placed(s, self._shared)
        self.put(
            f"GT_DYNAMIC({c_type}, {name}, {begin});"
            if self.dynamic
            else f"GT_SHARED({c_type}, {name}, {s.size}, {s.buffer.align});"
        )
        self.shared.add(s.buffer)

    def _copy(self, s: k.Copy) -> None:
        mask = self.value(s.mask)
        to = f"GT_IN_MANY({self._where(s.buffer, s.at)}, {s.lanes})"
        source = f"{mask} ? {self.elements(s.source, s.index, s.lanes)} : {self.buffers[s.source]}"
        known = ", true" if s.aligned else ""
        self.put(f"gt_copy_async<{s.lanes}{known}>({to}, {source}, {mask}, GT_LINE);")

    def _await(self, s: k.Await) -> None:
        self.put(f"gt_await_copies<{s.groups}>();")

    def _load_matrices(self, s: k.LoadMatrices) -> None:
        to, source = (
            self.elements(s.target, s.at, 4, stored=True),
            self.elements(s.source, s.index, 16 // s.source.dtype.itemsize),
        )
        self.put(
            f"gt_load_matrices<{'true' if s.transposed else 'false'}>({to}, {source}, GT_SITE);"
        )

    def _multiply_matrices(self, s: k.MultiplyMatrices) -> None:
        sums, a, b = (
            self.elements(x, at, n)
            for x, at, n in ((s.sums, s.at, 4), (s.a, s.a_at, 4), (s.b, s.b_at, 2))
        )
        self.put(f"gt_multiply_{s.dtype.name}({sums}, {a}, {b}, GT_SITE);")

    def _multiply_tiles(self, s: k.MultiplyTiles) -> None:
        sums = self.elements(s.sums, k.Const(0), s.b.rows // 2, stored=True)
        b = self._tile(s.b)
        a = self._tile(s.a) if isinstance(s.a, k.Tile) else self._fragment(s.a)
        self.put(f"{self.functions.tiles(s)}({sums}, {a}, {b}, GT_LINE);")

    def _tile(self, t: k.Tile) -> str:
        count = t.rows * DEPTH // t.buffer.dtype.itemsize
        return f"GT_IN_MANY({self._where(t.buffer, t.at)}, {count})"

    def _fragment(self, f: k.Fragment) -> str:
        return self.elements(f.buffer, f.at, k.FRAGMENT)

    def _settle(self, s: k.Settle) -> None:
        self.put(f"gt_settle_tiles<{s.groups}>(GT_SITE);")
        if s.registers is not None:
            count = self.sizes[s.registers]
            self.put(f"gt_settled<{count}>({self.elements(s.registers, k.Const(0), count)});")

    def _publish(self, s: k.Publish) -> None:
        self.put("gt_publish();")

    def _barrier(self, s: k.Barrier) -> None:
        self.put("__syncthreads();")

    def _if(self, s: k.If) -> None:
        with self.block(f"if ({self.value(s.condition)})"):
            self.statements(s.then)
        if s.orelse:
            with self.block("else"):
                self.statements(s.orelse)

    def _while(self, s: k.While) -> None:
        with self.loop(f"while ({self.value(s.condition)})"):
            self.statements(s.body)

    def _call(self, s: k.Call) -> None:
        """The called kernel's statements in the place of the call."""
        buffers, names, sizes = dict(self.buffers), dict(self.names), dict(self.sizes)
        with self.block(f"/* {s.kernel.name} */"):
            parameters: list[Buffer | Name] = [*s.kernel.buffers, *s.kernel.sizes]
            texts = [self._argument(a) for a in s.args]
            for parameter, text in zip(parameters, texts, strict=True):
                name = self.fresh(parameter.name)
                if isinstance(parameter, Buffer):
                    const = "const " if parameter.access == "read" else ""
                    self.put(f"{const}{memory(parameter.dtype)}* {name} = {text};")
                    self.buffers[parameter] = name
                    self.sizes.pop(parameter, None)
                else:
                    self.put(f"const {register(parameter.type)} {name} = {text};")
                    self.names[parameter] = name
            self.statements(s.kernel.body)
        self.buffers, self.names, self.sizes = buffers, names, sizes

    def _argument(self, a: k.Ref | Expr) -> str:
        if isinstance(a, k.Ref):
            return f"{self.buffers[a.buffer]} + {self.value(a.offset, index=True)}"
        return self.value(a)

    def _fail(self, s: k.Fail) -> None:
        self.put(f"*status = (gt_i32)({self.value(s.site)}) + 1;")


_STATEMENTS: Mapping[type, Callable[..., None]] = {
    For: Writer._for,
    Let: Writer._let,
    k.Var: Writer._var,
    k.Assign: Writer._assign,
    k.Store: Writer._store,
    k.AtomicAdd: Writer._atomic_add,
    k.Scratch: Writer._scratch,
    k.Barrier: Writer._barrier,
    k.Copy: Writer._copy,
    k.Await: Writer._await,
    k.LoadMatrices: Writer._load_matrices,
    k.MultiplyMatrices: Writer._multiply_matrices,
    k.MultiplyTiles: Writer._multiply_tiles,
    k.Settle: Writer._settle,
    k.Publish: Writer._publish,
    k.If: Writer._if,
    k.While: Writer._while,
    k.Call: Writer._call,
    k.Fail: Writer._fail,
}
assert memory(boolean) == "gt_u8"
