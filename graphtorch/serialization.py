"""Saving and loading: PyTorch's zip format, read and written, and safetensors.

A file is a zip archive of a pickle (``data.pkl``) in which tensors refer to raw storages (``data/0``, ...).
It is written under a temporary name and renamed. Loading runs no code from the file unless
``weights_only=False``.
"""

from __future__ import annotations

import codecs
import io
import json
import math
import os
import pickle
import sys
import tempfile
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar

import numpy as np

from graphtorch.ir.dtype import DType
from graphtorch.ir.shape import contiguous_strides

from ._types import DTYPES, Size, device, dtype
from .nn.parameter import Buffer, Parameter
from .storage import Leaf, Storage, ViewDtype
from .tensor import Tensor, from_value

DEFAULT_PROTOCOL = 2
_STORAGES = {"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
             "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
             "ShortStorage": "int16",
             "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
             "ComplexFloatStorage": "complex64",
             "ComplexDoubleStorage": "complex128"}
_STORAGE_OF = {name: storage for storage, name in _STORAGES.items()}
_safe: dict[str, Any] = {}


# ------------------------------------------------------------------------------------------ writing


class _Global:
    """A name in PyTorch's modules, written into the pickle without importing it."""

    def __init__(self, module: str, name: str):
        self.module = module
        self.name = name

    def __call__(self, *args: Any) -> Any:
        raise TypeError("a name inside a pickle")


class _StorageKey:
    """What the pickler writes as a persistent id."""

    def __init__(self, ir: DType, key: str, count: int):
        self.id = ("storage", _Global("torch", _STORAGE_OF[ir.torch_name]), key, "cpu", count)


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")
_REBUILD_PARAMETER = _Global("torch._utils", "_rebuild_parameter")


class _Pickler(pickle._Pickler):  # the Python one: the C one cannot write names that it cannot import
    """Collects storages by identity, so that tensors that share memory do so again after loading."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: IO[bytes], protocol: int):
        super().__init__(file, protocol)
        self.arrays: list[np.ndarray] = []
        self._keys: dict[int, tuple[str, Any]] = {}

    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, _StorageKey) else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return self._tensor(obj)
        if type(obj) is Size:
            return _Global("torch", "Size"), (tuple(obj),)
        if type(obj) is device:
            return _Global("torch", "device"), (obj.type,) if obj.index is None else (obj.type, obj.index)
        return NotImplemented

    def _tensor(self, t: Tensor) -> Any:
        if isinstance(t, Parameter):
            return _REBUILD_PARAMETER, (t.detach(), t.requires_grad, OrderedDict())
        if type(t) not in (Tensor, Buffer) and "__reduce_ex__" in type(t).__dict__:
            return NotImplemented
        view = t._view
        if view is None or any(isinstance(step, ViewDtype) for step in view.steps):
            source = t if view is None else t.detach().clone()
            offset, strides = 0, contiguous_strides(tuple(t.shape))
        else:
            source, offset, strides = t, view.offset, tuple(view.strides)
        key, count = self._store(source._storage)
        storage = _StorageKey(source._type.dtype, key, count)
        return _REBUILD, (storage, offset, tuple(t.shape), strides, t.requires_grad, OrderedDict())

    def _store(self, storage: Storage) -> tuple[str, int]:
        """The number under which a storage is saved, and its elements."""
        if id(storage) not in self._keys:
            base = object.__new__(Tensor)
            base._storage = storage
            array = base._array()
            self._keys[id(storage)] = (str(len(self.arrays)), storage)  # kept alive: ids must not be reused
            self.arrays.append(np.ascontiguousarray(array))
        key = self._keys[id(storage)][0]
        return key, int(self.arrays[int(key)].size)


def _save_global(self: Any, obj: _Global) -> None:
    self.write(pickle.GLOBAL + obj.module.encode() + b"\n" + obj.name.encode() + b"\n")
    self.memoize(obj)


def _save_dtype(self: Any, obj: dtype) -> None:
    self.save(_Global("torch", obj.name))


_Pickler.dispatch[_Global] = _save_global
_Pickler.dispatch[dtype] = _save_dtype


def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: int = DEFAULT_PROTOCOL,
         _use_new_zipfile_serialization: bool = True) -> None:
    """Write `obj` (tensors, state dicts, containers of them, modules) to the path or binary file `f`.

    The file is what ``torch.save`` writes: PyTorch loads it. A path is written under a temporary name in the
    same folder and then renamed, so that no reader meets half a file.
    """
    if isinstance(f, (str, os.PathLike)):
        _write_then_rename(os.fspath(f), lambda file: _write(obj, file, _stem(os.fspath(f)), pickle_protocol))
    elif hasattr(f, "write"):
        buffer = io.BytesIO()
        _write(obj, buffer, "archive", pickle_protocol)
        f.write(buffer.getvalue())
    else:
        raise AttributeError("expected 'f' to be string, path, or a file-like object with a 'write' "
                             f"attribute, but got {type(f).__name__}")


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0] or "archive"


def _write_then_rename(path: str, write: Callable[[IO[bytes]], object]) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise RuntimeError(f"Parent directory {folder} does not exist.")
    descriptor, temporary = tempfile.mkstemp(prefix=".saving-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _write(obj: Any, file: IO[bytes], root: str, protocol: int) -> None:
    data = io.BytesIO()
    pickler = _Pickler(data, protocol)
    pickler.dump(obj)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _entry(archive, f"{root}/data.pkl", data.getvalue())
        _entry(archive, f"{root}/byteorder", sys.byteorder.encode())
        for i, array in enumerate(pickler.arrays):
            _entry(archive, f"{root}/data/{i}", array.tobytes())
        _entry(archive, f"{root}/version", b"3\n")


def _entry(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Store an entry whose bytes begin at a multiple of 64, as PyTorch's reader expects for mapping."""
    info = zipfile.ZipInfo(name)
    assert archive.fp is not None
    start = archive.fp.tell() + zipfile.sizeFileHeader + len(name.encode())  # type: ignore[attr-defined]
    gap = -(start + 4) % 64
    info.extra = b"FB" + gap.to_bytes(2, "little") + b"Z" * gap
    archive.writestr(info, content)


