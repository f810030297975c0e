"""In which order the memory of results is filled where that is not the rule of pointwise
operations.

Most others fill it row by row. Decorators of definitions say which do as their input does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .._deferred.memory_order import Order, channels_last_order, own_order
from .._deferred.tensor import Tensor
from .._deferred.write import lay

Definition = Callable[..., Any]


def row_major(define: Definition) -> Definition:
    """A composition that ends with a pointwise operation, and whose result PyTorch fills row by
    row."""

    @functools.wraps(define)
    def call(input: Any, *args: Any, **kwargs: Any) -> Any:
        made = define(input, *args, **kwargs)
        if isinstance(made, Tensor) and made._view is not None and _is_new(made, input):
            return lay(made, None)
        return made

    return call


def order_kept(define: Definition) -> Definition:
    """Results of the shape of the first tensor are filled in its order."""

    @functools.wraps(define)
    def call(input: Any, *args: Any, **kwargs: Any) -> Any:
        made = define(input, *args, **kwargs)
        order = own_order(input) if isinstance(input, Tensor) else None
        return made if order is None else _each(made, input, order, input._type.shape)

    return call


def format_kept(define: Definition) -> Definition:
    """Results have the channels last in memory where those of the input, or of the weight after it,
    are.

    A function whose name tells how many dimensions are spatial looks at batches alone.
    """
    rank = {"2d": 4, "3d": 5}.get(define.__name__[-2:])

    @functools.wraps(define)
    def call(input: Any, *args: Any, **kwargs: Any) -> Any:
        made = define(input, *args, **kwargs)
        weight = args[0] if args else kwargs.get("weight")
        order = None
        for x in (input, weight):
            if isinstance(x, Tensor) and x._view is not None and rank in (None, x.ndim):
                order = order or channels_last_order(x)
        return made if order is None else _each(made, input, order)

    return call


def common_format(tensors: Sequence[Tensor]) -> Order | None:
    """The order of the channels last, where all `tensors` lie so."""
    if not tensors or any(t._view is None for t in tensors):
        return None
    orders = {channels_last_order(t) for t in tensors}
    return orders.pop() if len(orders) == 1 else None


def _each(made: Any, input: Tensor, order: Order, shape: Any = None) -> Any:
    """New tensors, one or several, of the rank (and shape) that `order` is for, filled in that
    order."""
    for x in made if isinstance(made, tuple) else (made,):
        if (
            len(x._type.shape) == len(order)
            and shape in (None, x._type.shape)
            and _is_new(x, input)
        ):
            lay(x, order)
    return made


def _is_new(made: Tensor, input: Any) -> bool:
    """Whether no tensor of the caller's shows the memory of a result."""
    return made is not input and not (isinstance(input, Tensor) and made._storage is input._storage)
