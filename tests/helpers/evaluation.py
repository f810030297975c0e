"""What the op tests share: values from arrays, evaluation by the references, gradients two ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphtorch.ir.dtype import DType
from graphtorch.ir.graph import Type, Value, topological
from graphtorch.ir.op import Op
from graphtorch.ir.passes.autodiff import pullback


def input_of(array: np.ndarray) -> Value:
    """An input of the array's type."""
    return Value(Type(DType.of(array.dtype), array.shape), name="x")


def evaluate(outputs: Sequence[Value], given: dict[Value, np.ndarray]) -> list[np.ndarray]:
    """The arrays of `outputs`, from those of the inputs; checks each result's type on the way."""
    known = dict(given)
    for node in topological(outputs):
        results = node.op.reference(node.attrs, *[known[v] for v in node.operands])
        results = results if isinstance(results, tuple) else (results,)
        for value, array in zip(node.results(), results, strict=True):
            assert isinstance(array, np.ndarray), f"{node.op.name} gave {type(array)}"
            assert (array.dtype, array.shape) == (value.dtype.numpy, value.shape), (
                f"{node.op.name}: inferred {value.type}, reference gave "
                f"{array.dtype}{list(array.shape)}"
            )
            known[value] = array
    return [known[v] for v in outputs]


def apply(op: Op, *arrays: np.ndarray, **attrs: object) -> list[np.ndarray]:
    """The results of one op, by its reference."""
    inputs = [input_of(a) for a in arrays]
    results = op(*inputs, **attrs)
    results = results if isinstance(results, tuple) else (results,)
    return evaluate(results, dict(zip(inputs, arrays, strict=True)))


def decomposed(op: Op, *arrays: np.ndarray, **attrs: object) -> list[np.ndarray]:
    """The results of a composite, by its decomposition."""
    inputs = [input_of(a) for a in arrays]
    results = op(*inputs, **attrs)
    node = (results[0] if isinstance(results, tuple) else results).node
    parts = node.op.decompose(node)
    assert tuple(p.type for p in parts) == node.types
    return evaluate(parts, dict(zip(inputs, arrays, strict=True)))


def gradients(
    op: Op, arrays: Sequence[np.ndarray], cotangents: Sequence[np.ndarray | None], **attrs: object
) -> list[np.ndarray | None]:
    """The operands' gradients by the op's own rule; None where there is none."""
    inputs = [input_of(a) for a in arrays]
    results = op(*inputs, **attrs)
    node = (results[0] if isinstance(results, tuple) else results).node
    seeds = [None if c is None else input_of(c) for c in cotangents]
    found = pullback(node, seeds)
    given = dict(zip(inputs, arrays, strict=True))
    given.update((s, c) for s, c in zip(seeds, cotangents, strict=True) if s is not None)
    arrays_found = iter(evaluate([g for g in found if g is not None], given))
    return [None if g is None else next(arrays_found) for g in found]


def differences(
    function: Callable[..., np.ndarray],
    arrays: Sequence[np.ndarray],
    which: int,
    cotangent: np.ndarray,
    step: float = 1e-6,
) -> np.ndarray:
    """Central differences of sum(re(conj(cotangent) * function)) by each part of
    ``arrays[which]``."""

    def total(x: np.ndarray) -> float:
        replaced = [*arrays[:which], x, *arrays[which + 1 :]]
        return float(np.sum(np.real(np.conj(cotangent) * function(*replaced))))

    x = arrays[which]
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        for direction in (1, 1j) if np.iscomplexobj(x) else (1,):
            up, down = x.copy(), x.copy()
            up[place] += step * direction
            down[place] -= step * direction
            gradient[place] += direction * (total(up) - total(down)) / (2 * step)
    return gradient
