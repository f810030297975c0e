"""From object code to a shared library or a static archive."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path


def find_linker() -> list[str]:
    """The command that links: the host's C compiler, or the PyPI package ``ziglang``.

    Raises:
        RuntimeError: neither is there.
    """
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return [path]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise RuntimeError(
        "aot.compile: a shared library needs a linker and there is no cc, gcc or clang on PATH: install one, "
        "or `pip install ziglang`, or write a .o or .a file, which needs none"
    )


def shared_library(code: bytes, path: Path) -> None:
    """Link object `code` into the shared library `path`, whole or not at all."""
    command = find_linker()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source, result = Path(folder) / "code.o", Path(folder) / path.name
        source.write_bytes(code)
        done = subprocess.run([*command, "-shared", "-o", str(result), str(source), "-lm",
                               "-Wl,-z,noexecstack", "-Wl,-z,nodelete", "-Wl,--as-needed"],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"aot.compile: linking {path.name} failed:\n{done.stderr.strip()}")
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
    """Write `path` through a temporary file, so that nobody sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
