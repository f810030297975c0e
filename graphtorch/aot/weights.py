"""The weights of a library as safetensors files: as the model has them, and as its code reads
them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from .._torch.dataclass import dataclass

ALIGNMENT = 64
PREPARED = "graphtorch.prepared"  # the name of what the library's prologue makes


@dataclass(frozen=True)
class File:
    """A safetensors file.

    Attributes:
        header: the length of its text and the text, padded to a multiple of 64 bytes.
        data: the tensors' bytes.
        tensors: what the header says of each tensor, in the order of the data.
    """

    header: bytes
    data: bytes
    tensors: dict[str, dict[str, Any]]

    def offset(self, name: str) -> int:
        """Where in the data a tensor begins."""
        return int(self.tensors[name]["data_offsets"][0])


def plain(arrays: Mapping[str, np.ndarray]) -> File:
    """A file of `arrays`, as the package safetensors writes it but for padding."""
    if not arrays:
        return File(b"", b"", {})
    whole = safetensors_bytes({k: np.ascontiguousarray(a) for k, a in arrays.items()})
    length = 8 + int.from_bytes(whole[:8], "little")
    return File(_header(whole[8:length]), whole[length:], json.loads(whole[8:length]))


def prepared(made: bytes, given: File, read: Collection[str], layout: str) -> File:
    """A file of what the prologue `made`, and of those tensors in the file `given` that runs `read`
    as they are.

    Args: layout: a digest of how packed memory is laid out; part of the header, so that a library
        with another layout refuses the file.
    """
    made += bytes(-len(made) % ALIGNMENT)  # what follows is aligned as it was
    parts, end = [made], len(made)
    entry: dict[str, Any] = {"dtype": "U8", "shape": [end], "data_offsets": [0, end]}
    tensors = {PREPARED: entry}
    for name, about in given.tensors.items():
        if name in read:
            first, last = about["data_offsets"]
            parts.append(given.data[first:last])
            tensors[name] = {**about, "data_offsets": [end, end + last - first]}
            end += last - first
    text = json.dumps({"__metadata__": {"layout": layout}, **tensors}, separators=(",", ":"))
    return File(_header(text.encode()), b"".join(parts), tensors)


def _header(text: bytes) -> bytes:
    """`text` behind its length, such that the data after it is aligned."""
    text = text.rstrip(b" ")
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
