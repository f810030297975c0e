"""Kernels as LLVM IR text: one function a kernel, one more for the tasks of each parallel loop.

    define internal void @k(ptr noalias %x, ..., i64 %n, ..., ptr %status)

A parallel loop becomes ``task(ctx, i)``, which unpacks what the loop uses and calls ``body(noalias
pointers, ..., i)``: as parameters, the buffers keep their alias facts. Loops are emitted rotated
(guard, then do-while), the form LLVM's vectoriser takes. `vector` loops carry no hint: a hint that
cannot be followed makes LLVM print a warning, and nothing but alias facts and `reassoc` is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphtorch.ir.dtype import DType, f32, f64

from ..kernels import ir as k
from ..kernels.body.maths import functions
from ..kernels.builder import Builder
from ..kernels.ir import INDEX, Buffer, Kernel, KType, Name, Stmt
from . import streams
from .expr import Expressions
from .processor import Processor
from .types import constant, mangled, memory, register

COPIES = 4  # of the body of a loop that sums in registers
LINE = 64  # bytes of code that a core reads at a time: such a loop begins with one
UNROLL_LIMIT = 64  # an `unroll` loop of more constant iterations is left to LLVM
LIBM = {"rem": "fmod"}


class ModuleEmitter:
    """Collects the functions of one LLVM module."""

    def __init__(self, name: str, target: Processor) -> None:
        self.name = name
        self.target = target
        self.functions: list[str] = []
        self.declarations: dict[str, str] = {}
        self._loops: list[str] = []
        self._kernels: dict[tuple[Kernel, tuple[int, ...]], str] = {}
        self._math: dict[tuple[str, KType], str | None] = {}
        self._symbols: set[str] = set()

    def text(self) -> str:
        width = f'"prefer-vector-width"="{self.target.vector_bits}"'
        parts = [
            f'target triple = "{self.target.triple}"',
            *self.declarations.values(),
            *self.functions,
            f'attributes #0 = {{ nounwind {width} "no-trapping-math"="true" }}',
            f"attributes #1 = {{ alwaysinline nounwind willreturn memory(none) {width} }}",
            "attributes #2 = { nounwind willreturn memory(none) }",
            '!0 = !{!"llvm.loop.unroll.disable"}',
            f'!1 = !{{!"llvm.loop.align", i32 {LINE}}}',
            *(f"!{i} = distinct !{{!{i}, {facts}}}" for i, facts in enumerate(self._loops, 2)),
        ]
        return "\n".join(parts) + "\n"

    def rolled(self, aligned: bool) -> str:
        """New loop metadata that forbids unrolling: a `rolled` body fills the registers as it
        is."""
        self._loops.append("!0, !1" if aligned else "!0")
        return f"!{len(self._loops) + 1}"

    def symbol(self, hint: str) -> str:
        """A new function name."""
        name, count = hint, 0
        while name in self._symbols:
            count += 1
            name = f"{hint}.{count}"
        self._symbols.add(name)
        return name

    def declare(self, name: str, text: str) -> str:
        self.declarations[name] = f"declare {text}"
        return name

    # ---- what functions call

    def stream(self) -> str:
        """The function that copies past the caches."""
        if streams.NAME not in self._symbols:
            self._symbols.add(streams.NAME)
            self.functions.append(streams.text(self.target))
        return streams.NAME

    def math(self, op: str, t: KType) -> str | None:
        key = (op, t)
        if key not in self._math:
            self._math[key] = None
            definition = functions.definition(op, t.dtype)
            if definition is not None:
                self._math[key] = name = self.symbol(f"gt.{op}.{mangled(t)}")
                self.functions.append(emit_math(self, name, definition, t))
        return self._math[key]

    def libm(self, op: str, dtype: DType, arity: int) -> str:
        if dtype not in (f32, f64):
            raise TypeError(f"kernel op {op} on {dtype}: cast it to f32 or f64 first")
        name = LIBM.get(op, op) + ("f" if dtype is f32 else "")
        t = register(KType(dtype))
        return self.declare(name, f"{t} @{name}({', '.join([t] * arity)}) #2")

    # ---- kernels

    def kernel(self, kernel: Kernel, memory: tuple[int, ...] = ()) -> str:
        """The function of `kernel`, emitted at its first use.

        `memory` gives for each buffer the first one that has the same memory: a call that updates
        an input in place. Such buffers become one pointer, so that `noalias` stays true.
        """
        memory = memory or tuple(range(len(kernel.buffers)))
        key = (kernel, memory)
        if key not in self._kernels:
            self._kernels[key] = name = self.symbol("k." + kernel.name)
            f = FunctionEmitter(self, kernel.name)
            f.strict = any(
                isinstance(s, k.Store) and s.buffer.dtype.is_integer for s in k.walk(kernel.body)
            )
            f.bind(kernel.buffers, kernel.sizes, memory)
            f.statements(kernel.body)
            params = parameters(kernel.buffers, kernel.sizes, memory)
            # What only hands tasks to the pool is a part of its launcher: a function costs a
            # millisecond.
            alone = all(
                (isinstance(s, k.For) and s.kind == "parallel") or isinstance(s, k.Let)
                for s in kernel.body
            )
            inline = "alwaysinline" if alone else "noinline"
            self.functions.append(
                f.finish(f"define internal void @{name}({', '.join(params)}) {inline} #0")
            )
        return self._kernels[key]

    def launcher(
        self, name: str, kernel: Kernel, memory: tuple[int, ...], linkage: str = ""
    ) -> None:
        """The function `name` through which a table's walker calls `kernel`: ``(ptr operands, ptr
        status)``.

        The kernel itself stays a function, because `noalias` is said of parameters.
        """
        target, lines, args = self.kernel(kernel, memory), [], []
        for i in range(len(kernel.buffers) + len(kernel.sizes)):
            t = (
                "ptr"
                if i < len(kernel.buffers)
                else register(kernel.sizes[i - len(kernel.buffers)].type)
            )
            lines += [
                f"  %p{i} = getelementptr inbounds i64, ptr %operands, i64 {i}",
                f"  %v{i} = load {t}, ptr %p{i}",
            ]
            args.append(f"{t} %v{i}")
        call = f"  call void @{target}({', '.join([*args, 'ptr %status'])})"
        head = f"define {linkage} void @{name}(ptr %operands, ptr %status) #0 {{"
        self.functions.append(
            "\n".join([f"; {kernel.name}", head, *lines, call, "  ret void", "}", ""])
        )


def parameters(
    buffers: Sequence[Buffer], names: Sequence[Name], memory: Sequence[int]
) -> list[str]:
    """Parameter declarations. Buffers never overlap, but those of equal `memory` are the same."""
    out = []
    for i, b in enumerate(buffers):
        access = {"read": "readonly ", "write": "writeonly "}.get(b.access, "")
        shared = memory.count(memory[i]) > 1
        align = max(b.align, b.dtype.itemsize)
        out.append(f"ptr noalias nofree {'' if shared else access}align {align} %b{i}")
    return [
        *out,
        *(f"{register(n.type)} noundef %n{i}" for i, n in enumerate(names)),
        "ptr noalias nofree %status",
    ]


def emit_math(module: ModuleEmitter, name: str, definition: functions.Definition, t: KType) -> str:
    """A maths function of `t` (any number of lanes) from its kernel-IR expansion."""
    b = Builder()
    args = [Name(f"x{i}", t) for i in range(definition.arity)]
    result = definition.expand(b, *args)
    f = FunctionEmitter(module, name)
    f.strict = True
    f.values.update({a: f"%{a.name}" for a in args})
    f.statements(b.body)
    f.put(f"ret {register(t)} {f.value(result)}")
    params = ", ".join(f"{register(t)} %{a.name}" for a in args)
    return f.finish(f"define internal {register(t)} @{name}({params}) #1", returns=True)


class FunctionEmitter(Expressions):
    """Emits the statements of one function."""

    def __init__(self, module: ModuleEmitter, kernel: str) -> None:
        super().__init__(module)
        self.owner = module
        self.kernel = kernel
        self.allocas: list[str] = []
        self.depth = 0  # loops around the current statement
        self.streams = False  # whether it writes past the caches
        self.declared: dict[Name, int] = {}
        self.is_task = False

    def bind(self, buffers: Sequence[Buffer], names: Sequence[Name], memory: Sequence[int]) -> None:
        self.pointers.update({b: f"%b{memory[i]}" for i, b in enumerate(buffers)})
        self.values.update({n: f"%n{i}" for i, n in enumerate(names)})

    def finish(self, header: str, returns: bool = False) -> str:
        if self.streams and self.owner.target.is_x86:
            # what passes by the caches is seen in order only behind a fence
            self.put(
                f"call void @{self.owner.declare(streams.FENCE, f'void @{streams.FENCE}()')}()"
            )
        body = self.lines if returns else [*self.lines, "  ret void"]
        return "\n".join([header + " {", "entry:", *self.allocas, *body, "}", ""])

    def alloca(self, text: str) -> str:
        name = "%" + self.fresh("a")
        self.allocas.append(f"  {name} = alloca {text}")
        return name

    def statements(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            _EMIT[type(stmt)](self, stmt)

    # ---- values and memory

    def _let(self, s: k.Let) -> None:
        self.values[s.name] = self.value(s.value)

    def _var(self, s: k.Var) -> None:
        t = register(s.name.type)
        x = self.value(s.value)
        self.registers[s.name] = self.alloca(t)
        self.declared[s.name] = self.depth
        self.put(f"store {t} {x}, ptr {self.registers[s.name]}")

    def _assign(self, s: k.Assign) -> None:
        if s.name not in self.registers:
            raise KeyError(
                f"kernel {self.kernel}: register {s.name.name!r} is assigned but not declared here"
            )
        x = self.value(s.value, reassoc=self._accumulates(s))
        self.put(f"store {register(s.name.type)} {x}, ptr {self.registers[s.name]}")

    def _accumulates(self, s: k.Assign) -> bool:
        """``acc = acc op x`` in a loop around which `acc` lives: the terms may be summed in any
        order."""
        if self.declared[s.name] >= self.depth:
            return False
        e = s.value
        if isinstance(e, k.Fma):
            return e.c is s.name
        return isinstance(e, k.Binary) and e.op in ("add", "mul") and s.name in (e.a, e.b)

    def _store(self, s: k.Store) -> None:
        t, size = s.value.type, s.buffer.dtype.itemsize
        if t.dtype is not s.buffer.dtype:
            raise TypeError(
                f"kernel {self.kernel}: {t} stored to {s.buffer.name} of {s.buffer.dtype}"
            )
        m = memory(t)
        x = self.to_memory(self.value(s.value), t)
        if s.index.type.lanes > 1:
            self._scatter(s, x, t, size)
        elif s.mask is None:
            self.put(f"store {m} {x}, ptr {self.address(s.buffer, s.index)}, align {size}")
        elif t.lanes == 1:
            mask, p = self.value(s.mask), self.address(s.buffer, s.index, exact=False)
            with_mask, after = self.fresh("write"), self.fresh("after")
            self.put(f"br i1 {mask}, label %{with_mask}, label %{after}")
            self.label(with_mask)
            self.put(f"store {m} {x}, ptr {p}, align {size}")
            self.put(f"br label %{after}")
            self.label(after)
        else:
            mask, p = self.value(s.mask), self.address(s.buffer, s.index, exact=False)
            self.put(
                f"call void @llvm.masked.store.{self._memory_name(t)}.p0({m} {x}, ptr align {size} "
                f"{p}, <{t.lanes} x i1> {mask})"
            )

    def _stream(self, s: k.Stream) -> None:
        self.streams = True
        to, source = self.address(s.buffer, s.index), self.pointer(s.source)
        size = self.let(f"mul nuw nsw i64 {self.value(s.count)}, {s.buffer.dtype.itemsize}")
        self.put(f"call void @{self.owner.stream()}(ptr {to}, ptr {source}, i64 {size})")

    def _scatter(self, s: k.Store, x: str, t: KType, size: int) -> None:
        n = t.lanes
        mask = "splat (i1 true)" if s.mask is None else self.value(s.mask)
        p = self.address(s.buffer, s.index, exact=s.mask is None)
        self.put(
            f"call void @llvm.masked.scatter.{self._memory_name(t)}.v{n}p0({memory(t)} {x}, "
            f"<{n} x ptr> align {size} {p}, <{n} x i1> {mask})"
        )

    def _scratch(self, s: k.Scratch) -> None:
        self.pointers[s.buffer] = self.alloca(
            f"[{s.size} x {memory(KType(s.buffer.dtype))}], align 64"
        )

    def _fail(self, s: k.Fail) -> None:
        code = self.let(f"add i32 {self.let(f'trunc i64 {self.value(s.site)} to i32')}, 1")
        self.put(f"store atomic i32 {code}, ptr %status monotonic, align 4")

    def _call(self, s: k.Call) -> None:
        args = []
        for a in s.args:
            if isinstance(a, k.Ref):
                args.append(f"ptr {self.address(a.buffer, a.offset)}")
            else:
                args.append(f"{register(a.type)} {self.value(a)}")
        self.put(f"call void @{self.owner.kernel(s.kernel)}({', '.join([*args, 'ptr %status'])})")

    # ---- control

    def _if(self, s: k.If) -> None:
        then, orelse, after = self.fresh("then"), self.fresh("else"), self.fresh("end")
        c = self.value(s.condition)
        self.put(f"br i1 {c}, label %{then}, label %{orelse if s.orelse else after}")
        for label, body in ((then, s.then), (orelse, s.orelse)):
            if body or label == then:
                self.label(label)
                self.statements(body)
                self.put(f"br label %{after}")
        self.label(after)

    def _while(self, s: k.While) -> None:
        test, body, after = self.fresh("test"), self.fresh("again"), self.fresh("end")
        self.put(f"br label %{test}")
        self.label(test)
        self.put(f"br i1 {self.value(s.condition)}, label %{body}, label %{after}")
        self.label(body)
        self.statements(s.body)
        self.put(f"br label %{test}")
        self.label(after)

    def _for(self, s: k.For) -> None:
        if s.kind in ("block", "thread"):
            raise TypeError(f"the loop over {s.var.name} is for a target with blocks of threads")
        if s.kind == "parallel" and not self.is_task:
            self._parallel(s)
        elif s.kind == "unroll" and self._unrolls(s):
            self._unroll(s)
        else:
            self._loop(s)

    @staticmethod
    def _unrolls(s: k.For) -> bool:
        if not all(isinstance(e, k.Const) for e in (s.lo, s.hi, s.step)):
            return False
        return len(range(s.lo.value, s.hi.value, s.step.value)) <= UNROLL_LIMIT  # type: ignore[attr-defined]

    def _unroll(self, s: k.For) -> None:
        self.depth += 1
        for i in range(s.lo.value, s.hi.value, s.step.value):  # type: ignore[attr-defined]
            self.values[s.var] = str(i)
            self.statements(s.body)
        self.depth -= 1

    def _loop(self, s: k.For) -> None:
        lo, hi = self.value(s.lo), self.value(s.hi)
        if is_repeated(s):
            whole = self._whole(s, lo, hi)
            if whole != lo:
                self._iterate(s, lo, whole, COPIES)
            lo = whole
            if lo == hi:
                return
        self._iterate(s, lo, hi, 1)

    def _whole(self, s: k.For, lo: str, hi: str) -> str:
        """Where those iterations end of which there are COPIES each time."""
        size = s.step.value * COPIES  # type: ignore[attr-defined]
        if _numbers(lo, hi):
            return str(int(lo) + max(0, int(hi) - int(lo)) // size * size)
        span = self.let(f"sub nsw i64 {hi}, {lo}")
        times = self.let(f"sdiv i64 {span}, {size}")  # towards zero: what is left of none is none
        return self.let(f"add nsw i64 {lo}, {self.let(f'mul nsw i64 {times}, {size}')}")

    def _iterate(self, s: k.For, lo: str, hi: str, copies: int) -> None:
        """The loop from lo to hi; `copies` of its body do as many iterations at a time."""
        body, after = self.fresh("loop"), self.fresh("done")
        if not _numbers(lo, hi) or int(lo) >= int(hi):
            enter = self.let(f"icmp slt i64 {lo}, {hi}")
            ahead = self.fresh("ahead")
            self.put(f"br i1 {enter}, label %{ahead}, label %{after}")
            self.label(ahead)
        step = self.value(s.step)
        before = self.block
        self.put(f"br label %{body}")
        self.label(body)
        first = i = "%" + self.fresh("i")
        phi = len(self.lines)
        self.lines.append("")
        self.depth += 1
        for _ in range(copies):
            self.values[s.var] = i
            self.statements(s.body)
            i = self.let(f"add nsw i64 {i}, {step}")
        self.depth -= 1
        self.lines[phi] = f"  {first} = phi i64 [ {lo}, %{before} ], [ {i}, %{self.block} ]"
        again = self.let(f"icmp slt i64 {i}, {hi}")
        rolled = f", !llvm.loop {self.owner.rolled(copies > 1)}" if stays_rolled(s) else ""
        self.put(f"br i1 {again}, label %{body}, label %{after}{rolled}")
        self.label(after)

    # ---- parallel loops

    def _parallel(self, s: k.For) -> None:
        """Packs what the loop uses into a record on the stack and hands the tasks to the pool."""
        lo, hi, step = (self.value(e) for e in (s.lo, s.hi, s.step))
        inner = TaskEmitter(self)
        inner.strict = self.strict
        inner.values[s.var] = "%i"
        inner.statements(s.body)
        fields_ = [("ptr", self.pointers[b]) for b in inner.buffers]
        fields_ += [(register(n.type), self.value(n)) for n in inner.names]
        fields_ += [("ptr", "%status"), ("i64", lo), ("i64", step)]
        record = "{ " + ", ".join(t for t, _ in fields_) + " }"
        context = self.alloca(f"{record}, align 64")
        for i, (t, x) in enumerate(fields_):
            p = self.let(f"getelementptr inbounds {record}, ptr {context}, i64 0, i32 {i}")
            self.put(f"store {t} {x}, ptr {p}")
        count = self._task_count(s, lo, hi, step)
        task = self._task(inner, record, [t for t, _ in fields_])
        self.owner.declare("gt_parallel_for", "void @gt_parallel_for(ptr, ptr, i64)")
        self.put(f"call void @gt_parallel_for(ptr @{task}, ptr {context}, i64 {count})")

    def _task_count(self, s: k.For, lo: str, hi: str, step: str) -> str:
        span = hi if lo == "0" else self.let(f"sub nsw i64 {hi}, {lo}")
        span = self.call("llvm.smax.i64", "i64", ("i64", span), ("i64", "0"))
        if step == "1":
            return span
        up = self.let(f"add nsw i64 {span}, {self.let(f'sub nsw i64 {step}, 1')}")
        return self.let(f"udiv i64 {up}, {step}")

    def _task(self, inner: TaskEmitter, record: str, types: list[str]) -> str:
        body = self.owner.symbol(f"k.{self.kernel}.body")
        params = [*parameters(inner.buffers, inner.names, inner.memory), "i64 noundef %i"]
        self.owner.functions.append(
            inner.finish(f"define internal void @{body}({', '.join(params)}) noinline #0")
        )
        name = self.owner.symbol(f"k.{self.kernel}.task")
        outer = FunctionEmitter(self.owner, self.kernel)
        loaded = []
        for i, t in enumerate(types):
            p = outer.let(f"getelementptr inbounds {record}, ptr %ctx, i64 0, i32 {i}")
            loaded.append((t, outer.let(f"load {t}, ptr {p}")))
        at = outer.let(f"mul nsw i64 %task, {loaded[-1][1]}")
        at = outer.let(f"add nsw i64 {at}, {loaded[-2][1]}")
        args = ", ".join(f"{t} {x}" for t, x in loaded[:-2])
        outer.put(f"call void @{body}({args}, i64 {at})")
        self.owner.functions.append(
            outer.finish(f"define internal void @{name}(ptr %ctx, i64 %task) #0")
        )
        return name


def is_repeated(s: k.For) -> bool:
    """Whether a loop has its body COPIES times, for as many iterations at a time: the innermost
    ones whose sums fill the registers.

    A core that runs another thread as well takes fewer instructions a cycle from each than a full
    tile needs: those that count and jump are then missing from the multiply-adds.
    """
    return (
        s.kind == "rolled"
        and isinstance(s.step, k.Const)
        and s.step.value > 0
        and any(isinstance(x, k.Assign) for x in s.body)
        and not any(isinstance(x, (k.For, k.While)) for x in k.walk(s.body))
    )


def _numbers(*values: str) -> bool:
    return all(v.lstrip("-").isdigit() for v in values)


# constant trip counts that LLVM would write out as scalars before it could vectorise
SHORT = range(17, 128)


def stays_rolled(s: k.For) -> bool:
    """Whether LLVM may not unroll a loop: where the body says so; where it holds loops, which LLVM
    would write out in full (a kernel of constant sizes then takes ten times as long to compile);
    and where it is a short vector loop. Longer vector loops need unrolling: it is how their
    accumulators become several."""
    if s.kind == "vector" and isinstance(s.lo, k.Const) and isinstance(s.hi, k.Const):
        return s.hi.value - s.lo.value in SHORT
    return s.kind in ("rolled", "single") or (
        s.kind == "serial" and any(isinstance(x, k.For) for x in k.walk(s.body))
    )


class TaskEmitter(FunctionEmitter):
    """Emits the body of a parallel loop; what it finds defined around the loop becomes a parameter.

    Attributes:
        buffers, names: the parameters, in the order of first use.
        memory: for each buffer the first one that has the same memory (see `ModuleEmitter.kernel`).
    """

    def __init__(self, around: FunctionEmitter) -> None:
        super().__init__(around.owner, around.kernel)
        self.is_task = True
        self.buffers: list[Buffer] = []
        self.names: list[Name] = []
        self.memory: list[int] = []
        self._around = around
        self.values = Found(self._value)
        self.pointers = Found(self._pointer)

    def _value(self, name: Name) -> str:
        if name not in self._around.values and name not in self._around.registers:
            raise KeyError(name)
        self.names.append(name)
        return f"%n{len(self.names) - 1}"

    def _pointer(self, buffer: Buffer) -> str:
        there = self._around.pointers[buffer]
        same = (i for i, b in enumerate(self.buffers) if self._around.pointers[b] == there)
        self.memory.append(next(same, len(self.buffers)))
        self.buffers.append(buffer)
        return f"%b{self.memory[-1]}"


class Found(dict):  # type: ignore[type-arg]
    """A dict that looks for what it does not have."""

    def __init__(self, look: Callable[[Any], str]):
        super().__init__()
        self._look = look

    def __missing__(self, key: Any) -> str:
        found = self[key] = self._look(key)
        return found


_EMIT: dict[type, Callable[..., None]] = {
    k.For: FunctionEmitter._for,
    k.Let: FunctionEmitter._let,
    k.Var: FunctionEmitter._var,
    k.Assign: FunctionEmitter._assign,
    k.Store: FunctionEmitter._store,
    k.Stream: FunctionEmitter._stream,
    k.Scratch: FunctionEmitter._scratch,
    k.If: FunctionEmitter._if,
    k.While: FunctionEmitter._while,
    k.Call: FunctionEmitter._call,
    k.Fail: FunctionEmitter._fail,
}
assert INDEX.lanes == 1 and constant(0, INDEX) == "0"
