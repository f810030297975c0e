"""Expressions over a program's symbols as LLVM code, for libraries, whose calls bring the
symbols."""

from __future__ import annotations

from collections.abc import Sequence

from graphtorch.ir.shape import Dim, Quotient, Remainder, Symbol, SymInt, bounds


class Sizes:
    """Emits sizes; `lines` computes them from the values of `symbols`, 64-bit words at
    ``%symbols``."""

    def __init__(self, symbols: Sequence[Symbol]):
        self.lines: list[str] = []
        self._symbols = list(symbols)
        self._known: dict[object, str] = {}

    def value(self, dim: Dim) -> str:
        """An operand that is `dim`."""
        if isinstance(dim, int):
            return str(dim)
        if dim not in self._known:
            self._known[dim] = self._sum(dim)
        return self._known[dim]

    def store(self, dim: Dim, table: str, index: int) -> None:
        """``table[index] = dim``"""
        value = self.value(dim)
        place = self._let(f"getelementptr inbounds i64, ptr {table}, i64 {index}")
        self.lines.append(f"  store i64 {value}, ptr {place}")

    def _let(self, text: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def _sum(self, dim: SymInt) -> str:
        total = ""
        for monomial, factor in dim.terms:
            term = str(factor) if not monomial else self._atom(monomial[0])
            for atom in monomial[1:]:
                term = self._let(f"mul nsw i64 {term}, {self._atom(atom)}")
            if monomial and factor != 1:
                term = self._let(f"mul nsw i64 {term}, {factor}")
            total = self._let(f"add nsw i64 {total}, {term}") if total else term
        return total

    def _atom(self, atom: Symbol | Quotient | Remainder) -> str:
        if atom not in self._known:
            self._known[atom] = (
                self._symbol(atom) if isinstance(atom, Symbol) else self._divide(atom)
            )
        return self._known[atom]

    def _symbol(self, symbol: Symbol) -> str:
        index = self._symbols.index(symbol)
        return self._let(
            f"load i64, ptr {self._let(f'getelementptr i64, ptr %symbols, i64 {index}')}"
        )

    def _divide(self, atom: Quotient | Remainder) -> str:
        """Rounds down, as Python does; a divisor of 0 (a size that no run may have) counts as 1."""
        a, b = self.value(atom.numerator), self.value(atom.denominator)
        if bounds(atom.denominator)[0] <= 0:
            zero = self._let(f"icmp eq i64 {b}, 0")
            b = self._let(f"select i1 {zero}, i64 1, i64 {b}")
        if bounds(atom.numerator)[0] >= 0 and bounds(atom.denominator)[0] >= 0:
            return self._let(f"{'udiv' if isinstance(atom, Quotient) else 'urem'} i64 {a}, {b}")
        rest = self._let(f"srem i64 {a}, {b}")
        other = self._let(f"icmp slt i64 {self._let(f'xor i64 {rest}, {b}')}, 0")
        some = self._let(f"icmp ne i64 {rest}, 0")
        off = self._let(f"and i1 {other}, {some}")
        if isinstance(atom, Remainder):
            return self._let(f"add i64 {rest}, {self._let(f'select i1 {off}, i64 {b}, i64 0')}")
        quotient = self._let(f"sdiv i64 {a}, {b}")
        return self._let(f"sub i64 {quotient}, {self._let(f'zext i1 {off} to i64')}")
