"""Libraries for GPUs through their C ABI, on the driver for machines without a GPU; programs that
use them have no graphtorch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import _types, aot, nn
from graphtorch._random import generator
from graphtorch.aot import loader
from graphtorch.backends.gpu import emulated, nvrtc, unit

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None or shutil.which("cc") is None,
    reason="the emulated driver needs a C++ compiler, and libraries a linker",
)

EMULATED = ["emulated"]
HEAD = """
import ctypes, sys
import numpy as np
import loader
from loader import _DLTensor, _Gpu

def is_alone():
    return not any(m.startswith("graphtorch") for m in sys.modules)

class Calls:
    "The C functions of a library, with what lies on the GPU."

    def __init__(self, path, weights=None):
        self.library = loader.load(path, weights=weights)
        self.gpu = self.library._gpu
        self.kept = []

    def allocate(self, size):
        place = ctypes.c_void_p()
        with self.gpu.entered():
            self.gpu._call("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(size))
        self.kept.append(place)
        return place.value

    def tensor(self, array, **changes):
        made = loader._tensors([array])
        address = self.allocate(array.nbytes + 8)
        with self.gpu.entered():
            self.gpu.write(address, array)
        t = made[0]
        t.data, t.device_type, t.device_id = address, 2, self.gpu.device.value
        for key, value in changes.items():
            if key in ("shape", "strides"):
                value = (ctypes.c_int64 * len(value))(*value)
            setattr(t, key, value)
        self.kept += [array, made]
        return t

    def run(self, inputs, outputs):
        sides = [(_DLTensor * max(1, len(s)))(*s) for s in (inputs, outputs)]
        operands = (sides[0], len(inputs), sides[1], len(outputs))
        return self.library._run(self.library._context, *operands)

    def error(self):
        return self.library._error(self.library._context)

    def read(self, tensor, like):
        found = np.empty_like(like)
        with self.gpu.entered():
            self.gpu.read(found, tensor.data)
        return found
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("aot_cuda")
    aot.emulated_driver(made)
    shutil.copy(loader.__file__, made)
    (made / "head.py").write_text(HEAD)
    return made


@pytest.fixture
def run(folder: Path) -> Callable[..., str]:
    """Runs a program that has NumPy and the loader alone; what it prints. Nothing is left on the
    GPU."""

    def call(
        code: str,
        *arguments: Any,
        keeps: bool = False,
        alone: bool = True,
        driver: Path | None = None,
        **environment: str,
    ) -> str:
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        settings = {
            **os.environ,
            "LD_LIBRARY_PATH": str(driver or folder),
            "GT_EMULATED_REPORT": str(report),
            "PYTHONPATH": str(folder),
            **environment,
        }
        code = f"from head import *\n{code}\nassert is_alone() == {alone}"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=settings,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        if report.exists() and not keeps:
            left = json.loads(report.read_text())
            assert (left["memory"], left["modules"], left["contexts"]) == (0, 0, 0), left
        return done.stdout

    return call


def results(
    run: Callable[..., str], folder: Path, compiled: aot.Compiled, *arrays: np.ndarray
) -> list[np.ndarray]:
    """What a library makes of arrays."""
    np.savez(folder / "in.npz", *arrays)
    run(
        "given = np.load('in.npz')\n"
        "with loader.load(sys.argv[1], weights=sys.argv[2] if len(sys.argv) > 2 else None) as "
        "library:\n    np.savez('out.npz', *library(*[given[n] for n in given.files]))",
        compiled.path,
        *([compiled.weights] if compiled.weights else []),
    )
    with np.load(folder / "out.npz") as found:
        return [found[n] for n in found.files]


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )

    def forward(self, x: Any) -> Any:
        return self.parts(x)


