"""Draws from a Mersenne Twister, as ir/ops/mersenne.py specifies them: one task, block after block.

The words of a block follow from those of the block before with distances of 227 words and more, so
making a block vectorises; what needs a word at a time takes it from the block in scratch.
"""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.ir.dtype import f32, f64, i32, i64
from graphtorch.ir.graph import Node
from graphtorch.ir.ops.mersenne import (
    BLOCK,
    IS_KEPT,
    KEPT,
    LEFT,
    PLACE,
    SEEDED,
    SQUEEZE,
    STATE_TYPE,
    STIRLING_TAILS,
    THIRD,
    WORDS,
)
from graphtorch.ir.shape import Dim, numel

from ...kernels.body.scope import Scope, upper_bound
from ...kernels.builder import Builder
from ...kernels.ir import Const, Expr, KType, Name, binary, cast, load, select, unary
from ...kernels.program.program import Slot
from ..loops.places import Places
from .lines import is_used

I32, F64 = KType(i32), KType(f64)
# distances of the recurrence, forwards in the old block and back in the new one
FAR, NEAR = 397, WORDS - 397
MATRIX = 0x9908B0DF
ALL = STATE_TYPE.shape[0]
PI = 3.14159265358979323846


def _bits(number: int) -> Const:
    """32 bits as a signed constant."""
    return Const(number - (1 << 32) if number >> 31 else number, I32)


def _real(number: float) -> Const:
    return Const(float(number), F64)


