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
from graphtorch._files.loading import _rebuild_tensor_v2
from graphtorch._files.pickling import LoadedStorage


def test_round_trip_keeps_sharing_and_dtypes(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    given = {
        "all": base,
        "row": base[1],
        "turned": base.t(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flag": torch.tensor(True),
        "dtype": torch.int64,
        "size": torch.Size([1, 2]),
        "n": [1, 2.5, None],
    }
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


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (100,), (1,)), (3, (2,), (1,)), (-1, (1,), (1,)), (0, (2, 2), (9, 1))],
)
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
    given = {
        "w": torch.randn(2, 3),
        "i": torch.arange(3),
        "h": torch.ones(3, dtype=torch.float16),
        "e": torch.ones(0, 2),
    }
    torch.save_safetensors(given, tmp_path / "a.safetensors", {"made": "here"})
    got = torch.load_safetensors(tmp_path / "a.safetensors")
    for name, t in given.items():
        assert got[name].dtype is t.dtype
        np.testing.assert_array_equal(got[name].numpy(), t.numpy())


def checkpoint_bytes(**options):
    file = io.BytesIO()
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    given = {"net": net.state_dict(), "view": torch.ones(4, 5)[1:, ::2], "n": [1, "a", None]}
    torch.save(given, file, **options)
    return file.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_raise_and_run_nothing(zipped):
    good = checkpoint_bytes(_use_new_zipfile_serialization=zipped)
    random = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(good)
        if random.random() < 0.3:
            data = data[: random.integers(len(data))]
        for place in random.integers(0, max(1, len(data)), random.integers(1, 6)):
            if data:
                data[place] = random.integers(256)
        try:
            loaded = torch.load(io.BytesIO(bytes(data)))
            repr(loaded)
        except (
            RuntimeError,
            EOFError,
            ValueError,
            OverflowError,
            MemoryError,
            NotImplementedError,
            KeyError,
            pickle.UnpicklingError,
            zipfile.BadZipFile,
            UnicodeDecodeError,
        ):
            pass


BUILD_ON_A_TENSOR = b"\x80\x02ctorch\nTensor\nK\x02\x85R}X\x05\x00\x00\x00_viewK\x01sb."
NOT_A_CALL = b"\x80\x02ctorch\nfloat32\n)R."
ATTRIBUTE_BY_DOTS = b"\x80\x04\x8c\x05torch\x8c\x13Tensor.__reduce_ex__\x93."


@pytest.mark.parametrize(
    "pickled",
    [
        BUILD_ON_A_TENSOR,
        NOT_A_CALL,
        ATTRIBUTE_BY_DOTS,
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x02cgraphtorch.cli\nmain\n)R.",
    ],
)
def test_pickles_that_reach_for_more_are_refused(pickled):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(io.BytesIO(file.getvalue()))


class Settings:
    def __init__(self, size):
        self.size = size


def test_allowed_classes():
    file = io.BytesIO()
    torch.save({"settings": Settings(3), "layer": nn.Linear(1, 1)}, file)

    def load():
        return torch.load(io.BytesIO(file.getvalue()))

    with pytest.raises(pickle.UnpicklingError, match="add_safe_globals"):
        load()
    modules = [nn.Linear, nn.Parameter, set]
    with torch.serialization.safe_globals([Settings, *modules]):
        assert load()["settings"].size == 3 and type(load()["layer"]) is nn.Linear
    with pytest.raises(pickle.UnpicklingError, match="Settings"):
        load()
    assert torch.serialization.get_safe_globals() == []


@pytest.mark.parametrize(
    "dtype",
    ["float32", "bfloat16", "float16", "int64", "bool", "complex64", "uint16", "uint32", "uint64"],
)
def test_safetensors_dtypes(dtype, tmp_path):
    given = {
        "a": torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)),
        "empty": torch.ones(0, 2),
    }
    torch.save_safetensors(given, tmp_path / "x.safetensors", metadata={"format": "pt"})
    got = torch.load_safetensors(tmp_path / "x.safetensors")
    assert got["a"].dtype is given["a"].dtype and torch.equal(got["a"], given["a"])
    assert tuple(got["empty"].shape) == (0, 2)