# ------------------------------------------------------------------------------------------ reading


class _LoadedStorage:
    """The elements of a storage in the file, and the tensor first made from them."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.tensor: Tensor | None = None

    def view(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        """A tensor over these elements; those of one storage share memory."""
        _check_bounds(self.array.size, offset, size, stride)
        whole = offset == 0 and stride == contiguous_strides(size) and math.prod(size) == self.array.size
        if self.tensor is None:
            self.tensor = from_value(Leaf.of(self.array.reshape(size if whole else -1)))
            if whole:
                return self.tensor
        return self.tensor.reshape(-1).as_strided(size, stride, offset).detach()


def _check_bounds(count: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    ints = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(i) is int and i >= 0 for i in ints):
        raise pickle.UnpicklingError(f"a tensor with offset {offset}, size {size} and strides {stride} "
                                     "cannot be")
    last = offset + sum((s - 1) * t for s, t in zip(size, stride, strict=True))
    if 0 not in size and last >= count:
        raise pickle.UnpicklingError(f"a tensor of size {size} and strides {stride} at offset {offset} "
                                     f"reaches beyond its storage of {count} elements")


def _rebuild_tensor_v2(storage: Any, offset: int, size: Any, stride: Any, requires_grad: bool = False,
                       backward_hooks: Any = None, metadata: Any = None) -> Tensor:
    if not isinstance(storage, _LoadedStorage):
        raise pickle.UnpicklingError("a tensor refers to something that is not a storage")
    tensor = storage.view(offset, tuple(size), tuple(stride))
    return tensor.requires_grad_() if requires_grad else tensor


def _rebuild_parameter(data: Tensor, requires_grad: bool = True, backward_hooks: Any = None) -> Parameter:
    return Parameter(data, bool(requires_grad))


def _rebuild_parameter_with_state(data: Tensor, requires_grad: bool, backward_hooks: Any,
                                  state: Any) -> Parameter:
    made = Parameter(data, bool(requires_grad))
    made.__dict__.update(state if isinstance(state, dict) else {})
    return made


class _StorageType:
    """The class of a storage in the pickle; only its dtype matters."""

    def __init__(self, ir: DType):
        self.ir = ir


_ALLOWED: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state, "torch.Size": Size,
    "torch.device": device, "collections.OrderedDict": OrderedDict, "collections.Counter": Counter,
    "collections.defaultdict": defaultdict, "builtins.set": set, "__builtin__.set": set,
    "builtins.dict": dict,
    "builtins.complex": complex, "builtins.slice": slice, "builtins.bytearray": bytearray,
    "_codecs.encode": codecs.encode,
    "torch.nn.parameter.Parameter": Parameter, "torch.Tensor": Tensor,
    **{f"torch.{name}": found for name, found in DTYPES.items()},
    **{f"torch.{storage}": _StorageType(DTYPES[name].ir) for storage, name in _STORAGES.items()},
}


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Let ``weights_only=True`` also make these classes and call these functions (or pairs of one and its
    name).
    """
    for item in safe_globals:
        found, name = item if isinstance(item, tuple) else (item, f"{item.__module__}.{item.__qualname__}")
        _safe[name] = found


def clear_safe_globals() -> None:
    """Forget what `add_safe_globals` added."""
    _safe.clear()


def get_safe_globals() -> list[Any]:
    """What `add_safe_globals` added."""
    return list(_safe.values())


class safe_globals:
    """``with safe_globals([...]):`` adds them inside only."""

    def __init__(self, safe_globals: Iterable[Any]):
        self.given = list(safe_globals)

    def __enter__(self) -> None:
        self.before = dict(_safe)
        add_safe_globals(self.given)

    def __exit__(self, *exc: object) -> None:
        _safe.clear()
        _safe.update(self.before)


