"""The passes in their order, from a recorded graph to the regions that a target lowers.

    detach      autodiff is over; `detach` would only hide patterns from the next passes
    simplify    before folding: it turns what it can into constants, drops what folding would copy
    fold        before cse: equal constants are made here and become one there
    cse         before legalize: equal composites are merged while they are one node each
    dce         before legalize: a target need not support what nobody uses
    narrow      before legalize, which would not know what the target multiplies best; after cse:
                equal products are one by then
    pairs       before all that follows: targets compute with real numbers; complex inputs and
                outputs get a last dimension of 2
    pools       before legalize: a target need not take what it makes
    pads        before fuse: a concatenation is stored piece by piece by whoever computes the pieces
    legalize    needs the target; from here on every op is one that it supports
    simplify    decompositions bring casts and expansions that cancel
    fold        ... and constants
    legalize    again: these two may have made an op that the target does not support
    layout      after the last legalize: it turns images for convolutions that the target takes
    affine      after layout, which turns the vectors of channels as well
    winograd    after layout and affine, of whose convolutions and their gradients it replaces some
    cse, dce    last before fuse: it places every node it is given in a region, needed or not
    fuse        ensures that the graph consists of regions and constants

Bodies of loops and branches go through each pass before the graph around them does.
Each pass takes a valid graph and gives one with the same inputs, donations and results (pairs: the
same bytes of complex ones); up to rounding where legalize replaces a composite, pairs a complex
function, pools reorders a sum or pads leaves out a zero, otherwise to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple, TypeAlias

from .. import failure
from ..graph import Graph, Node, Value
from ..verify import Legal, verify
from . import (
    affine,
    cse,
    dce,
    detach,
    fold,
    fuse,
    layout,
    legalize,
    narrow,
    nested,
    pads,
    pairs,
    pools,
    simplify,
    winograd,
)
from .legalize import Supports
from .limits import Exactness, Limits

# passes that are left out: those after which a convolution rounds in another order, or loses digits
LEFT_OUT = {
    Exactness.NONE: frozenset(),
    Exactness.ALGORITHM: frozenset(("winograd",)),
    Exactness.BITS: frozenset(("layout", "affine", "winograd")),
}

Observer: TypeAlias = Callable[[str, Graph], None]
ANY = Limits()


class Stage(NamedTuple):
    """A named pass; `legal` tells which nodes may be left after it."""

    name: str
    run: Callable[[Graph], Graph]
    legal: Legal | None = None


_checks_all: ContextVar[bool] = ContextVar("graphtorch_check_every_pass", default=False)
_observers: ContextVar[tuple[Observer, ...]] = ContextVar("graphtorch_pass_observers", default=())


@contextmanager
def checking_every_pass() -> Iterator[None]:
    """Inside, graphs are verified after every pass, not only at the ends, and so is what is
    lowered."""
    token = _checks_all.set(True)
    try:
        yield
    finally:
        _checks_all.reset(token)


def checks_every_pass() -> bool:
    """Whether what passes make, and what is lowered from it, is to be verified."""
    return _checks_all.get()


@contextmanager
def observed(on_stage: Observer) -> Iterator[None]:
    """Inside, ``on_stage(name, graph)`` is called with the recorded graph and after every pass."""
    token = _observers.set((*_observers.get(), on_stage))
    try:
        yield
    finally:
        _observers.reset(token)


def stages(
    supports: Supports,
    target: str = "the target",
    limits: Limits = ANY,
    stable: Container[Value] = (),
    exact: Exactness = Exactness.NONE,
) -> list[Stage]:
    """The passes for a target that takes the nodes for which `supports` holds; `stable` seldom
    change."""
    expand = partial(legalize.run, supports=supports, target=target)
    passes = [
        Stage("detach", detach.run),
        Stage("simplify", simplify.run),
        Stage("fold", fold.run),
        Stage("cse", cse.run),
        Stage("dce", dce.run),
        Stage("narrow", partial(narrow.run, limits=limits)),
        Stage("pairs", pairs.run),
        Stage("pools", pools.run),
        Stage("pads", pads.run),
        Stage("legalize", expand, supports),
        Stage("simplify-legal", simplify.run),
        Stage("fold-legal", fold.run),
        Stage("legalize-again", expand, supports),
        Stage("layout", partial(layout.run, supports=supports, limits=limits), supports),
        Stage("affine", partial(affine.run, stable=stable), supports),
        Stage("winograd", partial(winograd.run, stable=stable, limits=limits), supports),
        Stage("cse-legal", cse.run, supports),
        Stage("dce-legal", dce.run, supports),
        Stage("fuse", partial(fuse.run, limits=limits), partial(_is_fused, supports)),
    ]
    # `pairs` rewrites loops and branches itself, since what goes in and out of them changes
    return [
        stage if stage.run is pairs.run else stage._replace(run=nested.everywhere(stage.run))
        for stage in passes
        if stage.name not in LEFT_OUT[exact]
    ]


def run(
    graph: Graph,
    supports: Supports,
    target: str = "the target",
    *,
    limits: Limits = ANY,
    stable: Collection[int] = (),
    exact: Exactness = Exactness.NONE,
    on_stage: Observer | None = None,
) -> Graph:
    """`graph` as regions for a target.

    Args:
        graph: as recorded, or as any earlier stage left it.
        supports: which nodes the target takes whole; everything else has to decompose into such.
        target: its name, for messages.
        limits: how large its regions may become.
        stable: positions of inputs that seldom change: work on these alone is left to be done once.
        exact: what results have to be alike with.
        on_stage: called with "recorded" and the graph, then with the name of each pass and what it
            made.

    Raises:
        NotImplementedError: an op that the target has no code for; names the op and the user's
            line.
        VerifyError, InternalError: a pass made an invalid graph, or failed: a defect of ours.
    """
    observers = (*_observers.get(), *((on_stage,) if on_stage else ()))
    passes = stages(supports, target, limits, {graph.inputs[i] for i in stable}, exact)
    with failure.stage("recording", graph):
        verify(graph, "recording")
    _report(observers, "recorded", graph)
    for stage in passes:
        with failure.stage(f"pass {stage.name}", graph):
            graph = stage.run(graph)
            if checks_every_pass() or stage is passes[-1]:
                verify(graph, stage.name, stage.legal)
        _report(observers, stage.name, graph)
    return graph


def _report(observers: tuple[Observer, ...], name: str, graph: Graph) -> None:
    for observer in observers:
        observer(name, graph)


def _is_fused(supports: Supports, node: Node) -> bool:
    return node.op.name in ("region", "constant") or supports(node)
