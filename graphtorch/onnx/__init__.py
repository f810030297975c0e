"""Models as ONNX files, for every runtime that reads them."""

from __future__ import annotations

import enum
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx as _onnx

from graphtorch.ir.generalize import Hints
from graphtorch.ir.judge import assuming
from graphtorch.ir.shape import without_implied

from .._captured.tracing import (
    Dim,
    TracedGraph,
    argument_names,
    example_sizes,
    trace,
    trace_but_for_numbers,
)
from .._deferred.tensor import Tensor
from .._random.generator import left_to_runtime
from ..nn.modules.module import Module
from .export import DEFAULT_OPSET, to_model
from .symbolic import register_custom_op_symbolic, unregister_custom_op_symbolic

__all__ = [
    "OperatorExportTypes",
    "TrainingMode",
    "export",
    "is_in_onnx_export",
    "register_custom_op_symbolic",
    "to_model",
    "unregister_custom_op_symbolic",
]


class TrainingMode(enum.IntEnum):
    """Which mode a module is exported in."""

    EVAL = 0
    PRESERVE = 1
    TRAINING = 2


class OperatorExportTypes(enum.IntEnum):
    """PyTorch's names; graphtorch always writes standard ONNX operators."""

    ONNX = 0
    ONNX_ATEN = 1
    ONNX_ATEN_FALLBACK = 2
    ONNX_FALLTHROUGH = 3


Axes = Mapping[str, Mapping[int, str] | Sequence[int]]


def export(
    model: Any,
    args: Any = (),
    f: str | os.PathLike[str] | Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    export_params: bool = True,
    verbose: bool | None = None,
    training: TrainingMode = TrainingMode.EVAL,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    operator_export_type: OperatorExportTypes = OperatorExportTypes.ONNX,
    opset_version: int | None = None,
    do_constant_folding: bool = True,
    dynamic_axes: Axes | None = None,
    dynamic_shapes: Mapping[Any, Mapping[int, Dim]] | None = None,
    keep_initializers_as_inputs: bool | None = None,
    custom_opsets: Mapping[str, int] | None = None,
    export_modules_as_functions: bool = False,
    autograd_inlining: bool = True,
    dynamo: bool = True,
) -> _onnx.ModelProto:
    """Record one call of `model` and write it as an ONNX model.

    Args:
        model: a Module, exported in eval mode unless `training` says otherwise, or a function of
            tensors.
        args: the call's arguments: a tuple, one tensor, or a tuple ending in a dict of named
            arguments.
        f: path or binary file to write to; None only returns the model.
        kwargs: named arguments.
        export_params: False leaves the weights out: they become inputs of the model.
        input_names, output_names: what to call the tensors, in order.
        opset_version: 17 or newer; default 18.
        dynamic_axes: sizes that may vary, by input name: ``{"x": {0: "batch"}}`` or ``{"x": [0]}``.
            Axes of one name have one size, at least 1; entries of outputs are derived and need not
            be given. Where the model's code compares such sizes, they are taken to compare as those
            of `args` do, and the file's metadata says so (``graphtorch.conditions``).
        dynamic_shapes: the same with `Dim` by argument name or position.
        verbose: print the graph.
        operator_export_type, do_constant_folding, keep_initializers_as_inputs, custom_opsets,
            export_modules_as_functions, autograd_inlining, dynamo: accepted as PyTorch's; they
            change nothing here.

    Returns:
        The model (`onnx.ModelProto`), checked by ``onnx.checker``.

    Raises:
        RuntimeError: an op that ONNX does not have; the message names it and the user's line.
        ValueError: names or opset do not fit.
    """
    positional, named = _arguments(args, kwargs)
    dynamic = dict(dynamic_shapes or {})
    dynamic.update(_dims(model, positional, named, input_names, dynamic_axes))
    modes = _set_mode(model, training)
    try:
        with assuming(Hints(example_sizes(model, positional, named, dynamic))) as hints:
            traced = _trace(model, positional, named, dynamic)
            if verbose:
                print(traced.graph)
            weights = (
                {k: t.detach().numpy() for k, t in traced.parameters.items()}
                if export_params
                else {}
            )
            result = to_model(
                traced.graph, weights, input_names, output_names, opset_version or DEFAULT_OPSET
            )
    finally:
        for module, mode in modes:
            module.training = mode
    _state_conditions(result, list(hints.conditions), traced)
    if f is not None:
        _write(result, f)
    return result


