"""Random graphs: every pass alone, none and all give the same results, and every stage prints and
parses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphtorch.ir.graph import Graph, Node
from graphtorch.ir.passes import cse, dce, detach, fold, fuse, legalize, pairs, pipeline, simplify
from graphtorch.ir.passes.limits import Limits
from graphtorch.ir.text import parse
from graphtorch.ir.verify import verify
from random_graphs import (
    ComplexGenerator,
    Generator,
    UnsignedGenerator,
    as_complex,
    as_pairs,
    assert_close,
    evaluate,
)

CHUNKS, CHUNK = 20, 25


def is_core(node: Node) -> bool:
    return node.op.is_core


PASSES: dict[str, Callable[[Graph], Graph]] = {
    "cse": cse.run,
    "dce": dce.run,
    "detach": detach.run,
    "fold": fold.run,
    "simplify": simplify.run,
    "legalize": lambda g: legalize.run(g, is_core),
    "fuse": lambda g: fuse.run(g, Limits()),
}


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [*((Generator, c) for c in range(CHUNKS)), *((UnsignedGenerator, c) for c in range(3))],
)
def test_passes_keep_the_meaning(kind: type[Generator], chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        generator = kind(seed)
        graph = generator.graph(4 + seed % 16)
        arrays = generator.arrays(seed)
        expected = evaluate(graph, arrays)
        for name, change in PASSES.items():
            changed = change(graph)
            verify(changed, name)
            # Decompositions may round differently than the references of composites; the rest may
            # not.
            check = assert_close if name == "legalize" else assert_same
            check(graph, evaluate(changed, arrays), expected, f"seed {seed}, {name}")
        stages: dict[str, Graph] = {}
        fused = pipeline.run(graph, is_core, on_stage=stages.__setitem__)
        assert_close(graph, evaluate(fused, arrays), expected, f"seed {seed}, all")
        for name, stage in stages.items():
            assert parse(str(stage)) == stage, f"seed {seed}: text after {name}"


def assert_same(
    graph: Graph, found: list[np.ndarray], expected: list[np.ndarray], what: str
) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"{what}: output {i}")


@pytest.mark.parametrize("chunk", range(4))
def test_complex_values_become_pairs(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        generator = ComplexGenerator(seed)
        graph = generator.graph(4 + seed % 12)
        arrays = generator.arrays(seed)
        expected = evaluate(graph, arrays)
        real = pairs.run(graph)
        verify(real, "pairs")
        assert parse(str(real)) == real
        found = evaluate(real, [as_pairs(a) for a in arrays])
        complexes = [as_complex(a, b) for a, b in zip(found, expected, strict=True)]
        assert_close(graph, complexes, expected, f"seed {seed}")
