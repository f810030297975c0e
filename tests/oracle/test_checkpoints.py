"""Files of PyTorch read here, files of ours read by PyTorch, and training that moves between the
two."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch
from checkpoints import continued, model_of, optimizer_of, same_losses

torch = pytest.importorskip("torch")
SMALL = {"width": 4, "stages": 1, "blocks": 1}
DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "uint16",
    "uint32",
    "uint64",
]


def contents(t: Any, dtypes: Any = DTYPES) -> dict[str, Any]:
    base = t.arange(24.0).reshape(4, 6)
    named = t.nn.Parameter(t.ones(2))
    named.note = "kept"
    return {
        "dtypes": [t.tensor([0, 1, 3]).to(getattr(t, d)) for d in dtypes],
        "views": [
            base,
            base[1],
            base.t(),
            base[::2, 1:4],
            base.view(-1),
            base.diagonal(),
            base[:0],
        ],
        "zero-d": t.tensor(2.5),
        "parameter": t.nn.Parameter(t.ones(2, 2)),
        "frozen": t.nn.Parameter(t.ones(1), requires_grad=False),
        "named": named,
        "leaf": t.ones(2, requires_grad=True),
        "ordered": OrderedDict([("b", 1), ("a", t.zeros(1))]),
        "size": t.Size([2, 3]),
        "plain": [None, True, 7, 2.5, 1j, "text", b"bytes", (1, (2,)), {1, 2}, 1 << 70],
        "dtype": t.float16,
        "device": t.device("cpu"),
        "layout": t.strided,
        "sparse": t.sparse_coo_tensor([[0, 2], [1, 0]], [1.0, 2.0], (3, 2)).coalesce(),
    }


def array(x: Any) -> np.ndarray:
    return (x.float() if "bfloat16" in str(x.dtype) else x).detach().numpy()


def check(ours: Any, theirs: Any) -> None:
    """Equal structures, element for element."""
    if hasattr(theirs, "stride"):
        assert str(ours.dtype) == str(theirs.dtype) and tuple(ours.shape) == tuple(theirs.shape)
        if theirs.is_sparse:
            assert ours.is_sparse and ours.is_coalesced() == theirs.is_coalesced()
            ours, theirs = ours.to_dense(), theirs.to_dense()
        else:
            assert tuple(ours.stride()) == tuple(theirs.stride())
        assert ours.requires_grad == theirs.requires_grad
        np.testing.assert_array_equal(array(ours), array(theirs))
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            check(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            check(a, b)
    else:
        assert ours == theirs or str(ours) == str(theirs)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("writer", ["torch", "graphtorch"])
def test_everything_both_ways(writer: str, zipped: bool, tmp_path: Path) -> None:
    save, load = (torch, graphtorch) if writer == "torch" else (graphtorch, torch)
    # PyTorch does not read from the old format what it writes there of the last three dtypes
    dtypes = DTYPES[:-3] if load is torch and not zipped else DTYPES
    save.save(contents(save, dtypes), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    got, expected = load.load(tmp_path / "x.pt"), contents(load, dtypes)
    check(got, expected) if load is graphtorch else check(expected, got)
    assert got["named"].note == "kept" and type(got["ordered"]) is OrderedDict
    got["views"][0][1] = -1  # memory is shared as it was
    assert (got["views"][1] == -1).all() and (got["views"][2][:, 1] == -1).all()
    if zipped:
        mapped = load.load(str(tmp_path / "x.pt"), mmap=True)
        mapped["views"][0].add_(1)  # writes stay in memory
        check(load.load(tmp_path / "x.pt"), expected)


def test_file_objects() -> None:
    file = io.BytesIO()
    torch.save({"w": torch.arange(3)}, file)
    file.seek(0)
    assert graphtorch.load(file)["w"].tolist() == [0, 1, 2]
    for t in (torch, graphtorch):
        with pytest.raises(EOFError):
            t.load(io.BytesIO())


@pytest.mark.parametrize("writer", ["torch", "graphtorch"])
def test_whole_modules_and_optimizers(writer: str) -> None:
    save, load = (torch, graphtorch) if writer == "torch" else (graphtorch, torch)
    nn = save.nn
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(2, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4),
            act=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            drop=nn.Dropout(0.5),
            flat=nn.Flatten(),
            heads=nn.Linear(16, 3),
            gelu=nn.GELU(),
            ln=nn.LayerNorm(3),
        )
    )
    others = [
        nn.Upsample(scale_factor=2.0),
        nn.InstanceNorm1d(2),
        nn.PixelShuffle(2),
        nn.LSTM(2, 3, 2),
        nn.TransformerEncoderLayer(4, 2, 8),
        nn.ParameterDict({"a": nn.Parameter(save.ones(2))}),
    ]
    optimizer = save.optim.Adam(net.parameters(), lr=0.1)
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    net(save.tensor(x)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    save.save({"net": net.eval(), "others": nn.ModuleList(others)}, file)
    file.seek(0)
    got = load.load(file, weights_only=False)
    assert type(got["net"]).__module__.startswith(load.__name__) and not got["net"].training
    np.testing.assert_allclose(
        got["net"](load.tensor(x)).detach().numpy(),
        net(save.tensor(x)).detach().numpy(),
        1e-4,
        1e-5,
    )
    assert repr(got["others"]) == repr(nn.ModuleList(others))
    assert [n for n, _ in got["net"].named_parameters()] == [n for n, _ in net.named_parameters()]


@pytest.mark.parametrize(
    "location",
    [
        "cpu",
        "cuda",
        "foo",
        3,
        None,
        {"cuda:0": "cpu"},
        {"cpu": "cuda"},
        lambda storage, where: storage,
        lambda storage, where: None,
    ],
)
def test_map_location(location: Any) -> None:
    file = io.BytesIO()
    torch.save(torch.ones(2), file)
    results = []
    for t in (torch, graphtorch):
        file.seek(0)
        try:
            results.append(t.load(file, map_location=location).tolist())
        except Exception as error:
            results.append(type(error))
    assert results[0] == results[1]


def test_tensors_of_a_gpu() -> None:
    storage = graphtorch._files.loading.LoadedStorage(np.ones(2, np.float32), "cuda:0")
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        graphtorch._files.loading.locator(None)(storage)
    assert graphtorch._files.loading.locator({"cuda:0": "cpu"})(storage) is storage
    assert graphtorch._files.loading.locator("cpu")(storage) is storage


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_moves_between_the_two(kind: str, tmp_path: Path) -> None:
    """Save after some steps in one library; both continue with the same losses. There and back."""
    for save, load in ((torch, graphtorch), (graphtorch, torch)):
        first = model_of(save, **SMALL)
        optimizer = optimizer_of(save, kind, first)
        continued(save, first, optimizer, steps=2, seed=0, size=8)
        save.save(
            {"model": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt"
        )
        second = model_of(load, **SMALL)
        other = optimizer_of(load, kind, second)
        read = load.load(tmp_path / "c.pt")
        second.load_state_dict(read["model"])
        other.load_state_dict(read["optimizer"])
        same_losses(
            continued(save, first, optimizer, steps=3, seed=1, size=8),
            continued(load, second, other, steps=3, seed=1, size=8),
        )