class Engine:
    """The generator inside a kernel: its block in scratch, and registers for what else changes."""

    def __init__(self, scope: Scope, source: Slot, target: Slot | None):
        """Args: target: for the next state, None where nobody reads it."""
        self.b = scope.b
        self.source = scope.buffer(source)
        self.target = None if target is None else scope.buffer(target, "write")
        b = self.b
        self.block, self.next = b.scratch(i32, WORDS, "block"), b.scratch(i32, WORDS, "next")
        with b.loop(Const(WORDS), "vector", "w") as w:
            b.store(self.block, w, cast(load(self.source, w + BLOCK), i32))
        left = binary("and", load(self.source, Const(LEFT)), Const(0xFFFFFFFF))
        begun = select(binary("eq", left, Const(1)), Const(WORDS), load(self.source, Const(PLACE)))
        # a state that somebody made up stays inside the block
        begun = binary("min", binary("max", begun, Const(0)), Const(WORDS))
        self.place = b.var(begun, "place")
        self.drawn = b.var(Const(0), "drawn")
        self.kept: Name | None = None
        self.is_kept: Name | None = None

    def refill(self) -> None:
        """The next block."""
        b = self.b

        def part(lo: int, hi: int, other: Callable[[Expr], Expr]) -> None:
            with b.loop(Const(hi), "vector", "w", Const(lo)) as w:
                b.store(self.next, w, binary("xor", other(w), self._mixed(w, w + 1)))

        part(0, NEAR, lambda w: load(self.block, w + FAR))
        part(NEAR, WORDS - 1, lambda w: load(self.next, w - NEAR))
        last = Const(WORDS - 1)
        mixed = self._mixed(last, Const(0), self.next)
        b.store(self.next, last, binary("xor", load(self.next, last - NEAR), mixed))
        with b.loop(Const(WORDS), "vector", "w") as w:
            b.store(self.block, w, load(self.next, w))
        b.assign(self.place, Const(0))

    def _mixed(self, upper: Expr, lower: Expr, block: object = None) -> Expr:
        b = self.b
        low = b.let(load(self.next if block is not None else self.block, lower), "low")
        y = binary(
            "or",
            binary("and", load(self.block, upper), _bits(0x80000000)),
            binary("and", low, _bits(0x7FFFFFFF)),
        )
        odd = unary("neg", binary("and", low, _bits(1)))
        return binary("xor", binary("shr_u", y, _bits(1)), binary("and", odd, _bits(MATRIX)))

    def tempered(self, at: Expr) -> Expr:
        """The word that place `at` of the block stands for."""
        b = self.b
        y = b.let(load(self.block, at), "y")
        y = b.let(binary("xor", y, binary("shr_u", y, _bits(11))), "y")
        y = b.let(
            binary("xor", y, binary("and", binary("shl", y, _bits(7)), _bits(0x9D2C5680))), "y"
        )
        y = b.let(
            binary("xor", y, binary("and", binary("shl", y, _bits(15)), _bits(0xEFC60000))), "y"
        )
        return b.let(binary("xor", y, binary("shr_u", y, _bits(18))), "y")

    def many(self, count: Expr, use: Callable[[Expr, Expr], None] | None) -> None:
        """The next `count` words: ``use(number, word)`` inside a vector loop."""
        b = self.b
        done = b.var(Const(0), "done")
        with b.repeat(binary("lt", done, count)):
            with b.when(binary("ge", self.place, Const(WORDS))):
                self.refill()
            take = b.let(upper_bound(Const(WORDS) - self.place, count - done), "take")
            if use is not None:
                first, begun = b.let(done + 0, "first"), b.let(self.place + 0, "begun")
                with b.loop(take, "vector", "w") as w:
                    use(first + w, self.tempered(begun + w))
            b.assign(done, done + take)
            b.assign(self.place, self.place + take)
        b.assign(self.drawn, binary("or", self.drawn, count))

    def word(self) -> Expr:
        """The next word, 0 .. 2**32 - 1."""
        b = self.b
        with b.when(binary("ge", self.place, Const(WORDS))):
            self.refill()
        found = b.let(
            binary("and", cast(self.tempered(self.place), i64), Const(0xFFFFFFFF)), "word"
        )
        b.assign(self.place, self.place + 1)
        b.assign(self.drawn, Const(1))
        return found

    def unit(self) -> Expr:
        """In [0, 1) with 53 bits."""
        b = self.b
        first, second = self.word(), self.word()
        both = binary(
            "or", binary("shl", binary("and", first, Const((1 << 21) - 1)), Const(32)), second
        )
        return b.let(binary("mul", cast(both, f64), _real(2.0**-53)), "u")

    def keeps(self) -> None:
        """Declare the registers of the number kept; before a loop in which `normal` is used."""
        b = self.b
        self.kept = b.var(unary("bitcast_float", load(self.source, Const(KEPT))), "kept")
        is_kept = binary("and", load(self.source, Const(IS_KEPT)), Const(0xFF))
        self.is_kept = b.var(is_kept, "is_kept")

    def normal(self, result: Name) -> None:
        """Assign the next normal number to a register."""
        b, kept, is_kept = self.b, self.kept, self.is_kept
        assert kept is not None and is_kept is not None, "keeps() comes first"
        with b.when(binary("ne", is_kept, Const(0))):
            b.assign(result, kept)
            b.assign(is_kept, Const(0))
        with b.otherwise():
            u, v = self.unit(), self.unit()
            inside = binary("mul", _real(-2), unary("log1p", unary("neg", v)))
            radius = b.let(unary("sqrt", inside), "radius")
            angle = b.let(binary("mul", _real(2 * PI), u), "angle")
            b.assign(result, binary("mul", radius, unary("cos", angle)))
            b.assign(kept, binary("mul", radius, unary("sin", angle)))
            b.assign(is_kept, Const(1))

    def finish(self) -> None:
        """Store the next state."""
        b, target = self.b, self.target
        if target is None:
            return
        with b.loop(Const(ALL), "vector", "s") as s:
            b.store(target, s, load(self.source, s))
        with b.when(binary("ne", self.drawn, Const(0))):
            with b.loop(Const(WORDS), "vector", "w") as w:
                word = binary("and", cast(load(self.block, w), i64), Const(0xFFFFFFFF))
                b.store(target, w + BLOCK, word)
            b.store(target, Const(LEFT), binary("or", Const(WORDS + 1) - self.place, Const(SEEDED)))
            b.store(target, Const(PLACE), self.place)
        if self.kept is not None and self.is_kept is not None:
            kept = select(binary("ne", self.is_kept, Const(0)), self.kept, _real(0))
            b.store(target, Const(KEPT), unary("bitcast_int", kept))
            b.store(target, Const(IS_KEPT), self.is_kept)


