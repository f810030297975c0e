"""Elementary functions as kernel-IR expansions: branch-free, so that any loop around them vectorises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphtorch.ir.dtype import DType, f32

from ..kernels.ir import Builder, Expr, fma, select, unary


@dataclass(frozen=True)
class Definition:
    """An expansion: appends `let`s to a builder and returns the result."""

    expand: Callable[..., Expr]
    arity: int = 1


def definition(op: str, dtype: DType) -> Definition | None:
    """Our own expansion of `op`, or None where libm's is called."""
    return F32.get(op) if dtype is f32 else None


F32: dict[str, Definition] = {}
