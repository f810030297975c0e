"""Random index expressions, read and written, with gradients, on graphtorch and on PyTorch.

    python tools/oracle/indexing.py                 2000 expressions
    python tools/oracle/indexing.py --count 20000 --seed 3

Integers, slices with steps, None, Ellipsis, boolean masks, integer arrays and 0-d tensors, in any
mixture and negative ones too; also wrong ones, whose exception must have PyTorch's type. Prints
every expression whose outcome differs, and ends with a failure if one does. Needs ``pip install -e
".[oracle]"``.
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import graphtorch

Key = Any  # an index: a tuple whose arrays are NumPy's

SHAPES = [(), (4,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0, 3), (5, 0)]


class Expressions:
    """Makes index expressions for a shape; about one in ten is wrong on purpose."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def shape(self) -> tuple[int, ...]:
        return self.random.choice(SHAPES)

    def key(self, shape: tuple[int, ...]) -> Key:
        entries: list[Any] = []
        axis = 0
        block = self.block()
        while axis < len(shape) and self.random.random() < 0.8:
            entry, width = self.entry(shape, axis, block)
            entries.append(entry)
            axis += width
        for extra, chance in ((None, 0.25), (Ellipsis, 0.25), (None, 0.1)):
            twice = extra is Ellipsis and Ellipsis in map(type_or, entries)
            if self.random.random() < chance and not twice:
                entries.insert(self.random.randint(0, len(entries)), extra)
        if self.random.random() < 0.03:
            entries.append(self.random.choice([0, Ellipsis, 1.5, "a", slice(None)]))
        if len(entries) == 1 and self.random.random() < 0.7:
            return entries[0]
        return tuple(entries)

    def block(self) -> tuple[int, ...]:
        """The shape that the index arrays of one expression share."""
        return self.random.choice([(), (1,), (2,), (3,), (2, 2), (0,)])

    def entry(self, shape: tuple[int, ...], axis: int, block: tuple[int, ...]) -> tuple[Any, int]:
        size, kind = shape[axis], self.random.random()
        if kind < 0.2:
            return self.integer(size), 1
        if kind < 0.5:
            return self.slice(size), 1
        if kind < 0.65 and axis < len(shape):
            width = self.random.randint(1, min(2, len(shape) - axis))
            return self.mask(shape[axis : axis + width]), width
        if kind < 0.7:
            return [self.integer(size) for _ in range(self.random.randint(1, 3))], 1
        return self.array(size, block), 1

    def integer(self, size: int) -> int:
        beyond = 1 if self.random.random() < 0.03 else 0
        return self.random.randint(-size - beyond, size - 1 + beyond) if size or beyond else 0

    def slice(self, size: int) -> slice:
        bound = lambda: self.random.choice([None, *range(-size - 1, size + 2)])  # noqa: E731
        step = self.random.choice([None, None, 1, 2, 3, -1 if self.random.random() < 0.05 else 1])
        return slice(bound(), bound(), step)

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        if self.random.random() < 0.04:
            shape = (shape[0] + 1, *shape[1:])
        count = int(np.prod(shape))
        return np.array([self.random.random() < 0.5 for _ in range(count)], bool).reshape(shape)

    def array(self, size: int, block: tuple[int, ...]) -> np.ndarray:
        shape = tuple(1 if self.random.random() < 0.2 else n for n in block)
        count = int(np.prod(shape))
        dtype = self.random.choice([np.int64, np.int64, np.int32])
        return np.array([self.integer(size) for _ in range(count)], dtype).reshape(shape)


def type_or(entry: Any) -> Any:
    """The entry where it compares by identity, its type where it is an array."""
    return type(entry) if isinstance(entry, np.ndarray) else entry


def key_for(module: Any, key: Key) -> Any:
    """The index with arrays as tensors of `module`."""
    if isinstance(key, tuple):
        return tuple(key_for(module, k) for k in key)
    return module.tensor(key) if isinstance(key, np.ndarray) else key


def outcome(program: Callable[[Any], list[Any]], module: Any) -> Any:
    """The arrays that a program makes, or the type of its exception."""
    try:
        return [np.asarray(r.detach().numpy()) for r in program(module)]
    except Exception as error:
        return type(error)


def reading(array: np.ndarray, key: Key) -> Callable[[Any], list[Any]]:
    """The elements an index selects, and the gradient of their weighted sum."""

    def program(module: Any) -> list[Any]:
        x = module.tensor(array, requires_grad=True)
        found = x[key_for(module, key)]
        weights = module.arange(1, found.numel() + 1, dtype=module.float64).reshape(found.shape)
        (found * weights).sum().backward()
        return [found, x.grad]

    return program


def writing(array: np.ndarray, key: Key, tensor: bool) -> Callable[[Any], list[Any]]:
    """A copy with a number, or the elements of a tensor, written; and the gradients of both."""

    def program(module: Any) -> list[Any]:
        x = module.tensor(array, requires_grad=True)
        made = x * 2
        where = key_for(module, key)
        if not tensor:
            made[where] = 7.5
            source = module.zeros((), dtype=module.float64, requires_grad=True)
        else:
            shape = module.tensor(array)[where].shape
            source = module.arange(shape.numel(), dtype=module.float64).reshape(shape) + 50
            source.requires_grad_()
            made[where] = source
        (made**2).sum().backward()
        gradient = module.zeros_like(source) if source.grad is None else source.grad
        return [made, x.grad, gradient]

    return program


def has_repeats(key: Key, shape: tuple[int, ...]) -> bool:
    """Whether an index writes to a place twice: which write stays is not defined."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    try:
        found = places[key]
    except Exception:
        return False
    return found.size != np.unique(found).size


def same(a: Any, b: Any) -> bool:
    if isinstance(a, type) or isinstance(b, type):
        return a is b
    return all(x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def describe(key: Key) -> str:
    return repr(key).replace("\n", "").replace("array(", "(")


def compare(count: int, seed: int) -> list[str]:
    """Differences among `count` random expressions, each read and written."""
    expressions, wrong = Expressions(seed), []
    for _ in range(count):
        shape = expressions.shape()
        key = expressions.key(shape)
        array = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape) + 0.5
        programs = {"read": reading(array, key), "write a number": writing(array, key, False)}
        if not has_repeats(key, shape):
            programs["write a tensor"] = writing(array, key, True)
        for what, program in programs.items():
            expected, found = outcome(program, torch), outcome(program, graphtorch)
            if not same(expected, found):
                where = f"{what} {list(shape)}[{describe(key)}]"
                wrong.append(f"{where}: {brief(found)} instead of {brief(expected)}")
    return wrong


def brief(found: Any) -> str:
    if isinstance(found, type):
        return found.__name__
    return "; ".join(f"{a.shape} {a.tolist()}" for a in found)[:300]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wrong = compare(given.count, given.seed)
    print("\n".join(wrong))
    print(f"{given.count} expressions, {len(wrong)} outcomes differ")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
