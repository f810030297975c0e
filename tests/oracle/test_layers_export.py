"""Bags, adaptive softmax, fractional pooling and CTC as ONNX models and as native libraries."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn

RNG = np.random.default_rng(6)


class Adaptive(nn.Module):
    def __init__(self):
        super().__init__()
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10], div_value=2.0)

    def forward(self, x):
        return self.softmax.log_prob(x), self.softmax.predict(x)


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("samples", gt.rand(1, 3, 2))

    def forward(self, x):
        samples = self.samples.expand(x.shape[0], 3, 2)
        return nn.functional.fractional_max_pool2d(
            x, 2, output_size=4, return_indices=True, _random_samples=samples
        )


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def rows(n):
    return (array(n, 8),)


INDEX, STARTS = np.array([1, 2, 3, 4, 5, 2]), np.array([0, 2, 2])
CTC = (array(6, 2, 5), np.array([[1, 2], [3, 3]]), np.array([6, 5]), np.array([2, 1]))
CASES = {
    **{
        f"{mode} of bags": (
            lambda mode=mode: nn.EmbeddingBag(9, 4, mode=mode, padding_idx=2),
            [(INDEX, STARTS)],
        )
        for mode in ("sum", "mean", "max")
    },
    "bags of one length": (lambda: nn.EmbeddingBag(9, 4, mode="max"), [(INDEX.reshape(2, -1),)]),
    "adaptive softmax": (Adaptive, [rows(3), rows(6)]),
    "fractional pool": (Pool, [(array(2, 3, 9, 9),), (array(5, 3, 9, 9),)]),
    "ctc": (lambda: nn.CTCLoss(reduction="none"), [CTC]),
}
DYNAMIC = ("adaptive softmax", "fractional pool")


@pytest.mark.parametrize("kind", ["onnx", "library"])
@pytest.mark.parametrize("name", CASES)
def test_export(name, kind, tmp_path):
    gt.manual_seed(0)
    make, inputs = CASES[name]
    model = make().eval()
    example = tuple(map(gt.tensor, inputs[0]))
    dynamic = {0: {0: gt.Dim("batch", min=1, max=16)}} if name in DYNAMIC else None
    if kind == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        path = str(tmp_path / "model.onnx")
        gt.onnx.export(model, example, path, dynamic_shapes=dynamic)
        session = onnxruntime.InferenceSession(path)
        names = [i.name for i in session.get_inputs()]
    else:
        gt.aot.compile(model, example, tmp_path / "model.so", dynamic=dynamic)
        library = gt.aot.load(tmp_path / "model.so")
        names = None
    for arrays in inputs:
        if names is None:
            found = library(*arrays)
        else:
            found = session.run(None, dict(zip(names, arrays, strict=True)))
        with gt.no_grad():
            want = model(*map(gt.tensor, arrays))
        for a, b in zip(found, want if isinstance(want, tuple) else (want,), strict=True):
            np.testing.assert_allclose(a, b.numpy(), 1e-4, 1e-5)
