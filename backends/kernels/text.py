"""Kernels and programs as text, for golden tests, dumps and as a key of equal kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from . import ir as k
from .program.plan import Plan
from .program.program import Branch, Item, Launch, Loop, Program, Slot

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
    params = [f"{b.name}: {b.dtype}* {b.access}" for b in kernel.buffers] + [
        n.name for n in kernel.sizes
    ]
    lines = [f"kernel {kernel.name if name is None else name}({', '.join(params)}) {{"]
    lines += _block(kernel.body, 1)
    return "\n".join([*lines, "}"]) + "\n"


def print_statement(stmt: k.Stmt) -> str:
    """One statement, of a loop or a branch its first line."""
    return next(_block([stmt], 0))


def nameless(kernel: k.Kernel) -> str:
    """The text of a finished kernel without its name, made once: what equal kernels have in
    common."""
    if not kernel.text:
        kernel.text = print_kernel(kernel, "")
    return kernel.text


def print_program(program: Program) -> str:
    """Every kernel, then the launches."""
    text = "".join(print_kernel(kernel) + "\n" for kernel in program.kernels())
    names: dict[Slot, str] = {}
    text += "".join(f"prologue {line}\n" for line in _items(program.prologue, names))
    return text + "".join(line + "\n" for line in _items(program.launches, names))


def print_memory(program: Program, plan: Plan) -> str:
    """Where the temporaries lie in the arena and when they are in use, named as in
    `print_program`."""
    names: dict[Slot, str] = {}
    for items in (program.prologue, program.launches):
        list(_items(items, names))
    lines = [f"arena of {plan.size} bytes"]
    for slot, offset in plan.offsets.items():
        life = plan.lives[slot]
        lines.append(
            f"{offset}: {_slot(slot, names)}, {slot.elements} elements, {life.first} to {life.last}"
        )
    return "\n".join(lines) + "\n"


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
    pad = "  " * depth
    for s in body:
        if isinstance(s, k.For):
            step = (
                ""
                if isinstance(s.step, k.Const) and s.step.value == 1
                else f" step {_expr(s.step)}"
            )
            kind = "" if s.kind == "serial" else f" {s.kind}"
            kind += f" {s.threads}" if s.kind == "block" else ""
            kind += f" resident {s.resident}" if s.resident else ""
            yield f"{pad}for {s.var.name} in {_expr(s.lo)}..{_expr(s.hi)}{step}{kind} {{"
            yield from _block(s.body, depth + 1)
            yield pad + "}"
        elif isinstance(s, k.While):
            yield f"{pad}while {_expr(s.condition)} {{"
            yield from _block(s.body, depth + 1)
            yield pad + "}"
        elif isinstance(s, k.If):
            yield f"{pad}if {_expr(s.condition)} {{"
            yield from _block(s.then, depth + 1)
            if s.orelse:
                yield pad + "} else {"
                yield from _block(s.orelse, depth + 1)
            yield pad + "}"
        else:
            yield pad + _STATEMENTS[type(s)](s)


def _store(s: k.Store) -> str:
    mask = "" if s.mask is None else f" if {_expr(s.mask)}"
    return f"{s.buffer.name}[{_expr(s.index)}] = {_expr(s.value)}{mask}"


def _copy(s: k.Copy) -> str:
    known = " aligned" if s.aligned else ""
    source = f"{s.source.name}[{_expr(s.index)}:{s.lanes}{known}]"
    return f"copy {s.buffer.name}[{_expr(s.at)}] = {source} if {_expr(s.mask)}"


def _tile(t: k.Tile) -> str:
    return f"{t.buffer.name}[{_expr(t.at)} x {t.rows}{' turned' if t.turned else ''}]"


def _multiply_tiles(s: k.MultiplyTiles) -> str:
    left = _tile(s.a) if isinstance(s.a, k.Tile) else f"{s.a.buffer.name}[{_expr(s.a.at)}]"
    return f"tiles {s.sums.name} {'' if s.fresh else '+'}= {s.dtype} {left} {_tile(s.b)}"


def _load_matrices(s: k.LoadMatrices) -> str:
    turned = " transposed" if s.transposed else ""
    return f"matrices {s.target.name}[{_expr(s.at)}] = {s.source.name}[{_expr(s.index)}]{turned}"


_SPACES = {"private": "scratch", "shared": "shared"}
_STATEMENTS: dict[type, Callable[..., str]] = {
    k.Let: lambda s: f"let {s.name.name}: {s.name.type} = {_expr(s.value)}",
    k.Var: lambda s: f"var {s.name.name}: {s.name.type} = {_expr(s.value)}",
    k.Assign: lambda s: f"{s.name.name} = {_expr(s.value)}",
    k.Store: _store,
    k.Stream: lambda s: (
        f"stream {s.buffer.name}[{_expr(s.index)}:{_expr(s.count)}] = {s.source.name}"
    ),
    k.AtomicAdd: lambda s: f"add {s.buffer.name}[{_expr(s.index)}] += {_expr(s.value)}",
    k.Scratch: lambda s: f"{_SPACES[s.space]} {s.buffer.name}: {s.buffer.dtype}[{s.size}]",
    k.Copy: _copy,
    k.Await: lambda s: f"await {s.groups}",
    k.LoadMatrices: _load_matrices,
    k.MultiplyMatrices: lambda s: (
        f"multiply {s.sums.name}[{_expr(s.at)}] += {s.dtype} "
        f"{s.a.name}[{_expr(s.a_at)}] {s.b.name}[{_expr(s.b_at)}]"
    ),
    k.MultiplyTiles: _multiply_tiles,
    k.Settle: lambda s: f"settle {s.groups}" + (f" {s.registers.name}" if s.registers else ""),
    k.Publish: lambda s: "publish",
    k.Barrier: lambda s: "barrier",
    k.Call: lambda s: f"call {s.kernel.name}({', '.join(map(_argument, s.args))})",
    k.Fail: lambda s: f"fail {_expr(s.site)}",
}


def _argument(arg: k.Ref | k.Expr) -> str:
    return f"{arg.buffer.name} + {_expr(arg.offset)}" if isinstance(arg, k.Ref) else _expr(arg)


def _expr(e: k.Expr) -> str:
    if type(e) is k.Name:
        return e.name
    write = _EXPRESSIONS.get(type(e))
    if write is None:
        raise TypeError(f"no text for kernel expression {type(e).__name__}")
    return write(e)


def _const(e: k.Const) -> str:
    return repr(e.value) if e.type is k.INDEX else f"{e.value!r}:{e.type}"


def _load(e: k.Load) -> str:
    lanes = f":{e.type.lanes}" if e.type.lanes > 1 and e.index.type.lanes == 1 else ""
    mask = "" if e.mask is None else f" if {_expr(e.mask)}"
    known = " aligned" if e.aligned else ""
    return f"{e.buffer.name}[{_expr(e.index)}{lanes}{known}{mask}]"


def _binary(e: k.Binary) -> str:
    sign = INFIX.get(e.op)
    return (
        f"{e.op}({_expr(e.a)}, {_expr(e.b)})"
        if sign is None
        else f"({_expr(e.a)} {sign} {_expr(e.b)})"
    )


_EXPRESSIONS: dict[type, Callable[..., str]] = {
    k.Const: _const,
    k.Load: _load,
    k.Binary: _binary,
    k.Unary: lambda e: f"{e.op}({_expr(e.x)})",
    k.Fma: lambda e: f"{'exact_' * e.exact}fma({_expr(e.a)}, {_expr(e.b)}, {_expr(e.c)})",
    k.Dot: lambda e: f"dot_{e.kind}({_expr(e.a)}, {_expr(e.b)}, {_expr(e.c)})",
    k.Select: lambda e: f"select({_expr(e.condition)}, {_expr(e.a)}, {_expr(e.b)})",
    k.Cast: lambda e: f"{e.type}({_expr(e.x)})",
    k.Splat: lambda e: f"{e.type}({_expr(e.x)})",
    k.Reduce: lambda e: f"reduce_{e.op}({_expr(e.x)})",
    k.WarpReduce: lambda e: f"warp_{e.op}({_expr(e.x)}, {e.width})",
    k.FromLane: lambda e: f"from_lane({_expr(e.x)}, {_expr(e.lane)})",
    k.Pair: lambda e: f"pair_{e.dtype}({_expr(e.low)}, {_expr(e.high)})",
    k.Tf32: lambda e: f"tf32({_expr(e.x)})",
    k.Aligned: lambda e: f"aligned({e.buffer.name})",
    k.Shuffle: lambda e: f"shuffle({_expr(e.a)}, {_expr(e.b)}, {list(e.lanes)})",
    k.Lanes: lambda e: f"lanes:{e.type}",
}
