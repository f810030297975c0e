"""What a replay returns: tensors made of its program's results, and views of memory that was there
before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from graphtorch.ir.evaluate import resolve as evaluated
from graphtorch.ir.shape import Dim, evaluate

from .._deferred.door import Buffer, place_of
from .._deferred.making import from_buffer, in_order, make_view
from .._deferred.storage import Leaf, View
from .._deferred.tensor import Tensor
from .._torch.dataclass import dataclass
from .capture import rebuild
from .gradient import Spent

SINGLE = object()  # the structure of a result that is one tensor


def result_of(kind: str, x: Any) -> int | None:
    """The number of the result that becomes an output of its own memory; None for outputs of other
    kinds."""
    return x if kind == "result" else x[0] if kind == "ordered" else None


class Shown(NamedTuple):
    """A result that shows the memory of another tensor."""

    kind: str  # "argument", "tensor" or "base": what it is a view of
    which: Any  # a number, or the tensor
    view: View | None  # the steps are those beyond what it is a view of
    name: str  # of the view's autograd node; "" for an alias outside the graph
    creation: str
    tracked: bool
    counted: bool  # whether an alias shares the count of writes


@dataclass(frozen=True, slots=True)
class Outputs:
    """How the results of a program become what a call returns.

    Attributes:
        structure: the nest of the result, with holes for what is made anew.
        bases: results that become tensors of which outputs are views.
        kinds: of each output its kind, and a number, tensor or `Shown`.
        spent: bases and outputs whose backward pass ran inside.
    """

    structure: Any
    bases: tuple[int, ...]
    kinds: tuple[tuple[str, Any], ...]
    spent: tuple[int, ...]

    def deliver(
        self,
        results: Sequence[Buffer],
        arguments: Sequence[Tensor],
        sizes: Callable[[], Mapping[str, Dim]],
        attach: Callable[[Sequence[Any]], None] | None,
    ) -> Any:
        """What the call returns.

        Args:
            sizes: gives the sizes of this call that are symbols.
            attach: gives bases and outputs, in this order, their history.
        """
        bases = [from_buffer(results[x]) for x in self.bases]
        made = [self._made(kind, x, results, arguments, bases, sizes) for kind, x in self.kinds]
        if attach is not None or self.spent:
            carriers = [*bases, *made]
            if attach is not None:
                attach(carriers)
            for i in self.spent:
                carriers[i]._fn = Spent(carriers[i])
        for i, (kind, x) in enumerate(self.kinds):
            if kind == "shown":
                made[i] = _show(_sized(x, sizes), bases, arguments)
            elif kind == "same":
                made[i] = made[x]
        if self.structure is SINGLE:
            return made[0]
        position = iter(made)
        return rebuild(self.structure, lambda _: next(position))

    @staticmethod
    def _made(
        kind: str,
        x: Any,
        results: Sequence[Buffer],
        arguments: Sequence[Tensor],
        bases: Sequence[Tensor],
        sizes: Callable[[], Mapping[str, Dim]],
    ) -> Any:
        """One output; None for those that others have to be there for."""
        if kind == "result":
            return from_buffer(results[x])
        if kind == "ordered":
            number, order = x
            return in_order(Leaf(results[number]), order, place_of(results[number]))
        if kind == "number":
            return results[x].numpy().item()
        if kind == "size":
            return evaluate(x, sizes())
        if kind == "argument":
            return arguments[x]
        if kind == "base":
            return bases[x]
        if kind == "tensor":
            return x
        if kind == "leaf":
            leaf = from_buffer(results[x])
            leaf._rg = True
            return leaf
        return None


def _sized(shown: Shown, sizes: Callable[[], Mapping[str, Dim]]) -> Shown:
    """`shown` with the sizes of a call in the place of symbols."""
    view, known = shown.view, sizes()
    if view is None or not known:
        return shown
    shape, strides, offset = evaluated((view.type.shape, view.strides, view.offset), known)
    steps = tuple(
        [
            replace(s, **{f.name: evaluated(getattr(s, f.name), known) for f in fields(s)})
            for s in view.steps
        ]
    )
    return shown._replace(view=View(steps, view.type.with_shape(shape), offset, strides))


def _show(shown: Shown, bases: Sequence[Tensor], arguments: Sequence[Tensor]) -> Tensor:
    """A view of, or an alias for, what a result shows."""
    owners: Any = {"base": bases, "argument": arguments}.get(shown.kind)
    owner: Tensor = shown.which if owners is None else owners[shown.which]
    view, own = shown.view, owner._view
    if not shown.name:
        made = owner.detach() if shown.counted else owner.data
        if view is not None:
            made._view = _beyond(own, view)
        return made
    assert view is not None
    whole = _beyond(own, view)
    made = make_view(
        owner, view.steps, whole.type, whole.offset, whole.strides, shown.name, shown.creation
    )
    if not shown.tracked:
        made._tracked = False
        made._creation = shown.creation
    return made


def _beyond(own: View | None, view: View) -> View:
    """`view`, whose steps come after those of `own`."""
    if own is None:
        return view
    return View(own.steps + view.steps, view.type, own.offset + view.offset, view.strides)
