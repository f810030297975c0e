"""Reading the values of a region's body inside a kernel, at an index given as polynomials.

An operand of a contraction or of its epilogue is a value of the region's body: an input seen
through views (permute, expand, reshape, slice) and pointwise ops. `Reader` turns a value and an
index into a load whose address is a polynomial in the loop variables, and so knows its stride along
the lanes of a vector: a stride of 0 is one scalar for all lanes, 1 a vector load, anything else a
gather.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphtorch.ir.dtype import DType, i32
from graphtorch.ir.graph import Node, Value
from graphtorch.ir.shape import Dim, contiguous_strides
from graphtorch.ir.views import STRIDED, StridedView

from ...dataclass import dataclass
from ..builder import Builder
from ..ir import Buffer, Const, Expr, KType, Lanes, Shuffle, binary, cast, load, splat
from .pointwise import emit_op, is_pointwise
from .space import Space, coefficient
from .views import VIEWS, operand_index


@dataclass(frozen=True)
class Access:
    """An input of the region read at a polynomial address and cast, in order, to `casts`."""

    leaf: Value
    address: Dim
    casts: tuple[DType, ...] = ()

    @property
    def dtype(self) -> DType:
        return self.casts[-1] if self.casts else self.leaf.dtype


def broadcast_to(index: Sequence[Dim], value: Value) -> tuple[Dim, ...]:
    """The index of `value` where it is broadcast to a shape indexed by `index`."""
    shape = value.shape
    tail = index[len(index) - len(shape) :]
    return tuple([0 if size == 1 else i for i, size in zip(tail, shape, strict=True)])


def through(space: Space, node: Node, index: Sequence[Dim]) -> tuple[Dim, ...]:
    """Where the element `index` of a view lies in what it views."""
    return tuple(index) if node.op.name == "detach" else operand_index(space, node, tuple(index))


def resolve(value: Value, index: Sequence[Dim]) -> Access | None:
    """`value` at `index` as one access of an input, through strided views and casts; else None."""
    casts: list[DType] = []
    view = _strided(value, casts)
    if view is None:
        return None
    address = view.offset
    for i, stride in zip(index, view.strides, strict=True):
        address = address + i * stride
    return Access(view.root, address, tuple(casts))


def _strided(value: Value, casts: list[DType]) -> StridedView | None:
    """`value` as a strided view of an input, if the casts on the way (collected in order) are left
    out."""
    if value.node is None:
        return StridedView(value, value.shape, 0, contiguous_strides(value.shape))
    name = value.node.op.name
    if name != "cast" and name not in STRIDED:
        return None
    below = _strided(value.node.operands[0], casts)
    if below is None or name != "cast":
        return None if below is None else STRIDED[name](value.node, below)
    casts.append(value.dtype)
    return below


class Reader:
    """Emits the loads and the pointwise ops that give body values at an index.

    Args:
        buffer_of: the kernel's buffer for an input of the body.
        known: values at hand: a function of an index (the result of the contraction itself).
    """

    def __init__(self, b: Builder, space: Space, buffer_of: Callable[[Value], Buffer]) -> None:
        self.b = b
        self.space = space
        self.buffer_of = buffer_of
        self.memo: dict[tuple[object, ...], Expr] = {}
        self.mask: Expr | None = None  # of the lanes that are read
        self._masks: dict[tuple[int | Expr, int], Expr | None] = {}
        # a shape, an index into it, and its position
        self.whole: tuple[tuple[Dim, ...], Sequence[Dim], Dim] | None = None

    def limit(self, valid: int | Expr, lanes: int) -> Expr | None:
        """Read the first `valid` lanes from now on; their mask, the same object for the same
        `valid`: what lies in two places of a tile at one address is only read once for both if as
        many lanes are."""
        key = valid, lanes
        if key not in self._masks:
            self._masks[key] = lane_mask(valid, lanes)
        self.mask = self._masks[key]
        return self.mask

    def read(self, address: Dim, buffer: Buffer) -> Expr:
        """The elements at `address`: a scalar where it is the same for all lanes of the space's
        vector."""
        key = (buffer, address, self.space.vector, self.space.lanes, self.mask)
        if key not in self.memo:
            self.memo[key] = self.b.let(self._load(address, buffer), buffer.name + "_v")
        return self.memo[key]

    def _load(self, address: Dim, buffer: Buffer) -> Expr:
        space = self.space
        if not space.depends_on_lanes(address):
            return load(buffer, space.base(address))
        assert space.vector is not None
        if coefficient(address, space.vector) == 1:
            return load(buffer, space.base(address), space.lanes, self.mask)
        return load(buffer, space.expr(address), mask=self.mask)

    def access(self, access: Access) -> Expr:
        value = self.read(access.address, self.buffer_of(access.leaf))
        for dtype in access.casts:
            value = cast(value, dtype)
        return value

    def value(self, value: Value, index: Sequence[Dim], known: dict[Value, Expr]) -> Expr:
        """`value` at `index`; `known` holds values already computed at this index and receives
        more."""
        if value in known:
            return known[value]
        node = value.node
        if node is None:
            return self.read(self._position(index, value), self.buffer_of(value))
        if node.op.name == "constant":
            return self._constant(node, value)
        if node.op.name in VIEWS:
            return self._viewed(node, index, known)
        if node.op.name == "iota":
            place = self.space.expr(index[node.attrs.dim])
            return self.b.let(cast(place, value.dtype), "iota")
        if not is_pointwise(node):
            raise TypeError(
                f"op {node.op.name} inside a contraction region: the fuse pass may put views and "
                "pointwise ops there only"
            )
        operands = [
            self.value(v, broadcast_to(index, v), self._same_index(known, v, value))
            for v in node.operands
        ]
        known[value] = emit_op(self.b, node, operands)
        return known[value]

    def _position(self, index: Sequence[Dim], value: Value) -> Dim:
        if self.whole is not None:
            shape, whole, position = self.whole
            # behind a view the index is another one: a square matrix, transposed, has the same
            # shape
            if value.shape == shape and (index is whole or list(index) == whole):
                return position
        return self.space.linear(index, value.shape)

    @staticmethod
    def _same_index(known: dict[Value, Expr], operand: Value, value: Value) -> dict[Value, Expr]:
        return known if operand.shape == value.shape else {}

    def _viewed(self, node: Node, index: Sequence[Dim], known: dict[Value, Expr]) -> Expr:
        source = node.operands[0]
        if node.op.name == "reshape" and source in known:
            return known[source]  # the same elements in the same order: the position is what counts
        return self.value(source, through(self.space, node, index), {})

    def _constant(self, node: Node, value: Value) -> Expr:
        number = node.attrs.value.numpy().reshape(-1)
        if number.size != 1:
            raise TypeError(
                "a constant array inside a contraction region: the fuse pass makes it an operand"
            )
        return Const(number[0].item(), KType(value.dtype))


def lane_mask(valid: int | Expr, lanes: int) -> Expr | None:
    """The mask of the first `valid` lanes; None where all are."""
    if isinstance(valid, int) and valid >= lanes:
        return None
    lane = Lanes(KType(i32, lanes))
    if isinstance(valid, int):
        return binary("lt", lane, Const(valid, KType(i32, lanes)))
    bound = binary("min", valid, Const(lanes))
    return binary("lt", lane, splat(cast(bound, i32), lanes))


def store_lanes(
    b: Builder, buffer: Buffer, index: Expr, value: Expr, valid: int | Expr, masks: bool
) -> None:
    """Store the first `valid` lanes at `index` on.

    Without cheap masked stores (`masks`), a known number of lanes goes as pieces of 8, 4, 2, 1
    lanes.
    """
    lanes = value.type.lanes
    if masks or not isinstance(valid, int) or valid >= lanes:
        b.store(buffer, index, value, lane_mask(valid, lanes))
        return
    value = b.let(value, "part")
    done = 0
    while done < valid:
        size = 1 << ((valid - done).bit_length() - 1)
        b.store(buffer, index + done, piece(value, done, size))
        done += size


def piece(value: Expr, start: int, lanes: int) -> Expr:
    """`lanes` neighbouring lanes of a vector."""
    return Shuffle(value, value, tuple(range(start, start + lanes)), KType(value.type.dtype, lanes))
