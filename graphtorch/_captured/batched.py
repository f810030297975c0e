"""`vmap`: a function of one entry, applied to a batch of them at once.

The function is called once, on stand-ins for one entry. What it records is mapped by the rules of the ops
(`ir.passes.batch`), and so are the nodes of the autograd graph that it made: a result has the history that it
would have had, with the same detached parts, and gradients flow to the arguments and to the tensors that the
function read from around it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from graphtorch.ir import ops
from graphtorch.ir.dtype import i64
from graphtorch.ir.graph import Type, Value
from graphtorch.ir.passes.batch import Batch
from graphtorch.ir.shape import SymInt, bounds

from .._deferred import running
from .._deferred.storage import Storage, Version, recorder
from .._deferred.tensor import Tensor, from_value
from .._ops.base import FUNCTIONS, METHODS
from .._settings import FOLDER
from ..autograd.function import Function
from ..autograd.nodes import AccumulateGrad, Edge, GradNode, new_number
from ..random import get_rng_state, set_rng_state
from .capture import rebuild, tensors_in
from .control import Recording

RANDOMNESS = ("error", "different", "same")
Size = Any  # an int, or a symbolic size

ITEM = (
    "vmap: It looks like you're calling .item() on a Tensor. We don't support vmap over calling .item() on a "
    "Tensor, please try to rewrite what you're doing with other operations: its elements differ from entry to "
    "entry"
)
BRANCH = (
    "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow. We don't "
    "support that: entries would take different paths. Use torch.where, or torch.cond"
)
NEEDED = (
    "vmap: the elements of a Tensor are needed in Python, or decide the shape of a result. We do not support "
    "that: they differ from entry to entry. Use operations on tensors whose shapes are known before"
)
IN_PLACE = (
    "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` in "
    "extra_args that has more elements than `self`. This happened due to `other` being vmapped over but `self` "
    "not being vmapped over. Please try to use out-of-place operators instead of inplace arithmetic, or map "
    "over `self` too"
)
RANDOM = (
    "vmap: called random operation while in randomness error mode. Please either use the 'same' or 'different' "
    "randomness flags on vmap or perform the randomness operation out of vmap"
)
BACKWARD = (
    "backward() called inside a functorch transform. This is not supported, please use functorch.grad or "
    "functorch.vjp instead or call backward() outside of functorch transforms."
)


# ------------------------------------------------------------------------------------------ recording one entry


class Entry(Recording):
    """In the place of a capture while a function is recorded for one entry.

    Attributes:
        batch: what stands for the values of one entry where there are all.
    """

    def __init__(self, batch: Batch, randomness: str, histories: Histories, outer: Any):
        super().__init__("vmap", outer)
        self.batch = batch
        self.randomness = randomness
        self.histories = histories

    @property
    def level(self) -> int:
        """1 for the outermost `vmap`."""
        outer = self.outer
        while outer is not None and not isinstance(outer, Entry):
            outer = getattr(outer, "outer", None)
        return 1 if outer is None else outer.level + 1

    @property
    def numbers_vary(self) -> bool:
        """Numbers of the program are what they are around this."""
        return self.outer is None or bool(self.outer.numbers_vary)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is recorded inside is no part of this."""
        recorder.capture = self.outer
        try:
            yield
        finally:
            recorder.capture = self

    # -- what Python asks for

    def maps(self, tensor: Tensor) -> bool:
        """Whether the elements of `tensor` differ from entry to entry."""
        return self.batch.maps(tensor._value())

    def reveal(self, tensor: Tensor, caller: Any = None) -> Any:
        """Elements that are the same for all entries are known, or not, as they are around this."""
        if self.maps(tensor):
            if caller is None:
                raise RuntimeError(f"{NEEDED} (at {running.user_line()})")
            raise RuntimeError(f"{BRANCH if _decides(caller) else ITEM} (at {running.user_line()})")
        value = tensor._value() if self.owns(tensor._storage) else None
        with self.outside():
            return (tensor if value is None else from_value(value))._array()

    def all_entries(self, tensor: Tensor) -> tuple[Tensor, bool]:
        """All entries of `tensor`, along a new first dimension, and True; or itself, where all share it."""
        value, edge = tensor._value(), tensor._edge() if tensor.requires_grad else None
        mapped = self.batch.maps(value)
        if not mapped and not self.owns(tensor._storage):
            return tensor, False
        with self.outside():
            return _with_history(from_value(self.batch.of(value)), self.histories.of(edge)), mapped

    def call_off(self, always: bool = False) -> bool:
        raise RuntimeError(f"{NEEDED} (at {running.user_line()})")

    # -- what it changes

    def write(self, storage: Storage, value: Value) -> bool:
        """Into a tensor from outside goes what is the same for all entries."""
        if self.owns(storage):
            return False
        if self.batch.maps(value):
            raise RuntimeError(f"{IN_PLACE} (at {running.user_line()})")
        with self.outside():
            running.store(storage, value)
        return True

    def counts(self, tensor: Tensor) -> None:
        if self.outer is not None and not self.owns(tensor._storage):
            self.outer.counts(tensor)

    def grad_set(self, tensor: Tensor) -> None:
        raise RuntimeError(BACKWARD)

    def reseeded(self, generator: Any) -> None:
        if self.outer is not None:
            self.outer.reseeded(generator)

    def random(self, generator: Any, used: int) -> tuple[Value, Value]:
        """A place in the stream: one for all entries, or where the numbers of all of them begin."""
        if self.randomness == "error":
            raise RuntimeError(RANDOM)
        if self.randomness == "same":
            with self.outside():
                return generator.advance(used)  # type: ignore[no-any-return]
        size = self.batch.size
        count = bounds(size)[1] if isinstance(size, SymInt) else size
        with self.outside():
            seed, offset = generator.advance(used * count)
        place = Value(Type(i64), name="offset")
        self.batch.map(place, ops.expand(offset, shape=(size,)))
        return seed, place

    # -- tensors of one entry

    def stand_in(self, entries: Tensor) -> Tensor:
        """One of the entries that `entries` has along its first dimension."""
        with self.outside():
            whole = entries._value()
            edge = entries._edge() if entries.requires_grad else None
        value = Value(whole.type.with_shape(whole.shape[1:]), name="entry")
        self.batch.map(value, whole)
        made: Tensor = object.__new__(Tensor)
        made._storage, made._counter = Storage(value), Version()
        self.adopt(made._storage)
        if edge is not None and entries.is_leaf:
            made._rg = True
        elif edge is not None:
            made._fn = Boundary(value, whole, edge)
        if edge is not None:
            self.histories.ends[made._edge()] = edge  # type: ignore[index]
        return made

    def applied(self, function: Any, args: tuple[Any, ...]) -> Any:
        """By its own `vmap`; one that leaves the rule to be made is recorded as usual."""
        mapped = [isinstance(a, Tensor) and self.maps(a) for a in args]
        if not any(mapped):
            return NotImplemented
        name = function.__name__
        if function.setup_context is Function.setup_context:
            raise RuntimeError(
                "In order to use an autograd.Function with functorch transforms (vmap, grad, jvp, jacrev, ...), "
                f"it must override the setup_context staticmethod: {name} does not"
            )
        if function.vmap is Function.vmap:
            if function.generate_vmap_rule:
                return NotImplemented
            raise RuntimeError(
                f"You tried to vmap over {name}, but it does not have vmap support. Please override and "
                "implement the vmap staticmethod or set generate_vmap_rule=True."
            )
        given = [self.all_entries(a)[0] if isinstance(a, Tensor) else a for a in args]
        with self.outside():
            info = VmapInfo(self.batch.size, self.randomness)
            result, out_dims = function.vmap(info, tuple([0 if m else None for m in mapped]), *given)
        places = iter(_out_places(function.vmap, out_dims, result))

        def one(tensor: Tensor) -> Tensor:
            place = next(places)
            if place is None:
                return tensor
            with self.outside():
                front = tensor if place == 0 else tensor.movedim(place, 0)
            return self.stand_in(front)

        return rebuild(result, one)


