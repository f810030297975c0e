"""Traced modules in files: `save` and `load`.

A file is a zip of the graph's text (`graph.ir`), its tensors (`weights.safetensors`) and a manifest
(`manifest.json`). Loading one executes nothing.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from graphtorch.ir.evaluate import bind_sizes, specialize
from graphtorch.ir.graph import Graph
from graphtorch.ir.op import Kind
from graphtorch.ir.ops.mersenne import STATE_TYPE
from graphtorch.ir.rewrite import inline
from graphtorch.ir.text import ParseError, parse

from .._captured.capture import tensors_in
from .._captured.tracing import Dim, TracedGraph, argument_names
from .._captured.tracing import trace as record
from .._deferred.tensor import Tensor
from .._files.saving import write_then_rename
from .._ops.base import run
from ..nn import Module
from ..nn.parameter import Parameter
from ..serialization import safetensors_content, tensors_of

FORMAT, VERSION = "graphtorch module", 1


# ------------------------------------------------------------------------------------------- saving


def content_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, bytes]:
    """The members of the file of a function or module, recorded by a call with example inputs.

    Sizes of the inputs that the code takes as they come may differ in later calls.
    """
    traced = _recorded(function, args, kwargs)
    for node in traced.graph.nodes:
        if node.op.kind is Kind.DRAW or any(v.type == STATE_TYPE for v in node.operands):
            raise RuntimeError(
                f"torch.jit.save: the module draws random numbers ({node.op.name}), which a saved "
                "graph would repeat: call .eval() before tracing, or pass the numbers as an input"
            )
    module = function if isinstance(function, Module) else Module()
    tensors, ties = _tensors(module, traced)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "inputs": list(traced.inputs),
        "operands": list(traced.parameters),
        "result": _described(traced._structure, iter(range(len(traced.graph.outputs)))),
        "tensors": {name: _role(module, name, t) for name, t in tensors.items()},
        "ties": ties,
        "training": module.training,
    }
    held = {n: t.detach() for n, t in tensors.items() if n not in ties}
    return {
        "manifest.json": json.dumps(manifest, indent=1).encode(),
        "graph.ir": str(traced.graph).encode(),
        "weights.safetensors": safetensors_content(held),
    }


def _recorded(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TracedGraph:
    """The graph, with symbols for the sizes that may be others: the first axes together, then each
    axis that needs no condition."""
    names = argument_names(function, args, kwargs)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    shapes = {n: tuple(x.shape) for n, x in given.items() if isinstance(x, Tensor)}
    places = [(n, axis) for n, shape in shapes.items() for axis in range(len(shape))]
    firsts = [place for place in places if place[1] == 0]
    best = record(function, *args, **kwargs)
    chosen: list[tuple[str, int]] = []
    for more in [firsts, *([p] for p in places)]:
        if set(more) <= set(chosen):
            continue
        dims = _dims([*chosen, *more], shapes)
        try:
            found = record(function, *args, dynamic=dims, **kwargs)
        except Exception:  # the code wants this size as it is
            continue
        if not found.conditions:
            best, chosen = found, [*chosen, *more]
    return best


def _dims(places: Sequence[tuple[str, int]], shapes: Mapping[str, Any]) -> dict[str, Any]:
    """A `Dim` for each place; first axes of one size are one."""
    found: dict[str, dict[int, Dim]] = {}
    for name, axis in places:
        size = shapes[name][axis]
        label = f"n{size}" if axis == 0 else f"{name}_{axis}"
        found.setdefault(name, {})[axis] = Dim(label)
    return found


def _tensors(module: Module, traced: TracedGraph) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of the module and of the graph by name; names of one tensor by its first."""
    tensors: dict[str, Tensor] = {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
    for name, tensor in traced.parameters.items():
        tensors.setdefault(name, tensor)
    first: dict[int, str] = {}
    ties = {}
    for name, tensor in tensors.items():
        if first.setdefault(id(tensor), name) != name:
            ties[name] = first[id(tensor)]
    return tensors, ties


def _role(module: Module, name: str, tensor: Tensor) -> str:
    owner, _, own = name.rpartition(".")
    try:
        holder = module.get_submodule(owner)
    except AttributeError:
        return "constant"
    if own in holder._parameters:
        return "parameter" if tensor.requires_grad else "frozen"
    if own in holder._buffers:
        return "hidden" if own in holder._non_persistent_buffers_set else "buffer"
    return "constant"


def _described(tree: Any, place: Iterator[int]) -> Any:
    """A nest of tensors as JSON, with the number of the output in the place of each."""
    if isinstance(tree, Tensor):
        return {"output": next(place)}
    if isinstance(tree, dict):
        return {"dict": {str(k): _described(v, place) for k, v in tree.items()}}
    if isinstance(tree, (tuple, list)):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_described(v, place) for v in tree]}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return {"value": tree}
    raise RuntimeError(
        f"torch.jit.save: the result holds a {type(tree).__name__}; return tensors, numbers, "
        "strings, and tuples, lists and dictionaries of them"
    )


