"""Tensors of either library compared to the bit, or within a number of roundings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import graphtorch

SPACING = {
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}


def bits(x: Any) -> np.ndarray:
    """The elements of a tensor of either library, 16-bit floats and complex numbers as wider
    reals."""
    if x.is_complex():
        module = torch if isinstance(x, torch.Tensor) else graphtorch
        x = module.view_as_real(x.resolve_conj() if module is torch else x)
    if x.dtype in (torch.bfloat16, torch.float16, graphtorch.bfloat16, graphtorch.float16):
        x = x.float()
    return np.asarray(x.detach().contiguous().numpy())


def same(ours: Any, theirs: Any, steps: float = 0.0, least: float = 0.05) -> None:
    """Equal to the bit, or within `steps` roundings of the larger of each two numbers and `least`.

    Where a number is what is left of a difference, one rounding of its parts is what counts.
    """
    assert str(ours.dtype).split(".")[-1] == str(theirs.dtype).split(".")[-1]
    assert tuple(ours.shape) == tuple(theirs.shape)
    found, expected = bits(ours), bits(theirs)
    if not steps:
        np.testing.assert_array_equal(found, expected)
        return
    spacing = SPACING.get(str(theirs.dtype).split(".")[-1], 0.0)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    a, b = found[finite].astype(np.float64), expected[finite].astype(np.float64)
    scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), least)
    worst = np.max(np.abs(a - b) - steps * scale * spacing, initial=0.0)
    assert worst <= 0, f"{worst:.3g} more apart than {steps} roundings"