class VmapInfo(NamedTuple):
    """What the `vmap` of an `autograd.Function` is told."""

    batch_size: Any
    randomness: str


def _decides(frame: FrameType | None) -> bool:
    """Whether an ``if`` asks for an element, as far as our own lines say."""
    while frame is not None and frame.f_code.co_filename.startswith(FOLDER):
        if frame.f_code.co_name == "is_nonzero":
            return True
        frame = frame.f_back
    return False


class Boundary(GradNode):
    """The history of a stand-in: that of all entries."""

    def __init__(self, value: Value, whole: Value, edge: Edge):
        super().__init__("VmapBackward0", (value,), (whole,), (edge,), (None,))

    def pull(self, cotangents: Sequence[Value | None]) -> list[Value | None]:
        raise RuntimeError(
            "vmap: autograd.grad() inside the function asks for the gradient of a tensor from around it, "
            "through a mapped argument. Use torch.func.grad of the argument, or call grad outside of vmap"
        )


# ------------------------------------------------------------------------------------------ histories


class Histories:
    """The autograd graph of one entry, and what stands for its nodes where there are all entries.

    Attributes:
        ends: where the gradients of stand-ins go.
    """

    def __init__(self, batch: Batch, randomness: str):
        self.batch = batch
        self.randomness = randomness
        self.ends: dict[tuple[GradNode, int], Edge] = {}
        self.start = new_number()  # of the first node that belongs to the recording
        self.made: dict[GradNode, GradNode] = {}

    def of(self, edge: Edge) -> Edge:
        """Where a gradient goes that went along `edge`."""
        if edge is None or edge in self.ends:
            return None if edge is None else self.ends[edge]
        waiting = [edge[0]]
        while waiting:
            missing = [n for n in self._before(waiting[-1]) if n not in self.made]
            if missing:
                waiting += missing
            else:
                node = waiting.pop()
                if node not in self.made:
                    self.made[node] = self._node(node)
        return self.made[edge[0]], edge[1]

    def _before(self, node: GradNode) -> list[GradNode]:
        if node.sequence < self.start or isinstance(node, AccumulateGrad):
            return []
        return [e[0] for e in node.edges if e is not None and e not in self.ends]

    def _node(self, node: GradNode) -> GradNode:
        if node.sequence < self.start or isinstance(node, AccumulateGrad):
            return node
        edges = tuple([
            None if e is None else self.ends[e] if e in self.ends else (self.made[e[0]], e[1])
            for e in node.edges
        ])
        if hasattr(node, "apply"):
            return node if edges == node.edges else InPython(node, edges, self)
        operands = tuple([self.batch.of(v) for v in node.operands])
        outputs = tuple([self.batch.of(v) for v in node.outputs])
        if edges == node.edges and operands == node.operands and outputs == node.outputs:
            return node
        made: GradNode = object.__new__(type(node))
        none = (None,) * len(operands)
        made.__dict__.update(node.__dict__, edges=edges, operands=operands, outputs=outputs, seen=none, made=(),
                             retained=None, types=[v.type for v in outputs])
        running.remember(made)
        return made


