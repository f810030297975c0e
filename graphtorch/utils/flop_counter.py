"""``torch.utils.flop_counter``: what it is there for here is to be asked before anything was counted.

Operations run as parts of compiled graphs, so that counting them as they are called would count other ones
than
those that run. https://docs.pytorch.org/docs/stable/ (torch.utils.flop_counter)
"""

from __future__ import annotations

from typing import Any, NoReturn

from .._torch.absent import attribute_of


class FlopCounterMode:
    """Counts floating-point operations inside of a block: entering one raises RuntimeError."""

    def __init__(self, mods: Any = None, depth: int = 2, display: bool = True, custom_mapping: Any = None):
        self.flop_counts: dict[str, dict[Any, int]] = {}

    def __enter__(self) -> NoReturn:
        raise RuntimeError("FlopCounterMode: operations run as parts of compiled graphs here; "
                           "graphtorch.compile(f).explain() lists the FLOPs of each kernel")

    def __exit__(self, *exc: object) -> None:
        pass

    def get_flop_counts(self) -> dict[str, dict[Any, int]]:
        """For each module what was counted: nothing."""
        return self.flop_counts

    def get_total_flops(self) -> int:
        """What was counted: 0."""
        return 0


__all__ = ["FlopCounterMode"]
__getattr__ = attribute_of(__name__)