class Transformer(nn.Module):
    """Embedding, a layer with causal attention, scores of the next letter."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(11, 16), nn.Parameter(torch.randn(12, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.scores = nn.Linear(16, 11)

    def forward(self, words: Any) -> Any:
        length = words.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        x = self.letters(words) + self.places[:length]
        return self.scores(self.layer(x, src_mask=mask, is_causal=True))


def model(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().eval()


@pytest.fixture(scope="module")
def lenet(folder: Path) -> tuple[Any, aot.Compiled]:
    made = model(LeNet)
    return made, aot.compile(
        made,
        torch.zeros(2, 1, 28, 28),
        folder / "digits.so",
        device="cuda",
        architectures=EMULATED,
        dynamic={0: {0: torch.Dim("batch", min=1, max=64)}},
    )


@pytest.fixture(scope="module")
def transformer(folder: Path) -> tuple[Any, aot.Compiled]:
    made = model(Transformer)
    return made, aot.compile(
        made,
        torch.zeros(2, 6, dtype=torch.int64),
        folder / "letters.so",
        device="cuda",
        architectures=EMULATED,
        weights="external",
    )


def image(n: int = 2) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 1, 28, 28)).astype(np.float32)


def assert_close(found: np.ndarray, want: Any) -> None:
    np.testing.assert_allclose(found, want.detach().numpy(), rtol=1e-5, atol=2e-6)


# ------------------------------------------------------------------------------------------ results


def test_lenet(run, folder, lenet):
    for n in (1, 3):
        (found,) = results(run, folder, lenet[1], image(n))
        assert_close(found, lenet[0](torch.tensor(image(n))))


def test_transformer_with_weights_in_a_file(run, folder, transformer):
    words = np.random.default_rng(0).integers(0, 11, (2, 6))
    (found,) = results(run, folder, transformer[1], words)
    assert_close(found, transformer[0](torch.tensor(words)))


@pytest.mark.parametrize("suffix", [".so", ".a"])
def test_from_c(folder, lenet, tmp_path, suffix):
    """The example of a C program."""
    made = lenet[1].path
    if suffix == ".a":
        made = aot.compile(
            lenet[0],
            torch.zeros(3, 1, 28, 28),
            tmp_path / "digits.a",
            device="cuda",
            architectures=EMULATED,
        ).path
    source = Path(__file__).parents[2] / "examples" / "c" / "classify_cuda.c"
    command = [
        "cc",
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        folder,
        source,
        made,
        "-L",
        folder,
        "-l:libcuda.so.1",
        "-lm",
        "-ldl",
        "-o",
        tmp_path / "classify",
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (tmp_path / "images.bin").write_bytes(image(3).tobytes())
    done = subprocess.run(
        [tmp_path / "classify", tmp_path / "images.bin"],
        capture_output=True,
        text=True,
        env={"LD_LIBRARY_PATH": str(folder)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    best, place = lenet[0](torch.tensor(image(3))).max(1)
    scored = enumerate(zip(place.tolist(), best.tolist(), strict=True))
    assert done.stdout.splitlines() == [f"image {i}: {p}, score {s:.4f}" for i, (p, s) in scored]


def test_several_dtypes_inputs_constants_and_results(run, folder):
    table, nothing = torch.tensor([3, 5, 7]), torch.zeros(0, dtype=torch.float16)

    def several(h, flags, n):
        return torch.cat([nothing, h * 2]), torch.where(flags, n, table), n.sum(), torch.ones(2), h

    arrays = [np.array([1.5, -2], np.float16), np.array([True, False, True]), np.array([1, 2, 3])]
    compiled = aot.compile(
        several,
        tuple(map(torch.from_numpy, arrays)),
        folder / "several.so",
        device="cuda",
        architectures=EMULATED,
    )
    found = results(run, folder, compiled, *arrays)
    assert [x.tolist() for x in found] == [[3, -4], [1, 5, 3], 6, [1, 1], [1.5, -2]]
    assert [x.dtype.name for x in found] == ["float16", "int64", "int64", "float32", "float16"]


def test_shared_memory_that_is_asked_for(run, folder, monkeypatch):
    """What a kernel cannot declare is asked for at its launch, once its function may have as
    much."""
    monkeypatch.setattr(unit, "SHARED_LIMIT", 0)
    weights = torch.randn(32, 40)
    compiled = aot.compile(
        lambda x: torch.softmax(x @ weights, 1),
        torch.zeros(33, 32),
        folder / "shared.so",
        device="cuda",
        architectures=EMULATED,
    )
    x = torch.randn(33, 32)
    (found,) = results(run, folder, compiled, x.numpy())
    assert_close(found, torch.softmax(x @ weights, 1))


def test_loops(run, folder):
    """A recurrent net, and a loop whose end the host has to read from the GPU."""
    torch.manual_seed(0)
    net = nn.GRU(3, 4, batch_first=True)

    def loops(x, limit):
        grown, steps = torch._higher_order_ops.while_loop(
            lambda y, n: y.sum() < limit,
            lambda y, n: (y * 2, n + 1),
            (x[0, 0].abs() + 1, torch.tensor(0)),
        )
        return net(x)[0], grown, steps

    x, limit = torch.randn(2, 5, 3), torch.tensor(100.0)
    compiled = aot.compile(
        loops, (x, limit), folder / "loops.so", device="cuda", architectures=EMULATED
    )
    for most in (1.0, 100.0, 5000.0):
        given = x.numpy(), np.array(most, np.float32)
        found = results(run, folder, compiled, *given)
        for ours, theirs in zip(found, loops(x, torch.tensor(most)), strict=True):
            assert_close(ours, theirs)


def test_tensors_on_the_gpu_are_used_where_they_are(run, lenet, folder):
    """Objects with DLPack as inputs and results: nothing is copied to the host."""
    np.save(folder / "x.npy", image())
    run(
        """