# ------------------------------------------------------------------------------------------ the call


def for_all(
    function: Callable[[list[Tensor]], Any], entries: Sequence[Tensor], histories: Histories
) -> tuple[Any, Callable[[Tensor], tuple[Tensor, bool]]]:
    """Call `function` once, for one entry.

    Args:
        entries: tensors with all entries along their first dimension; the function gets one of each.

    Returns:
        What the function returned for one entry, and what gives, for a tensor in it, the same of all entries
        along a new first dimension and True, or a tensor that all share and False.
    """
    entry = Entry(histories.batch, histories.randomness, histories, recorder.capture)
    recorder.capture = entry
    try:
        stands = [entry.stand_in(t) for t in entries]
        first = [s._storage.value for s in stands]
        result = function(stands)
        written = [(s, t) for s, t, v in zip(stands, entries, first, strict=True) if s._storage.value is not v]
        found = {id(t): entry.all_entries(t) for t in (*tensors_in(result), *(s for s, _ in written))}
    finally:
        recorder.capture = entry.outer
    for stand, entries_of_it in written:
        METHODS["copy_"](entries_of_it, found[id(stand)][0])
    return result, lambda tensor: found[id(tensor)]


def _with_history(tensor: Tensor, edge: Edge) -> Tensor:
    if edge is not None and isinstance(edge[0], AccumulateGrad):  # the entries of a leaf as they are
        value = tensor._value()
        edge = GradNode("AliasBackward0", (value,), (value,), (edge,), (None,)), 0
    if edge is not None:
        tensor._fn, tensor._nr = edge
    return tensor


