"""`Walk._visit` in machine code: it leaves a graph too deep for the stack, and values of nodes that
were computed, to the methods in Python."""

from __future__ import annotations

from graphtorch.backends.llvm.builtin import method
from graphtorch.backends.llvm.builtin import module as native_module
from graphtorch.backends.llvm.routine import METHOD, NONE, NULL, Module, Objects, Routine
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.op import NO_ATTRS
from graphtorch.ir.structure import split_attrs

from ..storage import Leaf, RuntimeScalar
from ..walk import Walk

DEEPEST = 500  # nodes behind one another that are visited by a function that calls itself


def install() -> None:
    """From now on walks visit nodes in machine code."""
    objects = Objects(
        visit=Walk._visit,
        split_attrs=split_attrs,
        no_attrs=NO_ATTRS,
        zero=0,
        Leaf=Leaf,
        RuntimeScalar=RuntimeScalar,
    )
    module = native_module(objects)
    _write_row(module)
    _write_node(module)
    _write_visit(module)
    Walk.visited_by(method(module, "gt_visited", Walk, "_visit"))


STATE = "ptr %table, ptr %walk, ptr %count.at, ptr %node, i64 %depth"


def _write_visit(module: Module) -> None:
    with module.function("gt_visited", METHOD) as r:
        count_at = r.local("i64")
        r.store(r.call("i64", "PyLong_AsLong", r.slot("ptr %self", Walk, "count")), count_at)
        node = r.load("ptr %args")
        state = "ptr %table", "ptr %self", count_at, node, "i64 0"
        failed = r.call("i32", "gt.visit", *state)
        _put_count(r, "ptr %self", count_at)
        r.require(r.same(failed, "i32 0"), "failed")
        r.give(r.keep(NONE))
        r.label("failed")
        r.give(NULL)


def _put_count(r: Routine, walk: str, count_at: str) -> None:
    before = r.slot(walk, Walk, "count")
    r.fill(walk, Walk, count=r.call("ptr", "PyLong_FromLong", r.load(count_at, "i64")))
    r.drop(before)


def _write_node(module: Module) -> None:
    """Append a node after those that it needs: 0, or 1 where an exception is set."""
    with module.function("gt.visit", STATE, "i32", internal=True) as r:
        r.require(r.compare("ult", "i64 %depth", f"i64 {DEEPEST}"), "deep")
        row = r.call("ptr", "gt.row", *STATE.split(", "))
        r.require(r.other(row, NULL), "failed")
        attrs, sizes = r.slot("ptr %node", Node, "attrs"), r.local("ptr")
        with r.when(r.other(attrs, r.known("no_attrs"))):
            r.store(r.attribute(attrs, "_split"), sizes)
            with r.when(r.same(r.load(sizes), NONE)):
                found = r.ask("split_attrs", attrs)
                r.require(r.other(found, NULL), "lost")
                r.store(found, sizes)
                r.drop(found)  # kept by the attributes
            split = r.load(sizes)
            rest = r.call("ptr", "PyTuple_GetItem", split, "i64 0")
            r.call("i32", "PyTuple_SetItem", row, "i64 1", r.keep(rest))
            numbers = r.call("ptr", "PyTuple_GetItem", split, "i64 1")
            own = r.slot("ptr %walk", Walk, "sizes")
            with r.each(r.call("i64", "PyTuple_Size", numbers)) as i:
                r.append(r.call("ptr", "PyTuple_GetItem", numbers, i), own)
        count = r.load("ptr %count.at", "i64")
        number = r.call("ptr", "PyLong_FromLong", count)
        known = r.slot("ptr %walk", Walk, "numbers")
        r.call("i32", "PyDict_SetItem", known, "ptr %node", number)
        r.drop(number)
        results = r.call("i64", "PyTuple_Size", r.slot("ptr %node", Node, "types"))
        r.store(r.add(count, results), "ptr %count.at")
        r.append("ptr %node", r.slot("ptr %walk", Walk, "nodes"))
        r.append(row, r.slot("ptr %walk", Walk, "rows"))
        r.drop(row)
        r.give("i32 0")
        r.label("lost")
        r.drop(row)
        r.label("failed")
        r.give("i32 1")
        r.label("deep")
        _put_count(r, "ptr %walk", "ptr %count.at")
        done = r.ask("visit", "ptr %walk", "ptr %node")
        r.require(r.other(done, NULL), "failed")
        r.drop(done)
        after = r.call("i64", "PyLong_AsLong", r.slot("ptr %walk", Walk, "count"))
        r.store(after, "ptr %count.at")
        r.give("i32 0")


