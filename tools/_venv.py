"""Runs the tools in the repository's own virtual environment, made on first use."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
PYTHON = FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(*extras: str) -> None:
    """Continue in `.venv` with graphtorch and `extras` installed, restarting this program if need
    be.

    The installation is repeated only when pyproject.toml or the constraints file changed since.
    """
    if sys.version_info < (3, 11):  # noqa: UP036  (this program is started with whatever Python there is)
        raise SystemExit(f"graphtorch needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    install(*extras)
    if Path(sys.prefix).resolve() != FOLDER.resolve():
        os.execv(PYTHON, [str(PYTHON), *sys.argv])


def install(*extras: str) -> None:
    """Make `.venv` and install graphtorch with `extras`, unless that is done already."""
    if not PYTHON.exists():
        print(f"Creating {FOLDER.name}/ ...", flush=True)
        venv.create(FOLDER, with_pip=True)
    constraints = os.environ.get("GRAPHTORCH_CONSTRAINTS", "")
    missing = [extra for extra in extras or ("",) if not _stamp(extra, constraints).exists()]
    if not missing:
        return
    wanted = ",".join(extra for extra in extras if extra)
    print(
        f"Installing graphtorch{f'[{wanted}]' if wanted else ''} and what it needs ...", flush=True
    )
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",  # half the time goes into modules that nobody imports
        "--editable",
        f"{ROOT}[{wanted}]" if wanted else str(ROOT),
    ]
    if constraints:
        command += ["--constraint", constraints]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit("Installation failed: see pip's message above (is there a network?)")
    for extra in extras or ("",):
        _stamp(extra, constraints).touch()


def _stamp(extra: str, constraints: str) -> Path:
    """A file that exists once `extra` is installed as pyproject.toml asks today."""
    content = (ROOT / "pyproject.toml").read_bytes() + constraints.encode()
    return FOLDER / f".installed-{extra or 'core'}-{hashlib.sha256(content).hexdigest()[:12]}"
