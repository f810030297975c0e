"""Recording an operation: ``gt_recorded``."""

from __future__ import annotations

from graphtorch.backends.llvm.routine import FALSE, NONE, NULL, TRUE, Module, Routine
from graphtorch.ir.graph import Node, Type, Value

from .. import running
from ..device_storage import DeviceStorage
from ..storage import Storage
from .node import MOST, VALUES


def write_recorded(module: Module, dense: list[str]) -> None:
    """Args: dense: names of the classes of tensors that have no behaviour of their own."""
    for name in ("thread", "recorder", "modes"):
        module.variable(f"gt.of_{name}")
    _write_remember(module)
    _write_place(module)
    with module.function("gt_recorded") as r:
        _Recording(r, dense).write()


def _write_remember(module: Module) -> None:
    """Find the dictionaries that hold what is a thread's own: 0, or 1 where that fails.

    To look a name up there takes a fifth of what it takes by the object. A thread's number is never
    another's, and while it runs its dictionaries are there.
    """
    with module.function("gt.remember", "ptr %table, i64 %thread", "i32", internal=True) as r:
        r.store("i64 0", "ptr @gt.of_thread")
        for name in ("recorder", "modes"):
            own = r.attribute(r.known(name), "__dict__")
            r.require(r.other(own, NULL), "failed")
            r.store(own, f"ptr @gt.of_{name}")
        r.store("i64 %thread", "ptr @gt.of_thread")
        r.give("i32 0")
        r.label("failed")
        r.give("i32 1")


def _write_place(module: Module) -> None:
    """The user's line as `running.locate` finds it, borrowed; null where it is not known yet."""
    with module.function("gt.place", "ptr %table", internal=True) as r:
        now = r.local("ptr")
        r.store(r.keep(r.call("ptr", "PyEval_GetFrame")), now)
        r.label("look")
        frame = r.load(now)
        code = r.call("ptr", "PyFrame_GetCode", frame)
        number = r.call("ptr", "PyLong_FromVoidPtr", code)
        lines = r.call("ptr", "PyDict_GetItemWithError", r.known("places"), number)
        r.drop(number, code)
        r.require(r.other(lines, NULL), "unknown")
        r.fork(r.same(lines, NONE), "outwards", "here")
        r.label("outwards")  # a frame of ours
        outer = r.call("ptr", "PyFrame_GetBack", frame)
        r.require(r.other(outer, NULL), "unknown")
        r.drop(frame)
        r.store(outer, now)
        r.go("look")
        r.label("here")
        last = r.call("i32", "PyFrame_GetLasti", frame)
        wide = r.let(f"sext {last} to i64", "i64")
        key = r.call("ptr", "PyLong_FromLong", wide)
        place = r.call("ptr", "PyDict_GetItemWithError", lines, key)
        r.drop(key, frame)
        r.give(place)
        r.label("unknown")
        r.call("void", "PyErr_Clear")
        r.drop(frame)
        r.give(NULL)


