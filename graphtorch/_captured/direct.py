"""A call that was recorded as one function: what has to hold, the program, and the result.

It is written for the kind of call that came last. Whatever it does not serve is looked up instead,
in which nothing is assumed of the call before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphtorch.ir.graph import Type
from graphtorch.ir.ops.require import RAISED

from .._deferred.door import ITEM, LIST_ITEM, Block, Buffer, Given, New
from .._deferred.making import from_buffer, new_tensor
from .._deferred.programs import Recorded
from .._deferred.storage import Leaf, recorder
from .._ops.autocast import state as autocast_state
from .._settings import chosen
from .._types import defaults
from ..autograd.grad_mode import modes
from ..utils.hooks import changes
from .checks import Checks
from .entry import OTHER, Entry, Failed, Replay, settled
from .signature import write_signature
from .status import status

Direct = Callable[[Any, Any], Any]  # of arguments and keyword arguments; OTHER where it serves not


def direct(
    owner: Any,
    args: Any,
    kwargs: Any,
    axes: Mapping[int, Mapping[int, Any]],
    entry: Entry | None,
    serve: Callable[..., Any],
) -> Direct | None:
    """What makes calls of the kind of these arguments; None where there is no such function.

    Args:
        owner: the compiled function.
        axes: of tensors, by their ids, the axes whose sizes are symbols.
        entry: the recording, where it is the only one that there is.
        serve: finds the recording among several: of the tensors, and all arguments.
    """
    checks = Checks()
    _write_state(checks, owner)
    try:
        names = write_signature(checks, args, kwargs, axes)
    except NotImplementedError:
        return None
    checks.space["OTHER"] = OTHER
    given = f"[{', '.join(names)}]"
    if entry is None or entry.replay.steps:
        lines = [f"return {checks.const(serve)}({given}, args, kwargs)"]
        return checks.function("args, kwargs", lines, "OTHER")
    checks.add(f"(given := {given}) is not None")
    checks.join(entry.checks)
    lines = [
        *entry.replay.reading(checks),
        "if state is None:",
        "    return OTHER",
        *_call(checks, entry.replay, names),
    ]
    return checks.function("args, kwargs", lines, "OTHER")


def _call(checks: Checks, replay: Replay, given: Sequence[str]) -> list[str]:
    """The lines that make the call in the `state` that was read; `given` are the names of the
    arguments, none of which is a view."""
    program = replay.program.program if type(replay.program) is Recorded else None
    plain = replay.backward is None and not replay.draws and not replay.scalars
    if not plain or replay.only is None or program is None or replay.program.takes_more:
        return [f"return {checks.const(replay.run)}([{', '.join(given)}], state)"]
    checks.space |= _NAMES
    inputs = [f"b{k}" for k in range(len(replay.fed))]
    lines = [
        f"{b} = v.buffer if type(v := {given[i]}._storage.value) is Leaf else "
        f"settled({given[i]}._storage)"
        for b, (i, _) in zip(inputs, replay.fed, strict=True)
    ]
    lines.append(f"{checks.const(program)}.runs += 1")
    single = program.run.single() if hasattr(program.run, "single") else None
    if single is not None:
        lines += _single(checks, single, inputs)
    return [
        *lines,
        "try:",
        f"    results = {checks.const(program.run.__call__)}([{', '.join(inputs)}], state)",
        "except RAISED as error:",
        "    raise Failed from error",
        f"return from_buffer(results[{replay.only}])",
    ]


def _single(checks: Checks, single: Any, inputs: Sequence[str]) -> list[str]:
    """The lines that run a program with one output, and make a tensor of it, where a frame holds
    its stable inputs already. See `backends.llvm.executable.Single`."""
    dtype, shape = single.dtype, single.shape
    buffer = New(Buffer, address=Given(1), dtype=dtype, owner=Given(0), shape=shape)
    inference = {"_inference": True} if modes.inference else {}
    new = new_tensor(Type(dtype, shape), buffer, **inference)
    call = single.caller(len(inputs), new)
    memory = [] if single.is_small else [f"block = Block({single.size})"]
    given = [] if single.is_small else ["block", "block.address"]
    given = ["context.pointer", *given, *[f"{b}.address" for b in inputs]]
    return [
        f"checked = {checks.const(single.program)}.checked",
        "if checked is not None and checked.buffers is state:",
        "    try:",
        f"        context = {checks.const(single.contexts.pop)}()",
        "    except IndexError:",
        "        context = None",
        "    if context is not None and context.holds is checked.mark:",
        *[f"        {line}" for line in memory],
        f"        made = {checks.const(call)}({', '.join(given)})",
        f"        {checks.const(single.contexts.append)}(context)",
        "        if type(made) is int:",
        f"            raise Failed from {checks.const(single.program)}.error(made)",
        "        return made",
        "    if context is not None:",
        f"        {checks.const(single.contexts.append)}(context)",
    ]


_NAMES = {
    "Block": Block,
    "Failed": Failed,
    "Leaf": Leaf,
    "RAISED": RAISED,
    "from_buffer": from_buffer,
    "settled": settled,
}


def _write_state(checks: Checks, owner: Any) -> None:
    """What of this thread, and of the process, is to be as it is now."""
    own, mode = checks.const(owner), checks.const(modes)
    checks.add(f"{checks.const(recorder)}.capture is None")
    checks.add(f"{checks.const(status)}.stance == 'default'")
    checks.add(f"{own}._seen == {checks.const(changes)}.count")
    checks.value(f"{own}._training", owner._training)
    flags = [
        f"{mode}.{name} is {getattr(modes, name)}" for name in ("grad", "inference", "anomaly")
    ]
    flags.append(f"{mode}.watchers == 0")
    # what this thread has set, all of it at once, is as a rule what it had set
    checks.add(f"({mode}.__dict__ == {checks.const(dict(vars(modes)))} or {' and '.join(flags)})")
    for text, value in (
        (f"{checks.const(autocast_state)}.target", autocast_state.target),
        (f"{checks.const(autocast_state)}.on_gpus", autocast_state.on_gpus),
    ):
        checks.value(text, value)
    for key in ("deterministic", "tf32"):
        text, value = f"{checks.const(chosen)}[{key!r}]", chosen[key]
        checks.value(text, value, (ITEM, chosen, key, None, value))
    text, value = f"{checks.const(defaults)}[0]", defaults[0]
    checks.value(text, value, (LIST_ITEM, defaults, 0, None, value))
