"""Every op record says everything: no slot is left silent."""

from __future__ import annotations

import dataclasses
import inspect

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
        assert op.weight is Weight.CONTRACTION and callable(op.reference_ns), "by how many products?"
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
