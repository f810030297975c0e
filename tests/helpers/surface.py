"""Which rows of the table of the surface (tests/surface/surface.tsv) the behavioural checks
exercise.

The functions ``check_*`` in tests/surface/*.py call the library and assert what it answers. Their
source is compiled so that each call, attribute and operator they write is noted: the place it was
taken from (``torch.nn``, a tensor, an optimizer), its name, and the arguments that were given. A
row works when a check that passes has used its name, given its parameter, or given its mode.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import graphtorch

FOLDER = Path(__file__).parent.parent / "surface"
ROW = re.compile(r"(?P<base>[\w.]+)(?:\((?P<parameter>\w+)(?:=(?P<value>.+))?\))?$")
ABSENT = {  # rows that PyTorch 2.13 does not have either; checks assert the error
    "torch._six.string_classes": "PyTorch has no module torch._six any more",
    "torch.optim.Optimizer.params": "optimizers have no such attribute there: it is a key of each "
    "group",
}
SPELLED = {  # parameters whose name in PyTorch is another one than in the table
    "torch.zeros(sizes)": "size",
    "torch.ones(sizes)": "size",
    "torch.nn.init.dirac_(group)": "groups",
}
OPERATORS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "truediv",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.Mod: "mod",
    ast.Lt: "lt",
    ast.Eq: "eq",
}


@dataclass(frozen=True)
class Row:
    """One row: a name, a parameter of it (``name(parameter)``) or a mode
    (``name(parameter='x')``)."""

    name: str
    kind: str
    signature: str
    semantics: str

    @property
    def parts(self) -> tuple[str, str | None, str | None]:
        """(name, parameter, value)."""
        found = ROW.match(self.name)
        assert found, self.name
        parameter = SPELLED.get(self.name, found["parameter"])
        return found["base"], parameter, found["value"]


@functools.cache
def rows() -> tuple[Row, ...]:
    """The table."""
    _, *lines = (FOLDER / "surface.tsv").read_text(encoding="utf-8").splitlines()
    return tuple(Row(*line.split("\t")) for line in lines)


def resolve(name: str) -> Any:
    """The object of a dotted name that begins with ``torch``. Raises AttributeError."""
    found: Any = graphtorch
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


# -------------------------------------------------------------------------------------- noting uses


@functools.cache
def places() -> dict[int, list[str]]:
    """By identity, the names of the modules and classes whose attributes are rows."""
    found: dict[int, list[str]] = {}
    for row in rows():
        owner = row.parts[0] if row.kind in ("module", "class") else row.parts[0].rpartition(".")[0]
        while owner:
            try:
                names = found.setdefault(id(resolve(owner)), [])
            except AttributeError:
                break
            if owner not in names:
                names.append(owner)
            owner = owner.rpartition(".")[0]
    return found


class Notes:
    """What one check used: names, names with a parameter, and those with its value."""

    def __init__(self) -> None:
        self.used: set[tuple[str, str | None, str | None]] = set()

    def names(self, owner: Any, name: str) -> list[str]:
        """As which rows ``owner.name`` counts."""
        classes = owner.__mro__ if isinstance(owner, type) else (*type(owner).__mro__, owner)
        return [f"{place}.{name}" for one in classes for place in places().get(id(one), ())]

    def attribute(self, owner: Any, name: str) -> Any:
        value = getattr(owner, name)
        for full in self.names(owner, name):
            self.used.add((full, None, None))
        return value

    def call(self, owner: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
        function = getattr(owner, name)
        for full in self.names(owner, name):
            self.used.add((full, None, None))
            for parameter, value in given(function, args, kwargs).items():
                self.used.add((full, parameter, None))
                if isinstance(value, (str, bool)):
                    self.used.add((full, parameter, repr(value)))
        return function(*args, **kwargs)

    def operator(self, left: Any, right: Any, name: str) -> None:
        if isinstance(left, graphtorch.Tensor):
            self.used.add((f"torch.Tensor.__{name}__", None, None))
        elif isinstance(right, graphtorch.Tensor):
            self.used.add((f"torch.Tensor.__r{name}__", None, None))


def given(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters that took them."""
    found = dict(kwargs)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return found
    for i, value in enumerate(args):
        if i >= len(parameters):
            break
        found[parameters[i].name] = value
        if parameters[i].kind is inspect.Parameter.VAR_POSITIONAL:
            break
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters) and kwargs:
        found.update({p.name: None for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD})
    return found


