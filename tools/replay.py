#!/usr/bin/env python3
"""What the compiler makes of a fixed set of graphs, as text: a refactoring proves itself by no
difference.

    python3 tools/replay.py FOLDER                     lower all graphs (minutes)
    python3 tools/replay.py FOLDER --against BEFORE    ... and show what differs from another folder
    python3 tools/replay.py FOLDER --only 'op_*' gpt   the graphs of these names; --list shows all

The graphs are those of replay_graphs.py: benchmark models, a training step of each kind of net and
every op record once. Each is lowered for a machine with AVX2 and for one with AVX-512, whatever
this one is, into FOLDER/GRAPH/MACHINE:

    passes.txt     the graph as recorded and after each pass that changed it
    kernels.txt    the kernels and their launches
    memory.txt     where temporaries lie and when they are in use
    code.txt       for each kernel hashes of its LLVM IR and of its object code; hashes of table and
                   constants

or `refused.txt` where there is no code for an op. The status is 1 if anything differs.
"""

from __future__ import annotations

import _venv

if __name__ == "__main__":
    _venv.ensure("test")

import argparse
import difflib
import functools
import hashlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from graphtorch.backends.kernels.program.table import Table, packed_layout, tabulate
from graphtorch.backends.kernels.text import print_memory, print_program
from graphtorch.backends.llvm.build import lower_graph
from graphtorch.backends.llvm.emit import ModuleEmitter
from graphtorch.backends.llvm.native import compile_object
from graphtorch.backends.llvm.processor import Processor, named
from graphtorch.backends.llvm.units import has_loops
from graphtorch.ir.graph import Graph
from graphtorch.ir.judge import assuming
from graphtorch.ir.passes import pipeline
from graphtorch.ir.printer import print_graph
from graphtorch.ir.shape import Known
from replay_graphs import Recorded, graphs
from replay_graphs import named as graphs_named

LINUX, AVX2 = "x86_64-unknown-linux-gnu", "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe"
AVX512 = f"{AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
MACHINES = {"avx2": named(LINUX, "x86-64-v3", AVX2), "avx512": named(LINUX, "x86-64-v4", AVX512)}
SHOWN = 12  # files whose differences are printed; the others are only named


# ----------------------------------------------------------------------------------------- lowering


def replay(recorded: Recorded, target: Processor) -> dict[str, str]:
    """The files of one graph on one machine."""
    passes: list[str] = []
    with (
        assuming(Known(recorded.conditions)) if recorded.conditions else nullcontext(),
        pipeline.observed(functools.partial(_note_pass, passes)),
        pipeline.checking_every_pass(),
    ):
        try:
            program, plan, _ = lower_graph(recorded.graph, target, recorded.stable)
        except NotImplementedError as error:
            return {"refused.txt": f"{error}\n"}
        table = tabulate(program, plan)
        return {
            "passes.txt": "".join(passes),
            "kernels.txt": print_program(program),
            "memory.txt": f"{print_memory(program, plan)}packed {packed_layout(program)[1]} "
            "bytes\n",
            "code.txt": "".join(f"{line}\n" for line in _code(table, target)),
        }


def _note_pass(passes: list[str], stage: str, graph: Graph) -> None:
    """Add the text after a pass, without lines of source files, if it is another one than
    before."""
    text = print_graph(graph, lambda _: False) + "\n\n"
    if not any(p.endswith(text) for p in passes[-1:]):
        passes.append(f"== {stage}\n{text}")


def _code(table: Table, target: Processor) -> Iterator[str]:
    for i, (kernel, memory) in enumerate(table.kernels):
        module = ModuleEmitter("kernels", target)
        module.launcher("kernel", kernel, memory)
        text = module.text()
        code = _object_hash(text, target, i not in table.once and has_loops(kernel))
        yield f"{kernel.name}: llvm {_hash(text.encode())} object {code}"
    layout = (
        table.launches,
        table.prologue,
        [str(s) for s in table.sizes],
        table.words,
        table.operands,
    )
    yield f"table {_hash(repr(layout).encode())} constants {_hash(table.constants)}"


@functools.cache
def _object_hash(text: str, target: Processor, loops: bool) -> str:
    return _hash(compile_object(text, target, loops=loops))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def write(name: str, recorded: Recorded, folder: Path) -> None:
    """Lower one graph for all machines into its part of `folder`, in the place of what was
    there."""
    shutil.rmtree(folder / name, ignore_errors=True)
    for machine, target in MACHINES.items():
        place = folder / name / machine
        place.mkdir(parents=True)
        for file, text in replay(recorded, target).items():
            (place / file).write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------- comparing


def differences(before: Path, after: Path, names: Sequence[str], limit: int) -> Iterator[str]:
    """What differs between two folders in the graphs `names`, as text: nothing where nothing
    does."""
    files = sorted(
        {
            f.relative_to(root)
            for root in (before, after)
            for name in names
            for f in (root / name).glob("*/*.txt")
        }
    )
    changed = [f for f in files if _read(before / f) != _read(after / f)]
    for file in changed[:SHOWN]:
        lines = difflib.unified_diff(
            _read(before / file),
            _read(after / file),
            f"before/{file}",
            f"after/{file}",
            n=2,
            lineterm="",
        )
        yield from _shortened(list(lines), limit)
    for file in changed[SHOWN:]:
        yield f"differs: {file}"
    if changed:
        hit = sorted({f.parts[0] for f in changed})
        yield f"{len(changed)} of {len(files)} files differ, of {len(hit)} graphs: {', '.join(hit)}"


def _read(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _shortened(lines: Sequence[str], limit: int) -> Iterator[str]:
    yield from (line if len(line) <= 200 else f"{line[:200]}..." for line in lines[:limit])
    if len(lines) > limit:
        yield f"... {len(lines) - limit} more lines"


# ------------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="where the texts go")
    parser.add_argument("--against", type=Path, help="a folder that an earlier run wrote")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="of graphs; may have * and ?"
    )
    parser.add_argument("--lines", type=int, default=40, help="lines shown of a file that differs")
    parser.add_argument("--list", action="store_true", help="show the names of the graphs and end")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(graphs()))
        return 0
    found = graphs_named(options.only)
    if options.folder is None:
        parser.error("which folder are the texts to be written to?")
    if not found:
        parser.error(f"no graph is called {' or '.join(options.only)}: --list shows the names")
    if options.against is not None and not options.against.is_dir():
        parser.error(f"--against {options.against}: there is no such folder")
    start = time.perf_counter()
    for name, make in found.items():
        write(name, make(), options.folder)
    print(
        f"{len(found)} graphs for {len(MACHINES)} machines in {time.perf_counter() - start:.0f} s"
    )
    if options.against is None:
        return 0
    lines = list(differences(options.against, options.folder, list(found), options.lines))
    print("\n".join(lines or ["no difference"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
