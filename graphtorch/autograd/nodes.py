"""The autograd graph: one `GradNode` per recorded tensor operation.

It holds the IR values the operation read and made, and for each operand where its gradient goes
next. Gradients are not computed here: `pull` asks the IR's rules, which record ordinary nodes.
"""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from graphtorch.ir import ops
from graphtorch.ir.graph import Node, Type, Value, topological
from graphtorch.ir.op import NO_ATTRS, Op
from graphtorch.ir.passes.autodiff import (
    TEMPLATES_LIMIT,
    Template,
    pullback,
    pullback_of,
    pullback_through,
    template_of,
)
from graphtorch.ir.rewrite import in_terms_of
from graphtorch.ir.views import strided_view

from .._settings import FOLDER
from .._types import CPU, device
from ..utils.hooks import register
from .grad_mode import modes
from .seen import Kept, Seen, any_changed, any_rewritten, shown

_sequence = itertools.count(1)

Edge = tuple["GradNode", int] | None


def new_number() -> int:
    """A number in the order in which nodes are made."""
    return next(_sequence)


_kinds: dict[str, type] = {}  # a class for each name of a node: tools that draw graphs ask for it
_renamed: dict[tuple[type, str], type] = {}
_given: dict[str, type] = {}  # the same for names as operations give them


# What the gradient of each operand keeps (of any operand, where there is one entry): operands by
# their number, results by the complement of theirs.
Rules = tuple[tuple[int, ...], ...]


def kind_of(name: str) -> type:
    """The class of the nodes of an operation, named as for `GradNode.of`."""
    found = _given.get(name)
    if found is None:
        full = name if "Backward" in name else name + "Backward0"
        found = _given[name] = _kinds.get(full) or _kind(full)
    return found


def rename(fn: GradNode, name: str) -> None:
    """Call a node `name` in full; it goes on keeping what nodes of its operation keep."""
    kind = type(fn)
    made = _renamed.get((kind, name))
    if made is None:
        made = _renamed[kind, name] = type(name, (kind,), {"__module__": "graphtorch.autograd"})
    fn.__class__, fn._name = made, name


def _kind(name: str) -> type:
    made = _kinds[name] = type(name, (GradNode,), {"__module__": "graphtorch.autograd"})
    return made


class Packed(NamedTuple):
    """A saved value as hooks keep it."""

    value: Value  # which it was
    kept: Any
    unpack: Callable[[Any], Any]


class Read(NamedTuple):
    """What a backward pass reads in the place of the operands and results that were recorded."""

    operands: tuple[Value, ...]
    outputs: tuple[Value, ...]


class GradientEdge(NamedTuple):
    """Where the gradient of a tensor goes: a node, and which of its results the tensor is."""

    node: Any
    output_nr: int
    ownership_token: Any = None


# What needs tensors, which are made on top of nodes: "saved" gives a node's ``_saved_self`` and the
# like, "call" its gradients.
LATER: dict[str, Callable[..., Any]] = {}
PACKING = (
    "A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack "
    "hook cannot be modified by in-place operations as this can lead to unexpected side-effects: "
    "clone() it first"
)


def pack(hooks: tuple[Callable[..., Any], Callable[..., Any]], tensor: Any) -> Any:
    """What the hooks keep in the place of `tensor`. Raises RuntimeError: they write to it."""
    before, modes.grad = modes.grad, False
    saving, modes.saving = modes.saving, None
    number = tensor._counter.number
    try:
        kept = hooks[0](tensor)
    finally:
        modes.grad, modes.saving = before, saving
    if tensor._counter.number != number:
        raise RuntimeError(PACKING)
    return kept


def unpack(kept: Any, hook: Callable[[Any], Any]) -> Any:
    """The tensor that a hook makes of what was kept. Raises TypeError: it is none."""
    before, modes.grad = modes.grad, False
    try:
        found = hook(kept)
    finally:
        modes.grad = before
    if not hasattr(found, "_value"):
        raise TypeError(
            "Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
            f"{type(found).__name__}"
        )
    return found


