"""How many of the random programs a plain run of the tests takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def sampled(values: Sequence[int], count: int) -> list[object]:
    """`values` for ``parametrize``: the first `count` always, the others with ``--every-variant``
    only."""
    more = (pytest.param(v, marks=pytest.mark.more) for v in values[count:])
    return [*values[:count], *more]
