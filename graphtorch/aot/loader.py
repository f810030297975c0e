"""Runs a library made by `graphtorch.aot.compile` from Python with NumPy and ctypes alone.

This file imports nothing of graphtorch: copy it beside the library and ship both.

    model = load("digits.so")
    scores, = model(images)

A library made for GPUs takes arrays as well, which are copied there and back, and tensors that lie
in a GPU's memory, of packages that give it away by DLPack (CuPy, PyTorch, graphtorch).
"""

from __future__ import annotations

import ast
import ctypes
import json
import operator
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ABI_VERSION = 1
# DLPack type codes: https://dmlc.github.io/dlpack/latest/c_api.html
CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
BFLOAT16 = 4
CPU, CUDA = 1, 2  # device types
STREAM = 1  # DLPack's name of the legacy default stream, which CUDA libraries use
# by code; others: ValueError
ERRORS: dict[int, type[Exception]] = {
    9: IndexError,
    10: MemoryError,
    11: RuntimeError,
    12: RuntimeError,
}
ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Gpu:
    """The memory of the GPU that a context works on, by the calls of NVIDIA's driver."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._call("cuInit", 0)
        self._context = ctypes.c_void_p()
        self.device = ctypes.c_int(0)
        self._call("cuCtxGetCurrent", ctypes.byref(self._context))
        self._retained = not self._context
        if self._retained:
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self.device)
        else:
            self._call("cuCtxGetDevice", ctypes.byref(self.device))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            said = (
                text.value.decode() if text.value else "an error that the driver has no words for"
            )
            raise (MemoryError if code == 2 else RuntimeError)(f"{name}: CUDA error {code}: {said}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Its context is the calling thread's."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    @contextmanager
    def memory(self, sizes: Sequence[int]) -> Iterator[list[int]]:
        """Addresses of memory of these sizes."""
        places: list[int] = []
        try:
            for size in sizes:
                place = ctypes.c_void_p()
                self._call("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(max(size, 1)))
                places.append(place.value or 0)
            yield places
        finally:
            for address in places:
                self._call("cuMemFree_v2", ctypes.c_void_p(address))

    def write(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self._call(
                "cuMemcpyHtoD_v2",
                ctypes.c_void_p(address),
                ctypes.c_void_p(array.ctypes.data),
                ctypes.c_size_t(array.nbytes),
            )

    def read(self, array: np.ndarray, address: int) -> None:
        if array.nbytes:
            self._call(
                "cuMemcpyDtoH_v2",
                ctypes.c_void_p(array.ctypes.data),
                ctypes.c_void_p(address),
                ctypes.c_size_t(array.nbytes),
            )

    def close(self) -> None:
        if self._retained:
            self._retained = False
            self._call("cuDevicePrimaryCtxRelease_v2", self.device)


# Of each path that was loaded, which file it was: device, number, size and time of change.
_seen: dict[str, tuple[int, ...]] = {}


def _opened(path: Path) -> ctypes.CDLL:
    """The shared library at `path` as it is now.

    The system's loader knows libraries by their paths, and would give the one that stood there
    before.
    """
    about = path.stat()
    found = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
    if _seen.setdefault(str(path), found) == found:
        return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(shutil.copy(path, folder))


class Library:
    """A loaded model. Calls from several threads need one `Library` each."""

    def __init__(
        self, path: str | Path, name: str | None = None, weights: str | Path | None = None
    ):
        """Load `path`; `name` is the prefix of its functions (default: the file's stem).

        Args:
            weights: the safetensors file of a library compiled with ``weights="external"``.

        Raises:
            OSError: the file is missing, not such a library, or made for another version of the
                ABI.
        """
        self.path = Path(path).resolve()
        self.name = name or self.path.stem.removeprefix("lib")
        self._library = _opened(self.path)
        version = self._function("gt_abi_version", ctypes.c_int32)()
        if version != ABI_VERSION:
            raise OSError(
                f"{self.path.name} has ABI version {version}, this loader reads {ABI_VERSION}: "
                "compile again"
            )
        self.metadata: dict[str, Any] = json.loads(
            self._function(f"{self.name}_metadata", ctypes.c_char_p)()
        )
        create = self._function(f"{self.name}_create", ctypes.c_void_p, ctypes.c_char_p)
        self._run = self._function(
            f"{self.name}_run",
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_int32,
        )
        self._last_error = self._function(
            f"{self.name}_last_error", ctypes.c_char_p, ctypes.c_void_p
        )
        self._destroy = self._function(f"{self.name}_destroy", None, ctypes.c_void_p)
        self._context = create(str(weights).encode() if weights is not None else None)
        if not self._context:
            raise OSError(f"{self.name}_create: {self._error(None)}")
        self._gpu = _Gpu() if self.metadata.get("device") == "cuda" else None

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise OSError(
                f"{self.path.name} has no function {name}: pass name= as given to aot.compile"
            ) from None
        function.restype, function.argtypes = result, arguments
        return function

    def _error(self, context: int | None) -> str:
        return str(self._last_error(context).decode())

    def __call__(self, *arrays: Any, out: Sequence[Any] | None = None) -> list[Any]:
        """Run the model on one array an input and return one array an output.

        Args:
            arrays: NumPy arrays, or what becomes one; for a CUDA library tensors in the GPU's
                memory as well, of packages that give it away by DLPack (CuPy, PyTorch,
                graphtorch), which are read where they are.
            out: for a CUDA library tensors in the GPU's memory that the results are written to, and
                returned.

        Raises:
            ValueError: an array does not fit; the message of the library says which and why.
            IndexError: an index in the data is out of range.
            MemoryError: there is none left.
            RuntimeError: an operation does not take these values; NVIDIA's driver reports an error.
        """
        if not self._context:
            raise ValueError(f"{self.path.name} was closed: load it again")
        wanted = len(self.metadata["inputs"])
        if len(arrays) != wanted:
            raise ValueError(f"{self.name} takes {wanted} inputs, got {len(arrays)}")
        if self._gpu is not None:
            with self._gpu.entered():
                return self._on_gpu(self._gpu, arrays, out)
        if out is not None:
            raise ValueError(f"{self.name} runs on CPUs: out= is for CUDA libraries")
        inputs = [np.asarray(a, order="C") for a in arrays]
        outputs = self._outputs(inputs)
        self._checked(_tensors(inputs), _tensors(outputs), len(inputs), len(outputs))
        return outputs

    def _on_gpu(self, gpu: _Gpu, given: Sequence[Any], out: Sequence[Any] | None) -> list[Any]:
        """The run of a CUDA library: what is not on the GPU is copied there, and back."""
        inputs = [a if _is_on_gpu(a) else np.asarray(a, order="C") for a in given]
        outputs = self._outputs(inputs) if out is None else list(out)
        arrays = [a for a in (*inputs, *outputs) if isinstance(a, np.ndarray)]
        with gpu.memory([a.nbytes for a in arrays]) as places:
            where = {id(a): place for a, place in zip(arrays, places, strict=True)}
            held: list[Any] = []
            ins, outs = (self._device_tensors(gpu, side, where, held) for side in (inputs, outputs))
            for array in inputs:
                if isinstance(array, np.ndarray):
                    gpu.write(where[id(array)], array)
            self._checked(ins, outs, len(inputs), len(outputs))
            for array in outputs:
                if isinstance(array, np.ndarray):
                    gpu.read(array, where[id(array)])
        return outputs

    @staticmethod
    def _device_tensors(
        gpu: _Gpu, given: Sequence[Any], where: dict[int, int], held: list[Any]
    ) -> Any:
        tensors = (_DLTensor * max(len(given), 1))()
        for i, x in enumerate(given):
            if isinstance(x, np.ndarray):
                held.append(_tensors([x]))
                tensors[i] = held[-1][0]
                tensors[i].data, tensors[i].device_type = where[id(x)], CUDA
                tensors[i].device_id = gpu.device.value
            else:
                capsule = x.__dlpack__(stream=STREAM)
                held.append(capsule)
                tensors[i] = _DLTensor.from_address(_pointer_of(capsule, b"dltensor"))
        return tensors

    def _checked(self, ins: Any, outs: Any, in_count: int, out_count: int) -> None:
        code = self._run(self._context, ins, in_count, outs, out_count)
        if code:
            raise ERRORS.get(code, ValueError)(f"{self._error(self._context)} (code {code})")

    def _outputs(self, inputs: Sequence[Any]) -> list[np.ndarray]:
        sizes = self._sizes(inputs)
        return [
            np.empty(self._shape(spec["shape"], sizes), _numpy_dtype(spec["dtype"]))
            for spec in self.metadata["outputs"]
        ]

    def _sizes(self, inputs: Sequence[Any]) -> dict[str, int]:
        """The value of each symbolic size, read off the inputs; 0 where an input has too few
        dims."""
        sizes: dict[str, int] = {}
        for array, spec in zip(inputs, self.metadata["inputs"], strict=False):
            for size, dim in zip(array.shape, spec["shape"], strict=False):
                if isinstance(dim, str):
                    sizes.setdefault(dim, size)
        return {**dict.fromkeys(self.metadata["sizes"], 0), **sizes}

    @staticmethod
    def _shape(dims: list[int | str], sizes: dict[str, int]) -> list[int]:
        return [
            d if isinstance(d, int) else max(0, _evaluate(ast.parse(d, mode="eval").body, sizes))
            for d in dims
        ]

    def close(self) -> None:
        """Free the model's memory; the object is of no use afterwards."""
        if getattr(self, "_context", None):
            self._destroy(self._context)
            self._context = None
            if self._gpu is not None:
                self._gpu.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def load(path: str | Path, name: str | None = None, weights: str | Path | None = None) -> Library:
    """Load a library made by `graphtorch.aot.compile`."""
    return Library(path, name, weights)


def _evaluate(tree: ast.expr, sizes: dict[str, int]) -> int:
    """The value of a size such as ``2*batch+1``; anything but integer arithmetic is refused."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.Name) and tree.id in sizes:
        return sizes[tree.id]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_evaluate(tree.operand, sizes)
    if isinstance(tree, ast.BinOp) and type(tree.op) in ARITHMETIC:
        return ARITHMETIC[type(tree.op)](_evaluate(tree.left, sizes), _evaluate(tree.right, sizes))
    raise OSError(
        f"the library's metadata holds a size that is no integer expression: {ast.unparse(tree)}"
    )


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    # its own: attributes of `pythonapi` are the whole process's
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _is_on_gpu(x: Any) -> bool:
    found = getattr(x, "__dlpack_device__", None)
    return found is not None and not isinstance(x, np.ndarray) and found()[0] == CUDA


def _numpy_dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes  # only models with bf16 inputs or outputs need it

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _tensors(arrays: list[np.ndarray]) -> Any:
    """DLTensors over `arrays`, which must outlive them."""
    tensors = (_DLTensor * max(len(arrays), 1))()
    for tensor, array in zip(tensors, arrays, strict=False):
        kind = array.dtype.kind
        tensor.data = array.ctypes.data
        tensor.device_type, tensor.ndim, tensor.lanes = 1, array.ndim, 1
        tensor.code = BFLOAT16 if array.dtype.name == "bfloat16" else CODES.get(kind, 3)
        tensor.bits = array.dtype.itemsize * 8
        tensor.shape = (ctypes.c_int64 * max(array.ndim, 1))(*array.shape)
    return tensors