def lower_draw(places: Places, node: Node) -> None:
    """One kernel for one of DRAWS."""
    *numbers, state = node.operands if node.op.name != "mersenne_skip" else node.operands[::-1]
    given = [places.materialise(x) for x in numbers]
    source = places.materialise(state)
    results = node.results()
    made = None if len(results) == 1 else places.result_slot(results[0])
    target = places.result_slot(results[-1]) if is_used(places, results[-1]) else None
    scope = Scope(places.lowering, node.op.name)
    out = None if made is None else scope.buffer(made, "write")
    engine = Engine(scope, source, target)
    count: Dim = numel(node.types[0].shape)
    if out is None:
        engine.many(scope.b.let(load(scope.buffer(given[0]), Const(0)), "count"), None)
    elif node.op.name == "mersenne_words":
        engine.many(scope.expr(count), lambda i, word: scope.b.store(out, i, word))
    else:
        sampler = Sampler(engine, getattr(node.attrs, "single", False))
        engine.keeps()
        buffers = [scope.buffer(slot) for slot in given]
        value = scope.b.var(_real(0), "value")
        with scope.b.loop(scope.expr(count), "serial", "i") as i:
            getattr(sampler, node.op.name.removeprefix("mersenne_"))(
                value, *[load(x, i) for x in buffers]
            )
            scope.b.store(out, i, value)
    engine.finish()
    scope.launch(node.op.name, count, 8 * count)


