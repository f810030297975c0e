"""conv_transpose1d and its gradients against PyTorch over stride, padding, output padding and
dilation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

SETTINGS = [
    s
    for s in itertools.product((1, 2), (0, 1, 2), (0, 1, 2, 3), (1, 2, 4))
    if s[2] < max(s[0], s[3])
]


@pytest.mark.parametrize(("stride", "padding", "output_padding", "dilation"), SETTINGS)
def test_conv_transpose(stride: int, padding: int, output_padding: int, dilation: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 5), (2, 3, 3), (3,))
    ]
    options = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
    }
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    mine = [gt.tensor(a, requires_grad=True) for a in arrays]
    try:
        want = torch.nn.functional.conv_transpose1d(*theirs, **options)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            gt.nn.functional.conv_transpose1d(*mine, **options)
        return
    got = gt.nn.functional.conv_transpose1d(*mine, **options)
    cotangent = rng.standard_normal(tuple(want.shape)).astype(np.float32)
    want.backward(torch.tensor(cotangent))
    got.backward(gt.tensor(cotangent))
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), 1e-4, 1e-5)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), 1e-4, 1e-5)
