"""The models of `tools/bench infer`, in small: as good as PyTorch's in float64, compiled and line
by line; and the command itself."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import graphtorch

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
sys.path.insert(0, str(BENCH))
zoo, infer = importlib.import_module("zoo"), importlib.import_module("infer")
sys.path.remove(str(BENCH))


@pytest.mark.parametrize("name", zoo.MODELS)
def test_models_give_what_pytorch_gives(name: str, tmp_path: Path) -> None:
    case = infer.Case(name, tmp_path, small=True)
    plain = zoo.with_weights_of(
        case.model, case.source.build(graphtorch, small=True), graphtorch.from_numpy
    )
    with graphtorch.no_grad():
        results = zoo.flat(plain(*map(graphtorch.from_numpy, case.arrays)))
    assert zoo.error([t.numpy() for t in results], case.exact) <= infer.BOUND
    call = infer.ours(case)
    with infer.kernels_made() as made:
        first = call()
    found = {"errors": {"graphtorch": zoo.error(first, case.exact)}}
    assert not infer.wrong({**found, "winograd": any("winograd" in text for text in made)})
    for again, before in zip(call(), first, strict=True):
        np.testing.assert_array_equal(again, before)


def test_a_wrong_result_is_seen() -> None:
    exact = [np.array([1.0, 100.0])]
    assert zoo.error([np.array([1.0, 101.0])], exact) == pytest.approx(0.01)
    for value, is_wrong in ((1e-5, False), (1e-3, True), (float("nan"), True)):
        assert infer.wrong({"errors": {"graphtorch": value}}) is is_wrong
    assert not infer.wrong({"errors": {"graphtorch": 1e-3}, "winograd": True})


def test_models_keep_their_size(tmp_path: Path) -> None:
    """Numbers of parameters of the papers' models, which torchvision's have as well."""
    known = {
        "resnet50": 25_557_032,
        "mobilenetv2": 3_504_872,
        "mobilenetv3": 5_483_032,
        "efficientnet_b0": 5_288_548,
        "convnext_t": 28_589_128,
        "densenet121": 7_978_856,
        "regnety": 4_344_144,
        "shufflenetv2": 2_278_604,
        "swin_t": 28_288_354,
    }
    with torch.device("meta"):
        for name, count in known.items():
            made = zoo.MODELS[name].build(torch)
            assert sum(p.numel() for p in made.parameters()) == count, name


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, str(BENCH), "infer", "tcn", "--small", "--skip", "openvino"]
    command += ["--rounds", "1", "--seconds", "0.01", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "openvino is left out, as asked" in done.stdout
    written = json.loads(file.read_text())
    row = written["models"]["tcn"]
    assert {"eager", "graphtorch"} <= row["milliseconds"].keys() == row["errors"].keys()
    peers = [t for name, t in row["milliseconds"].items() if name != "graphtorch"]
    assert row["ratio"] == pytest.approx(min(peers) / row["milliseconds"]["graphtorch"])
    assert written["geometric_mean"] == pytest.approx(row["ratio"])


def test_the_command_for_training(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    command = [sys.executable, str(BENCH), "train", "lenet", "--small", "--batch", "2"]
    command += ["--rounds", "1", "--seconds", "0.01", "--patience", "0.5", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    row = json.loads(file.read_text())["models"]["lenet"]
    ways = {"eager", "line by line", "compiled"}
    assert row["milliseconds"].keys() == row["losses"].keys() == ways
    assert row["ratio"] == pytest.approx(
        row["milliseconds"]["eager"] / row["milliseconds"]["compiled"]
    )
    assert row["first_s"]["steps"] > 1
    assert len({round(loss, 3) for loss in row["losses"].values()}) == 1
