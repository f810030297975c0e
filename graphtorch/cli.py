"""The command line: ``python -m graphtorch run script.py args...`` and ``python -m graphtorch
info``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import signal
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import _settings
from ._torch.install import COMPATIBLE
from ._torch.scripts import run_module, run_script, show_error
from .version import __version__


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    return given.call(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m graphtorch",
        description="PyTorch-style programs on compiled graphs.",
        epilog="Each command has its own help: python -m graphtorch run --help",
    )
    parser.add_argument("--version", action="version", version=f"graphtorch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    run = commands.add_parser(
        "run",
        help="run a program that says `import torch` on graphtorch",
        usage="python -m graphtorch run [--full-traceback] (script.py | -m module) [arguments ...]",
        description="Run a program written for PyTorch, unmodified, as `python script.py` would.",
    )
    run.add_argument(
        "--full-traceback",
        action="store_true",
        help="errors show graphtorch's own lines too, not only the program's",
    )
    run.add_argument(
        "-m",
        dest="module",
        nargs=argparse.REMAINDER,
        metavar="module",
        help="run a module, as `python -m module` would",
    )
    run.add_argument("script", nargs="?", help="a file, or a folder or zip file with a __main__.py")
    run.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="what the program finds in sys.argv"
    )
    run.set_defaults(call=_run, parser=run)
    info = commands.add_parser("info", help="print versions, the machine and the cache folder")
    info.set_defaults(call=_info)
    return parser


def _run(given: argparse.Namespace) -> int:
    if not given.module and given.script is None:
        given.parser.error("give a script, or -m and a module")
    if not given.module and not os.path.exists(given.script):
        given.parser.error(f"can't open file {given.script!r}: no such file")
    try:
        if given.module:
            run_module(given.module[0], given.module[1:])
        else:
            run_script(given.script, given.arguments)
    except KeyboardInterrupt as error:
        show_error(error, given.full_traceback)
        # ends as an interrupted Python does, for the shell
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception as error:  # SystemExit goes on: Python ends the process with its status
        show_error(error, given.full_traceback)
        return 1
    return 0


def _info(given: argparse.Namespace) -> int:
    cache = importlib.import_module("graphtorch.backends.cache")  # these two cost time to import
    target = importlib.import_module("graphtorch.backends.llvm.processor")
    rows = {
        "graphtorch": f"{__version__} (behaves as PyTorch {COMPATIBLE})",
        "installed in": str(Path(__file__).parent),
        "Python": f"{platform.python_version()} on {platform.platform()}",
        **{name: _version_of(name) for name in ("numpy", "llvmlite", "onnx", "safetensors")},
        "CPU": target.host().describe(),
        "threads": str(_settings.get_num_threads()),
        "GPU": "none is used: this version runs on CPUs",
        "cache": str(cache.folder() or "off"),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    return 0


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
