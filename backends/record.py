"""What calling a compiled program takes, apart from its code: as plain data that JSON can hold."""

from __future__ import annotations

from typing import Any

from graphtorch.ir.ops.require import FAILURES
from graphtorch.ir.shape import Dim, Quotient, Remainder, Symbol, SymInt

from .dataclass import dataclass, field


@dataclass(frozen=True)
class Array:
    """An input or output: `alias` is the input whose memory an output takes over."""

    dtype: str
    shape: tuple[Dim, ...]
    name: str = ""
    alias: int | None = None


@dataclass(frozen=True)
class Site:
    """What status ``1 + index`` is reported as."""

    op: str
    message: str
    file: str = ""
    line: int = 0
    kind: str = "index"

    def error(self) -> Exception:
        """What a run that ended with this status raises."""
        return FAILURES[self.kind](self.text())

    def text(self) -> str:
        place = f" at {self.file}:{self.line}" if self.file else ""
        return f"{self.message} ({self.op}{place})"


@dataclass(frozen=True)
class Part:
    """Elements of an array as two memories have them: where they start and their strides, in
    elements, in packed memory and in row-major order."""

    shape: tuple[int, ...]
    packed_start: int
    packed_strides: tuple[int, ...]
    start: int
    strides: tuple[int, ...]

    @staticmethod
    def from_json(data: dict[str, Any]) -> Part:
        shape, places, strides = (tuple(data[k]) for k in ("shape", "packed_strides", "strides"))
        return Part(shape, data["packed_start"], places, data["start"], strides)


@dataclass(frozen=True)
class Rearranged:
    """An input all of whose elements packed memory has, from a byte of it on, in another order;
    after the prologue nothing else of it is read."""

    input: int
    offset: int
    parts: tuple[Part, ...]

    @staticmethod
    def from_json(data: dict[str, Any]) -> Rearranged:
        parts = tuple(Part.from_json(part) for part in data["parts"])
        return Rearranged(data["input"], data["offset"], parts)


@dataclass(frozen=True)
class Launches:
    """A program's table of launches (table.py) without its constants: `functions` names its
    kernels."""

    code: tuple[int, ...]
    prologue: tuple[int, ...]
    functions: tuple[str, ...]
    sizes: tuple[Dim, ...]
    words: int
    operands: int

    @staticmethod
    def from_json(data: dict[str, Any], symbols: dict[str, Symbol]) -> Launches:
        return Launches(
            tuple(data["code"]),
            tuple(data["prologue"]),
            tuple(data["functions"]),
            tuple(dim_from_json(d, symbols) for d in data["sizes"]),
            data["words"],
            data["operands"],
        )


@dataclass(frozen=True)
class Record:
    """A compiled program's calling convention (see abi.py) and what it says of itself."""

    name: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    symbols: tuple[Symbol, ...]
    arena: Dim
    packed: Dim
    # positions of the inputs it reads; None where there is no prologue
    prologue: tuple[int, ...] | None
    launches: Launches
    rearranged: tuple[Rearranged, ...] = ()
    errors: tuple[Site, ...] = ()
    explanation: str = ""
    statistics: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        data = dict(vars(self))
        for key in ("inputs", "outputs"):
            data[key] = [{**vars(a), "shape": [dim_to_json(d) for d in a.shape]} for a in data[key]]
        data.update(arena=dim_to_json(self.arena), packed=dim_to_json(self.packed))
        data.update(symbols=[vars(s) for s in self.symbols], errors=[vars(s) for s in self.errors])
        sizes = [dim_to_json(d) for d in self.launches.sizes]
        data["launches"] = {**vars(self.launches), "sizes": sizes}
        data["rearranged"] = [
            {**vars(r), "parts": [vars(p) for p in r.parts]} for r in self.rearranged
        ]
        return data

    @staticmethod
    def from_json(data: dict[str, Any]) -> Record:
        symbols = tuple(Symbol(**s) for s in data["symbols"])
        known = {s.name: s for s in symbols}
        arrays = {
            key: tuple(
                Array(
                    a["dtype"],
                    tuple(dim_from_json(d, known) for d in a["shape"]),
                    a["name"],
                    a["alias"],
                )
                for a in data[key]
            )
            for key in ("inputs", "outputs")
        }
        prologue = data["prologue"]
        sites = tuple(Site(**s) for s in data["errors"])
        return Record(
            data["name"],
            arrays["inputs"],
            arrays["outputs"],
            symbols,
            dim_from_json(data["arena"], known),
            dim_from_json(data["packed"], known),
            None if prologue is None else tuple(prologue),
            Launches.from_json(data["launches"], known),
            tuple(Rearranged.from_json(r) for r in data["rearranged"]),
            sites,
            data["explanation"],
            data["statistics"],
        )


def dim_to_json(dim: Dim) -> Any:
    """An int, or a list of ``[factor, atoms]``; an atom is a name or ``[operator, dim, dim]``."""
    if isinstance(dim, int):
        return dim
    return [[factor, [_atom_to_json(a) for a in monomial]] for monomial, factor in dim.terms]


def _atom_to_json(atom: Symbol | Quotient | Remainder) -> Any:
    if isinstance(atom, Symbol):
        return atom.name
    return [
        "//" if isinstance(atom, Quotient) else "%",
        dim_to_json(atom.numerator),
        dim_to_json(atom.denominator),
    ]


def dim_from_json(data: Any, symbols: dict[str, Symbol]) -> Dim:
    if isinstance(data, int):
        return data
    return SymInt(
        tuple((tuple(_atom_from_json(a, symbols) for a in atoms), factor) for factor, atoms in data)
    )


def _atom_from_json(data: Any, symbols: dict[str, Symbol]) -> Symbol | Quotient | Remainder:
    if isinstance(data, str):
        return symbols[data]
    kind = Quotient if data[0] == "//" else Remainder
    return kind(dim_from_json(data[1], symbols), dim_from_json(data[2], symbols))