class Tensor:
    "Of another package: DLPack and memory of the GPU."
    def __init__(self, calls, array):
        self.tensor, self.calls = calls.tensor(array), calls
    def __dlpack_device__(self):
        return 2, 0
    def __dlpack__(self, stream):
        assert stream == 1
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(self.tensor), b"dltensor", None)
    @property
    def shape(self):
        return tuple(self.tensor.shape[i] for i in range(self.tensor.ndim))

calls = Calls(sys.argv[1])
x = Tensor(calls, np.load("x.npy"))
y = Tensor(calls, np.zeros((2, 10), np.float32))
assert calls.library(x, out=[y])[0] is y
want, = calls.library(np.load("x.npy"))
assert (calls.read(y.tensor, want) == want).all() and want.any()
assert (calls.library(x)[0] == want).all()
""",
        lenet[1].path,
        keeps=True,
    )


def test_tensors_of_graphtorch_are_used_where_they_are(run, lenet, folder):
    """In memory of the driver's, as CuPy's would be."""
    np.save(folder / "x.npy", image())
    run(
        """
sys.path.insert(0, sys.argv[2])
import fake_cupy
from fake_gpu import fake_gpu
import graphtorch as torch

calls = Calls(sys.argv[1])

class OfDriver:
    def __init__(self, size):
        self.address = calls.allocate(size)

fake_cupy.Block = OfDriver
with fake_gpu():
    x = torch.tensor(np.load("x.npy"), device="cuda")
    y = torch.zeros(2, 10, device="cuda")
    before = y + 1
    assert calls.library(x, out=[y])[0] is y
    want, = calls.library(np.load("x.npy"))
    assert (y.cpu().numpy() == want).all() and want.any() and (before == 1).all()
    assert (calls.library(x * 1)[0] == want).all()
    y.zero_()
    assert y.sum().item() == 0
    calls.library(x, out=[y])
    assert (y.cpu().numpy() == want).all()
""",
        lenet[1].path,
        Path(__file__).parent.parent / "helpers",
        keeps=True,
        alone=False,
    )


def test_a_model_that_is_on_a_gpu(run, folder, monkeypatch):
    """Its weights come from there; the default is the GPU that there is."""
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval()
    x = torch.randn(4, 3)
    want = net(x)
    with monkeypatch.context() as patch:
        patch.setenv("GRAPHTORCH_CUDA", "emulated")
        compiled = aot.compile(
            net.cuda(), torch.zeros(4, 3, device="cuda"), folder / "moved.so", device="cuda"
        )
    generator._of_gpus.clear()
    _types._gpus.clear()
    assert_close(results(run, folder, compiled, x.numpy())[0], want)


# ----------------------------------------------------------------------------------------- refusals


def test_wrong_tensors_are_refused(run, lenet, folder):
    """Each changes one thing of a good call, which goes on to work."""
    np.save(folder / "x.npy", image())
    run(
        """
calls = Calls(sys.argv[1])
image, room = np.load("x.npy"), np.zeros((2, 10), np.float32)
BAD = {
    "host": ({"device_type": 1}, 8, "device type 1, expected CUDA memory (2)"),
    "other GPU": ({"device_id": 1}, 8, "in the memory of GPU 1, but the context works on GPU 0"),
    "rank": ({"ndim": 3}, 3, "3 dimensions, expected 4"),
    "dtype": ({"bits": 64}, 4, "expected float32"),
    "size": ({"shape": [2, 1, 28, 29]}, 5, "dimension 3 is 29, expected 28"),
    "batch": ({"shape": [65, 1, 28, 28]}, 5, "dimension 0 is 65, expected a size from 1 to 64"),
    "strides": ({"strides": [784, 784, 1, 28]}, 6, "row-major"),
    "offset": ({"byte_offset": 2}, 7, "not aligned"),
    "nothing": ({"data": None}, 1, "NULL"),
}
x, y = calls.tensor(image), calls.tensor(room)
for name, (changes, code, message) in BAD.items():
    for side, other in (("input 0 ('x')", y), ("output 0 ('output')", x)):
        if side[0] == "o" and ("shape" in changes or "strides" in changes or "ndim" in changes):
            continue
        made = calls.tensor(image if side[0] == "i" else room, **changes)
        found = calls.run([made], [other]) if side[0] == "i" else calls.run([other], [made])
        assert found == code, (name, side, found, calls.error())
        assert message in calls.error() and side in calls.error(), (name, calls.error())
    assert calls.run([x], [y]) == 0 and calls.error() == ""
