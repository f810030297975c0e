"""``torch.signal``: windows."""

from __future__ import annotations

from .._torch.absent import attribute_of

__getattr__ = attribute_of(__name__, {"windows"})
