"""Transformers with two dynamic sizes: as ONNX models and as native libraries."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as gt
from graphtorch import nn

SIZES = (2, 3), (5, 7), (1, 1)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x, padding):
        return self.encoder(x, src_key_padding_mask=padding)


@pytest.fixture(scope="module")
def encoder():
    gt.manual_seed(0)
    return Encoder().eval()


def inputs(n, length):
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, length, 8)).astype(np.float32), rng.random((n, length)) > 0.8


def dynamic():
    sizes = {0: gt.Dim("batch", min=1, max=16), 1: gt.Dim("length", min=1, max=64)}
    return {0: sizes, 1: sizes}


def expected(encoder, arrays):
    with gt.no_grad():
        return encoder(*map(gt.tensor, arrays)).numpy()


@pytest.mark.parametrize("opset", [18, 23])
def test_onnx(encoder, opset, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = str(tmp_path / "encoder.onnx")
    model = gt.onnx.export(
        encoder,
        tuple(map(gt.tensor, inputs(2, 3))),
        path,
        opset_version=opset,
        dynamic_shapes=dynamic(),
    )
    assert ("Attention" in {n.op_type for n in model.graph.node}) == (opset == 23)
    session = onnxruntime.InferenceSession(path)
    for size in SIZES:
        arrays = inputs(*size)
        names = [i.name for i in session.get_inputs()]
        (found,) = session.run(None, dict(zip(names, arrays, strict=True)))
        np.testing.assert_allclose(found, expected(encoder, arrays), 1e-4, 1e-5)


def test_library(encoder, tmp_path):
    path = tmp_path / "encoder.so"
    gt.aot.compile(encoder, tuple(map(gt.tensor, inputs(2, 3))), path, dynamic=dynamic())
    library = gt.aot.load(path)
    for size in SIZES:
        arrays = inputs(*size)
        (found,) = library(*arrays)
        np.testing.assert_allclose(found, expected(encoder, arrays), 1e-4, 1e-5)
