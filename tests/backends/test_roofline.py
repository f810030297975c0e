"""`tools.bench roofline` and what it stands on: kernel calls timed one by one."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.backends import Buffer

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
sys.path.insert(0, str(BENCH))
kernels, roofline = importlib.import_module("kernels"), importlib.import_module("roofline")
sys.path.remove(str(BENCH))


def test_kernel_calls_know_what_they_compute_and_move() -> None:
    weights, x = torch.randn(48, 32), torch.randn(16, 32)
    traced = torch.trace(lambda x, w: torch.relu(x @ w.t()).cumsum(0), x, weights)
    timed = kernels.measure(
        traced.graph, [Buffer.of(t.numpy()) for t in (x, weights)], rounds=3, stable=[1]
    )
    assert [t.once for t in timed] == sorted((t.once for t in timed), reverse=True)
    packing, product = (t for t in timed if "matmul" in t.label)
    assert packing.once and not product.once and packing.flops == 0
    assert product.flops == 2 * 16 * 48 * 32
    assert product.bytes >= 4 * (16 * 32 + 48 * 32 + 16 * 48)
    assert all(t.microseconds >= 0 for t in timed)


def test_a_loop_is_one_line_with_the_work_of_all_steps() -> None:
    net = torch.nn.RNN(8, 16).eval()
    x = torch.randn(5, 2, 8)
    with torch.no_grad():
        traced = torch.trace(lambda x: net(x)[0], x)
    given = {"x": x, **traced.parameters}
    buffers = [Buffer.of(given[v.name].detach().numpy()) for v in traced.graph.inputs]
    timed = kernels.measure(traced.graph, buffers, rounds=2)
    assert sum(t.flops for t in timed if not t.once) >= 5 * 2 * 2 * 16 * (8 + 16)


def test_shares_are_of_the_memory_that_holds_the_data() -> None:
    levels = [roofline.Level("L2", 1000, 100e9), roofline.Level("memory", 0, 10e9)]
    limit = roofline.Limits(50e9, levels)
    near = roofline.row(kernels.Timed("k", 10_000, 1000, 1.0, False), limit)
    assert (near.gflops, near.gbytes) == pytest.approx((10.0, 1.0)) and near.level == "L2"
    assert (near.of_peak, near.of_copy, near.best) == pytest.approx((0.2, 0.01, 0.2))
    far = roofline.row(kernels.Timed("k", 0, 5000, 1.0, False), limit)
    assert far.level == "memory" and far.best == far.of_copy == pytest.approx(0.5)


def test_a_copy_copies() -> None:
    copy, moved = roofline.copy_kernel(2, 1 << 16)
    half = len(copy.memory) // 2
    copy.memory[:half] = np.arange(half)
    copy()
    np.testing.assert_array_equal(copy.memory[half:], copy.memory[:half])
    assert moved % (8 * half) == 0 and moved >= 8 * half


@pytest.mark.parametrize("drawn", [False, True])
def test_the_command(tmp_path: Path, drawn: bool) -> None:
    if drawn:
        pytest.importorskip("matplotlib", reason="a picture needs matplotlib")
    file, picture = tmp_path / "rows.json", tmp_path / "roof.png"
    command = [sys.executable, str(BENCH), "roofline", "tcn", "--small", "--rounds", "2"]
    command += ["--json", str(file), *(["--png", str(picture)] if drawn else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads(file.read_text())
    assert written["limits"]["flops"] > 0 and set(written["limits"]["copies"]) == {
        "L2",
        "L3",
        "memory",
    }
    rows = written["kernels"]
    assert len(rows) == len([k for k in done.stdout.splitlines() if "%" in k]) - 1
    for r in rows:
        assert r["best"] == max(r["of_peak"], r["of_copy"])
    assert sum("conv" in r["kernel"] for r in rows) >= 6
    assert picture.exists() == drawn
