"""Compiled code on disk, keyed by content.

One file an entry: a SHA-256 of this version's sources and the rest, then a JSON record with the
entry's names, and object code. Entries are written under a temporary name and renamed, so any
number of processes may share the folder; what is no file, does not match its hash or does not have
the name it is found under is deleted and made again. The folder belongs to the user alone (mode
0700), because code is loaded from it; where there is none, one warning is given and nothing is kept
beyond the process.

GRAPHTORCH_CACHE names the folder (default: ``$XDG_CACHE_HOME/graphtorch`` or
``~/.cache/graphtorch``; ``off`` for none), GRAPHTORCH_CACHE_MB its limit in MiB (default 1024).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import os
import stat
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llvmlite

from graphtorch import ir

from .locks import lock_across_forks

SUFFIX = ".gto"
LIMIT_MB = 1024
EVICT_EVERY = 16  # stores of this process between two looks at the folder's size
_lock = lock_across_forks()
# most processes store little and need not look; together they look often enough
_stores = os.getpid()
_warned = False


@functools.cache
def sources_digest() -> str:
    """A hash of the compiler itself: our own sources, llvmlite's and LLVM's versions."""
    here = Path(__file__).resolve().parent
    digest = hashlib.sha256(repr((llvmlite.__version__, _llvm())).encode())
    for folder in (here, Path(next(iter(ir.__path__)))):  # elsewhere in a wheel than in a checkout
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _llvm() -> object:
    """What tells this LLVM from another one, without loading it: the size of llvmlite's library,
    which it is part of; its version where that lies elsewhere."""
    for path in sorted(Path(llvmlite.__file__).with_name("binding").glob("*llvmlite.*")):
        if path.suffix in (".so", ".dylib", ".dll"):
            return path.stat().st_size
    return importlib.import_module("llvmlite.binding").llvm_version_info


def key(*parts: str) -> str:
    """The name of what is compiled from `parts` by this compiler."""
    digest = hashlib.sha256(sources_digest().encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.encode())
    return digest.hexdigest()


def load(name: str) -> tuple[dict[str, Any], bytes] | None:
    """The record and the object code stored as `name`, or None."""
    where = folder()
    if where is None:
        return None
    path = where / (name + SUFFIX)
    try:
        data = _read(path)
    except OSError:
        return None
    found = _unpack(data, name)
    with contextlib.suppress(OSError):
        if found is None:
            path.unlink()
        else:
            os.utime(path)  # the time of last use, for `_evict`
    return found


def _read(path: Path) -> bytes:
    """The bytes of a regular file; none of anything else, which may be a pipe that nobody writes
    to."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return b""
    with os.fdopen(file, "rb") as opened:
        return opened.read()


def store(names: str | Sequence[str], record: dict[str, Any], obj: bytes) -> None:
    """Keep `record` and `obj` under one name or several; a folder that takes no files costs one
    warning."""
    where = folder()
    if where is None:
        return
    listed = [names] if isinstance(names, str) else list(names)
    text = json.dumps({"names": listed, "record": record}).encode()
    body = len(text).to_bytes(8, "little") + text + obj
    paths = [where / (name + SUFFIX) for name in listed]
    try:
        _write(paths[0], _hash(body) + body)
        for path in paths[1:]:
            _link(paths[0], path)
    except OSError as error:
        _warn(f"cannot write to {where}: {error.strerror or error}")
    else:
        _evict(where)


def _hash(body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(sources_digest().encode())
    digest.update(body)
    return digest.digest()


def _unpack(data: bytes, name: str) -> tuple[dict[str, Any], bytes] | None:
    body = memoryview(data)[32:]
    if len(data) < 40 or _hash(body) != data[:32]:
        return None
    end = 8 + int.from_bytes(body[:8], "little")
    about = json.loads(bytes(body[8:end]))
    return (about["record"], bytes(body[end:])) if name in about["names"] else None


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _link(path: Path, to: Path) -> None:
    """One file under two names, or a copy where the file system has no links."""
    try:
        os.link(path, to)
    except FileExistsError:  # another process was here first
        return
    except OSError:
        _write(to, path.read_bytes())


def folder() -> Path | None:
    """The cache folder, made if need be; None where there is none to trust."""
    setting = os.environ.get("GRAPHTORCH_CACHE", "")
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = os.environ.get("HOME", "") if os.name == "posix" else str(Path.home())
    if setting:
        return None if setting == "off" else _usable(setting)
    if base or home:
        return _usable(str(Path(base or Path(home, ".cache")) / "graphtorch"))
    _warn("there is no HOME")
    return None


@functools.cache
def _usable(where: str) -> Path | None:
    """Whether `where` exists, or can be made, and is the user's own."""
    path = Path(where)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = path.stat()
    except OSError as error:
        _warn(f"cannot make {path}: {error.strerror or error}")
        return None
    if os.name == "posix" and (
        about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        _warn(f"{path} must belong to you and be writable by nobody else (chmod 700)")
        return None
    return path


def _warn(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"compiled code is not kept between runs: {reason}; set GRAPHTORCH_CACHE to a folder "
            "of yours",
            RuntimeWarning,
            stacklevel=2,
        )


def _limit() -> int:
    try:
        return int(os.environ.get("GRAPHTORCH_CACHE_MB", LIMIT_MB)) << 20
    except ValueError:
        return LIMIT_MB << 20


def _evict(where: Path) -> None:
    """Now and then: delete the least recently used entries beyond the limit, and what crashes left
    behind."""
    global _stores
    with _lock:
        _stores += 1
        if _stores % EVICT_EVERY:
            return
    entries = []
    for item in os.scandir(where):
        with contextlib.suppress(OSError):
            if item.name.endswith((SUFFIX, ".tmp")):
                about = item.stat()
                entries.append((about.st_mtime, about.st_size // max(1, about.st_nlink), item.path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= _limit():
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
