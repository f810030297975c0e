"""`dataclass` of `graphtorch.ir`, which mypy takes for the standard library's. It reads each of our
three folders by itself, and so would know nothing of a decorator that comes from another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass, field
else:
    from graphtorch.ir.dataclass import dataclass, field

__all__ = ["dataclass", "field"]
