"""``torch.utils.model_zoo``: the older name of `torch.hub.load_state_dict_from_url`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .._torch.absent import attribute_of
from ..hub import load_state_dict_from_url as load_url

try:
    from tqdm import tqdm
except ImportError:

    class tqdm:  # type: ignore[no-redef]
        """In the place of the package `tqdm`, which is not installed: the loop without its bar."""

        def __init__(self, iterable: Iterable[Any] = (), *args: Any, **options: Any):
            self._iterable = iterable

        def __iter__(self) -> Iterator[Any]:
            return iter(self._iterable)

        def __enter__(self) -> tqdm:  # type: ignore[valid-type]
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def update(self, n: int = 1) -> None:
            """Nothing is shown."""


__all__ = ["load_url", "tqdm"]
__getattr__ = attribute_of(__name__)
