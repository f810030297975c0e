"""Writing PyTorch's files: the zip format, and the one from before PyTorch 1.6."""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphtorch.ir.dtype import DType

from .._deferred.storage import Storage
from .._deferred.tensor import Tensor
from .._ops.sparse import SparseTensor
from .._types import Size, device, dtype, layout
from ..nn.parameter import Buffer, Parameter
from .pickling import elements, facts_of, parts, user_attributes

if TYPE_CHECKING:
    import zipfile

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
STORAGE_OF = {name: storage for storage, name in STORAGES.items()}
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # of the format from before 1.6
PROTOCOL_VERSION = 1001
ALIGNMENT = 64  # of elements in the file, so that they can be mapped into memory


class _Global:
    """A name in PyTorch's modules, written into the pickle without importing it."""

    def __init__(self, module: str, name: str):
        self.module = module
        self.name = name

    def __call__(self, *args: Any) -> Any:
        raise TypeError("a name inside a pickle")


class _StorageKey:
    """What the pickler writes as a persistent id."""

    def __init__(self, ir: DType, key: str, count: int, place: device, legacy: bool):
        if ir.torch_name in STORAGE_OF:
            kind = _Global("torch", STORAGE_OF[ir.torch_name])
        else:
            kind, count = _Global("torch.storage", "UntypedStorage"), count * ir.itemsize
        self.id = ("storage", kind, key, str(place), count, *([None] if legacy else []))


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")
_REBUILD_UNTYPED = _Global("torch._utils", "_rebuild_tensor_v3")
_REBUILD_META = _Global("torch._utils", "_rebuild_meta_tensor_no_storage")
_REBUILD_PARAMETER = _Global("torch._utils", "_rebuild_parameter")
_REBUILD_PARAMETER_WITH_STATE = _Global("torch._utils", "_rebuild_parameter_with_state")
_REBUILD_SPARSE = _Global("torch._utils", "_rebuild_sparse_tensor")
_REBUILD_FROM_TYPE = _Global("torch._tensor", "_rebuild_from_type_v2")
_GET_LAYOUT = _Global("torch.serialization", "_get_layout")


# Classes whose file has another name in PyTorch are written under the package that has them as
# well.
_OTHER_FILE = re.compile("(Lazy|InstanceNorm|Upsampl|Pixel|ChannelShuffle|Fold|Unfold)")


def module_there(module: str, name: str) -> str:
    """The module of PyTorch's that has our class or function `name` of `module`."""
    parts = module.split(".")
    if parts[1:3] == ["optim", "lr_scheduler"]:
        return "torch.optim.lr_scheduler"
    if parts[1:2] == ["optim"]:
        return "torch.optim"
    if parts[1:3] == ["nn", "modules"] and _OTHER_FILE.match(name):
        return "torch.nn"
    return ".".join(["torch", *parts[1:]])


class _Names:
    """How `Pickler` writes classes and functions: ours under PyTorch's names."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module, own = getattr(obj, "__module__", None) or "", getattr(obj, "__qualname__", "")
        if module.startswith("graphtorch.nn.functional."):  # one file in PyTorch
            module = "graphtorch.nn.functional"
        if (module == "graphtorch" or module.startswith("graphtorch.")) and own.isidentifier():
            _save_name(self, _Global(module_there(module, own), own))
        else:
            super().save_global(obj, name)  # type: ignore[misc]


def _save_name(self: Any, obj: _Global) -> None:
    self.write(pickle.GLOBAL + obj.module.encode() + b"\n" + obj.name.encode() + b"\n")
    self.memoize(obj)


def pickler_of(module: Any) -> Any:
    """The pickler on the Python pickler of `module` (the C ones cannot write names they cannot
    import)."""
    base = getattr(module, "_Pickler", None) or pickle._Pickler
    return (
        Pickler
        if base is pickle._Pickler
        else type("Pickler", (_Tensors, _Names, base), _dispatch(base))
    )


class _Tensors:
    """Collects storages by identity, so that tensors that share memory do so again after
    loading."""

    def __init__(self, file: IO[bytes], protocol: int, legacy: bool = False):
        super().__init__(file, protocol)  # type: ignore[call-arg]
        self.legacy = legacy
        self.arrays: dict[str, np.ndarray] = {}
        # and the storage: ids must not be used again
        self._keys: dict[int, tuple[str, Storage]] = {}

    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, _StorageKey) else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return self._tensor(obj)
        if type(obj) is Size:
            return _Global("torch", "Size"), (tuple(obj),)
        if type(obj) is device:
            return _Global("torch", "device"), (obj.type,) if obj.index is None else (
                obj.type,
                obj.index,
            )
        if type(obj) is layout:
            return _GET_LAYOUT, (repr(obj),)
        return NotImplemented

    def _tensor(self, t: Tensor) -> Any:
        if isinstance(t, SparseTensor):
            size = Size(t.shape)
            return _REBUILD_SPARSE, (t.layout, (t._indices(), t._values(), size, t.is_coalesced()))
        attributes = user_attributes(t)
        if isinstance(t, Parameter) and type(t).__reduce_ex__ is Parameter.__reduce_ex__:
            made: tuple[Any, ...] = (t.detach(), t.requires_grad, OrderedDict())
            return (
                (_REBUILD_PARAMETER_WITH_STATE, (*made, attributes))
                if attributes
                else (_REBUILD_PARAMETER, made)
            )
        if type(t) not in (Tensor, Buffer) and "__reduce_ex__" in type(t).__dict__:
            return NotImplemented
        if t.is_meta:
            return _REBUILD_META, facts_of(t)
        storage, *place = parts(t)
        key = _StorageKey(
            storage.value.type.dtype, *self._store(storage), storage.place, self.legacy
        )
        made = key, *place, t.requires_grad, OrderedDict()
        rebuild = _REBUILD
        if t.dtype.name not in STORAGE_OF:  # dtypes newer than the classes of storages
            rebuild, made = _REBUILD_UNTYPED, (*made, t.dtype)
        plain = type(t) in (Tensor, Buffer)
        if plain and not attributes:
            return rebuild, made
        kind = _Global("torch", "Tensor") if plain else type(t)
        return _REBUILD_FROM_TYPE, (rebuild, kind, made, attributes)

    def _store(self, storage: Storage) -> tuple[str, int]:
        """The key under which a storage is saved, and its elements."""
        if id(storage) not in self._keys:
            self._keys[id(storage)] = str(len(self.arrays)), storage
            self.arrays[str(len(self.arrays))] = np.ascontiguousarray(elements(storage))
        key = self._keys[id(storage)][0]
        return key, int(self.arrays[key].size)


def _save_dtype(self: Any, obj: dtype) -> None:
    self.save(_Global("torch", obj.name))


def _dispatch(base: Any) -> dict[str, Any]:
    table = {
        **base.dispatch,
        _Global: _save_name,
        dtype: _save_dtype,
        types.FunctionType: lambda self, obj: self.save_global(obj),
    }
    return {"dispatch": table}


class Pickler(_Tensors, _Names, pickle._Pickler):
    """Writes a pickle that refers to tensors' elements, which stay in `arrays`."""

    dispatch: ClassVar[dict[type, Any]] = _dispatch(pickle._Pickler)["dispatch"]


