"""What code generation needs to know of a processor, as a record, so that AOT can name another
one."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import cache
from ..dataclass import dataclass
from ..kernels.machine import Machine
from . import dots
from .cpuid import LEVEL_OF, flags_of

VARIABLE = "GRAPHTORCH_TARGET_CPU"

FEATURE_WIDTHS = (
    ("avx512f", 512),
    ("avx2", 256),
    ("avx", 256),
    ("sve", 128),
    ("neon", 128),
    ("sse2", 128),
)
# Cores with 512-bit registers that compute 512 bits once a cycle: in two halves, or in their only
# wide unit.
ONE_WIDE_UNIT = frozenset({"znver4", "cannonlake", "icelake-client", "tigerlake", "rocketlake"})
DEFAULT_CACHES = (32 << 10, 1 << 20, 16 << 20)


@dataclass(frozen=True)
class Processor:
    """A CPU.

    Attributes:
        triple: LLVM's name of the platform, ``x86_64-unknown-linux-gnu``.
        cpu: LLVM's name of the processor, ``znver4``; ``""`` for the platform's baseline.
        features: LLVM's feature string, ``+avx2,+fma,...``.
        vector_bits: width of a vector register to use.
        registers: number of vector registers.
        fma: whether it has fused multiply-add.
        caches: bytes of L1 data, L2 (of a core) and L3 (shared) cache.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    fma: bool
    caches: tuple[int, int, int]

    @property
    def is_x86(self) -> bool:
        """Whether it is a 64-bit x86."""
        return self.triple.startswith(("x86_64", "amd64"))

    @property
    def flags(self) -> frozenset[str]:
        """LLVM's names of the features it has, as far as its name and `features` tell."""
        return flags_of(self.cpu, self.features)

    @property
    def converts_f16(self) -> bool:
        """Whether instructions turn f16 into f32 and back."""
        return not self.is_x86 or "f16c" in self.flags

    @property
    def machine(self) -> Machine:
        """What schedules look at in it."""
        narrow = self.vector_bits == 512 and self.cpu in ONE_WIDE_UNIT
        # a product by itself is in a register until it is added, as the next one is by then
        registers = self.registers - (0 if self.fma else 2)
        width, each_cycle = self.vector_bits // 8, 1 if narrow else 2
        return Machine(
            width,
            registers,
            self.caches,
            each_cycle,
            self.fma,
            quads=dots.has("u8_i8", self),
            bfloat=dots.has("bf16", self),
        )

    def describe(self) -> str:
        kib = "/".join(str(c >> 10) for c in self.caches)
        cpu = self.cpu or "generic"
        return f"{cpu} ({self.triple}), {self.vector_bits}-bit vectors, caches {kib} KiB"


def named(
    triple: str, cpu: str = "", features: str = "", vector_bits: int | None = None
) -> Processor:
    """A machine that is not this one: `cpu` and `features` in LLVM's spelling."""
    flags = flags_of(cpu, features)
    arm = triple.startswith(("aarch64", "arm64"))
    wide = vector_bits or next((w for name, w in FEATURE_WIDTHS if name in flags), 128)
    return Processor(
        triple,
        cpu,
        features,
        wide,
        32 if arm or wide == 512 else 16,
        arm or "fma" in flags,
        DEFAULT_CACHES,
    )


ARCHITECTURES = ("x86_64", "amd64", "aarch64", "arm64")
PROBE = """
import sys
import llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
triple, cpu, features = sys.argv[1:]
machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
machine.emit_object(llvm.parse_assembly("define void @f() { ret void }"))
"""


@functools.cache
def verify(target: Processor) -> None:
    """Raise where code cannot be generated for `target`.

    Raises:
        NotImplementedError: its architecture is none of those that are supported.
        ValueError: LLVM does not know its triple, processor or a feature.
    """
    if target.triple.split("-")[0] not in ARCHITECTURES:
        raise NotImplementedError(
            f"target {target.triple!r}: code is generated for 64-bit x86 and ARM only, "
            f"whose triples begin with {', '.join(ARCHITECTURES)}"
        )
    # LLVM ends the process on some names it does not know and takes others for a baseline: ask in
    # another one
    asked = subprocess.run(
        [sys.executable, "-c", PROBE, target.triple, target.cpu, target.features],
        capture_output=True,
        text=True,
    )
    complaints = [line for line in asked.stderr.splitlines() if "is not a recognized" in line]
    if asked.returncode or complaints:
        why = (complaints or asked.stderr.strip().splitlines() or ["LLVM gave up"])[
            0 if complaints else -1
        ]
        raise ValueError(
            f"target {target.triple!r}, processor {target.cpu!r}, features {target.features!r}: "
            f"{why}; write them as LLVM does, such as 'x86-64-v3', 'znver4' or "
            "'neoverse-n1'"
        )


