"""A step of an `fx` graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Target = Callable[..., Any] | str
Argument = Any
OPS = ("placeholder", "get_attr", "call_function", "call_method", "call_module", "output", "root")


def map_aggregate(a: Argument, fn: Callable[[Any], Any]) -> Argument:
    """`a` with ``fn(x)`` in the place of everything in its tuples, lists, dicts and slices."""
    if isinstance(a, (tuple, list)):
        parts = [map_aggregate(x, fn) for x in a]
        return type(a)(*parts) if hasattr(a, "_fields") else type(a)(parts)
    if isinstance(a, dict):
        return type(a)((k, map_aggregate(v, fn)) for k, v in a.items())
    if isinstance(a, slice):
        return slice(*(map_aggregate(x, fn) for x in (a.start, a.stop, a.step)))
    return fn(a)


def map_arg(a: Argument, fn: Callable[[Node], Any]) -> Argument:
    """As `map_aggregate`, for nodes alone."""
    if not callable(fn):
        raise AssertionError("torch.fx.map_arg(a, fn): fn must be a callable")
    return map_aggregate(a, lambda x: fn(x) if isinstance(x, Node) else x)


class Node:
    """One step: what is done (`op` and `target`) with what.

    Attributes:
        op: "placeholder", "get_attr", "call_function", "call_method", "call_module" or "output".
        target: the function, the method's name, or the qualified name of a module or attribute.
        users: the nodes that read this one.
        meta: whatever passes note about it.
    """

    def __init__(
        self,
        graph: Any,
        name: str,
        op: str,
        target: Target,
        args: tuple[Argument, ...],
        kwargs: dict[str, Argument],
        return_type: Any = None,
    ):
        if op not in OPS:
            raise AssertionError(f"fx.Node: unknown op {op!r}; expected one of {', '.join(OPS)}")
        self.graph, self.name, self.op, self.target, self.type = (
            graph,
            name,
            op,
            target,
            return_type,
        )
        self.users: dict[Node, None] = {}
        self.meta: dict[str, Any] = {}
        self._args: tuple[Argument, ...] = ()
        self._kwargs: dict[str, Argument] = {}
        self._input_nodes: dict[Node, None] = {}
        self._erased = False
        self._update(args, kwargs)

    def _update(self, args: Any, kwargs: Any) -> None:
        for read in self._input_nodes:
            read.users.pop(self, None)
        self._args, self._kwargs, self._input_nodes = tuple(args), dict(kwargs), {}
        map_arg((self._args, self._kwargs), lambda n: self._input_nodes.setdefault(n))
        for read in self._input_nodes:
            read.users.setdefault(self)

    @property
    def args(self) -> tuple[Argument, ...]:
        return self._args

    @args.setter
    def args(self, args: tuple[Argument, ...]) -> None:
        self._update(args, self._kwargs)

    @property
    def kwargs(self) -> dict[str, Argument]:
        return self._kwargs

    @kwargs.setter
    def kwargs(self, kwargs: dict[str, Argument]) -> None:
        self._update(self._args, kwargs)

    @property
    def all_input_nodes(self) -> list[Node]:
        """The nodes this one reads, each once."""
        return list(self._input_nodes)

    @property
    def next(self) -> Node:
        return self.graph._beside(self, 1)  # type: ignore[no-any-return]

    @property
    def prev(self) -> Node:
        return self.graph._beside(self, -1)  # type: ignore[no-any-return]

    def update_arg(self, idx: int, arg: Argument) -> None:
        """Replace one positional argument."""
        self.args = (*self._args[:idx], arg, *self._args[idx + 1 :])

    def update_kwarg(self, key: str, arg: Argument) -> None:
        """Replace one keyword argument."""
        self.kwargs = {**self._kwargs, key: arg}

    def insert_arg(self, idx: int, arg: Argument) -> None:
        """A further positional argument, before the one at `idx`."""
        self.args = (*self._args[:idx], arg, *self._args[idx:])

    def replace_input_with(self, old_input: Node, new_input: Node) -> None:
        """Read `new_input` wherever `old_input` was read."""
        self._update(
            *map_arg((self._args, self._kwargs), lambda n: new_input if n is old_input else n)
        )

    def replace_all_uses_with(
        self,
        replace_with: Node,
        delete_user_cb: Callable[[Node], bool] = lambda user: True,
        *,
        propagate_meta: bool = False,
    ) -> list[Node]:
        """Make the readers of this node read another one; those that were changed."""
        if propagate_meta:
            replace_with.meta.update(self.meta)
        changed = [user for user in self.users if delete_user_cb(user)]
        for user in changed:
            user.replace_input_with(self, replace_with)
        return changed

    def prepend(self, x: Node) -> None:
        """Move `x` to just before this node."""
        self.graph._move(x, self, 0)

    def append(self, x: Node) -> None:
        """Move `x` to just after this node."""
        self.graph._move(x, self, 1)

    def is_impure(self, impure_random: bool = True) -> bool:
        """Whether the node must stay even where nobody reads it."""
        if self.op == "call_function":
            return getattr(self.target, "__name__", "").startswith(("_assert", "_check"))
        return self.op in ("placeholder", "output")

    def _pretty_print_target(self, target: Any) -> str:
        return target if isinstance(target, str) else getattr(target, "__name__", repr(target))

    def format_node(
        self, placeholder_names: Any = None, maybe_return_typename: Any = None, **options: Any
    ) -> str:
        """The node in a line: ``%relu : [num_users=1] = call_function[target=relu](args = (%x,),
        kwargs = {})``."""
        if self.op == "placeholder":
            return (
                f"%{self.name} : [num_users={len(self.users)}] = placeholder[target={self.target}]"
            )
        if self.op == "output":
            return f"return {self.args[0]}"
        target = self._pretty_print_target(self.target)
        given = map_arg((self._args, self._kwargs), lambda n: _Shown("%" + n.name))
        return (
            f"%{self.name} : [num_users={len(self.users)}] = {self.op}[target={target}]"
            f"(args = {given[0]}, kwargs = {given[1]})"
        )

    def __repr__(self) -> str:
        return self.name


class _Shown(str):
    def __repr__(self) -> str:
        return str(self)
