"""Weights that stay in the file they were loaded from: compiled models read them once."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends.buffer import Buffer, MappedFile
from graphtorch.backends.kernels.program.abi import CALL, END, HEADER, JUMP
from graphtorch.backends.llvm.prologue import pieces
from graphtorch.ir.dtype import f32

WIDTH = 768


def net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 8)
    ).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.pt"
    torch.save(net().state_dict(), path)
    return path


def loaded(file: Path, mapped: bool) -> nn.Module:
    with torch.device("meta"):
        model = net()
    model.load_state_dict(torch.load(file, mmap=mapped), assign=True)
    return model


def resident(file: Path) -> int:
    """KiB of a file that are in this process's memory."""
    found, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            found = str(file) in line
        elif found and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_compiled_models_of_mapped_weights_give_the_same(file):
    x = torch.randn(16, WIDTH)
    plain, mapped = loaded(file, False), loaded(file, True)
    with torch.no_grad():
        want = torch.compile(plain)(x).numpy()
        compiled = torch.compile(mapped)
        np.testing.assert_array_equal(compiled(x).numpy(), want)
        np.testing.assert_array_equal(compiled(x).numpy(), want)
    for name, t in plain.state_dict().items():  # they are read from the file again
        np.testing.assert_array_equal(mapped.state_dict()[name].numpy(), t.numpy())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_what_was_packed_leaves_memory(file):
    with torch.no_grad():
        model = loaded(file, True)
        for p in model.parameters():
            assert p.sum().item() != 0  # all of it was read
        before = resident(file)
        assert before > 4000
        torch.compile(model)(torch.randn(16, WIDTH)).numpy()
        assert resident(file) < before / 4


def test_writes_to_mapped_weights_stay_and_are_seen(file):
    x = torch.randn(16, WIDTH)
    content = file.read_bytes()
    plain, mapped = loaded(file, False), loaded(file, True)
    compiled = torch.compile(mapped)
    with torch.no_grad():
        for model in (plain, mapped):
            model[0].weight.detach().numpy()[3] = 5.0
        np.testing.assert_allclose(compiled(x).numpy(), plain(x).numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(
            mapped[0].weight.detach().numpy(), plain[0].weight.detach().numpy()
        )
        for model in (plain, mapped):
            model[2].weight.mul_(0.5)
            model[0].weight.detach().numpy()[4] = -5.0
        np.testing.assert_allclose(compiled(x).numpy(), plain(x).numpy(), rtol=1e-4, atol=1e-4)
        for name, t in plain.state_dict().items():
            np.testing.assert_array_equal(mapped.state_dict()[name].numpy(), t.numpy())
    assert file.read_bytes() == content


def test_what_is_written_survives_being_paged_out(tmp_path):
    path = tmp_path / "numbers"
    np.arange(1 << 16, dtype=np.float32).tofile(path)
    with open(path, "rb") as opened:
        array = np.frombuffer(MappedFile(opened.fileno()), np.float32)
    buffer = Buffer.of(array)
    array[5000] = -1.0
    buffer.page_out()
    want = np.arange(1 << 16, dtype=np.float32)
    want[5000] = -1.0
    np.testing.assert_array_equal(buffer.numpy(), want)


def test_what_is_in_a_file(tmp_path):
    path = tmp_path / "numbers"
    np.arange(64, dtype=np.float32).tofile(path)
    with open(path, "rb") as opened:
        array = np.frombuffer(MappedFile(opened.fileno()), np.float32)
    assert Buffer.of(array).in_file
    assert Buffer.of(array[8:24].reshape(4, 4)).in_file
    assert Buffer.of(array).part(8, (2, 2)).in_file
    assert Buffer.of(Buffer.of(array).part(8, (2, 2)).expose()).in_file
    assert not Buffer.of(array.copy()).in_file
    assert not Buffer.empty(f32, (4,)).in_file


def call(kernel: int, *words: int) -> list[int]:
    return [CALL, kernel, len(words), *(x for word in words for x in (word, 0))]


def test_tables_are_cut_where_an_input_was_read_for_the_last_time():
    a, b, c, packed = HEADER, HEADER + 1, HEADER + 2, HEADER + 9
    first, again, second, third = (
        call(0, a, packed),
        call(1, a, b, packed),
        call(0, c, packed),
        call(2, packed),
    )
    code = [*first, *again, *second, *third, END]
    found: list[tuple[Any, Any]] = [(list(p), list(done)) for p, done in pieces(code, {0, 1, 2})]
    assert found == [
        ([*first, *again, END], [0, 1]),
        ([*second, END], [2]),
        ([*third, END], []),
    ]
    assert [x for part, _ in found for x in part[:-1]] + [END] == code


def test_tables_that_read_no_file_or_jump_stay_whole():
    code = [*call(0, HEADER, HEADER + 3), END]
    assert list(pieces(code, set())) == [(code, [])]
    jumps = [*call(0, HEADER, HEADER + 3), JUMP, 2, END]
    assert list(pieces(jumps, {0})) == [(jumps, [0])]
