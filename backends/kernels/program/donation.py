"""Donated inputs: which outputs may be written into the memory of the input they take over.

An update in place is right if no later launch reads the input, and a kernel that reads the input
and writes the output does so element by element: it reads element I before it stores element I, in
the same iteration of the same loops, and I is another one in each iteration. Whatever is not seen
to be so keeps memory of its own.

A call that fails leaves its inputs as they were: where data may lead to an error, what is updated
in place comes after the last kernel that may find one, and after a test of whether one did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from ..ir import (
    Assign,
    Buffer,
    Call,
    Expr,
    Fail,
    For,
    If,
    Kernel,
    Let,
    Load,
    Name,
    Ref,
    Stmt,
    Store,
    Var,
    While,
    walk,
)
from ..text import print_expr
from .program import Launch, Program, Slot, flat, touched


def assign_aliases(
    program: Program, donates: Iterable[tuple[int, int]], stops: bool = True
) -> None:
    """Set `alias` of the outputs that may take over their input.

    Args:
        donates: pairs (output, input).
        stops: whether calls of the program end at an error before they change an input.
    """
    donates = list(donates)
    if not donates:
        return
    taken: set[Slot] = set()
    users = _users(program)
    fails = _that_may_fail(program) if stops else []
    safe = max(fails, default=-1) + 1
    first = len(program.launches)
    for output, source in donates:
        out, given = program.outputs[output], program.inputs[source]
        made = users.get(out, [])
        if (
            given not in taken
            and out.alias is None
            and (out.dtype, out.shape) == (given.dtype, given.shape)
            and made
            and made[0] >= safe
            and _allowed(program, out, given, [i for i in users.get(given, []) if i >= made[0]])
        ):
            out.alias = given
            taken.add(given)
            first = min(first, made[0])
    if fails and taken:
        program.guarded = program.launches[first]


def _users(program: Program) -> dict[Slot, list[int]]:
    """Which launches, loops and branches touch a slot."""
    users: dict[Slot, list[int]] = {}
    for i, item in enumerate(program.launches):
        for slot in touched(item):
            users.setdefault(slot, []).append(i)
    return users


def _that_may_fail(program: Program) -> list[int]:
    """Which launches, loops and branches may find an error in the data."""
    failing = {k for k in program.kernels() if any(isinstance(s, Fail) for s in walk(k.body))}
    return [
        i
        for i, item in enumerate(program.launches)
        if any(launch.kernel in failing for launch in flat([item]))
    ]


def _allowed(program: Program, out: Slot, given: Slot, readers: Iterable[int]) -> bool:
    """Args: readers: what touches `given` from the launch on that makes `out`."""
    if any(given in launch.slots for launch in program.prologue):
        return False
    items = [program.launches[i] for i in readers]
    return all(isinstance(item, Launch) and _in_place(item, out, given) for item in items)


def _in_place(launch: Launch, out: Slot, given: Slot) -> bool:
    buffers = dict(zip(launch.slots, launch.kernel.buffers, strict=True))
    repeated = launch.slots.count(out) != 1 or launch.slots.count(given) != 1
    return not repeated and elementwise(launch.kernel, buffers[given], buffers[out])


def elementwise(kernel: Kernel, source: Buffer, target: Buffer) -> bool:
    """Whether `target` may be the memory of `source` in `kernel`."""
    if any(isinstance(s, Call) for s in walk(kernel.body)):
        return False
    found = [
        (loops, block, s)
        for loops, block, s in _places(kernel.body, ())
        if isinstance(s, Store) and s.buffer is target
    ]
    if len(found) != 1:
        return False
    loops, block, store = found[0]
    if loops and loops[0].kind == "block" and not any(loop.kind == "thread" for loop in loops):
        return False  # all threads store it, some before others have read
    ahead = block[: block.index(store) + 1]
    reads = [load for s in ahead for load in loads(s)]
    everywhere = [load for s in kernel.body for load in _all_loads(s)]
    if any(load.buffer is target for load in everywhere):
        return False
    inside = [load for load in reads if load.buffer is source]
    if len(inside) != sum(load.buffer is source for load in everywhere):
        return False
    where = (print_expr(store.index), store.value.type.lanes)
    same = all((print_expr(load.index), load.type.lanes) == where for load in inside)
    return same and _varies(kernel, store.index, loops)


def _places(
    body: list[Stmt], loops: tuple[For, ...]
) -> Iterator[tuple[tuple[For, ...], list[Stmt], Stmt]]:
    """Every statement with the loops around it and the block it stands in."""
    for s in body:
        yield loops, body, s
        if isinstance(s, For):
            yield from _places(s.body, (*loops, s))
        elif isinstance(s, If):
            yield from _places(s.then, loops)
            yield from _places(s.orelse, loops)
        elif isinstance(s, While):
            yield from _places(s.body, loops)


def _varies(kernel: Kernel, index: Expr, loops: Sequence[For]) -> bool:
    """Whether `index` depends on every loop, and on nothing that is assigned."""
    meaning: dict[Name, tuple[Expr, ...]] = {
        s.name: (s.value,) for s in walk(kernel.body) if isinstance(s, Let)
    }
    meaning.update({s.var: (s.lo,) for s in walk(kernel.body) if isinstance(s, For)})
    registers = {s.name for s in walk(kernel.body) if isinstance(s, (Var, Assign))}
    seen: set[Name] = set()
    waiting = list(_parts(index))
    while waiting:
        part = waiting.pop()
        if isinstance(part, Name) and part not in seen:
            seen.add(part)
            waiting += [p for e in meaning.get(part, ()) for p in _parts(e)]
    return not seen & registers and all(loop.var in seen for loop in loops)


def loads(s: Stmt) -> Iterator[Load]:
    """The loads in the expressions of one statement, not of the statements inside it."""
    if isinstance(s, (For, If, While)):
        s_exprs: tuple[object, ...] = (s.lo, s.hi, s.step) if isinstance(s, For) else (s.condition,)
    else:
        s_exprs = tuple(getattr(s, f.name) for f in fields(s))
    for e in s_exprs:
        yield from (p for p in _parts(e) if isinstance(p, Load))


def _all_loads(s: Stmt) -> Iterator[Load]:
    for inner in walk([s]):
        yield from loads(inner)


def _parts(e: object) -> Iterator[Expr]:
    """`e` and the expressions inside it."""
    if isinstance(e, Expr):
        yield e
        if not isinstance(e, Name):
            for f in fields(e):  # type: ignore[arg-type]
                yield from _parts(getattr(e, f.name))
    elif isinstance(e, (tuple, list)):
        for item in e:
            yield from _parts(item)
    elif isinstance(e, Ref):
        yield from _parts(e.offset)