class GradNode:
    """One operation in the autograd graph. `name`, also of its class, is PyTorch's:
    ``AddBackward0``."""

    hooks: dict[int, OrderedDict[int, Any]] | None = None  # tensor hooks, by result
    retained: dict[int, weakref.ref[Any]] | None = None  # tensors whose .grad is kept, by result
    runs_hooks = False  # whether applying it calls hooks of a module
    functions: tuple[type, ...] = ()  # subclasses of `Function` whose backward applying it calls
    node_hooks: OrderedDict[int, Any] | None = None
    node_prehooks: OrderedDict[int, Any] | None = None
    freed = False
    place: device = CPU  # of the gradients that arrive
    packed: Sequence[Packed] = ()  # what hooks made of the values that its gradient reads
    # of a node with a backward in Python, made in a recording: its results
    shown: Sequence[Value] = ()
    keeps: Rules | None = None  # where PyTorch keeps something else than the rule reads
    # what PyTorch keeps for a function that it has as one operation, and of which this is the last
    kept: tuple[Kept, ...] = ()
    _metadata: dict[str, Any] | None = None
    in_python = False  # whether `apply` gives its gradients, a method of some subclasses
    follows_rule = True  # whether its gradients are just those of the operation's rule

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.in_python = hasattr(cls, "apply")
        cls.follows_rule = cls.pull is GradNode.pull and cls.free is GradNode.free

    def __new__(cls, name: Any, *args: Any, new: Any = object.__new__) -> Any:
        return new(_kinds.get(name) or _kind(name) if cls is GradNode else cls)

    def __init__(
        self,
        name: str,
        outputs: tuple[Value, ...],
        operands: tuple[Value, ...],
        edges: tuple[Edge, ...],
        seen: tuple[Seen | None, ...],
    ):
        self._name = name
        self.outputs = outputs
        self.operands = operands
        self.edges = edges
        self.seen = seen
        self.made: tuple[Seen | None, ...] = ()
        self.sequence = next(_sequence)
        self.types = [outputs[0].type] if len(outputs) == 1 else [v.type for v in outputs]
        if modes.anomaly:
            self.metadata["traceback_"] = _users_stack()

    @staticmethod
    def of(
        name: str,
        outputs: tuple[Value, ...],
        operands: tuple[Value, ...],
        edges: tuple[Edge, ...],
        seen: tuple[Seen | None, ...],
        made: tuple[Seen | None, ...],
        new: Any = object.__new__,
    ) -> GradNode:
        """A node of an operation, `name` without ``Backward0``."""
        kind = kind_of(name)
        fn: GradNode = new(kind)
        GradNode.__init__(fn, kind.__name__, outputs, operands, edges, seen)
        fn.made = made
        return fn

    def unwatched(self) -> GradNode:
        """The same node without hooks and without tensors that keep their gradient."""
        made: GradNode = object.__new__(type(self))
        made.__dict__.update(self.__dict__, hooks=None, retained=None)
        return made

    # -- PyTorch's view of it

    def name(self) -> str:
        return self._name

    @property
    def next_functions(self) -> tuple[tuple[GradNode | None, int], ...]:
        return tuple(e if e is not None else (None, 0) for e in self.edges)

    @property
    def metadata(self) -> dict[str, Any]:
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    def register_hook(self, hook: Any) -> Any:
        """Call ``hook(grad_inputs, grad_outputs)`` after this node; it may return new
        grad_inputs."""
        if self.node_hooks is None:
            self.node_hooks = OrderedDict()
        return register(self.node_hooks, hook)

    def register_prehook(self, hook: Any) -> Any:
        """Call ``hook(grad_outputs)`` before this node; it may return new grad_outputs."""
        if self.node_prehooks is None:
            self.node_prehooks = OrderedDict()
        return register(self.node_prehooks, hook)

    def _sequence_nr(self) -> int:
        """Nodes made later have higher numbers."""
        return self.sequence

    def __call__(self, *gradients: Any) -> Any:
        """The gradients of the operands, given those of the results: a tensor, or a tuple of
        several."""
        return LATER["call"](self, gradients)

    def __repr__(self) -> str:
        return f"<{self._name} object at {id(self):#x}>"

    def __getattr__(self, name: str) -> Any:
        """``_saved_self``, ``_saved_result``, ...: what the gradient is computed from."""
        if name.startswith(("_saved_", "_raw_saved_")):
            return LATER["saved"](self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- gradients

    def pull(self, cotangents: Sequence[Value | None]) -> list[Value | None]:
        """The gradients of the operands, given those of the results, from what was recorded: see
        `reread` for what a backward pass reads.

        Raises:
            RuntimeError: the graph was freed; a tensor that it keeps was written to.
        """
        if self.freed:
            raise RuntimeError(FREED)
        gradients = self._rule(cotangents, self.operands, self.outputs)
        if self.changed():
            self._check_versions(self.saves(gradients, cotangents))
        for seen, kind in self.kept:
            if seen.version.number != seen.number:
                raise RuntimeError(self._modified(kind, seen))
        return gradients

    def spend(self, cotangents: Sequence[Value | None]) -> list[Value | None]:
        """The gradients of the operands that have somewhere to go; then lets go of what it saved.

        For a pass that is neither kept nor recorded, of a node that no hooks packed anything of.
        """
        found = self._planned(cotangents) if self.follows_rule and not self.freed else None
        if found is None:
            gradients = self.pull(cotangents)
            read = self.reread(gradients, cotangents)
            made = gradients if read is None else self.pulled_from(read, gradients, cotangents)
            found = [None if e is None else g for g, e in zip(made, self.edges, strict=True)]
            self.free(gradients, cotangents)
        return found

    def _planned(self, cotangents: Sequence[Value | None]) -> list[Value | None] | None:
        """What `spend` does for an operation of one node with one result that came before; None for
        others."""
        outputs, operands = self.outputs, self.operands
        if len(outputs) != 1 or cotangents[0] is None:
            return None
        node = outputs[0].node
        if node is None or len(node.types) != 1 or node.operands != operands:
            return None
        attrs = node.attrs
        key = (
            type(self),
            node.op,
            None if attrs is NO_ATTRS else attrs,
            *[v.type for v in operands],
            *[e is not None for e in self.edges],
        )
        plan = _plans.get(key)
        if plan is None:
            plan = self._plan(key, node, cotangents)
            if plan is None:
                return None
        if any_changed(self.seen) or any_changed(self.made) or any_rewritten(self.kept):
            return None  # `pull` knows what that means
        template, saves = plan
        values = [*operands, outputs[0], cotangents[0], *template.fixed]
        found = template.made(values, node.location)
        if saves or self.kept:
            self._let_go()
        return found

    def _plan(
        self, key: tuple[Any, ...], node: Node, cotangents: Sequence[Value | None]
    ) -> Plan | None:
        """The gradients of a node as a template, if it has one, and whether it saves anything."""
        wanted = key[-len(self.edges) :] if self.edges else ()
        template = template_of(node, (True,), wanted)
        if template is None:
            return None
        if len(_plans) >= TEMPLATES_LIMIT:
            _plans.clear()
        saves = bool(self.saves(template.apply(node, cotangents), cotangents))
        plan = _plans[key] = template, saves
        return plan

    def _rule(
        self,
        cotangents: Sequence[Value | None],
        operands: tuple[Value, ...],
        outputs: tuple[Value, ...],
    ) -> list[Value | None]:
        node = outputs[0].node
        if (
            node is not None
            and len(node.types) == len(outputs)
            and node.operands == operands
            and all(v.node is node for v in outputs)
        ):
            by_result: list[Value | None] = [None] * len(node.types)
            for value, cotangent in zip(outputs, cotangents, strict=True):
                by_result[value.index] = cotangent
            return list(pullback(node, by_result, tuple([e is not None for e in self.edges])))
        return list(pullback_through(outputs, cotangents, operands))

    def saves(
        self, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]
    ) -> set[Value]:
        """Which operands and results PyTorch keeps: those declared, else those that the rule
        reads."""
        rules = self.keeps
        if rules is None:
            return self.reads(gradients, cotangents)
        operands, outputs = self.operands, self.outputs
        wanted = rules[:1] if len(rules) == 1 else _of_wanted(rules, self.edges)
        return {
            operands[i] if i >= 0 else outputs[~i]
            for rule in wanted
            for i in rule
            if -len(outputs) <= i < len(operands)
        }

    def saved_tensors(
        self, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]
    ) -> list[Seen]:
        """What tensors looked like that hold what it `saves`."""
        saved = self.saves(gradients, cotangents)
        return [
            *[seen for seen, values, i in self._tensors() if values[i] in saved],
            *[seen for seen, _ in self.kept],
        ]

    def saved_in_python(self) -> list[Seen]:
        """What tensors looked like that a node with a backward in Python keeps."""
        return []

    def reads(
        self, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]
    ) -> set[Value]:
        """Which operands and results the rule read to make `gradients`."""
        inner = set(topological(self.outputs, frozenset(self.operands)))
        border = set(self.operands) | set(self.outputs)
        given = {c for c in cotangents if c is not None}
        found: set[Value] = set()
        done: set[Node] = set()
        stack = [
            g for g, e in zip(gradients, self.edges, strict=True) if g is not None and e is not None
        ]
        while stack:
            value = stack.pop()
            if value in given:
                continue
            if value in border:
                found.add(value)
            elif value.node is not None and value.node in inner:
                found.update(self._saved_for(value, border))
            elif value.node is not None and value.node not in done:
                done.add(value.node)
                stack.extend(value.node.operands)
        return found

    def _saved_for(self, value: Value, border: set[Value]) -> set[Value]:
        """What PyTorch saves of operands and results where the rule reads what is computed in
        between.

        Of one operand: it, where `value` is another shape of it, else the result. Of several: those
        that `value` is computed from (a mask as numbers, a difference).
        """
        if len(self.operands) == 1:
            below = strided_view(value, border.__contains__)
            return {self.outputs[0] if below is None or below.root not in border else below.root}
        return border.intersection(v for n in topological((value,), border) for v in n.operands)

    def pack(self, hooks: Any, tensors: Sequence[Any], ones: Sequence[Value | None]) -> None:
        """Give what the gradient reads to hooks. `tensors` show the operands, then the results;
        what is no tensor is none that anybody saves. `ones`: some cotangents."""
        read = self.saves(self.pull(ones), ones)
        values = (*self.operands, *self.outputs)
        packed = []
        for tensor, value in zip(tensors, values, strict=True):
            if value in read and hasattr(tensor, "_value"):
                kept = pack(hooks, tensor)
                if kept is tensor and tensor._fn is self:  # a result would hold its own node
                    kept = tensor.detach()
                packed.append(Packed(value, kept, hooks[1]))
        self.packed = packed

    def changed(self) -> bool:
        """Whether a tensor that it may keep was written to, which hooks do not mind."""
        return not self.packed and (any_changed(self.seen) or any_changed(self.made))

    def reread(
        self, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]
    ) -> Read | None:
        """What a backward pass reads in the place of what was recorded, of which `pull` made
        `gradients`: what hooks unpack, or memory that was written to through ``.data``. None where
        nothing changed.

        Raises:
            TypeError: a hook gave no tensor. RuntimeError: one of another shape or dtype.
        """
        if self.packed:
            table = self._given_back()
            now = [table.get(v, v) for v in (*self.operands, *self.outputs)]
            return self._read(now, {*table})
        if not self.changed():
            return None
        saved = self.saves(gradients, cotangents)
        return self._read(self._in_memory(saved), saved)

    def _read(self, now: list[Value], saved: set[Value]) -> Read:
        """`now`: operands and results. A result that is not `saved` is computed again."""
        count = len(self.operands)
        before = (*self.operands, *self.outputs)
        for i, value in enumerate(now):  # a gradient of the gradients tells them apart by value
            if value is not before[i] and now.count(value) > 1:
                now[i] = ops.reshape(value, shape=value.shape)
        operands, outputs = tuple(now[:count]), now[count:]
        again = dict(zip(self.operands, operands, strict=True))
        for i, value in enumerate(self.outputs):
            if value not in saved and operands != self.operands:
                outputs[i] = in_terms_of((value,), again, self.operands)[0] or value
        return Read(operands, tuple(outputs))

    def pulled_from(
        self, read: Read, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]
    ) -> list[Value | None]:
        """The gradients as `pull` would have made them if `read` had been recorded."""
        if read == (self.operands, self.outputs):
            return list(gradients)
        node = self.outputs[0].node
        if node is not None and node.operands == self.operands and len(node.types) == 1:
            # by place: two operands that were equal may not be so any more
            return list(pullback_of(node, *read, cotangents))
        table = dict(zip((*self.operands, *self.outputs), (*read[0], *read[1]), strict=True))
        given = [c for c in cotangents if c is not None]
        return in_terms_of(gradients, table, (*self.operands, *given))

    def _given_back(self) -> dict[Value, Value]:
        """What hooks gave back in the place of values that the gradient reads."""
        table: dict[Value, Value] = {}
        for value, kept, hook in self.packed:
            found = unpack(kept, hook)
            if found._type is not value.type and found._type != value.type:
                raise RuntimeError(
                    f"{self._name}: unpack_hook gave a tensor {found._type} in the place of "
                    f"one {value.type}; give back what was packed"
                )
            table[value] = found._value()
        return table

    def _check_versions(self, saved: set[Value]) -> None:
        for seen, values, i in self._tensors():
            if values[i] in saved and seen.version.number != seen.number:
                raise RuntimeError(self._modified(values[i].type, seen))

    def _in_memory(self, saved: set[Value]) -> list[Value]:
        """Operands and results as memory is now, of which PyTorch reads what it `saved`: writes
        through ``.data`` are not counted."""
        now = [*self.operands, *self.outputs]
        for seen, values, i in self._tensors():
            if values[i] in saved and any_changed((seen,)):
                value = shown(seen) or values[i]
                now[i if values is self.operands else len(self.operands) + i] = value
                if value.type != values[i].type:
                    raise RuntimeError(self._other(values[i].type, value.type))
        return now

    def _other(self, before: Type, now: Type) -> str:
        return (
            f"{self._name} was recorded of a tensor {before}, and its .data is {now} by now: its "
            "gradient cannot be computed. Assign .data after the backward pass, or before the "
            "forward pass"
        )

    def _tensors(self) -> Any:
        for i in range(len(self.seen)):
            seen = self.seen_operand(i)
            if seen is not None:
                yield seen, self.operands, i
        for i in range(len(self.made)):
            seen = self.seen_result(i)
            if seen is not None:
                yield seen, self.outputs, i

    def seen_operand(self, i: int) -> Seen | None:
        """The tensor that PyTorch keeps of an operand: itself, or a view made on the way, which
        stays with the memory."""
        seen = self.seen[i] if i < len(self.seen) else None
        node = self.outputs[0].node
        if seen is None or node is None or i not in VIEWED.get(node.op, ()):
            return seen
        return seen.as_memory()

    def seen_result(self, i: int) -> Seen | None:
        """What PyTorch keeps of a result: its memory."""
        seen = self.made[i] if i < len(self.made) else None
        return None if seen is None else seen.as_memory()

    def _modified(self, kind: Type, seen: Seen) -> str:
        return (
            "one of the variables needed for gradient computation has been modified by an inplace "
            f"operation: [torch.{kind.dtype.torch_name} {list(kind.shape)}], which {self._name} "
            f"reads, is at version {seen.version.number}; expected version {seen.number} instead. "
            "Hint: use the out-of-place form of the operation that changed it, or clone() the "
            "tensor first"
        )

    def free(self, gradients: Sequence[Value | None], cotangents: Sequence[Value | None]) -> None:
        """Let go of saved values after a backward pass, where the rule has any."""
        key = None
        node = self.outputs[0].node
        if node is not None:
            key = (
                self._name,
                node.op,
                node.attrs,
                *[v.type for v in self.operands],
                *[e is None for e in self.edges],
            )
        saves = _saves.get(key) if key else None
        if saves is None:
            saves = bool(self.saves(gradients, cotangents))
            if key:
                _saves[key] = saves
        if saves or self.kept:
            self._let_go()

    def _let_go(self) -> None:
        self.operands = self.outputs = self.seen = self.made = self.packed = self.kept = ()
        self.freed = True


