"""Kernels and programs as text, for golden tests, dumps and as a key of equal kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import ir as k
from .program import Branch, Item, Launch, Loop, Program, Slot

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "rem": "%",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shl": "<<",
    "shr": ">>",
}


def print_kernel(kernel: k.Kernel, name: str | None = None) -> str:
    """The kernel in the grammar of ir.py; `name` stands in for its own."""
    params = [f"{b.name}: {b.dtype}* {b.access}" for b in kernel.buffers] + [n.name for n in kernel.sizes]
    lines = [f"kernel {kernel.name if name is None else name}({', '.join(params)}) {{"]
    lines += _block(kernel.body, 1)
    return "\n".join([*lines, "}"]) + "\n"


def print_program(program: Program) -> str:
    """Every kernel, then the launches."""
    text = "".join(print_kernel(kernel) + "\n" for kernel in program.kernels())
    names: dict[Slot, str] = {}
    text += "".join(f"prologue {line}\n" for line in _items(program.prologue, names))
    return text + "".join(line + "\n" for line in _items(program.launches, names))


def _items(items: Sequence[Item], names: dict[Slot, str], pad: str = "") -> Iterator[str]:
    """Launches, loops and branches, one a line."""
    for item in items:
        match item:
            case Launch():
                slots = [_slot(s, names) for s in item.slots] + [str(d) for d in item.sizes]
                yield f"{pad}{item.kernel.name}({', '.join(slots)})  # {item.label}"
            case Loop():
                yield from _loop(item, names, pad)
            case Branch():
                yield f"{pad}if {_slot(item.predicate, names)} {{"
                yield from _items(item.then, names, pad + "  ")
                yield f"{pad}}} else {{"
                yield from _items(item.orelse, names, pad + "  ")
                yield pad + "}"


def _loop(loop: Loop, names: dict[Slot, str], pad: str) -> Iterator[str]:
    if loop.test is None:
        parts = f" in {loop.parts} parts" if loop.parts > 1 else ""
        yield f"{pad}loop {loop.count}{' reversed' if loop.reverse else ''}{parts} {{"
    else:
        yield f"{pad}loop while {{"
        yield from _items(loop.test[0], names, pad + "  ")
        yield f"{pad}}} {_slot(loop.test[1], names)} {{"
    for slot in (*loop.moving, *loop.stored):
        yield f"{pad}  {_slot(slot, names)} in {_slot(slot.parts[0], names)}"
    for carry in loop.carries:
        first, following = (_slot(s, names) for s in carry.now.parts)
        yield f"{pad}  {_slot(carry.now, names)} = {first}, then {following}"
    yield from _items(loop.body, names, pad + "  ")
    yield pad + "}"
    for carry in loop.carries:
        yield f"{pad}{_slot(carry.final, names)} = {_slot(carry.now, names)} after the loop"
    yield from _items(loop.after, names, pad)


def print_expr(e: k.Expr) -> str:
    """One expression."""
    return _expr(e)


def _slot(slot: Slot, names: dict[Slot, str]) -> str:
    if slot not in names:
        count = sum(n.startswith(slot.kind) for n in names.values())
        names[slot] = f"{slot.kind}{count}"
    return f"{names[slot]}: {slot.dtype}[{', '.join(map(str, slot.shape))}]"


def _block(body: Sequence[k.Stmt], depth: int) -> Iterator[str]:
    for stmt in body:
        yield from _statement(stmt, "  " * depth, depth)


def _statement(s: k.Stmt, pad: str, depth: int) -> Iterator[str]:
    match s:
        case k.For():
            step = "" if isinstance(s.step, k.Const) and s.step.value == 1 else f" step {_expr(s.step)}"
            kind = "" if s.kind == "serial" else f" {s.kind}"
            yield f"{pad}for {s.var.name} in {_expr(s.lo)}..{_expr(s.hi)}{step}{kind} {{"
            yield from _block(s.body, depth + 1)
            yield pad + "}"
        case k.Let():
            yield f"{pad}let {s.name.name}: {s.name.type} = {_expr(s.value)}"
        case k.Var():
            yield f"{pad}var {s.name.name}: {s.name.type} = {_expr(s.value)}"
        case k.Assign():
            yield f"{pad}{s.name.name} = {_expr(s.value)}"
        case k.Store():
            mask = "" if s.mask is None else f" if {_expr(s.mask)}"
            yield f"{pad}{s.buffer.name}[{_expr(s.index)}] = {_expr(s.value)}{mask}"
        case k.Scratch():
            yield f"{pad}scratch {s.buffer.name}: {s.buffer.dtype}[{s.size}]"
        case k.If():
            yield f"{pad}if {_expr(s.condition)} {{"
            yield from _block(s.then, depth + 1)
            if s.orelse:
                yield pad + "} else {"
                yield from _block(s.orelse, depth + 1)
            yield pad + "}"
        case k.Call():
            yield f"{pad}call {s.kernel.name}({', '.join(map(_argument, s.args))})"
        case k.Fail():
            yield f"{pad}fail {_expr(s.site)}"


def _argument(arg: k.Ref | k.Expr) -> str:
    return f"{arg.buffer.name} + {_expr(arg.offset)}" if isinstance(arg, k.Ref) else _expr(arg)


def _expr(e: k.Expr) -> str:
    match e:
        case k.Const():
            return repr(e.value) if e.type == k.INDEX else f"{e.value!r}:{e.type}"
        case k.Name():
            return e.name
        case k.Load():
            lanes = f":{e.type.lanes}" if e.type.lanes > 1 and e.index.type.lanes == 1 else ""
            mask = "" if e.mask is None else f" if {_expr(e.mask)}"
            return f"{e.buffer.name}[{_expr(e.index)}{lanes}{mask}]"
        case k.Binary() if e.op in INFIX:
            return f"({_expr(e.a)} {INFIX[e.op]} {_expr(e.b)})"
        case k.Binary():
            return f"{e.op}({_expr(e.a)}, {_expr(e.b)})"
        case k.Unary():
            return f"{e.op}({_expr(e.x)})"
        case k.Fma():
            return f"fma({_expr(e.a)}, {_expr(e.b)}, {_expr(e.c)})"
        case k.Select():
            return f"select({_expr(e.condition)}, {_expr(e.a)}, {_expr(e.b)})"
        case k.Cast() | k.Splat():
            return f"{e.type}({_expr(e.x)})"
        case k.Reduce():
            return f"reduce_{e.op}({_expr(e.x)})"
        case k.Shuffle():
            return f"shuffle({_expr(e.a)}, {_expr(e.b)}, {list(e.lanes)})"
        case k.Lanes():
            return f"lanes:{e.type}"
    raise TypeError(f"no text for kernel expression {type(e).__name__}")
