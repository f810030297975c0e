"""Random graphs: every pass alone, none and all give the same results, and every stage prints and parses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graphtorch.backends import reference
from graphtorch.ir import ops
from graphtorch.ir.graph import Graph, Node
from graphtorch.ir.passes import cse, dce, detach, fold, fuse, legalize, pipeline, simplify
from graphtorch.ir.text import parse
from graphtorch.ir.verify import verify
from random_graphs import Generator

CHUNKS, CHUNK = 20, 25


def is_core(node: Node) -> bool:
    return node.op.is_core


PASSES: dict[str, Callable[[Graph], Graph]] = {
    "cse": cse.run, "dce": dce.run, "detach": detach.run, "fold": fold.run, "simplify": simplify.run,
    "legalize": lambda g: legalize.run(g, is_core), "fuse": fuse.run,
}


def tolerance(dtype: np.dtype) -> float:
    return {"float32": 2e-4, "float64": 1e-9, "bfloat16": 0.1}.get(dtype.name, 0)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: output {i}"
        if a.dtype.kind in "bui":
            np.testing.assert_array_equal(a, b, err_msg=f"{what}: output {i}")
        else:
            limit = tolerance(a.dtype)
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=limit, atol=limit,
                                       err_msg=f"{what}: output {i}")


def run(graph: Graph, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """As `reference.run`, but every array is contiguous: NumPy's sums depend on strides in the last bit."""
    known = dict(zip(graph.inputs, arrays, strict=True))
    flat = legalize.run(graph, lambda n: n.op is not ops.region)
    for node in flat.nodes:
        with np.errstate(all="ignore"):
            found = node.op.reference(node.attrs, *(known[v] for v in node.operands))
        for value, array in zip(node.results(), found if isinstance(found, tuple) else (found,), strict=True):
            known[value] = np.ascontiguousarray(array).reshape(array.shape)
    return [known[v] for v in flat.outputs]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_passes_keep_the_meaning(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        generator = Generator(seed)
        graph = generator.graph(4 + seed % 16)
        arrays = generator.arrays(seed)
        expected = run(graph, arrays)
        for name, change in PASSES.items():
            changed = change(graph)
            verify(changed, name)
            # Decompositions may round differently than the references of composites; the rest may not.
            check = assert_close if name == "legalize" else assert_same
            check(run(changed, arrays), expected, f"seed {seed}, {name}")
        stages: dict[str, Graph] = {}
        fused = pipeline.run(graph, is_core, on_stage=stages.__setitem__)
        assert_close(run(fused, arrays), expected, f"seed {seed}, all")
        for name, stage in stages.items():
            assert parse(str(stage)) == stage, f"seed {seed}: text after {name}"


def assert_same(found: list[np.ndarray], expected: list[np.ndarray], what: str) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"{what}: output {i}")
