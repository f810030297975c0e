"""Inference beside PyTorch, ONNX Runtime and OpenVINO: the same models, weights and inputs, in turn
in one process.

    python -m tools.bench infer                    the four models that are measured everywhere
    python -m tools.bench infer --zoo              thirteen others
    python -m tools.bench infer swin_t gpt2        these
    python -m tools.bench infer --skip openvino --seconds 0.3 --json FILE
    python -m tools.bench infer mlp --library      our library, called as C does, too
    python -m tools.bench infer bertbase --precision int8     products of few digits, see below
    python -m tools.bench infer resnet50 --tune    beside graphtorch with tuned schedules

Times are medians in milliseconds, of two threads if no other number is given (--threads 1 where
others work on the machine: a thread that waits for a core holds up its whole engine); the ratio
is the best peer's time to graphtorch's, so that more than 1 is ahead. Errors are against PyTorch in
float64, relative to the largest number of a result; graphtorch's may be 1e-4, or 2e-3 where it
takes Winograd's convolutions. Peers that are not installed are skipped: the extras `oracle` and
`bench` install them.

With --precision the turns are those of graphtorch in f32, of `graphtorch.compile(precision=)`, and
for int8 of ONNX Runtime on what its `quantize_dynamic` makes of the model (signed weights, a scale
for each of their outputs); the speedup is over graphtorch in f32, and the errors are what few
digits cost.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

import graphtorch
import zoo
from _timing import medians_in_turn
from aot import library_call
from graphtorch.ir.ops.narrow import PRECISIONS

BOUND, WINOGRAD_BOUND = 1e-4, 2e-3
Call = Callable[[], list[np.ndarray]]


class Case:
    """A model of PyTorch with its inputs, for all engines."""

    def __init__(
        self, name: str, folder: Path, small: bool = False, threads: int = 2, tune: float = 30.0
    ):
        """Args: tune: seconds for measuring schedules, of the engine that does so."""
        import torch

        torch.manual_seed(0)
        self.torch, self.name, self.small, self.folder = torch, name, small, folder
        self.threads, self.tune, self.source = threads, tune, zoo.MODELS[name]
        self.arrays = self.source.arrays(small)
        self.tensors = [torch.from_numpy(a) for a in self.arrays]
        self.model = zoo.lively(torch, self.source.build(torch, small), self.tensors)
        self.exact = zoo.in_double(torch, self.model, self.tensors)

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {f"x{i}": a for i, a in enumerate(self.arrays)}

    @cached_property
    def onnx(self) -> str:
        """The model as a file, by PyTorch's own exporter."""
        path = str(self.folder / f"{self.name}.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.torch.onnx.export(
                self.model,
                tuple(self.tensors),
                path,
                dynamo=False,
                opset_version=17,
                input_names=list(self.feeds),
            )
        return path


# ----------------------------------------------------------------------------------------- engines


def eager(case: Case) -> Call:
    case.torch.set_num_threads(case.threads)

    def call() -> list[np.ndarray]:
        with case.torch.inference_mode():
            return [t.numpy() for t in zoo.flat(case.model(*case.tensors))]

    return call


def onnxruntime(case: Case) -> Call:
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = runtime.InferenceSession(case.onnx, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, case.feeds)


def onnxruntime_int8(case: Case) -> Call:
    import onnxruntime as runtime
    from onnxruntime.quantization import quantize_dynamic

    path = case.onnx.replace(".onnx", ".int8.onnx")
    quantize_dynamic(case.onnx, path, per_channel=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = case.threads
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, case.feeds)


def openvino(case: Case) -> Call:
    import openvino as runtime

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case.threads,
    }
    compiled = runtime.Core().compile_model(case.onnx, "CPU", settings)
    request = compiled.create_infer_request()
    given = dict(enumerate(case.arrays))

    def call() -> list[np.ndarray]:
        found = request.infer(given, share_inputs=True, share_outputs=True)
        return [found[i] for i in range(len(found))]

    return call


