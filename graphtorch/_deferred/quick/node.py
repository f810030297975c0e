"""Making nodes: ``Op.__call__``."""

from __future__ import annotations

from graphtorch.backends.llvm.routine import FALSE, METHOD, NONE, NULL, Module, Routine
from graphtorch.ir.graph import Node, Value

VALUES = ("Value", "Leaf", "RuntimeScalar")
MOST = 8  # operands of an operation that is recorded in machine code
NODE = "ptr %table, ptr %op, ptr %names, ptr %numbers, ptr %values, i64 %count, ptr %place"


def write_node(module: Module) -> None:
    """As ``Op.__call__``, where it has made a node of these types before and its one result.

    ``%names`` is a tuple of the attributes' names, or null; ``%numbers`` what they are. The value,
    a new reference; null where it is not known yet (no exception is set, or one to be cleared).
    """
    with module.function("gt.node", NODE, internal=True) as r:
        record, types = r.local("ptr"), r.local("ptr")
        r.fork(r.same("ptr %names", NULL), "plain", "with_attrs")
        r.label("plain")
        r.require(r.same(r.attribute("ptr %op", "attrs"), r.known("Attrs")), "unknown")
        key = r.call("ptr", "PyTuple_New", r.add("i64 %count", 1))
        r.call("i32", "PyTuple_SetItem", key, "i64 0", r.keep(NONE))
        r.store(r.keep(_found(r, "_inferred", key, "i64 1")), types)
        r.store(r.keep(r.known("no_attrs")), record)
        r.go("make")
        r.label("with_attrs")
        size = r.call("i64", "PyTuple_Size", "ptr %names")
        first = r.add(size, 1)
        length, kinds = r.add("i64 %count", first), r.local("i64")
        r.store("i64 0", kinds)
        with r.when(r.other(r.attribute("ptr %op", "_has_floats"), FALSE)):
            r.store(size, kinds)  # 1 is equal to 1.0, and not the same
        key = r.call("ptr", "PyTuple_New", r.add(length, r.load(kinds, "i64")))
        with r.each(r.load(kinds, "i64")) as i:
            kind = r.keep(r.type_of(r.load(r.at("ptr %numbers", i, "ptr"))))
            r.call("i32", "PyTuple_SetItem", key, r.add(length, i), kind)
        r.call("i32", "PyTuple_SetItem", key, "i64 0", r.keep("ptr %names"))
        with r.each(size) as i:
            number = r.load(r.at("ptr %numbers", i, "ptr"))
            r.call("i32", "PyTuple_SetItem", key, r.add(i, 1), r.keep(number))
        both = _found(r, "_recorded", key, first)
        r.store(r.keep(r.call("ptr", "PyTuple_GetItem", both, "i64 0")), record)
        r.store(r.keep(r.call("ptr", "PyTuple_GetItem", both, "i64 1")), types)
        r.label("make")
        r.give(_made(r, r.load(record), r.load(types)))
        r.label("several")
        r.drop(r.load(record), r.load(types))
        r.label("unknown")
        r.give(NULL)


def write_applied(module: Module) -> None:
    """``Op.__call__``."""
    with module.function("gt_applied", METHOD) as r:
        r.require(r.compare("ule", "i64 %count", f"i64 {MOST}"), "general")
        with r.each("i64 %count") as i:
            x = r.load(r.at("ptr %args", i, "ptr"))
            r.require(r.one_of(r.type_of(x), VALUES), "general")
        place = r.keep(r.variable("location"))
        numbers = r.at("ptr %args", "i64 %count", "ptr")
        operands = "ptr %self", "ptr %names", numbers, "ptr %args", "i64 %count", place
        out = r.call("ptr", "gt.node", "ptr %table", *operands)
        r.drop(place)
        r.require(r.other(out, NULL), "general")
        r.give(out)
        r.label("general")
        r.call("void", "PyErr_Clear")
        named = r.local("i64")
        r.store("i64 0", named)
        with r.when(r.other("ptr %names", NULL)):
            r.store(r.call("i64", "PyTuple_Size", "ptr %names"), named)
        positional = r.add("i64 %count", 1)
        given = r.array("ptr", r.add(positional, r.load(named, "i64")))
        r.store("ptr %self", given)
        with r.each(r.add("i64 %count", r.load(named, "i64"))) as i:
            r.store(r.load(r.at("ptr %args", i, "ptr")), r.at(given, r.add(i, 1), "ptr"))
        apply = r.known("apply")
        r.give(r.call("ptr", "PyObject_Vectorcall", apply, given, positional, "ptr %names"))


def _found(r: Routine, table: str, key: str, first: str) -> str:
    """What a table of ``%op`` has for a key that ends with the operands' types, from place `first`
    on."""
    with r.each("i64 %count") as i:
        type_ = r.slot(r.load(r.at("ptr %values", i, "ptr")), Value, "type")
        r.call("i32", "PyTuple_SetItem", key, r.add(first, i), r.keep(type_))
    known = r.attribute("ptr %op", table)
    found = r.call("ptr", "PyDict_GetItemWithError", known, key)
    r.drop(key)
    r.require(r.other(found, NULL), "unknown")
    return found


def _made(r: Routine, record: str, types: str) -> str:
    """Takes over the references."""
    r.require(r.same(r.call("i64", "PyTuple_Size", types), "i64 1"), "several")
    type_ = r.call("ptr", "PyTuple_GetItem", types, "i64 0")
    operands = r.tuple_from("ptr %values", "i64 %count")
    node, out = r.new("Node"), r.new("Value")
    r.fill(
        node,
        Node,
        op=r.keep("ptr %op"),
        operands=operands,
        attrs=record,
        types=types,
        location=r.keep("ptr %place"),
        memory=r.keep(NONE),
    )
    nothing, zero = r.keep(r.known("nothing")), r.keep(r.known("zero"))
    r.fill(out, Value, type=r.keep(type_), node=node, index=zero, name=nothing)
    return out