class Sampler:
    """The loop bodies that assign one sample to a register; formulas and sources are those of the
    op."""

    def __init__(self, engine: Engine, single: bool):
        self.engine = engine
        self.single = single
        self.b: Builder = engine.b

    def normals(self, value: Name) -> None:
        self.engine.normal(value)

    # Each of these repeats while a register says so; a sample that is taken clears it.

    def gamma(self, value: Name, alpha: Expr) -> None:
        b, e = self.b, self.engine
        given = b.let(alpha, "alpha")
        scale, a, x = b.var(_real(1), "scale"), b.var(given, "a"), b.var(_real(0), "x")
        b.assign(scale, _real(1))
        b.assign(a, given)
        more = b.var(Const(0), "more")
        b.assign(more, select(_between(given, 0), Const(1), Const(0)))
        b.assign(value, select(binary("eq", given, _real(0)), _real(0), _real(float("nan"))))
        with b.when(binary("and", _between(given, 0), binary("lt", given, _real(1)))):
            u = e.unit()
            b.assign(scale, binary("pow", _real(1) - u, self.rounded(_real(1) / given)))
            b.assign(a, self.rounded(given + _real(1)))
        d = b.let(self.rounded(a - _real(THIRD)), "d")
        c = b.let(_real(1) / unary("sqrt", binary("mul", _real(9), d)), "c")
        with b.repeat(binary("ne", more, Const(0))):
            e.normal(x)
            y = b.let(_real(1) + c * x, "y")
            with b.when(binary("gt", y, _real(0))):
                v = b.let(y * y * y, "v")
                u = b.let(_real(1) - e.unit(), "u")
                square = b.let(x * x, "square")
                quick = binary("lt", u, _real(1) - _real(SQUEEZE) * square * square)
                bound = _real(0.5) * square + d * (_real(1) - v + unary("log", v))
                taken = b.let(binary("or", quick, binary("lt", unary("log", u), bound)), "taken")
                with b.when(taken):
                    b.assign(value, scale * d * v)
                    b.assign(more, Const(0))

    def rounded(self, x: Expr) -> Expr:
        return cast(cast(x, f32), f64) if self.single else x

    def poisson(self, value: Name, rate: Expr) -> None:
        b = self.b
        given = b.let(rate, "rate")
        b.assign(value, select(binary("eq", given, _real(0)), _real(0), _real(float("nan"))))
        with b.when(binary("and", _between(given, 0), binary("lt", given, _real(10)))):
            self._few(value, given)
        with b.when(
            binary("and", binary("ge", given, _real(10)), binary("lt", given, _real(float("inf"))))
        ):
            self._many(value, given)

    def _few(self, value: Name, rate: Expr) -> None:
        b = self.b
        least = b.let(unary("exp", unary("neg", rate)), "least")
        product = b.var(_real(0), "product")
        b.assign(product, self.engine.unit())
        b.assign(value, _real(0))
        with b.repeat(binary("gt", product, least)):
            b.assign(value, value + _real(1))
            b.assign(product, product * self.engine.unit())

    def _many(self, value: Name, rate: Expr) -> None:
        b, e = self.b, self.engine
        log = b.let(unary("log", rate), "log")
        wide = b.let(_real(0.931) + _real(2.53) * unary("sqrt", rate), "wide")
        a = b.let(_real(-0.059) + _real(0.02483) * wide, "a")
        inverse = b.let(_real(1.1239) + _real(1.1328) / (wide - _real(3.4)), "inverse")
        limit = b.let(_real(0.9277) - _real(3.6224) / (wide - _real(2)), "limit")
        more = b.var(Const(1), "more")
        b.assign(more, Const(1))
        with b.repeat(binary("ne", more, Const(0))):
            u, v = b.let(e.unit() - _real(0.5), "u"), e.unit()
            us = b.let(_real(0.5) - unary("abs", u), "us")
            k = b.let(unary("floor", (_real(2) * a / us + wide) * u + rate + _real(0.43)), "k")
            at_once = binary("and", binary("ge", us, _real(0.07)), binary("le", v, limit))
            never = binary(
                "or",
                binary("lt", k, _real(0)),
                binary("and", binary("lt", us, _real(0.013)), binary("gt", v, us)),
            )
            left = unary("log", v) + unary("log", inverse) - unary("log", a / (us * us) + wide)
            fits = binary("le", left, k * log - rate - unary("lgamma", k + _real(1)))
            fits = binary("and", unary("not", never), fits)
            with b.when(b.let(binary("or", at_once, fits), "taken")):
                b.assign(value, k)
                b.assign(more, Const(0))

    def binomial(self, value: Name, count: Expr, chance: Expr) -> None:
        b = self.b
        n, p = b.let(count, "n"), b.let(chance, "p")
        unknown = binary("or", unary("isnan", n), unary("isnan", p))
        none = binary("or", binary("le", n, _real(0)), binary("le", p, _real(0)))
        b.assign(value, select(unknown, _real(float("nan")), select(none, _real(0), n)))
        between = binary("and", _between(p, 0), binary("lt", p, _real(1)))
        with b.when(b.let(binary("and", binary("gt", n, _real(0)), between), "open")):
            often = b.let(binary("gt", p, _real(0.5)), "often")
            rare = b.let(select(often, _real(1) - p, p), "rare")
            with b.when(binary("ge", n * rare, _real(10))):
                self._rejected(value, n, rare)
            with b.otherwise():
                self._runs(value, n, rare)
            b.assign(value, select(often, n - value, value))

    def _runs(self, value: Name, n: Expr, chance: Expr) -> None:
        b = self.b
        log = b.let(unary("log1p", unary("neg", chance)), "log")
        total, more = b.var(_real(0), "total"), b.var(Const(1), "more")
        b.assign(total, _real(0))
        b.assign(more, Const(1))
        b.assign(value, _real(0))
        with b.repeat(binary("ne", more, Const(0))):
            b.assign(total, total + unary("ceil", unary("log", self.engine.unit()) / log))
            beyond = b.let(binary("gt", total, n), "beyond")
            b.assign(more, select(beyond, Const(0), Const(1)))
            b.assign(value, select(beyond, value, value + _real(1)))

    def _rejected(self, value: Name, n: Expr, p: Expr) -> None:
        b, e = self.b, self.engine
        spread = b.let(unary("sqrt", n * p * (_real(1) - p)), "spread")
        wide = b.let(_real(1.15) + _real(2.53) * spread, "wide")
        a = b.let(_real(-0.0873) + _real(0.0248) * wide + _real(0.01) * p, "a")
        limit = b.let(_real(0.92) - _real(4.2) / wide, "limit")
        odds = b.let(p / (_real(1) - p), "odds")
        alpha = b.let((_real(2.83) + _real(5.1) / wide) * spread, "alpha")
        m = b.let(unary("floor", (n + _real(1)) * p), "m")
        more = b.var(Const(1), "more")
        b.assign(more, Const(1))
        with b.repeat(binary("ne", more, Const(0))):
            u, v = b.let(e.unit() - _real(0.5), "u"), e.unit()
            us = b.let(_real(0.5) - unary("abs", u), "us")
            k = b.let(unary("floor", (_real(2) * a / us + wide) * u + n * p + _real(0.5)), "k")
            at_once = binary("and", binary("ge", us, _real(0.07)), binary("le", v, limit))
            outside = binary("or", binary("lt", k, _real(0)), binary("gt", k, n))
            with b.when(at_once):
                b.assign(value, k)
                b.assign(more, Const(0))
            with b.otherwise(), b.when(unary("not", outside)):
                rest, back = b.let(n - m + _real(1), "rest"), b.let(n - k + _real(1), "back")
                bound = (
                    (m + _real(0.5)) * unary("log", (m + _real(1)) / (odds * rest))
                    + (n + _real(1)) * unary("log", rest / back)
                    + (k + _real(0.5)) * unary("log", odds * back / (k + _real(1)))
                    + self._tail(m)
                    + self._tail(n - m)
                    - self._tail(k)
                    - self._tail(n - k)
                )
                left = unary("log", v * alpha / (a / (us * us) + wide))
                with b.when(b.let(binary("le", left, bound), "taken")):
                    b.assign(value, k)
                    b.assign(more, Const(0))

    def _tail(self, number: Expr) -> Expr:
        b = self.b
        k = b.let(number, "k")
        square = b.let((k + _real(1)) * (k + _real(1)), "square")
        series = _real(1 / 12) - (_real(1 / 360) - _real(1 / 1260) / square) / square
        tail = series / (k + _real(1))
        for i in reversed(range(len(STIRLING_TAILS))):
            tail = select(binary("lt", k, _real(i + 1)), _real(STIRLING_TAILS[i]), tail)
        return b.let(tail, "tail")


