"""`Template.made` in machine code: the nodes of a gradient, made again."""

from __future__ import annotations

from graphtorch.backends.llvm.builtin import method
from graphtorch.backends.llvm.builtin import module as native_module
from graphtorch.backends.llvm.routine import METHOD, NONE, Objects, Routine
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.passes.autodiff import Template


def install() -> None:
    """From now on templates make nodes in machine code."""
    module = native_module(Objects(Node=Node, Value=Value, nothing="", zero=0))
    with module.function("gt_again", METHOD) as r:
        values, location = r.load("ptr %args"), r.load(r.at("ptr %args", 1, "ptr"))
        rows = r.slot("ptr %self", Template, "rows")
        with r.each(r.call("i64", "PyList_Size", rows)) as i:
            _make(r, r.call("ptr", "PyList_GetItem", rows, i), values, location)
        _give_gradients(r, values)
    Template.made_by(method(module, "gt_again", Template, "made"))


def _make(r: Routine, row: str, values: str, location: str) -> None:
    """Append the results of a row's node to the values."""
    op, attrs, types, places = (r.call("ptr", "PyTuple_GetItem", row, f"i64 {i}") for i in range(4))
    count = r.call("i64", "PyTuple_Size", places)
    operands = r.call("ptr", "PyTuple_New", count)
    with r.each(count) as i:
        value = _at(r, values, r.call("ptr", "PyTuple_GetItem", places, i))
        r.call("i32", "PyTuple_SetItem", operands, i, r.keep(value))
    node = r.new("Node")
    r.fill(
        node,
        Node,
        op=r.keep(op),
        operands=operands,
        attrs=r.keep(attrs),
        types=r.keep(types),
        location=r.keep(location),
        memory=r.keep(NONE),
    )
    with r.each(r.call("i64", "PyTuple_Size", types)) as i:
        made = r.new("Value")
        type_ = r.keep(r.call("ptr", "PyTuple_GetItem", types, i))
        number, name = r.call("ptr", "PyLong_FromLong", i), r.keep(r.known("nothing"))
        r.fill(made, Value, type=type_, node=r.keep(node), index=number, name=name)
        r.append(made, values)
        r.drop(made)
    r.drop(node)


def _give_gradients(r: Routine, values: str) -> None:
    places = r.slot("ptr %self", Template, "gradients")
    count = r.call("i64", "PyList_Size", places)
    found = r.call("ptr", "PyList_New", count)
    with r.each(count) as i:
        place, gradient = r.call("ptr", "PyList_GetItem", places, i), r.local("ptr")
        r.store(NONE, gradient)
        with r.when(r.other(place, NONE)):
            r.store(_at(r, values, place), gradient)
        r.call("i32", "PyList_SetItem", found, i, r.keep(r.load(gradient)))
    r.give(found)


def _at(r: Routine, values: str, place: str) -> str:
    return r.call("ptr", "PyList_GetItem", values, r.call("i64", "PyLong_AsLong", place))
