"""Stable sorting of lines by keys: unsigned integers that are in order as the elements are.

Floats become keys by their bits, with one NaN above infinity and one zero, so every dtype is sorted
by the same code: long lines by a radix sort of eight bits at a time from the lowest on, which skips
digits that are the same in all keys; short lines by counting for each key how many come before it.
Keys of up to 32 bits share a word with the position they came from, wider ones move together with
it.
"""

from __future__ import annotations

from graphtorch.ir.dtype import DType, f32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.shape import Dim, bounds

from ...kernels.body.scope import Scope
from ...kernels.builder import Builder
from ...kernels.ir import Buffer, Const, Expr, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from .. import cost
from ..loops.places import Places
from ..loops.tasks import task_rows
from .lines import Lines, is_used

SHORT = 64  # longest line sorted by counting
RADIX = 256
LOW = 0xFFFFFFFF


def lower_sort(places: Places, node: Node) -> None:
    """One kernel for the values in order along a dimension and their positions."""
    (x,) = node.operands
    source = places.materialise(x)
    results = {i: places.result_slot(r) for i, r in enumerate(node.results()) if is_used(places, r)}
    if 0 in x.shape:
        return
    lines = Lines.along(node.attrs.dim, x.shape)
    keys = (
        PackedKeys if key_bits(x.dtype) <= 32 and bounds(lines.length)[1] < 1 << 32 else PairedKeys
    )
    SortLines(places, node, source, lines, results, keys).emit()


def key_bits(dtype: DType) -> int:
    return 8 if dtype.is_bool else max(dtype.bits, 32) if dtype.is_floating_point else dtype.bits


def key_of(b: Builder, x: Expr, descending: bool) -> Expr:
    """The key of an element, as the low bits of an i64."""
    dtype = x.type.dtype
    if dtype.is_floating_point:
        key = float_key(b, b.let(x if dtype.bits == 64 else cast(x, f32), "x"))
    else:
        signed = dtype.signed and not dtype.is_bool
        key = binary("xor", cast(x, i64), Const(-1 << dtype.bits - 1)) if signed else cast(x, i64)
    bits = key_bits(dtype)
    if descending:
        key = binary("xor", key, Const(-1))
    return key if bits == 64 else binary("and", key, Const((1 << bits) - 1))


def float_key(b: Builder, x: Expr) -> Expr:
    """The bits of x, all of them flipped where it is negative, else the sign alone."""
    like = x.type
    one_nan = select(
        unary("isnan", x), Const(float("nan"), like), binary("add", x, Const(0.0, like))
    )
    # an f32's sign fills the upper half
    bits = b.let(cast(unary("bitcast_int", one_nan), i64), "bits")
    sign = Const(-1 << like.dtype.bits - 1)
    return select(
        binary("lt", bits, Const(0)), binary("xor", bits, Const(-1)), binary("xor", bits, sign)
    )


class PackedKeys:
    """Words of a key above the position it came from: all are different, and in order as the lines
    are."""

    shift = 32

    def __init__(self, places: Places, scope: Scope, elements: Dim):
        self.b = scope.b
        self.words = scope.buffer(places.lowering.temporary(i64, (elements,)), "readwrite")

    def put(self, at: Expr, key: Expr, place: Expr) -> None:
        self.b.store(self.words, at, binary("or", binary("shl", key, Const(32)), place))

    def place(self, at: Expr) -> Expr:
        """The position that the word at `at` came from."""
        return binary("and", load(self.words, at), Const(LOW))

    def move(self, source: Expr, word: Expr, target: Expr) -> None:
        self.b.store(self.words, target, word)

    def before(self, other: Expr, word: Expr, j: Expr, i: Expr) -> Expr:
        """Whether the word `other` of position j comes before that of position i."""
        return binary("lt_u", other, word)


class PairedKeys(PackedKeys):
    """Keys in one buffer, the positions they came from in another."""

    shift = 0

    def __init__(self, places: Places, scope: Scope, elements: Dim):
        super().__init__(places, scope, elements)
        self.places = scope.buffer(places.lowering.temporary(i64, (elements,)), "readwrite")

    def put(self, at: Expr, key: Expr, place: Expr) -> None:
        self.b.store(self.words, at, key)
        self.b.store(self.places, at, place)

    def place(self, at: Expr) -> Expr:
        return load(self.places, at)

    def move(self, source: Expr, word: Expr, target: Expr) -> None:
        self.b.store(self.words, target, word)
        self.b.store(self.places, target, load(self.places, source))

    def before(self, other: Expr, word: Expr, j: Expr, i: Expr) -> Expr:
        ties = binary("and", binary("eq", other, word), binary("lt", j, i))
        return binary("or", binary("lt_u", other, word), ties)


