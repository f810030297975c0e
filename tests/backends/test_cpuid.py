"""The check of the processor that libraries begin with."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import pytest

from graphtorch.backends.llvm import cpuid
from graphtorch.backends.llvm.code import Code
from graphtorch.backends.llvm.native import compile_object
from graphtorch.backends.llvm.processor import host, named
from graphtorch.backends.llvm.runtime import pool

X86 = "x86_64-unknown-linux-gnu"
# what Linux calls features otherwise than LLVM
LINUX = {
    "sse3": "pni",
    "pclmul": "pclmulqdq",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "bmi": "bmi1",
    "lzcnt": "abm",
    "sahf": "lahf_lm",
    "avxvnni": "avx_vnni",
    **{
        f"avx512{name}": f"avx512_{name}"
        for name in ("vbmi2", "vnni", "bitalg", "vpopcntdq", "bf16", "fp16")
    },
}
CPUINFO = Path("/proc/cpuinfo")
needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPUINFO.exists(), reason="asks an x86 and Linux"
)


def lacking(flags: frozenset[str]) -> str | None:
    """What this processor is found to lack of `flags`."""
    call = "define ptr @ask() {\n  %r = call ptr @x.lacking()\n  ret ptr %r\n}\n"
    code = Code(
        [compile_object(cpuid.lacking_text("x", flags) + call, host())], ["ask"], pool().address
    )
    found = ctypes.CFUNCTYPE(ctypes.c_char_p)(code.address("ask"))()
    return None if found is None else found.decode()


@needs_x86
def test_bits_are_those_that_the_system_sees() -> None:
    line = next(x for x in CPUINFO.read_text().splitlines() if x.startswith("flags"))
    known = set(line.split(":")[1].split())
    for feature in cpuid.BITS:
        has = LINUX.get(feature, feature) in known
        assert lacking(frozenset([feature])) == (None if has else feature)


@needs_x86
def test_the_first_missing_feature_is_named() -> None:
    assert lacking(frozenset()) is None and lacking(host().flags) is None
    missing = [f for f in cpuid.BITS if f not in host().flags]
    if not missing:
        pytest.skip("this processor has everything")
    assert lacking(frozenset(missing) | host().flags) == missing[0]


@pytest.mark.parametrize(
    ("cpu", "features", "bits", "fma", "registers"),
    [
        ("", "", 128, False, 16),
        ("x86-64-v2", "", 128, False, 16),
        ("x86-64-v3", "", 256, True, 16),
        ("x86-64-v3", "+avx2,+fma", 256, True, 16),
        ("haswell", "-fma", 256, False, 16),
        ("x86-64-v4", "", 512, True, 32),
        ("", "+avx2", 256, False, 16),
    ],
)
def test_a_name_says_what_a_processor_has(
    cpu: str, features: str, bits: int, fma: bool, registers: int
) -> None:
    found = named(X86, cpu, features)
    assert (found.vector_bits, found.fma, found.registers) == (bits, fma, registers)


def test_levels_have_what_those_below_have() -> None:
    levels = [cpuid.flags_of(f"x86-64-v{i}", "") for i in (2, 3, 4)]
    assert levels[0] < levels[1] < levels[2]
    assert all(level <= cpuid.BITS.keys() for level in levels)
