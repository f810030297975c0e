"""Memory plans: the checker, which knows nothing of the planner, accepts its plans and no broken
ones."""

from __future__ import annotations

import dataclasses

import pytest

from graphtorch.backends.cpu.lower import lower
from graphtorch.backends.cpu.supports import supports
from graphtorch.backends.kernels.program.check_plan import PlanError, check_plan
from graphtorch.backends.kernels.program.plan import Plan, plan
from graphtorch.backends.kernels.program.program import Program
from graphtorch.ir import ops
from graphtorch.ir.dtype import f32
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.passes import pipeline
from graphtorch.ir.shape import Dim, evaluate, symbol
from random_graphs import Generator


def lowered(graph: Graph) -> Program:
    return lower(pipeline.run(graph, supports, "llvm"))


def layers(rows: Dim, count: int = 6) -> Program:
    """Products one after the other, each read again two products later: several temporaries are
    alive."""
    x = Value(Type(f32, (rows, 32)), name="x")
    weights = [Value(Type(f32, (32, 32)), name=f"w{i}") for i in range(count)]
    found = [x]
    for w in weights:
        found.append(ops.add(ops.matmul(found[-1], w), found[max(0, len(found) - 3)]))
    return lowered(Graph("layers", [x, *weights], [ops.softmax(found[-1], dim=1)]))


@pytest.mark.parametrize("chunk", range(4))
def test_plans_of_random_graphs_are_right(chunk: int) -> None:
    for seed in range(chunk * 15, (chunk + 1) * 15):
        program = lowered(Generator(seed).graph(12 + seed % 20))
        check_plan(program, plan(program))


def test_one_plan_is_right_for_every_size() -> None:
    program = layers(symbol("n", 1, 512))
    for n in (1, 2, 17, 512):
        check_plan(program, plan(program), {"n": n})


def test_memory_is_used_again() -> None:
    program = layers(64)
    placed = plan(program)
    apart = sum(64 * 32 * 4 for _ in program.temporaries())
    assert isinstance(placed.size, int) and placed.size < apart


def test_a_batch_takes_the_memory_of_known_sizes() -> None:
    placed = plan(layers(symbol("n", 1, 512)))
    for n in (1, 7, 64):
        assert evaluate(placed.size, {"n": n}) == n * 512
    known = plan(layers(64)).size
    assert known == 64 * 512


def test_sizes_of_several_kinds_have_places_of_their_own() -> None:
    """Most are multiples of the batch, those of the other image are not."""
    batch, side = symbol("batch", 1, 64), symbol("side", 1, 64)
    x, other = (Value(Type(f32, (n, 24)), name=name) for name, n in (("x", batch), ("y", side)))
    w = Value(Type(f32, (24, 24)), name="w")
    found = [x]
    for _ in range(5):
        found.append(ops.add(ops.matmul(found[-1], w), found[max(0, len(found) - 3)]))
    aside = ops.matmul(ops.matmul(other, w), w)
    program = lowered(Graph("two", [x, other, w], [found[-1], aside]))
    placed = plan(program)
    for sizes in ((1, 64), (64, 1), (3, 5)):
        check_plan(program, placed, dict(zip(("batch", "side"), sizes, strict=True)))


def broken(offset: int, size: int | None = None) -> tuple[Program, Plan]:
    """A right plan, but for one of two temporaries that a launch uses together: it is moved to
    `offset` from the other."""
    program = layers(64)
    placed = plan(program)
    kept = set(program.temporaries())
    first, second = next(
        pair
        for launch in program.launches
        for pair in [[s for s in launch.slots if s in kept]]
        if len(pair) == 2
    )
    offsets = {**placed.offsets, second: placed.offsets[first] + offset}
    return program, dataclasses.replace(
        placed, offsets=offsets, size=placed.size if size is None else size
    )


@pytest.mark.parametrize("offset", [0, 64, -64])
def test_an_overlap_is_refused(offset: int) -> None:
    program, wrong = broken(offset, size=1 << 30)
    wrong = dataclasses.replace(wrong, offsets={s: o + 4096 for s, o in wrong.offsets.items()})
    with pytest.raises(PlanError, match="are both in use"):
        check_plan(program, wrong)


@pytest.mark.parametrize("offset", [1 << 20, 8])
def test_a_slot_outside_the_arena_or_unaligned_is_refused(offset: int) -> None:
    with pytest.raises(PlanError, match="does not fit an arena of"):
        check_plan(*broken(offset))
