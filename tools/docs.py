#!/usr/bin/env python3
"""Write what documents show: docs/ops.md from the op records, and the output of each page's Python.

docs/surface.md comes from the behavioural checks in tests/surface, which it runs.

    python3 tools/docs.py            write it
    python3 tools/docs.py --check    only say whether it is up to date

The ```python blocks of a page are one program; a ```text block after one is what that block prints.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure()

import argparse
import contextlib
import dataclasses
import importlib
import io
import pkgutil
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphtorch.ir import ops
from graphtorch.ir.op import OPS, ByDecomposition, NoGradient, Op

OPS_PAGE = _venv.ROOT / "docs" / "ops.md"
SURFACE_PAGE = _venv.ROOT / "docs" / "surface.md"
PAGES = [
    *sorted(_venv.ROOT.glob("README*.md")),
    *sorted(p for p in (_venv.ROOT / "docs").glob("*.md") if p not in (OPS_PAGE, SURFACE_PAGE)),
]
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.M | re.S
)
HEAD = """\
# Ops

{count} ops, of which {core} are core: a target implements them, or states that it does not. A
composite also decomposes into simpler ops, for targets that do not take it whole. This file is
written by `python3 tools/docs.py` from the records in `ir/ops/`; [ir.md](ir.md) explains the
notation around it.

`b?` may be left out, `*xs` takes any number of operands. `Dim` is an int or a symbolic size,
`Shape` a tuple of `Dim`s, `Padding` a pair (low, high) for each spatial dimension. Gradient:
`rule` is the op's own, `parts` follows from the decomposition, `-` means that there is none.
"""
TABLE = ("| op | result | kind | gradient |", "|---|---|---|---|")


def families() -> Iterator[tuple[str, str, list[Op]]]:
    """Module name, first sentence of its docstring, and its ops in the order of their
    registration."""
    order = {name: i for i, name in enumerate(OPS)}
    for info in pkgutil.iter_modules(ops.__path__):
        module = importlib.import_module(f"{ops.__name__}.{info.name}")
        public = [getattr(module, name) for name in getattr(module, "__all__", ())]
        named = {v for v in public if isinstance(v, Op)}
        if named:
            title = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
            yield info.name, title, sorted(named, key=lambda op: order[op.name])


def signature(op: Op) -> str:
    """``name(operands) {attribute: type}``."""
    fields = [f"{f.name}: {f.type}" for f in dataclasses.fields(op.attrs)]
    return f"{op.name}({', '.join(op.operands)})" + (f" {{{', '.join(fields)}}}" if fields else "")


def gradient(op: Op) -> str:
    if isinstance(op.vjp, NoGradient):
        return f"- {op.vjp.reason}"
    return "parts" if isinstance(op.vjp, ByDecomposition) else "rule"


def row(op: Op) -> str:
    cells = (f"`{signature(op)}`", op.doc, "core" if op.is_core else "composite", gradient(op))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def ops_page() -> str:
    """All of docs/ops.md."""
    parts = [HEAD.format(count=len(OPS), core=sum(op.is_core for op in OPS.values()))]
    listed: set[str] = set()
    for name, title, members in families():
        rows = [row(op) for op in members]
        listed.update(op.name for op in members)
        parts.append("\n".join([f"## {name}", "", title, "", *TABLE, *rows, ""]))
    missing = sorted(set(OPS) - listed)
    if missing:
        raise SystemExit(f"no module names these ops in __all__: {', '.join(missing)}")
    return "\n".join(parts)


SURFACE_HEAD = """\
# The surface

{count} names, parameters and modes of PyTorch that tutorials and notes use, and checks that use
each: functions `check_*` in [tests/surface](../tests/surface). A check counts for a name when it
uses it, for a parameter when it gives it, for a mode when it gives that value, and only if what it
asserts holds. This file is written by `python3 tools/docs.py`, which runs them.

Where these names and PyTorch 2.13 disagree, PyTorch's behaviour wins, and some names are other
ones:

{notes}
"""


def surface_page() -> str:
    """All of docs/surface.md."""
    sys.path.insert(0, str(_venv.ROOT / "tests" / "helpers"))
    surface = importlib.import_module("surface")
    rows = surface.rows()
    notes = [f"- `{name}` is absent here too: {why}." for name, why in surface.ABSENT.items()]
    notes += [
        f"- `{name}` is spelled `{spelled}` in PyTorch."
        for name, spelled in surface.SPELLED.items()
    ]
    checks = {row.name: ", ".join(surface.checks_of(row)[:3]) for row in rows}
    lines = [f"| `{row.name}` | {row.kind} | {checks[row.name]} |" for row in rows]
    head = SURFACE_HEAD.format(count=len(rows), notes="\n".join(notes))
    return "\n".join([head, "| name | kind | checks |", "|---|---|---|", *lines, ""])


def run_page(page: str) -> str:
    """`page` with its Python run, in the current folder, and each text block as that prints it
    now."""
    names: dict[str, object] = {"__name__": "example"}

    def run(block: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], "example.py", "exec"), names)
        code = f"```python\n{block['code']}```\n"
        return (
            code
            if block["shown"] is None
            else f"{code}\n```text\n{printed.getvalue().rstrip()}\n```\n"
        )

    return BLOCK.sub(run, page)


def current(path: Path) -> str:
    """What a page should say."""
    if path == OPS_PAGE:
        return ops_page()
    if path == SURFACE_PAGE:
        return surface_page()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return run_page(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write docs/ops.md and the outputs that pages show."
    )
    parser.add_argument(
        "--check", action="store_true", help="fail if a page is out of date, write nothing"
    )
    check = parser.parse_args().check
    for path in (OPS_PAGE, SURFACE_PAGE, *PAGES):
        text = current(path)
        if check and path.read_text(encoding="utf-8") != text:
            raise SystemExit(
                f"{path.relative_to(_venv.ROOT)} is out of date: run python3 tools/docs.py"
            )
        if not check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
