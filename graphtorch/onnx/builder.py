"""Assembles an ONNX model: names, constants, and shapes computed inside the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphtorch.ir import dtype as dt
from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Graph, Type, Value
from graphtorch.ir.shape import Dim, Quotient, Remainder, Symbol, SymInt, plain_symbol

ELEM_TYPE: dict[DType, int] = {
    dt.boolean: TensorProto.BOOL,
    dt.u8: TensorProto.UINT8,
    dt.u16: TensorProto.UINT16,
    dt.u32: TensorProto.UINT32,
    dt.u64: TensorProto.UINT64,
    dt.i8: TensorProto.INT8,
    dt.i16: TensorProto.INT16,
    dt.i32: TensorProto.INT32,
    dt.i64: TensorProto.INT64,
    dt.f16: TensorProto.FLOAT16,
    dt.bf16: TensorProto.BFLOAT16,
    dt.f32: TensorProto.FLOAT,
    dt.f64: TensorProto.DOUBLE,
    dt.c64: TensorProto.COMPLEX64,
    dt.c128: TensorProto.COMPLEX128,
}


def value_info(name: str, type: Type) -> onnx.ValueInfoProto:
    """Name, element type and dims; a symbolic dim becomes a named one (`dim_param`)."""
    dims = [d if isinstance(d, int) else str(d) for d in type.shape]
    return helper.make_tensor_value_info(name, ELEM_TYPE[type.dtype], dims)


def _needed(
    nodes: Sequence[onnx.NodeProto], outputs: set[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that `outputs` need, and every name that they read. An operator of a whole layer
    stands for nodes that were there before it."""
    read, kept = set(outputs), []
    for node in reversed(nodes):
        if read.intersection(node.output):
            kept.append(node)
            read.update(_names_read([node]))
    return kept[::-1], read


