"""The operations on tensors, family by family. Importing fills the tables FUNCTIONS and METHODS."""

from __future__ import annotations

from .. import indexing  # masks and index tensors
from . import compare, linalg, pointwise, reduce, scatter, shape, strides, views

from . import convert  # isort: skip  # after the families it refers to
from .base import FUNCTIONS, METHODS

__all__ = [
    "FUNCTIONS", "METHODS", "compare", "convert", "indexing", "linalg", "pointwise", "reduce", "scatter",
    "shape", "strides", "views",
]
