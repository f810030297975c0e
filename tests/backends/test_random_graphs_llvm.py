"""Random graphs compiled by LLVM agree with the references: with all passes, with none, with each
alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from graphtorch.backends import Buffer, compile
from graphtorch.ir.passes import pipeline
from random_graphs import ComplexGenerator, Generator, UnsignedGenerator, assert_close, evaluate
from sampling import sampled

CHUNKS, CHUNK = 20, 25
ALL = pipeline.stages
NAMES = [stage.name for stage in ALL(lambda node: True)]
ALONE = [n for n in NAMES if n not in ("fuse", "pairs") and "legal" not in n]
VARIANTS = {
    "none": ("legalize",),
    **{n: (n, "legalize") for n in ALONE},
    # lowering needs what `legalize` leaves, so that is always there
    "fuse": ("legalize", "fuse"),
}


def stages(names: Sequence[str], *options: object) -> list[pipeline.Stage]:
    return [stage for stage in ALL(*options) if stage.name in names]


@pytest.mark.parametrize("chunk", sampled(range(CHUNKS), 9))
def test_llvm_agrees_with_the_references(
    chunk: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    every = request.config.getoption("--every-variant")
    # entries are found by the graph, whatever its passes were
    monkeypatch.setenv("GRAPHTORCH_CACHE", "off")
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        generator = Generator(seed)
        graph = generator.graph(4 + seed % 16)
        expected = evaluate(graph, generator.arrays(seed))
        arrays = [Buffer.of(a) for a in generator.arrays(seed)]
        variants = list(VARIANTS.items())
        in_turn = variants if every else [variants[seed % len(VARIANTS)]]
        for what, names in (("all", NAMES), *in_turn):
            chosen = partial(stages, names)
            monkeypatch.setattr(pipeline, "stages", chosen)
            found = [b.numpy() for b in compile(graph, "llvm")(arrays)]
            assert_close(graph, found, expected, f"seed {seed}, passes {what}")


@pytest.mark.parametrize("kind", [ComplexGenerator, UnsignedGenerator])
@pytest.mark.parametrize("chunk", sampled(range(6), 3))
def test_complex_and_unsigned_graphs(chunk: int, kind: type[Generator]) -> None:
    for seed in range(chunk * 10, (chunk + 1) * 10):
        generator = kind(seed)
        graph = generator.graph(4 + seed % 12)
        expected = evaluate(graph, generator.arrays(seed))
        found = [
            b.numpy()
            for b in compile(graph, "llvm")([Buffer.of(a) for a in generator.arrays(seed)])
        ]
        assert_close(graph, found, expected, f"seed {seed}")