# operands of operations that PyTorch turns into views of themselves before it keeps them
VIEWED: dict[Op[Any], tuple[int, ...]] = {ops.linear: (1,), ops.affine: (2,)}
_saves: dict[object, bool] = {}
# by class and operation of a node, with the types of its operands and which gradients are wanted
Plan = tuple[Template, bool]
_plans: dict[tuple[Any, ...], Plan] = {}


def _of_wanted(rules: Rules, edges: Sequence[Edge]) -> Rules:
    """The rules of the operands whose gradient is wanted."""
    return tuple([rule for rule, e in zip(rules, edges, strict=False) if e is not None])


def _users_stack() -> list[str]:
    """The calls that led here, without our own, as lines of a traceback."""
    import traceback  # of the detection of anomalies only

    frames = [f for f in traceback.extract_stack() if not f.filename.startswith(FOLDER)]
    return traceback.format_list(frames)


FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you call "
    ".backward() or autograd.grad(). Specify retain_graph=True if you need to backward through the "
    "graph a second time or if you need to access saved tensors after calling backward."
)


class AccumulateGrad(GradNode):
    """The end of a path: adds what arrives to the `grad` of a leaf tensor."""

    _name = "AccumulateGrad"
    outputs = operands = edges = seen = made = ()
    sequence = 1 << 62  # runs as soon as it is ready, as in PyTorch

    def __init__(self, variable: Any):
        # without that of the base: every parameter has one in every forward pass
        self.variable = variable
        self.types = [variable._type]
        if modes.anomaly:
            self.metadata["traceback_"] = _users_stack()

    def name(self) -> str:
        return "torch::autograd::AccumulateGrad"

    @property
    def place(self) -> device:  # type: ignore[override]  # that of the leaf, which may move
        return self.variable.device  # type: ignore[no-any-return]

    def free(self, gradients: Any, cotangents: Any) -> None:
        pass
