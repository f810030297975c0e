"""Nested containers as a list of leaves and a description: ``torch.utils._pytree``.

    leaves, spec = tree_flatten({"a": [1, 2]})      # [1, 2]
    tree_unflatten(leaves, spec)                    # {"a": [1, 2]}

Containers are those in `SUPPORTED_NODES` and named tuples; everything else is a leaf. PyTorch's
module is private, but the libraries around it are written against it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .._torch.dataclass import dataclass

Context = Any
PyTree = Any
KeyEntry = Any
KeyPath = tuple[Any, ...]
FlattenFunc = Callable[[Any], tuple[list[Any], Any]]
UnflattenFunc = Callable[[Iterable[Any], Any], Any]


# ------------------------------------------------------------------------------------------ keys


@dataclass(frozen=True)
class SequenceKey:
    """A place in a list or tuple."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"

    def get(self, sequence: Any) -> Any:
        return sequence[self.idx]


@dataclass(frozen=True)
class MappingKey:
    """A key of a dict."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"

    def get(self, mapping: Any) -> Any:
        return mapping[self.key]


@dataclass(frozen=True)
class GetAttrKey:
    """An attribute of an object or a field of a named tuple."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"

    def get(self, obj: Any) -> Any:
        return getattr(obj, self.name)


def keystr(kp: KeyPath) -> str:
    """A path as one would write it in Python: ``[0]['a'].b``."""
    return "".join([str(key) for key in kp])


def key_get(obj: Any, kp: KeyPath) -> Any:
    """What stands in `obj` at the path `kp`."""
    for key in kp:
        obj = key.get(obj)
    return obj


# ----------------------------------------------------------------------------------- kinds of nodes


class NodeDef(NamedTuple):
    """How containers of one type come apart and together."""

    type: type
    flatten_fn: FlattenFunc
    unflatten_fn: UnflattenFunc
    flatten_with_keys_fn: Callable[[Any], tuple[list[tuple[Any, Any]], Any]] | None


class _Serialized(NamedTuple):
    name: str
    to_dumpable: Callable[[Any], Any] | None
    from_dumpable: Callable[[Any], Any] | None


SUPPORTED_NODES: dict[type, NodeDef] = {}
BUILTIN_TYPES: frozenset[type] = frozenset({tuple, list, dict, OrderedDict, defaultdict, deque})
_names: dict[type, _Serialized] = {}


def register_pytree_node(
    cls: type,
    flatten_fn: FlattenFunc,
    unflatten_fn: UnflattenFunc,
    *,
    serialized_type_name: str | None = None,
    to_dumpable_context: Callable[[Any], Any] | None = None,
    from_dumpable_context: Callable[[Any], Any] | None = None,
    flatten_with_keys_fn: Any = None,
) -> None:
    """Make `cls` a container.

    Args:
        flatten_fn: gives the children and a context, all else that `unflatten_fn` needs.
        unflatten_fn: takes children and context.
        flatten_with_keys_fn: as `flatten_fn`, with (key, child) pairs.

    Raises:
        ValueError: `cls` is one already.
    """
    if cls in SUPPORTED_NODES:
        raise ValueError(f"{cls} is already registered as pytree node.")
    SUPPORTED_NODES[cls] = NodeDef(cls, flatten_fn, unflatten_fn, flatten_with_keys_fn)
    _names[cls] = _Serialized(
        serialized_type_name or f"{cls.__module__}.{cls.__qualname__}",
        to_dumpable_context,
        from_dumpable_context,
    )


_register_pytree_node = register_pytree_node


def _private_register_pytree_node(
    cls: type, flatten_fn: FlattenFunc, unflatten_fn: UnflattenFunc, **options: Any
) -> None:
    """As `register_pytree_node`, where `cls` may be one already."""
    if cls not in SUPPORTED_NODES:
        register_pytree_node(cls, flatten_fn, unflatten_fn, **options)


