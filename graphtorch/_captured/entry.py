"""A recorded call as a program: what it is fed with, what it changes, and what has to be as it
was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from graphtorch.ir.graph import Graph, Type
from graphtorch.ir.ops.require import RAISED
from graphtorch.ir.shape import Condition, Dim, evaluate, symbol, symbols

from .._deferred import running
from .._deferred.door import Buffer, Held
from .._deferred.making import from_buffer
from .._deferred.storage import Leaf, RuntimeScalar, Storage, Version, copied
from .._deferred.tensor import Tensor
from .._deferred.write import assign
from .._random.generator import drawing
from .._torch.dataclass import dataclass, field
from ..autograd.grad_mode import no_grad
from .capture import buffer_of
from .checks import Checks
from .gradient import Backward
from .guards import Watch
from .results import Outputs
from .segments import Known, Step, follow, number_now
from .sizes import Symbols


class Failed(Exception):
    """A program ended with an error that its data led to."""


OTHER = object()  # in the place of a result: the call is on another path


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded call that can be made again.

    Attributes:
        graph: what `program` computes; `whole` the same from the start on, without what segments
            keep.
        fed: the inputs: numbers of arguments, and whether with their storage.
        storages: of the inputs after these; a Tensor stands for its gradient. `types` are theirs.
        handed: which of them the program may update in their own memory.
        scalars, whole_scalars: numbers that are read anew at each call.
        steps: values that Python read, on which the rest depends.
        draws: whether the state of a generator is among what is read and written.
        writes: a storage, a gradient's tensor, an argument or (inverted) a part of one; and the
            result.
        counts: writes that tensors, or arguments, have counted.
        grads: tensors, or arguments, whose gradient is a result, or None.
        only: the result to return, where that is all there is to deliver.
        symbols: where sizes of arguments are symbols.
    """

    graph: Graph
    whole: Graph
    program: Any
    backward: Backward | None
    fed: tuple[tuple[int, bool], ...]
    storages: tuple[Storage | Tensor, ...]
    types: list[Type]
    handed: tuple[int, ...]
    scalars: tuple[RuntimeScalar, ...]
    whole_scalars: tuple[RuntimeScalar, ...]
    steps: tuple[Step, ...]
    draws: bool
    outputs: Outputs
    writes: tuple[tuple[Storage | Tensor | int, int], ...]
    counts: tuple[tuple[Version | int, int], ...]
    grads: tuple[tuple[Tensor | int, int | None], ...]
    only: int | None
    symbols: Symbols
    # what the storages were last seen to hold: values, buffers
    met: list[Any] = field(default_factory=lambda: [([], [])])

    # -- inputs

    def read(self) -> list[Buffer] | None:
        """What the storages hold; None where that is of other types than recorded."""
        sources = self._settled()
        if sources is None:
            return None
        if self.handed:
            return []  # nobody is to hold what `_taken` looks at
        values: list[Any] = [s.value for s in sources]
        buffers = [_fitting(v.buffer, s) for v, s in zip(values, sources, strict=True)]
        # a step's old weights are not to be held on to, nor memory that code outside may let go
        if not self.writes and all(s.host is None for s in sources):
            if self.backward is None:  # which may read weights as they are
                buffers = Held(buffers, values)
            self.met[0] = values, buffers
        return buffers

    def _sources(self) -> list[Storage]:
        """The storages, those of gradients as well."""
        return [s if isinstance(s, Storage) else s._grad._storage for s in self.storages]  # type: ignore[union-attr]

    def _settled(self) -> list[Storage] | None:
        """The storages, with elements in memory; None where those are of other types than
        recorded."""
        sources = self._sources()
        if [s.value.type for s in sources] != self.types:
            return None
        for storage in sources:
            running.settle(storage)
        return sources

    def _taken(self) -> list[Buffer]:
        """What the storages hold, for a program that updates the `handed` in their own memory:
        what others know as well, or memory shared with code outside, is copied for it."""
        sources = self._sources()
        for i in self.handed:
            sources[i].own()
        buffers = [_fitting(s.value.buffer, s) for s in sources]  # type: ignore[attr-defined]
        for i in self.handed:
            if sources[i].host is not None:
                buffers[i] = copied(buffers[i])
        return buffers

    def reading(self, checks: Checks) -> list[str]:
        """The lines of a function that read the storages, to `state`."""
        if not self.storages:
            return ["state = ()"]
        if self.handed:
            return [f"state = {checks.const(self.read)}()"]
        names = [
            checks.const(s) + ("" if isinstance(s, Storage) else "._grad._storage")
            for s in self.storages
        ]
        # A value that is remembered has another holder, so that memory which is shared with code
        # outside from then on is another's: see `Storage.expose`.
        return [
            f"values = [{', '.join([f'{n}.value' for n in names])}]",
            f"met = {checks.const(self.met)}[0]",
            # weights of a model that is not being trained
            f"state = met[1] if values == met[0] else {checks.const(self.read)}()",
        ]

    def _inputs(self, arguments: Sequence[Tensor]) -> list[Buffer]:
        inputs: list[Buffer] = []
        for i, whole in self.fed:
            tensor = arguments[i]
            value = tensor._storage.value
            if type(value) is Leaf and tensor._view is None:
                inputs.append(value.buffer)
            else:
                inputs.append(settled(tensor._storage) if whole else buffer_of(tensor))
        return inputs

    # -- a call

    def run(
        self, arguments: Sequence[Tensor], state: Sequence[Buffer], known: Known | None = None
    ) -> Any:
        """Make the recorded call on other arguments, in a `state` that was found to fit.

        Args:
            known: what segments of other recordings made in this call.

        Returns:
            OTHER where a value that Python reads leads to another path.

        Raises:
            Failed: an error that data has led to; nothing has been changed yet.
        """
        if not self.draws:
            return self._run(arguments, state, known)
        with drawing:  # else another thread's call would draw the same numbers
            return self._run(arguments, state, known)

    def _run(
        self, arguments: Sequence[Tensor], state: Sequence[Buffer], known: Known | None
    ) -> Any:
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
            if self.handed:
                results = self.program([*given, *self._taken(), *numbers])
            elif numbers:
                results = self.program([*given, *state, *numbers])
            else:
                results = self.program(given, state)
        except RAISED as error:
            raise Failed from error
        whole: list[Buffer] = []
        if self.backward is not None:
            given = [*given, *state]
            if kept:
                whole = [*inputs, *state, *[number_now(s) for s in self.whole_scalars]]
            else:
                whole = [*given, *numbers] if numbers else given
        return self._deliver(results, given, whole, arguments)

    def _deliver(
        self,
        results: Sequence[Buffer],
        inputs: Sequence[Buffer],
        whole: Sequence[Buffer],
        arguments: Sequence[Tensor],
    ) -> Any:
        backward = self.backward
        if self.only is not None:
            result = from_buffer(results[self.only])
            if backward is not None:
                backward.attach((result,), inputs, whole, results, arguments)
            return result
        self._change(results, arguments)

        def attach(carriers: Sequence[Any]) -> None:
            assert backward is not None
            backward.attach(carriers, inputs, whole, results, arguments)

        return self.outputs.deliver(
            results, arguments, lambda: self.sizes(arguments), None if backward is None else attach
        )

    def _change(self, results: Sequence[Buffer], arguments: Sequence[Tensor]) -> None:
        """What the call does beside returning something."""
        for target, i in self.writes:
            _write(target, Leaf(results[i]), arguments)
        for counter, count in self.counts:
            (arguments[counter]._counter if type(counter) is int else counter).number += count  # type: ignore[union-attr]
        for owner, number in self.grads:
            tensor: Any = arguments[owner] if type(owner) is int else owner
            tensor._grad = None if number is None else from_buffer(results[number])

    def sizes(self, arguments: Sequence[Tensor]) -> dict[str, Dim]:
        """The sizes of a call that are symbols."""
        return {name: arguments[number]._type.shape[axis] for name, number, axis in self.symbols}

    def explain(self) -> str:
        """What runs."""
        texts = [s.segment.program.explain() for s in self.steps if s.segment.program is not None]
        text = "".join([*dict.fromkeys(texts), self.program.explain()])
        return (
            text
            if self.backward is None
            else text + "\nbackward:\n" + self.backward.program.explain()
        )