def _write_row(module: Module) -> None:
    """The op of a node and the places of its operands, which are visited before: a new tuple whose
    second item is 0; null where an exception is set."""
    with module.function("gt.row", STATE, internal=True) as r:
        operands = r.slot("ptr %node", Node, "operands")
        count = r.call("i64", "PyTuple_Size", operands)
        row = r.call("ptr", "PyTuple_New", r.add(count, 2))
        r.call("i32", "PyTuple_SetItem", row, "i64 0", r.keep(r.slot("ptr %node", Node, "op")))
        r.call("i32", "PyTuple_SetItem", row, "i64 1", r.keep(r.known("zero")))
        place = r.local("ptr")
        with r.each(count) as i:
            value = r.call("ptr", "PyTuple_GetItem", operands, i)
            inner = r.slot(value, Value, "node")
            _place_in_memory(r, value, inner, place)
            with r.when(r.same(r.load(place), NONE)):
                _place_of_result(r, value, inner, place)
            r.call("i32", "PyTuple_SetItem", row, r.add(i, 2), r.load(place))
        r.give(row)
        r.label("failed")
        r.drop(row)
        r.give(NULL)


def _place_in_memory(r: Routine, value: str, inner: str, place: str) -> None:
    """Store the place of a value that is in memory, a new reference; None (borrowed) for one to
    compute."""
    r.store(NONE, place)
    asked = r.local("i1")
    r.store("i1 false", asked)
    with r.when(r.same(inner, NONE)):
        number = r.call("ptr", "PyLong_FromVoidPtr", value)
        inputs = r.slot("ptr %walk", Walk, "_inputs")
        known = r.call("ptr", "PyDict_GetItemWithError", inputs, number)
        new = r.same(known, NULL)
        leaf = r.one_of(r.type_of(value), ("Leaf", "RuntimeScalar"))
        r.store(r.both(new, r.let(f"xor {leaf}, true", "i1")), asked)
        with r.when(r.other(known, NULL)):
            r.store(r.keep(known), place)
        with r.when(r.both(new, leaf)):  # as `Walk._leaf`
            leaves = r.slot("ptr %walk", Walk, "leaves")
            r.append(value, leaves)
            r.append(value, r.slot("ptr %walk", Walk, "taken"))
            count = r.call("i64", "PyList_Size", leaves)
            below = r.let(f"sub i64 0, {count.split(' ')[1]}", "i64")
            made = r.call("ptr", "PyLong_FromLong", below)
            r.call("i32", "PyDict_SetItem", inputs, number, made)
            r.store(made, place)
        r.drop(number)
    with r.when(r.other(inner, NONE)):
        r.store(r.other(r.slot(inner, Node, "memory"), NONE), asked)
    with r.when(r.load(asked, "i1")):
        found = r.ask_method("ptr %walk", "_place", value)
        r.require(r.other(found, NULL), "failed")
        r.store(found, place)
        with r.when(r.same(found, NONE)):
            r.drop(found)


def _place_of_result(r: Routine, value: str, inner: str, place: str) -> None:
    numbers = r.slot("ptr %walk", Walk, "numbers")
    known = r.local("ptr")
    r.store(r.call("ptr", "PyDict_GetItemWithError", numbers, inner), known)
    with r.when(r.same(r.load(known), NULL)):
        state = "ptr %table", "ptr %walk", "ptr %count.at", inner, r.add("i64 %depth", 1)
        failed = r.call("i32", "gt.visit", *state)
        r.require(r.same(failed, "i32 0"), "failed")
        r.store(r.call("ptr", "PyDict_GetItemWithError", numbers, inner), known)
    index = r.slot(value, Value, "index")
    first = r.same(index, r.known("zero"))
    with r.when(first):
        r.store(r.keep(r.load(known)), place)
    with r.when(r.let(f"xor {first}, true", "i1")):
        r.store(r.call("ptr", "PyNumber_Add", r.load(known), index), place)
