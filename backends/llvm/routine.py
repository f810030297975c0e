"""Functions that work on the interpreter's objects, written step by step as LLVM IR text.

Such a function is a builtin of the interpreter (``METH_FASTCALL``). The objects that it knows from
the start are named by an `Objects` table, whose addresses lie behind its ``self``; what it calls is
declared by its first call. `builtin.routine` compiles it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

HEADER = "ptr %self, ptr %args, i64 %count"
METHOD = HEADER + ", ptr %names"  # values of keywords come after the others
ATTRIBUTE = "gt.attribute"
INLINED = (ATTRIBUTE,)
KEEP_TABLE = "gt_keep_table"  # tells methods where the objects are


class Objects:
    """Objects that a module's functions know, by names; each lives as long as the function."""

    def __init__(self, **objects: Any):
        self.all = dict(objects)
        self._places = {name: i for i, name in enumerate(objects)}

    def offset(self, name: str) -> int:
        """Where in the table the address of an object is."""
        return 8 * self._places[name]

    def offset_of_name(self, name: str) -> int:
        """The same of a text, such as an attribute's name."""
        key = f"name {name}"
        if key not in self._places:
            self._places[key] = len(self._places)
            self.all[key] = sys.intern(name)
        return 8 * self._places[key]

    def ids(self) -> list[int]:
        """The addresses, in the table's order."""
        return [id(x) for x in self.all.values()]


class Module:
    """Functions that are compiled together.

    Args:
        objects: that they know.
        slot: where in an object of a class the slot of a name is.
        words: byte offsets in the interpreter's objects, see `builtin.WORDS`.
    """

    def __init__(self, objects: Objects, slot: Callable[[type, str], int], words: dict[str, int]):
        self.objects = objects
        self.slot = slot
        self.words = words
        self.code: Any = None  # once it is compiled, with the addresses of the objects
        self.table = b""
        self._variables: list[str] = []
        self._declared: dict[str, str] = {}
        self._defined: dict[str, Routine] = {}

    @contextmanager
    def function(
        self, name: str, parameters: str = HEADER, kind: str = "ptr", internal: bool = False
    ) -> Iterator[Routine]:
        """A function to be written inside the block; `self` or a ``%table`` is its first
        parameter."""
        linkage = "internal " if internal else ""
        inlined = " alwaysinline" if name in INLINED else ""
        head = f"define {linkage}{kind} @{name}({parameters}) nounwind{inlined}"
        made = self._defined[name] = Routine(self, head, internal)
        if parameters == METHOD:
            made.emit("%table = load ptr, ptr @gt.table")
        elif not internal:
            place = self.words["OFFSET"]
            made.emit(f"%table = getelementptr inbounds i8, ptr %self, i64 {place}")
        yield made

    def exports(self) -> tuple[str, ...]:
        """The functions that may be looked up."""
        return (KEEP_TABLE, *[name for name, f in self._defined.items() if not f.internal])

    def variable(self, name: str) -> None:
        """A word of the module's own, which is 0 at first."""
        self._variables.append(f"@{name} = internal global i64 0")

    def declare(self, kind: str, name: str, kinds: Sequence[str]) -> None:
        shown = "ptr, ..." if name in _VARIADIC else ", ".join(kinds)
        self._declared.setdefault(name, f"declare {kind} @{name}({shown})")

    def text(self) -> str:
        """The whole module."""
        external = [f"@{name} = external global i8" for name in _DATA]
        self._write_attribute()
        declared = [d for name, d in self._declared.items() if name not in self._defined]
        functions = [f.text() for f in self._defined.values()]
        return "\n".join([*external, *declared, _TABLE, *self._variables, *functions, ""])

    def calls(self) -> list[str]:
        """What its functions call of the interpreter's."""
        return [name for name in self._declared if name not in (*self._defined, ATTRIBUTE)]

    def _write_attribute(self) -> None:
        with self.function(ATTRIBUTE, "ptr %x, ptr %name", internal=True) as r:
            found = r.call("ptr", "PyObject_GetAttr", "ptr %x", "ptr %name")
            r.require(r.other(found, NULL), "none")
            r.drop(found)
            r.give(found)
            r.label("none")
            r.call("void", "PyErr_Clear")
            r.give(NULL)