class _Recording:
    """Writes ``gt_recorded``. Until the function on values is called every way to `general` is
    open."""

    def __init__(self, r: Routine, dense: list[str]):
        self.r = r
        self.dense = dense
        self.name, self.function, self.inputs, self.attrs = (
            r.load(r.at("ptr %args", i, "ptr")) for i in range(4)
        )
        # of the inputs, each with a reference: other threads may come in between; null of views
        self.values = r.local("ptr", MOST)
        # how the gradient's way is found: None: by a tensor's node; True: the tensor is asked; null
        # of what is no tensor
        self.ways = r.local("ptr", MOST)
        self.needs, self.viewed, self.has_place = (r.local("i1") for _ in range(3))
        self.place = r.local("ptr")  # a GPU, null for the CPU
        self.out, self.held = r.local("ptr"), r.local("ptr")

    def write(self) -> None:
        r = self.r
        count = r.call("i64", "PyTuple_Size", self.inputs)
        r.require(r.compare("ule", count, f"i64 {MOST}"), "general")
        self._remember_thread()
        r.require(self._is("recorder", "capture", NONE), "general")
        r.require(self._is("modes", "special", FALSE), "general")
        grad = self._is("modes", "grad", TRUE)
        place = r.call("ptr", "gt.place", "ptr %table")
        r.require(r.other(place, NULL), "general")
        self._pass_by(grad, place)
        pending = self._of_thread("recorder", "pending")
        r.require(r.other(pending, NULL), "general")
        waiting = r.call("i64", "PyList_Size", pending)
        last = f"{running.STRETCH - 1}"  # the next one may make the graph run
        within = r.let(f"and {waiting}, {last}", "i64")
        r.require(r.other(within, f"i64 {last}"), "general")
        for flag in (self.needs, self.viewed, self.has_place):
            r.store("i1 false", flag)
        r.store(NULL, self.place)
        with r.each(count) as i:
            r.store(NULL, r.at(self.values, i, "ptr"))
        with r.each(count) as i:
            self._read(i, grad)
        self._locate(place)
        with r.when(r.load(self.viewed, "i1")):
            self._read_views(count)
        with r.when(grad):
            self._tell_apart(count)
        size = r.call("i64", "PyDict_Size", self.attrs)
        is_op = r.same(r.type_of(self.function), r.known("Op"))
        r.fork(is_op, "node", "function")
        self._record_node(count, size, place)
        self._call_function(count, size)
        r.label("wrap")
        self._give_tensor()
        self._give_others()
        r.label("undo")
        self._drop_values(count)
        r.label("general")
        r.call("void", "PyErr_Clear")
        found = r.call(
            "ptr", "PyObject_Vectorcall", r.known("general"), "ptr %args", "i64 %count", NULL
        )
        r.give(found)
        r.label("none")
        r.give(NULL)

    def _remember_thread(self) -> None:
        r = self.r
        thread = r.call("i64", "PyThreadState_GetID", r.call("ptr", "PyThreadState_Get"))
        with r.when(r.other(r.load("ptr @gt.of_thread", "i64"), thread)):
            failed = r.call("i32", "gt.remember", "ptr %table", thread)
            r.require(r.same(failed, "i32 0"), "general")
        # what Python runs on the way may let another thread come here
        self.own = {name: r.load(f"ptr @gt.of_{name}") for name in ("recorder", "modes")}

    def _of_thread(self, owner: str, name: str) -> str:
        """What an attribute of a `threading.local` is; null where this thread has set none."""
        r = self.r
        return r.call("ptr", "PyDict_GetItemWithError", self.own[owner], r.name(name))

    def _is(self, owner: str, name: str, default: str) -> str:
        found = self._of_thread(owner, name)
        return self.r.either(self.r.same(found, NULL), self.r.same(found, default))

    def _pass_by(self, grad: str, place: str) -> None:
        """A program that needs no gradients may have come back to where it began: see
        `running._Round`."""
        r = self.r
        with r.when(self._not(grad)):
            r.require(r.same(self._of_thread("modes", "grad"), FALSE), "general")
            passed = r.ask("pass_by", place)
            r.require(r.other(passed, NULL), "none")
            r.drop(passed)

    def _read(self, i: str, grad: str) -> None:
        """The value of an input, and whether a gradient goes there."""
        r = self.r
        x = r.call("ptr", "PyTuple_GetItem", self.inputs, i)
        kind = r.type_of(x)
        value_at, way_at = r.at(self.values, i, "ptr"), r.at(self.ways, i, "ptr")
        tensor, value, end = (r.new_label(h) for h in ("tensor", "value", "read"))
        r.fork(r.one_of(kind, self.dense), tensor, value)
        r.label(value)
        r.require(r.one_of(kind, ("Value", "Leaf")), "undo")
        r.store(r.keep(x), value_at)
        r.store(NULL, way_at)
        r.go(end)
        r.label(tensor)
        self._read_tensor(x, grad, value_at, way_at)
        r.label(end)

    def _read_tensor(self, x: str, grad: str, value_at: str, way_at: str) -> None:
        r = self.r
        plain = r.same(r.attribute(x, "_view"), NONE)
        storage = r.attribute(x, "_storage")
        self._meet(storage)
        r.require(r.same(r.slot(storage, Storage, "host"), NONE), "undo")
        value = r.slot(storage, Storage, "value")
        kind = r.type_of(value)
        r.require(r.one_of(kind, VALUES), "undo")
        leaf = r.other(r.attribute(x, "_rg"), FALSE)
        with r.when(leaf):  # an updated parameter: the iteration before ends
            r.require(r.same(r.slot(value, Value, "node"), NONE), "undo")
        with r.when(plain):
            r.store(r.keep(value), value_at)
        r.store(r.either(self._not(plain), r.load(self.viewed, "i1")), self.viewed)
        r.store(NONE, way_at)
        with r.when(grad):
            r.require(r.same(r.attribute(x, "_inference"), FALSE), "undo")
            fn, base = r.attribute(x, "_fn"), r.attribute(x, "_base")
            needs = r.either(leaf, r.other(fn, NONE), r.load(self.needs, "i1"))
            r.store(needs, self.needs)
            with r.when(r.other(base, NONE)):
                r.store(TRUE, way_at)
                asked = r.same(r.attribute(x, "requires_grad"), TRUE)
                r.store(r.either(asked, r.load(self.needs, "i1")), self.needs)

    def _meet(self, storage: str) -> None:
        """All operands are on one device."""
        r = self.r
        kind, place = r.type_of(storage), r.local("ptr")
        on_gpu = r.same(kind, r.known("DeviceStorage"))
        r.require(r.either(on_gpu, r.same(kind, r.known("Storage"))), "undo")
        r.store(NULL, place)
        with r.when(on_gpu):
            r.store(r.slot(storage, DeviceStorage, "place"), place)
        first = self._not(r.load(self.has_place, "i1"))
        with r.when(first):
            r.store(r.load(place), self.place)
            r.store("i1 true", self.has_place)
        r.require(r.same(r.load(place), r.load(self.place)), "undo")

    def _read_views(self, count: str) -> None:
        """Their values are those of their steps."""
        r = self.r
        with r.each(count) as i:
            value_at = r.at(self.values, i, "ptr")
            with r.when(r.same(r.load(value_at), NULL)):
                x = r.call("ptr", "PyTuple_GetItem", self.inputs, i)
                value = r.ask_method(x, "_value")
                r.require(r.other(value, NULL), "unread")
                r.store(value, value_at)
                kind = r.type_of(value)
                r.require(r.one_of(kind, VALUES), "undo")

    def _drop_values(self, count: str) -> None:
        r = self.r
        with r.each(count) as i:
            value = r.load(r.at(self.values, i, "ptr"))
            with r.when(r.other(value, NULL)):
                r.drop(value)

    def _not(self, condition: str) -> str:
        return self.r.let(f"xor {condition}, true", "i1")

    def _tell_apart(self, count: str) -> None:
        """One value in the place of two tensors is not recorded here."""
        r = self.r
        with r.each(count) as i:
            a = r.load(r.at(self.values, i, "ptr"))
            with r.each(i) as j:
                b = r.load(r.at(self.values, j, "ptr"))
                node = r.slot(a, Value, "node")
                equal = r.both(r.other(node, NONE), r.same(node, r.slot(b, Value, "node")))
                x = r.call("ptr", "PyTuple_GetItem", self.inputs, i)
                y = r.call("ptr", "PyTuple_GetItem", self.inputs, j)
                same = r.both(r.either(r.same(a, b), equal), r.other(x, y))
                r.require(self._not(same), "undo")

    def _locate(self, place: str) -> None:
        r = self.r
        with r.when(r.other(r.variable("location"), place)):
            r.drop(r.call("ptr", "PyContextVar_Set", r.known("location"), place))

    def _record_node(self, count: str, size: str, place: str) -> None:
        """As ``Op.__call__`` where the types are known."""
        r = self.r
        names, numbers = r.local("ptr"), r.local("ptr", MOST)
        r.label("node")
        r.store(NULL, names)
        with r.when(r.other(size, "i64 0")):
            r.require(r.compare("ule", size, f"i64 {MOST}"), "undo")
            at, name, value = r.local("i64"), r.local("ptr"), r.local("ptr")
            r.store("i64 0", at)
            with r.each(size) as i:
                r.call("i32", "PyDict_Next", self.attrs, at, name, value)
                r.store(r.load(value), r.at(numbers, i, "ptr"))
            r.store(r.call("ptr", "PySequence_Tuple", self.attrs), names)
        given = r.load(names)
        operands = self.function, given, numbers, self.values, count, place
        out = r.call("ptr", "gt.node", "ptr %table", *operands)
        with r.when(r.other(given, NULL)):
            r.drop(given)
        r.require(r.other(out, NULL), "undo")
        node = r.slot(out, Value, "node")
        r.store(r.keep(r.slot(node, Node, "operands")), self.held)
        r.store(out, self.out)
        self._drop_values(count)
        r.go("wrap")

    def _call_function(self, count: str, size: str) -> None:
        r = self.r
        r.label("function")
        operands = r.tuple_from(self.values, count)
        given = r.let(f"select {r.same(size, 'i64 0')}, ptr null, {self.attrs}")
        out = r.call("ptr", "PyObject_Call", self.function, operands, given)
        r.fork(r.same(out, NULL), "raised", "called")
        r.label("raised")
        r.drop(operands)
        r.label("unread")  # an exception is set
        self._drop_values(count)
        r.give(NULL)
        r.label("called")
        self._drop_values(count)
        r.store(operands, self.held)
        r.store(out, self.out)
        r.fork(r.same(r.type_of(out), r.known("Value")), "wrap", "several")

    def _give_others(self) -> None:
        """What `making.wrap` makes of several results, or one that is not row-major."""
        r = self.r
        r.label("several")
        out, operands, order = r.load(self.out), r.load(self.held), r.local("ptr")
        r.store(NONE, order)
        r.keep(NONE)
        with r.when(r.load(self.viewed, "i1")):
            r.drop(NONE)
            r.store(self._order(out), order)
        r.require(r.other(r.load(order), NULL), "unordered")
        given = r.known("wrap"), self.name, out, self.inputs, operands, r.load(order), NULL
        made = r.call("ptr", "PyObject_CallFunctionObjArgs", *given)
        r.drop(out, operands, r.load(order))
        r.give(made)
        r.label("unordered")
        r.drop(r.load(self.out), r.load(self.held))
        r.give(NULL)

    def _order(self, out: str) -> str:
        r = self.r
        return r.ask("order_of", out, self.inputs)

    def _new_storage(self, out: str) -> str:
        r = self.r
        made, place = r.local("ptr"), r.load(self.place)
        on_cpu = r.same(place, NULL)
        with r.when(on_cpu):
            storage, zero = r.new("Storage"), r.keep(r.known("zero"))
            r.fill(storage, Storage, value=r.keep(out), epoch=zero, host=r.keep(NONE))
            r.store(storage, made)
        with r.when(self._not(on_cpu)):
            r.store(r.ask("DeviceStorage", out, place), made)
        r.require(r.other(r.load(made), NULL), "unordered")
        return r.load(made)

    def _give_tensor(self) -> None:
        """As `making.from_value`, and the tensor's place in the autograd graph."""
        r = self.r
        out, operands = r.load(self.out), r.load(self.held)
        with r.when(r.load(self.viewed, "i1")):
            order = self._order(out)
            r.require(r.other(order, NULL), "unordered")
            r.drop(order)
            r.require(r.same(order, NONE), "several")
        storage, tensor = self._new_storage(out), r.new("Tensor")
        r.set(tensor, "_storage", storage)
        r.set_new(tensor, "_counter", r.new("Version"))
        r.append_weakly(storage, lambda: self._of_thread("recorder", "pending"))
        r.drop(storage)
        r.require(r.load(self.needs, "i1"), "done")
        dtype = r.slot(r.slot(out, Value, "type"), Type, "dtype")
        found = r.call("i32", "PySet_Contains", r.known("differentiable"), dtype)
        r.require(r.same(found, "i32 1"), "done")
        place = r.load(self.place)
        given = self.name, tensor, out, self.inputs, operands, self.ways, self.own["recorder"]
        failed = r.call("i32", "gt.attach", "ptr %table", *given)
        r.require(r.same(failed, "i32 0"), "unattached")
        with r.when(r.other(place, NULL)):
            r.set(r.attribute(tensor, "_fn"), "place", place)
        r.label("done")
        r.drop(out, operands)
        r.give(tensor)
        r.label("unattached")
        r.drop(out, operands, tensor)
        r.give(NULL)