@dataclass(frozen=True, slots=True)
class Guards:
    """What has to be as it was for a replay to serve, beside the arguments' signature and what
    Python read.

    Attributes:
        count: of the arguments that are tensors.
        bound: tensors that are not arguments.
        values: storages read in Python, and their writes until then.
        grads: tensors whose gradient was read, and whether it was None.
        own: storages that are not arguments'; `shared`: arguments that are to have one of those.
        layouts: arguments that are to lie in their storage as they did.
        symbols: where sizes of arguments are symbols; `pinned`: those that have to be one number;
            `conditions`: what is assumed of the others.
        drawn: generators, and where their states are.
    """

    count: int
    bound: tuple[Tensor, ...]
    values: tuple[tuple[Storage, int], ...]
    grads: tuple[tuple[Tensor, bool], ...]
    own: frozenset[Storage]
    shared: dict[int, Storage]
    layouts: dict[int, Any]
    symbols: Symbols
    pinned: dict[str, int]
    conditions: tuple[Condition, ...]
    drawn: tuple[tuple[Any, Storage], ...]

    def with_tensors(self, arguments: Sequence[Tensor], reached: Iterable[Tensor]) -> Guards:
        """These, and tensors that Python reached: arguments among them have to be those again."""
        names = {id(t) for t in reached}
        shared = self.shared | {i: t._storage for i, t in enumerate(arguments) if id(t) in names}
        given = {id(t) for t in arguments}
        bound = dict.fromkeys((*self.bound, *[t for t in reached if id(t) not in given]))
        return replace(
            self, bound=tuple(bound), shared=shared, own=self.own | frozenset(shared.values())
        )

    def checks(self, watch: Watch) -> Checks:
        """The conditions under which all is as it is now, or, for what `watch` saw, as it was
        before the call; the arguments are `given`."""
        checks = Checks("s")
        self._write_sizes(checks)
        for storage, epoch in self.values:
            checks.add(f"{checks.const(storage)}.epoch == {epoch}")
        for tensor in self.bound:
            checks.tensor(tensor)
        for generator, cell in self.drawn:
            checks.add(f"{checks.const(generator)}._cell is {checks.const(cell)}")
        watch.write(checks)
        for tensor, absent in self.grads:
            checks.add(f"{checks.const(tensor)}._grad is {'' if absent else 'not '}None")
        if self.shared:
            checks.add(f"{checks.const(self._apart)}(given)")
        elif self.own:
            for i in range(self.count):
                checks.add(f"given[{i}]._storage not in {checks.const(self.own)}")
        if self.layouts:
            checks.add(f"{checks.const(self._lie_alike)}(given)")
        return checks

    def _write_sizes(self, checks: Checks) -> None:
        """Symbols are one size wherever they stand, and what was assumed of them holds."""
        names: dict[str, str] = {}
        needed = {s.name for s in symbols(self.conditions)} | set(self.pinned)
        counts = Counter(name for name, *_ in self.symbols)
        for name, number, axis in self.symbols:
            size = f"given[{number}]._type.shape[{axis}]"
            if name in names:
                checks.add(f"{size} == {names[name]}")
            elif name in self.pinned:
                checks.add(f"{size} == {self.pinned[name]}")
            elif name in needed or counts[name] > 1:
                names[name] = f"size{len(names)}"
                checks.add(f"({names[name]} := {size}) >= 0")
        renamed = {name: symbol(new) for name, new in names.items()}
        for condition in self.conditions:
            checks.add(f"{evaluate(condition, renamed)} >= 0")

    def _apart(self, arguments: Sequence[Tensor]) -> bool:
        """Whether arguments use the storages that others use just where they did."""
        return all(
            (tensor._storage not in self.own and i not in self.shared)
            or self.shared.get(i) is tensor._storage
            for i, tensor in enumerate(arguments)
        )

    def _lie_alike(self, arguments: Sequence[Tensor]) -> bool:
        return all(layout_of(arguments[i]) == layout for i, layout in self.layouts.items())


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording that serves later calls.

    Attributes:
        checks: the conditions under which it serves arguments of its kind.
        state: what the program reads beside its arguments, or None where the recording does not
            serve.
    """

    replay: Replay
    guards: Guards
    checks: Checks
    state: Callable[[Sequence[Tensor]], Any]
    storages: list[Storage]  # of the bound tensors
    flags: list[tuple[bool, bool]]

    @staticmethod
    def of(replay: Replay, guards: Guards, watch: Watch) -> Entry:
        """From now on all has to be as it is."""
        bound = guards.bound
        checks = guards.checks(watch)
        reading = [*replay.reading(checks), "return state"]
        state = checks.function("given", reading, "None")
        return Entry(
            replay, guards, checks, state, [t._storage for t in bound], [_flags(t) for t in bound]
        )

    def alive(self) -> bool:
        """Whether this recording can still serve: the tensors it is bound to are as they were, and
        what Python read of others as well."""
        bound = self.guards.bound
        return (
            all(storage.epoch == epoch for storage, epoch in self.guards.values)
            and [t._storage for t in bound] == self.storages  # a storage is equal to itself alone
            and [_flags(t) for t in bound] == self.flags
        )


def _flags(tensor: Tensor) -> tuple[bool, bool]:
    return tensor._rg, tensor._fn is None


def layout_of(tensor: Tensor) -> Any:
    """How a tensor lies in its storage."""
    view = tensor._view
    return tensor._storage.value.type, None if view is None else (
        view.strides,
        view.offset,
        view.type,
    )


def settled(storage: Storage) -> Buffer:
    """The elements of a storage, computed if need be."""
    running.settle(storage)
    return _fitting(storage.value.buffer, storage)  # type: ignore[attr-defined]


def _fitting(buffer: Buffer, storage: Storage) -> Buffer:
    """The elements of a storage for a program; code outside may have written to memory that is
    shared with it, so that what was packed of it is stale."""
    if storage.shared_memory() is None:
        return buffer
    return buffer.again()


def _write(target: Any, leaf: Leaf, arguments: Sequence[Tensor]) -> None:
    if type(target) is int:
        if target < 0:  # what a stand-in for a part of a storage got
            with no_grad():
                assign(arguments[~target], from_buffer(leaf.buffer))
            return
        storage = arguments[target]._storage
    else:
        storage = target if isinstance(target, Storage) else target._grad._storage
    if storage.host is None:
        storage.value = leaf
        storage.epoch += 1
    else:
        running.store(storage, leaf)