def register_dataclass(
    cls: type,
    *,
    field_names: list[str] | None = None,
    drop_field_names: Any = None,
    serialized_type_name: str | None = None,
) -> None:
    """Make a dataclass a container of its fields; those that are None are part of the context.

    Raises:
        ValueError: `field_names` is not what the class has.
    """
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    kept = (
        [n for n in names if n not in (drop_field_names or ())]
        if field_names is None
        else field_names
    )
    if unknown := set(kept) - set(names):
        raise ValueError(f"register_dataclass: {cls.__name__} has no init fields {sorted(unknown)}")

    def parts(obj: Any) -> tuple[list[str], list[str]]:
        absent = [n for n in kept if getattr(obj, n) is None]
        return [n for n in kept if n not in absent], absent

    def flatten(obj: Any) -> tuple[list[Any], Any]:
        present, absent = parts(obj)
        return [getattr(obj, n) for n in present], [present, absent]

    def with_keys(obj: Any) -> tuple[list[tuple[Any, Any]], Any]:
        values, context = flatten(obj)
        return [(GetAttrKey(n), v) for n, v in zip(context[0], values, strict=True)], context

    def unflatten(values: Iterable[Any], context: Any) -> Any:
        present, absent = context
        return cls(**dict(zip(present, values, strict=True)), **dict.fromkeys(absent))

    register_pytree_node(
        cls,
        flatten,
        unflatten,
        serialized_type_name=serialized_type_name,
        flatten_with_keys_fn=with_keys,
    )


