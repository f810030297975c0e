"""What happens for every operation of a program, in machine code.

`recording` gives what does, step by step, what ``_ops.base.run`` does in Python with `making.wrap`,
for most calls that there are: dense tensors of one device, one result, no capture in progress. It
leaves all others to the function in Python, from their beginning. What either records is the same.
With it ``Op.__call__``, `Walk._visit` and `Template.made` give way to machine code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from graphtorch.backends.llvm.builtin import is_cached, method, routine, runs_here
from graphtorch.backends.llvm.builtin import module as native_module
from graphtorch.backends.llvm.routine import Objects
from graphtorch.ir.graph import Node, Value, _location
from graphtorch.ir.op import NO_ATTRS, Attrs, Op
from graphtorch.ir.passes.autodiff import Template

from ...autograd.grad_mode import modes
from ...autograd.nodes import _given, _sequence, kind_of
from ...autograd.seen import Place, Seen, seen_of
from ..device_storage import DeviceStorage
from ..making import _DIFFERENTIABLE, wrap
from ..memory_order import order_of
from ..running import _places, _round
from ..storage import Leaf, RuntimeScalar, Storage, Version, recorder
from ..tensor import Tensor
from ..walk import Walk
from . import template, walk
from .attach import write_attach, write_seen
from .node import write_applied, write_node
from .recording import write_recorded

# methods that have given way to machine code
IN_PYTHON: dict[str, Callable[..., Any]] = {}


def recording(
    general: Callable[..., Any], dense: Iterable[type], compiles: bool = True
) -> Callable[..., Any] | None:
    """What records an operation: called with its name, the function on values, the inputs (a tuple)
    and attributes (a dict).

    Args:
        general: is called for what is not done here.
        dense: the classes of tensors that have no behaviour of their own.
        compiles: whether it is made where the cache has it not; else that gives None.

    Returns: `general` again, under another name, where the interpreter is not made for it.
    """
    kinds = {f"dense{i}": kind for i, kind in enumerate(dense)}
    objects = Objects(
        **kinds,
        general=general,
        apply=IN_PYTHON.get("__call__", Op.__call__),
        recorder=recorder,
        modes=modes,
        places=_places,
        pass_by=_round.pass_by,
        location=_location,
        Tensor=Tensor,
        Storage=Storage,
        DeviceStorage=DeviceStorage,
        Version=Version,
        Value=Value,
        Leaf=Leaf,
        RuntimeScalar=RuntimeScalar,
        Node=Node,
        Op=Op,
        Attrs=Attrs,
        Seen=Seen,
        Place=Place,
        no_attrs=NO_ATTRS,
        nothing="",
        zero=0,
        wrap=wrap,
        order_of=order_of,
        differentiable=_DIFFERENTIABLE,
        kind_of=kind_of,
        kinds=_given,
        sequence=_sequence,
        seen_of=seen_of,
    )
    module = native_module(objects)
    write_seen(module)
    write_node(module)
    write_attach(module)
    write_applied(module)
    write_recorded(module, list(kinds))
    if not runs_here(module):
        return functools.partial(general)
    if not compiles and not is_cached(module):
        return None
    if not IN_PYTHON:
        kept = {"__call__": Op.__call__, "_visit": Walk._visit, "made": Template.made}
        IN_PYTHON.update(kept)
        Op.applied_by(method(module, "gt_applied", Op, "__call__"))
        walk.install()
        template.install()
    return routine(module, "gt_recorded")
