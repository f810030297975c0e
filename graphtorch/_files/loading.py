"""Reading PyTorch's files: the zip format, and the one from before PyTorch 1.6."""

from __future__ import annotations

import codecs
import importlib
import io
import pickle
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphtorch.ir.dtype import DType

from .. import _types
from .._deferred.door import MappedFile, gpus
from .._deferred.tensor import Tensor
from .._ops.sparse import made as made_sparse
from .._types import DTYPES, Size, check_device, device, layout
from ..nn.parameter import Parameter
from ..random import Generator
from .pickling import LoadedStorage, set_attributes, without_elements
from .saving import MAGIC_NUMBER, PROTOCOL_VERSION, STORAGES

if TYPE_CHECKING:
    import zipfile

NO_CUDA = (
    "Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If "
    "you are running on a CPU-only machine, please use torch.load with "
    "map_location=torch.device('cpu') to map your storages to the CPU."
)
safe: dict[str, Any] = {}  # names that a program allowed

# ------------------------------------------------------------------------------------------ names


class _StorageType:
    """The class of a storage in the pickle; only its dtype matters (None: bytes)."""

    def __init__(self, ir: DType | None):
        self.ir = ir


def _refuse(why: object) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"Weights only load failed. {why}")


def _rebuild_tensor_v2(
    storage: Any,
    offset: int,
    size: Any,
    stride: Any,
    requires_grad: bool = False,
    backward_hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    if not isinstance(storage, LoadedStorage):
        raise _refuse("A tensor refers to something that is not a storage")
    try:
        tensor = storage.tensor(offset, tuple(size), tuple(stride))
    except ValueError as error:
        raise _refuse(error) from None
    return tensor.requires_grad_() if requires_grad else tensor


def _rebuild_tensor_v3(
    storage: Any,
    offset: int,
    size: Any,
    stride: Any,
    requires_grad: bool,
    backward_hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    if isinstance(storage, LoadedStorage):  # bytes of any dtype
        storage.array = storage.array.view(dtype.ir.numpy)
    return _rebuild_tensor_v2(storage, offset, size, stride, requires_grad)


def _rebuild_parameter(
    data: Tensor, requires_grad: bool = True, backward_hooks: Any = None
) -> Parameter:
    return Parameter(data, bool(requires_grad))


def _rebuild_parameter_with_state(
    data: Tensor, requires_grad: bool, backward_hooks: Any, state: Any
) -> Parameter:
    return set_attributes(Parameter(data, bool(requires_grad)), state)  # type: ignore[no-any-return]


def _rebuild_from_type_v2(
    function: Callable[..., Any], kind: type, args: tuple[Any, ...], state: Any
) -> Any:
    made = function(*args)
    if kind not in (Tensor, Parameter) and issubclass(kind, Tensor):
        made = Tensor._make_subclass(kind, made, made.requires_grad)
    return set_attributes(made, state[0] if isinstance(state, tuple) else state)


def _rebuild_sparse_tensor(kind: Any, data: tuple[Any, ...]) -> Tensor:
    indices, values, size, *merged = data
    if kind is not _types.sparse_coo:
        raise RuntimeError(
            f"rebuilding sparse tensor for layout {kind} is not implemented: only "
            "torch.sparse_coo is"
        )
    return made_sparse(indices, values, size, bool(merged and merged[0]))


def _get_layout(name: str) -> layout:
    return {repr(k): k for k in (_types.strided, _types.sparse_coo)}[name]


ALLOWED: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_meta_tensor_no_storage": without_elements,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter_with_state,
    "torch._utils._rebuild_sparse_tensor": _rebuild_sparse_tensor,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type_v2,
    "torch.serialization._get_layout": _get_layout,
    "torch.Size": Size,
    "torch.device": device,
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "collections.defaultdict": defaultdict,
    "builtins.set": set,
    "__builtin__.set": set,
    "builtins.complex": complex,
    "__builtin__.complex": complex,
    "builtins.bytearray": bytearray,
    "__builtin__.bytearray": bytearray,
    "_codecs.encode": codecs.encode,
    "torch.nn.parameter.Parameter": Parameter,
    "torch.Tensor": Tensor,
    **{f"torch.{name}": found for name, found in DTYPES.items()},
    **{f"torch.{storage}": _StorageType(DTYPES[name].ir) for storage, name in STORAGES.items()},
    "torch.storage.UntypedStorage": _StorageType(None),
}
# Names that code may use and that stand elsewhere here.
_ELSEWHERE = {"torch._C.Generator": Generator, "torch.Generator": Generator}


def _imported(module: str, name: str) -> Any:
    """A class or function of PyTorch's name, here."""
    full = f"{module}.{name}"
    if full in _ELSEWHERE:
        return _ELSEWHERE[full]
    try:
        return getattr(importlib.import_module("graphtorch" + module[len("torch") :]), name)
    except (ImportError, AttributeError):
        for part in (
            "graphtorch.nn",
            "graphtorch.optim",
            "graphtorch.optim.lr_scheduler",
            "graphtorch",
        ):
            found = getattr(importlib.import_module(part), name, None)
            if found is not None:
                return found
        raise AttributeError(f"the file names {full}, which graphtorch does not have") from None


# --------------------------------------------------------------------------------------- unpicklers


class _Names:
    """What both unpicklers share: names through the table, storages through `source`."""

    def __init__(
        self, file: IO[bytes], source: Callable[[Any, str, int, str], Any], **options: Any
    ):
        super().__init__(file, **options)  # type: ignore[call-arg]
        self.source = source

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get(f"{module}.{name}", safe.get(f"{module}.{name}"))
        return self.find_other(module, name) if found is None else found

    def find_other(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "torch":
            return _imported(module, name)
        return super().find_class(module, name)  # type: ignore[misc]

    def persistent_load(self, saved: Any) -> Any:
        kind = (
            saved[0].decode()
            if isinstance(saved, tuple) and isinstance(saved[0], bytes)
            else saved[0]
            if isinstance(saved, tuple) and saved
            else None
        )
        if kind == "module":  # of PyTorch before 0.4: a class and its source
            return saved[1]
        if kind != "storage" or len(saved) < 5 or not isinstance(saved[1], _StorageType):
            raise pickle.UnpicklingError(f"unknown persistent id {saved!r}")
        _, storage, key, location, count, *view = saved
        made = self.source(storage.ir, str(key), int(count), str(location))
        if view and view[0] is not None:  # (key, offset, length) of a part of that storage
            return made.part(view[0][1], view[0][1] + view[0][2])
        return made


class _Restricted(_Names, pickle._Unpickler):  # the Python one: instructions can be limited
    """Makes tensors, containers and numbers only."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def find_other(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(
            f"Unsupported global: GLOBAL {module}.{name} was not an allowed global by default. "
            f"Please use `torch.serialization.add_safe_globals([{name}])` or the "
            f"`torch.serialization.safe_globals([{name}])` context manager to allowlist this "
            "global if you trust this class/function."
        )

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]  # type: ignore[attr-defined]
        kind = type(made)
        if kind is OrderedDict or kind in safe.values():
            if hasattr(made, "__setstate__"):
                made.__setstate__(state)
            else:
                made.__dict__.update(state)
        else:
            raise pickle.UnpicklingError(
                "Can only build Tensor, Parameter, OrderedDict or types allowlisted "
                f"via `add_safe_globals`, but got {kind}"
            )

    dispatch[pickle.BUILD[0]] = _build


_ADVICE = (
    " This file can still be loaded; do so only if you trust its source: (1) load it with "
    "weights_only=False, which can run any code that the file holds, or (2) allow what it "
    "needs: "
)


def unpickle(
    file: IO[bytes], source: Any, trusting: bool, pickle_module: Any, **options: Any
) -> Any:
    """Read one pickle. Names of storages go to ``source(dtype, key, count, location)``."""
    if trusting:
        base = getattr(pickle_module or pickle, "Unpickler")  # noqa: B009 - a module of the user's
        return type("Unpickler", (_Names, base), {})(file, source, **options).load()
    try:
        return _Restricted(file, source, **options).load()
    except pickle.UnpicklingError as error:
        text = str(error)
        if text.startswith("Weights only load failed"):
            raise
        advice = _ADVICE if text.startswith(("Unsupported global", "Can only build")) else " "
        raise pickle.UnpicklingError(f"Weights only load failed.{advice}{text}") from None
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise _refuse(f"The pickle is damaged: {type(error).__name__} {error}") from None


# ------------------------------------------------------------------------------------- map_location


def locator(map_location: Any) -> Callable[[LoadedStorage], LoadedStorage]:
    """What `map_location` does to a storage: the storage, or RuntimeError for a device that is not
    here."""
    if map_location is None:
        return lambda storage: _here(storage, storage.location)
    if isinstance(map_location, Mapping):
        return lambda storage: _here(
            storage, str(map_location.get(storage.location, storage.location))
        )
    if isinstance(map_location, (str, device)):
        return lambda storage: _here(storage, str(map_location))

    if not callable(map_location):
        raise TypeError(
            f"map_location: {type(map_location).__name__!r} object is not callable; expected a "
            "device, its name, a dictionary of names or a function"
        )

    def move(storage: LoadedStorage) -> LoadedStorage:
        found = map_location(storage, storage.location)
        return _here(storage, storage.location) if found is None else found

    return move


def _here(storage: LoadedStorage, location: str) -> LoadedStorage:
    kind = location.split(":")[0]
    if kind in ("cpu", "meta") or (kind == "cuda" and gpus()):
        storage.place = check_device(location)
        return storage
    if kind == "cuda":
        raise RuntimeError(NO_CUDA)
    raise RuntimeError(
        "don't know how to restore data location of torch.storage.UntypedStorage (tagged "
        f"with {location})"
    )


# ---------------------------------------------------------------------------------- the two formats


class ZipSource:
    """Storages of an open zip archive."""

    def __init__(self, archive: zipfile.ZipFile, mapped: np.ndarray | None, map_location: Any):
        self.archive, self.mapped = archive, mapped
        names = archive.namelist()
        found = [n for n in names if n.endswith("/data.pkl")]
        if len(found) != 1:
            raise RuntimeError("the archive has no data.pkl: was it written by torch.save?")
        if any(n.endswith("/constants.pkl") for n in names):
            raise RuntimeError(
                "this is a TorchScript archive: save the model's state_dict() with torch.save "
                "and load that"
            )
        self.root = found[0][: -len("data.pkl")]
        name = f"{self.root}byteorder"
        self.swap = name in names and archive.read(name).decode() != sys.byteorder
        self.place = locator(map_location)
        self.known: dict[str, LoadedStorage] = {}

    def __call__(self, ir: DType | None, key: str, count: int, location: str) -> LoadedStorage:
        if key not in self.known:
            raw = self._bytes(f"{self.root}data/{key}")
            array = _as_array(raw, ir, count, self.swap, f"storage {key}")
            self.known[key] = self.place(LoadedStorage(array, location))
        return self.known[key]

    def _bytes(self, name: str) -> Any:
        info = self.archive.getinfo(name)
        if self.mapped is None:
            return self._read(info)
        header = self.mapped[info.header_offset : info.header_offset + 30].tobytes()
        name_length, extra_length = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        start = info.header_offset + 30 + name_length + extra_length
        return self.mapped[start : start + info.file_size]

    def _read(self, info: zipfile.ZipInfo) -> np.ndarray:
        """A file of the archive, read to where it stays: large models have no room for copies."""
        raw, done = np.empty(info.file_size, np.uint8), 0
        file: Any
        with self.archive.open(info) as file:
            while done < raw.size and (count := file.readinto(raw[done:])):
                done += count
        return raw[:done]


def _as_array(raw: np.ndarray, ir: DType | None, count: int, swap: bool, what: str) -> np.ndarray:
    size = 1 if ir is None else ir.itemsize
    if raw.size != count * size:
        raise RuntimeError(
            f"{what} has {raw.size} bytes, expected {count} elements of {ir}: the file is damaged"
        )
    if ir is None:
        return raw
    aligned = raw.ctypes.data % size == 0
    array = raw.view(ir.numpy) if aligned else np.frombuffer(bytearray(raw.tobytes()), ir.numpy)
    return array.byteswap() if swap else array


def read_zip(
    file: Any, trusting: bool, map_location: Any, mapped: bool, pickle_module: Any, **options: Any
) -> Any:
    """An archive of ``data.pkl`` and storages, as PyTorch 1.6 and newer write."""
    import zipfile  # not before a file is read

    view = None
    if mapped:
        view = np.frombuffer(MappedFile(file.fileno()), np.uint8)
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise RuntimeError(
            f"failed reading zip archive: {error}. The file is damaged: it was not saved or "
            "transferred completely, or modified after saving"
        ) from None
    with archive:
        source = ZipSource(archive, view, map_location)
        data = io.BytesIO(archive.read(f"{source.root}data.pkl"))
        return unpickle(data, source, trusting, pickle_module, **options)


class LegacySource:
    """Storages whose elements follow the pickle: made empty, and filled by `fill`."""

    def __init__(self, map_location: Any):
        self.place = locator(map_location)
        self.known: dict[str, tuple[LoadedStorage, LoadedStorage]] = {}  # as in the file, as placed
        self.sizes: dict[str, int] = {}  # elements in the file, bytes where it knows no dtype

    def __call__(self, ir: DType | None, key: str, count: int, location: str) -> LoadedStorage:
        if key not in self.known:
            made = LoadedStorage(np.zeros(count, np.uint8 if ir is None else ir.numpy), location)
            self.known[key], self.sizes[key] = (made, self.place(made)), count
        return self.known[key][1]

    def fill(self, keys: list[str], file: IO[bytes], swap: bool) -> None:
        """Read the elements; tensors made meanwhile are over the same memory."""
        for key in keys:
            array = self.known[str(key)][0].array
            count = int.from_bytes(file.read(8), "big" if swap else sys.byteorder)  # type: ignore[arg-type]
            raw = file.read(array.nbytes)
            size = self.sizes[str(key)]
            if count != size or len(raw) != array.nbytes:
                raise RuntimeError(
                    f"unexpected EOF, expected {size - count} more elements. The file "
                    "might be corrupted."
                )
            read = np.frombuffer(raw, array.dtype)
            array[...] = read.byteswap() if swap else read
            self.known[str(key)][1].filled()


def read_legacy(
    file: Any, trusting: bool, map_location: Any, pickle_module: Any, **options: Any
) -> Any:
    """Pickles and raw storages in one stream, as PyTorch before 1.6 wrote."""

    def plain() -> Any:
        return unpickle(file, _no_storage, False, None)

    if plain() != MAGIC_NUMBER:
        raise RuntimeError(
            "Invalid magic number; corrupt file? Expected a file written by torch.save"
        )
    version = plain()
    if version != PROTOCOL_VERSION:
        raise RuntimeError(f"Invalid protocol version: {version}")
    system = plain()
    source = LegacySource(map_location)
    result = unpickle(file, source, trusting, pickle_module, **options)
    source.fill(plain(), file, (sys.byteorder == "little") != system.get("little_endian", True))
    return result


def _no_storage(*args: Any) -> Any:
    raise pickle.UnpicklingError("a storage where none can be")


def is_zip(file: Any) -> bool:
    """Whether the bytes at the file's position begin a zip archive."""
    start = file.tell()
    head = file.read(4)
    file.seek(start)
    return bool(head == b"PK\x03\x04")
