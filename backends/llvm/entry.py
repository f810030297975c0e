"""A program as one LLVM module: its kernels, and the functions that launch them in order (see abi.py).

Sizes are computed from the symbols here, so one compile serves them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphtorch.ir.shape import Dim, Quotient, Remainder, Symbol, SymInt, bounds

from ..kernels.plan import Plan
from ..kernels.program import Branch, Item, Launch, Loop, Program, Slot
from .abi import ENTRY, PROLOGUE
from .emit import ModuleEmitter
from .target import Target


def emit_program(program: Program, plan: Plan, target: Target, entry: str = ENTRY,
                 prologue: str = PROLOGUE, linkage: str = "") -> str:
    """LLVM IR of `program` with its temporaries placed by `plan`; the pool is an external symbol.

    `linkage` is ``internal`` where the functions are called from the same module only.
    """
    module = ModuleEmitter(program.name, target)
    constants: dict[Slot, str] = {}
    for name, launches in ((prologue, program.prologue), (entry, program.launches)):
        if name == entry or launches:
            module.functions.append(
                EntryEmitter(module, program, plan, constants).function(name, launches, linkage)
            )
    return module.text()


def packed_layout(program: Program) -> tuple[dict[Slot, Dim], Dim]:
    """Byte offset of each packed slot, one after the other, and their total size."""
    offsets: dict[Slot, Dim] = {}
    total: Dim = 0
    for slot in program.packed():
        offsets[slot] = total
        total = total + (slot.elements * slot.dtype.itemsize + 63) // 64 * 64
    return offsets, total


class EntryEmitter:
    """Emits one function that launches kernels."""

    def __init__(self, module: ModuleEmitter, program: Program, plan: Plan, constants: dict[Slot, str]):
        self.module = module
        self.program = program
        self.plan = plan
        self.constants = constants
        self.packed, _ = packed_layout(program)
        self.lines: list[str] = []
        self._known: dict[object, str] = {}
        self._block = "entry"
        self.part = ""  # in the function of one part of a loop: its number
        self._labels = 0
        inputs, outputs, symbols = len(program.inputs), len(program.outputs), len(program.symbols)
        self._first = {"input": 0, "output": inputs, "symbol": inputs + outputs,
                       "temporary": inputs + outputs + symbols, "packed": inputs + outputs + symbols + 1}

    def function(self, name: str, launches: Sequence[Item], linkage: str = "") -> str:
        self._items(launches)
        return "\n".join(
            [
                f"define {linkage} i32 @{name}(ptr noalias nofree %args) #0 {{",
                "entry:",
                "  %status = alloca i32, align 64",
                "  store i32 0, ptr %status",
                *self.lines,
                "  %code = load atomic i32, ptr %status monotonic, align 4",
                "  ret i32 %code",
                "}",
                "",
            ]
        )

    def _items(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Launch):
                self._launch(item)
            elif isinstance(item, Loop):
                (self._while if item.test else self._parts if item.parts > 1 else self._loop)(item)
            else:
                self._branch(item)

    def part_function(self, name: str, loop: Loop) -> str:
        """What runs a loop for one part of the rows; its context holds the arguments and the status."""
        self.part = "%part"
        self._loop(loop)
        return "\n".join([
            f"define internal void @{name}(ptr nofree %context, i64 %part) #0 {{", "entry:",
            "  %args = load ptr, ptr %context",
            "  %status.p = getelementptr inbounds i8, ptr %context, i64 8",
            "  %status = load ptr, ptr %status.p",
            *self.lines, "  ret void", "}", ""])

    def _parts(self, loop: Loop) -> None:
        """Hands the parts of a loop to the pool."""
        name = self.module.symbol("part")
        inner = EntryEmitter(self.module, self.program, self.plan, self.constants)
        self.module.functions.append(inner.part_function(name, loop))
        self.module.declare("gt_parallel_for", "void @gt_parallel_for(ptr, ptr, i64)")
        context = self._let("alloca { ptr, ptr }, align 16")
        status = self._let(f"getelementptr inbounds i8, ptr {context}, i64 8")
        self.lines += [f"  store ptr %args, ptr {context}", f"  store ptr %status, ptr {status}",
                       f"  call void @gt_parallel_for(ptr @{name}, ptr {context}, i64 {loop.parts})"]

    def _piece(self, pointer: str, elements: Dim, slot: Slot) -> str:
        """Where this part's piece of `elements` begins in memory that has one for each part."""
        if not self.part:
            return pointer
        offset = self._let(f"mul nsw i64 {self.part}, {self._dim(elements * slot.dtype.itemsize)}")
        return self._let(f"getelementptr inbounds i8, ptr {pointer}, i64 {offset}")

    def _launch(self, launch: Launch) -> None:
        memory = [self._memory(s) for s in launch.slots]
        name = self.module.kernel(launch.kernel, tuple(memory.index(m) for m in memory))
        args = [f"ptr {self._pointer(s)}" for s in launch.slots]
        args += [f"i64 {self._dim(d)}" for d in launch.sizes]
        self.lines.append(f"  call void @{name}({', '.join([*args, 'ptr %status'])})")

    def _memory(self, slot: Slot) -> object:
        """What identifies the memory of a slot: two slots of one kernel may share it (in-place updates)."""
        slot = slot.alias or slot
        if slot.parts:
            return slot
        if slot.kind == "temporary":
            return "temporary", self.plan.offsets[slot]
        return slot

    # ---- loops and branches

    def _label(self, hint: str) -> str:
        self._labels += 1
        return f"{hint}{self._labels}"

    def _enter(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self._block = label

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """What is computed inside a block is not known after it."""
        known = dict(self._known)
        yield
        self._known = known

    def _phi(self, type: str, pairs: Sequence[tuple[str, str]]) -> str:
        return self._let(f"phi {type} " + ", ".join(f"[ {x}, %{block} ]" for x, block in pairs))

    def _loop(self, loop: Loop) -> None:
        """Guard, then do-while; pointers to what is carried move from step to step."""
        assert loop.count is not None
        count = self._dim(loop.count)
        firsts = [self._piece(self._pointer(c.now.parts[0]), c.now.elements, c.now) for c in loop.carries]
        body, done, before = self._label("loop"), self._label("done"), self._block
        some = self._let(f"icmp sgt i64 {count}, 0")
        self.lines.append(f"  br i1 {some}, label %{body}, label %{done}")
        self._enter(body)
        with self._inside():
            at = len(self.lines)
            self.lines += [""] * (1 + len(firsts))
            step, nexts = self._steps(loop, f"%step.{body}", count if loop.reverse else None)
            again = self._let(f"icmp slt i64 {step}, {count}")
            self.lines.append(f"  br i1 {again}, label %{body}, label %{done}")
            self._fill(at, loop, body, [("0", *firsts), (step, *nexts)], (before, self._block))
        after = self._block
        self._enter(done)
        for carry, first, following in zip(loop.carries, firsts, nexts, strict=True):
            self._known[carry.final] = self._phi("ptr", [(first, before), (following, after)])
        for slot in loop.stored:
            self._known[slot] = self._piece(self._pointer(slot.parts[0]), slot.elements, slot)
        self._items(loop.after)

    def _while(self, loop: Loop) -> None:
        """A test before each step; the test reads the carries as well."""
        assert loop.test is not None
        firsts = [self._pointer(c.now.parts[0]) for c in loop.carries]
        head, body, done, before = *(self._label(x) for x in ("while", "loop", "done")), self._block
        self.lines.append(f"  br label %{head}")
        self._enter(head)
        at = len(self.lines)
        self.lines += [""] * (1 + len(firsts))
        with self._inside():
            self._known.update((c.now, self._carried(head, i)) for i, c in enumerate(loop.carries))
            self._items(loop.test[0])
            self.lines.append(f"  br i1 {self._flag(loop.test[1])}, label %{body}, label %{done}")
            self._enter(body)
            step, nexts = self._steps(loop, f"%step.{head}", None, head)
            self.lines.append(f"  br label %{head}")
            self._fill(at, loop, head, [("0", *firsts), (step, *nexts)], (before, self._block))
        self._enter(done)
        self._known.update((c.final, self._carried(head, i)) for i, c in enumerate(loop.carries))

    def _steps(self, loop: Loop, step: str, count: str | None, label: str = "") -> tuple[str, list[str]]:
        """The body at number `step`: the number of the next step and where it finds the carries."""
        label = label or self._block
        self._known.update((c.now, self._carried(label, i)) for i, c in enumerate(loop.carries))
        place = step
        if count is not None:
            place = self._let(f"sub nsw i64 {self._let(f'sub nsw i64 {count}, 1')}, {step}")
        for slot in loop.moving:
            index = place if slot.kind == "step" else self._let(f"and i64 {step}, 1")
            size = self._dim(slot.stride * slot.dtype.itemsize)
            offset = self._let(f"mul nsw i64 {index}, {size}")
            base = self._piece(self._pointer(slot.parts[0]), slot.elements, slot)
            self._known[slot] = self._let(f"getelementptr inbounds i8, ptr {base}, i64 {offset}")
        self._items(loop.body)
        return self._let(f"add nsw i64 {step}, 1"), [self._pointer(c.next) for c in loop.carries]

    @staticmethod
    def _carried(label: str, index: int) -> str:
        return f"%carry.{label}.{index}"

    def _fill(self, at: int, loop: Loop, label: str, values: Sequence[Sequence[str]],
              blocks: Sequence[str]) -> None:
        """The phis of a loop's head, whose operands are known by now."""
        names = [("i64", f"%step.{label}")]
        names += [("ptr", self._carried(label, i)) for i in range(len(loop.carries))]
        for k, (type, name) in enumerate(names):
            pairs = ", ".join(f"[ {v[k]}, %{b} ]" for v, b in zip(values, blocks, strict=True))
            self.lines[at + k] = f"  {name} = phi {type} {pairs}"

    def _flag(self, slot: Slot) -> str:
        """A bool in memory as an i1."""
        byte = self._let(f"load i8, ptr {self._pointer(slot)}")
        return self._let(f"icmp ne i8 {byte}, 0")

    def _branch(self, branch: Branch) -> None:
        then, orelse, after = (self._label(x) for x in ("then", "else", "after"))
        self.lines.append(f"  br i1 {self._flag(branch.predicate)}, label %{then}, label %{orelse}")
        for label, block in ((then, branch.then), (orelse, branch.orelse)):
            self._enter(label)
            with self._inside():
                self._items(block)
            self.lines.append(f"  br label %{after}")
        self._enter(after)

    # ---- values

    def _let(self, text: str) -> str:
        name = f"%v{len(self._known)}_{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def _argument(self, index: int, type: str) -> str:
        key = ("argument", index)
        if key not in self._known:
            at = self._let(f"getelementptr inbounds i64, ptr %args, i64 {index}")
            self._known[key] = self._let(f"load {type}, ptr {at}")
        return self._known[key]

    def _pointer(self, slot: Slot) -> str:
        slot = slot.alias or slot
        if slot not in self._known:
            self._known[slot] = self._address(slot)
        return self._known[slot]

    def _address(self, slot: Slot) -> str:
        if slot.kind == "constant":
            return self._constant(slot)
        if slot.kind in ("input", "output"):
            return self._argument(self._first[slot.kind] + slot.index, "ptr")
        base = self._argument(self._first[slot.kind], "ptr")
        offsets = self.packed if slot.kind == "packed" else self.plan.offsets
        offset = self._dim(offsets[slot])
        found = self._let(f"getelementptr inbounds i8, ptr {base}, i64 {offset}")
        return self._piece(found, slot.each, slot) if slot.each else found

    def _constant(self, slot: Slot) -> str:
        if slot not in self.constants:
            assert slot.literal is not None
            data = slot.literal.data + bytes(
                int(slot.elements) * slot.dtype.itemsize - len(slot.literal.data)
            )
            self.constants[slot] = self.module.global_bytes(data)
        return self.constants[slot]

    # ---- sizes

    def _dim(self, dim: Dim) -> str:
        if isinstance(dim, int):
            return str(dim)
        if dim not in self._known:
            self._known[dim] = self._sum(dim)
        return self._known[dim]

    def _sum(self, dim: SymInt) -> str:
        total = ""
        for monomial, factor in dim.terms:
            term = str(factor) if not monomial else self._atom(monomial[0])
            for atom in monomial[1:]:
                term = self._let(f"mul nsw i64 {term}, {self._atom(atom)}")
            if monomial and factor != 1:
                term = self._let(f"mul nsw i64 {term}, {factor}")
            total = self._let(f"add nsw i64 {total}, {term}") if total else term
        return total

    def _atom(self, atom: Symbol | Quotient | Remainder) -> str:
        if isinstance(atom, Symbol):
            return self._argument(self._first["symbol"] + self.program.symbols.index(atom), "i64")
        if atom not in self._known:
            self._known[atom] = self._divide(atom)
        return self._known[atom]

    def _divide(self, atom: Quotient | Remainder) -> str:
        """Rounds down, as Python does; a divisor of 0 (a size that no run may have) counts as 1."""
        a, b = self._dim(atom.numerator), self._dim(atom.denominator)
        if bounds(atom.denominator)[0] <= 0:
            zero = self._let(f"icmp eq i64 {b}, 0")
            b = self._let(f"select i1 {zero}, i64 1, i64 {b}")
        if bounds(atom.numerator)[0] >= 0 and bounds(atom.denominator)[0] >= 0:
            return self._let(f"{'udiv' if isinstance(atom, Quotient) else 'urem'} i64 {a}, {b}")
        rest = self._let(f"srem i64 {a}, {b}")
        other = self._let(f"icmp slt i64 {self._let(f'xor i64 {rest}, {b}')}, 0")
        some = self._let(f"icmp ne i64 {rest}, 0")
        off = self._let(f"and i1 {other}, {some}")
        if isinstance(atom, Remainder):
            return self._let(f"add i64 {rest}, {self._let(f'select i1 {off}, i64 {b}, i64 0')}")
        quotient = self._let(f"sdiv i64 {a}, {b}")
        return self._let(f"sub i64 {quotient}, {self._let(f'zext i1 {off} to i64')}")
