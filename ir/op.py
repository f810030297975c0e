"""Op records: everything the IR knows of an operation, in one place, and their registry.

    op = Op("relu", "max(x, 0).", ("x",), infer=..., vjp=..., reference=...)
    y = op(x)                                  # makes a node, returns its value

Each record states its operands, its attributes (a frozen dataclass), and five functions:

`infer(attrs, *types) -> types`
    The only shape rule. Symbolic dims are allowed. Raises what PyTorch raises, naming what was
    given.
`vjp(node, *cotangents) -> one value or None for each operand`
    The rule of reverse-mode differentiation, in terms of other ops. A cotangent is None where no
    gradient arrives. `NoGradient(reason)` says that an op has none, `ByDecomposition` that it
    follows from `decompose`.
`batch(node, operands, mapped, size) -> values`
    The rule of `vmap`: the op on `size` entries at once, in terms of other ops. Operands that are
    `mapped` have the entries along a new first dimension, others are the same for all; every result
    has the entries along its first dimension. `ByDecomposition` says that the rule follows from
    `decompose`, `NoBatch(reason)` that no operand can be mapped.
`decompose(node) -> values`
    For composites: the same results in terms of simpler ops. `CORE` for core ops.
`reference(attrs, *arrays) -> array or tuple of arrays`
    What the op means, in NumPy.
`plain(attrs, *arrays)`
    The same for arrays of more than 16 bits an element, without the steps that only narrow floats
    need, as numbers that may still have to be cast to the result's dtype; None where `reference`
    has no such steps. The caller turns NumPy's warnings off.

And facts, for whoever has to decide something about an op:

`kind`
    How an element of the result depends on the operands, a `Kind`.
`weight`
    What an element of the result costs, a `Weight`.
`reference_ns`
    Nanoseconds that `reference` takes where its weight says too little, since it is a loop in
    Python or a contraction: for each element of the first result, or of a node, by a function of
    `ops.timing`.
`raises`
    Whether it, or what it decomposes into, can fail at run time: on an index out of bounds, a
    singular matrix. The error names the user's line, so that programs which differ in the line are
    not one.

Code generation lives with the targets and ONNX names with the exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from typing import Any, ClassVar, TypeAlias, Union

from .dataclass import dataclass, field
from .graph import Location, Node, Type, Value, _location, current_location
from .judge import judge_here


@dataclass(frozen=True)
class Attrs:
    """Base of the attribute records; on its own: an op without attributes.

    Fields are int, float, bool, str, DType, Dim, Literal, Graph, None, and tuples of those: what
    the text form can print and read back.
    """

    _split: ClassVar[Any] = None  # kept by `ir.structure.split_attrs`, on the records themselves


NO_ATTRS = Attrs()


@dataclass(frozen=True)
class NoGradient:
    """In the place of a `vjp`: the op is not differentiable (or constant almost everywhere)."""

    reason: str


class ByDecomposition:
    """In the place of a composite's `vjp` or `batch`: differentiate, or map, what it decomposes
    into."""


BY_DECOMPOSITION = ByDecomposition()


@dataclass(frozen=True)
class NoBatch:
    """In the place of a `batch` rule: the op never meets an operand with entries."""

    reason: str


class Kind(Enum):
    """How an element of the result depends on the operands: what fusion and lowering go by.

    POINTWISE: a function of the elements in its place of the operands, which broadcast
    VIEW: an element of the operand in another place, as it is; or a size
    MOVE: an element of one of the operands, by its place
    REDUCTION: a combination of the elements along some dimensions
    CONTRACTION: a sum of products along some dimensions
    WINDOW: a combination of a few neighbours
    LOOKUP: an element of the first operand, at the place that other operands say
    SCATTER: the first operand, with elements of another one at places that operands say
    DRAW: a random number by its place, from a place in a stream
    CONTROL: what bodies compute, graphs in the attributes
    WHOLE: none of these; it needs its operands whole
    """

    POINTWISE = "pointwise"
    VIEW = "view"
    MOVE = "move"
    REDUCTION = "reduction"
    CONTRACTION = "contraction"
    WINDOW = "window"
    LOOKUP = "lookup"
    SCATTER = "scatter"
    DRAW = "draw"
    CONTROL = "control"
    WHOLE = "whole"


class Weight(IntEnum):
    """What an element of the result costs, in order: what is worth doing twice, or by a thread of
    its own.

    FREE: nothing: a number's place, a copy of it, a constant
    CHEAP: about as much as the load it saves: a sum, a comparison
    PLAIN: a few of those: a quotient, a root; a sum over many elements
    SLOW: a polynomial: exp and its like, a random number
    VERY_SLOW: a series, a loop until an element is done
    COSTLY: not a number of steps an element: a sort, a factorization, a loop; never done twice
    CONTRACTION: a sum of products, never done twice either
    """

    FREE = 0
    CHEAP = 1
    PLAIN = 2
    SLOW = 3
    VERY_SLOW = 4
    COSTLY = 5
    CONTRACTION = 6


class Core:
    """In the place of `decompose`: a target implements this op itself."""


CORE = Core()

Infer: TypeAlias = Callable[..., tuple[Type, ...]]
Vjp: TypeAlias = Union[Callable[..., tuple[Value | None, ...]], NoGradient, ByDecomposition]
Batch: TypeAlias = Union[Callable[..., tuple[Value, ...]], NoBatch, ByDecomposition]
Decompose: TypeAlias = Union[Callable[[Node], tuple[Value, ...]], Core]
Reference: TypeAlias = Callable[..., Any]
ReferenceTime: TypeAlias = Union[float, Callable[[Node], float], None]

INFER_CACHE_LIMIT = 4096  # types of one op seen so far; cleared when full (dynamic programs)


def _is_exact(value: Any) -> bool:
    """Whether no other value of this type is equal to it, as -0.0 to 0.0; of tuples nobody
    looks."""
    return type(value) is not tuple and (type(value) is not float or value != 0)


def _is_judged(operands: Sequence[Value]) -> bool:
    """Whether what is inferred of operands may depend on who decides about sizes."""
    return judge_here() is not None and not all(v.type.is_static for v in operands)


@dataclass(eq=False)
class Op:
    """An op record. `operands` names them: ``b?`` may be left out at the end, ``*xs`` takes any
    number."""

    name: str
    doc: str
    operands: tuple[str, ...]
    infer: Infer
    vjp: Vjp
    reference: Reference
    attrs: type[Attrs] = Attrs
    decompose: Decompose = CORE
    plain: Reference | None = None
    kind: Kind = field(kw_only=True)
    weight: Weight = field(kw_only=True)
    reference_ns: ReferenceTime = field(default=None, kw_only=True)
    raises: bool = field(default=False, kw_only=True)
    batch: Batch = field(kw_only=True)
    _inferred: dict[tuple[object, ...], tuple[Type, ...]] = field(default_factory=dict, repr=False)
    _has_floats: bool = field(default=False, init=False, repr=False)
    _recorded: dict[tuple[object, ...], tuple[Attrs, tuple[Type, ...]]] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        if self.name in OPS:
            raise ValueError(f"op {self.name!r} is registered twice")
        if self.plain is None:
            self.plain = getattr(self.reference, "plain", None)
        # a number in such a field may be 1 or 1.0, which are equal but not the same
        self._has_floats = any(
            "float" in kind or "Number" in kind
            for part in self.attrs.__mro__[:-1]  # `fields` would take longer
            for kind in part.__annotations__.values()
        )
        OPS[self.name] = self

    @property
    def is_core(self) -> bool:
        return self.decompose is CORE

    @property
    def is_cheap(self) -> bool:
        """Whether a result is as well computed again as kept. What moves elements from several
        places into one would have to find each one's place again."""
        return self.weight <= Weight.CHEAP and self.kind is not Kind.MOVE

    @property
    def is_variadic(self) -> bool:
        return bool(self.operands) and self.operands[-1].startswith("*")

    def arity(self) -> tuple[int, int | None]:
        """Fewest and most operands; None for no upper limit."""
        required = sum(not o.endswith("?") and not o.startswith("*") for o in self.operands)
        return required, None if self.is_variadic else len(self.operands)

    def types(self, attrs: Attrs, operands: Sequence[Value]) -> tuple[Type, ...]:
        """The result types, remembered by attributes and operand types.

        Where a judge decides how sizes compare, nothing is remembered: another one may decide
        otherwise.
        """
        # None stands for no attributes: its hash costs nothing
        key = (None if attrs is NO_ATTRS else attrs, *[v.type for v in operands])
        found = self._inferred.get(key)
        if found is None and _is_judged(operands):
            return self.infer(attrs, *key[1:])
        if found is None:
            if len(self._inferred) >= INFER_CACHE_LIMIT:
                self._inferred.clear()
            found = self._inferred[key] = self.infer(attrs, *key[1:])
        return found

    def node(
        self, operands: tuple[Value, ...], attrs: Attrs = NO_ATTRS, location: Location | None = None
    ) -> Node:
        """A new node; `location` None takes the current one."""
        return Node(
            self, operands, attrs, self.types(attrs, operands), location or current_location()
        )

    def __call__(self, *operands: Value, **attrs: Any) -> Any:
        """Apply the op: its value, or a tuple of values where it has several results."""
        if attrs:
            key = (tuple(attrs), *attrs.values(), *[v.type for v in operands])
            if self._has_floats:
                key += tuple([type(v) for v in attrs.values()])
            found = self._recorded.get(key)
            record, types = self._record(key, attrs, operands) if found is None else found
        elif self.attrs is Attrs:  # `types` in line: most ops recorded are of this kind
            record = NO_ATTRS
            types = self._inferred.get((None, *[v.type for v in operands])) or self.types(
                record, operands
            )
        else:
            record = self.attrs()
            types = self.types(record, operands)
        node = Node(self, operands, record, types, _location.get())
        return Value(types[0], node, 0) if len(types) == 1 else node.results()

    @classmethod
    def applied_by(cls, call: Callable[..., Any]) -> None:
        """From now on `call` is what ops are when they are called; it does what `__call__` does."""
        cls.__call__ = call  # type: ignore[method-assign]

    def _record(
        self, key: tuple[object, ...], attrs: dict[str, Any], operands: tuple[Value, ...]
    ) -> tuple[Attrs, tuple[Type, ...]]:
        """The record of attributes and the result types; kept where `key` stands for nothing
        else."""
        record = self.attrs(**attrs)
        found = record, self.types(record, operands)
        if (not self._has_floats or all(_is_exact(v) for v in attrs.values())) and not _is_judged(
            operands
        ):
            if len(self._recorded) >= INFER_CACHE_LIMIT:
                self._recorded.clear()
            self._recorded[key] = found
        return found

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> str:
        raise TypeError(f"op {self.name} is a program, not data: print the graph instead")


OPS: dict[str, Op] = {}