def ours(case: Case, precision: str | None = None, tune: bool | float = False) -> Call:
    graphtorch.set_num_threads(case.threads)
    model = case.source.build(graphtorch, case.small)
    zoo.with_weights_of(case.model, model, graphtorch.from_numpy)
    compiled = graphtorch.compile(model, precision=precision, tune=tune)

    def call() -> list[np.ndarray]:
        with graphtorch.no_grad():
            found = compiled(*map(graphtorch.from_numpy, case.arrays))
        return [t.numpy() for t in zoo.flat(found)]

    return call


def library(case: Case) -> Call:
    """The model as a shared library, whose function is called on memory that stays."""
    model = case.source.build(graphtorch, case.small)
    zoo.with_weights_of(case.model, model, graphtorch.from_numpy)
    examples = tuple(map(graphtorch.from_numpy, case.arrays))
    path = case.folder / f"{case.name}.so"
    loaded = graphtorch.aot.compile(model, examples, path, weights="external").load()
    run, found = library_call(loaded, list(case.arrays), case.threads)

    def call() -> list[np.ndarray]:
        if run():
            raise SystemExit("the library reports an error")
        return found

    return call


def tuned(case: Case) -> Call:
    return ours(case, tune=case.tune)


FIRST_CALL = {"graphtorch": "first_call_s", "tuned": "tuning_s"}
ENGINES = {
    "eager": ("torch", eager),
    "onnxruntime": ("onnxruntime", onnxruntime),
    "openvino": ("openvino", openvino),
    "graphtorch": ("graphtorch", ours),
    "library": ("graphtorch", library),
}
OURS = ("graphtorch", "library", "tuned")


def installed(skip: Sequence[str] = (), library: bool = False) -> dict[str, Callable[[Case], Call]]:
    """The engines there are; a line for each of the others."""
    found = {}
    for name, (package, make) in ENGINES.items():
        if name == "library" and not library:
            continue
        if name in skip:
            print(f"{name} is left out, as asked")
        elif importlib.util.find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed")
        else:
            found[name] = make
    return found


def low(precision: str) -> dict[str, Callable[[Case], Call]]:
    """graphtorch in f32 and at `precision`, and who else can do that."""
    engines: dict[str, Callable[[Case], Call]] = {
        "graphtorch": ours,
        f"graphtorch {precision}": partial(ours, precision=precision),
    }
    if precision == "int8" and all(map(importlib.util.find_spec, ("onnxruntime", "onnx"))):
        engines["onnxruntime int8"] = onnxruntime_int8
    return engines


# --------------------------------------------------------------------------------------- measuring


def measured(
    case: Case, engines: dict[str, Callable[[Case], Call]], rounds: int, seconds: float
) -> dict[str, Any]:
    """Milliseconds and errors of each engine, what graphtorch's first call took, and the ratio."""
    row: dict[str, Any] = {"errors": {}, "milliseconds": {}}
    calls = {}
    for name, make in engines.items():
        with kernels_made() as made:
            start = time.perf_counter()
            calls[name] = make(case)
            row["errors"][name] = zoo.error(calls[name](), case.exact)
        if name in FIRST_CALL:
            row[FIRST_CALL[name]] = time.perf_counter() - start
            row["winograd"] = row.get("winograd", False) or any("winograd" in t for t in made)
    times = medians_in_turn(calls, rounds, seconds)
    row["milliseconds"] = {name: 1e3 * t for name, t in times.items()}
    subject = next((n for n in times if n.startswith("graphtorch ")), "graphtorch")
    peers = {name: t for name, t in times.items() if name not in (*OURS, subject)}
    if peers and subject in times:
        row["best_peer"] = min(peers, key=peers.__getitem__)
        row["ratio"] = peers[row["best_peer"]] / times[subject]
    if subject != "graphtorch":
        row["speedup"] = times["graphtorch"] / times[subject]
    if "graphtorch" in times and "tuned" in times:
        row["gain"] = times["graphtorch"] / times["tuned"]
    return row


