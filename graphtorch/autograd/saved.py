"""What a node of the autograd graph keeps for its gradient: ``node._saved_self``,
``node._raw_saved_self``.

https://docs.pytorch.org/docs/stable/notes/autograd.html#saved-tensors
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._deferred.making import from_value, some_cotangents
from .._deferred.tensor import Tensor
from .nodes import FREED, LATER, AccumulateGrad, GradNode, Packed, pack, unpack

# As PyTorch names the operands of a node, where they are not "self" and "other".
_OPERANDS = {
    "AddmmBackward0": ("self", "mat1", "mat2"),
    "BmmBackward0": ("self", "mat2"),
    "ConvolutionBackward0": ("input", "weight"),
    "DotBackward0": ("self", "tensor"),
    "MmBackward0": ("self", "mat2"),
    "MvBackward0": ("self", "vec"),
}


def _attribute(node: GradNode, name: str) -> Any:
    """``_saved_<operand>`` or ``_saved_result``: a tensor; with ``_raw`` before it a `SavedTensor`.

    Raises:
        RuntimeError: the graph was freed. AttributeError: the gradient does not read such a tensor.
    """
    if node.freed:
        raise RuntimeError(FREED)
    raw, short = name.startswith("_raw"), name.rpartition("_saved_")[2]
    place = _place(node, short)
    if place is None:
        raise AttributeError(
            f"{node.name()!r} object has no attribute {name!r}: its gradient reads no such tensor"
        )
    made = SavedTensor(node, place)
    return made if raw else made.data


def _place(node: GradNode, short: str) -> int | None:
    """Where among operands and results a name is, if the gradient reads that."""
    count = len(node.operands)
    names = _OPERANDS.get(node.name(), ("self", "other"))
    if short == "result" and node.outputs:
        place = count
    elif short in names[:count]:
        place = names.index(short)
    else:
        return None
    if place < count and node.seen and node.seen[place] is None:
        return None  # a number
    ones = some_cotangents(node)
    return (
        place
        if (*node.operands, *node.outputs)[place] in node.saves(node.pull(ones), ones)
        else None
    )


class SavedTensor:
    """One tensor that a node keeps: ``data``, and hooks of its own."""

    def __init__(self, node: GradNode, place: int):
        self._node, self._place = node, place

    @property
    def data(self) -> Tensor:
        """The tensor, through its hooks if there are any."""
        value = (*self._node.operands, *self._node.outputs)[self._place]
        for one in self._node.packed:
            if one.value is value:
                return unpack(one.kept, one.unpack)  # type: ignore[no-any-return]
        return self._with_history(value)

    def _with_history(self, value: Any) -> Tensor:
        count = len(self._node.operands)
        edge = (
            (self._node, self._place - count)
            if self._place >= count
            else self._node.edges[self._place]
        )
        seen = self._node.seen[self._place] if self._place < len(self._node.seen) else None
        if edge is not None and isinstance(edge[0], AccumulateGrad):
            leaf: Tensor = edge[0].variable
            if (
                seen is not None
                and seen.version is leaf._counter
                and seen.number == leaf._counter.number
            ):
                return leaf
        made = from_value(value, self._node.place)
        if edge is not None:
            made._fn, made._nr = edge
        return made

    def register_hooks(
        self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]
    ) -> None:
        """Keep what `pack_hook` makes of the tensor, and read it through `unpack_hook`.

        Raises:
            RuntimeError: it has hooks already.
        """
        node = self._node
        value = (*node.operands, *node.outputs)[self._place]
        if any(one.value is value for one in node.packed):
            raise RuntimeError(
                "Calling register_hooks on a saved tensor whose hooks have already been set. "
                "Hint: only one pair of hooks is allowed at a time."
            )
        hooks = pack_hook, unpack_hook
        node.packed = (
            *node.packed,
            Packed(value, pack(hooks, self._with_history(value)), unpack_hook),
        )


LATER["saved"] = _attribute
