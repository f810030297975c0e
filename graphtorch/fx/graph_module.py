"""A module whose ``forward`` is the code of a graph."""

from __future__ import annotations

import copy
import linecache
from typing import Any

from ..nn import Module
from .graph import Graph, PythonCode

_USER_PRESERVED_ATTRIBUTES_KEY = "_user_preserved_attributes"
_count = [0]


class _CodeOnlyModule(Module):
    """A module with the attributes that unpickling gives it."""

    def __init__(self, body: dict[str, Any]):
        super().__init__()
        self.__dict__.update(body)


def _copy_attr(from_module: Module, to_module: Module, target: str) -> None:
    """Give `to_module` what `from_module` has at a dotted name, with empty modules on the way."""
    *prefix, last = target.split(".")
    for part in prefix:
        inner = getattr(from_module, part)
        if inner is getattr(to_module, part, None):
            return
        if not hasattr(to_module, part):
            setattr(to_module, part, Module())
        from_module, to_module = inner, getattr(to_module, part)
    found = getattr(from_module, last)
    is_buffer = last in getattr(from_module, "_buffers", {})
    to_module.register_buffer(last, found) if is_buffer else setattr(to_module, last, found)


def _compiled(code: PythonCode) -> Any:
    """The function that the source defines; tracebacks show its lines."""
    _count[0] += 1
    name = f"<graphtorch.fx generated {_count[0]}>"
    linecache.cache[name] = (len(code.src), None, code.src.splitlines(True), name)
    names = dict(code.globals)
    exec(compile(code.src, name, "exec"), names)
    return names["forward"]


class GraphModule(Module):
    """A module made of a graph. It holds what of `root`, a module or a dict by qualified name, the
    graph uses.

    Each instance has a class of its own, whose ``forward`` is the graph's Python code (`code`).
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> GraphModule:
        base = next(c for c in cls.__mro__ if "_own_class" not in vars(c))
        return super().__new__(
            type(base.__name__, (base,), {"_own_class": True, "__module__": base.__module__})
        )

    def __init__(
        self, root: Module | dict[str, Any], graph: Graph, class_name: str = "GraphModule"
    ):
        super().__init__()
        type(self).__name__ = class_name
        if isinstance(root, Module):
            self.training = root.training
            for node in graph.nodes:
                if node.op in ("get_attr", "call_module"):
                    _copy_attr(root, self, str(node.target))
        else:
            for target in sorted(
                {str(n.target) for n in graph.nodes if n.op in ("get_attr", "call_module")}
            ):
                if target not in root:
                    raise RuntimeError(
                        f"Node referenced target {target} but that target was not provided in root!"
                    )
                self.add_submodule(target, root[target])
        self.graph = graph

    @property
    def graph(self) -> Graph:
        """The graph; assigning another one recompiles."""
        return self.__dict__["_graph"]  # type: ignore[no-any-return]

    @graph.setter
    def graph(self, g: Graph) -> None:
        self.__dict__["_graph"] = g
        g.owning_module = self
        self.recompile()

    def recompile(self) -> PythonCode:
        """Make the code that of the graph as it is now."""
        code = self.graph.python_code("self")
        self.__dict__["_code"] = code.src
        type(self).forward = _compiled(code)  # type: ignore[method-assign]
        return code

    @property
    def code(self) -> str:
        """The Python code."""
        return self.__dict__["_code"]  # type: ignore[no-any-return]

    def print_readable(self, print_output: bool = True, **options: Any) -> str:
        """The code, which is also printed."""
        text = f"class {type(self).__name__}(torch.nn.Module):\n" + "".join(
            f"    {line}\n" for line in self.code.splitlines()
        )
        if print_output:
            print(text)
        return text

    def add_submodule(self, target: str, m: Any) -> bool:
        """Put a module at a dotted name; whether that was possible."""
        *prefix, last = target.split(".")
        place: Any = self
        for part in prefix:
            if not hasattr(place, part):
                setattr(place, part, Module())
            place = getattr(place, part)
            if not isinstance(place, Module):
                return False
        setattr(place, last, m)
        return True

    def delete_submodule(self, target: str) -> bool:
        """Take the module at a dotted name away; whether there was one."""
        *prefix, last = target.split(".")
        place: Any = self
        for part in prefix:
            place = getattr(place, part, None)
        if not isinstance(getattr(place, last, None), Module):
            return False
        delattr(place, last)
        return True

    def delete_all_unused_submodules(self) -> None:
        """Take away the modules that the graph does not call."""
        used = {str(n.target) for n in self.graph.nodes if n.op in ("call_module", "get_attr")}
        kept = {".".join(u.split(".")[: i + 1]) for u in used for i in range(u.count(".") + 1)}
        for name, _ in list(self.named_modules()):
            if name and name not in kept and not any(name.startswith(u + ".") for u in used):
                self.delete_submodule(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphModule:
        inside = Module()
        inside.__dict__.update(
            copy.deepcopy(
                {k: v for k, v in self.__dict__.items() if k not in ("_graph", "_code")}, memo
            )
        )
        base: Any = next(c for c in type(self).__mro__ if "_own_class" not in vars(c))
        made = base.__new__(base)
        Module.__init__(made)
        type(made).__name__ = type(self).__name__
        made.__dict__.update(inside.__dict__)
        made.graph = copy.deepcopy(self.graph)
        return made

    def __str__(self) -> str:
        return f"{super().__str__()}\n\n\n\n{self.code}"


__all__ = ["GraphModule"]