def save(
    obj: Any,
    f: Any,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Write `obj` (tensors, state dicts, containers of them, modules) to the path or binary file
    `f`.

    The file is what ``torch.save`` writes: PyTorch loads it. A path is written under a temporary
    name in the same folder and then renamed, so that no reader meets half a file.
    `_use_new_zipfile_serialization` False writes the format that PyTorch had before 1.6.

    Raises: RuntimeError for a folder that does not exist, AttributeError where `f` cannot be
        written to.
    """
    kind = pickler_of(pickle_module)
    write = _write_zip if _use_new_zipfile_serialization else _write_legacy
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        write_then_rename(path, lambda file: write(obj, file, _stem(path), kind, pickle_protocol))
    elif hasattr(f, "write"):
        buffer = io.BytesIO()
        write(obj, buffer, "archive", kind, pickle_protocol)
        f.write(buffer.getvalue())
    else:
        raise AttributeError(
            "expected 'f' to be string, path, or a file-like object with a 'write' "
            f"attribute, but got {type(f).__name__}"
        )


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0] or "archive"


def write_then_rename(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name, then give it its own."""
    import tempfile  # not before a file is written

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


def _write_zip(obj: Any, file: IO[bytes], root: str, kind: Any, protocol: int) -> None:
    import zipfile

    data = io.BytesIO()
    pickler = kind(data, protocol)
    pickler.dump(obj)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _entry(archive, f"{root}/data.pkl", data.getvalue())
        _entry(archive, f"{root}/byteorder", sys.byteorder.encode())
        for key, array in pickler.arrays.items():
            _entry(archive, f"{root}/data/{key}", array.tobytes())
        _entry(archive, f"{root}/version", b"3\n")


def _entry(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Store an entry whose bytes begin at a multiple of 64, as PyTorch's reader expects for
    mapping."""
    import zipfile

    info = zipfile.ZipInfo(name)
    assert archive.fp is not None
    start = archive.fp.tell() + zipfile.sizeFileHeader + len(name.encode())  # type: ignore[attr-defined]
    gap = -(start + 4) % ALIGNMENT
    info.extra = b"FB" + gap.to_bytes(2, "little") + b"Z" * gap
    archive.writestr(info, content)


def _write_legacy(obj: Any, file: IO[bytes], root: str, kind: Any, protocol: int) -> None:
    """Three small pickles, the object, the storages' keys, then each storage: its length and
    elements."""
    system = {
        "protocol_version": PROTOCOL_VERSION,
        "little_endian": sys.byteorder == "little",
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    for header in (MAGIC_NUMBER, PROTOCOL_VERSION, system):
        pickle.dump(header, file, protocol)
    pickler = kind(file, protocol, legacy=True)
    pickler.dump(obj)
    pickle.dump(sorted(pickler.arrays), file, protocol)
    for key in sorted(pickler.arrays):
        array = pickler.arrays[key]
        typed = DType.of(array.dtype).torch_name in STORAGE_OF
        file.write((array.size if typed else array.nbytes).to_bytes(8, sys.byteorder))
        file.write(array.tobytes())
