"""Settings of the process: threads, determinism, warnings."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from typing import Any

# a frame of a file below it is not the user's
FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep

# what was set, and what follows from it
chosen: dict[str, Any] = {
    "threads": None,
    "interop_threads": None,
    "deterministic": False,
    "warn_always": False,
}
# How float32 is computed on GPUs: of all backends, of CUDA, and of kinds of operations, which ask
# the former where they say "none". Kinds of cuDNN's that nobody set (None) are rounded.
_float32: dict[str, str | None] = {
    "generic": "none",
    "all": "none",
    "matmul": "none",
    "conv": None,
    "rnn": None,
}


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the user's line: that of the first frame outside this package, through however many
    of our own calls it came here."""
    frame, level = sys._getframe(1), 2
    while frame.f_code.co_filename.startswith(FOLDER) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_said: set[str] = set()


def warn_once(message: str) -> None:
    """As `warn_user`, once in a process, or each time under `set_warn_always`."""
    if message not in _said or chosen["warn_always"]:
        _said.add(message)
        warn_user(message)


def get_num_threads() -> int:
    """How many threads a compiled graph uses."""
    if chosen["threads"] is None:
        chosen["threads"] = importlib.import_module(
            "graphtorch.backends.llvm.processor"
        ).available_cpus()
    return chosen["threads"]


def set_num_threads(count: int) -> None:
    """Set how many threads a compiled graph uses; at least 1."""
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"set_num_threads expects an int, but got {type(count).__name__}")
    if count < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, but got {count}")
    chosen["threads"] = count
    importlib.import_module("graphtorch.backends.llvm.runtime").set_num_threads(count)


def set_num_interop_threads(count: int) -> None:
    """Takes how many operators may run at once, which one graph at a time does here; at least 1."""
    if not isinstance(count, int) or isinstance(count, bool):
        raise RuntimeError(
            f"set_num_interop_threads expects an int, but got {type(count).__name__}"
        )
    if count < 1:
        raise RuntimeError("set_num_interop_threads expects a positive integer")
    chosen["interop_threads"] = count


def get_num_interop_threads() -> int:
    """What `set_num_interop_threads` set, else 1."""
    return int(chosen["interop_threads"] or 1)


def set_flush_denormal(mode: bool) -> bool:
    """Whether the request was met: it never is, numbers next to 0 are computed as they are."""
    if type(mode) is not bool:
        raise TypeError(f"set_flush_denormal expects a bool, but got {type(mode).__name__}")
    return False


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Ask for the same bits from the same call, however often it came and whatever the number of
    threads.

    Without it two runs of a call may differ by rounding, since the first ones may be interpreted;
    signs, the order of equal elements and failures are the same in any case.
    """
    chosen["deterministic"] = bool(mode)


def deterministic() -> bool:
    """Whether a pending graph has to run as native code from its first call on.

    Native code gives the same bits for any number of threads: work is cut by sizes alone, and
    partial results are combined in a fixed order.
    """
    return chosen["deterministic"]


def are_deterministic_algorithms_enabled() -> bool:
    """Whether `use_deterministic_algorithms` is on."""
    return deterministic()


def set_warn_always(b: bool) -> None:
    """Whether warnings that are shown once per process are shown each time."""
    chosen["warn_always"] = bool(b)
    warnings.simplefilter("always" if b else "default", UserWarning)


def is_warn_always_enabled() -> bool:
    """Whether `set_warn_always` is on."""
    return chosen["warn_always"]


def set_float32_matmul_precision(precision: str) -> None:
    """How exact products of float32 are on GPUs; those of CPUs always are in float32.

    Args:
        precision: "highest": in float32. "high", "medium": factors may be rounded to TF32, which
            has 10 bits of fraction, a relative error of 2**-11 each; sums are in float32. Another
            string changes nothing, with a warning.
    """
    if precision not in ("highest", "high", "medium"):
        warn_user(
            f"{precision} is not one of 'highest', 'high', or 'medium'; the current "
            "setFloat32MatmulPrecision call has no effect.",
        )
        return
    set_float32("matmul", "ieee" if precision == "highest" else "tf32")
    chosen["precision"] = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` said, or "high" and "highest" for what
    `backends.cuda.matmul` was told since."""
    return chosen["precision"]


def set_float32(what: str, precision: str | None) -> None:
    """How to compute float32 on GPUs: "ieee", exactly, or "tf32", rounded to it where that pays.

    Args:
        what: "matmul", "conv", "rnn", "all" of these, or "generic": all of all backends.
        precision: "none" to leave it to "all" and "generic"; None to give a kind its default back.
    Raises: RuntimeError: another precision, or no string.
    """
    if precision == "bf16" and what != "generic":
        raise RuntimeError("backend 'cuda' does not support precision 'bf16'")
    if precision not in ("none", "ieee", "tf32", "bf16", None):
        raise RuntimeError(f"Unknown precision: {precision}. Expected none, ieee or tf32")
    _float32[what] = precision
    products, convolutions = (float32_precision(name) == "tf32" for name in ("matmul", "conv"))
    chosen["tf32"] = _allowed(products, convolutions)
    if what in ("generic", "all", "matmul"):
        chosen["precision"] = "high" if products else "highest"


def float32_precision(what: str) -> str:
    """What holds for a kind of operations: "none", "ieee" or "tf32"; "bf16" for "generic" only."""
    order = (what,) if what == "generic" else (what, "all", "generic")
    said = next((p for name in order if (p := _float32[name]) not in ("none", None)), None)
    if said is None:
        return "tf32" if _float32[what] is None else "none"
    return "none" if said == "bf16" and what != "generic" else said


@functools.cache
def _allowed(products: bool, convolutions: bool) -> tuple[bool, bool]:
    """One object for each: what was compiled compares it by identity."""
    return products, convolutions


chosen |= {"precision": "highest", "tf32": _allowed(False, True)}


def tf32() -> tuple[bool, bool]:
    """Whether GPUs may round factors of float32 to TF32: in products, in convolutions."""
    return chosen["tf32"]


PUBLIC = {
    f.__name__: f
    for f in (
        get_num_threads,
        set_num_threads,
        get_num_interop_threads,
        set_num_interop_threads,
        set_flush_denormal,
        use_deterministic_algorithms,
        are_deterministic_algorithms_enabled,
        set_warn_always,
        is_warn_always_enabled,
        set_float32_matmul_precision,
        get_float32_matmul_precision,
    )
}