class _Constant:
    """A container without children: the object itself is the context."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value)


def register_constant(cls: type) -> None:
    """Make instances of `cls` part of the description: they are no leaves."""
    register_pytree_node(
        cls,
        lambda x: ([], _Constant(x)),
        lambda _, context: context.value,
        flatten_with_keys_fn=lambda x: ([], _Constant(x)),
    )


def _sequence(kind: type) -> None:
    def flatten(items: Any) -> tuple[list[Any], Any]:
        return list(items), None

    def with_keys(items: Any) -> tuple[list[tuple[Any, Any]], Any]:
        return [(SequenceKey(i), v) for i, v in enumerate(items)], None

    register_pytree_node(
        kind,
        flatten,
        lambda items, context: kind(items),
        flatten_with_keys_fn=with_keys,
        serialized_type_name=f"builtins.{kind.__name__}",
    )


def _dict_flatten(d: dict[Any, Any]) -> tuple[list[Any], Context]:
    return list(d.values()), list(d.keys())


def _dict_unflatten(values: Iterable[Any], context: Context) -> dict[Any, Any]:
    return dict(zip(context, values, strict=True))


def _with_mapping_keys(
    flat: tuple[list[Any], Any], names: Any
) -> tuple[list[tuple[Any, Any]], Any]:
    return [(MappingKey(k), v) for k, v in zip(names, flat[0], strict=True)], flat[1]


def _dict_flatten_with_keys(d: dict[Any, Any]) -> tuple[list[tuple[Any, Any]], Context]:
    return _with_mapping_keys(_dict_flatten(d), d)


def _default_flatten(d: Any) -> tuple[list[Any], Context]:
    return list(d.values()), [d.default_factory, list(d.keys())]


def _default_unflatten(values: Iterable[Any], context: Context) -> Any:
    return defaultdict(context[0], zip(context[1], values, strict=True))


_sequence(tuple)
_sequence(list)
register_pytree_node(
    dict,
    _dict_flatten,
    _dict_unflatten,
    flatten_with_keys_fn=_dict_flatten_with_keys,
    serialized_type_name="builtins.dict",
)
register_pytree_node(
    OrderedDict,
    _dict_flatten,
    lambda values, context: OrderedDict(zip(context, values, strict=True)),
    flatten_with_keys_fn=_dict_flatten_with_keys,
    serialized_type_name="collections.OrderedDict",
)
register_pytree_node(
    defaultdict,
    _default_flatten,
    _default_unflatten,
    flatten_with_keys_fn=lambda d: _with_mapping_keys(_default_flatten(d), d),
    serialized_type_name="collections.defaultdict",
)
register_pytree_node(
    deque,
    lambda d: (list(d), d.maxlen),
    lambda values, context: deque(values, maxlen=context),
    flatten_with_keys_fn=lambda d: ([(SequenceKey(i), v) for i, v in enumerate(d)], d.maxlen),
    serialized_type_name="collections.deque",
)


def is_namedtuple_class(cls: Any) -> bool:
    """Whether `cls` was made by ``collections.namedtuple`` or ``typing.NamedTuple``."""
    fields = getattr(cls, "_fields", None)
    return isinstance(cls, type) and issubclass(cls, tuple) and isinstance(fields, tuple)


def is_namedtuple(obj: Any) -> bool:
    """Whether `obj` is a named tuple or a class of some."""
    return is_namedtuple_class(obj if isinstance(obj, type) else type(obj))


def _named_with_keys(t: Any) -> tuple[list[tuple[Any, Any]], Any]:
    return [(GetAttrKey(n), v) for n, v in zip(t._fields, t, strict=True)], type(t)


# stands for all classes of named tuples that are not registered themselves
_NAMED: Any = namedtuple
SUPPORTED_NODES[_NAMED] = NodeDef(
    _NAMED, lambda t: (list(t), type(t)), lambda values, context: context(*values), _named_with_keys
)


def _node_of(tree: Any) -> NodeDef | None:
    found = SUPPORTED_NODES.get(type(tree))
    return SUPPORTED_NODES[_NAMED] if found is None and is_namedtuple_class(type(tree)) else found


def _get_node_type(tree: Any) -> Any:
    found = _node_of(tree)
    return type(tree) if found is None else found.type


def tree_is_leaf(tree: PyTree, is_leaf: Callable[[PyTree], bool] | None = None) -> bool:
    """Whether `tree` is no container, or `is_leaf` says that it counts as a leaf."""
    return (is_leaf is not None and is_leaf(tree)) or _node_of(tree) is None


_is_leaf = tree_is_leaf


# ------------------------------------------------------------------------------------------ specs


class TreeSpec:
    """What of a tree is not its leaves: types, contexts, and the specs of the children."""

    __slots__ = ("_children", "_context", "num_leaves", "type")

    def __init__(self, type: Any, context: Context, children_specs: Iterable[TreeSpec] = ()):
        self.type, self._context, self._children = type, context, list(children_specs)
        self.num_leaves: int = 1 if type is None else sum(c.num_leaves for c in self._children)

    @property
    def context(self) -> Context:
        return self._context

    @property
    def children_specs(self) -> list[TreeSpec]:
        return self._children

    @property
    def num_nodes(self) -> int:
        return 1 + sum(c.num_nodes for c in self._children)

    @property
    def num_children(self) -> int:
        return len(self._children)

    def is_leaf(self) -> bool:
        """Whether this describes a single leaf."""
        return self.type is None

    def children(self) -> list[TreeSpec]:
        """The specs of the children."""
        return list(self._children)

    def child(self, index: int) -> TreeSpec:
        """The spec of one child."""
        return self._children[index]

    def unflatten(self, leaves: Iterable[Any]) -> PyTree:
        """The tree with these leaves; see `tree_unflatten`."""
        return tree_unflatten(leaves, self)

    def flatten_up_to(self, tree: PyTree) -> list[PyTree]:
        """The parts of `tree` that stand where this spec has leaves."""
        if self.is_leaf():
            return [tree]
        node = _node_of(tree)
        if node is None or node.type is not self.type:
            raise ValueError(f"Type mismatch; expected {self.type!r}, but got {type(tree)!r}.")
        children, context = node.flatten_fn(tree)
        if isinstance(tree, dict) and set(tree) == set(self._keys()):
            children = [tree[k] for k in self._keys()]  # the order of keys does not matter
        elif context != self._context or len(children) != len(self._children):
            raise ValueError(
                f"Node context mismatch; expected {self._context!r}, but got {context!r}."
            )
        return [
            leaf
            for spec, child in zip(self._children, children, strict=True)
            for leaf in spec.flatten_up_to(child)
        ]

    def _keys(self) -> Any:
        return self._context[1] if self.type is defaultdict else self._context

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and (self.type, self._context, self._children) == (
            other.type,
            other._context,
            other._children,
        )

    def __hash__(self) -> int:
        return hash((self.type, self.num_leaves, len(self._children)))

    def __repr__(self) -> str:
        if self.is_leaf():
            return "*"
        return f"TreeSpec({self.type.__name__}, {self._context}, {self._children})"


def LeafSpec() -> TreeSpec:
    """The spec of a single leaf."""
    return _LEAF


_LEAF = TreeSpec(None, None)
treespec_leaf = LeafSpec


# ---------------------------------------------------------------------------------- apart, together


def _walk(tree: PyTree, leaves: list[Any], is_leaf: Any) -> TreeSpec:
    if tree_is_leaf(tree, is_leaf):
        leaves.append(tree)
        return _LEAF
    node = _node_of(tree)
    assert node is not None
    children, context = node.flatten_fn(tree)
    return TreeSpec(node.type, context, [_walk(c, leaves, is_leaf) for c in children])


def tree_flatten(
    tree: PyTree, is_leaf: Callable[[PyTree], bool] | None = None
) -> tuple[list[Any], TreeSpec]:
    """The leaves of `tree` in order, and what else it is."""
    leaves: list[Any] = []
    spec = _walk(tree, leaves, is_leaf)
    return leaves, spec


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """The tree that `treespec` describes, with `leaves`.

    Raises:
        TypeError: `treespec` is no TreeSpec. ValueError: another number of leaves.
    """
    if not isinstance(treespec, TreeSpec):
        raise TypeError(
            "tree_unflatten(leaves, treespec): Expected `treespec` to be instance of TreeSpec but "
            f"got item of type {type(treespec)}."
        )
    leaves = list(leaves)
    if len(leaves) != treespec.num_leaves:
        raise ValueError(
            f"tree_unflatten(leaves, treespec): `leaves` has length {len(leaves)} but the spec "
            f"refers to a pytree that holds {treespec.num_leaves} items ({treespec})."
        )
    return _build(iter(leaves), treespec)


def _build(leaves: Any, spec: TreeSpec) -> PyTree:
    if spec.is_leaf():
        return next(leaves)
    return SUPPORTED_NODES[spec.type].unflatten_fn(
        [_build(leaves, c) for c in spec._children], spec._context
    )


def tree_iter(tree: PyTree, is_leaf: Callable[[PyTree], bool] | None = None) -> Iterable[Any]:
    """The leaves, one after the other."""
    return iter(tree_flatten(tree, is_leaf)[0])


def tree_leaves(tree: PyTree, is_leaf: Callable[[PyTree], bool] | None = None) -> list[Any]:
    """The leaves."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: PyTree, is_leaf: Callable[[PyTree], bool] | None = None) -> TreeSpec:
    """What is not the leaves."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(
    func: Callable[..., Any],
    tree: PyTree,
    *rests: PyTree,
    is_leaf: Callable[[PyTree], bool] | None = None,
) -> PyTree:
    """The tree with ``func(leaf, *other)`` in the place of each leaf; `rests` have the same
    structure."""
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [spec.flatten_up_to(r) for r in rests]
    return spec.unflatten([func(*x) for x in zip(leaves, *others, strict=True)])


def tree_map_(
    func: Callable[..., Any],
    tree: PyTree,
    *rests: PyTree,
    is_leaf: Callable[[PyTree], bool] | None = None,
) -> PyTree:
    """Call `func` for each leaf; `tree` itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def _selects(kinds: Any) -> Callable[[Any], bool]:
    if isinstance(kinds, (type, tuple)) or hasattr(kinds, "__instancecheck__"):
        return lambda x: isinstance(x, kinds)
    return kinds  # type: ignore[no-any-return]


