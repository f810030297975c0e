"""``torch.ops``: operators by namespace and name.

``aten`` holds graphtorch's own functions, ``torchvision`` the operators of that library's
extension; others come from `torch.library`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from . import aten, torchvision
from .operators import ENTRIES, FINDERS, Overload, Packet, lookup

OpOverload, OpOverloadPacket = Overload, Packet  # as PyTorch's `torch._ops` names them
loaded_libraries: set[str] = set()
FINDERS["aten"] = FINDERS["prims"] = aten.find
FINDERS["torchvision"] = torchvision.find


class Namespace:
    """The operators of one library, ``torch.ops.mylib``."""

    def __init__(self, name: str):
        self.__name__ = self.name = name
        self.__module__ = "torch.ops"

    def __getattr__(self, op_name: str) -> Packet:
        found = None if op_name.startswith("__") else lookup(self.__dict__["name"], op_name)
        if found is None:
            raise AttributeError(
                f"'_OpNamespace' '{self.name}' object has no attribute '{op_name}'"
                f"{_instead(self.name, op_name)}"
            )
        self.__dict__[op_name] = found.packet
        return found.packet

    def __dir__(self) -> list[str]:
        return sorted(n.partition("::")[2] for n in ENTRIES if n.startswith(self.name + "::"))

    def __repr__(self) -> str:
        return f"<module 'torch.ops.{self.name}'>"


def _instead(namespace: str, name: str) -> str:
    if namespace == "image":
        return ": compiled extensions cannot be loaded; read images with Pillow and pil_to_tensor"
    if namespace == "aten":
        return ": graphtorch has no function of that name"
    return ": no operator of that name was registered with torch.library"


def load_library(path: str | os.PathLike[str]) -> None:
    """Make the operators of a compiled extension known: of torchvision's ``_C``, whose operators
    are ours.

    Raises:
        OSError: any other one. It is written against PyTorch's C++ interface, which is not here.
    """
    place = Path(os.fspath(path))
    if place.name.partition(".")[0] != "_C" or place.parent.name != "torchvision":
        raise OSError(
            f"torch.ops.load_library: {place.name} is compiled for PyTorch and cannot be loaded; "
            "write its operators in Python with torch.library.custom_op"
        )
    loaded_libraries.add(str(place))


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    made = globals()[name] = Namespace(name)
    return made


for _name in ("aten", "torchvision"):  # not the submodules of that name
    globals()[_name] = Namespace(_name)