def _names_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """The inputs of all nodes, those of nested graphs included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            yield from _names_read(attribute.g.node)
            yield from (o.name for o in attribute.g.output)


class ModelBuilder:
    """Collects ONNX nodes and initializers while a graph is walked in order."""

    def __init__(self, opset: int):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.names: dict[Value, str] = {}
        # names that nothing makes, and what to say to who reads them
        self._absent: dict[str, str] = {}
        self._taken: set[str] = set()
        self._constants: dict[tuple[object, ...], str] = {}
        self._sizes: dict[Dim, str] = {}
        self._symbol_source: dict[Symbol, tuple[str, int]] = {}

    def child(self) -> ModelBuilder:
        """A builder of a nested graph: names and initializers are shared, nodes are its own."""
        inner = ModelBuilder(self.opset)
        inner.__dict__.update(
            self.__dict__, nodes=[], names=dict(self.names), _sizes=dict(self._sizes)
        )
        return inner

    def fresh(self, hint: str) -> str:
        """A name nobody else uses, starting with `hint`."""
        name, count = hint, 0
        while name in self._taken or name in self.initializers:
            count += 1
            name = f"{hint}_{count}"
        self._taken.add(name)
        return name

    def absent(self, message: str) -> str:
        """The name of a result that the model cannot have: one that needs it is refused with
        `message`."""
        name = self.fresh("absent")
        self._absent[name] = message
        return name

    def bind(self, value: Value, name: str) -> None:
        """`value` is what the model calls `name`."""
        self.names[value] = name
        self._taken.add(name)

    def declare_symbols(self, inputs: Sequence[Value], names: Mapping[Value, str]) -> None:
        """Remember an input and axis whose size each plain symbol is."""
        for value in inputs:
            for axis, dim in enumerate(value.shape):
                symbol = plain_symbol(dim)
                if symbol is not None:
                    self._symbol_source.setdefault(symbol, (names[value], axis))

    def op(
        self, kind: str, inputs: Sequence[str], hint: str = "", outputs: int = 1, **attrs: Any
    ) -> str:
        """Append a node with `attrs` (ints, floats, strings or lists) and return its first output's
        name."""
        return self.multi(kind, inputs, outputs, hint, **attrs)[0]

    def multi(
        self, kind: str, inputs: Sequence[str], outputs: int, hint: str = "", **attrs: Any
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        results = [self.fresh(hint or kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), results, **attrs))
        return results

    def constant(self, value: object, dtype: DType, hint: str = "const") -> str:
        """An initializer holding `value`, shared between equal constants."""
        array = np.array(value, dtype=dtype.numpy, order="C")
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer(self.fresh(hint), array, dtype)
        return self._constants[key]

    def initializer(self, name: str, array: np.ndarray, dtype: DType) -> str:
        """A named tensor stored in the model."""
        if dtype is dt.bf16:
            tensor = helper.make_tensor(
                name, TensorProto.BFLOAT16, array.shape, array.tobytes(), raw=True
            )
        else:
            tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        self.initializers[name] = tensor
        return name

    def ints(self, values: Sequence[int], hint: str = "ints") -> str:
        """A 1-d i64 constant: axes, pads, static shapes."""
        return self.constant(list(values), dt.i64, hint)

    def scalar(self, value: float, dtype: DType) -> str:
        return self.constant(value, dtype)

    def shape(self, dims: Sequence[Dim], infer_one: bool = False) -> str:
        """A 1-d i64 tensor of `dims`; with `infer_one` a single symbolic size is written as -1."""
        symbolic = [i for i, d in enumerate(dims) if not isinstance(d, int)]
        if not symbolic:
            return self.ints([int(d) for d in dims], "shape")
        if infer_one and len(symbolic) == 1 and 0 not in dims:
            return self.ints([d if isinstance(d, int) else -1 for d in dims], "shape")
        parts = [self.op("Reshape", [self.size(d), self.ints([1])], "dim") for d in dims]
        return self.op("Concat", parts, "shape", axis=0)

    def size(self, dim: Dim) -> str:
        """A 0-d i64 tensor computing `dim` from the shapes of the model's inputs."""
        if isinstance(dim, int):
            return self.constant(dim, dt.i64, "size")
        if dim not in self._sizes:
            self._sizes[dim] = self._polynomial(dim)
        return self._sizes[dim]

    def _polynomial(self, dim: SymInt) -> str:
        total = ""
        for monomial, factor in dim.terms:
            product = self.constant(factor, dt.i64, "size") if factor != 1 or not monomial else ""
            for atom in monomial:
                name = self._atom(atom)
                product = self.op("Mul", [product, name], "size") if product else name
            total = self.op("Add", [total, product], "size") if total else product
        return total

    def _atom(self, atom: Symbol | Quotient | Remainder) -> str:
        if isinstance(atom, (Quotient, Remainder)):
            return self._division(atom)
        if atom not in self._symbol_source:
            raise RuntimeError(
                f"onnx.export: no input has a dimension of size {atom.name}, so the model cannot "
                "compute it: pass a tensor whose shape holds this Dim itself"
            )
        name, axis = self._symbol_source[atom]
        shape = self.op("Shape", [name], "shape")
        return self.op("Gather", [shape, self.constant(axis, dt.i64, "axis")], atom.name, axis=0)

    def _division(self, atom: Quotient | Remainder) -> str:
        operands = [self.size(atom.numerator), self.size(atom.denominator)]
        remainder = self.op("Mod", operands, "size")
        if isinstance(atom, Remainder):
            return remainder
        # ONNX's integer Div truncates; taking the remainder off first makes it the floor
        exact = self.op("Sub", [operands[0], remainder], "size")
        return self.op("Div", [exact, operands[1]], "size")

    def rename(self, names: Mapping[str, str]) -> None:
        """Call intermediate results by other names, everywhere."""
        self._absent.update({names[n]: text for n, text in self._absent.items() if n in names})
        for node in self.nodes:
            for field in (node.input, node.output):
                for i, name in enumerate(field):
                    field[i] = names.get(name, name)

    def model(
        self,
        graph: Graph,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        doc: str,
    ) -> onnx.ModelProto:
        """The finished model: the nodes that the outputs need, and the initializers that these
        read."""
        nodes, read = _needed(self.nodes, {o.name for o in outputs})
        for name in read.intersection(self._absent):
            raise RuntimeError(self._absent[name])
        kept = [t for name, t in self.initializers.items() if name in read]
        body = helper.make_graph(
            nodes, graph.name, list(inputs), list(outputs), kept, doc_string=doc
        )
        return helper.make_model(
            body,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=min(onnx.IR_VERSION, 10),
            producer_name="graphtorch",
        )