def _between(x: Expr, low: float) -> Expr:
    """Whether x is above `low` and finite."""
    return binary("and", binary("gt", x, _real(low)), binary("lt", x, _real(float("inf"))))


def lower_permutation(places: Places, node: Node) -> None:
    """Swaps in the order of the places, in the result itself."""
    source = places.materialise(node.operands[0])
    result = places.result_slot(node.result())
    scope = Scope(places.lowering, "permutation")
    b = scope.b
    words, order = scope.buffer(source), scope.buffer(result, "readwrite")
    count = scope.expr(numel(node.types[0].shape))
    with b.loop(count, "vector", "i") as i:
        b.store(order, i, i)
    with b.loop(scope.expr(numel(node.operands[0].shape)), "serial", "i") as i:
        word = cast(load(words, i), i64)
        if source.dtype is i32:  # 32-bit division is several times as fast, where the numbers fit
            word = binary("and", word, Const(0xFFFFFFFF))
        j = b.let(i + binary("rem_u", word, count - i), "j")
        mine, other = b.let(load(order, i), "mine"), b.let(load(order, j), "other")
        b.store(order, i, other)
        b.store(order, j, mine)
    scope.launch("permutation", numel(node.types[0].shape), 0)


DRAWS = (
    "mersenne_words",
    "mersenne_skip",
    "mersenne_normals",
    "mersenne_gamma",
    "mersenne_poisson",
    "mersenne_binomial",
)
