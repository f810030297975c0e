"""``torch.utils.tensorboard``: writes what TensorBoard shows. It needs the package `tensorboard`.

https://docs.pytorch.org/docs/stable/tensorboard.html
"""

from __future__ import annotations

try:
    from .writer import FileWriter, SummaryWriter
except ImportError as error:
    raise ImportError(
        f"torch.utils.tensorboard: {error}; it needs the package tensorboard (pip install "
        "tensorboard)"
    ) from error

from ..._torch.absent import attribute_of

__all__ = ["FileWriter", "SummaryWriter"]
__getattr__ = attribute_of(__name__)