class kernels_made:
    """The explanations of the programs that graphtorch makes meanwhile."""

    def __enter__(self) -> list[str]:
        from graphtorch.backends.llvm import compiler

        self._module, self._plain, made = compiler, compiler.Executable, list[str]()

        def noted(record: Any, *rest: Any) -> Any:
            made.append(record.explanation)
            return self._plain(record, *rest)

        compiler.Executable = noted  # type: ignore[assignment,misc]
        return made

    def __exit__(self, *_: object) -> None:
        self._module.Executable = self._plain  # type: ignore[misc]


def bound(row: dict[str, Any]) -> float:
    """What graphtorch's error may be, tuned or not."""
    return WINOGRAD_BOUND if row.get("winograd") else BOUND


def wrong(row: dict[str, Any]) -> bool:
    """Whether it is more than that (or no number)."""
    return not all(row["errors"].get(name, 0.0) <= bound(row) for name in OURS)


def line(name: str, row: dict[str, Any]) -> str:
    times = "  ".join(f"{k} {v:.4g}" for k, v in row["milliseconds"].items())
    ratio = f"  ratio {row['ratio']:.2f} to {row['best_peer']}" if "ratio" in row else ""
    errors = "  ".join(f"{k} {v:.1e}" for k, v in row["errors"].items())
    ratio += f"  {row['speedup']:.2f} x f32" if "speedup" in row else ""
    if "gain" in row:
        ratio += f"  tuned {row['gain']:.3f} times as fast after {row['tuning_s']:.1f} s"
    mark = f"  WRONG: error above {bound(row):g}" if wrong(row) else ""
    return f"{name:16s} ms: {times}{ratio}  errors: {errors}{mark}"


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    if not ratios:
        return {}
    return {"geometric_mean": statistics.geometric_mean(ratios), "worst": min(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench infer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(zoo.MODELS))
    parser.add_argument("--zoo", action="store_true", help="all models of the zoo")
    parser.add_argument("--small", action="store_true", help="their small versions")
    parser.add_argument("--skip", action="append", default=[], choices=list(ENGINES))
    parser.add_argument("--library", action="store_true", help="time our library as well")
    parser.add_argument("--precision", choices=PRECISIONS, help="beside f32, by few digits")
    parser.add_argument("--threads", type=int, default=2, help="of each engine")
    parser.add_argument("--rounds", type=int, default=5, help="turns of the engines")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each engine in a turn")
    parser.add_argument(
        "--tune",
        type=float,
        nargs="?",
        const=30.0,
        metavar="SECONDS",
        help="also graphtorch with schedules that are measured for so long",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in zoo.MODELS]
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are: {', '.join(zoo.MODELS)}")
    if importlib.util.find_spec("torch") is None:
        raise SystemExit("infer compares with PyTorch: install it (pip install -e .[oracle])")
    names = options.models or (zoo.ZOO if options.zoo else zoo.STANDARD)
    engines, rows = installed(options.skip, options.library), {}
    if options.precision:
        engines = low(options.precision)
    if options.tune:
        engines["tuned"] = tuned
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            case = Case(name, Path(folder), options.small, options.threads, options.tune)
            rows[name] = measured(case, engines, options.rounds, options.seconds)
        print(line(name, rows[name]), flush=True)
    total = summary(rows.values())
    if total:
        print(f"ratio: geometric mean {total['geometric_mean']:.3f}, worst {total['worst']:.3f}")
    if options.json:
        about = {"threads": options.threads, "machine": machine(), "command": sys.argv[1:]}
        options.json.write_text(json.dumps({**about, "models": rows, **total}, indent=1) + "\n")
    if any(wrong(row) for row in rows.values()):
        raise SystemExit(1)


def machine() -> str:
    """The processor that programs are compiled for, and how many there are."""
    from graphtorch.backends.llvm.processor import host

    return f"{host().describe()}, {os.cpu_count()} processors"


if __name__ == "__main__":
    main()
