"""Every op record says everything: no slot is left silent."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphtorch.ir import ops
from graphtorch.ir.op import OPS, Attrs, ByDecomposition, Core, Kind, NoGradient, Op, Weight


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_no_slot_is_silent(op: Op) -> None:
    assert op.name.isidentifier()
    assert op.doc.strip().endswith("."), "the doc line is a sentence"
    assert isinstance(op.operands, tuple) and all(isinstance(o, str) and o for o in op.operands)
    assert callable(op.infer) and callable(op.reference)
    assert callable(op.vjp) or isinstance(op.vjp, (NoGradient, ByDecomposition))
    assert callable(op.decompose) or isinstance(op.decompose, Core)
    assert isinstance(op.kind, Kind) and isinstance(op.weight, Weight)
    if op.kind is Kind.CONTRACTION or op.weight is Weight.CONTRACTION:
        assert op.weight is Weight.CONTRACTION and callable(op.reference_ns), (
            "by how many products?"
        )
    if op.kind is Kind.VIEW:
        assert op.weight is Weight.FREE
    if isinstance(op.vjp, NoGradient):
        assert op.vjp.reason
    if isinstance(op.vjp, ByDecomposition):
        assert not op.is_core, "nothing to differentiate through"


@pytest.mark.parametrize("fact", ["kind", "weight", "batch"])
def test_a_record_without_a_fact_is_refused(fact: str) -> None:
    known = OPS["exp"]
    facts = {name: getattr(known, name) for name in ("kind", "weight", "batch") if name != fact}
    with pytest.raises(TypeError, match=fact):
        Op("silent", known.doc, known.operands, known.infer, known.vjp, known.reference, **facts)
    assert "silent" not in OPS


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_attributes_are_a_frozen_record(op: Op) -> None:
    assert issubclass(op.attrs, Attrs)
    assert dataclasses.is_dataclass(op.attrs) and op.attrs.__dataclass_params__.frozen


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_functions_take_the_operands_stated(op: Op) -> None:
    least, most = op.arity()
    for count in (least, least + 3 if most is None else most):
        inspect.signature(op.infer).bind("attrs", *range(count))
        inspect.signature(op.reference).bind("attrs", *range(count))
    optional = [o.endswith("?") for o in op.operands]
    assert optional == sorted(optional), "what may be left out stands at the end"


def test_every_op_is_exported_by_name() -> None:
    assert [n for n, op in OPS.items() if getattr(ops, n, None) is not op] == []


def test_the_catalogue_is_in_the_hundreds_not_the_thousands() -> None:
    assert 100 <= len(OPS) <= 250


# ------------------------------ facts stand in records alone

ROOT = Path(__file__).parent.parent.parent
FOLDERS = (
    "ir",
    "backends",
    "graphtorch/_deferred",
    "graphtorch/_captured",
    "graphtorch/autograd",
    "graphtorch/utils",
)
KERNEL_IR, WRITTEN, PARTS = (
    "ops of the kernel IR",
    "what its functions write",
    "how each is taken apart",
)
ELSEWHERE = {
    "ir/ops": "the records",
    "ir/passes/pairs.py": PARTS,
    "backends/cpu/control/parts.py": PARTS,
    "backends/cpu/loops/reductions.py": WRITTEN,
    "backends/cpu/pooling/regions.py": WRITTEN,
    "backends/cpu/whole/mersenne.py": WRITTEN,
    "backends/cpu/whole/running.py": WRITTEN,
    "backends/gpu/expressions.py": KERNEL_IR,
    "backends/gpu/schedules/rows.py": "views that cost divisions on a GPU",
    "backends/gpu/supports.py": "what this target leaves out",
    "backends/kernels/body/pointwise.py": WRITTEN,
    "backends/kernels/body/random.py": WRITTEN,
    "backends/kernels/body/views.py": WRITTEN,
    "backends/kernels/extents.py": KERNEL_IR,
    "backends/kernels/ir.py": KERNEL_IR,
    "backends/kernels/program/lowering.py": "what the label of a kernel leaves out",
    "backends/kernels/program/share.py": KERNEL_IR,
    "backends/llvm/expr.py": KERNEL_IR,
    "graphtorch/autograd/nodes.py": "whose operands PyTorch lets be written to, as it saves the "
    "result",
}


def tables_of(path: Path) -> Iterator[str]:
    """Lists of three names of ops or more, but for keys of dicts, which say what is done for
    each."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    assigned = [n for n in nodes if isinstance(n, ast.Assign)]
    exported = [n.value for n in assigned if ast.unparse(n.targets[0]) == "__all__"]
    for node in nodes:
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)) and node not in exported:
            names = [
                e.value
                for e in node.elts
                if isinstance(e, ast.Constant) and isinstance(e.value, str)
            ]
            if len(names) >= 3 and len(names) == len(node.elts) and all(n in OPS for n in names):
                yield f"{path.relative_to(ROOT)}:{node.lineno}: {names}"


def test_no_table_of_names_says_what_a_record_could_say() -> None:
    known = {ROOT / path for path in ELSEWHERE}
    found = [
        table
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if known.isdisjoint((path, *path.parents))
        for table in tables_of(path)
    ]
    assert found == [], "a fact of ops: put it into their records (docs/adding_an_op.md)"
    assert {path for path in known if not path.exists()} == set()
