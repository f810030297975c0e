"""Finding the operation whose gradient fails or is NaN, laid out as PyTorch's module of this
name."""

from __future__ import annotations

from typing import Any

from .._settings import warn_user
from .grad_mode import _Mode, modes

__all__ = ["detect_anomaly", "set_detect_anomaly"]


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on in this thread."""
    return modes.anomaly


def is_anomaly_check_nan_enabled() -> bool:
    """Whether gradients are searched for NaN while anomaly detection is on."""
    return modes.check_nan


class set_detect_anomaly(_Mode):
    """Turns anomaly detection on or off, at once and, as a context manager, until the block ends.

    Operations recorded while it is on remember where they were called. A backward pass in which one
    of them fails, or (`check_nan`) gives NaN, warns with that place and raises RuntimeError. Slow:
    for debugging.
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self.before = modes.anomaly, modes.check_nan
        self.mode, self.check_nan = bool(mode), bool(check_nan)
        modes.anomaly, modes.check_nan = self.mode, self.check_nan

    def __enter__(self) -> None:
        modes.anomaly, modes.check_nan = self.mode, self.check_nan

    def __exit__(self, *exc: object) -> None:
        modes.anomaly, modes.check_nan = self.before

    def clone(self) -> set_detect_anomaly:
        return set_detect_anomaly(self.mode, self.check_nan)


class detect_anomaly(_Mode):
    """Inside, anomaly detection is on; see `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True):
        self.check_nan = check_nan
        warn_user(
            "Anomaly Detection has been enabled. This mode will increase the runtime and should "
            "only be enabled for debugging.",
        )

    def __enter__(self) -> None:
        self.before = modes.anomaly, modes.check_nan
        modes.anomaly, modes.check_nan = True, bool(self.check_nan)

    def __exit__(self, *exc: object) -> None:
        modes.anomaly, modes.check_nan = self.before

    def clone(self) -> detect_anomaly:
        return detect_anomaly(self.check_nan)


def report(fn: Any) -> None:
    """Warn with the place where the forward operation of `fn` was called."""
    lines = fn.metadata.get("traceback_")
    if lines is None:
        warn_user(
            f"Error detected in {fn.name()}. No forward pass information available. Enable detect "
            "anomaly during forward pass for more information.",
        )
    else:
        warn_user(
            f"Error detected in {fn.name()}. Traceback of forward call that caused the error:\n"
            + "".join(lines),
        )


def check(fn: Any, gradients: Any) -> None:
    """Raise where a gradient that `fn` made holds NaN."""
    for i, g in enumerate(gradients):
        if g is not None and g.dtype.is_floating_point and bool((g.detach() != g.detach()).any()):
            report(fn)
            raise RuntimeError(f"Function '{fn.name()}' returned nan values in its {i}th output.")
