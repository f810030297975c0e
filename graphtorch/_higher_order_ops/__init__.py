"""``torch._higher_order_ops``: operations that take functions."""

from __future__ import annotations

from .._captured.control import cond, scan, while_loop
from .._torch.absent import attribute_of

__all__ = ["cond", "scan", "while_loop"]
__getattr__ = attribute_of(__name__, {"associative_scan"})
