"""What a plain run of the tests takes of many cases that are much alike."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import pytest


def sampled(values: Sequence[Any], count: int) -> list[Any]:
    """`values` for ``parametrize``: the first `count` always, the others with ``--every-variant``
    only."""
    return without(values, values[count:])


def without(values: Iterable[Any], left: Container[Any]) -> list[Any]:
    """The same, with `left` those that wait for ``--every-variant``."""
    return [pytest.param(v, marks=pytest.mark.more) if v in left else v for v in values]
