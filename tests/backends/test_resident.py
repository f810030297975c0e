"""What LLVM leaves behind is no longer in memory after a large program was compiled."""

from __future__ import annotations

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

SMAPS = """\
55d0-55d8 r--p 00000000 fe:00 12    /opt/a folder/libllvmlite.so
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
55d8-55e0 r-xp 00008000 fe:00 12    /opt/a folder/libllvmlite.so
Rss:                   8 kB
Anonymous:             4 kB
Swap:                  0 kB
55e0-55e8 r--p 00010000 fe:00 12    /opt/a folder/libllvmlite.so
Anonymous:             0 kB
Swap:                  4 kB
55e8-55f0 rw-p 00018000 fe:00 12    /opt/a folder/libllvmlite.so
Anonymous:             0 kB
Swap:                  0 kB
55f0-55f8 r-xp 00018000 fe:00 12    /opt/a folder/libllvmlite.so
Rss:                   8 kB
5600-5608 r-xp 00000000 fe:00 13    /opt/libllvmlite.so.1
Anonymous:             0 kB
Swap:                  0 kB
5608-5610 rw-p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
5610-5618 r-xp 00000000 fe:00 14    /libllvmlite.so
Anonymous:             0 kB
Swap:                  0 kB
"""


def test_parts_are_given_up_only_where_all_of_them_is_in_the_file():
    # of its own (relocated, swapped out), writable, untold and others' memory stays
    assert list(native.unchanged_parts(SMAPS, "libllvmlite.so")) == [
        (0x55D0, 0x55D8),
        (0x5610, 0x5618),
    ]


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
