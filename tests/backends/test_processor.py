"""GRAPHTORCH_TARGET_CPU, and code for processors without fused multiply-adds and f16."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.backends.kernels.builder import Builder
from graphtorch.backends.kernels.ir import Buffer, Expr, Kernel, cast, fma, load
from graphtorch.backends.llvm.cpuid import BITS, LEVEL_OF
from graphtorch.backends.llvm.jit import kernel_text, run_kernel
from graphtorch.backends.llvm.native import compile_assembly
from graphtorch.backends.llvm.processor import host, machine, named, posing, verify
from graphtorch.ir.dtype import DType, f16, f32, f64

X86 = "x86_64-unknown-linux-gnu"
V2 = named(X86, "x86-64-v2")
MISSING = [f for f in BITS if f not in machine().flags]
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 processors")
needs_v2 = pytest.mark.skipif(not machine().flags >= V2.flags, reason="cannot run x86-64-v2")
needs_v3 = pytest.mark.skipif(
    not machine().flags >= named(X86, "x86-64-v3").flags, reason="cannot run x86-64-v3"
)

PROGRAM = """
import json, sys
import numpy as np
import graphtorch as torch
torch.manual_seed(0)
run = torch.compile(lambda x, y: (x @ y).exp().half().float() + 1)
x = torch.linspace(-1, 1, 35 * 24).reshape(35, 24)
y = run(x, x.reshape(24, 35)).numpy()
made = "graphtorch.backends.llvm.build" in sys.modules
capability = torch.backends.cpu.get_cpu_capability()
print(json.dumps([y.astype(float).tolist(), run.explain(), capability, made]))
"""


def with_target(cpu: str, cache: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GRAPHTORCH_TARGET_CPU": cpu, "GRAPHTORCH_CACHE": cache}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )


# ------------------------------------------------------------------------------------ the variable


@needs_v3
def test_programs_are_compiled_for_the_named_processor(tmp_path) -> None:
    found = {}
    for cpu in ("x86-64-v2", "x86-64-v3", "x86-64-v2"):
        done = with_target(cpu, str(tmp_path))
        assert not done.returncode, done.stderr
        y, report, capability, made = json.loads(done.stdout)
        assert cpu in report and capability == {"2": "DEFAULT", "3": "AVX2"}[cpu[-1]]
        assert made is (cpu not in found)  # the cache has an entry for each
        found[cpu] = y
    assert np.allclose(found["x86-64-v2"], found["x86-64-v3"], rtol=1e-3, atol=0)
    x = np.linspace(-1, 1, 35 * 24, dtype=np.float32).astype(float).reshape(35, 24)
    assert np.allclose(found["x86-64-v2"], np.exp(x @ x.reshape(24, 35)) + 1, rtol=1e-3, atol=0)


@needs_x86
@pytest.mark.skipif(not MISSING, reason="this processor has everything")
def test_a_processor_that_cannot_run_here_is_refused(tmp_path) -> None:
    done = with_target(f"x86-64,+{MISSING[0]}", str(tmp_path))
    assert done.returncode == 1  # an exception, no signal
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(
        rf"ValueError: GRAPHTORCH_TARGET_CPU=x86-64,\+{re.escape(MISSING[0])}: this machine \(.*\) "
        rf"cannot run such code, it lacks .*{re.escape(MISSING[0])}",
        last,
    )


@needs_x86
@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("pentium-9", "'pentium-9' is not a recognized processor"),
        ("x86-64-v2,+avx2000", r"'\+avx2000' is not a recognized feature"),
    ],
)
def test_what_llvm_does_not_know_is_refused(asked: str, complaint: str) -> None:
    with pytest.raises(
        ValueError, match=rf"GRAPHTORCH_TARGET_CPU={re.escape(asked)}: .*{complaint}"
    ):
        posing(asked)


@needs_x86
def test_levels_that_are_not_asked_about_are_known_to_llvm() -> None:
    for name in LEVEL_OF:
        verify(named(X86, name))


@needs_v3
@pytest.mark.parametrize(
    ("asked", "bits", "fuses", "converts"),
    [
        ("x86-64", 128, False, False),
        ("x86-64-v2", 128, False, False),
        ("x86-64-v2,+avx", 256, False, False),
        ("x86-64-v3", 256, True, True),
        ("x86-64-v3,-fma", 256, False, True),
        ("x86-64-v3, -avx", 128, False, False),  # what needs avx goes with it
        ("native,-avx", 128, False, False),
    ],
)
def test_features_are_added_and_left_out(
    asked: str, bits: int, fuses: bool, converts: bool
) -> None:
    found = posing(asked)
    assert (found.vector_bits, found.fma, found.converts_f16) == (bits, fuses, converts)
    assert found.flags <= machine().flags and found.caches == machine().caches


@needs_x86
def test_nothing_that_this_machine_lacks_is_used() -> None:
    """Also where a processor's features are not known here."""
    lacking = {f for f in machine().features.split(",") if f.startswith("-")}
    assert lacking <= set(posing("btver1").features.split(","))


