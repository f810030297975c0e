"""A recorded call as a program: where its inputs come from, and where its results go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from graphtorch.ir.evaluate import bind_sizes
from graphtorch.ir.evaluate import resolve as evaluated
from graphtorch.ir.graph import Graph, Type
from graphtorch.ir.ops.require import RAISED

from .._deferred import running
from .._deferred.door import Buffer
from .._deferred.storage import Leaf, RuntimeScalar, Storage, Version, View
from .._deferred.tensor import Tensor, from_value, make_view
from .._deferred.write import assign
from .._random.generator import drawing
from ..autograd.grad_mode import modes, no_grad
from .capture import buffer_of, rebuild
from .checks import Checks
from .gradient import Backward, Spent
from .guards import Watch
from .segments import Known, Step, follow, number_now


def fresh(buffer: Buffer) -> Tensor:
    """A new tensor of these elements, outside the autograd graph; no capture is in progress."""
    leaf: Leaf = _new(Leaf)  # constructors in line: every call makes some
    leaf.type = _TYPES.get((buffer.dtype, buffer.shape)) or Type(buffer.dtype, buffer.shape)  # type: ignore[misc]
    leaf.node = None  # type: ignore[misc]
    leaf.index = 0  # type: ignore[misc]
    leaf.name = ""  # type: ignore[misc]
    leaf.buffer = buffer
    made: Tensor = _new(Tensor)
    storage = made._storage = _new(Storage)
    storage.value = leaf
    storage.epoch = 0
    storage.host = None
    made._counter = _new(Version)
    if modes.inference:
        made._inference = True
    return made


_new: Any = object.__new__
_TYPES = Type._table


class Shown(NamedTuple):
    """A result that shows the memory of another tensor."""

    kind: str  # "argument", "tensor" or "base": what it is a view of
    which: Any  # a number, or the tensor
    view: View | None  # the steps are those beyond what it is a view of
    name: str  # of the view's autograd node; "" for an alias outside the graph
    creation: str
    tracked: bool
    counted: bool  # whether an alias shares the count of writes


class Entry:
    """One recording: its program, what guards it, and how it is fed."""

    backward: Backward | None = None
    state: Callable[[Sequence[Tensor]], Any]  # made by `guard`

    def __init__(self, structure: Any, count: int):
        """Args: count: of the arguments that are tensors."""
        self.count = count
        self.graph: Graph
        self.whole: Graph  # the same from the start on, without what segments keep
        self.whole_scalars: list[RuntimeScalar] = []
        self.structure = structure
        self.fed: list[tuple[int, bool]] = []  # inputs: numbers of arguments, and whether with their storage
        self.storages: list[Storage | Tensor] = []  # inputs after these; a Tensor stands for its gradient
        self.types: list[Type] = []
        self.scalars: list[RuntimeScalar] = []
        self.steps: list[Step] = []  # values that Python read, on which the rest depends
        self.guards: list[tuple[Tensor, bool]] = []
        self.values: list[tuple[Storage, int]] = []  # storages read in Python, and their writes until then
        self.bound: list[Tensor] = []  # tensors that are not arguments: they are to be as they were
        self.own: frozenset[Storage] = frozenset()  # storages that are not arguments'
        self.shared: dict[int, Storage] = {}  # arguments that are to have one of those
        self.layouts: dict[int, Any] = {}  # arguments that are to lie in their storage as they did
        self.draws = False  # whether the state of a generator is read and written
        self.bases: list[int] = []  # results that become tensors of which outputs are views
        self.outputs: list[tuple[str, Any]] = []  # kind, and number, tensor or `Shown`
        self.spent: list[int] = []  # bases and outputs whose backward pass ran inside
        self.writes: list[
            tuple[Storage | Tensor | int, int]
        ] = []  # (storage, gradient's tensor or argument, inverted for a part; result)
        self.counts: list[tuple[Version | int, int]] = []  # writes that tensors, or arguments, have counted
        self.grads: list[tuple[Tensor | int, int | None]] = []
        self.only: int | None = None  # the result to return, where that is all there is to deliver
        self.program: Any = None
        self.ran = False  # whether it was replayed
        self._met: list[Any] = [([], [])]  # what the storages were last seen to hold: values, buffers

    def guard(self, watch: Watch) -> None:
        """From now on all has to be as it is: what `watch` saw, and the tensors that are not arguments.

        It makes `state`: what the program reads beside the arguments it is given, or None where something is
        not what was recorded.
        """
        checks = Checks()
        for storage, epoch in self.values:
            checks.add(f"{checks.const(storage)}.epoch == {epoch}")
        for tensor in self.bound:
            checks.tensor(tensor)
        watch.write(checks)
        for tensor, absent in self.guards:
            checks.add(f"{checks.const(tensor)}._grad is {'' if absent else 'not '}None")
        if self.shared:
            checks.add(f"{checks.const(self._apart)}(given)")
        elif self.own:
            for i in range(self.count):
                checks.add(f"given[{i}]._storage not in {checks.const(self.own)}")
        if self.layouts:
            checks.add(f"{checks.const(self._lie_alike)}(given)")
        self.state = checks.function("given", self._reading(checks), "None")

    def _reading(self, checks: Checks) -> list[str]:
        """The lines that read the storages."""
        if not self.storages:
            return ["return ()"]
        names = [checks.const(s) + ("" if type(s) is Storage else "._grad._storage") for s in self.storages]
        hosts = " is ".join([f"{n}.host" for n in names])
        met = checks.const(self._met)
        return [
            f"values = [{', '.join([f'{n}.value' for n in names])}]",
            f"met = {met}[0]",
            f"if values == met[0] and {hosts} is None:",
            "    return met[1]",  # weights of a model that is not being trained
            f"return {checks.const(self.read)}()",
        ]

    def read(self) -> list[Buffer] | None:
        """What the storages hold; None where that is of other types than recorded."""
        sources = [s if type(s) is Storage else s._grad._storage for s in self.storages]  # type: ignore[union-attr]
        if [s.value.type for s in sources] != self.types:
            return None
        for storage in sources:
            running.settle(storage)
        values: list[Any] = [s.value for s in sources]
        buffers = [_fitting(v.buffer, s) for v, s in zip(values, sources, strict=True)]
        if not self.writes:  # a step's old weights are not to be held on to
            self._met[0] = values, buffers
        return buffers

    def _apart(self, arguments: Sequence[Tensor]) -> bool:
        """Whether arguments use the storages that others use just where they did."""
        return all(
            (tensor._storage not in self.own and i not in self.shared)
            or self.shared.get(i) is tensor._storage
            for i, tensor in enumerate(arguments)
        )

    def _lie_alike(self, arguments: Sequence[Tensor]) -> bool:
        return all(layout_of(arguments[i]) == layout for i, layout in self.layouts.items())

    def bind(self, tensors: Iterable[Tensor]) -> None:
        """From now on these have to be as they are now, too."""
        self.bound = list(dict.fromkeys((*self.bound, *tensors)))
        self._storages = [t._storage for t in self.bound]
        self._flags = [(t._rg, t._fn is None) for t in self.bound]

    def alive(self) -> bool:
        """Whether this recording can still serve: the tensors it is bound to are as they were, and what
        Python read of others as well."""
        return (
            all(storage.epoch == epoch for storage, epoch in self.values)
            and [t._storage for t in self.bound] == self._storages  # a storage is equal to itself alone
            and [(t._rg, t._fn is None) for t in self.bound] == self._flags
        )

    def replay(self, arguments: Sequence[Tensor], state: Sequence[Buffer], known: Known | None = None) -> Any:
        """Run the recorded call on other arguments, in a `state` that was found to fit.

        Args:
            known: what segments of other recordings made in this call.

        Returns:
            OTHER where a value that Python reads leads to another path.

        Raises:
            Failed: an error that data has led to; nothing has been changed yet.
        """
        if not self.draws:
            return self._replay(arguments, state, known)
        with drawing:  # else another thread's call would draw the same numbers
            return self._replay(arguments, state, known)

    def _replay(self, arguments: Sequence[Tensor], state: Sequence[Buffer], known: Known | None) -> Any:
        inputs = self._inputs(arguments)
        kept: list[Buffer] = []
        try:
            if self.steps:
                found = follow(self.steps, [*inputs, *state], {} if known is None else known)
                if found is None:
                    return OTHER
                kept = found
            given = [*inputs, *kept] if kept else inputs
            numbers = [number_now(s) for s in self.scalars] if self.scalars else []
            results = self.program([*given, *state, *numbers]) if numbers else self.program(given, state)
        except RAISED as error:
            if self.graph.symbols():
                raise  # sizes that are not what their Dims say
            raise Failed from error
        whole: list[Buffer] = []
        if self.backward is not None:
            given = [*given, *state]
            if kept:
                whole = [*inputs, *state, *[number_now(s) for s in self.whole_scalars]]
            else:
                whole = [*given, *numbers] if numbers else given
        return self._deliver(results, given, whole, arguments)

    def _inputs(self, arguments: Sequence[Tensor]) -> list[Buffer]:
        inputs: list[Buffer] = []
        for i, whole in self.fed:
            tensor = arguments[i]
            value = tensor._storage.value
            if type(value) is Leaf and tensor._view is None:
                inputs.append(value.buffer)
            else:
                inputs.append(_settled(tensor._storage) if whole else buffer_of(tensor))
        return inputs

    def _deliver(
        self,
        results: Sequence[Buffer],
        inputs: Sequence[Buffer],
        whole: Sequence[Buffer],
        arguments: Sequence[Tensor],
    ) -> Any:
        if self.only is not None:
            result = fresh(results[self.only])
            if self.backward is not None:
                self.backward.attach((result,), inputs, whole, results, arguments)
            return result
        for target, i in self.writes:
            _write(target, Leaf(results[i]), arguments)
        for counter, count in self.counts:
            (arguments[counter]._counter if type(counter) is int else counter).number += count  # type: ignore[union-attr]
        for owner, number in self.grads:
            tensor: Any = arguments[owner] if type(owner) is int else owner
            tensor._grad = None if number is None else fresh(results[number])
        bases = [fresh(results[x]) for x in self.bases]
        made: list[Any] = []
        shown = False
        for kind, x in self.outputs:
            if kind == "result":
                made.append(fresh(results[x]))
            elif kind == "number":
                made.append(results[x].numpy().item())
            elif kind == "argument":
                made.append(arguments[x])
            elif kind == "base":
                made.append(bases[x])
            elif kind == "same":
                made.append(made[x])
            elif kind == "tensor":
                made.append(x)
            elif kind == "leaf":
                made.append(fresh(results[x]))
                made[-1]._rg = True
            else:
                made.append(None)
                shown = True
        if self.backward is not None or self.spent:
            carriers = [*bases, *made]
            if self.backward is not None:
                self.backward.attach(carriers, inputs, whole, results, arguments)
            for i in self.spent:
                carriers[i]._fn = Spent(carriers[i])
        if shown:
            for i, (kind, x) in enumerate(self.outputs):
                if kind == "shown":
                    made[i] = _show(self._sized(x, arguments), bases, arguments)
            for i, (kind, x) in enumerate(self.outputs):
                if kind == "same":
                    made[i] = made[x]
        if self.structure is SINGLE:
            return made[0]
        position = iter(made)
        return rebuild(self.structure, lambda _: next(position))

    def _sized(self, shown: Shown, arguments: Sequence[Tensor]) -> Shown:
        """`shown` with the sizes of this call in the place of symbols."""
        view = shown.view
        if view is None or view.type.is_static:
            return shown
        values = self.graph.inputs[: len(self.fed)]
        shapes = [arguments[i]._type.shape for i, _ in self.fed]
        sizes = bind_sizes(values, shapes)  # type: ignore[arg-type]
        shape, strides, offset = evaluated((view.type.shape, view.strides, view.offset), sizes)
        steps = tuple(
            [
                replace(s, **{f.name: evaluated(getattr(s, f.name), sizes) for f in fields(s)})
                for s in view.steps
            ]
        )
        return shown._replace(view=View(steps, view.type.with_shape(shape), offset, strides))

    def explain(self) -> str:
        """What runs."""
        texts = [s.segment.program.explain() for s in self.steps if s.segment.program is not None]
        text = "".join([*dict.fromkeys(texts), self.program.explain()])
        return text if self.backward is None else text + "\nbackward:\n" + self.backward.program.explain()


def layout_of(tensor: Tensor) -> Any:
    """How a tensor lies in its storage."""
    view = tensor._view
    return tensor._storage.value.type, None if view is None else (view.strides, view.offset, view.type)


def _show(shown: Shown, bases: Sequence[Tensor], arguments: Sequence[Tensor]) -> Tensor:
    """A view of, or an alias for, what a result shows."""
    owner: Tensor = (
        bases[shown.which]
        if shown.kind == "base"
        else arguments[shown.which]
        if shown.kind == "argument"
        else shown.which
    )
    view, own = shown.view, owner._view
    if not shown.name:
        made = owner.detach() if shown.counted else owner.data
        if view is not None:
            made._view = _beyond(own, view)
        return made
    assert view is not None
    whole = _beyond(own, view)
    made = make_view(owner, view.steps, whole.type, whole.offset, whole.strides, shown.name, shown.creation)
    if not shown.tracked:
        made._tracked = False
        made._creation = shown.creation
    return made


def _beyond(own: View | None, view: View) -> View:
    """`view`, whose steps come after those of `own`."""
    return (
        view
        if own is None
        else View(own.steps + view.steps, view.type, own.offset + view.offset, view.strides)
    )


SINGLE = object()


def _settled(storage: Storage) -> Buffer:
    """The elements of a storage, computed if need be."""
    running.settle(storage)
    return _fitting(storage.value.buffer, storage)  # type: ignore[attr-defined]


def _fitting(buffer: Buffer, storage: Storage) -> Buffer:
    """The elements of a storage for a program; code outside may have written to memory that is shared with
    it, so that what was packed of it is stale."""
    if storage.host is None:
        return buffer
    return Buffer(buffer.address, buffer.dtype, buffer.shape, buffer.owner)


def _write(target: Any, leaf: Leaf, arguments: Sequence[Tensor]) -> None:
    if type(target) is int:
        if target < 0:  # what a stand-in for a part of a storage got
            with no_grad():
                assign(arguments[~target], from_value(leaf))
            return
        storage = arguments[target]._storage
    else:
        storage = target if type(target) is Storage else target._grad._storage
    if storage.host is None:
        storage.value = leaf
        storage.epoch += 1
    else:
        running.store(storage, leaf)


class Failed(Exception):
    """A program ended with an error that its data led to."""


OTHER = object()  # in the place of a result: the call is on another path