class InPython(GradNode):
    """All entries of a node whose backward is a function of Python: that is recorded for one entry, too."""

    def __init__(self, node: GradNode, edges: tuple[Edge, ...], histories: Histories):
        super().__init__(node._name, (), (), edges, ())
        self.node, self.histories = node, histories
        self.types = [histories.batch.of(v).type for v in node.shown]

    def apply(self, cotangents: list[Any], task: Any) -> list[Any]:
        batch, node = self.histories.batch, self.node
        several = [c is not None and batch.maps(v) for c, v in zip(cotangents, node.shown, strict=True)]

        def backward(stands: list[Tensor]) -> Any:
            left = iter(stands)
            one = [next(left) if m else c for c, m in zip(cotangents, several, strict=True)]
            return node.apply(one, task)  # type: ignore[attr-defined]

        mapped = [c for c, m in zip(cotangents, several, strict=True) if m]
        found, whole = for_all(backward, mapped, self.histories)
        return [None if g is None or new is None else self._fitted(*whole(g), old, new)
                for g, old, new in zip(found, node.edges, self.edges, strict=True)]

    def _fitted(self, gradient: Tensor, mapped: bool, old: Edge, new: Edge) -> Tensor:
        """Of what all entries share the sum of their gradients."""
        assert old is not None and new is not None
        size, shared = self.histories.batch.size, old[0].types[old[1]] is new[0].types[new[1]]
        if shared == mapped:
            return gradient.sum(0) if shared else gradient.expand((size, *gradient._type.shape))
        return gradient * size if shared else gradient


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that maps `func` over a dimension of its arguments, all entries at once.

    `func` is called once, with one entry in the place of each mapped tensor; see `docs/compile.md`.

    Args:
        in_dims: which dimension of each positional argument is mapped: an int, None for what all entries
            share (and for what is no tensor), or a tuple of those, nested as the arguments are. Keyword
            arguments are shared.
        out_dims: where the results have the mapped dimension, in the same way; None for what all share.
        randomness: what random operations do: ``error``; ``same`` draws the same numbers for all entries;
            ``different`` draws each its own.
        chunk_size: how many entries to compute at a time; None for all.

    Raises:
        ValueError: `in_dims` or `out_dims` do not fit, no tensor is mapped, or sizes differ.
        RuntimeError: the function needs elements in Python, draws without `randomness`, or writes what differs
            from entry to entry into a tensor that does not.
    """
    if randomness not in RANDOMNESS:
        raise RuntimeError(
            f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}"
        )
    if chunk_size is not None and not (chunk_size == int(chunk_size) and chunk_size > 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    @functools.wraps(func, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        _check_out_dims(out_dims, func)
        given, dims, size = mapped_arguments(func, in_dims, args)
        fronts = [t if d is None or d == 0 else t.movedim(d, 0) for t, d in zip(given, dims, strict=True)]
        if chunk_size is None or not isinstance(size, int) or size <= chunk_size:
            return _run(func, args, kwargs, fronts, dims, size, out_dims, randomness)
        state = get_rng_state() if randomness == "same" else None
        parts = []
        for begin in range(0, size, chunk_size):
            count = min(chunk_size, size - begin)
            part = [t if d is None else t.narrow(0, begin, count) for t, d in zip(fronts, dims, strict=True)]
            if state is not None:
                set_rng_state(state)
            parts.append(_run(func, args, kwargs, part, dims, count, out_dims, randomness))
        return _joined(parts, out_dims)

    return run


def _run(func: Callable[..., Any], args: Any, kwargs: Any, fronts: Sequence[Tensor], dims: Sequence[int | None], size: Size,
         out_dims: Any, randomness: str) -> Any:
    """One call; `fronts` are the tensors of `args`, with their entries along the first dimension."""
    mapped = {id(t): t for t, d in zip(fronts, dims, strict=True) if d is not None}  # one stand-in for each

    def once(stands: list[Tensor]) -> Any:
        one = dict(zip(mapped, stands, strict=True))
        left = iter([t if d is None else one[id(t)] for t, d in zip(fronts, dims, strict=True)])
        return func(*rebuild(args, lambda _: next(left)), **kwargs)

    histories = Histories(Batch(size, {}), randomness)
    result, whole = for_all(once, list(mapped.values()), histories)
    places = iter(_out_places(func, out_dims, result))

    def delivered(tensor: Tensor) -> Tensor:
        found, has = whole(tensor)
        place = next(places)
        if place is None:
            if has:
                raise ValueError(
                    f"vmap({_name(func)}, ...): `{_name(func)}` can not return a BatchedTensor when out_dim is "
                    "None: give the dimension where the result has its entries"
                )
            return found
        if not has:
            found = found.expand((size, *found._type.shape))
        return found if place == 0 else found.movedim(0, place)

    return rebuild(result, delivered)


def _joined(parts: Sequence[Any], out_dims: Any) -> Any:
    """The results of several chunks as one."""
    columns = iter(list(zip(*[tensors_in(p) for p in parts], strict=True)))
    places = iter([d for leaf, d in _spread(out_dims, parts[0]) or [] if isinstance(leaf, Tensor)])

    def joined(_: Tensor) -> Any:
        column, place = next(columns), next(places)
        return column[0] if place is None else FUNCTIONS["cat"](column, place)

    return rebuild(parts[0], joined)


# ------------------------------------------------------------------------------------------ in_dims, out_dims


def _parts(tree: Any) -> list[Any] | None:
    if isinstance(tree, dict):
        return list(tree.values())
    return list(tree) if isinstance(tree, (tuple, list)) else None


def _spread(dims: Any, tree: Any) -> list[tuple[Any, Any]] | None:
    """The leaves of `tree`, each with what `dims`, a nest that may end before, says of it; None where they do
    not fit."""
    inner = _parts(tree)
    if inner is None:
        return [(tree, dims)] if _parts(dims) is None else None
    if _parts(dims) is None:
        pairs = [_spread(dims, part) for part in inner]
    elif type(dims) is not type(tree) or len(dims) != len(tree):
        return None
    elif isinstance(tree, dict):
        pairs = [_spread(dims[k], part) if k in dims else None for k, part in tree.items()]
    else:
        pairs = [_spread(one, part) for one, part in zip(dims, inner, strict=True)]
    return None if any(p is None for p in pairs) else [leaf for p in pairs for leaf in p or ()]


def mapped_arguments(
    func: Callable[..., Any], in_dims: Any, args: tuple[Any, ...]
) -> tuple[list[Tensor], list[int | None], Size]:
    """The tensors in `args`, the mapped dimension of each, from the front, and the number of entries."""
    name = _name(func)
    where = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>):"
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"{where} expected `in_dims` to be int or a (potentially nested) tuple matching the structure of "
            f"inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap "
            "over a function with no inputs. The latter is unsupported."
        )
    pairs = _spread(in_dims, args)
    if pairs is None:
        raise ValueError(
            f"{where} in_dims is not compatible with the structure of `inputs`: give an int, None, or a tuple of "
            "these with the structure of the arguments"
        )
    dims = [_checked_dim(where, leaf, dim) for leaf, dim in pairs]
    tensors = [(leaf, d) for (leaf, _), d in zip(pairs, dims, strict=True) if isinstance(leaf, Tensor)]
    sizes = [t._type.shape[d] for t, d in tensors if d is not None]
    if not sizes:
        raise ValueError("vmap: Expected at least one Tensor to vmap over")
    if any(s != sizes[0] for s in sizes):
        raise ValueError(
            "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{sizes} for the mapped dimension"
        )
    return [t for t, _ in tensors], [d for _, d in tensors], sizes[0]


def _checked_dim(where: str, leaf: Any, dim: Any) -> int | None:
    if dim is None:
        return None
    if not isinstance(dim, int):
        raise ValueError(
            f"{where} Got in_dim={dim} for an input but in_dim must be either an integer dimension or None."
        )
    if not isinstance(leaf, Tensor):
        raise ValueError(
            f"{where} Got in_dim={dim} for an input but the input is of type {type(leaf)}. We cannot vmap over "
            "non-Tensor arguments, please use None as the respective in_dim"
        )
    if not -leaf.ndim <= dim < leaf.ndim:
        raise ValueError(
            f"{where} Got in_dim={dim} for some input, but that input is a Tensor of dimensionality {leaf.ndim} "
            f"so expected in_dim to satisfy -{leaf.ndim} <= in_dim < {leaf.ndim}."
        )
    return dim % leaf.ndim


def _check_out_dims(out_dims: Any, func: Callable[..., Any]) -> None:
    for dim, _ in _spread(0, out_dims) or []:
        if dim is not None and not isinstance(dim, int):
            raise ValueError(
                f"vmap({_name(func)}, ..., out_dims={out_dims}): `out_dims` must be an int, None or a python "
                "collection of ints representing where in the outputs the vmapped dimension should appear."
            )


def _out_places(func: Callable[..., Any], out_dims: Any, result: Any) -> list[Any]:
    """For each tensor of `result` where it is to have its entries."""
    if isinstance(result, Tensor) and isinstance(out_dims, tuple) and len(out_dims) == 1:
        out_dims = out_dims[0]
    pairs = _spread(out_dims, result)
    if pairs is None:
        raise ValueError(
            f"vmap({_name(func)}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the "
            "structure of `outputs`: give an int, None, or a nest of these with the structure of the result"
        )
    for leaf, dim in pairs:
        if dim is not None and not isinstance(leaf, Tensor):
            raise ValueError(
                f"vmap({_name(func)}, ...): `{_name(func)}` must only return Tensors, got type {type(leaf)}. "
                "Did you mean to set out_dims= to None for output?"
            )
    return [dim for leaf, dim in pairs if isinstance(leaf, Tensor)]


def _name(func: Any) -> str:
    if isinstance(func, functools.partial):
        return f"functools.partial({_name(func.func)}, ...)"
    return getattr(func, "__name__", None) or repr(func)


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """All entries of a tensor of a function that `vmap` is calling, for a look at them; other tensors as they
    are.

    Args:
        recurse: whether to go on through the `vmap` around it.
    """
    capture = recorder.capture
    if not isinstance(capture, Entry):
        return tensor
    found, _ = capture.all_entries(tensor)
    with capture.outside():
        return debug_unwrap(found) if recurse else found


FUNCTIONS["vmap"] = vmap
