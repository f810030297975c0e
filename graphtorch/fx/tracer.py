"""Symbolic tracing: run a program once with `Proxy` values and keep what it did as a `Graph`.

Modules that the tracer takes for leaves are called as a whole; the others are looked into. Nothing
is patched on classes: calls of modules are intercepted by `nn.modules._call`, functions by their
``__torch_function__``.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

from .._deferred.tensor import Tensor
from ..nn import Module, Parameter, Sequential
from ..nn.modules._call import interceptors
from .graph import Graph
from .graph_module import GraphModule
from .node import Argument, Node
from .proxy import Proxy, TracerBase

_wrapped: list[tuple[dict[str, Any], str]] = []  # (a module's names, the name of a function in it)


class PHBase:
    """Stands for an argument to trace, among `concrete_args`."""

    def __repr__(self) -> str:
        return "PH"


PH = PHBase()


def wrap(fn_or_name: Any) -> Any:
    """Leave a function of the calling module whole in traces: its name, or, as a decorator, the
    function.

    Raises:
        RuntimeError: neither a function nor a name.
    """
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError(
            "Unsupported type for global function! Must be either a callable or string name"
        )
    name = fn_or_name if isinstance(fn_or_name, str) else fn_or_name.__name__
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    if frame.f_back.f_code.co_name != "<module>":
        raise NotImplementedError("wrap must be called at the top level of a module")
    _wrapped.append((frame.f_back.f_globals, name))
    return fn_or_name


class Tracer(TracerBase):
    """Makes the graph of a module or function. Subclasses decide what is a leaf.

    Args:
        autowrap_modules: Python modules whose functions are called as a whole.
        autowrap_functions: further such functions.
        param_shapes_constant: accepted; sizes of parameters are known in any case.
    """

    def __init__(
        self,
        autowrap_modules: tuple[types.ModuleType, ...] = (math,),
        autowrap_functions: tuple[Callable[..., Any], ...] = (),
        param_shapes_constant: bool = False,
    ):
        self._autowrap_function_ids = {
            id(f)
            for m in autowrap_modules
            for n, f in vars(m).items()
            if not n.startswith("_") and callable(f)
        }
        self._autowrap_function_ids |= {id(f) for f in autowrap_functions}
        self._autowrap_search = list(autowrap_modules)
        self.param_shapes_constant = param_shapes_constant
        self.submodule_paths: dict[Module, str] | None = None
        self.root: Module = Module()

    # -- what subclasses decide --------------------------------------------------------------------

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        """Whether a module is called as a whole: those of the package are, but for `Sequential`."""
        ours = m.__module__.startswith(("graphtorch.nn", "torch.nn"))
        return ours and not isinstance(m, Sequential)

    def path_of_module(self, mod: Module) -> str:
        """The qualified name of a submodule. Raises NameError: it is not one of the root."""
        for module, name in (self.submodule_paths or {}).items():
            if module is mod:
                return name
        raise NameError("module is not installed as a submodule")

    def call_module(
        self, m: Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call of a module: a node, or what is in it."""
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name):
            return self.create_proxy("call_module", name, args, kwargs)
        return forward(*args, **kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """The value of a module's attribute."""
        return attr_val

    # -- arguments of nodes ------------------------------------------------------------------------

    def create_arg(self, a: Any) -> Argument:
        """Adds to the base class: tensors of the root become `get_attr`, others attributes made for
        them."""
        if isinstance(a, Tensor):
            return self._attribute(a)
        if isinstance(a, Module):
            return self.create_node("get_attr", self.path_of_module(a), (), {})
        return super().create_arg(a)

    def _attribute(self, tensor: Tensor) -> Node:
        named = (
            self.root.named_parameters()
            if isinstance(tensor, Parameter)
            else self.root.named_buffers()
        )
        found = next((name for name, own in named if own is tensor), None) or self._constants.get(
            id(tensor)
        )
        if found is None:
            number = 0
            while hasattr(self.root, f"_tensor_constant{number}"):
                number += 1
            found = self._constants[id(tensor)] = f"_tensor_constant{number}"
            setattr(self.root, found, tensor)
        return self.create_node("get_attr", found, (), {})

    # -- the trace ---------------------------------------------------------------------------------

    def create_args_for_root(
        self,
        root_fn: Callable[..., Any],
        is_module: bool,
        concrete_args: dict[str, Any] | None = None,
    ) -> tuple[Any, list[Any], dict[str, Any]]:
        """(the function, its positional arguments, its keyword arguments) with values of the
        trace."""
        args: list[Any] = [self.root] if is_module else []
        keywords: dict[str, Any] = {}
        given = concrete_args or {}
        parameters = list(inspect.signature(inspect.unwrap(root_fn)).parameters.values())[
            1 if is_module else 0 :
        ]
        for p in parameters:
            star = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
            if p.name in given and given[p.name] is not PH:
                value = given[p.name]
            elif star:
                self.create_proxy("placeholder", star + p.name, (), {})
                continue
            else:
                default = () if p.default is p.empty else (p.default,)
                value = self.create_proxy("placeholder", p.name, default, {})
            if p.kind is p.KEYWORD_ONLY:
                keywords[p.name] = value
            else:
                args.append(value)
        return root_fn, args, keywords

    def trace(
        self, root: Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None
    ) -> Graph:
        """The graph of a module's ``forward`` (or a function).

        Args:
            concrete_args: values of arguments that stay what they are.

        Raises:
            TraceError: the program needs a value in Python, as in an ``if`` on a tensor.
        """
        is_module = isinstance(root, Module)
        self.root = root if is_module else Module()  # type: ignore[assignment]
        function = getattr(type(root), self.traced_func_name) if is_module else root
        self.submodule_paths = (
            {m: name for name, m in self.root.named_modules()} if is_module else {}
        )
        self._constants: dict[int, str] = {}
        self.graph = Graph(tracer_cls=type(self))
        function, args, keywords = self.create_args_for_root(function, is_module, concrete_args)  # type: ignore
        with self._intercepting(function):
            result = function(*args, **keywords)
        self.create_node(
            "output",
            "output",
            (self.create_arg(result),),
            {},
            type_expr=getattr(function, "__annotations__", {}).get("return"),
        )
        self.submodule_paths = None
        return self.graph

    @contextlib.contextmanager
    def _intercepting(self, function: Callable[..., Any]) -> Iterator[None]:
        interceptors.append(lambda m, args, kwargs: self.call_module(m, m.forward, args, kwargs))
        places = [*_wrapped, *self._autowrapped(function)]
        before = [(names, name, names[name]) for names, name in places if name in names]
        builtin = [(names, name) for names, name in _wrapped if name not in names]
        try:
            for names, name, own in before:
                names[name] = _recording(own)
            for names, name in builtin:
                names[name] = _recording(names["__builtins__"][name])
            yield
        finally:
            for names, name, own in before:
                names[name] = own
            for names, name in builtin:
                names.pop(name, None)
            interceptors.pop()

    def _autowrapped(self, function: Callable[..., Any]) -> Iterator[tuple[dict[str, Any], str]]:
        spaces = [vars(m) for m in self._autowrap_search]
        spaces.append(getattr(inspect.unwrap(function), "__globals__", {}))
        spaces += [
            type(m).forward.__globals__
            for m in self.root.modules()
            if hasattr(type(m).forward, "__globals__")
        ]
        done: set[int] = set()
        for names in spaces:
            if id(names) not in done:
                done.add(id(names))
                yield from (
                    (names, n)
                    for n, f in list(names.items())
                    if id(f) in self._autowrap_function_ids
                )


def _recording(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a node of its own wherever a value of a trace is among its arguments."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        proxy = _first_proxy((args, kwargs))
        if proxy is None:
            return function(*args, **kwargs)
        return proxy.tracer.create_proxy("call_function", function, args, kwargs)

    return call


def _first_proxy(x: Any) -> Proxy | None:
    if isinstance(x, Proxy):
        return x
    if isinstance(x, slice):
        x = (x.start, x.stop, x.step)
    inside = x.values() if isinstance(x, dict) else x if isinstance(x, (tuple, list)) else ()
    return next((p for p in map(_first_proxy, inside) if p is not None), None)


def symbolic_trace(
    root: Module | Callable[..., Any], concrete_args: dict[str, Any] | None = None
) -> GraphModule:
    """`root` as a module whose code is the graph of one symbolic run; see `Tracer.trace`."""
    tracer = Tracer()
    graph = tracer.trace(root, concrete_args)
    name = type(root).__name__ if isinstance(root, Module) else root.__name__
    return GraphModule(tracer.root, graph, name)


def is_fx_tracing() -> bool:
    """Whether a symbolic trace is going on."""
    return bool(interceptors)


__all__ = ["PH", "Tracer", "is_fx_tracing", "symbolic_trace", "wrap"]
