"""What LLVM leaves behind is no longer in memory after a large program was compiled."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.backends.llvm import compiler, native
from graphtorch.backends.llvm.processor import host
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value

MAPS = """\
55d0-55d8 r--p 00000000 fe:00 12    /opt/a folder/libllvmlite.so
55d8-55e0 r-xp 00008000 fe:00 12    /opt/a folder/libllvmlite.so
55e8-55f0 rw-p 00018000 fe:00 12    /opt/a folder/libllvmlite.so
5600-5608 r-xp 00000000 fe:00 13    /opt/libllvmlite.so.1
5608-5610 rw-p 00000000 00:00 0
5610-5618 r-xp 00000000 fe:00 14    /opt/other_libllvmlite.so
"""


def test_parts_of_a_library_that_nobody_can_write_to():
    found = list(native.read_only_parts(MAPS, "libllvmlite.so"))
    assert found == [(0x55D0, 0x55D8), (0x55D8, 0x55E0)]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked at in /proc")
def test_pages_that_were_written_to_are_told_from_those_of_the_file(tmp_path):
    path = tmp_path / "pages"
    path.write_bytes(bytes(range(256)) * (16 * mmap.PAGESIZE // 256))
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    array = np.frombuffer(pages, np.uint8)
    first = array.ctypes.data
    assert native.is_as_in_file(first, first + len(pages))  # not even read
    assert int(array[:: mmap.PAGESIZE].sum()) == 0
    assert native.is_as_in_file(first, first + len(pages))
    array[5 * mmap.PAGESIZE] = 1
    assert not native.is_as_in_file(first, first + len(pages))
    assert native.is_as_in_file(first, first + 5 * mmap.PAGESIZE)
    other = np.ones(8 * mmap.PAGESIZE, np.uint8)  # of no file
    inside = -(-other.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    assert not native.is_as_in_file(inside, inside + mmap.PAGESIZE)


def test_nothing_is_given_up_where_the_system_does_not_tell(monkeypatch):
    def refuse(*_: int) -> bool:
        raise PermissionError

    monkeypatch.setattr(native, "is_as_in_file", refuse)
    monkeypatch.setattr(native, "advise", lambda *_: pytest.fail("memory was given up"))
    native.let_go()


def kibibytes_of_llvm() -> int:
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            inside = line.endswith("libllvmlite.so")
        elif inside and name == "Rss:":
            found += int(rest[0])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked at in /proc")
def test_what_loading_llvm_has_read_leaves_memory():
    native.initialize.cache_clear()
    native.compile_object("define void @f() {\n  ret void\n}\n", host())
    before = kibibytes_of_llvm()
    native.initialize.cache_clear()
    native.initialize()
    assert kibibytes_of_llvm() < before / 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked at in /proc")
def test_code_of_llvm_leaves_memory_and_comes_back():
    text = "define float @f(float %x) {\n  %y = fmul float %x, %x\n  ret float %y\n}\n"
    first = native.compile_object(text, host())
    before = kibibytes_of_llvm()
    native.let_go()
    after = kibibytes_of_llvm()
    assert after < before / 4
    assert native.compile_object(text, host()) == first
    assert kibibytes_of_llvm() > after


def test_results_are_right_after_a_large_program_was_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "LARGE", 1)
    called = []
    let_go = native.let_go
    monkeypatch.setattr(native, "let_go", lambda: (called.append(1), let_go()))
    for n in (31, 37):  # the second compiles with code that had left memory
        x = Value(Type(f32, (n, 5)), name="x")
        program = compile(Graph("g", [x], [ops.tanh(ops.matmul(x, ops.permute(x, dims=(1, 0))))]))
        a = np.random.default_rng(n).standard_normal((n, 5)).astype(np.float32)
        (found,) = program([Buffer.of(a)])
        np.testing.assert_allclose(found.numpy(), np.tanh(a @ a.T), rtol=1e-5, atol=1e-6)
    assert len(called) == 2
