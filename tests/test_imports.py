"""Imports point one way, graphtorch -> backends -> ir, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from graphtorch._torch.install import PACKAGE, RENAMED

ROOT = Path(__file__).parent.parent
PACKAGES = {"graphtorch": 2, "graphtorch.backends": 1, "graphtorch.ir": 0}  # by height
FOLDERS = {"graphtorch": "graphtorch", "graphtorch.backends": "backends", "graphtorch.ir": "ir"}


def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


MODULES = modules()
Statements = Callable[[ast.AST], Iterator["ast.Import | ast.ImportFrom"]]
# Files that are one thing in parts, and so name each other's types: a node is an op applied to
# values, and prints itself; a judge decides of sizes, which ask it.
PARTS = [
    {"graphtorch.ir.graph", "graphtorch.ir.op", "graphtorch.ir.printer"},
    {"graphtorch.ir.judge", "graphtorch.ir.shape"},
]
# What a room of the backends may not know.
UNKNOWN = {"kernels": {"cpu", "gpu", "llvm"}, "cpu": {"gpu", "llvm"}, "llvm": {"gpu"}}
ROOMS = "graphtorch.backends."


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def package_of(module: str) -> str:
    return next(p for p in reversed(PACKAGES) if module == p or module.startswith(p + "."))


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and name_of(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def name_of(node: ast.expr) -> str:
    """As written, "" for what is more than names and dots (`ast.unparse` takes most of the time of
    these tests)."""
    if isinstance(node, ast.Attribute) and (base := name_of(node.value)):
        return f"{base}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def import_statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run, at any depth."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.stmt) and is_type_checking(node):
            assert isinstance(node, ast.If)
            yield from (i for s in node.orelse for i in import_statements(s))
        else:
            yield from import_statements(node)


def targets(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules of ours that an import statement runs."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = node.module or ""
        if node.level:
            package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
        names = [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]
    yield from (n for n in names if n in MODULES)


def every_import(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Those for annotations and those inside functions as well."""
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))


def graph(statements: Statements) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module in MODULES:
        nodes = statements(tree_of(module))
        found[module] = {t for node in nodes for t in targets(module, node)} - {module}
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return graph(every_import)


def test_no_import_points_up(imports: dict[str, set[str]]) -> None:
    up = [
        f"{a} imports {b}"
        for a, found in imports.items()
        for b in found
        if PACKAGES[package_of(b)] > PACKAGES[package_of(a)]
    ]
    assert not up


def test_packages_are_crossed_by_full_name() -> None:
    relative = []
    for module in MODULES:
        for node in import_statements(tree_of(module)):
            if isinstance(node, ast.ImportFrom) and node.level:
                relative += [
                    f"{module}: {ast.unparse(node)}"
                    for t in targets(module, node)
                    if package_of(t) != package_of(module)
                ]
    assert not relative


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle. A module importing its own package counts not,
    since that is loaded first anyway."""
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        path.append(module)
        for target in sorted(imports[module]):
            if not module.startswith(target + "."):
                found = visit(target)
                if found:
                    return found
        path.pop()
        done.add(module)
        return []

    return next((found for module in sorted(imports) if (found := visit(module))), [])


def test_no_circle(imports: dict[str, set[str]]) -> None:
    apart = {
        module: {t for t in found if not any({module, t} <= part for part in PARTS)}
        for module, found in imports.items()
    }
    assert circle(apart) == []
    assert circle(graph(import_statements)) == []


def test_annotations_and_functions_are_seen() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    from a import b\ndef f():\n    import c")
    assert [ast.unparse(node) for node in every_import(tree)] == ["from a import b", "import c"]
    assert [ast.unparse(node) for node in import_statements(tree)] == ["import c"]


def room(module: str) -> str:
    return module.removeprefix(ROOMS).split(".")[0]


def test_rooms_of_the_backends_build_on_each_other_one_way(imports: dict[str, set[str]]) -> None:
    wrong = [
        f"{a} imports {b}"
        for a, found in imports.items()
        if a.startswith(ROOMS)
        for b in found
        if room(b) in UNKNOWN.get(room(a), ())
    ]
    assert not wrong


def test_a_circle_is_found() -> None:
    assert circle({"graphtorch.a": {"graphtorch.b"}, "graphtorch.b": {"graphtorch.a"}}) == [
        "graphtorch.a",
        "graphtorch.b",
        "graphtorch.a",
    ]


def test_no_import_inside_a_function() -> None:
    hidden = []
    for module in MODULES:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                for inner in ast.walk(node):
                    if isinstance(inner, (ast.Import, ast.ImportFrom)) and any(
                        targets(module, inner)
                    ):
                        hidden.append(f"{module}:{inner.lineno}: {ast.unparse(inner)}")
    assert not hidden


def test_nothing_is_called_ir_or_backends_at_top_level() -> None:
    for module in MODULES:
        for node in import_statements(tree_of(module)):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if not node.level
                else []
            )
            tops = {n.split(".")[0] for n in names}
            assert not tops & {"ir", "backends"}, f"{module}: {ast.unparse(node)}"


def patches(tree: ast.AST) -> list[str]:
    """Assignments to attributes of classes that come from another file. Classes are what has
    the name of one."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    foreign = {a.asname or a.name for node in imports for a in node.names}
    found = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            inner = [t for outer in node.targets for t in ast.walk(outer)]
            targets = [t for t in inner if isinstance(t, ast.Attribute)]
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Call) and name_of(node.func) in ("setattr", "type.__setattr__"):
            targets = [ast.Attribute(node.args[0], "?", ast.Store())]
        for target in targets:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                name = target.value.id
                if name in foreign and name.lstrip("_")[:1].isupper():
                    found.append(ast.unparse(node))
    return found


def test_no_class_is_patched_from_another_file() -> None:
    assert not [f"{module}: {t}" for module in MODULES for t in patches(tree_of(module))]


@pytest.mark.parametrize(
    "text",
    [
        "Tensor.add = add",
        "Tensor.count += 1",
        "setattr(Tensor, name, f)",
        "Tensor.a, b = 1, 2",
        "_Base.x: int = 3",
    ],
)
def test_a_patch_is_found(text: str) -> None:
    assert len(patches(ast.parse(f"from .tensor import Tensor, _Base\n{text}"))) == 1
    assert not patches(ast.parse(f"class Tensor: pass\nclass _Base: pass\n{text}"))


def test_few_files_stand_beside_the_rooms() -> None:
    assert len(list((ROOT / "graphtorch").glob("*.py"))) <= 24


def test_dataclasses_are_ours() -> None:
    """The standard library's decorator takes most of the time of importing a module."""
    standard = []
    for module, path in MODULES.items():
        if path.name != "dataclass.py":
            for node in import_statements(tree_of(module)):
                if isinstance(node, ast.ImportFrom) and node.module == "dataclasses":
                    standard += [module for a in node.names if a.name in ("dataclass", "field")]
    assert not standard


def test_renamed_modules_are_none_of_ours() -> None:
    """A file of ours is found under its own name: a stale entry would hide it once it is loaded
    late."""
    hidden = {PACKAGE + name.removeprefix("torch") for name in RENAMED} & set(MODULES)
    assert not hidden
