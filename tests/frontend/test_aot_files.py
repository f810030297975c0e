"""Ahead-of-time libraries as files: what they need, in C programs, the loader, errors of
`compile`."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dltensors as dl
import graphtorch as torch
from aot_models import (
    BATCH,
    CC,
    Cnn,
    Mlp,
    assert_close,
    cnn_of,
    image,
    library,
    mlp_of,
    model,
    needs_cc,
    scores,
    words_of,
)
from dltensors import Raw, tensor
from graphtorch import aot, nn
from graphtorch.aot import loader
from graphtorch.backends.llvm import cpuid
from graphtorch.backends.llvm.processor import host, named


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aot")


@pytest.fixture(scope="module")
def mlp(folder):
    return mlp_of(folder)


@pytest.fixture(scope="module")
def cnn(folder):
    return cnn_of(folder)


@pytest.fixture(scope="module")
def words(folder):
    return words_of(folder)


@pytest.fixture(scope="module")
def static_mlp(folder):
    """An archive, for batch 4 alone."""
    return library(folder, "four.a", Mlp, torch.zeros(4, 6))


@pytest.fixture
def raw(cnn):
    made = Raw(cnn[1].path)
    yield made
    made.destroy()


# -------------------------------------------------------------------------------- what a library is


def test_metadata(cnn, words):
    with cnn[1].load() as library:
        about = library.metadata
    assert about["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 1, 8, 8]}]
    assert about["outputs"] == [{"name": "scores", "dtype": "float32", "shape": ["batch", 5]}]
    assert about["sizes"] == {"batch": {"min": 1, "max": 64}} and about["abi_version"] == 1
    with words[1].load() as library:
        assert [i["name"] for i in library.metadata["inputs"]] == ["words", "keep"]
        assert [o["name"] for o in library.metadata["outputs"]] == ["output_0", "output_1"]
        assert library.metadata["sizes"] == {} and json.dumps(library.metadata)


def test_unbounded_size_in_the_metadata_is_null(folder):
    dynamic = {0: {0: torch.Dim("n")}}
    compiled = aot.compile(lambda x: x + 1, torch.ones(2), folder / "free.so", dynamic=dynamic)
    with compiled.load() as library:
        assert library.metadata["sizes"] == {"n": {"min": 0, "max": None}}


LIBRARIES = re.compile(r"^\s*(linux-vdso|libc|libm|/lib\S*/ld-|ld-)")


def output_of(*command: Any) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undefined(path: Path, *options: str) -> set[str]:
    lines = output_of("nm", *options, "-u", path).splitlines()
    return {line.split()[1].split("@")[0] for line in lines if line.strip().startswith("U ")}


@pytest.mark.skipif(not shutil.which("ldd") or not shutil.which("nm"), reason="no ldd and nm here")
def test_a_library_needs_libc_and_libm_alone(mlp, cnn, words, static_mlp):
    known = ctypes.CDLL("libc.so.6"), ctypes.CDLL("libm.so.6")
    for compiled in (mlp[1], cnn[1], words[1]):
        text = output_of("ldd", compiled.path)
        assert all(LIBRARIES.match(line) for line in text.splitlines()), text
        assert [
            s for s in undefined(compiled.path, "-D") if not any(hasattr(lib, s) for lib in known)
        ] == []
    found = undefined(static_mlp[1].path) - {"_GLOBAL_OFFSET_TABLE_"}
    assert (
        "calloc" in found and [s for s in found if not any(hasattr(lib, s) for lib in known)] == []
    )


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_a_library_exports_its_own_functions_alone(cnn):
    lines = output_of("nm", "-D", "--defined-only", cnn[1].path).splitlines()
    names = {line.split()[-1].split("@")[0] for line in lines}
    assert names == {
        "gt_abi_version",
        *(
            f"cnn_{f}"
            for f in (
                "create",
                "run",
                "workspace_size",
                "last_error",
                "metadata",
                "set_num_threads",
                "destroy",
            )
        ),
    }


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_thousand_contexts_leave_no_memory(mlp, cnn):
    def cycles(count):
        for compiled, x, y in (
            (mlp[1], np.ones((7, 6), np.float32), np.empty((7, 3), np.float32)),
            (cnn[1], image(7), scores(7)),
        ):
            weights = str(compiled.weights) if compiled.weights else None
            for _ in range(count):
                raw = Raw(compiled.path, weights=weights)
                assert raw.run([tensor(x)], [tensor(y)]) == dl.OK
                raw.destroy()
        gc.collect()  # what ctypes left in cycles is not of the contexts

    cycles(100)
    before = resident()
    cycles(1000)
    assert resident() - before < 2 << 20


def test_two_libraries_and_several_threads(mlp, cnn):
    jobs = []
    for made, compiled, shape in ((*mlp, (7, 6)), (*cnn, (7, 1, 8, 8))):
        for _ in range(3):
            x = torch.randn(*shape)
            jobs.append((compiled, x.numpy(), made(x).detach().numpy()))
    errors: list[BaseException] = []

    def work(compiled, x, want):
        try:
            with compiled.load() as library:
                for _ in range(50):
                    np.testing.assert_allclose(library(x)[0], want, rtol=1e-5, atol=1e-6)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors


def test_set_num_threads(cnn):
    x = image(64)
    with cnn[1].load() as library:
        (want,) = library(x)
        setter = library._function("cnn_set_num_threads", None, ctypes.c_int32)
        for count in (1, 2, 3, 0, -5, 100000, 2):
            setter(count)
            np.testing.assert_allclose(library(x)[0], want, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------ from C

TWO = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "four.h"
#include "second.h"

static float in[4 * 6], out[4 * 3], image[1 * 8 * 8], scores[5];

static DLTensor make(float *data, int32_t rank, int64_t *shape) {
    DLTensor t = {.data = data, .device = {kDLCPU, 0}, .ndim = rank, .shape = shape};
    t.dtype = (DLDataType){kDLFloat, 32, 1};
    return t;
}

int main(void) {
    int64_t in_shape[] = {4, 6}, out_shape[] = {4, 3};
    int64_t image_shape[] = {1, 1, 8, 8}, scores_shape[] = {1, 5};
    for (int i = 0; i < 24; i++) in[i] = (float)i / 24;
    for (int i = 0; i < 64; i++) image[i] = (float)i / 64;
    four_context *a = four_create(NULL);
    second_context *b = second_create(NULL);
    if (!a || !b) return 2;
    DLTensor x = make(in, 2, in_shape), y = make(out, 2, out_shape);
    DLTensor p = make(image, 4, image_shape), q = make(scores, 2, scores_shape);
    if (four_run(a, &x, 1, &y, 1) || second_run(b, &p, 1, &q, 1)) return 3;
    x.ndim = 1;
    if (four_run(a, &x, 1, &y, 1) != GT_RANK || four_run(NULL, &x, 1, &y, 1) != GT_NULL) return 4;
    if (four_run(a, NULL, 1, &y, 1) != GT_NULL || four_run(a, &x, 2, &y, 1) != GT_COUNT) return 5;
    if (!strstr(second_metadata(), "batch") || gt_abi_version() != GRAPHTORCH_ABI_VERSION) return 6;
    for (int i = 0; i < 12; i++) printf("%.9g\\n", out[i]);
    for (int i = 0; i < 5; i++) printf("%.9g\\n", scores[i]);
    four_destroy(a);
    second_destroy(b);
    return getenv("PATH") ? 7 : 0;
}
"""


