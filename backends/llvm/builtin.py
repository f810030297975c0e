"""Native functions that the interpreter calls as it does its own builtins, at a tenth of what
ctypes takes.

    launch(frame)     walks the table of launches of the frame at this address; its status
    holds()           whether containers hold what they held, see `backends.identity`
    made(*given)      an object that is made at once, see `backends.objects`
    call(frame, ...)  writes addresses to a frame, walks its table and makes an object, see `caller`

They use what CPython's limited API declares, beside the places where objects have their type and
what `_slot` and `_has_tags` found out about the interpreter at hand.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import struct
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import cache
from ..buffer import ALIGNMENT
from ..identity import END, LENGTHS, LIST_ITEM, PARTS, Row
from ..objects import Given, New
from .builtin_text import TEXT
from .code import Code, immortal
from .processor import host
from .routine import KEEP_TABLE, Module, Objects
from .runtime import pool

# METH_NOARGS, METH_O, METH_FASTCALL, METH_KEYWORDS
_NO_ARGUMENTS, _ONE_ARGUMENT, _FAST, _KEYWORDS = 4, 8, 128, 2
_FUNCTIONS = ("gt_launch", "gt_holds", "gt_made", "gt_call")
_row = struct.Struct("=5q")
_NEW, _PUT, _COPY, _MOVE, _SET, _SET_MADE = range(1, 7)  # see `gt.make`
_MOST = 16  # objects that are made at once, with those that are given
_GROUP, _MORE, _LINK = 8, 9, 10  # see `gt_holds`; what rows ask is in `backends.identity`
_TYPE = object.__basicsize__ - 8  # where in an object its type is
_TAG = object.__basicsize__ + 8  # where in a dictionary its tag is, after the number of items


def holds(rows: Sequence[Row]) -> Callable[[], bool]:
    """See `backends.identity.identities`."""
    groups: dict[int, list[Row]] = {}
    table = b""
    for row in rows:
        if isinstance(row[1], dict) and _has_tags():
            groups.setdefault(id(row[1]), []).append(row)
        else:
            table += _packed(row)
    within: list[Any] = []  # whose tags are read
    for group in groups.values():
        table += _grouped(group, len(table), within)
    return _made("gt_holds", _NO_ARGUMENTS, table + _row.pack(END, 0, 0, 0, 0), within)


def _packed(row: Row) -> bytes:
    what, owner, key, inner, x = row
    position = key if what == LIST_ITEM else id(key)
    return _row.pack(what, id(owner), position, id(inner), x if what in LENGTHS else id(x))


def _grouped(rows: Sequence[Row], at: int, within: list[Any]) -> bytes:
    """Rows of one dictionary that are passed over while nothing has changed.

    Args:
        at: where in the table they are to be.
        within: gets the dictionaries whose tags tell, which are to live as long as the table.
    """
    owner = rows[0][1]
    keys = dict.fromkeys(key for what, _, key, *_ in rows if what in PARTS)
    held = [(key, dict.get(owner, key)) for key in keys]
    if not all(isinstance(d, dict) for _, d in held):
        return b"".join(map(_packed, rows))
    within += [d for _, d in held]
    body = b"".join([_row.pack(_MORE, id(d), 0, 0, 0) for _, d in held])
    body += b"".join(map(_packed, rows))
    body += b"".join([_row.pack(_LINK, id(owner), id(key), 0, id(d)) for key, d in held])
    end = at + _row.size + len(body)
    return _row.pack(_GROUP, id(owner), len(held), end, 0) + body


@functools.cache
def _has_tags() -> bool:
    """Whether dictionaries have a number at `_TAG` that no two of them ever share and that every
    change replaces: `ma_version_tag` of PEP 509, which Python 3.14 no longer has."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 13):
        return False
    one: dict[str, Any] = {"a": 1}
    tag = ctypes.c_uint64.from_address(id(one) + _TAG)
    seen = [0, tag.value]
    one["a"] = 2
    seen.append(tag.value)
    one["b"] = 2
    seen.append(tag.value)
    del one["b"]
    seen.append(tag.value)
    one.clear()
    seen.append(tag.value)
    return tag.value == seen[-1] and len(set(seen)) == len(seen)


@functools.cache
def launch() -> Callable[[int], int]:
    """What walks the table of launches of a frame, while other threads of the interpreter run."""
    return _made("gt_launch", _ONE_ARGUMENT, None)


def maker(count: int, new: New) -> Callable[..., Any]:
    """See `backends.objects.maker`."""
    held: list[Any] = []
    rows = _row.pack(count, 0, 0, 0, 0) + _making(new, count, held)
    return _made("gt_made", _FAST, rows, held)


def caller(first: int, count: int, output: int, size: int, new: New) -> Callable[..., Any]:
    """What calls a program with one output: of the address of a frame and those of `count` inputs
    that is what `new` says, or the status of the walk where that is an error.

    Args:
        first: the word of the frame that the first input's address goes to, and others after it.
        output: the word that the output's goes to.
        size: of the output's memory; 0 where its owner and address come before those of the inputs.
        new: `Given(0)` stands for the owner of the output's memory, `Given(1)` for its address.
    """
    held: list[Any] = []
    total = 1 + count + (0 if size else 2)
    rows = _row.pack(total, first, output, size, 0) + _making(new, 2, held)
    return _made("gt_call", _FAST, rows, held)