def _state_conditions(model: _onnx.ModelProto, conditions: list[Any], traced: TracedGraph) -> None:
    """Write into the metadata what the model assumes of its sizes, beside their being at least
    1."""
    if not traced.graph.symbols():  # exported with fixed sizes after all
        return
    kept = without_implied(conditions)
    if kept:
        stated = json.dumps([f"{c} >= 0" for c in kept])
        _onnx.helper.set_model_props(model, {"graphtorch.conditions": stated})


def is_in_onnx_export() -> bool:
    """PyTorch's query; exporting here is recording like any other, so the answer is always
    False."""
    return False


def _arguments(
    args: Any, kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(args, Tensor) or not isinstance(args, (tuple, list)):
        args = (args,)
    named = dict(kwargs or {})
    if args and isinstance(args[-1], dict):
        named.update(args[-1])
        args = args[:-1]
    return tuple(args), named


def _dims(
    model: Any,
    args: tuple[Any, ...],
    named: Mapping[str, Any],
    input_names: Sequence[str] | None,
    axes: Axes | None,
) -> dict[str, dict[int, Dim]]:
    """`dynamic_axes` by argument name, one Dim for each axis name."""
    names = [*argument_names(model, args, named), *named]
    tensors = [
        n for n, a in zip(names, (*args, *named.values()), strict=True) if isinstance(a, Tensor)
    ]
    by_label = {**{n: n for n in tensors}, **dict(zip(input_names or (), tensors, strict=False))}
    dims: dict[str, Dim] = {}
    found: dict[str, dict[int, Dim]] = {}
    for label, which in (axes or {}).items():
        if label not in by_label:
            continue  # an output: its sizes follow
        table = (
            which
            if isinstance(which, Mapping)
            else {a: f"{label}_dynamic_axes_{i + 1}" for i, a in enumerate(which)}
        )
        found[by_label[label]] = {
            axis: dims.setdefault(
                name, Dim(name if name.isidentifier() else f"dim_{len(dims)}", min=1)
            )
            for axis, name in table.items()
        }
    return found


def _set_mode(model: Any, training: TrainingMode) -> list[tuple[Module, bool]]:
    """Put the modules into the mode asked for; returns what they were in."""
    if not isinstance(model, Module) or training == TrainingMode.PRESERVE:
        return []
    before = [(m, m.training) for m in model.modules()]
    model.train(training == TrainingMode.TRAINING)
    return before


def _trace(
    model: Any, args: tuple[Any, ...], named: Mapping[str, Any], dynamic: dict[Any, Any]
) -> TracedGraph:
    """The graph; where the sizes marked as dynamic turn out to depend on fixed ones, with fixed
    sizes."""
    try:
        with left_to_runtime():
            return trace_but_for_numbers(model, args, named, dynamic)
    except (RuntimeError, TypeError) as problem:
        if not dynamic:
            raise
        try:
            with left_to_runtime():
                traced = trace(model, *args, **named)
        except Exception:
            raise problem from None
        warnings.warn(
            "onnx.export: the model is exported with fixed sizes, because it does not take "
            f"others: {problem}. Give sizes that must be equal the same name in "
            "dynamic_axes, for every input that has them.",
            stacklevel=3,
        )
        return traced


def _write(model: _onnx.ModelProto, f: Any) -> None:
    if hasattr(f, "write"):
        f.write(model.SerializeToString())
        return
    path = Path(f)
    partial = path.with_name(path.name + ".partial")
    if model.ByteSize() >= 2**31 - 2**20:  # protobuf's limit: the weights go beside the model
        _onnx.save(model, str(path), save_as_external_data=True, location=path.name + ".data")
        return
    _onnx.save(model, str(partial))
    partial.replace(path)
