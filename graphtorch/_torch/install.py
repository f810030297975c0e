"""graphtorch under the name ``torch``: an import hook for programs that were written for PyTorch.

``import torch.nn.functional as F`` then gives `graphtorch.nn.functional`, the same object. Nothing
is copied, so a tensor made under one name is one under the other.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from ..version import __version__
from .absent import nearest

PACKAGE = "graphtorch"
COMPATIBLE = "2.13.0"  # the PyTorch release whose behaviour graphtorch has
RENAMED = {  # PyTorch's modules that are part of another file here
    "torch.distributed.tensor._utils": "graphtorch.distributed.tensor",
    "torch.distributed.tensor.placement_types": "graphtorch.distributed.tensor",
    "torch.distributed.algorithms.join": "graphtorch.distributed.algorithms",
    "torch.distributed.fsdp.fully_sharded_data_parallel": "graphtorch.distributed.fsdp",
    "torch.distributed.constants": "graphtorch.distributed",
    "torch.distributed.distributed_c10d": "graphtorch.distributed",
    "torch.distributed._composable": "graphtorch.distributed.fsdp",
    "torch.distributed._composable.fsdp": "graphtorch.distributed.fsdp",
    "torch.distributed._tensor": "graphtorch.distributed.tensor",
    "torch.distributed.checkpoint.state_dict": "graphtorch.distributed.checkpoint",
    "torch.distributed.checkpoint.hf_storage": "graphtorch.distributed.checkpoint",
    "torch.distributed.checkpoint._consolidate_hf_safetensors": "graphtorch.distributed.checkpoint",
    "torch.distributed.checkpoint.default_planner": "graphtorch.distributed.checkpoint",
    "torch.distributed._functional_collectives": "graphtorch.distributed.collectives",
    "torch._custom_ops": "graphtorch.library",
    "torch._tensor": "graphtorch.tensor",
    "torch.nn.attention.flex_attention": "graphtorch.nn.flex_attention",
    "torch.nn.quantized": "graphtorch.ao.nn.quantized",
    "torch.quantization": "graphtorch.ao.quantization",
    "torch.nn.modules.channelshuffle": "graphtorch.nn.modules.flatten",
    "torch.nn.modules.fold": "graphtorch.nn.modules.flatten",
    "torch.nn.modules.instancenorm": "graphtorch.nn.modules.batchnorm",
    "torch.nn.modules.pixelshuffle": "graphtorch.nn.modules.flatten",
    "torch.nn.modules.upsampling": "graphtorch.nn.modules.flatten",
    "torch.onnx.symbolic_helper": "graphtorch.onnx.symbolic",
    **{f"torch.onnx.symbolic_opset{n}": "graphtorch.onnx.symbolic" for n in range(7, 21)},
}


def own_name(name: str) -> str:
    """``torch.nn``, and ``graphtorch.nn``, as ``graphtorch.nn``."""
    rest = name.removeprefix(PACKAGE).removeprefix("torch")
    return RENAMED.get("torch" + rest) or PACKAGE + rest


# Neither the loader nor the finder has a base class: `importlib.abc` loads what reads resources,
# temporary files and archives among it, which is a part of what `import graphtorch` takes.


class _SameModule:
    """Loads a module by handing out graphtorch's, untouched."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(own_name(spec.name))
        self.own = module.__spec__  # importing writes the new spec over it
        module.__dict__.setdefault("__path__", [])  # as `install_as_torch` does
        _alias_loaded(module.__name__)
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own


def _alias_loaded(package: str) -> None:
    """Give loaded modules of ours their names under ``torch``: importing those must not bind them
    again, over a function of that name."""
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(package + "."):
            sys.modules.setdefault("torch" + name.removeprefix(PACKAGE), module)


class _Finder:
    """Finds every module ``torch.x`` that graphtorch has as ``graphtorch.x``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top not in ("torch", PACKAGE):
            return None
        own = own_name(fullname)
        found = _spec_of(own)
        if found is None:
            raise _no_module(rest)
        if own == fullname:
            return None  # the usual finders load it
        loader: Any = _SameModule()
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, loader, is_package=is_package)


def _spec_of(own: str) -> ModuleSpec | None:
    """The spec of one of our modules, None where there is none."""
    loaded = sys.modules.get(own)
    if loaded is not None:
        return loaded.__spec__
    parent = importlib.import_module(own.rpartition(".")[0])
    places = getattr(parent, "__path__", None)
    if places is None:
        return None
    return importlib.machinery.PathFinder.find_spec(own, places)


def _no_module(rest: str) -> ModuleNotFoundError:
    """The error about ``torch.<rest>``; without `name`, so that ``from torch import rest`` shows it
    too."""
    parent, _, last = rest.rpartition(".")
    home = sys.modules[f"{PACKAGE}.{parent}" if parent else PACKAGE]
    import pkgutil  # of errors only

    modules = [m.name for m in pkgutil.iter_modules(getattr(home, "__path__", ()))]
    return ModuleNotFoundError(
        f"graphtorch has no 'torch.{rest}': neither a module nor an attribute of that name"
        f"{nearest(last, {*dir(home), *modules})}"
    )


_finder = _Finder()


def install_as_torch() -> None:
    """Make ``import torch`` (and ``torch.nn``, ``torch.utils.data``, ...) mean graphtorch from now
    on.

    ``torch.__version__`` becomes ``"2.13.0+graphtorch.<version>"``, so that programs that ask for a
    minimum find it. Names that graphtorch lacks raise AttributeError or ModuleNotFoundError,
    listing the nearest.

    Raises:
        RuntimeError: PyTorch itself is already imported in this process.
    """
    present = sys.modules.get("torch")
    own = sys.modules[PACKAGE]
    if present is own:
        return
    if present is not None:
        where = getattr(present, "__file__", "an unknown place")
        raise RuntimeError(
            f"install_as_torch(): 'torch' is already imported, from {where}; call "
            "graphtorch.install_as_torch() before anything imports torch, or run the program with "
            "python -m graphtorch run"
        )
    sys.meta_path.insert(0, _finder)
    for name, module in list(sys.modules.items()):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            sys.modules["torch" + name.removeprefix(PACKAGE)] = module
            # `from torch.nn.init import absent` asks the finder, and so is explained, in packages
            # only
            module.__dict__.setdefault("__path__", [])
    own.__dict__["__version__"] = f"{COMPATIBLE}+graphtorch.{__version__}"
