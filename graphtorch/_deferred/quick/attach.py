"""A tensor's place in the autograd graph."""

from __future__ import annotations

from graphtorch.backends.llvm.routine import NONE, NULL, TRUE, Module, Routine
from graphtorch.ir.graph import Type, Value

from ..storage import Storage


def write_seen(module: Module) -> None:
    """What `seen.seen_of` says of a tensor; a new reference."""
    with module.function("gt.seen", "ptr %table, ptr %tensor", internal=True) as r:
        known = r.attribute("ptr %tensor", "_seen")
        r.require(r.other(known, NULL), "ask")
        r.require(r.other(known, NONE), "ask")
        version = r.attribute("ptr %tensor", "_counter")
        storage = r.attribute("ptr %tensor", "_storage")
        view = r.attribute("ptr %tensor", "_view")
        now = (version, r.attribute(version, "number"), storage, "", view)
        for i, part in enumerate(now):
            before = r.call("ptr", "PyTuple_GetItem", known, f"i64 {i}")
            if i == 2:
                before = r.call("ptr", "PyWeakref_GetObject", before)
            r.require(r.same(before, part or r.slot(storage, Storage, "epoch")), "ask")
        r.give(r.keep(known))
        r.label("ask")
        r.give(r.ask("seen_of", "ptr %tensor"))


def _look(r: Routine) -> str:
    """The record that `seen_of` makes of a new tensor, which gets it: a new reference."""
    version = r.attribute("ptr %tensor", "_counter")
    storage = r.attribute("ptr %tensor", "_storage")
    made = r.call("ptr", "PyType_GenericAlloc", r.known("Seen"), "i64 6")
    number = r.keep(r.attribute(version, "number"))
    ref = r.call("ptr", "PyWeakref_NewRef", storage, NULL)
    epoch = r.keep(r.slot(storage, Storage, "epoch"))
    place = r.call("ptr", "PyType_GenericAlloc", r.known("Place"), "i64 0")
    for i, part in enumerate((r.keep(version), number, ref, epoch, r.keep(NONE), place)):
        r.store(part, r.at(made, tuple.__basicsize__ + 8 * i, "i8"))
    r.set("ptr %tensor", "_seen", made)
    return made


def write_attach(module: Module) -> None:
    """As `making._attach` for one result: 0, or 1 where an exception is set."""
    parameters = (
        "ptr %table, ptr %name, ptr %tensor, ptr %out, ptr %inputs, ptr %operands, ptr %ways, "
        "ptr %own"
    )
    with module.function("gt.attach", parameters, "i32", internal=True) as r:
        count = r.call("i64", "PyTuple_Size", "ptr %inputs")
        edges, seen = (r.call("ptr", "PyTuple_New", count) for _ in range(2))
        for made in (edges, seen):
            with r.each(count) as i:  # nobody may see a tuple with nothing in it
                r.call("i32", "PyTuple_SetItem", made, i, r.keep(NONE))
        with r.each(count) as i:
            x = r.call("ptr", "PyTuple_GetItem", "ptr %inputs", i)
            way = r.load(r.at("ptr %ways", i, "ptr"))
            with r.when(r.other(way, NULL)):  # a tensor
                past = r.call("ptr", "gt.seen", "ptr %table", x)
                r.require(r.other(past, NULL), "failed")
                r.call("i32", "PyTuple_SetItem", seen, i, past)
                fn = r.attribute(x, "_fn")
                found = r.both(r.same(way, NONE), r.other(fn, NONE))
                with r.when(found):
                    edge = r.tuple_of(r.keep(fn), r.keep(r.attribute(x, "_nr")))
                    r.call("i32", "PyTuple_SetItem", edges, i, edge)
                leaf = r.same(r.attribute(x, "_rg"), TRUE)
                asked = r.either(leaf, r.same(way, TRUE))
                with r.when(r.both(asked, r.let(f"xor {found}, true", "i1"))):
                    value = r.call("ptr", "PyTuple_GetItem", "ptr %operands", i)
                    dtype = r.slot(r.slot(value, Value, "type"), Type, "dtype")
                    known = r.call("i32", "PySet_Contains", r.known("differentiable"), dtype)
                    with r.when(r.same(known, "i32 1")):
                        edge = r.ask_method(x, "_edge")
                        r.require(r.other(edge, NULL), "failed")
                        r.call("i32", "PyTuple_SetItem", edges, i, edge)
        found = r.local("ptr")
        r.store(r.call("ptr", "PyDict_GetItemWithError", r.known("kinds"), "ptr %name"), found)
        with r.when(r.same(r.load(found), NULL)):
            r.store(r.ask("kind_of", "ptr %name"), found)
            r.require(r.other(r.load(found), NULL), "failed")
            r.drop(r.load(found))  # kept from now on
        kind = r.load(found)
        fn = r.call("ptr", "PyType_GenericAlloc", kind, "i64 0")
        r.set(fn, "_name", r.attribute(kind, "__name__"))
        own = _look(r)
        types = r.call("ptr", "PyList_New", "i64 1")
        type_ = r.slot("ptr %out", Value, "type")
        r.call("i32", "PyList_SetItem", types, "i64 0", r.keep(type_))
        r.set_new(fn, "outputs", r.tuple_of(r.keep("ptr %out")))
        r.set(fn, "operands", "ptr %operands")
        r.set_new(fn, "edges", edges)
        r.set_new(fn, "seen", seen)
        r.set_new(fn, "made", r.tuple_of(own))
        number = r.call("ptr", "PyIter_Next", r.known("sequence"))
        r.set_new(fn, "sequence", number)
        r.set_new(fn, "types", types)
        r.set("ptr %tensor", "_fn", fn)
        name = r.name("differentiable")
        r.append_weakly(fn, lambda: r.call("ptr", "PyDict_GetItemWithError", "ptr %own", name))
        r.drop(fn)
        r.give("i32 0")
        r.label("failed")
        r.drop(edges, seen)
        r.give("i32 1")
