"""The operations on tensors, family by family. Importing fills the tables FUNCTIONS and METHODS."""

from __future__ import annotations

from . import (
    compare,
    exponents,
    factor,
    gamma,
    indexing,  # masks and index tensors
    linalg,
    lowrank,
    matrix_functions,
    norms,
    order,
    pointwise,
    reduce,
    repeated,
    scatter,
    shape,
    sized_by_data,
    sparse_products,
    statistics,
    strides,
    views,
)

from . import convert  # isort: skip  # after the families it refers to
from .autocast import cast_on_gpus
from .base import FUNCTIONS, METHODS

cast_on_gpus(FUNCTIONS)
cast_on_gpus(METHODS)

__all__ = [
    "FUNCTIONS",
    "METHODS",
    "compare",
    "convert",
    "exponents",
    "factor",
    "gamma",
    "indexing",
    "linalg",
    "lowrank",
    "matrix_functions",
    "norms",
    "order",
    "pointwise",
    "reduce",
    "repeated",
    "scatter",
    "shape",
    "sized_by_data",
    "sparse_products",
    "statistics",
    "strides",
    "views",
]
