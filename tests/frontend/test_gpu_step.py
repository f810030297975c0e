"""A compiled step of training a residual net on a GPU has no kernel that only copies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import graphtorch as torch
from copying import copies
from emulated_gpu import emulated_gpu
from graphtorch import nn
from graphtorch._deferred import programs as known
from graphtorch.backends.gpu import compiler, emulated
from graphtorch.backends.kernels.program.program import Program
from graphtorch.backends.kernels.text import print_program
from graphtorch.nn import functional as F

pytestmark = pytest.mark.skipif(
    emulated.compiler() is None, reason="the emulated device needs a compiler"
)


class Unmoved:
    """A module of kernels that are not run: what is compiled is looked at, not what comes out."""

    def series(self, launches: Any) -> Any:
        return lambda addresses, sizes: None


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """The programs that are compiled for the emulated device, none of which is run."""
    found: list[Program] = []
    lower = compiler.lower

    def noted(*given: Any) -> Program:
        found.append(lower(*given))
        return found[-1]

    with emulated_gpu() as patch:
        patch.setattr(compiler, "lower", noted)
        patch.setattr(emulated.EmulatedDevice, "load", lambda self, pieces: Unmoved())
        yield found
    known.clear()  # what does nothing is not to be found by other tests


class Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.short = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.path(x) + self.short(x))


def net() -> nn.Module:
    stem = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return nn.Sequential(*stem, Block(4, 4, 1), Block(4, 8, 2), *end)


@pytest.mark.parametrize("half", [False, True])
def test_a_step_of_a_residual_net_copies_nothing(programs: list[Program], half: bool) -> None:
    """Strided and padded convolutions, norms, pools, short cuts, their gradients and the
    optimizer."""
    model = net().to("cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = torch.compile(step)
    x, y = torch.randn(2, 3, 16, 16).cuda(), torch.tensor([1, 2]).cuda()
    for _ in range(3):
        compiled(x, y)
    torch.cuda.synchronize()
    largest = max(programs, key=lambda p: len(p.launches))
    convolutions = [x for x in largest.launches if "conv" in x.label]
    assert len(convolutions) >= 3 * 6 - 1  # the image needs no gradient
    assert copies(largest) == []


def test_sums_of_sums_are_stored_once(programs: list[Program]) -> None:
    """Long columns are summed in three steps, the last of which knows the result's shape."""
    x = torch.ones(100_000, 64, device="cuda")
    x.sum(0, keepdim=True).cpu()
    (program,) = [p for p in programs if len(p.launches) > 1]
    assert [launch.label for launch in program.launches] == ["sum", "sum", "sum"]
    assert copies(program) == []


def test_deterministic_algorithms_make_other_programs(programs: list[Program]) -> None:
    """Sums at computed places are atomic, or have one order, as the setting says in each call."""
    x, at = torch.zeros(5, 3).cuda(), torch.tensor([1, 1, 4]).cuda()
    compiled = torch.compile(lambda: x.index_add(0, at, torch.ones(3, 3, device="cuda")) * 2)

    def plain() -> torch.Tensor:
        return x.index_add(0, at, torch.ones(3, 3, device="cuda"))

    def is_atomic() -> bool:
        """Of the programs that this call needs, whether any has atomic additions."""
        lines = [line.lstrip() for p in programs for line in print_program(p).split("\n")]
        return any(line.startswith("add ") for line in lines)

    try:
        for call in (compiled, plain):
            for ordered in (False, True):
                programs.clear()
                torch.use_deterministic_algorithms(ordered)
                call().cpu()
                assert programs and is_atomic() != ordered
                programs.clear()
                call().cpu()
                assert not programs  # the same setting is no reason to compile again
    finally:
        torch.use_deterministic_algorithms(False)


def test_precisions_of_float32_make_other_programs(programs: list[Program]) -> None:
    """Products and convolutions are rounded to TF32 where their setting allows it, in each call."""
    x, w, m = (torch.zeros(*s).cuda() for s in ((2, 8, 8, 8), (8, 8, 3, 3), (64, 64)))
    calls = {"matmul": lambda: m @ m, "conv": lambda: F.conv2d(x, w)}
    kinds = {name: (call, torch.compile(call)) for name, call in calls.items()}
    switches = {"matmul": torch.backends.cuda.matmul, "conv": torch.backends.cudnn}
    try:
        for name, switch in switches.items():
            for call in kinds[name]:
                for allowed in (False, True, False):
                    switch.allow_tf32 = allowed
                    before = len(programs)
                    call().cpu()
                    assert any("tf32(" in print_program(p) for p in programs[before:]) == (
                        allowed and len(programs) > before
                    )
                assert len(programs) == before  # what was compiled is found again
            switch.allow_tf32 = False
        assert sum("tf32(" in print_program(p) for p in programs) >= 2
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"


MAKERS = torch.empty, torch.zeros, lambda size, device: torch.full((size,), 2.0, device=device)


@pytest.mark.parametrize("make", MAKERS)
def test_what_no_gpu_holds_is_refused_where_it_is_made(programs: list[Program], make: Any) -> None:
    """A sum would never store it, and go on for hours."""
    with pytest.raises(
        torch.cuda.OutOfMemoryError, match="Tried to allocate 4,398,046,511,104 bytes"
    ):
        make(1 << 40, device="cuda")
    assert make(1 << 10, device="cuda").sum().device.type == "cuda" and not programs