def write(members: Mapping[str, bytes], f: Any) -> None:
    """Write a file's members to a path or a binary file."""

    def into(file: Any) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    if isinstance(f, (str, os.PathLike)):
        write_then_rename(os.fspath(f), into)
    else:
        into(f)


# ------------------------------------------------------------------------------------------ loading


def read(f: Any) -> dict[str, bytes]:
    """The members of a file.

    Raises: RuntimeError: it is none that `write` wrote.
    """
    try:
        with zipfile.ZipFile(f) as archive:
            names = set(archive.namelist())
            wanted = ("manifest.json", "graph.ir", "weights.safetensors")
            if names.issuperset(wanted):
                return {name: archive.read(name) for name in wanted}
    except zipfile.BadZipFile:
        names = set()
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        raise RuntimeError(
            "torch.jit.load: this file holds TorchScript, which graphtorch does not run: make the "
            "module by its Python code and load a state_dict, or read an ONNX file"
        )
    raise RuntimeError("torch.jit.load: this is no file of a traced module, or it is damaged")


def fill(made: Module, members: Mapping[str, bytes]) -> Callable[..., Any]:
    """Give `made` the tensors of a file; its forward."""
    try:
        manifest = json.loads(members["manifest.json"])
        graph = parse(members["graph.ir"].decode())
    except (ValueError, ParseError) as error:
        raise RuntimeError(f"torch.jit.load: the file is damaged: {error}") from None
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise RuntimeError(
            f"torch.jit.load: version {manifest.get('version')} of the format is not known here"
        )
    held = tensors_of(members["weights.safetensors"])
    tensors: dict[str, Tensor] = {}
    for name, role in manifest["tensors"].items():
        first = manifest["ties"].get(name)
        tensors[name] = tensors[first] if first else _in_role(held[name], role)
        _place(made, name, tensors[name], role)
    made.train(manifest["training"])
    constants = {n: t for n, t in tensors.items() if manifest["tensors"][n] == "constant"}
    return _forward(made, graph, manifest, constants)


def with_tensors(members: Mapping[str, bytes], made: Module) -> dict[str, bytes]:
    """The members of a file with the tensors that the module made of it has now."""
    held = tensors_of(members["weights.safetensors"])
    now = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    held.update({name: now[name].detach() for name in held if name in now})
    return {**members, "weights.safetensors": safetensors_content(held)}


def _in_role(tensor: Tensor, role: str) -> Tensor:
    if role in ("parameter", "frozen"):
        return Parameter(tensor, requires_grad=role == "parameter")
    return tensor


def _place(made: Module, name: str, tensor: Tensor, role: str) -> None:
    """Put a tensor where its dotted name says, in modules that are made for it."""
    if role == "constant":
        return
    *path, own = name.split(".")
    holder = made
    for part in path:
        if part not in holder._modules:
            holder.add_module(part, Module())
        holder = holder._modules[part]  # type: ignore[assignment]
    if role in ("buffer", "hidden"):
        holder.register_buffer(own, tensor, persistent=role == "buffer")
    else:
        holder.register_parameter(own, tensor)  # type: ignore[arg-type]


def _forward(
    made: Module, graph: Graph, manifest: Mapping[str, Any], constants: Mapping[str, Tensor]
) -> Callable[..., Any]:
    names, operands, result = manifest["inputs"], manifest["operands"], manifest["result"]

    def forward(*args: Any, **kwargs: Any) -> Any:
        inputs = [*tensors_in(args), *tensors_in([kwargs[n] for n in names if n in kwargs])]
        if len(inputs) != len(names):
            raise RuntimeError(
                f"the traced module takes {len(names)} tensors, {names}, not {len(inputs)}"
            )
        own = {**dict(made.named_parameters()), **dict(made.named_buffers()), **constants}
        given = [*inputs, *(own[n] for n in operands)]
        body = _for_sizes(graph, given)
        found = run("Traced", lambda *values: inline(body, values), *given)
        return _built(result, found if isinstance(found, (tuple, list)) else (found,))

    return forward


def _for_sizes(graph: Graph, given: Sequence[Tensor]) -> Graph:
    """The graph for the inputs' sizes. RuntimeError where they do not fit what was traced."""
    for value, tensor in zip(graph.inputs, given, strict=True):
        if tensor._type.dtype is not value.type.dtype:
            raise RuntimeError(
                f"input {value.name!r} was traced as {value.type}, but got {tensor.dtype}"
            )
    sizes = bind_sizes(graph.inputs, [t._type.shape for t in given])
    body = specialize(graph, sizes)
    for value, tensor in zip(body.inputs, given, strict=True):
        if value.shape != tensor._type.shape:
            raise RuntimeError(
                f"input {value.name!r} was traced with shape {list(value.shape)}, but got "
                f"{list(tensor.shape)}"
            )
    return body


def _built(result: Mapping[str, Any], outputs: Sequence[Any]) -> Any:
    ((kind, what),) = result.items()
    if kind == "output":
        return outputs[what]
    if kind == "dict":
        return {k: _built(v, outputs) for k, v in what.items()}
    if kind == "value":
        return what
    parts = [_built(v, outputs) for v in what]
    return tuple(parts) if kind == "tuple" else parts
