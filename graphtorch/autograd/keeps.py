"""What operations keep for their gradients, where PyTorch keeps something else than our rules read.

PyTorch refuses a backward pass exactly where a tensor that an operation kept was written to since.
Values never change here, so that any gradient would be right: this says only what is refused. What
PyTorch keeps is written in its ``tools/autograd/derivatives.yaml``; ``tools/oracle/saved.py``
compares.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .._deferred.tensor import Tensor
from .grad_mode import modes
from .nodes import GradNode, kind_of, new_number, rename
from .seen import Kept, seen_of

Define = Callable[..., Any]
RESULT = "result"


def keeps(name: str, *rules: tuple[int, ...]) -> Callable[[Define], Define]:
    """Declare what the nodes `name` (as given to `run`) keep.

    Args:
        rules: for the gradient of each operand, or of any of them where there is but one rule:
            the operands, by their number, and the results, by ``~`` of theirs.
    """
    kind_of(name).keeps = rules or ((),)  # type: ignore[attr-defined]
    return lambda define: define


def keeps_as_one(always: str = "", **wanted: str) -> Callable[[Define], Define]:
    """Declare what a function keeps that PyTorch has as one operation, and we as several.

    Args:
        always: the names of its parameters, "result" for what it returns, "result.0" for the first
            tensor of that, and so on.
        wanted: the same, of what is kept only where the gradient of a parameter is wanted.
    """
    rules = {"": always, **wanted}
    wanted_names = [(name, names.split()) for name, names in rules.items()]

    def declare(define: Define) -> Define:
        code = inspect.unwrap(define).__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        places = {name: i for i, name in enumerate(names)}
        known = {"", *places, RESULT}
        named = {name.partition(".")[0] for names in rules.values() for name in names.split()}
        assert {*rules, *named} <= known, f"{define.__name__} has no such parameter"
        named |= {*rules}
        places = {name: i for name, i in places.items() if name in named}
        returns = RESULT in named

        @functools.wraps(define)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not modes.grad or modes.saving is not None or modes.mutable:
                return define(*args, **kwargs)
            start = new_number()
            made = define(*args, **kwargs)
            results = _tensors(made)
            nodes = {fn for t in results if (fn := _node(t)) and fn.sequence > start}
            if nodes:
                given = {
                    name: args[i] if i < len(args) else kwargs.get(name)
                    for name, i in places.items()
                }
                if returns:
                    given[RESULT] = made
                    given.update({f"{RESULT}.{i}": t for i, t in enumerate(results)})
                kept = tuple(_kept(wanted_names, given, {id(t) for t in results}))
                for fn in nodes:
                    fn.kept += kept
            return made

        return call

    return declare


def shown_as(name: str) -> Callable[[Define], Define]:
    """Declare how PyTorch names the node of a function's result, where it has one operation and we
    have several: tensors print it. `name` is given as to `run`."""
    full = name if "Backward" in name else name + "Backward0"

    def declare(define: Define) -> Define:
        @functools.wraps(define)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not modes.grad:
                return define(*args, **kwargs)
            start = new_number()
            made = define(*args, **kwargs)
            for t in _tensors(made):
                fn = _node(t)
                if fn is None or fn.sequence < start:
                    continue
                if t._base is None:
                    rename(fn, full)
                else:
                    t._name_of_view = full
            return made

        return call

    return declare


def _kept(
    rules: Sequence[tuple[str, list[str]]], tensors: Mapping[str, Any], results: set[int]
) -> Iterator[Kept]:
    for wanted, names in rules:
        if not wanted or any(t.requires_grad for t in _tensors(tensors[wanted])):
            for name in names:
                for t in _tensors(tensors[name]):
                    if id(t) in results and not name.startswith(RESULT):
                        continue  # written to in place: what it was before is kept
                    if not (t.is_sparse or t.is_sparse_csr):
                        yield tuple.__new__(Kept, (seen_of(t), t._type))


def _tensors(x: Any) -> list[Any]:
    if isinstance(x, Tensor):
        return [x]
    return [t for v in x for t in _tensors(v)] if isinstance(x, (tuple, list)) else []


def _node(tensor: Any) -> GradNode | None:
    """The node that made a tensor, or what it is a view of."""
    return (tensor if tensor._base is None else tensor._base)._fn  # type: ignore[no-any-return]
