"""Functions of the interpreter's whose code is our own."""

from __future__ import annotations

import gc
import weakref

from graphtorch.backends.llvm import builtin


def test_definitions_outlive_the_table_of_them() -> None:
    """When the interpreter ends, it goes through functions whose module it has cleared by then."""
    builtin._made("gt_call", builtin._FAST, b"")
    definition = weakref.ref(builtin._definition("gt_call", builtin._FAST))
    builtin._definition.cache_clear()
    gc.collect()
    assert definition() is not None
