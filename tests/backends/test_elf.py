"""Object code loaded without LLVM: what it refers to, lifetimes, and what is left to LLVM."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphtorch.backends.llvm import elf, native
from graphtorch.backends.llvm.code import Code
from graphtorch.backends.llvm.native import compile_object
from graphtorch.backends.llvm.processor import host

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="loads ELF for x86-64"
)

INT = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)

# a table of functions, a variable, memory that begins with zeros, and constants of vectors
DATA = """
@table = internal constant [2 x ptr] [ptr @twice, ptr @next]
@count = internal global i64 7
@zeros = internal global [4 x i64] zeroinitializer, align 64
define internal i64 @twice(i64 %x) {
  %y = mul i64 %x, 2
  ret i64 %y
}
define internal i64 @next(i64 %x) {
  %y = add i64 %x, 1
  ret i64 %y
}
define i64 @choose(i64 %which) noinline {
  %p = getelementptr ptr, ptr @table, i64 %which
  %f = load ptr, ptr %p
  %r = call i64 %f(i64 20)
  ret i64 %r
}
define i64 @counted(i64 %by) {
  %old = load volatile i64, ptr @count
  %new = add i64 %old, %by
  store volatile i64 %new, ptr @count
  %zero.p = getelementptr i64, ptr @zeros, i64 3
  %zero = load volatile i64, ptr %zero.p
  %r = add i64 %new, %zero
  ret i64 %r
}
define i64 @vectors(i64 %x) {
  %a = insertelement <4 x i64> zeroinitializer, i64 %x, i32 2
  %b = shufflevector <4 x i64> %a, <4 x i64> poison, <4 x i32> <i32 2, i32 2, i32 2, i32 2>
  %c = mul <4 x i64> %b, <i64 1, i64 10, i64 100, i64 1000>
  %r = call i64 @llvm.vector.reduce.add.v4i64(<4 x i64> %c)
  ret i64 %r
}
declare i64 @llvm.vector.reduce.add.v4i64(<4 x i64>)
"""


def objects(*texts: str) -> list[bytes]:
    return [compile_object(text, host()) for text in texts]


def function(code: Any, name: str) -> Any:
    return INT(code.address(name))


def test_tables_variables_and_constants():
    code = elf.Linked(objects(DATA), ("choose", "counted", "vectors"), {})
    choose, counted, vectors = (function(code, n) for n in ("choose", "counted", "vectors"))
    assert [choose(0), choose(1)] == [40, 21]
    assert [counted(1), counted(2)] == [8, 10]
    assert vectors(3) == 3333
    code.close()


def test_each_loading_has_variables_of_its_own():
    made = objects(DATA)
    one, other = (elf.Linked(made, ("counted",), {}) for _ in range(2))
    assert function(one, "counted")(100) == 107
    assert function(other, "counted")(1) == 8
    one.close()
    assert function(other, "counted")(1) == 9
    other.close()


def test_names_are_found_in_files_imports_and_the_process():
    caller = """
declare i64 @given(i64)
declare i64 @labs(i64)
declare i64 @beside(i64)
define i64 @call(i64 %x) {
  %a = call i64 @given(i64 %x)
  %b = call i64 @labs(i64 %a)
  %c = call i64 @beside(i64 %b)
  ret i64 %c
}
"""
    beside = "define i64 @beside(i64 %x) {\n  %y = mul i64 %x, 3\n  ret i64 %y\n}\n"
    given = INT(lambda x: x - 10)
    address = ctypes.cast(given, ctypes.c_void_p).value or 0
    code = elf.Linked(objects(caller, beside), ("call",), {"given": address})
    assert function(code, "call")(3) == 21
    code.close()


def test_of_several_weak_functions_the_first_is_taken():
    def weak(value: int) -> str:
        return f"""
define weak_odr i64 @shared(i64 %x) noinline {{
  ret i64 {value}
}}
define i64 @ask{value}(i64 %x) {{
  %y = call i64 @shared(i64 %x)
  ret i64 %y
}}
"""

    code = elf.Linked(objects(weak(1), weak(2)), ("ask1", "ask2", "shared"), {})
    assert [function(code, n)(0) for n in ("ask1", "ask2", "shared")] == [1, 1, 1]
    code.close()
    strong = "define i64 @shared(i64 %x) {\n  ret i64 5\n}\n"
    code = elf.Linked(objects(weak(1), strong), ("ask1",), {})
    assert function(code, "ask1")(0) == 5
    code.close()


def mappings() -> dict[range, str]:
    found = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, flags = line.split()[:2]
        first, last = (int(x, 16) for x in place.split("-"))
        found[range(first, last)] = flags
    return found


def test_code_is_never_writable_and_memory_is_given_back():
    code = Code(objects(DATA), ("choose", "counted"))
    assert isinstance(code._linked, elf.Linked)
    start = code._linked._start
    flags = [
        f for place, f in mappings().items() if start <= place.start < start + code._linked._size
    ]
    assert [f[:3] for f in flags[:2]] == ["r-x", "r--"] and "rw-" in flags[2]
    del code
    assert not any(start in place for place, f in mappings().items() if "x" in f)


def test_what_is_not_known_is_left_to_llvm():
    """Code for libraries refers to what is near, by other relocations."""
    made = [compile_object(DATA, host(), pic=True)]
    with pytest.raises(elf.Unknown):
        elf.Linked(made, ("choose",), {})
    code = Code(made, ("choose",))
    assert isinstance(code._linked, native.Linked)
    assert function(code, "choose")(1) == 21


def test_missing_names_are_errors_of_llvm():
    text = "declare i64 @nowhere_at_all(i64)\ndefine i64 @f(i64 %x) {\n"
    text += "  %y = call i64 @nowhere_at_all(i64 %x)\n  ret i64 %y\n}\n"
    made = objects(text)
    with pytest.raises(elf.Unknown, match="nowhere_at_all"):
        elf.Linked(made, ("f",), {})
    with pytest.raises(RuntimeError, match="Failed to materialize"):
        Code(made, ("f",))
    with pytest.raises(elf.Unknown, match="no function"):
        elf.Linked(objects(DATA), ("other",), {})


@pytest.mark.parametrize("change", ["magic", "machine", "kind", "short", "sections"])
def test_other_files_are_unknown(change):
    data = bytearray(objects(DATA)[0])
    if change == "magic":
        data[0] ^= 1
    elif change == "machine":
        data[18] = 183  # aarch64
    elif change == "kind":
        data[16] = 3  # a shared library
    elif change == "sections":
        data[40:48] = (1 << 40).to_bytes(8, "little")
    with pytest.raises(elf.Unknown):
        elf.Linked([bytes(data[:40] if change == "short" else data)], ("choose",), {})


PROGRAM = """
import sys
import graphtorch as torch

double = torch.compile(lambda x: (x @ x).relu() + 1)
print(double(torch.ones(8, 8)).sum().item(), "llvmlite.binding" in sys.modules)
"""


def test_a_process_whose_code_is_in_the_cache_does_not_load_llvm(tmp_path):
    environment = {**os.environ, "GRAPHTORCH_CACHE": str(tmp_path)}
    seen = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert seen == [["576.0", "True"], ["576.0", "False"]]
