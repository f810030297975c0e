"""What the compiler did, for people: graphs as text, `explain`, what GRAPHTORCH_DEBUG prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.ir import text

STAGES = {
    "graph": [
        r"---- graph of main\ngraph main\(%x: f32\[8, 8\]\) \{\n  %0 = matmul\(%x, %x\) : f32"
    ],
    "passes": [
        "---- passes of main after recorded\n",
        "---- passes of main after fuse\n",
        r"kind=\"contraction\"",
    ],
    "kernels": [r"---- kernels of main\nkernel matmul\w*\(.*: f32\*", r"for \w+ in 0\.\.", "fma"],
    "llvm": [
        "---- llvm of main\n",
        'target triple = "',
        r"define \w+ .*@k\.matmul",
        r"fmul|llvm\.fma",
    ],
    "asm": ["---- asm of main\n", r"k_\w+:", r"\bret"],
}
PROGRAM = """
import graphtorch as torch
f = torch.compile(lambda x: torch.softmax(x @ x, -1) + 1)
print(f(torch.ones(8, 8)).sum().item())
"""


def run(debug: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GRAPHTORCH_CACHE": str(folder), "GRAPHTORCH_DEBUG": debug}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


@pytest.mark.parametrize("stage", list(STAGES))
def test_debug_prints_one_stage(stage, tmp_path):
    done = run(stage, tmp_path)
    assert done.stdout == "72.0\n"
    assert set(re.findall(r"^---- (\w+) of main", done.stderr, re.MULTILINE)) == {stage}
    for pattern in STAGES[stage]:
        assert re.search(pattern, done.stderr), pattern


def test_debug_of_several_stages_and_of_code_in_the_cache(tmp_path):
    assert run("", tmp_path).stderr == ""
    for debug, expected in (
        ("graph, kernels", ["graph", "kernels"]),
        ("all", ["asm", "graph", "kernels", "llvm", "passes"]),
    ):
        done = run(debug, tmp_path)
        assert (
            sorted(set(re.findall(r"^---- (\w+) of main", done.stderr, re.MULTILINE))) == expected
        )
    assert (
        "GRAPHTORCH_DEBUG=kernel: known are graph, passes, tuning, kernels, llvm, asm, programs "
        "and all" in run("kernel", tmp_path).stderr
    )


def test_print_is_what_parse_reads(capsys):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    traced = torch.trace(model, torch.ones(2, 1, 4, 4), dynamic={0: {0: torch.Dim("batch", max=8)}})
    traced.print()
    printed = capsys.readouterr().out
    assert text.parse(printed) == traced.graph
    assert "%input: f32[batch, 1, 4, 4]" in printed and '%"0.weight": f32[2, 1, 3, 3]' in printed
    assert re.search(r"= conv\(%input, .*stride=\(1, 1\).* @ \".*test_explain\.py\":\d+", printed)
    traced.graph.print()
    assert capsys.readouterr().out == printed


def rows(explanation: str) -> dict[str, list[str]]:
    """The table's cells, by the first."""
    lines = explanation.split("\n")
    table = lines[1 : next(i for i, line in enumerate(lines) if line.startswith("total:"))]
    return {cells[0]: cells for cells in (re.split(r"  +", line) for line in table)}


def test_explain():
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU()).eval()
    compiled = torch.compile(model)
    assert "call the function once" in compiled.explain()
    with torch.no_grad():
        compiled(torch.randn(16, 64))
    text = compiled.explain()
    assert re.match(
        r"main: \d+ ops -> 1 regions -> 1 kernel calls \([\d,]+ bytes of code\) for ", text
    )
    table = rows(text)
    assert table["kernel"] == ["kernel", "what", "FLOPs", "bytes", "reads and writes"]
    ((_, what, flops, moved, slots),) = (
        cells for key, cells in table.items() if key.startswith("matmul")
    )
    assert what.startswith("matmul+add+relu") and int(flops.replace(",", "")) >= 2 * 16 * 64 * 32
    assert int(moved.replace(",", "")) >= 4 * (16 * 64 + 64 * 32 + 32 + 16 * 32)
    assert "input f32[16, 64]" in slots and "output0 f32[16, 32]" in slots
    assert re.search(
        r"total: [\d,]+ FLOPs, [\d,]+ bytes moved\nmemory: arena [\d,]+ bytes for \d+ tempor"
        r"aries, packed weights [\d,]+ bytes",
        text,
    )


def test_explain_counts_in_symbols():
    compiled = torch.compile(
        lambda x: torch.softmax(x, -1), dynamic={0: {0: torch.Dim("n", max=64)}}
    )
    compiled(torch.ones(4, 16))
    table = rows(compiled.explain())
    ((_, _, flops, moved, slots),) = (cells for name, cells in table.items() if name != "kernel")
    assert flops.endswith("*n") and moved == "128*n" and "x f32[n, 16]" in slots


def test_explain_shows_each_recording_and_the_gradient():
    model = nn.Linear(4, 3)
    compiled = torch.compile(model)
    for rows_ in (2, 5):
        compiled(torch.ones(rows_, 4))
    assert compiled.explain().count("main: ") == 2 and compiled.explain().count("backward: ") == 2
    assert len(compiled.graphs) == 2