_TABLE = f"""@gt.table = internal global ptr null
define void @{KEEP_TABLE}(ptr %at) nounwind {{
  store ptr %at, ptr @gt.table
  ret void
}}"""
_VARIADIC = frozenset({"PyObject_CallFunctionObjArgs", "PyObject_CallMethodObjArgs"})
_DATA = ("_Py_NoneStruct", "_Py_TrueStruct", "_Py_FalseStruct")
NONE, TRUE, FALSE = (f"ptr @{name}" for name in _DATA)
NULL = "ptr null"


class Routine:
    """One function. What a step gives is ``kind %name``, as later steps take it.

    Steps that end a block (`go`, `fork`, `give`) are followed by `label`.
    """

    def __init__(self, module: Module, head: str, internal: bool):
        self.module = module
        self.internal = internal
        self._head = head
        self._allocas: list[str] = []
        self._lines: list[str] = ["begin:"]
        self._numbers = itertools.count()

    def text(self) -> str:
        """The function as LLVM IR."""
        body = ["entry:", *self._allocas, "  br label %begin", *self._lines]
        return "\n".join([self._head + " {", *body, "}"])

    # -- steps

    def emit(self, line: str) -> None:
        self._lines.append("  " + line)

    def let(self, line: str, kind: str = "ptr") -> str:
        name = f"%n{next(self._numbers)}"
        self.emit(f"{name} = {line}")
        return f"{kind} {name}"

    def local(self, kind: str, count: int = 1) -> str:
        """Memory of the function's own."""
        name = f"%l{next(self._numbers)}"
        self._allocas.append(f"  {name} = alloca {kind}, i64 {count}, align 8")
        return f"ptr {name}"

    def array(self, kind: str, count: str) -> str:
        """The same of a number of elements that is known now."""
        return self.let(f"alloca {kind}, {count}, align 8")

    def load(self, pointer: str, kind: str = "ptr") -> str:
        return self.let(f"load {kind}, {pointer}", kind)

    def store(self, value: str, pointer: str) -> None:
        self.emit(f"store {value}, {pointer}")

    def at(self, pointer: str, index: str | int, kind: str = "ptr") -> str:
        """The address of an element of an array."""
        shown = f"i64 {index}" if isinstance(index, int) else index
        return self.let(f"getelementptr inbounds {kind}, {pointer}, {shown}")

    def label(self, name: str) -> None:
        """Begin a block; what came before goes on here."""
        if not self._lines[-1].startswith(("  br ", "  ret ")):
            self.go(name)
        self._lines.append(f"{name}:")

    def new_label(self, hint: str) -> str:
        return f"{hint}{next(self._numbers)}"

    def go(self, label: str) -> None:
        self.emit(f"br label %{label}")

    def fork(self, condition: str, yes: str, no: str) -> None:
        self.emit(f"br {condition}, label %{yes}, label %{no}")

    def require(self, condition: str, otherwise: str) -> None:
        """Go on where a condition holds."""
        name = self.new_label("on")
        self.fork(condition, name, otherwise)
        self.label(name)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """The steps in the block are taken where a condition holds."""
        yes, on = self.new_label("when"), self.new_label("on")
        self.fork(condition, yes, on)
        self.label(yes)
        yield
        self.label(on)

    @contextmanager
    def each(self, count: str) -> Iterator[str]:
        """The steps in the block are taken for the numbers below `count`."""
        number = self.local("i64")
        self.store("i64 0", number)
        head, body, end = (self.new_label(h) for h in ("head", "body", "end"))
        self.label(head)
        i = self.load(number, "i64")
        self.fork(self.compare("ult", i, count), body, end)
        self.label(body)
        yield i
        self.store(self.add(self.load(number, "i64"), 1), number)
        self.go(head)
        self.label(end)

    def give(self, value: str) -> None:
        self.emit(f"ret {value}")

    # -- values

    def compare(self, how: str, a: str, b: str) -> str:
        return self.let(f"icmp {how} {a}, {b.split(' ', 1)[1]}", "i1")

    def same(self, a: str, b: str) -> str:
        return self.compare("eq", a, b)

    def other(self, a: str, b: str) -> str:
        return self.compare("ne", a, b)

    def either(self, *conditions: str) -> str:
        found = conditions[0]
        for one in conditions[1:]:
            found = self.let(f"or {found}, {one.split(' ', 1)[1]}", "i1")
        return found

    def both(self, a: str, b: str) -> str:
        return self.let(f"and {a}, {b.split(' ', 1)[1]}", "i1")

    def add(self, a: str, b: str | int) -> str:
        return self.let(f"add {a}, {b if isinstance(b, int) else b.split(' ', 1)[1]}", "i64")

    # -- the interpreter's objects

    def call(self, kind: str, name: str, *args: str) -> str:
        """A call of CPython's, or of a function of the module."""
        self.module.declare(kind, name, [a.split(" ", 1)[0] for a in args])
        called = f"{kind} (ptr, ...)" if name in _VARIADIC else kind
        line = f"call {called} @{name}({', '.join(args)})"
        if kind == "void":
            self.emit(line)
            return ""
        return self.let(line, kind)

    def known(self, name: str) -> str:
        """An object of the table."""
        place = self.at("ptr %table", self.module.objects.offset(name), "i8")
        return self.load(place)

    def name(self, text: str) -> str:
        """A text, as the interpreter keeps names."""
        return self.load(self.at("ptr %table", self.module.objects.offset_of_name(text), "i8"))

    def type_of(self, x: str) -> str:
        return self.load(self.at(x, self.module.words["TYPE"], "i8"))

    def slot(self, x: str, kind: type, name: str) -> str:
        """What a slot of `x`, an object of the class `kind`, holds; borrowed, null if nothing."""
        return self.load(self.at(x, self.module.slot(kind, name), "i8"))

    def keep(self, x: str) -> str:
        """`x` with a reference more."""
        self.call("void", "Py_IncRef", x)
        return x

    def drop(self, *objects: str) -> None:
        for x in objects:
            self.call("void", "Py_DecRef", x)

    def fill(self, x: str, kind: type, **parts: str) -> None:
        """Put into slots of a new object what it is to hold; it takes over the references."""
        for name, part in parts.items():
            self.store(part, self.at(x, self.module.slot(kind, name), "i8"))

    def attribute(self, x: str, name: str) -> str:
        """What an attribute of an object is that keeps it: borrowed. Null where there is none."""
        return self.call("ptr", ATTRIBUTE, x, self.name(name))

    def set(self, x: str, name: str, value: str) -> None:
        """Set an attribute that is no slot."""
        self.call("i32", "PyObject_SetAttr", x, self.name(name), value)

    def set_new(self, x: str, name: str, value: str) -> None:
        """The same with a new reference, which is given up."""
        self.set(x, name, value)
        self.drop(value)

    def variable(self, name: str) -> str:
        """What a context variable of the table is now, which keeps it."""
        now = self.local("ptr")
        self.call("i32", "PyContextVar_Get", self.known(name), NULL, now)
        value = self.load(now)
        self.drop(value)
        return value

    def one_of(self, kind: str, names: Iterable[str]) -> str:
        """Whether a class is one of these in the table."""
        return self.either(*[self.same(kind, self.known(name)) for name in names])

    def ask(self, function: str, *args: str) -> str:
        """A call of a function of the table: a new reference, null where it raises."""
        given = self.known(function), *args, NULL
        return self.call("ptr", "PyObject_CallFunctionObjArgs", *given)

    def ask_method(self, x: str, name: str, *args: str) -> str:
        """The same of a method."""
        return self.call("ptr", "PyObject_CallMethodObjArgs", x, self.name(name), *args, NULL)

    # -- new objects

    def new(self, kind: str) -> str:
        """An object of a class of the table, with nothing in it: its constructor is not run."""
        return self.call("ptr", "PyType_GenericAlloc", self.known(kind), "i64 0")

    def tuple_of(self, *values: str) -> str:
        """Takes over the references."""
        made = self.call("ptr", "PyTuple_New", f"i64 {len(values)}")
        for i, value in enumerate(values):
            self.call("i32", "PyTuple_SetItem", made, f"i64 {i}", value)
        return made

    def tuple_from(self, values: str, count: str) -> str:
        """Of what an array holds, which keeps it."""
        made = self.call("ptr", "PyTuple_New", count)
        with self.each(count) as i:
            value = self.load(self.at(values, i, "ptr"))
            self.call("i32", "PyTuple_SetItem", made, i, self.keep(value))
        return made

    def append(self, x: str, to: str) -> None:
        """Append `x` to a list."""
        self.call("i32", "PyList_Append", to, x)

    def append_weakly(self, x: str, find: Callable[[], str]) -> None:
        """Append a weak reference to `x`, to a list that is found once there is one: to make it may
        run code of finalizers."""
        ref = self.call("ptr", "PyWeakref_NewRef", x, NULL)
        self.append(ref, find())
        self.drop(ref)