assert calls.run([x, x], [y]) == 2 and "2 inputs and 1 outputs" in calls.error()
assert calls.library._run(None, None, 1, None, 1) == 1
assert calls.library._run(calls.library._context, None, 1, None, 1) == 1
""",
        lenet[1].path,
        keeps=True,
    )


def test_errors_in_the_data(run, transformer):
    run(
        """
calls = Calls(sys.argv[1], sys.argv[2])
y = calls.tensor(np.zeros((2, 6, 11), np.float32))
for bad in (11, -1, 2 ** 62):
    words = np.zeros((2, 6), np.int64)
    words[1, 3] = bad
    assert calls.run([calls.tensor(words)], [y]) == 9, calls.error()
    assert "out of bounds" in calls.error()
    assert calls.run([calls.tensor(words * 0 + 10)], [y]) == 0 and calls.error() == ""
""",
        transformer[1].path,
        transformer[1].weights,
        keeps=True,
    )


def test_too_little_memory(run, folder):
    """A context that could not grow goes on with smaller batches."""
    weights = torch.randn(16, 16)
    compiled = aot.compile(
        lambda x: (x @ weights).tanh() @ weights,
        torch.zeros(2, 16),
        folder / "grows.so",
        device="cuda",
        architectures=EMULATED,
        dynamic={0: {0: torch.Dim("n")}},
    )
    code = """
calls = Calls(sys.argv[1])
pairs = [[calls.tensor(np.zeros((n, 16), np.float32)) for _ in "xy"] for n in (1, 300)]
codes = [calls.run([x], [y]) for x, y in (pairs[0], pairs[1], pairs[0])]
print(codes, calls.library._function("grows_workspace_size", ctypes.c_size_t, ctypes.c_void_p)(
    calls.library._context))
"""
    assert run(code, compiled.path, keeps=True).startswith("[0, 0, 0] ")
    assert run(code, compiled.path, keeps=True, GT_EMULATED_MEMORY="50000").startswith(
        "[0, 10, 0] "
    )
    with pytest.raises(
        AssertionError, match="grows_create: cuMemAlloc_v2: CUDA error 2: out of memory"
    ):
        run("Calls(sys.argv[1])", compiled.path, GT_EMULATED_MEMORY="1000")


def test_a_run_allocates_nothing_where_sizes_have_bounds(run, folder, lenet):
    counts = []
    for times in (1, 3):
        run(
            "calls = Calls(sys.argv[1])\n"
            "x, y = [calls.tensor(np.zeros(s, np.float32)) for s in ((2, 1, 28, 28), (2, 10))]\n"
            "assert not any(calls.run([x], [y]) for _ in "
            f"range({times}))",
            lenet[1].path,
            keeps=True,
        )
        counts.append(json.loads((folder / "report.json").read_text()))
    assert counts[0]["allocations"] == counts[1]["allocations"]
    assert counts[1]["launches"] > counts[0]["launches"]


def test_the_current_context_is_the_one_that_is_used(run, lenet, folder):
    np.save(folder / "x.npy", image())
    run(
        """
