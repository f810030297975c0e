"""Warnings: PyTorch's category and text, at the user's line through however many calls of ours."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import pytest

import graphtorch
from graphtorch import _settings

torch = pytest.importorskip("torch")

# calls that warn each time, and those that do once in a process
CALLS = """
torch.tensor(torch.ones(2))
torch.tensor(torch.ones(2), dtype=torch.float64)
torch.ones(2).new_tensor(torch.ones(2))
torch.std(torch.ones(1))
torch.var(torch.ones(0))
torch.var(torch.ones(1, 0, 2), dim=0)
torch.var(torch.ones(2), correction=2)
torch.ones(2, 0).std(1)
torch.std_mean(torch.ones(1))
torch.var_mean(torch.ones(1))
torch.ones(2, 3)[torch.tensor([1, 0], dtype=torch.uint8)]
torch.where(torch.tensor([1, 0], dtype=torch.uint8), torch.ones(2), torch.ones(2))
torch.add(torch.ones(3), torch.ones(3), out=torch.ones(2))
torch.ones(2, 3)[[[0, 1], [1, 0]]]
torch.range(0, 3)
torch.nn.functional.softmax(torch.ones(2, 3))
torch.nn.functional.mse_loss(torch.ones(2, 3), torch.ones(3))
torch.nn.functional.kl_div(torch.ones(3), torch.ones(3))
torch.nn.functional.upsample(torch.ones(1, 1, 2, 2), scale_factor=2)
torch.nn.init.uniform(torch.ones(2))
torch.nn.utils.clip_grad_norm([torch.ones(2)], 1.0)
(torch.ones(2, requires_grad=True) * 2).grad
""".strip().split("\n")
ONCE = """
float(torch.ones((), requires_grad=True))
torch.tensor([torch.ones((), requires_grad=True)])
torch.ones(2, 3, 4).T
torch.ones(2).T
torch.ones(()).T
torch.ones(()).mT
torch.ones(()).H
torch.stft(torch.ones(16), 4, return_complex=True)
torch.istft(torch.ones(3, 9, dtype=torch.complex64), 4)
torch.meshgrid(torch.ones(2), torch.ones(3))
torch.cross(torch.ones(3), torch.ones(3))
torch.chain_matmul(torch.ones(2, 3), torch.ones(3, 2))
torch.lu(torch.eye(2))
torch.cholesky(torch.eye(2))
torch.qr(torch.eye(2))
torch.ones(2, dtype=torch.complex64).to(torch.float32)
torch.ones(2, dtype=torch.complex64).float()
""".strip().split("\n")
SILENT = """
torch.tensor([1.0])
torch.as_tensor(torch.ones(2))
torch.tensor([torch.ones(())])
torch.std(torch.ones(1), unbiased=False)
torch.var(torch.ones(2), correction=1.5)
torch.ones(2, 3).T
torch.ones(2, dtype=torch.complex64).to(torch.complex128)
torch.ones(2, dtype=torch.complex64).bool()
torch.ones(2, 3, 4).mT
float(torch.ones(()))
torch.ones((), requires_grad=True).item()
torch.add(torch.ones(3), torch.ones(3), out=torch.empty(0))
torch.zeros(3, out=torch.ones(2))
torch.stft(torch.ones(16), 4, window=torch.ones(4), return_complex=True)
torch.ones(2, 3)[[0, 1]]
torch.ones(2, 3)[torch.tensor([True, False])]
torch.meshgrid(torch.ones(2), torch.ones(3), indexing='ij')
torch.cross(torch.ones(3), torch.ones(3), dim=0)
torch.nn.init.xavier_normal_(torch.ones(2, 2))
torch.distributions.Wishart(torch.tensor(3.0), torch.eye(2)).log_prob(torch.eye(2))
""".strip().split("\n")


def _said(call: str, lib: Any) -> list[tuple[str, str, str, int]]:
    code = compile(f"\n\n{call}", "user's file", "exec")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        exec(code, {"torch": lib})
    return [(w.category.__name__, str(w.message)[:55], w.filename, w.lineno) for w in said]


@pytest.mark.parametrize("call", CALLS)
def test_a_warning_is_that_of_pytorch_at_the_users_line(call: str) -> None:
    expected, got = _said(call, torch), _said(call, graphtorch)
    assert expected, "PyTorch says nothing"
    assert [w[:2] for w in got] == [w[:2] for w in expected]
    assert {w[2:] for w in got} == {("user's file", 3)}


@pytest.mark.parametrize("call", ONCE)
def test_what_is_said_once_is_said_at_the_users_line(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_settings, "_said", set())
    torch.set_warn_always(True)
    try:
        expected = _said(call, torch)
    finally:
        torch.set_warn_always(False)
    got = _said(call, graphtorch)
    assert [w[:2] for w in got] == [w[:2] for w in expected] != []
    assert got[0][2:] == ("user's file", 3)
    assert not _said(call, graphtorch)


@pytest.mark.parametrize("call", SILENT)
def test_nothing_is_said_where_pytorch_says_nothing(call: str) -> None:
    assert _said(call, torch) == _said(call, graphtorch) == []


def test_a_warning_inside_of_a_module_names_the_line_that_called_it() -> None:
    program = "import torch\nm = torch.nn.Sequential(torch.nn.Softmax())\nm(torch.ones(2, 3))\n"
    program = program.replace("import torch", "import graphtorch as torch")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "<string>:3: UserWarning: Implicit dimension choice" in done.stderr, done.stderr
