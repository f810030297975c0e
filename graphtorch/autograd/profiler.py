"""``torch.autograd.profiler``, the older names of `graphtorch.profiler`."""

from __future__ import annotations

from typing import Any

from .. import profiler as _newer
from .._torch.absent import attribute_of
from ..profiler import Event, EventList, emit_itt, emit_nvtx, kineto_available, record_function


class profile(_newer.profile):
    """``with profile() as p:`` times the marked blocks, unless `enabled` is False."""

    def __init__(self, enabled: bool = True, **options: Any):
        super().__init__()
        self.enabled = enabled

    def start(self) -> None:
        if self.enabled:
            super().start()

    def stop(self) -> None:
        if self.enabled:
            super().stop()

    @property
    def function_events(self) -> list[Event]:
        """What was recorded."""
        return self.events()

    def table(self, sort_by: str | None = None, row_limit: int = 100, **options: Any) -> str:
        """The averages as text."""
        return self.key_averages().table(sort_by, row_limit)

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all that was recorded."""
        return sum(a.cpu_time_total for a in self.key_averages())


__all__ = [
    "EventList",
    "emit_itt",
    "emit_nvtx",
    "kineto_available",
    "profile",
    "record_function",
]
__getattr__ = attribute_of(__name__)
