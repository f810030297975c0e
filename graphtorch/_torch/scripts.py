"""Runs a program in this process as ``python script.py`` would, with torch = graphtorch."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

from .._settings import FOLDER
from .install import install_as_torch


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a file (or a folder or zip file that holds a ``__main__.py``) as ``__main__``.

    Its `sys.argv` is ``[path, *arguments]`` and its `sys.path[0]` the folder it is in. What it
    raises is raised here.
    """
    install_as_torch()
    sys.argv[:] = [path, *arguments]
    if os.path.isdir(path) or _is_archive(path):
        del sys.path[0]  # the folder that `python -m` added; run_path puts `path` there
        runpy.run_path(path, run_name="__main__")
        return
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    exec(code, _main_module(path).__dict__)


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run the module or package `name` as ``python -m name`` would."""
    install_as_torch()
    sys.argv[:] = [name, *arguments]
    sys.path[0] = os.getcwd()
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _is_archive(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _main_module(path: str) -> ModuleType:
    """A fresh ``__main__``. It stays when the script has ended: exit handlers and pickles need
    it."""
    module = ModuleType("__main__")
    module.__file__ = path
    module.__loader__ = SourceFileLoader("__main__", path)
    module.__dict__.update(__builtins__=__builtins__, __annotations__={}, __cached__=None)
    sys.modules["__main__"] = module
    return module


# ------------------------------------------------------------------------------------------ errors


def show_error(error: BaseException, full: bool) -> None:
    """Report an error that ended the program through ``sys.excepthook``, as the interpreter would.

    Args:
        full: keep the lines of graphtorch itself. Lines of the machinery that started the program
            never show.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _users_lines(one.__traceback__, full)
        pending += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    sys.excepthook(type(error), error, error.__traceback__)


def _users_lines(trace: TracebackType | None, full: bool) -> TracebackType | None:
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    started = next((i + 1 for i, f in reversed(list(enumerate(frames))) if _starts_programs(f)), 0)
    kept: TracebackType | None = None
    for frame in reversed(frames[started:]):
        if full or not frame.tb_frame.f_code.co_filename.startswith(FOLDER):
            kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept


def _starts_programs(trace: TracebackType) -> bool:
    code = trace.tb_frame.f_code
    return code.co_filename in (__file__, runpy.__file__, "<frozen runpy>") and code.co_name in (
        "run_script",
        "run_module",
        "_run_code",
        "run_path",
        "_run_module_code",
    )
