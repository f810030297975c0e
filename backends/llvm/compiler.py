"""From a graph to an executable, by way of the object cache."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Sequence
from functools import partial

from graphtorch.ir.graph import Graph
from graphtorch.ir.passes import pairs
from graphtorch.ir.passes.limits import Exactness
from graphtorch.ir.printer import print_graph
from graphtorch.ir.shape import assumed

from .. import cache, mixed
from ..record import Record
from . import debug
from .executable import Executable
from .image import Image, remember
from .processor import host
from .runtime import pool

# bytes of code, for which LLVM has worked for a second: it may take milliseconds to clean up then
LARGE = 24 << 10
compiled_count = 0  # executables made so far in this process, from the cache or not

# Programs in use, by the name of their cache entry: a step recorded again with gradients in place
# of None is the same program.
_alive: weakref.WeakValueDictionary[str, Executable] = weakref.WeakValueDictionary()
_unfinished: set[str] = set()  # those of which kernels are still to be measured


def compile(
    graph: Graph,
    stable: Sequence[int] = (),
    exact: Exactness = Exactness.NONE,
    tune: float = 0.0,
) -> Executable | mixed.Mixed:
    """Native code for `graph` on this machine, from the cache where it was compiled before.

    Ops on complex numbers that have no native code are run by their references, between parts that
    are compiled.

    Args:
        graph: as recorded.
        stable: positions of inputs that seldom change: what is packed from them is kept between
            calls.
        exact: what results have to be alike with.
        tune: seconds for measuring schedules; 0: none are.

    Raises:
        NotImplementedError: an op that has no native code, naming it and the user's line.
    """
    foreign = pairs.foreign(graph)
    return (
        mixed.Mixed(graph, foreign, partial(compile_native, exact=exact, tune=tune))
        if foreign
        else compile_native(graph, stable, exact, tune)
    )


def compile_native(
    graph: Graph,
    stable: Sequence[int] = (),
    exact: Exactness = Exactness.NONE,
    tune: float = 0.0,
) -> Executable:
    """Native code for a graph all of whose nodes have some."""
    global compiled_count
    compiled_count += 1
    tuned = ("tuned", str(pool().get_num_threads())) if tune else ()
    name = cache.key(
        cache_text(graph), repr(host()), repr((*stable, int(exact))), repr(assumed()), *tuned
    )
    known = _alive.get(name)
    if known is None or debug.wanted() or name in _unfinished:
        known = _load(name, stable) or _build(name, graph, stable, exact, tune)
        _alive[name] = known
    return known


def _load(name: str, stable: Sequence[int]) -> Executable | None:
    found = None if debug.wanted() else cache.load(name)
    if found is None or found[0].get("left"):
        return None
    entry, data = found
    images, start = [], entry["constants"]
    for names, size in entry["images"]:
        images.append(Image(tuple(names), data[start : start + size]))
        start += size
    remember(images)
    return Executable(Record.from_json(entry["record"]), data[: entry["constants"]], images, stable)


def _build(
    name: str, graph: Graph, stable: Sequence[int], exact: Exactness, tune: float
) -> Executable:
    # the passes, lowerings and emitters are not even imported where the cache has the code
    build = importlib.import_module(".build", __package__).build
    choices, left = None, 0
    if tune:
        search = importlib.import_module(".tune", __package__).tune
        choices, left = search(graph, host(), stable, exact, tune)
        (_unfinished.add if left else _unfinished.discard)(name)
    record, constants, images = build(graph, host(), stable, exact, choices)
    entry = {
        "record": record.to_json(),
        "constants": len(constants),
        "images": [(image.names, len(image.code)) for image in images],
        "left": left,  # kernels that there was no time to measure: the next process goes on
    }
    cache.store(name, entry, b"".join((constants, *(image.code for image in images))))
    made = Executable(record, constants, images, stable)
    if sum(len(image.code) for image in images) >= LARGE:
        importlib.import_module(".native", __package__).let_go()
    return made


def cache_text(graph: Graph) -> str:
    """The graph's text without the user's lines, except where an error would name them."""
    return print_graph(graph, lambda node: node.op.raises)