class Noting(ast.NodeTransformer):
    """Makes the calls, attributes and operators of a check go through ``notes``."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Call) and getattr(function.func, "attr", "") == "attribute":
            owner, name = function.args  # what visit_Attribute made of it
            call = _notes("call", owner, name, *node.args)
            call.keywords = node.keywords
            return ast.copy_location(call, node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            return node
        return ast.copy_location(_notes("attribute", node.value, ast.Constant(node.attr)), node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return self._operator(node, node.left, node.right, OPERATORS.get(type(node.op)), node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return self._operator(
            node, node.left, node.comparators[0], OPERATORS.get(type(node.ops[0])), node
        )

    def _operator(
        self, node: ast.expr, left: ast.expr, right: ast.expr, name: str | None, result: ast.expr
    ) -> ast.AST:
        if name is None or not (_plain(left) and _plain(right)):
            return node
        note = _notes("operator", left, right, ast.Constant(name))
        return ast.copy_location(ast.BoolOp(ast.Or(), [note, result]), node)


def _plain(node: ast.expr) -> bool:
    """Whether evaluating the expression twice changes nothing."""
    return isinstance(node, (ast.Name, ast.Constant))


def _notes(method: str, *args: ast.expr) -> ast.Call:
    return ast.Call(
        ast.Attribute(ast.Name("notes", ast.Load()), method, ast.Load()), list(args), []
    )


# ----------------------------------------------------------------------------------- running checks


@dataclass
class Check:
    """One behavioural check and, after it ran, what it used and how it failed."""

    name: str
    function: Callable[[], None]
    notes: Notes
    declared: tuple[str, ...] = ()
    error: str = ""
    used: set[tuple[str, str | None, str | None]] = field(default_factory=set)

    def run(self) -> None:
        self.notes.used = set()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.function()
        except Exception:
            self.error = traceback.format_exc(limit=-6)
        self.used = self.notes.used | {(name, None, None) for name in self.declared}


@contextlib.contextmanager
def raises(kind: type[Exception]) -> Iterator[None]:
    """What is in the block raises this. (The page of the surface is made where there may be no
    pytest.)"""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")


def covers(*names: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Rows that a check exercises through syntax that names them nowhere, such as ``x[0] = 1``."""

    def mark(check: Callable[[], None]) -> Callable[[], None]:
        check.declared = names  # type: ignore[attr-defined]
        return check

    return mark


def load(path: Path) -> Iterator[Check]:
    """The checks of one file, compiled to take notes."""
    notes = Notes()
    tree = ast.fix_missing_locations(Noting().visit(ast.parse(path.read_text(encoding="utf-8"))))
    module = ModuleType(f"surface_{path.stem}")
    module.__dict__.update(notes=notes, __file__=str(path))
    sys.modules[module.__name__] = module  # pickles name classes by it
    exec(compile(tree, str(path), "exec"), module.__dict__)
    for name, function in list(module.__dict__.items()):
        if name.startswith("check_"):
            declared = getattr(function, "declared", ())
            yield Check(f"{path.stem}.{name.removeprefix('check_')}", function, notes, declared)


@functools.cache
def ran() -> tuple[Check, ...]:
    """All checks, each run once."""
    files = [path for path in sorted(FOLDER.glob("*.py")) if not path.name.startswith("test_")]
    checks = [check for path in files for check in load(path)]
    for check in checks:
        check.run()
    return tuple(checks)


def checks_of(row: Row) -> list[str]:
    """The names of the passing checks that exercise a row."""
    parts = row.parts
    if row.name in ABSENT:
        return [c.name for c in ran() if row.name in c.declared and not c.error]
    if row.kind == "module":
        return [
            c.name
            for c in ran()
            if not c.error and any(u[0].startswith(parts[0] + ".") for u in c.used)
        ]
    return [c.name for c in ran() if not c.error and parts in c.used]