class _Unpickler(pickle.Unpickler):
    """Resolves names through the tables above, and with `trusting` through imports as well."""

    def __init__(self, archive: zipfile.ZipFile, root: str, swap: bool, trusting: bool, encoding: str):
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")), encoding=encoding)
        self.archive = archive
        self.root = root
        self.swap = swap
        self.trusting = trusting
        self._loaded: dict[str, _LoadedStorage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        found = _ALLOWED.get(full, _safe.get(full))
        if found is not None:
            return found
        if not self.trusting:
            raise pickle.UnpicklingError(
                f"Weights only load failed. Unsupported global: GLOBAL {full} was not an allowed global by "
                "default. If the file comes from a source you trust, allow it with "
                "torch.serialization.add_safe_globals([...]), or load with weights_only=False, which can run "
                "any code that the file holds.")
        if module.split(".")[0] == "torch":
            module = "graphtorch" + module[len("torch"):]
        return super().find_class(module, name)

    def persistent_load(self, saved: Any) -> Any:
        if not (isinstance(saved, tuple) and len(saved) == 5 and saved[0] == "storage"
                and isinstance(saved[1], _StorageType)):
            raise pickle.UnpicklingError(f"unknown persistent id {saved!r}")
        _, kind, key, _, count = saved
        if key not in self._loaded:
            raw = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            if len(raw) != count * kind.ir.itemsize:
                raise RuntimeError(f"storage {key} has {len(raw)} bytes, expected {count} elements of "
                                   f"{kind.ir}: the file is damaged")
            array = np.frombuffer(raw, kind.ir.numpy)
            self._loaded[key] = _LoadedStorage(array.byteswap() if self.swap else array)
        return self._loaded[key]


def load(f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool | None = None,
         mmap: bool | None = None, encoding: str = "utf-8", **pickle_load_args: Any) -> Any:
    """Read what `save` or ``torch.save`` wrote to the path or binary file `f`.

    Args:
        map_location: where tensors go; only the CPU exists here.
        weights_only: True (the default) makes tensors, containers and numbers only, and refuses a file that
            asks for more; False lets the file name any class or function, and so run any code.

    Raises: pickle.UnpicklingError for a refused or damaged file, FileNotFoundError for a missing one.
    """
    _check_location(map_location)
    trusting = weights_only is False
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            return _read(file, trusting, encoding)
    if not (hasattr(f, "read") and hasattr(f, "seek")):
        raise AttributeError("expected 'f' to be string, path, or a seekable file-like object, but got "
                             f"{type(f).__name__}")
    return _read(f, trusting, encoding)


def _check_location(map_location: Any) -> None:
    # A dictionary renames devices that the file names, a function moves storages; here all are on the CPU.
    if map_location is None or callable(map_location) or isinstance(map_location, dict):
        return
    if device(map_location).type != "cpu":
        raise RuntimeError(f"Attempting to deserialize object on {map_location}, but only 'cpu' is "
                           "available: use torch.load with map_location='cpu'")


def _read(file: IO[bytes], trusting: bool, encoding: str) -> Any:
    if not zipfile.is_zipfile(file):
        raise pickle.UnpicklingError("not a file of torch.save's zip format. Files written before PyTorch "
                                     "1.6 can be converted by loading and saving them once with PyTorch")
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        found = [n for n in names if n.endswith("/data.pkl")]
        if len(found) != 1:
            raise pickle.UnpicklingError("the archive has no data.pkl: was it written by torch.save?")
        root = found[0][:-len("/data.pkl")]
        order = archive.read(f"{root}/byteorder").decode() if f"{root}/byteorder" in names else "little"
        return _Unpickler(archive, root, order != sys.byteorder, trusting, encoding).load()


# ------------------------------------------------------------------------------------------ safetensors

_SAFE_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
                "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
                "C64": "complex64"}
_SAFE_CODES = {name: code for code, name in _SAFE_DTYPES.items()}


def save_safetensors(tensors: dict[str, Tensor], filename: Any,
                     metadata: dict[str, str] | None = None) -> None:
    """Write named tensors as a safetensors file, under a temporary name that is then renamed.

    Layout (https://github.com/huggingface/safetensors): the length of a JSON header as 8 bytes, the header
    with dtype, shape and place of each tensor, then the elements.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    parts, end = [], 0
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])):  # keeps alignment
        if t.dtype.name not in _SAFE_CODES:
            raise TypeError(f"safetensors cannot hold {name!r} of dtype {t.dtype}")
        parts.append(np.ascontiguousarray(t.detach()._array()).tobytes())
        header[name] = {"dtype": _SAFE_CODES[t.dtype.name], "shape": list(t.shape),
                        "data_offsets": [end, end + len(parts[-1])]}
        end += len(parts[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = b"".join([len(text).to_bytes(8, "little"), text, *parts])
    _write_then_rename(os.fspath(filename), lambda file: file.write(content))


def load_safetensors(filename: Any) -> dict[str, Tensor]:
    """The named tensors of a safetensors file."""
    from safetensors import deserialize  # imported where used: `import graphtorch` stays fast
    with open(filename, "rb") as file:
        content = file.read()
    tensors = {}
    for name, entry in deserialize(content):
        array = np.frombuffer(bytearray(entry["data"]), DTYPES[_SAFE_DTYPES[entry["dtype"]]].ir.numpy)
        tensors[name] = from_value(Leaf.of(array.reshape(entry["shape"])))
    return tensors
