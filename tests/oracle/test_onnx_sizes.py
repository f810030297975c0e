"""Ordinary models exported with `dynamic_axes`: in ONNX Runtime right at sizes other than the
example's."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import aot, nn
from graphtorch.nn import functional as F
from sampling import without

onnxruntime = pytest.importorskip("onnxruntime")
needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a linker")

SEQUENCE = {0: "b", 1: "t"}, [(2, 5, 4), (3, 9, 4), (1, 7, 4)]
IMAGE = {0: "b", 2: "h", 3: "w"}, [(1, 3, 8, 8), (2, 3, 12, 10), (1, 3, 6, 14)]


LSTM = nn.LSTM(4, 3, batch_first=True)


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
    "chunks": lambda x: torch.cat(x.chunk(2, 2)[::-1], 2),
    "running mean": lambda x: x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None],
    "positions by sines": lambda x: (
        x + torch.sin(torch.arange(x.shape[1])[:, None] * torch.ones(4))
    ),
    "zeros like": lambda x: torch.cat([torch.zeros(x.shape[0], 1, x.shape[2]), x], 1),
    "mask by lengths": lambda x: x * (torch.arange(x.shape[1]) < x.shape[1] - 1)[None, :, None],
    "upper triangle": lambda x: (x @ x.mT).triu(1),
    "softmax over time": lambda x: (x * x.mean(2, keepdim=True).softmax(1)).sum(1),
    "layer norm": nn.LayerNorm(4),
    "flatten": lambda x: x.flatten(0, 1) * 2,
    "flip": lambda x: x.flip(1),
    "convolution over time": lambda x: F.conv1d(x.transpose(1, 2), torch.ones(2, 4, 3), padding=1),
    "lstm": lambda x: LSTM(x)[0],
    "outer": lambda x: torch.einsum("bti,bsi->bts", x, x),
    "stack": lambda x: torch.stack([x, x * 2], 2).reshape(x.shape[0], -1, x.shape[2]),
    "max over time": lambda x: F.adaptive_max_pool1d(x.transpose(1, 2), 1).squeeze(2),
    "half": lambda x: x[:, : (x.shape[1] + 1) // 2],
    "at least four": lambda x: x[:, : max(x.shape[1], 4)],
    "new_full": lambda x: x.new_full((x.shape[0], x.shape[1]), 0.5) + x[..., 0],
}
IMAGES: dict[str, Callable[[Any], Any]] = {
    "nearest": nn.Upsample(scale_factor=2),
    "nearest by 1.5": lambda x: F.interpolate(x, scale_factor=1.5),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda x: F.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=True
    ),
    "bilinear by half": lambda x: F.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "to a fixed size": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
    "as large as another": lambda x: F.interpolate(
        F.max_pool2d(x, 2), size=x.shape[2:], mode="bilinear"
    ),
    "skip connection": lambda x: torch.cat(
        [x, F.interpolate(F.max_pool2d(x, 2), size=x.shape[-2:])], 1
    ),
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
    "average pool": nn.AvgPool2d(2),
    "adaptive pool": nn.AdaptiveAvgPool2d(1),
    "adaptive max pool": nn.AdaptiveMaxPool2d(1),
    "transposed convolution": nn.ConvTranspose2d(3, 2, 2, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x[:, :1]], 1), 2),
    "batch norm": nn.BatchNorm2d(3),
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "patches": lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2),
    "global mean": lambda x: x.mean((2, 3)),
    "crop by half": lambda x: x[..., x.shape[2] // 2 :, : x.shape[3] // 2],
    "affine grid": lambda x: F.affine_grid(
        torch.eye(2, 3).expand(x.shape[0], 2, 3), x.shape, align_corners=False
    ),
    "grid_sample": lambda x: F.grid_sample(
        x,
        F.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), x.shape, align_corners=False),
        align_corners=False,
    ),
    "coordinates": lambda x: x + torch.arange(x.shape[3]) * torch.arange(x.shape[2])[:, None],
}
CASES = {
    **{k: (f, SEQUENCE) for k, f in SEQUENCES.items()},
    **{k: (f, IMAGE) for k, f in IMAGES.items()},
}


class Wrapped(nn.Module):
    def __init__(self, function: Callable[[Any], Any]):
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def exported(function: Callable[[Any], Any], axes: dict[int, str], example: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of an export with fixed sizes
        return torch.onnx.export(
            Wrapped(function).eval(),
            (example,),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes},
        )


@pytest.mark.parametrize("name", CASES)
def test_three_sizes(name: str) -> None:
    function, (axes, shapes) = CASES[name]
    xs = [
        torch.tensor(np.random.default_rng(0).standard_normal(s).astype(np.float32)) for s in shapes
    ]
    model = exported(function, axes, xs[0])
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    net = Wrapped(function).eval()
    for x in xs:
        found, wanted = session.run(None, {"x": x.numpy()})[0], net(x).detach().numpy()
        np.testing.assert_allclose(found, wanted, 1e-4, 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_three_sizes_compiled(name: str) -> None:
    function, (_, shapes) = CASES[name]
    net = Wrapped(function).eval()
    compiled = torch.compile(net)
    for shape in (*shapes, *shapes):
        x = torch.tensor(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
        np.testing.assert_allclose(
            compiled(x).detach().numpy(), net(x).detach().numpy(), 1e-4, 1e-4
        )


@needs_cc
@pytest.mark.parametrize("name", without(CASES, [*CASES][1::2]))
def test_three_sizes_as_a_library(name: str, tmp_path: Path) -> None:
    function, (axes, shapes) = CASES[name]
    xs = [np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in shapes]
    net = Wrapped(function).eval()
    dims = {axis: torch.Dim(label, min=1) for axis, label in axes.items()}
    compiled = aot.compile(net, torch.tensor(xs[0]), tmp_path / "m.so", dynamic={0: dims})
    with compiled.load() as library:
        for x in xs:
            np.testing.assert_allclose(
                library(x)[0], net(torch.tensor(x)).detach().numpy(), 1e-4, 1e-4
            )


def conditions(model: Any) -> list[str]:
    return [
        c
        for p in model.metadata_props
        if p.key == "graphtorch.conditions"
        for c in json.loads(p.value)
    ]


def test_what_a_model_assumes_of_its_sizes_is_written_down() -> None:
    x = torch.ones(2, 5, 4)
    for _ in range(2):  # nothing is remembered from the first export
        assert conditions(exported(SEQUENCES["first three"], SEQUENCE[0], x)) == ["t-3 >= 0"]
    assert conditions(exported(SEQUENCES["branch on a size"], SEQUENCE[0], x)) == ["t-4 >= 0"]
    assert conditions(exported(SEQUENCES["branch on a size"], SEQUENCE[0], x[:, :2])) == [
        "-t+3 >= 0"
    ]
    assert conditions(exported(SEQUENCES["last step"], SEQUENCE[0], x)) == []
    odd = conditions(exported(IMAGES["pixel_unshuffle"], IMAGE[0], torch.ones(1, 3, 8, 8)))
    assert {"-(h%2) >= 0", "-(w%2) >= 0"} <= set(odd)


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "float": lambda x: x / float(x.shape[1]),
    "len": lambda x: x * len(x[0]),
    "int of a half": lambda x: x[:, : int(x.shape[1] / 2)],
    "root": lambda x: x / x.shape[1] ** 0.5,
    "range": lambda x: sum(x[:, i] for i in range(x.shape[1])),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_sizes_needed_in_python_stay_with_a_warning(name: str, tmp_path: Path) -> None:
    """The other sizes stay free."""
    function, x = NUMBERS[name], torch.ones(2, 5, 4)
    with pytest.warns(UserWarning, match="size t is symbolic here.*t stays the example's size"):
        model = torch.onnx.export(
            Wrapped(function), (x,), input_names=["x"], dynamic_axes={"x": {0: "b", 1: "t"}}
        )
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value or d.dim_param for d in shape] == ["b", 5, 4]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y = torch.arange(60.0).reshape(3, 5, 4)
    np.testing.assert_allclose(session.run(None, {"x": y.numpy()})[0], function(y).numpy(), 1e-5)
    with pytest.warns(UserWarning, match="t stays the example's size"):
        dims = {0: torch.Dim("b"), 1: torch.Dim("t")}
        compiled = aot.compile(function, x, tmp_path / "m.a", dynamic={0: dims})
    assert "[b, 5, 4]" in compiled.header.read_text()
