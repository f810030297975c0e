"""Saving and loading: PyTorch's files, read and written, and safetensors.

A file is a zip archive of a pickle (``data.pkl``) in which tensors refer to raw storages
(``data/0``, ...). It is written under a temporary name and renamed. Loading runs no code from the
file unless ``weights_only=False``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from ._deferred.making import from_value
from ._deferred.storage import Leaf
from ._deferred.tensor import Tensor
from ._files.loading import is_zip, read_legacy, read_zip, safe
from ._files.saving import module_there, save, write_then_rename
from ._types import DTYPES

__all__ = [
    "add_safe_globals",
    "clear_safe_globals",
    "get_safe_globals",
    "load",
    "load_safetensors",
    "safe_globals",
    "save",
    "save_safetensors",
]

DEFAULT_PROTOCOL = 2


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """Let ``weights_only=True`` also make these classes and call these functions (or pairs of one
    and its name).
    """
    for item in safe_globals:
        found, name = (
            item if isinstance(item, tuple) else (item, f"{item.__module__}.{item.__qualname__}")
        )
        safe[name] = found
        module, _, own = name.rpartition(".")
        if module.startswith("graphtorch"):  # as files name it
            safe["torch" + name[len("graphtorch") :]] = safe[
                f"{module_there(module, own)}.{own}"
            ] = found


def clear_safe_globals() -> None:
    """Forget what `add_safe_globals` added."""
    safe.clear()


def get_safe_globals() -> list[Any]:
    """What `add_safe_globals` added."""
    return list(dict.fromkeys(safe.values()))


class safe_globals:
    """``with safe_globals([...]):`` adds them inside only."""

    def __init__(self, safe_globals: Iterable[Any]):
        self.given = list(safe_globals)

    def __enter__(self) -> None:
        self.before = dict(safe)
        add_safe_globals(self.given)

    def __exit__(self, *exc: object) -> None:
        safe.clear()
        safe.update(self.before)


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    encoding: str = "utf-8",
    **pickle_load_args: Any,
) -> Any:
    """Read what `save` or ``torch.save`` wrote to the path or binary file `f`, old or new.

    Args:
        map_location: where tensors go that were saved on another device: a device or its name, a
            dictionary of names, or a function of a storage and the name of its device. Only 'cpu'
            exists here.
        weights_only: True (the default) makes tensors, containers and numbers only, and refuses a
            file that asks for more; False lets the file name any class or function, and so run any
            code.
        mmap: leave tensors in the file, mapped into memory, until they are used; needs a path.
            Inference takes the least memory so: a compiled model keeps its weights packed, and
            the file's part leaves memory once that was made from it.
        encoding: of byte strings that Python 2 wrote.

    Raises: pickle.UnpicklingError for a refused file, RuntimeError for a damaged one or for tensors
    on a device that is not here, FileNotFoundError for a missing one.
    """
    if weights_only is None:
        weights_only = pickle_module is None
    if weights_only and pickle_module is not None:
        raise RuntimeError("Can not safely load weights when explicit pickle_module is specified")
    options = {"encoding": encoding, **pickle_load_args}
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            return _read(
                file, not weights_only, map_location, bool(mmap), pickle_module, options, f
            )
    if mmap:
        raise ValueError("f must be a file path in order to use the mmap argument")
    if not (hasattr(f, "read") and hasattr(f, "seek") and hasattr(f, "tell")):
        raise AttributeError(
            f"{type(f).__name__!r} object has no attribute 'seek'. You can only torch.load "
            "from a file that is seekable: expected a path or a binary file. "
            "Please pre-load the data into a buffer like io.BytesIO and try to "
            "load from it instead."
        )
    return _read(f, not weights_only, map_location, False, pickle_module, options, "")


def _read(
    file: Any,
    trusting: bool,
    map_location: Any,
    mapped: bool,
    pickle_module: Any,
    options: dict[str, Any],
    path: Any,
) -> Any:
    if is_zip(file):
        return read_zip(file, trusting, map_location, mapped, pickle_module, **options)
    if mapped:
        raise RuntimeError(
            "mmap can only be used with files saved with "
            f"`torch.save({path}, _use_new_zipfile_serialization=True), please "
            "torch.save your checkpoint with this option in order to use mmap."
        )
    return read_legacy(file, trusting, map_location, pickle_module, **options)


# -------------------------------------------------------------------------------------- safetensors

# In the order in which the package safetensors writes tensors, so that files of the same tensors
# have the same header (aot tells a weights file by it). Each type's alignment divides that of those
# before.
_SAFE_DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_SAFE_CODES = {name: code for code, name in _SAFE_DTYPES.items()}


def save_safetensors(
    tensors: dict[str, Tensor], filename: Any, metadata: dict[str, str] | None = None
) -> None:
    """Write named tensors as a safetensors file, under a temporary name that is then renamed.

    Layout (https://github.com/huggingface/safetensors): the length of a JSON header as 8 bytes, the
    header with dtype, shape and place of each tensor, then the elements.
    """
    content = safetensors_content(tensors, metadata)
    write_then_rename(os.fspath(filename), lambda file: file.write(content))


def safetensors_content(
    tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> bytes:
    """What `save_safetensors` writes."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    parts, end = [], 0
    order = list(_SAFE_CODES)
    for name, t in tensors.items():
        if t.dtype.name not in _SAFE_CODES:
            raise TypeError(f"safetensors cannot hold {name!r} of dtype {t.dtype}")
    for name, t in sorted(tensors.items(), key=lambda i: (order.index(i[1].dtype.name), i[0])):
        parts.append(np.ascontiguousarray(t.detach()._array()).tobytes())
        header[name] = {
            "dtype": _SAFE_CODES[t.dtype.name],
            "shape": list(t.shape),
            "data_offsets": [end, end + len(parts[-1])],
        }
        end += len(parts[-1])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def load_safetensors(filename: Any) -> dict[str, Tensor]:
    """The named tensors of a safetensors file."""
    with open(filename, "rb") as file:
        return tensors_of(file.read())


def tensors_of(content: bytes) -> dict[str, Tensor]:
    """The named tensors in the bytes of a safetensors file."""
    from safetensors import deserialize  # imported where used: `import graphtorch` stays fast

    tensors = {}
    for name, entry in deserialize(content):
        array = np.frombuffer(
            bytearray(entry["data"]), DTYPES[_SAFE_DTYPES[entry["dtype"]]].ir.numpy
        )
        tensors[name] = from_value(Leaf.of(array.reshape(entry["shape"])))
    return tensors