driver, own = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
assert driver.cuInit(0) == driver.cuDevicePrimaryCtxRetain(ctypes.byref(own), 1) == 0
assert driver.cuCtxSetCurrent(own) == 0
calls = Calls(sys.argv[1])
now = ctypes.c_void_p()
assert driver.cuCtxGetCurrent(ctypes.byref(now)) == 0 and now.value == own.value
assert calls.gpu.device.value == 1
x, y = calls.tensor(np.load("x.npy")), calls.tensor(np.zeros((2, 10), np.float32))
assert calls.run([x], [y]) == 0, calls.error()
x.device_id = 0
assert calls.run([x], [y]) == 8 and "GPU 0, but the context works on GPU 1" in calls.error()
assert driver.cuCtxSetCurrent(None) == 0
x.device_id = 1
assert calls.run([x], [y]) == 0, calls.error()  # the library's own context, whatever the thread's
calls.library.close()
assert driver.cuDevicePrimaryCtxRelease_v2(1) == 0
""",
        lenet[1].path,
        keeps=True,
    )
    assert json.loads((folder / "report.json").read_text())["contexts"] == 0


def test_many_contexts_leave_nothing(run, lenet, folder):
    np.save(folder / "x.npy", image(1))
    run(
        "x = np.load('x.npy')\nfound = []\n"
        "for _ in range(5):\n"
        "    with loader.load(sys.argv[1]) as library:\n        "
        "found.append(library(x)[0].tolist())\nassert all(y == found[0] for y in "
        "found)",
        lenet[1].path,
    )


# ------------------------------------------------------------------------------------------ drivers


def failure(run: Callable[..., str], path: Path, **options: Any) -> str:
    """What the loader says, behind what the driver printed."""
    return run(
        "import os\nos.dup2(1, 2)\ntry:\n    loader.load(sys.argv[1])\n"
        "except OSError as error:\n    print(error)",
        path,
        **options,
    )


def test_no_driver_and_an_old_one(run, lenet, tmp_path):
    assert "runs on NVIDIA GPUs and needs their driver: libcuda.so.1: cannot open" in failure(
        run, lenet[1].path, driver=tmp_path
    )
    subprocess.run(
        ["cc", "-shared", "-x", "c", "-", "-o", tmp_path / "libcuda.so.1"],
        check=True,
        input="int cuInit(unsigned x) { return (int)x; }\n",
        text=True,
    )
    assert "libcuda.so.1 has no cuGetErrorString" in failure(run, lenet[1].path, driver=tmp_path)


def test_no_code_for_the_gpu(run, lenet):
    assert "whose compute capability is 7.5: the library has emulated" in failure(
        run, lenet[1].path, GT_EMULATED_CAPABILITY="7.5"
    )


@pytest.mark.skipif(
    nvrtc.library() is None, reason="pip install nvidia-cuda-nvrtc compiles kernels for GPUs"
)
def test_the_best_image_is_loaded(run, folder):
    """The emulated driver cannot run them, but says what it was given."""
    compiled = aot.compile(
        lambda x: x + 1,
        torch.ones(3),
        folder / "images.so",
        device="cuda",
        architectures=["sm_80", "compute_80", "sm_90", "compute_90"],
    )
    for capability, given in (
        ("8.0", "a cubin"),
        ("8.9", "a cubin"),
        ("9.0", "a cubin"),
        ("10.0", "PTX"),
    ):
        found = failure(run, compiled.path, GT_EMULATED_CAPABILITY=capability)
        assert f"was given {given}\n" in found and "CUDA error 209: no kernel image" in found
    assert "compute capability is 7.5: the library has sm_80, compute_80" in failure(
        run, compiled.path, GT_EMULATED_CAPABILITY="7.5"
    )


# -------------------------------------------------------------------------------- what a library is


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_a_library_needs_libc_alone(lenet):
    lines = subprocess.run(
        ["nm", "-D", lenet[1].path], capture_output=True, text=True, check=True
    ).stdout
    assert not re.findall(r"\b(cu[A-Z]\w*|cuda\w+|pthread\w+)", lines)
    exported = {line.split()[-1] for line in lines.splitlines() if " T " in line or " W " in line}
    assert {
        f"digits_{f}"
        for f in (
            "create",
            "run",
            "destroy",
            "last_error",
            "metadata",
            "workspace_size",
            "set_num_threads",
        )
    } <= exported


def test_metadata_and_header(lenet, folder, run):
    assert (
        "kDLCUDA" in lenet[1].header.read_text() and "GT_DRIVER = 12" in lenet[1].header.read_text()
    )
    found = json.loads(
        run(
            "import json\nwith loader.load(sys.argv[1]) as made:\n"
            "    print(json.dumps(made.metadata))",
            lenet[1].path,
        )
    )
    assert (found["device"], found["architectures"], found["abi_version"]) == ("cuda", EMULATED, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "device='gpu', expected 'cpu' or 'cuda'"),
        ({"architectures": ["sm_90"]}, ValueError, 'architectures= is for device="cuda"'),
        ({"device": "cuda", "architectures": []}, ValueError, "architectures is empty"),
        (
            {"device": "cuda", "architectures": ["hopper"]},
            ValueError,
            "no architecture 'hopper'.*sm_90",
        ),
    ],
)
def test_bad_arguments(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.so", **options)
    assert not list(tmp_path.iterdir())


def test_a_machine_without_nvrtc(tmp_path, monkeypatch):
    monkeypatch.setattr(nvrtc, "library", lambda: None)
    for options in ({}, {"architectures": ["sm_90"]}):
        with pytest.raises(RuntimeError, match=r"NVRTC.*pip install nvidia-cuda-nvrtc"):
            aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.so", device="cuda", **options)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("GRAPHTORCH_CUDA", "emulated")
    made = aot.compile(lambda x: x + 1, torch.ones(2), tmp_path / "m.so", device="cuda")
    assert made.path.exists()
