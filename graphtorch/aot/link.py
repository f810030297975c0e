"""From object code to a shared library or a static archive."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from graphtorch.backends.llvm.processor import host

from .._files.saving import write_then_rename


def find_linker(triple: str) -> list[str]:
    """The command that links for the platform `triple`: a C compiler, or the PyPI package
    ``ziglang``.

    Raises:
        RuntimeError: neither is there.
    """
    names, zig = ["cc", "gcc", "clang"], []
    if _platform(triple) != _platform(host().triple):
        machine, system = _platform(triple)
        names, zig = [f"{machine}-{system}-gnu-gcc"], ["-target", f"{machine}-{system}-gnu"]
    for name in names:
        path = shutil.which(name)
        if path:
            return [path]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", *zig]
    raise RuntimeError(
        f"aot.compile: a shared library for {triple} needs a linker and there is no "
        f"{_either(names)} on PATH: install one, or `pip install ziglang`, or write a .o or .a "
        "file, which needs none"
    )


def _either(names: list[str]) -> str:
    return " or ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _platform(triple: str) -> tuple[str, str]:
    """Machine and system of a triple such as ``x86_64-unknown-linux-gnu``."""
    machine, *rest = triple.split("-")
    known = next((s for s in ("linux", "darwin", "windows") if s in triple), "-".join(rest))
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine), known


def shared_library(code: bytes, path: Path, triple: str) -> None:
    """Link object `code` for the platform `triple` into the shared library `path`, whole or not at
    all."""
    command = find_linker(triple)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, result = Path(folder) / "code.o", Path(folder) / path.name
        source.write_bytes(code)
        done = subprocess.run(
            [
                *command,
                "-shared",
                "-o",
                str(result),
                str(source),
                "-lm",
                "-Wl,-z,noexecstack",
                "-Wl,-z,nodelete",
                "-Wl,--as-needed",
                "-ldl",
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(
                f"aot.compile: linking {path.name} for {triple} by {' '.join(command)} failed "
                f"(a .o or .a file needs no linker here):\n{done.stderr.strip()}"
            )
        result.replace(path)


def archive(code: bytes, path: Path, symbols: list[str]) -> None:
    """Write the static library `path` with one member and the symbol index that linkers ask for.

    The format is System V's ``ar``: https://man.freebsd.org/cgi/man.cgi?query=ar&sektion=5.
    """
    names = b"".join(s.encode() + b"\0" for s in symbols)
    index_size = 4 + 4 * len(symbols) + len(names)
    member_at = 8 + 60 + index_size + index_size % 2
    index = struct.pack(f">I{len(symbols)}I", len(symbols), *[member_at] * len(symbols)) + names
    content = b"!<arch>\n" + _member("/", index) + _member(path.stem[:14] + ".o/", code)
    write_whole(path, content)


def _member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def write_whole(path: Path, content: bytes) -> None:
    """Write `path` through a temporary file, so that nobody sees half of it; its mode is the
    umask's."""
    write_then_rename(str(path), lambda file: file.write(content))
