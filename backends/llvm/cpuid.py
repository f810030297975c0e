"""What a library asks the processor that it runs on before other code runs: has it what that code
was generated for?

Bits: Intel's Software Developer's Manual, volume 2, CPUID; levels: the x86-64 psABI, 3.1.1.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from .tensor_check import constant_string

_LEVELS = (
    "cx16 sahf popcnt sse3 sse4.1 sse4.2 ssse3",
    "avx avx2 bmi bmi2 f16c fma lzcnt movbe",
    "avx512f avx512bw avx512cd avx512dq avx512vl",
)
_GENERATIONS = {
    2: "x86-64-v2 nehalem westmere silvermont goldmont",
    3: "x86-64-v3 haswell broadwell skylake alderlake znver1 znver2 znver3",
    4: "x86-64-v4 skylake-avx512 cascadelake cooperlake cannonlake icelake-client icelake-server "
    "tigerlake rocketlake sapphirerapids graniterapids znver4 znver5",
}
LEVEL_OF = {name: level for level, names in _GENERATIONS.items() for name in names.split()}

# what processors have beside their generation's features, as far as code is chosen by it
_MORE = {
    "avx512vnni": "cascadelake cooperlake icelake-client icelake-server tigerlake rocketlake "
    "sapphirerapids graniterapids znver4 znver5",
    "avx512bf16": "cooperlake sapphirerapids graniterapids znver4 znver5",
    "avxvnni": "alderlake sapphirerapids graniterapids znver5",
}

# LLVM's name of a feature: leaf, subleaf, register (a, b, c, d: 0 to 3), bit
BITS = {
    "sse3": (1, 0, 2, 0),
    "pclmul": (1, 0, 2, 1),
    "ssse3": (1, 0, 2, 9),
    "fma": (1, 0, 2, 12),
    "cx16": (1, 0, 2, 13),
    "sse4.1": (1, 0, 2, 19),
    "sse4.2": (1, 0, 2, 20),
    "movbe": (1, 0, 2, 22),
    "popcnt": (1, 0, 2, 23),
    "aes": (1, 0, 2, 25),
    "avx": (1, 0, 2, 28),
    "f16c": (1, 0, 2, 29),
    "bmi": (7, 0, 1, 3),
    "avx2": (7, 0, 1, 5),
    "bmi2": (7, 0, 1, 8),
    "avx512f": (7, 0, 1, 16),
    "avx512dq": (7, 0, 1, 17),
    "adx": (7, 0, 1, 19),
    "avx512ifma": (7, 0, 1, 21),
    "avx512cd": (7, 0, 1, 28),
    "avx512bw": (7, 0, 1, 30),
    "avx512vl": (7, 0, 1, 31),
    "avx512vbmi": (7, 0, 2, 1),
    "avx512vbmi2": (7, 0, 2, 6),
    "gfni": (7, 0, 2, 8),
    "vaes": (7, 0, 2, 9),
    "vpclmulqdq": (7, 0, 2, 10),
    "avx512vnni": (7, 0, 2, 11),
    "avx512bitalg": (7, 0, 2, 12),
    "avx512vpopcntdq": (7, 0, 2, 14),
    "avx512fp16": (7, 0, 3, 23),
    "avxvnni": (7, 1, 0, 4),
    "avx512bf16": (7, 1, 0, 5),
    "sahf": (0x80000001, 0, 2, 0),
    "lzcnt": (0x80000001, 0, 2, 5),
}
# what a feature brings with it, as LLVM has it, and is not there without
_NEEDS = {
    "ssse3": "sse3",
    "sse4.1": "ssse3",
    "sse4.2": "sse4.1",
    "avx": "sse4.2",
    "avx2": "avx",
    "f16c": "avx",
    "fma": "avx",
    "avx512f": "avx2 f16c fma",
    "avx512bw": "avx512f",
    "avx512cd": "avx512f",
    "avx512dq": "avx512f",
    "avx512vl": "avx512f",
    "avx512ifma": "avx512f",
    "avx512vnni": "avx512f",
    "avx512vpopcntdq": "avx512f",
    "avx512vbmi": "avx512bw",
    "avx512vbmi2": "avx512bw",
    "avx512bitalg": "avx512bw",
    "avx512bf16": "avx512bw",
    "avx512fp16": "avx512bw avx512dq avx512vl",
    "avxvnni": "avx2",
    "vaes": "aes avx2",
    "vpclmulqdq": "avx pclmul",
}
OSXSAVE = 27  # of leaf 1, register c: the system says in XCR0 which registers it saves
SAVED, SAVED_WIDE = 0x6, 0xE6  # of XCR0: 256-bit registers, 512-bit ones and masks

# A function that every 64-bit x86 can run, whatever the rest of the library is compiled for.
BASELINE = '"target-cpu"="x86-64" "target-features"=""'


@cache  # asked for each graph that is compiled
def flags_of(cpu: str, features: str) -> frozenset[str]:
    """Features of a processor: those of its generation, where that is known, and those named.

    As LLVM has it one brings others with it, and goes with those that need it: ``-avx`` takes
    ``avx2`` and ``fma`` away.
    """
    found = {f for level in _LEVELS[: LEVEL_OF.get(cpu, 1) - 1] for f in level.split()}
    found.update(f for f, names in _MORE.items() if cpu in names.split())
    for feature in filter(None, features.split(",")):
        if feature[0] == "+":
            found |= _needed(feature[1:])
        else:
            found = {f for f in found if feature[1:] not in _needed(f)}
    return frozenset(found)


def _needed(feature: str) -> set[str]:
    """A feature and all that it needs."""
    needs = _NEEDS.get(feature, "").split()
    return {feature}.union(*map(_needed, needs))


class _Leaf(NamedTuple):
    number: int
    part: int

    @property
    def name(self) -> str:
        return f"leaf{self.number:x}.{self.part}"

    def lines(self) -> list[str]:
        """Ask for it: zero where the processor does not know so many leaves."""
        base, n = self.number & 0x80000000, self.name
        answer = "call { i32, i32, i32, i32 }"
        ask = 'asm sideeffect "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}"'
        return [
            f"  %{n}.all = {answer} {ask}(i32 {_signed(base)}, i32 0)",
            f"  %{n}.last = extractvalue {{ i32, i32, i32, i32 }} %{n}.all, 0",
            f"  %{n}.known = icmp uge i32 %{n}.last, {_signed(self.number)}",
            f"  %{n} = {answer} {ask}(i32 {_signed(self.number)}, i32 {self.part})",
        ]


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def lacking_text(name: str, flags: frozenset[str]) -> str:
    """``ptr NAME.lacking()``: the name of a feature that this processor lacks, or NULL."""
    wanted = [f for f in BITS if f in flags]
    leaves = {_Leaf(*BITS[f][:2]): None for f in wanted} | {_Leaf(1, 0): None}
    lines = [line for leaf in leaves for line in leaf.lines()]
    lines += _bit("osxsave", 1, 0, 2, OSXSAVE)
    lines += [
        "  br i1 %osxsave, label %ask, label %answer",
        "ask:",
        '  %xcr = call { i32, i32 } asm sideeffect "xgetbv", "={ax},={dx},{cx}"(i32 0)',
        "  %saved.low = extractvalue { i32, i32 } %xcr, 0",
        "  br label %answer",
        "answer:",
        "  %saved = phi i32 [ 0, %entry ], [ %saved.low, %ask ]",
        *_mask("wide", SAVED_WIDE),
        *_mask("half", SAVED),
    ]
    names, last = [], "null"
    for i, feature in reversed(list(enumerate(wanted))):
        lines += _bit(f"f{i}.has", *BITS[feature])
        if feature.startswith(("avx", "fma", "f16c", "v")):
            state = "wide" if feature.startswith("avx512") else "half"
            lines.append(f"  %f{i}.ok = and i1 %f{i}.has, %{state}")
        else:
            lines.append(f"  %f{i}.ok = and i1 %f{i}.has, true")
        names.append(constant_string(f"{name}.feature{i}", feature))
        lines.append(f"  %f{i} = select i1 %f{i}.ok, ptr {last}, ptr @{name}.feature{i}")
        last = f"%f{i}"
    head = f"define internal ptr @{name}.lacking() noinline {BASELINE} {{"
    return "\n".join([*names, head, "entry:", *lines, f"  ret ptr {last}", "}", ""])


def _bit(result: str, leaf: int, part: int, register: int, bit: int) -> list[str]:
    """Whether a bit of a leaf's register is set, as ``i1 %result``."""
    n = _Leaf(leaf, part).name
    return [
        f"  %{result}.r = extractvalue {{ i32, i32, i32, i32 }} %{n}, {register}",
        f"  %{result}.b = lshr i32 %{result}.r, {bit}",
        f"  %{result}.t = trunc i32 %{result}.b to i1",
        f"  %{result} = and i1 %{result}.t, %{n}.known",
    ]


def _mask(result: str, bits: int) -> list[str]:
    return [
        f"  %{result}.m = and i32 %saved, {bits}",
        f"  %{result} = icmp eq i32 %{result}.m, {bits}",
    ]
