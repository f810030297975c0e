"""Saving and loading: memory sharing, refusal of code, damage, safetensors."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch._loading import _rebuild_tensor_v2
from graphtorch._pickling import LoadedStorage


def test_round_trip_keeps_sharing_and_dtypes(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    given = {"all": base, "row": base[1], "turned": base.t(), "half": torch.ones(2, dtype=torch.bfloat16),
             "flag": torch.tensor(True), "dtype": torch.int64, "size": torch.Size([1, 2]),
             "n": [1, 2.5, None]}
    torch.save(given, tmp_path / "a.pt")
    got = torch.load(tmp_path / "a.pt")
    got["all"][1] = 9
    assert got["row"].tolist() == [9.0] * 4 and got["turned"][:, 1].tolist() == [9.0] * 4
    assert got["half"].dtype is torch.bfloat16 and got["flag"].item() is True
    assert got["dtype"] is torch.int64 and got["size"] == (1, 2) and got["n"] == [1, 2.5, None]


def test_parameters_and_modules():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    file = io.BytesIO()
    torch.save(net, file)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(io.BytesIO(file.getvalue()))
    got = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert isinstance(got[0].weight, nn.Parameter) and got[0].weight.requires_grad
    np.testing.assert_array_equal(got[0].weight.detach().numpy(), net[0].weight.detach().numpy())


def test_code_in_a_file_is_refused():
    class Harm:
        def __reduce__(self):
            return os.system, ("true",)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Harm(), 2))
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system"):
        torch.load(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize(("offset", "size", "stride"),
                         [(0, (100,), (1,)), (3, (2,), (1,)), (-1, (1,), (1,)), (0, (2, 2), (9, 1))])
def test_a_tensor_beyond_its_storage_is_refused(offset, size, stride):
    with pytest.raises(pickle.UnpicklingError):
        _rebuild_tensor_v2(LoadedStorage(np.zeros(4, np.float32)), offset, size, stride)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.ones(1), path)
    with pytest.raises(Exception, match="pickle"):
        torch.save(lambda: 0, path)
    assert torch.load(path).tolist() == [1.0] and os.listdir(tmp_path) == ["a.pt"]
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(io.BytesIO(b"nothing"))
    with pytest.raises(FileNotFoundError):
        torch.load(tmp_path / "missing.pt")


def test_safetensors(tmp_path):
    given = {"w": torch.randn(2, 3), "i": torch.arange(3), "h": torch.ones(3, dtype=torch.float16),
             "e": torch.ones(0, 2)}
    torch.save_safetensors(given, tmp_path / "a.safetensors", {"made": "here"})
    got = torch.load_safetensors(tmp_path / "a.safetensors")
    for name, t in given.items():
        assert got[name].dtype is t.dtype
        np.testing.assert_array_equal(got[name].numpy(), t.numpy())