@functools.cache
def host() -> Processor:
    """What code for this process is compiled for: this machine, or the processor that
    GRAPHTORCH_TARGET_CPU names.

    Raises: ValueError: this machine cannot run that one's code, or LLVM does not know it.
    """
    asked = os.environ.get(VARIABLE, "").strip()
    return posing(asked) if asked else machine()


@functools.cache
def machine() -> Processor:
    """This machine, all that it has."""
    told = _told()
    flags = dict(told["flags"])
    text = ",".join(("+" if on else "-") + name for name, on in sorted(flags.items()))
    return dataclasses.replace(
        named(told["triple"], told["cpu"], _list("+", {n for n, on in flags.items() if on})),
        features=text,
        caches=_cache_sizes(),
    )


def posing(asked: str) -> Processor:
    """This machine as another one: `asked` is LLVM's name of a processor, or ``native``, followed
    by features to add and to leave out, as in ``x86-64-v3,-fma``.

    What this machine lacks is never used, also where nothing is known of the processor's features.

    Raises: ValueError: this machine cannot run its code, or LLVM does not know it.
    """
    real = machine()
    cpu, *listed = (part.strip() for part in asked.split(","))
    features = ",".join(listed)
    if cpu in ("native", real.cpu):
        cpu, features = real.cpu, ",".join((real.features, *listed))
    found = named(real.triple, cpu, features)
    if features or cpu not in LEVEL_OF:
        try:
            verify(found)
        except ValueError as error:
            raise ValueError(f"{VARIABLE}={asked}: {error}") from None
    lacking = found.flags - real.flags
    if lacking:
        raise ValueError(
            f"{VARIABLE}={asked}: this machine ({real.cpu or 'generic'}) cannot run such code, it "
            f"lacks {', '.join(sorted(lacking))}"
        )
    listed = features.split(",")
    without = [f for f in real.features.split(",") if f.startswith("-") and f not in listed]
    text = ",".join(filter(None, (features, *without)))
    return dataclasses.replace(found, features=text, caches=real.caches)


def _list(sign: str, features: set[str]) -> str:
    return ",".join(sign + f for f in sorted(features))


def _told() -> dict[str, Any]:
    """What LLVM says of this machine; from the cache where the same processor was asked about
    before, since loading LLVM takes a while."""
    about = _about()
    name = cache.key("processor", about)
    found = cache.load(name) if about else None
    if found is not None:
        return found[0]
    llvm = importlib.import_module("llvmlite.binding")
    told = {
        "triple": llvm.get_process_triple(),
        "cpu": llvm.get_host_cpu_name(),
        "flags": list(llvm.get_host_cpu_features().items()),
    }
    if about:
        cache.store(name, told, b"")
    return told


def _about() -> str:
    """What the system says of the first processor, without what changes from moment to moment."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return ""
    changing = (
        "cpu MHz",
        "bogomips",
        "BogoMIPS",
        "microcode",
        "processor",
        "apicid",
        "initial apicid",
    )
    lines = [line for line in first.splitlines() if line.split("\t")[0].strip() not in changing]
    return "\n".join([platform.machine(), *lines])


def _cache_sizes() -> tuple[int, int, int]:
    sizes = list(DEFAULT_CACHES)
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (folder / f).read_text().strip() for f in ("level", "type", "size")
            )
            if kind != "Instruction" and size.endswith("K"):
                sizes[int(level) - 1] = int(size[:-1]) << 10
        except (OSError, ValueError, IndexError):
            continue  # a machine that does not say keeps the usual sizes
    return sizes[0], sizes[1], sizes[2]


def available_cpus() -> int:
    """Processors this process may use: its affinity mask and its cgroup's CPU limit, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    limit = _cgroup_limit() if platform.system() == "Linux" else None
    return max(1, count if limit is None else min(count, int(limit + 0.5)))


def _cgroup_limit() -> float | None:
    """CPUs granted by cgroup v2 (cpu.max of every group up the path) or v1; None for no limit."""
    limits: list[float] = []
    for folder in _cgroup_folders():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                limits.append(int(quota) / int(period))
        except (OSError, ValueError):
            continue
    try:
        base = Path("/sys/fs/cgroup/cpu")
        quota_us = int((base / "cpu.cfs_quota_us").read_text())
        if quota_us > 0:
            limits.append(quota_us / int((base / "cpu.cfs_period_us").read_text()))
    except (OSError, ValueError):
        pass
    return min(limits) if limits else None


def _cgroup_folders() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    try:
        line = next(
            x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::")
        )
    except (OSError, StopIteration):
        return [root]
    path = root / line[3:].lstrip("/")
    return [p for p in (path, *path.parents) if p == root or root in p.parents]
