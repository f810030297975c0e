"""Values of a symbolic trace: what is done with them becomes nodes."""

from __future__ import annotations

import dis
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any

from .._deferred.tensor import Tensor
from .._ops.overriding import overriding
from .graph import Graph
from .node import Argument, Node, Target


class TraceError(ValueError):
    """A trace needs a value that is known only when the program runs."""


class TracerBase:
    """Records nodes into its `graph`."""

    graph: Graph
    record_stack_traces = False
    traced_func_name = "forward"
    trace_asserts = False
    proxy_buffer_attributes = False

    def create_node(
        self,
        kind: str,
        target: Target,
        args: tuple[Argument, ...],
        kwargs: dict[str, Argument],
        name: str | None = None,
        type_expr: Any = None,
    ) -> Node:
        """A new node in the graph."""
        return self.graph.create_node(kind, target, args, kwargs, name, type_expr)

    def proxy(self, node: Node) -> Proxy:
        """The value of a node."""
        return Proxy(node, self)

    def create_proxy(
        self,
        kind: str,
        target: Target,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        """A new node for a call with values of this trace, and its value."""
        node = self.create_node(
            kind, target, self.create_arg(args), self.create_arg(kwargs), name, type_expr
        )
        return self.proxy(node) if proxy_factory_fn is None else proxy_factory_fn(node)

    def create_arg(self, a: Any) -> Argument:
        """What a node holds for an argument: nodes for values of the trace, the rest as it is."""
        if isinstance(a, Proxy):
            return a.node
        if isinstance(a, (tuple, list)):
            parts = [self.create_arg(x) for x in a]
            return type(a)(*parts) if hasattr(a, "_fields") else type(a)(parts)
        if isinstance(a, dict):
            return type(a)((k, self.create_arg(v)) for k, v in a.items())
        if isinstance(a, slice):
            return slice(*(self.create_arg(x) for x in (a.start, a.stop, a.step)))
        return a

    def to_bool(self, obj: Proxy) -> bool:
        """The truth of a value. Raises TraceError: it is not known."""
        raise TraceError("symbolically traced variables cannot be used as inputs to control flow")

    def iter(self, obj: Proxy) -> Iterator[Any]:
        """The parts of a value where it is unpacked, as in ``a, b = x.shape``.

        Raises:
            TraceError: anywhere else, where their number is not known.
        """
        frame = inspect.currentframe()
        while frame is not None and frame.f_globals is globals():
            frame = frame.f_back
        if frame is not None:
            at = next(i for i in dis.get_instructions(frame.f_code) if i.offset == frame.f_lasti)
            if at.opname == "UNPACK_SEQUENCE":
                return (obj[i] for i in range(at.argval))
        raise TraceError(
            "Proxy object cannot be iterated. This can be attempted when the Proxy is used in a "
            "loop or as a *args or **kwargs function argument. Index it, or mark the function that "
            "iterates with torch.fx.wrap"
        )

    def keys(self, obj: Proxy) -> Any:
        """The keys of a value that is a dict, as a value."""
        return Attribute(obj, "keys")()


class GraphAppendingTracer(TracerBase):
    """Appends to a graph that is there."""

    def __init__(self, graph: Graph):
        self.graph = graph


def _binary(function: Callable[..., Any], swapped: bool = False) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        pair = (other, self) if swapped else (self, other)
        return self.tracer.create_proxy("call_function", function, pair, {})

    return method


class _Operators:
    """Python's binary operators, in both orders."""

    for _name in (
        "add",
        "sub",
        "mul",
        "truediv",
        "floordiv",
        "mod",
        "pow",
        "matmul",
        "and",
        "or",
        "xor",
        "lshift",
        "rshift",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
    ):
        _function = getattr(operator, f"__{_name}__")
        locals()[f"__{_name}__"] = _binary(_function)
        if _name not in ("eq", "ne", "lt", "le", "gt", "ge"):
            locals()[f"__r{_name}__"] = _binary(_function, swapped=True)
    del _name, _function


class Proxy(_Operators):
    """The value of a node while a program is traced."""

    def __init__(self, node: Node, tracer: TracerBase | None = None):
        self.tracer = GraphAppendingTracer(node.graph) if tracer is None else tracer
        self.node = node

    def __repr__(self) -> str:
        return f"Proxy({self.node.name})"

    def __getattr__(self, k: str) -> Any:
        if k.startswith("__") and k.endswith("__"):
            raise AttributeError(f"'Proxy' object has no attribute {k!r}")
        return Attribute(self, k)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", "__call__", (self, *args), kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self.tracer.create_proxy("call_function", operator.getitem, (self, key), {})

    def __iter__(self) -> Iterator[Any]:
        return self.tracer.iter(self)

    def __bool__(self) -> bool:
        return self.tracer.to_bool(self)

    def __len__(self) -> int:
        raise RuntimeError(
            "'len' is not supported in symbolic tracing by default. If you want this call to be "
            "recorded, please call torch.fx.wrap('len') at module scope"
        )

    def __int__(self) -> int:
        raise TraceError(
            "int() of a symbolically traced value: it is known only when the program runs"
        )

    __float__: Any = __int__
    __index__ = __int__

    def __contains__(self, other: Any) -> bool:
        raise TraceError(
            "'in' with a symbolically traced value: it is known only when the program runs"
        )

    def __neg__(self) -> Any:
        return self.tracer.create_proxy("call_function", operator.neg, (self,), {})

    def __invert__(self) -> Any:
        return self.tracer.create_proxy("call_function", operator.invert, (self,), {})

    def __abs__(self) -> Any:
        return self.tracer.create_proxy("call_function", operator.abs, (self,), {})

    def keys(self) -> Any:
        """The keys, of a value that is a dict."""
        return self.tracer.keys(self)

    def __hash__(self) -> int:
        return id(self)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        tracer = _tracer_of((*args, *(kwargs or {}).values()))
        name = getattr(func, "__name__", "")
        if getattr(Tensor, name, None) is func:
            return tracer.create_proxy("call_method", name, tuple(args), kwargs or {})
        return tracer.create_proxy("call_function", func, tuple(args), kwargs or {})


class Attribute(Proxy):
    """An attribute of a value: a method once it is called, else a node of its own."""

    def __init__(self, root: Proxy, attr: str):
        self.root, self.attr, self.tracer = root, attr, root.tracer
        self._node: Node | None = None

    @property
    def node(self) -> Node:  # type: ignore[override]
        if self._node is None:
            self._node = self.tracer.create_proxy(
                "call_function", getattr, (self.root, self.attr), {}
            ).node
        return self._node

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.create_proxy("call_method", self.attr, (self.root, *args), kwargs)


def _tracer_of(values: Any) -> TracerBase:
    for x in values:
        if isinstance(x, Proxy):
            return x.tracer
        if isinstance(x, (tuple, list)):
            try:
                return _tracer_of(x)
            except LookupError:
                continue
    raise LookupError("no value of a trace among the arguments")


overriding.append(Proxy)