def test_this_machine_is_the_default() -> None:
    if "GRAPHTORCH_TARGET_CPU" not in os.environ:
        assert host() == machine()
    assert posing("native") == machine()
    assert posing(machine().cpu) == machine()


# ------------------------------------------------------------------------- without multiply-adds


def elementwise(f: Callable[..., Expr], out: DType, *arrays: np.ndarray, lanes: int) -> Kernel:
    n = len(arrays[0])
    ins = [Buffer(f"x{i}", DType.of(a.dtype)) for i, a in enumerate(arrays)]
    y, b = Buffer("y", out, "write"), Builder()
    with b.loop(n // lanes) as i:
        b.store(y, i * lanes, f(*(load(x, i * lanes, lanes) for x in ins)))
    return Kernel("k", (*ins, y), (), b.body)


def computed(kernel: Kernel, *arrays: np.ndarray) -> np.ndarray:
    out = np.zeros(len(arrays[0]), kernel.buffers[-1].dtype.numpy)
    run_kernel(kernel, [*arrays, out], target=V2)
    return out


@needs_v2
@pytest.mark.parametrize("dtype", [f32, f64])
def test_a_multiply_add_is_two_instructions(dtype: DType) -> None:
    rng = np.random.default_rng(0)
    x, y, z = (rng.standard_normal(64).astype(dtype.numpy) for _ in range(3))
    kernel = elementwise(fma, dtype, x, y, z, lanes=4)
    found = compile_assembly(kernel_text(kernel, V2), V2)
    assert re.search(r"\bmulp[sd]\b", found) and not re.search(r"\bfmaf?\b", found)
    np.testing.assert_array_equal(computed(kernel, x, y, z), x * y + z)


@needs_v2
@pytest.mark.parametrize("dtype", [f32, f64])
def test_an_exact_one_is_rounded_once(dtype: DType) -> None:
    """x * x - x^2, the square being rounded: what rounding took."""
    x = 1 + np.random.default_rng(0).random(64).astype(dtype.numpy)
    kernel = elementwise(lambda a, c: fma(a, a, c, exact=True), dtype, x, x, lanes=4)
    found = computed(kernel, x, -(x * x))
    if dtype is f32:
        np.testing.assert_array_equal(found, x.astype(float) ** 2 - x * x)
    assert np.count_nonzero(found) > 32 and np.abs(found).max() <= np.finfo(dtype.numpy).eps * 2


# ---------------------------------------------------------------------------------- without F16C


def converted(x: np.ndarray, to: DType, lanes: int) -> np.ndarray:
    kernel = elementwise(lambda v: cast(v, to), to, x, lanes=lanes)
    assert "__" not in compile_assembly(kernel_text(kernel, V2), V2)  # no library's functions
    return computed(kernel, x)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Bit by bit; NaNs are NaNs."""
    nan = np.isnan(expected)
    assert np.isnan(found[nan]).all()
    word = f"u{expected.itemsize}"
    np.testing.assert_array_equal(found.view(word)[~nan], expected.view(word)[~nan])


ALL_HALVES = np.arange(1 << 16).astype(np.uint16).view(np.float16)


@needs_v2
@pytest.mark.parametrize("lanes", [1, 4])
def test_every_f16_is_widened(lanes: int) -> None:
    same(converted(ALL_HALVES, f32, lanes), ALL_HALVES.astype(np.float32))


@needs_v2
@pytest.mark.parametrize("lanes", [1, 4])
def test_f32_is_rounded_to_the_nearest_f16(lanes: int) -> None:
    """Beside every f16 and halfway between them; and any bits."""
    near = np.array([0, 1, -1, 0xFFF, 0x1000, 0x1001, -0x1000, -0x1001], np.int32)
    bits = ALL_HALVES.astype(np.float32).view(np.int32)[:, None] + near
    anything = np.random.default_rng(0).integers(0, 1 << 32, 1 << 18).astype(np.uint32)
    x = np.concatenate([bits.ravel().view(np.float32), anything.view(np.float32)])
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        same(converted(x, f16, lanes), x.astype(np.float16))


@needs_v2
def test_f64_is_rounded_to_f16_once() -> None:
    x = 1 + 2.0**-11 + np.array([0, 2.0**-40, -(2.0**-40), 1.0]).repeat(4)
    same(converted(x, f16, 4), x.astype(np.float16))