def _making(new: New, count: int, held: list[Any]) -> bytes:
    """The rows that make a `new`, see `gt.make`; `held` gets what they name."""
    rows: list[tuple[int, int, int, int, int]] = []
    numbers = itertools.count(count)

    def make(one: New) -> int:
        number = next(numbers)
        held.extend((one.kind, *one.parts, *one.parts.values()))
        rows.append((_NEW, number, id(one.kind), 0, 0))
        for name, part in one.parts.items():
            slot = _slot(one.kind, name)
            what, value = _PUT, id(part)
            if isinstance(part, New):
                what, value = _MOVE, make(part)
            elif isinstance(part, Given):
                what, value = _COPY, part.number
            if slot is None:
                assert what != _COPY, "what is given goes to slots"
                what = _SET_MADE if what == _MOVE else _SET
            rows.append((what, number, id(name) if slot is None else slot, value, 0))
        return number

    rows.append((END, make(new), 0, 0, 0))
    if next(numbers) > _MOST:
        raise ValueError(f"more than {_MOST} objects at once")
    return b"".join([_row.pack(*row) for row in rows])


@functools.cache
def _slot(kind: type, name: str) -> int | None:
    """Where in an object of a class the slot `name` is; None where that is no slot."""
    found = next((k.__dict__[name] for k in kind.__mro__ if name in k.__dict__), None)
    if not isinstance(found, types.MemberDescriptorType):
        return None
    one: Any = object.__new__(kind)
    mark = object()
    found.__set__(one, mark)
    words = (ctypes.c_int64 * (kind.__basicsize__ // 8)).from_address(id(one))
    return list(words).index(id(mark)) * 8


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _made(name: str, flags: int, owner: Any, held: Any = None) -> Any:
    """Args: held: lives as long as the function: what a builtin has as its module."""
    definition = _definition(name, flags)
    return _new_function(ctypes.addressof(definition), owner, held)


_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
_new_function.restype = ctypes.py_object
_new_method = ctypes.pythonapi.PyDescr_NewMethod
_new_method.argtypes = (ctypes.py_object, ctypes.c_void_p)
_new_method.restype = ctypes.py_object


@functools.cache
def _definition(name: str, flags: int) -> _Definition:
    # functions are looked at when the interpreter ends, after this table is gone
    return immortal(_Definition(name.encode(), _code().address(name), flags, None))


WORDS = {
    "OFFSET": bytes.__basicsize__ - 1,
    "TAG": _TAG,
    "TYPE": _TYPE,
    "MOST": _MOST,
    "ALIGNMENT": ALIGNMENT,
    "BEGIN": bytes.__basicsize__ - 1 + ALIGNMENT - 1,  # rounded down this is aligned: see `small`
}


def module(objects: Objects) -> Module:
    """For functions written by `routine.Routine` that know `objects`."""
    return Module(objects, _known_slot, WORDS)


def routine(module: Module, name: str) -> Callable[..., Any]:
    """A function of `module`, whose text is complete."""
    code = _code_of(module)
    definition = immortal(_Definition(name.encode(), code.address(name), _FAST, None))
    held = list(module.objects.all.values())
    return _new_function(  # type: ignore[no-any-return]
        ctypes.addressof(definition), module.table, held
    )


def method(module: Module, name: str, kind: type, label: str) -> Callable[..., Any]:
    """A function of `module`, one written with `routine.METHOD`, as the method `label` of the class
    `kind`."""
    code = _code_of(module)
    flags = _FAST | _KEYWORDS
    definition = immortal(_Definition(label.encode(), code.address(name), flags, None))
    return _new_method(kind, ctypes.addressof(definition))  # type: ignore[no-any-return]


def runs_here(module: Module) -> bool:
    """Whether the interpreter at hand has all that the functions of `module` call, and lets one
    thread run at a time: they borrow references."""
    one_at_a_time = getattr(sys, "_is_gil_enabled", lambda: True)()
    return one_at_a_time and all(hasattr(ctypes.pythonapi, name) for name in module.calls())


def is_cached(module: Module) -> bool:
    """Whether the cache has the code of `module`, whose text is complete."""
    return cache.load(_key(module.text())) is not None


def _code_of(module: Module) -> Code:
    if module.code is None:
        module.code = _loaded(module.text(), module.exports(), {}, loops=False)
        ids = module.objects.ids()
        module.table = b"".join([x.to_bytes(8, sys.byteorder) for x in ids])
        immortal((module.table, list(module.objects.all.values())))
        keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(module.code.address(KEEP_TABLE))
        keep(id(module.table) + WORDS["OFFSET"])
    return module.code  # type: ignore[no-any-return]


def _known_slot(kind: type, name: str) -> int:
    found = _slot(kind, name)
    assert found is not None, f"{kind.__name__}.{name} is no slot"
    return found


@functools.cache
def _code() -> Code:
    """The functions of this process, which are there until it ends."""
    text = TEXT
    for word, number in WORDS.items():
        text = text.replace(word, str(number))
    return _loaded(text, _FUNCTIONS, {"gt_run": pool().address["gt_run"]})


def _key(text: str) -> str:
    return cache.key("builtin", text, repr(host()))


def _loaded(
    text: str, functions: Sequence[str], imports: Mapping[str, int], loops: bool = True
) -> Code:
    name = _key(text)
    found = cache.load(name)
    if found is None:
        # LLVM is not even loaded where the cache has the code
        compile_object = importlib.import_module(".native", __package__).compile_object
        image: bytes = compile_object(text, host(), loops=loops)
        cache.store(name, {}, image)
    else:
        image = found[1]
    return immortal(Code([image], functions, imports))
