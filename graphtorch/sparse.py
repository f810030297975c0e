"""Functions on sparse COO tensors (``torch.sparse``); the tensors are made by ``torch.sparse_coo_tensor``."""

from __future__ import annotations

from ._sparse import addmm, mm
from ._sparse import sparse_sum as sum

__all__ = ["addmm", "mm", "sum"]
