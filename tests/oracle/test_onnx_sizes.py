"""Ordinary models exported with `dynamic_axes`: in ONNX Runtime right at sizes other than the example's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.nn import functional as F

onnxruntime = pytest.importorskip("onnxruntime")

SEQUENCE = {0: "b", 1: "t"}, [(2, 5, 4), (3, 9, 4), (1, 7, 4)]
IMAGE = {0: "b", 2: "h", 3: "w"}, [(1, 3, 8, 8), (2, 3, 12, 10), (1, 3, 6, 14)]


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.cells(x)[0][:, -1, :])


def causal(x: Any) -> Any:
    mask = torch.tril(torch.ones(16, 16))[: x.shape[1], : x.shape[1]]
    return (x @ x.transpose(1, 2)).masked_fill(mask == 0, -1e9).softmax(-1) @ x


def windows(x: Any) -> Any:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1)


SEQUENCES: dict[str, Callable[[Any], Any]] = {
    "last step": Last(),
    "first token": lambda x: x[:, 0],
    "differences": lambda x: x[:, 1:] - x[:, :-1],
    "first three": lambda x: x[:, :3],
    "last two": lambda x: x[:, -2:].mean(1),
    "every other": lambda x: x[:, ::2],
    "inner": lambda x: x[:, 1:-1],
    "narrow": lambda x: x.narrow(1, 1, x.shape[1] - 1),
    "table of positions": lambda x: x + torch.arange(64.0).view(16, 4)[: x.shape[1]],
    "causal mask": causal,
    "branch on a size": lambda x: x * 2 if x.shape[1] > 3 else x,
    "pad to even": lambda x: F.pad(x, (0, 0, 0, 1)) if x.shape[1] % 2 else x,
    "topk": lambda x: x.topk(3, 1)[0],
    "linspace": lambda x: x + torch.linspace(0, 1, x.shape[1])[:, None],
    "arange": lambda x: x + torch.arange(x.shape[1])[:, None],
    "size as a tensor": lambda x: x * torch.tensor(x.shape[1]),
    "split in two": lambda x: x.split([2, x.shape[1] - 2], 1)[1],
    "roll": lambda x: torch.roll(x, (1, -1), (1, 2)),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "heads": lambda x: x.reshape(x.shape[0], x.shape[1], 2, 2).transpose(1, 2),
    "class token": lambda x: torch.cat([torch.ones(1, 1, 4).expand(x.shape[0], -1, -1), x], 1),
    "last of each": lambda x: x[torch.arange(x.shape[0]), x.shape[1] - 1],
    "unbind": lambda x: x.unbind(2)[0],
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "encoder": nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "mean": lambda x: x.sum(0) / x.shape[0],
}
IMAGES: dict[str, Callable[[Any], Any]] = {
    "nearest": nn.Upsample(scale_factor=2),
    "nearest by 1.5": lambda x: F.interpolate(x, scale_factor=1.5),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    "bilinear by half": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "to a fixed size": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
    "as large as another": lambda x: F.interpolate(F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear"),
    "skip connection": lambda x: torch.cat([x, F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:])], 1),
    "every other pixel": lambda x: x[..., ::2, 1::2],
    "crop": lambda x: x[:, :, :6, :6],
    "centre": lambda x: x[:, :, x.shape[2] // 4 : x.shape[2] // 4 + 4],
    "reflection": nn.ReflectionPad2d(1),
    "replication": lambda x: F.pad(x, (1, 2, 3, 1), "replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), "circular"),
    "shifted windows": lambda x: torch.roll(x, (-1, -1), (2, 3)),
    "windows": windows,
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 3, padding=1),
    "strided convolution": nn.Conv2d(3, 4, 3, 2, 1),
    "group norm": nn.GroupNorm(1, 3),
    "coordinates": lambda x: x + torch.arange(x.shape[3]) * torch.arange(x.shape[2])[:, None],
}
CASES = {**{k: (f, SEQUENCE) for k, f in SEQUENCES.items()}, **{k: (f, IMAGE) for k, f in IMAGES.items()}}


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Any], Any]):
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def exported(function: Callable[[Any], Any], axes: dict[int, str], example: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an export with fixed sizes
        return torch.onnx.export(Wrapped(function).eval(), (example,), input_names=["x"], output_names=["y"],
                                 dynamic_axes={"x": axes})


@pytest.mark.parametrize("name", CASES)
def test_three_sizes(name: str) -> None:
    function, (axes, shapes) = CASES[name]
    xs = [torch.tensor(np.random.default_rng(0).standard_normal(s).astype(np.float32)) for s in shapes]
    model = exported(function, axes, xs[0])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    net = Wrapped(function).eval()
    for x in xs:
        found, wanted = session.run(None, {"x": x.numpy()})[0], net(x).detach().numpy()
        np.testing.assert_allclose(found, wanted, 1e-4, 1e-4)


def conditions(model: Any) -> list[str]:
    return [c for p in model.metadata_props if p.key == "graphtorch.conditions" for c in json.loads(p.value)]


def test_what_a_model_assumes_of_its_sizes_is_written_down() -> None:
    x = torch.ones(2, 5, 4)
    for _ in range(2):  # nothing is remembered from the first export
        assert conditions(exported(SEQUENCES["first three"], SEQUENCE[0], x)) == ["t-3 >= 0"]
    assert conditions(exported(SEQUENCES["branch on a size"], SEQUENCE[0], x)) == ["t-4 >= 0"]
    assert conditions(exported(SEQUENCES["branch on a size"], SEQUENCE[0], x[:, :2])) == ["-t+3 >= 0"]
    assert conditions(exported(SEQUENCES["last step"], SEQUENCE[0], x)) == []
    odd = conditions(exported(IMAGES["pixel_unshuffle"], IMAGE[0], torch.ones(1, 3, 8, 8)))
    assert {"-(h%2) >= 0", "-(w%2) >= 0"} <= set(odd)


def test_a_size_needed_in_python_is_said() -> None:
    with pytest.warns(UserWarning, match="exported with fixed sizes.*size t is symbolic"):
        model = torch.onnx.export(Wrapped(lambda x: x / float(x.shape[1])), (torch.ones(2, 5, 4),),
                                  input_names=["x"], dynamic_axes={"x": {1: "t"}})
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 5, 4]
