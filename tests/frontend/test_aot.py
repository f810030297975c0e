"""Ahead-of-time libraries: the C ABI as C sees it, the loader, what a library needs, errors of `compile`."""

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
from safetensors.numpy import load_file

import dltensors as dl
import graphtorch as torch
from dltensors import Raw, tensor
from graphtorch import aot, nn
from graphtorch.aot import loader
from graphtorch.backends.llvm.processor import named

BATCH = torch.Dim("batch", min=1, max=64)
CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler here")


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.second(nn.functional.gelu(self.first(x)))


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(64, 5)

    def forward(self, x: Any) -> Any:
        x = nn.functional.max_pool2d(nn.functional.relu(self.norm(self.conv(x))), 2)
        return nn.functional.softmax(self.head(torch.flatten(x, 1)), -1)


class Words(nn.Module):
    """Data-dependent indices, two inputs of which one is a mask, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, words: Any, keep: Any) -> Any:
        found = self.table(words) * keep.unsqueeze(-1)
        return found.sum(1), words + 1


def model(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().eval()


def library(folder: Path, name: str, kind: type[nn.Module], example: Any,
            **options: Any) -> tuple[Any, aot.Compiled]:
    made = model(kind)
    return made, aot.compile(made, example, folder / name, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aot")


@pytest.fixture(scope="module")
def mlp(folder):
    return library(folder, "mlp.so", Mlp, torch.zeros(2, 6), dynamic={"x": {0: BATCH}}, weights="external")


@pytest.fixture(scope="module")
def cnn(folder):
    return library(folder, "cnn.so", Cnn, torch.zeros(2, 1, 8, 8), dynamic={0: {0: BATCH}},
                   output_names=["scores"])


@pytest.fixture(scope="module")
def words(folder):
    return library(folder, "words.so", Words, (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)))


@pytest.fixture(scope="module")
def static_mlp(folder):
    """An archive, for batch 4 alone."""
    return library(folder, "four.a", Mlp, torch.zeros(4, 6))


@pytest.fixture
def raw(cnn):
    made = Raw(cnn[1].path)
    yield made
    made.destroy()


def assert_close(found: np.ndarray, want: Any) -> None:
    np.testing.assert_allclose(found, want.detach().numpy(), rtol=1e-5, atol=1e-6)


def image(n: int = 2) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 1, 8, 8)).astype(np.float32)


def scores(n: int = 2) -> np.ndarray:
    return np.empty((n, 5), np.float32)


# ------------------------------------------------------------------------------------------ results


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_one_library_serves_every_batch(mlp, cnn, n):
    for (made, compiled), shape in ((mlp, (n, 6)), (cnn, (n, 1, 8, 8))):
        x = torch.randn(*shape)
        with compiled.load() as library:
            found, = library(x.numpy())
        assert_close(found, made(x))


def test_results_are_the_same_at_every_call(raw):
    x, first, again = image(7), scores(7), scores(7)
    for y in (first, again):
        assert raw.run([tensor(x)], [tensor(y)]) == dl.OK, raw.error()
    np.testing.assert_array_equal(first, again)


def test_several_inputs_and_outputs(words):
    made, compiled = words
    given = np.array([[1, 2, 9], [0, 0, 5]]), np.array([[1, 1, 0], [1, 0, 1]], np.float32)
    with compiled.load() as library:
        found = library(*given)
    want = made(*map(torch.tensor, given))
    for a, b in zip(found, want, strict=True):
        assert_close(a, b)


def test_half_and_integer_types(folder):
    def mixed(h, b, flags):
        return h * 2, (b + 1).to(torch.float32), torch.logical_not(flags)
    example = (torch.ones(3, dtype=torch.float16), torch.ones(3, dtype=torch.uint8),
               torch.tensor([True, False, True]))
    compiled = aot.compile(mixed, example, folder / "mixed.so")
    with compiled.load() as library:
        found = library(*[t.numpy() for t in example])
    assert [a.dtype.name for a in found] == ["float16", "float32", "bool"]
    assert [a.tolist() for a in found] == [[2, 2, 2], [2, 2, 2], [False, True, False]]


def test_unsigned_types(folder):
    """Inputs, weights, constants and results; other signedness or width is refused."""
    table = torch.tensor([2**63, 7], dtype=torch.uint64)

    def unsigned(a, b, c):
        return a // 3, torch.maximum(b, b[:1]) >> 1, c + table, (c > table).to(torch.uint16)
    example = [torch.tensor([1, 2 ** (8 * d.itemsize) - 1], dtype=d)
               for d in (torch.uint16, torch.uint32, torch.uint64)]
    compiled = aot.compile(unsigned, tuple(example), folder / "unsigned.so")
    with compiled.load() as library:
        found = library(*[t.numpy() for t in example])
        assert [i["dtype"] for i in library.metadata["inputs"]] == ["uint16", "uint32", "uint64"]
    assert [a.dtype.name for a in found] == ["uint16", "uint32", "uint64", "uint16"]
    assert [a.tolist() for a in found] == [[0, 21845], [0, 2**31 - 1], [2**63 + 1, 6], [0, 1]]
    raw = Raw(folder / "unsigned.so")
    arrays = [t.numpy() for t in example]
    results = [tensor(np.empty(2, a.dtype)) for a in found]
    assert raw.run([*map(tensor, arrays)], results) == dl.OK
    for other in (np.int32, np.uint64):
        wrong = [arrays[0], arrays[1].astype(other), arrays[2]]
        assert raw.run([*map(tensor, wrong)], results) == dl.DTYPE
        assert "uint32" in raw.error()
    raw.destroy()


def test_results_that_are_inputs_views_or_constants(folder):
    def several(x, s):
        y = x + 1
        return x, y, y, x.t(), torch.ones(3), x[0] * s
    compiled = aot.compile(several, (torch.ones(2, 3), torch.tensor(2.0)), folder / "several.so",
                           input_names=["a */ b\n", "50%s"])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with compiled.load() as library:
        found = library(x, np.float32(3))
        with pytest.raises(ValueError, match=r"input 1 \('50%s'\): 1 dimensions"):
            library(x, x[0])
    for a, b in zip(found, (x, x + 1, x + 1, x.T, np.ones(3), x[0] * 3), strict=True):
        np.testing.assert_array_equal(a, b)
    header = compiled.header.read_text()
    assert header.count("/*") == header.count("*/")


def test_unbounded_batch_grows_its_memory(folder):
    made, compiled = library(folder, "grows.so", Mlp, torch.zeros(2, 6), dynamic={0: {0: torch.Dim("n")}})
    raw = Raw(compiled.path)
    sizes = []
    for n in (3, 1000, 0, 20):
        x = torch.randn(n, 6)
        y = np.empty((n, 3), np.float32)
        assert raw.run([tensor(x.numpy())], [tensor(y)]) == dl.OK, raw.error()
        assert_close(y, made(x))
        sizes.append(raw.function("workspace_size", ctypes.c_size_t, ctypes.c_void_p)(raw.context))
    assert sizes == sorted(sizes)
    raw.destroy()


def test_row_major_strides_and_byte_offset_are_taken(cnn, raw):
    x = image()
    whole, room = np.concatenate([[0], x.ravel()]).astype(np.float32), np.zeros(12, np.float32)
    # one element off: aligned as floats need it and no more; the stride of a size of 1 does not count
    given = tensor(whole, ndim=4, shape=[2, 1, 8, 8], strides=[64, 9, 8, 1], byte_offset=4)
    taken = tensor(room, ndim=2, shape=[2, 5], byte_offset=4)
    assert raw.run([given], [taken]) == dl.OK, raw.error()
    assert_close(room[1:11].reshape(2, 5), cnn[0](torch.tensor(x)))
    assert room[0] == room[11] == 0


# ------------------------------------------------------------------------------------------ refusals


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


BAD_TENSORS = {
    "NULL data": ({"data": None}, dl.NULL, "NULL"),
    "NULL shape": ({"shape": None}, dl.NULL, "NULL"),
    "GPU": ({"device_type": 2}, dl.DEVICE, "device type 2"),
    "one dimension less": ({"ndim": 3}, dl.RANK, "3 dimensions, expected 4"),
    "negative rank": ({"ndim": -1}, dl.RANK, "-1 dimensions, expected 4"),
    "double": ({"bits": 64}, dl.DTYPE, "expected float32"),
    "integers": ({"code": 0}, dl.DTYPE, "expected float32"),
    "lanes": ({"lanes": 4}, dl.DTYPE, "4 lanes"),
    "fixed size": ({"shape": [2, 1, 8, 9]}, dl.SHAPE, "dimension 3 is 9, expected 8"),
    "negative size": ({"shape": [2, 1, -8, 8]}, dl.SHAPE, "dimension 2 is -8"),
    "empty batch": ({"shape": [0, 1, 8, 8]}, dl.SHAPE, "dimension 0 is 0, expected a size from 1 to 64"),
    "large batch": ({"shape": [65, 1, 8, 8]}, dl.SHAPE, "dimension 0 is 65, expected a size from 1 to 64"),
    "negative batch": ({"shape": [-1, 1, 8, 8]}, dl.SHAPE, "dimension 0 is -1"),
    "transposed": ({"strides": [64, 64, 1, 8]}, dl.LAYOUT, "row-major"),
    "broadcast": ({"strides": [0, 0, 8, 1]}, dl.LAYOUT, "stride 0 in dimension 0, expected 64"),
    "offset by a byte": ({"byte_offset": 1}, dl.ALIGNMENT, "4 bytes"),
}


@pytest.mark.parametrize("change", list(BAD_TENSORS))
def test_bad_input_is_refused(raw, change):
    changes, code, message = BAD_TENSORS[change]
    assert raw.run([tensor(image(), **changes)], [tensor(scores())]) == code
    assert message in raw.error() and "input 0 ('x')" in raw.error()
    assert raw.run([tensor(image())], [tensor(scores())]) == dl.OK and raw.error() == ""


def test_misaligned_data_is_refused(raw):
    assert raw.run([tensor(misaligned(image()))], [tensor(scores())]) == dl.ALIGNMENT
    assert raw.run([tensor(image())], [tensor(misaligned(scores()))]) == dl.ALIGNMENT
    assert "output 0 ('scores')" in raw.error()


OUTPUTS = {
    "batch": ((3, 5), dl.SHAPE, "dimension 0 is 3, expected 2"),
    "classes": ((2, 6), dl.SHAPE, "dimension 1 is 6, expected 5"),
    "rank": ((10,), dl.RANK, "1 dimensions, expected 2"),
}


@pytest.mark.parametrize("case", list(OUTPUTS))
def test_bad_output_is_refused(raw, case):
    shape, code, message = OUTPUTS[case]
    assert raw.run([tensor(image())], [tensor(np.empty(shape, np.float32))]) == code
    assert message in raw.error() and "output 0 ('scores')" in raw.error()


def test_counts_and_null_arrays(raw):
    x, y = tensor(image()), tensor(scores())
    assert raw.run([x, x], [y]) == dl.COUNT
    assert "2 inputs and 1 outputs given, expected 1 and 1" in raw.error()
    assert raw.run([x], [], (1, 0)) == dl.COUNT
    assert raw.run([x], [y], (-1, 1)) == dl.COUNT
    assert raw.run(None, [y], (1, 1)) == dl.NULL and raw.run([x], None, (1, 1)) == dl.NULL
    assert "NULL" in raw.error()
    assert raw.run([x], [y], context=None) == dl.NULL


def test_null_context_elsewhere(raw):
    assert raw.function("workspace_size", ctypes.c_size_t, ctypes.c_void_p)(None) == 0
    raw.function("destroy", None, ctypes.c_void_p)(None)
    assert raw.error(None) == ""


def test_index_out_of_range(words):
    raw = Raw(words[1].path)
    keep, sums, after = np.ones((2, 3), np.float32), np.empty((2, 4), np.float32), np.empty((2, 3), np.int64)
    for bad in (10, -1, 2**62):
        given = np.array([[1, 2, 3], [4, 5, bad]])
        code = raw.run([tensor(given), tensor(keep)], [tensor(sums), tensor(after)])
        assert code == dl.INDEX and "out of bounds for dimension 0 with size 10" in raw.error()
    given[1, 2] = 9
    assert raw.run([tensor(given), tensor(keep)], [tensor(sums), tensor(after)]) == dl.OK
    raw.destroy()
    with words[1].load() as library, pytest.raises(IndexError, match="out of bounds"):
        library(np.full((2, 3), 10), keep)


@needs_cc
def test_sizes_have_to_compare_as_the_examples_do(tmp_path):
    dims = {0: {1: torch.Dim("t", min=1)}}
    compiled = aot.compile(lambda x: x[:, :3] * 2, torch.ones(2, 5), tmp_path / "m.so", dynamic=dims)
    assert "t-3 >= 0" in compiled.header.read_text()
    with compiled.load() as library:
        assert library.metadata["conditions"] == ["t-3 >= 0"]
        for size in (3, 9):
            assert library(np.ones((2, size), np.float32))[0].tolist() == [[2, 2, 2]] * 2
        with pytest.raises(ValueError, match="sizes do not meet t-3 >= 0"):
            library(np.ones((2, 2), np.float32))


SIZES = {
    "turned": lambda x: torch.roll(x, (1, -1), (0, 1)),
    "every other": lambda x: x[::2, 1::2],
    "rounded up": lambda x: x[: -(-x.shape[0] // 2)],
    "windows": lambda x: x.view(x.shape[0] // 2, 2, x.shape[1] // 2, 2).transpose(1, 2),
    "last": lambda x: x[-1] - x[:, -1:],
}


@needs_cc
@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_may_change(tmp_path, name):
    dims = {0: torch.Dim("h", min=1), 1: torch.Dim("w", min=1)}
    compiled = aot.compile(SIZES[name], torch.ones(4, 6), tmp_path / "m.so", dynamic={0: dims})
    with compiled.load() as library:
        for shape in ((4, 6), (2, 8), (10, 4)):
            x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
            np.testing.assert_array_equal(library(x)[0], SIZES[name](torch.tensor(x)).numpy())


def test_two_inputs_of_one_size(folder):
    x = torch.ones(2, 3)
    compiled = aot.compile(lambda a, b: (a * b).sum(1), (x, x), folder / "pair.so",
                           dynamic={"a": {0: BATCH}, "b": {0: BATCH}})
    with compiled.load() as library:
        assert library(np.ones((5, 3), np.float32), np.ones((5, 3), np.float32))[0].tolist() == [3.0] * 5
        with pytest.raises(ValueError, match=r"input 1 \('b'\): dimension 0 is 4, expected 5"):
            library(np.ones((5, 3), np.float32), np.ones((4, 3), np.float32))


# ------------------------------------------------------------------------------------------ weights


def test_external_weights(mlp, folder):
    compiled = mlp[1]
    assert compiled.weights is not None and compiled.weights.exists()
    stored = load_file(compiled.weights)
    np.testing.assert_array_equal(stored["first.weight"], mlp[0].first.weight.detach().numpy())
    for path, message in ((None, "pass the path"), (folder / "nowhere", "cannot open"),
                          (compiled.header, "is not the")):
        with pytest.raises(OSError, match=message):
            loader.load(compiled.path, weights=path)
    damaged = folder / "damaged.safetensors"
    data = bytearray(compiled.weights.read_bytes())
    data[20] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(OSError, match="is not the weights file"):
        loader.load(compiled.path, weights=damaged)


def test_embedded_weights_take_no_file(cnn):
    with pytest.raises(OSError, match="embedded, pass NULL"):
        loader.load(cnn[1].path, weights=cnn[1].path)


# ------------------------------------------------------------------------------------------ what a library is


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
        assert [s for s in undefined(compiled.path, "-D") if not any(hasattr(lib, s) for lib in known)] == []
    found = undefined(static_mlp[1].path) - {"_GLOBAL_OFFSET_TABLE_"}
    assert "calloc" in found and [s for s in found if not any(hasattr(lib, s) for lib in known)] == []


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_a_library_exports_its_own_functions_alone(cnn):
    lines = output_of("nm", "-D", "--defined-only", cnn[1].path).splitlines()
    names = {line.split()[-1].split("@")[0] for line in lines}
    assert names == {"gt_abi_version", *(f"cnn_{f}" for f in (
        "create", "run", "workspace_size", "last_error", "metadata", "set_num_threads", "destroy"))}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_thousand_contexts_leave_no_memory(mlp, cnn):
    def cycles(count):
        for compiled, x, y in ((mlp[1], np.ones((7, 6), np.float32), np.empty((7, 3), np.float32)),
                               (cnn[1], image(7), scores(7))):
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
        want, = library(x)
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
    int64_t in_shape[] = {4, 6}, out_shape[] = {4, 3}, image_shape[] = {1, 1, 8, 8}, scores_shape[] = {1, 5};
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
    done = subprocess.run([CC, "-std=c11", "-Wall", "-Wextra", "-Werror", "-I", folder, folder / "main.c",
                           *arguments, "-lm", "-o", program], capture_output=True, text=True)
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
    output_of("c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", "c++", cnn[1].header)


# ------------------------------------------------------------------------------------------ the loader

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
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, tmp_path, tmp_path / "cnn.so"],
                          capture_output=True, text=True, timeout=60)
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


# ------------------------------------------------------------------------------------------ aot.compile


def test_object_for_another_machine(tmp_path):
    arm = named("aarch64-unknown-linux-gnu", "cortex-a72")
    for weights in ("embedded", "external"):
        compiled = aot.compile(model(Cnn), torch.zeros(2, 1, 8, 8), tmp_path / "cnn.o", target=arm,
                               weights=weights, dynamic={0: {0: BATCH}})
        code = compiled.path.read_bytes()
        assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs SSE2 code")
def test_baseline_code_gives_the_same_numbers(folder):
    old = named("x86_64-unknown-linux-gnu")
    made, compiled = library(folder, "old.so", Cnn, torch.zeros(2, 1, 8, 8), target=old)
    x = torch.randn(2, 1, 8, 8)
    with compiled.load() as loaded:
        assert_close(loaded(x.numpy())[0], made(x))


@pytest.mark.parametrize("name, options, error, message", [
    ("m.dll", {}, ValueError, r"'m.dll' must end in one of .so, .o, .a"),
    ("m", {}, ValueError, "must end in"),
    ("nowhere/m.so", {}, FileNotFoundError, "does not exist"),
    ("my-model.so", {}, ValueError, r"'my-model' cannot begin C function names: pass name="),
    ("m.so", {"name": "3d"}, ValueError, "cannot begin C function names"),
    ("m.so", {"name": "é"}, ValueError, "cannot begin C function names"),
    ("m.so", {"weights": "inside"}, ValueError, "expected 'embedded' or 'external'"),
    ("m.so", {"input_names": ["a", "b"]}, ValueError, "input_names has 2 names, the model has 1"),
    ("m.so", {"dynamic": {"y": {0: BATCH}}}, ValueError, "there is no argument 'y'"),
    ("m.so", {"dynamic": {0: {0: torch.Dim("n", max=1)}}}, RuntimeError, "outside"),
])
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


@pytest.mark.parametrize("target, error, message", [
    (("x86_64-unknown-linux-gnu", "pentium-9000"), ValueError, "pentium-9000.*not a recognized processor"),
    (("aarch64-unknown-linux-gnu", "cortex-a7200"), ValueError, "not a recognized processor"),
    (("x86_64-unknown-linux-gnu", "x86-64-v3", "+avx2000"), ValueError, "not a recognized feature"),
    (("riscv64-unknown-linux-gnu", "generic"), NotImplementedError, "64-bit x86 and ARM only"),
    (("i386-unknown-linux-gnu", "i386"), NotImplementedError, "64-bit x86 and ARM only"),
])
def test_a_machine_that_there_is_no_code_for(tmp_path, target, error, message):
    with pytest.raises(error, match=message):
        aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.o", target=named(*target))
    assert not list(tmp_path.iterdir())


def test_a_library_for_another_machine_needs_its_linker(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/cc" if name == "cc" else None)
    other = ("aarch64", "cortex-a72") if platform.machine() == "x86_64" else ("x86_64", "x86-64-v2")
    target = named(f"{other[0]}-unknown-linux-gnu", other[1])
    with pytest.raises(RuntimeError, match=rf"no {other[0]}-linux-gnu-gcc on PATH: install one.*ziglang"):
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
    divided = aot.compile(lambda x, y: x // y, (torch.tensor([6]), torch.tensor([3])), tmp_path / "m.so")
    with divided.load() as library:
        assert library(np.array([6]), np.array([4]))[0].tolist() == [1]
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            library(np.array([6]), np.array([0]))
        assert library(np.array([6]), np.array([2]))[0].tolist() == [3]


def test_values_in_python_and_kinds_of_results(tmp_path):
    with pytest.raises(RuntimeError, match=r"test_aot.py:\d+"):
        aot.compile(lambda x: x * x.sum().item(), torch.ones(2), tmp_path / "m.o")
    with pytest.raises(TypeError, match="returns no tensor"):
        aot.compile(lambda x: None, torch.ones(2), tmp_path / "m.o")
    with pytest.raises(TypeError, match=r"argument 0 of example is a NumPy array.*torch.from_numpy"):
        aot.compile(lambda x: x, np.ones(2), tmp_path / "m.o")