@pytest.fixture(scope="module")
def second(folder):
    return library(folder, "second.a", Cnn, torch.zeros(2, 1, 8, 8), dynamic={0: {0: BATCH}})


def build(folder: Path, source: str, *arguments: Any) -> Path:
    (folder / "main.c").write_text(source)
    program = folder / f"main{len(list(folder.glob('main*')))}"
    done = subprocess.run(
        [
            CC,
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I",
            folder,
            folder / "main.c",
            *arguments,
            "-lm",
            "-o",
            program,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return program


@needs_cc
def test_two_archives_in_one_c_program(folder, static_mlp, second):
    program = build(folder, TWO, static_mlp[1].path, second[1].path)
    done = subprocess.run([program], env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = np.array([float(v) for v in done.stdout.split()], np.float32)
    assert_close(found[:12].reshape(4, 3), static_mlp[0](torch.arange(24.0).reshape(4, 6) / 24))
    assert_close(found[12:].reshape(1, 5), second[0](torch.arange(64.0).reshape(1, 1, 8, 8) / 64))


@needs_cc
def test_object_and_shared_library_in_one_c_program(folder, second):
    four = library(folder, "four.o", Mlp, torch.zeros(4, 6))[1]
    shared = library(folder, "second.so", Cnn, torch.zeros(2, 1, 8, 8), dynamic={0: {0: BATCH}})[1]
    program = build(folder, TWO, four.path, shared.path)
    done = subprocess.run([program], env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert len(done.stdout.split()) == 17


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler here")
def test_header_is_cplusplus(folder, cnn):
    output_of(
        "c++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
        "-x",
        "c++",
        cnn[1].header,
    )


# --------------------------------------------------------------------------------------- the loader

ALONE = """
import importlib.util, sys
assert importlib.util.find_spec("graphtorch") is None
sys.path.insert(0, sys.argv[1])
import numpy as np
import loader
model = loader.load(sys.argv[2])
y, = model(np.ones((3, 1, 8, 8), np.float32))
print(y.shape, round(float(y.sum()), 4))
assert not [m for m in sys.modules if m.startswith(("graphtorch", "llvmlite"))]
"""


def test_loader_runs_as_one_copied_file(cnn, tmp_path):
    shutil.copy(loader.__file__, tmp_path / "loader.py")
    shutil.copy(cnn[1].path, tmp_path / "cnn.so")
    numpy = tmp_path / "site"  # NumPy and nothing else of this environment
    numpy.mkdir()
    source = Path(np.__file__).parent
    for folder in source.parent.glob("numpy*"):
        (numpy / folder.name).symlink_to(folder)
    code = f"import sys; sys.path.insert(0, {str(numpy)!r})\n" + ALONE
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, tmp_path, tmp_path / "cnn.so"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(3, 5) 3.0"


def test_loader_errors(cnn, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        loader.load(tmp_path / "nowhere.so")
    with pytest.raises(OSError, match="pass name="):
        loader.load(cnn[1].path, name="other")
    with cnn[1].load() as library:
        with pytest.raises(ValueError, match="takes 1 inputs, got 0"):
            library()
        with pytest.raises(ValueError, match="0 dimensions, expected 4"):
            library(np.float32(3))
        with pytest.raises(ValueError, match="expected float32"):
            library(image().astype(np.float64))
    library.close()
    with pytest.raises(ValueError, match="closed"):
        library(image())


# -------------------------------------------------------------------------------------- aot.compile


def test_object_for_another_machine(tmp_path):
    arm = named("aarch64-unknown-linux-gnu", "cortex-a72")
    for weights in ("embedded", "external"):
        compiled = aot.compile(
            model(Cnn),
            torch.zeros(2, 1, 8, 8),
            tmp_path / "cnn.o",
            target=arm,
            weights=weights,
            dynamic={0: {0: BATCH}},
        )
        code = compiled.path.read_bytes()
        assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs SSE2 code")
def test_baseline_code_gives_the_same_numbers(folder):
    old = named("x86_64-unknown-linux-gnu")
    made, compiled = library(folder, "old.so", Cnn, torch.zeros(2, 1, 8, 8), target=old)
    x = torch.randn(2, 1, 8, 8)
    with compiled.load() as loaded:
        assert_close(loaded(x.numpy())[0], made(x))


# ---------------------------------------------------------------------------- levels of processors

X86 = "x86_64-unknown-linux-gnu"
# beyond x86-64-v2: VEX and EVEX codes, whose names begin with v, and the new integer instructions;
# tzcnt is bsf where it is not known, and gives the same unless its operand is 0
BEYOND_V2 = re.compile(
    r"^(?!verr|verw)v|^(andn|bextr|bls\w+|bzhi|pdep|pext|mulx|rorx|sarx|shlx|shrx|lzcnt|movbe)[lq]?\s"
)
# beyond x86-64-v3: masks, wide and additional registers, and what has a feature of its own
BEYOND_V3 = re.compile(
    r"%(zmm|k[0-7]|[xy]mm(1[6-9]|2\d|3[01]))|^v?(aes|sha\d|pclmul|gf2p8|pdp)|^ad[co]x|^tdp"
)


def instructions(path: Path) -> list[str]:
    """Disassembled, without addresses and codes."""
    text = output_of("objdump", "-d", "--no-show-raw-insn", path)
    return [line.split("\t", 1)[1].strip() for line in text.splitlines() if ":\t" in line]


def beyond(pattern: re.Pattern[str], path: Path) -> set[str]:
    return {line for line in instructions(path) if pattern.search(line)}


needs_objdump = pytest.mark.skipif(
    not shutil.which("objdump") or platform.machine() != "x86_64",
    reason="no objdump for x86 here",
)


class Everything(nn.Module):
    """Kernels of all kinds, and weights that are folded, transformed and packed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.mixed = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.recurrent = nn.LSTM(16, 8, batch_first=True)

    def forward(self, x: Any, n: Any) -> Any:
        x = self.depthwise(self.norm(self.conv(x))).flatten(2).mT
        x, _ = self.recurrent(self.mixed(x.half().float()))
        x = x.sin().exp() + x.double().erf().float() + x.bfloat16().float().cumsum(1)
        low, order = x.sort(1)
        return low.gather(1, order.sort(1)[1]), n // 7 % 5 + (n << 2), x.half()


LEVELS = pytest.mark.parametrize(
    ("cpu", "pattern"), [("x86-64-v2", BEYOND_V2), ("x86-64-v3", BEYOND_V3)]
)


@needs_objdump
@LEVELS
def test_no_instruction_of_any_kernel_or_of_preparing_weights_is_beyond_the_level(
    tmp_path, cpu, pattern
):
    """With weights in a file `create` has what prepares other ones."""
    target, x = named(X86, cpu), (torch.randn(1, 16, 12, 12), torch.randint(-99, 99, (50,)))
    made, compiled = library(tmp_path, "all.so", Everything, x, target=target, weights="external")
    assert len(instructions(compiled.path)) > 5000 and beyond(pattern, compiled.path) == set()
    if not target.flags <= host().flags:
        return
    given, want = [v.numpy() for v in x], made(*x)
    other = tmp_path / "other.safetensors"
    with compiled.load() as loaded:
        found = loaded(*given)
        state = made.state_dict()
        torch.save_safetensors({n: state[n] for n in loaded.metadata["weights"]}, other)
    for a, b, tolerance in zip(found, want, (1e-4, 0, 2e-3), strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance)
    with aot.load(compiled.path, weights=other) as loaded:
        for a, b in zip(loaded(*given), found, strict=True):
            np.testing.assert_array_equal(a, b)


@needs_objdump
@LEVELS
def test_no_instruction_is_beyond_the_level(tmp_path, cpu, pattern):
    target = named(X86, cpu)
    made, compiled = library(tmp_path, "level.so", Cnn, torch.zeros(2, 1, 8, 8), target=target)
    assert beyond(pattern, compiled.path) == set()
    if target.flags <= host().flags:
        with compiled.load() as loaded:
            assert_close(loaded(image())[0], made(torch.from_numpy(image())))


@needs_objdump
def test_the_next_level_is_seen(tmp_path):
    for cpu, pattern in (("x86-64-v3", BEYOND_V2), ("x86-64-v4", BEYOND_V3)):
        _, compiled = library(
            tmp_path, "level.so", Cnn, torch.zeros(2, 1, 8, 8), target=named(X86, cpu)
        )
        assert len(beyond(pattern, compiled.path)) > 20


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks an x86")
def test_a_processor_without_the_features_is_refused(tmp_path):
    lacking = next((f for f in cpuid.BITS if f not in host().flags), None)
    if lacking is None:
        pytest.skip("this processor has everything")
    target = named(X86, "x86-64", f"+{lacking}")
    _, compiled = library(tmp_path, "newer.so", Mlp, torch.zeros(2, 6), target=target)
    with pytest.raises(OSError, match=f"processors with {lacking}, which this one lacks"):
        compiled.load()


@pytest.mark.parametrize(
    "name, options, error, message",
    [
        ("m.dll", {}, ValueError, r"'m.dll' must end in one of .so, .o, .a"),
        ("m", {}, ValueError, "must end in"),
        ("nowhere/m.so", {}, FileNotFoundError, "does not exist"),
        ("my-model.so", {}, ValueError, r"'my-model' cannot begin C function names: pass name="),
        ("m.so", {"name": "3d"}, ValueError, "cannot begin C function names"),
        ("m.so", {"name": "é"}, ValueError, "cannot begin C function names"),
        ("m.so", {"weights": "inside"}, ValueError, "expected 'embedded' or 'external'"),
        (
            "m.so",
            {"input_names": ["a", "b"]},
            ValueError,
            "input_names has 2 names, the model has 1",
        ),
        ("m.so", {"dynamic": {"y": {0: BATCH}}}, ValueError, "there is no argument 'y'"),
        ("m.so", {"dynamic": {0: {0: torch.Dim("n", max=1)}}}, RuntimeError, "outside"),
    ],
)
def test_bad_arguments(tmp_path, name, options, error, message):
    with pytest.raises(error, match=message):
        aot.compile(model(Mlp), torch.zeros(2, 6), tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_no_linker(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"no cc, gcc or clang on PATH.*ziglang.*\.o or \.a"):
        aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.so")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "target, error, message",
    [
        (
            ("x86_64-unknown-linux-gnu", "pentium-9000"),
            ValueError,
            "pentium-9000.*not a recognized processor",
        ),
        (("aarch64-unknown-linux-gnu", "cortex-a7200"), ValueError, "not a recognized processor"),
        (
            ("x86_64-unknown-linux-gnu", "x86-64-v3", "+avx2000"),
            ValueError,
            "not a recognized feature",
        ),
        (("riscv64-unknown-linux-gnu", "generic"), NotImplementedError, "64-bit x86 and ARM only"),
        (("i386-unknown-linux-gnu", "i386"), NotImplementedError, "64-bit x86 and ARM only"),
    ],
)
def test_a_machine_that_there_is_no_code_for(tmp_path, target, error, message):
    with pytest.raises(error, match=message):
        aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.o", target=named(*target))
    assert not list(tmp_path.iterdir())


def test_a_library_for_another_machine_needs_its_linker(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/cc" if name == "cc" else None)
    other = ("aarch64", "cortex-a72") if platform.machine() == "x86_64" else ("x86_64", "x86-64-v2")
    target = named(f"{other[0]}-unknown-linux-gnu", other[1])
    with pytest.raises(
        RuntimeError, match=rf"no {other[0]}-linux-gnu-gcc on PATH: install one.*ziglang"
    ):
        aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.so", target=target)


@needs_cc
def test_a_path_that_is_written_anew_is_loaded_anew(tmp_path):
    x, held = np.arange(3, dtype=np.float32), []
    for factor in (2.0, 3.0, 4.0):
        compiled = aot.compile(lambda v, f=factor: v * f, torch.ones(3), tmp_path / "m.so")
        held.append(aot.load(compiled.path))
        assert [library(x)[0][1] for library in held] == [2.0, 3.0, 4.0][: len(held)]
        assert aot.load(compiled.path)(x)[0][2] == 2 * factor


@needs_cc
def test_files_have_the_mode_that_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        made = aot.compile(model(Mlp), torch.zeros(2, 6), tmp_path / "m.so", weights="external")
        plain = aot.compile(model(Mlp), torch.zeros(2, 6), tmp_path / "n.o")
    finally:
        os.umask(before)
    assert all(p.stat().st_mode & 0o777 == 0o640 for p in (made.header, made.weights, plain.path))
    assert made.path.stat().st_mode & 0o777 in (0o640, 0o750)


@needs_cc
def test_values_that_an_operation_refuses(tmp_path):
    divided = aot.compile(
        lambda x, y: x // y, (torch.tensor([6]), torch.tensor([3])), tmp_path / "m.so"
    )
    with divided.load() as library:
        assert library(np.array([6]), np.array([4]))[0].tolist() == [1]
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            library(np.array([6]), np.array([0]))
        assert library(np.array([6]), np.array([2]))[0].tolist() == [3]


def test_values_in_python_and_kinds_of_results(tmp_path):
    with pytest.raises(RuntimeError, match=r"test_aot_files.py:\d+"):
        aot.compile(lambda x: x * x.sum().item(), torch.ones(2), tmp_path / "m.o")
    with pytest.raises(TypeError, match="returns no tensor"):
        aot.compile(lambda x: None, torch.ones(2), tmp_path / "m.o")
    with pytest.raises(
        TypeError, match=r"argument 0 of example is a NumPy array.*torch.from_numpy"
    ):
        aot.compile(lambda x: x, np.ones(2), tmp_path / "m.o")