def map_only(type_or_types_or_pred: Any, /) -> Callable[[Any], Any]:
    """A decorator of functions of leaves: other leaves stay what they are."""
    selected = _selects(type_or_types_or_pred)

    def decorate(func: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(func)
        def inside(x: Any) -> Any:
            return func(x) if selected(x) else x

        return inside

    return decorate


def tree_map_only(
    type_or_types_or_pred: Any,
    /,
    func: Callable[..., Any],
    tree: PyTree,
    is_leaf: Callable[[PyTree], bool] | None = None,
) -> PyTree:
    """As `tree_map`, for leaves of some types (or for which a function says True)."""
    return tree_map(map_only(type_or_types_or_pred)(func), tree, is_leaf=is_leaf)


def tree_map_only_(
    type_or_types_or_pred: Any,
    /,
    func: Callable[..., Any],
    tree: PyTree,
    is_leaf: Callable[[PyTree], bool] | None = None,
) -> PyTree:
    """As `tree_map_`, for leaves of some types (or for which a function says True)."""
    return tree_map_(map_only(type_or_types_or_pred)(func), tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: PyTree, is_leaf: Any = None) -> bool:
    """Whether `pred` holds for all leaves."""
    return all(map(pred, tree_leaves(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree, is_leaf: Any = None) -> bool:
    """Whether `pred` holds for a leaf."""
    return any(map(pred, tree_leaves(tree, is_leaf)))


def tree_all_only(
    type_or_types: Any, /, pred: Callable[[Any], bool], tree: PyTree, is_leaf: Any = None
) -> bool:
    """Whether `pred` holds for all leaves of some types."""
    return all(pred(x) for x in tree_leaves(tree, is_leaf) if isinstance(x, type_or_types))


def tree_any_only(
    type_or_types: Any, /, pred: Callable[[Any], bool], tree: PyTree, is_leaf: Any = None
) -> bool:
    """Whether `pred` holds for a leaf of some types."""
    return any(pred(x) for x in tree_leaves(tree, is_leaf) if isinstance(x, type_or_types))


def _broadcast_to_and_flatten(
    tree: PyTree, treespec: TreeSpec, is_leaf: Any = None
) -> list[Any] | None:
    """A value for each leaf of `treespec`, from a tree that may end early: one value for all below.
    Else None."""
    if tree_is_leaf(tree, is_leaf):
        return [tree] * treespec.num_leaves
    node = _node_of(tree)
    assert node is not None
    if node.type is not treespec.type:
        return None
    children, context = node.flatten_fn(tree)
    if len(children) != treespec.num_children or context != treespec.context:
        return None
    parts = [
        _broadcast_to_and_flatten(c, s, is_leaf)
        for c, s in zip(children, treespec.children_specs, strict=True)
    ]
    return None if any(p is None for p in parts) else [x for p in parts for x in p or ()]


# --------------------------------------------------------------------------------------- with paths


def _paths(path: KeyPath, tree: PyTree, is_leaf: Any) -> Iterable[tuple[KeyPath, Any]]:
    node = _node_of(tree)
    if node is None or (is_leaf is not None and is_leaf(tree)):
        yield path, tree
        return
    if node.flatten_with_keys_fn is None:
        raise ValueError(
            f"Did not find a flatten_with_keys_fn for type: {node.type}. Please pass a "
            "flatten_with_keys_fn argument to register_pytree_node."
        )
    for key, child in node.flatten_with_keys_fn(tree)[0]:
        yield from _paths((*path, key), child, is_leaf)


def tree_leaves_with_path(tree: PyTree, is_leaf: Any = None) -> list[tuple[KeyPath, Any]]:
    """The leaves, each with its path."""
    return list(_paths((), tree, is_leaf))


def tree_flatten_with_path(
    tree: PyTree, is_leaf: Any = None
) -> tuple[list[tuple[KeyPath, Any]], TreeSpec]:
    """As `tree_flatten`, each leaf with its path."""
    return tree_leaves_with_path(tree, is_leaf), tree_structure(tree, is_leaf)


def tree_map_with_path(
    func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Any = None
) -> PyTree:
    """As `tree_map`; `func` gets the path first."""
    found, spec = tree_flatten_with_path(tree, is_leaf)
    others = [spec.flatten_up_to(r) for r in rests]
    return spec.unflatten([func(*pair, *more) for pair, *more in zip(found, *others, strict=True)])


# ------------------------------------------------------------------------------------------ text


def _dumpable(spec: TreeSpec) -> Any:
    if spec.is_leaf():
        return {"type": None, "context": None, "children_spec": []}
    if spec.type not in _names:
        raise NotImplementedError(f"Serializing {spec.type} in pytree is not registered.")
    name, to_dumpable, _ = _names[spec.type]
    context = json.dumps(spec.context) if to_dumpable is None else to_dumpable(spec.context)
    return {
        "type": name,
        "context": context,
        "children_spec": [_dumpable(c) for c in spec.children_specs],
    }


def treespec_dumps(treespec: TreeSpec, protocol: int | None = None) -> str:
    """The spec as JSON.

    Raises:
        NotImplementedError: an unknown protocol, or named tuples, whose classes a text cannot hold.
    """
    if protocol not in (None, 1):
        raise NotImplementedError(f"Unknown protocol {protocol}. Available protocols: [1]")
    return json.dumps((1, _dumpable(treespec)))


def _loaded(data: dict[str, Any]) -> TreeSpec:
    if data["type"] is None:
        return _LEAF
    kind = next((t for t, s in _names.items() if s.name == data["type"]), None)
    if kind is None:
        raise NotImplementedError(f"Deserializing {data['type']} in pytree is not registered.")
    load = _names[kind].from_dumpable or json.loads
    return TreeSpec(kind, load(data["context"]), [_loaded(c) for c in data["children_spec"]])


def treespec_loads(serialized: str) -> TreeSpec:
    """The spec that `treespec_dumps` wrote."""
    protocol, data = json.loads(serialized)
    if protocol != 1:
        raise NotImplementedError(f"Unknown protocol {protocol}. Available protocols: [1]")
    return _loaded(data)


def treespec_pprint(treespec: TreeSpec) -> str:
    """The tree with ``*`` for each leaf."""
    return repr(tree_unflatten([_Star()] * treespec.num_leaves, treespec))


class _Star:
    def __repr__(self) -> str:
        return "*"