class SortLines:
    """The kernel of one sort; each task sorts whole lines."""

    def __init__(
        self,
        places: Places,
        node: Node,
        source: Slot,
        lines: Lines,
        results: dict[int, Slot],
        keys: type[PackedKeys],
    ):
        self.node, self.lines, self.dtype = node, lines, source.dtype
        self.scope = Scope(places.lowering, node.op.name)
        self.outputs = {i: self.scope.buffer(s, "write") for i, s in results.items()}
        self.source = self.scope.buffer(source)
        self.keys = keys(places, self.scope, lines.elements * 2)

    def emit(self) -> None:
        scope, b, lines = self.scope, self.scope.b, self.lines
        with task_rows(scope, lines.count, lines.length * 16, cost.grain([self.node], 8.0)) as row:
            self.n, self.inner = scope.expr(lines.length), scope.expr(lines.inner)
            self.base = b.let(row * self.n * 2, "base")
            self.first = row * self.n
            if lines.inner != 1:
                self.first = row // self.inner * self.n * self.inner + row % self.inner
            self.first = b.let(self.first, "first")
            self.sort_line()
        digits = key_bits(self.dtype) // 8
        moved = cost.traffic([*self.node.operands, *self.node.results()])
        scope.launch(self.node.op.name, lines.elements * (2 * digits + 2), moved)

    def sort_line(self) -> None:
        low, high = bounds(self.lines.length)
        b = self.scope.b
        if high <= SHORT:
            self.sort_short()
        elif low > SHORT:
            self.sort_long()
        else:
            with b.when(binary("gt", self.n, Const(SHORT))):
                self.sort_long()
            with b.otherwise():
                self.sort_short()

    def element(self, k: Expr) -> Expr:
        """Position in memory of element k of the line."""
        return self.first + k * self.inner

    def store(self, k: Expr, place: Expr) -> None:
        """Element k in order is the one that stood at `place`."""
        at = self.scope.b.let(self.element(k), "at")
        if 0 in self.outputs:
            self.scope.b.store(self.outputs[0], at, load(self.source, self.element(place)))
        if 1 in self.outputs:
            self.scope.b.store(self.outputs[1], at, place)

    def key(self, k: Expr) -> Expr:
        b = self.scope.b
        return b.let(
            key_of(b, load(self.source, self.element(k)), self.node.attrs.descending), "key"
        )

    def sort_short(self) -> None:
        """Each element goes to the place that is the number of those before it."""
        b, words = self.scope.b, self.keys.words
        with b.loop(self.n, "serial", "k") as k:
            self.keys.put(self.base + k, self.key(k), k)
        with b.loop(self.n, "serial", "i") as i:
            word = b.let(load(words, self.base + i), "word")
            rank = b.var(Const(0), "rank")
            with b.loop(self.n, "vector", "j") as j:
                other = b.let(load(words, self.base + j), "other")
                b.assign(rank, binary("add", rank, cast(self.keys.before(other, word, j, i), i64)))
            self.store(rank, i)

    def sort_long(self) -> None:
        b, digits = self.scope.b, key_bits(self.dtype) // 8
        counts = b.scratch(i64, RADIX * digits, "counts")
        with b.loop(RADIX * digits, "vector", "k") as k:
            b.store(counts, k, Const(0))
        with b.loop(self.n, "serial", "k") as k:
            key = self.key(k)
            self.keys.put(self.base + k, key, k)
            for i in range(digits):
                at = b.let(self.digit(key, Const(8 * i)) + RADIX * i, "digit")
                b.store(counts, at, load(counts, at) + 1)
        source, both = b.var(self.base, "source"), b.let(self.base * 2 + self.n, "both")
        with b.loop(digits, "serial", "d") as d:
            shift = b.let(d * 8 + self.keys.shift, "shift")
            some = self.digit(load(self.keys.words, source), shift)
            with b.when(binary("lt", load(counts, d * RADIX + some), self.n)):
                target = b.let(both - source, "target")
                self.distribute(counts, d, shift, source, target)
                b.assign(source, target)
        with b.loop(self.n, "serial", "k") as k:
            self.store(k, b.let(self.keys.place(source + k), "place"))

    def digit(self, key: Expr, shift: Expr) -> Expr:
        return binary("and", binary("shr_u", key, shift), Const(RADIX - 1))

    def distribute(self, counts: Buffer, d: Expr, shift: Expr, source: Expr, target: Expr) -> None:
        """Move all words from `source` to `target` in the order of digit `d`."""
        b = self.scope.b
        total = b.var(Const(0), "total")
        with b.loop(RADIX, "serial", "k") as k:
            at = b.let(d * RADIX + k, "at")
            count = b.let(load(counts, at), "count")
            b.store(counts, at, total)
            b.assign(total, binary("add", total, count))
        with b.loop(self.n, "serial", "k") as k:
            origin = b.let(source + k, "from")
            word = b.let(load(self.keys.words, origin), "word")
            at = b.let(d * RADIX + self.digit(word, shift), "at")
            place = b.let(load(counts, at), "to")
            b.store(counts, at, place + 1)
            self.keys.move(origin, word, target + place)
