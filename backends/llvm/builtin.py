"""Native functions that the interpreter calls as it does its own builtins, at a tenth of what
ctypes takes.

    launch(frame)     walks the table of launches of the frame at this address; its status
    holds()           whether containers hold what they held, see `backends.identity`

They use what CPython's limited API declares, so that one object serves all its versions.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

from .. import cache
from ..identity import END, LENGTHS, LIST_ITEM, Row
from .code import Code, immortal
from .processor import host
from .runtime import pool

_NO_ARGUMENTS, _ONE_ARGUMENT = 4, 8  # METH_NOARGS, METH_O
_row = struct.Struct("=5q")

_TEXT = r"""
@_Py_TrueStruct = external global i8
@_Py_FalseStruct = external global i8
declare void @Py_IncRef(ptr)
declare ptr @PyLong_AsVoidPtr(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare i64 @PyDict_Size(ptr)
declare ptr @PyList_GetItem(ptr, i64)
declare i64 @PyList_Size(ptr)
declare i64 @PyObject_Size(ptr)
declare void @PyErr_Clear()
declare i32 @gt_run(ptr)

define ptr @gt_launch(ptr %self, ptr %number) nounwind {
  %frame = call ptr @PyLong_AsVoidPtr(ptr %number)
  %thread = call ptr @PyEval_SaveThread()
  %status = call i32 @gt_run(ptr %frame)
  call void @PyEval_RestoreThread(ptr %thread)
  %wide = sext i32 %status to i64
  %result = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %result
}

; self: a bytes object, in which rows of five words begin at OFFSET:
; what is asked, a container, a key of it, a key of what is there, what is expected
define ptr @gt_holds(ptr %self, ptr %none) nounwind {
entry:
  %table = getelementptr inbounds i8, ptr %self, i64 OFFSET
  br label %look
look:
  %row = phi ptr [ %table, %entry ], [ %after, %next ]
  %p1 = getelementptr inbounds i8, ptr %row, i64 8
  %p2 = getelementptr inbounds i8, ptr %row, i64 16
  %p3 = getelementptr inbounds i8, ptr %row, i64 24
  %p4 = getelementptr inbounds i8, ptr %row, i64 32
  %after = getelementptr inbounds i8, ptr %row, i64 40
  %what = load i64, ptr %row
  %owner = load ptr, ptr %p1
  %key = load ptr, ptr %p2
  %inner = load ptr, ptr %p3
  %expected = load i64, ptr %p4
  switch i64 %what, label %yes [ i64 1, label %item
                                 i64 2, label %length
                                 i64 3, label %part
                                 i64 4, label %part_length
                                 i64 5, label %list_length
                                 i64 6, label %list_item ]
item:
  %x = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %x.i = ptrtoint ptr %x to i64
  %x.same = icmp eq i64 %x.i, %expected
  br i1 %x.same, label %next, label %no
length:
  %n = call i64 @PyDict_Size(ptr %owner)
  %n.same = icmp eq i64 %n, %expected
  br i1 %n.same, label %next, label %no
part:
  %t = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %t.none = icmp eq ptr %t, null
  br i1 %t.none, label %no, label %within
within:
  %y = call ptr @PyDict_GetItemWithError(ptr %t, ptr %inner)
  %y.i = ptrtoint ptr %y to i64
  %y.same = icmp eq i64 %y.i, %expected
  br i1 %y.same, label %next, label %no
part_length:
  %u = call ptr @PyDict_GetItemWithError(ptr %owner, ptr %key)
  %u.none = icmp eq ptr %u, null
  br i1 %u.none, label %no, label %measure
measure:
  %m = call i64 @PyObject_Size(ptr %u)
  %m.same = icmp eq i64 %m, %expected
  br i1 %m.same, label %next, label %no
list_length:
  %l = call i64 @PyList_Size(ptr %owner)
  %l.same = icmp eq i64 %l, %expected
  br i1 %l.same, label %next, label %no
list_item:
  %i = ptrtoint ptr %key to i64
  %z = call ptr @PyList_GetItem(ptr %owner, i64 %i)
  %z.i = ptrtoint ptr %z to i64
  %z.same = icmp eq i64 %z.i, %expected
  br i1 %z.same, label %next, label %no
next:
  br label %look
yes:
  call void @Py_IncRef(ptr @_Py_TrueStruct)
  ret ptr @_Py_TrueStruct
no:
  call void @PyErr_Clear()
  call void @Py_IncRef(ptr @_Py_FalseStruct)
  ret ptr @_Py_FalseStruct
}
"""


def holds(rows: Sequence[Row]) -> Callable[[], bool]:
    """See `backends.identity.identities`."""
    table = b"".join(
        [
            _row.pack(
                what,
                id(owner),
                key if what == LIST_ITEM else id(key),
                id(inner),
                x if what in LENGTHS else id(x),
            )
            for what, owner, key, inner, x in rows
        ]
    )
    return _made("gt_holds", _NO_ARGUMENTS, table + _row.pack(END, 0, 0, 0, 0))


@functools.cache
def launch() -> Callable[[int], int]:
    """What walks the table of launches of a frame, while other threads of the interpreter run."""
    return _made("gt_launch", _ONE_ARGUMENT, None)


class _Definition(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _made(name: str, flags: int, owner: Any) -> Any:
    definition = _definition(name, flags)
    return _new_function(ctypes.addressof(definition), owner, None)


_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
_new_function.restype = ctypes.py_object


@functools.cache
def _definition(name: str, flags: int) -> _Definition:
    return _Definition(name.encode(), _code().address(name), flags, None)


@functools.cache
def _code() -> Code:
    """The functions of this process, which are there until it ends."""
    text = _TEXT.replace("OFFSET", str(bytes.__basicsize__ - 1))
    name = cache.key("builtin", text, repr(host()))
    found = cache.load(name)
    if found is None:
        # LLVM is not even loaded where the cache has the code
        compile_object = importlib.import_module(".native", __package__).compile_object
        image: bytes = compile_object(text, host())
        cache.store(name, {}, image)
    else:
        image = found[1]
    imports = {"gt_run": pool().address["gt_run"]}
    return immortal(Code([image], ("gt_launch", "gt_holds"), imports))
