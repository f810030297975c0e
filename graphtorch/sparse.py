"""Functions on sparse COO tensors (``torch.sparse``); the tensors are made by
``torch.sparse_coo_tensor``."""

from __future__ import annotations

from typing import Any

from . import _types
from ._ops.sparse import SparseTensor, sparse_coo_tensor
from ._ops.sparse import sparse_sum as sum
from ._ops.sparse_products import addmm, mm
from ._ops.sparse_softmax import log_softmax, softmax, spdiags
from ._torch.absent import attribute_of
from ._torch.legacy import LEGACY


class _LegacyType(type):
    """``torch.sparse.FloatTensor(indices, values, size)`` and its like."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, SparseTensor) and instance.dtype is cls.dtype

    def __call__(cls, *args: Any, **options: Any) -> SparseTensor:
        if args and isinstance(args[0], int):  # sizes alone
            args = (args,)
        if len(args) == 1:
            return sparse_coo_tensor(args[0], dtype=cls.dtype, **options)
        return sparse_coo_tensor(args[0], args[1], *args[2:], dtype=cls.dtype, **options)

    @property
    def dtype(cls) -> Any:
        return _types.DTYPES[LEGACY[cls.__name__]]


for _name, _dtype in LEGACY.items():
    _about = {"__module__": "torch.sparse", "__doc__": f"Sparse {_dtype} tensors."}
    globals()[_name] = _LegacyType(_name, (), _about)
__all__ = ["addmm", "log_softmax", "mm", "softmax", "spdiags", "sum"]
__getattr__ = attribute_of(__name__)
