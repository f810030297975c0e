"""What `tune=` of `compile` and `aot.compile` may be."""

from __future__ import annotations

import math
from typing import Any

TUNE_SECONDS = 30.0  # that tune=True stands for


def seconds_of(tune: Any, where: str) -> float:
    """The time for measuring that `tune` stands for; 0 for none.

    Raises: TypeError, ValueError: it stands for none.
    """
    if isinstance(tune, bool) or tune is None:
        return TUNE_SECONDS if tune else 0.0
    if not isinstance(tune, (int, float)):
        raise TypeError(
            f"{where}: tune must be True, False or a number of seconds, not {type(tune).__name__}"
        )
    if not (0 < tune < math.inf):
        raise ValueError(
            f"{where}: tune={tune!r}: a number of seconds has to be positive and finite"
        )
    return float(tune)
