"""Models from folders with a ``hubconf.py`` (``torch.hub``). There are no downloads: give
``source="local"``.

https://docs.pytorch.org/docs/stable/hub.html
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

from .serialization import load as read

CONFIG = "hubconf.py"
_folder: str | None = None


def _get_torch_home() -> str:
    """``$TORCH_HOME``, or ``~/.cache/torch``."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """The folder for downloads: what `set_dir` said, or ``hub`` in ``$TORCH_HOME`` or
    ``~/.cache/torch``."""
    return os.path.join(_get_torch_home(), "hub") if _folder is None else _folder


def set_dir(d: str | os.PathLike[str]) -> None:
    """Set what `get_dir` says."""
    global _folder
    _folder = os.path.expanduser(d)


def list(
    github: str,
    force_reload: bool = False,
    skip_validation: bool = False,
    trust_repo: Any = None,
    verbose: bool = True,
    source: str = "local",
) -> Any:
    """The names of the entry points of the folder `github`."""
    module = _configuration(github, source)
    return [name for name, f in vars(module).items() if callable(f) and not name.startswith("_")]


def help(
    github: str,
    model: str,
    force_reload: bool = False,
    skip_validation: bool = False,
    trust_repo: Any = None,
    source: str = "local",
) -> str | None:
    """The docstring of the entry point `model`."""
    return _entry(_configuration(github, source), model).__doc__


def load(
    repo_or_dir: str | os.PathLike[str],
    model: str,
    *args: Any,
    source: str = "github",
    trust_repo: Any = None,
    force_reload: bool = False,
    verbose: bool = True,
    skip_validation: bool = False,
    **kwargs: Any,
) -> Any:
    """What the entry point `model` of the folder `repo_or_dir` returns for the other arguments.

    Raises:
        ValueError: an unknown `source`.
        RuntimeError: ``source="github"``, a missing dependency, or no such entry point.
        FileNotFoundError: the folder has no ``hubconf.py``.
    """
    return _entry(_configuration(repo_or_dir, source), model)(*args, **kwargs)


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = False,
) -> Any:
    """What the file of `url` in the cache holds: a state dict that was downloaded before.

    Args:
        model_dir: the folder; ``checkpoints`` in `get_dir` by default.
        file_name: its name there; that in the URL by default.

    Raises:
        FileNotFoundError: it is not there, and nothing is downloaded here.
    """
    folder = os.path.join(get_dir(), "checkpoints") if model_dir is None else model_dir
    place = os.path.join(folder, file_name or os.path.basename(urlparse(url).path))
    if not os.path.exists(place):
        raise FileNotFoundError(
            f"load_state_dict_from_url: nothing is downloaded here: fetch {url} "
            f"yourself and "
            f"put it at {place}"
        )
    return read(place, map_location=map_location, weights_only=weights_only)


def _configuration(folder: str | os.PathLike[str], source: str) -> ModuleType:
    if source not in ("github", "local"):
        raise ValueError(f'Unknown source: "{source}". Allowed values: "github" | "local".')
    if source == "github":
        raise RuntimeError(
            f"torch.hub: nothing is downloaded here: clone {os.fspath(folder)!r} yourself "
            "and pass its folder with source='local'"
        )
    place = os.path.join(os.path.expanduser(folder), CONFIG)
    spec = importlib.util.spec_from_file_location("hubconf", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(place))  # it imports what stands beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(os.path.dirname(place))
    needed = getattr(module, "dependencies", [])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"Missing dependencies: {', '.join(missing)}")
    return module


def _entry(module: ModuleType, model: str) -> Any:
    if not isinstance(model, str):
        raise ValueError("Invalid input: model should be a string of function name")
    found = vars(module).get(model)
    if not callable(found):
        raise RuntimeError(f"Cannot find callable {model} in hubconf")
    return found


__all__ = ["get_dir", "help", "list", "load", "load_state_dict_from_url", "set_dir"]
