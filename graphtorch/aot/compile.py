"""From a model to a native library that needs no Python where it runs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from graphtorch.backends.cpu.choices import Choices
from graphtorch.backends.gpu import devices
from graphtorch.backends.gpu import library as cuda
from graphtorch.backends.gpu.compiler import target_of as gpu_target
from graphtorch.backends.gpu.compiler import written
from graphtorch.backends.gpu.machine import EXACT, HAVE_TF32, Gpu, Tf32
from graphtorch.backends.gpu.unit import Unit
from graphtorch.backends.kernels.program.plan import Plan
from graphtorch.backends.kernels.program.program import Program, Slot, flat
from graphtorch.backends.kernels.program.table import Table, tabulate
from graphtorch.backends.llvm.build import target_of as cpu_target
from graphtorch.backends.llvm.library import ABI_VERSION, exported, library_text
from graphtorch.backends.llvm.native import compile_object
from graphtorch.backends.llvm.prepared import layout_of, prepare
from graphtorch.backends.llvm.processor import Processor, host, verify
from graphtorch.backends.llvm.tune import tune as measured
from graphtorch.backends.llvm.weights import Stored, Weights
from graphtorch.backends.target import Target, lowered
from graphtorch.ir.generalize import Hints
from graphtorch.ir.graph import Graph
from graphtorch.ir.judge import assuming
from graphtorch.ir.passes.limits import Exactness
from graphtorch.ir.passes.precision import run as lowered_precision
from graphtorch.ir.shape import UNBOUNDED, Condition, Dim, Known, bounds, without_implied

from .._captured.compile import check_precision
from .._captured.recording import refuse_gradient
from .._captured.tracing import example_sizes, trace_but_for_numbers
from .._captured.tuning import seconds_of
from .._settings import deterministic, tf32
from .._torch.dataclass import dataclass
from ..version import __version__
from . import link
from . import weights as files
from .header import header_text
from .loader import Library, load

KINDS = (".so", ".o", ".a")


@dataclass(frozen=True)
class Compiled:
    """What `compile` wrote.

    Attributes:
        path: the library or object file.
        header: the C header beside it.
        weights: the safetensors file, where the weights are not embedded.
        summary: one line on what the compiler did.
    """

    path: Path
    header: Path
    weights: Path | None
    name: str
    summary: str

    def load(self) -> Library:
        """The library as a Python function (a ``.so`` only)."""
        return load(self.path, self.name, self.weights)


def compile(
    model: Any,
    example: Any,
    path: str | Path,
    *,
    dynamic: Mapping[Any, Mapping[int, Dim]] | None = None,
    name: str | None = None,
    weights: str = "embedded",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    target: Processor | None = None,
    device: str = "cpu",
    architectures: Sequence[str] | None = None,
    precision: str | None = None,
    tune: bool | float | Sequence[Mapping[str, str]] = False,
) -> Compiled:
    """Compile `model` ahead of time into a library with a C interface.

    Args:
        model: a Module (use ``model.eval()`` first) or a function of tensors.
        example: one call's arguments: a tensor or a tuple of tensors; their values do not matter.
        path: ``name.so``, ``name.o`` or ``name.a``; ``name.h`` is written beside it.
        dynamic: sizes that may change, such as ``{"x": {0: Dim("batch", 1, 64)}}``, by argument
            name or position. Where the model compares them they have to compare as those of
            `example` do: calls are checked, and the header says how.
        name: prefix of the C functions; default: the file's stem without ``lib``.
        weights: ``"embedded"`` in the library, or ``"external"`` in ``name.safetensors``, mapped at
            run time.
        input_names, output_names: what messages and metadata call the tensors.
        target: the machine to compile for; default: this one, or what GRAPHTORCH_TARGET_CPU names.
        device: ``"cpu"``, or ``"cuda"``: the library then takes tensors in a GPU's memory, and
            needs NVIDIA's driver where it runs; where it is made NVRTC, but no GPU.
        architectures: for CUDA what the library has code for: machine code by names such as
            ``"sm_90"``, and PTX by ``"compute_90"``, which the driver compiles for GPUs that have
            no code of their own.
            Default: every generation from ``sm_80`` on that NVRTC knows, and ``compute_90``; with
            GRAPHTORCH_CUDA=emulated ``"emulated"``, for `emulated_driver`.
        tune: measure a few schedules of each matrix product and convolution on this machine, for at
            most so many seconds, or 30 if True, and keep the fastest; the library's metadata names
            them (``"schedules"``). Or such a list, from the metadata of a library made before: the
            same schedules, and nothing is measured. For CPUs only.

        precision: of products with weights, as `graphtorch.compile` takes it. How int8 products are
            computed is chosen for `target`; all machines get the same whole numbers.

    Raises:
        TypeError: `example` holds arrays instead of tensors, or the model returns no tensor;
            `tune` is none of the above.
        ValueError: the file's suffix, `name`, `weights`, `device`, `precision`, `tune` or an
            architecture is none of the above; LLVM knows no such target; `tune` asks for measuring
            kernels of a GPU or of a target that is not this machine.
        NotImplementedError: the target is neither a 64-bit x86 nor a 64-bit ARM.
        RuntimeError: no linker for a ``.so``; a size that no input has; no compiler for the
            kernels; a gradient is computed in the model, and `precision` is given.
    """
    path = Path(path)
    name = name or path.stem.removeprefix("lib")
    _check_arguments(path, name, weights)
    check_precision("aot.compile", precision)
    gpus = _architectures(device, architectures)
    tuning = _tuning(tune, device, target or host())
    if target is not None and target != host():
        verify(target)
    if path.suffix == ".so":
        link.find_linker((target or host()).triple)
    arguments = example if isinstance(example, (tuple, list)) else (example,)
    _check_example(arguments)
    with assuming(Hints(example_sizes(model, arguments, {}, dynamic))) as hints:
        traced = trace_but_for_numbers(model, arguments, {}, dynamic)
    if not traced.graph.outputs:
        raise TypeError(
            "aot.compile: the model returns no tensor: return what the library is to compute"
        )
    if traced.differentiates:
        refuse_gradient("aot.compile", precision)
    arrays = {key: tensor.detach().cpu().numpy() for key, tensor in traced.parameters.items()}
    graph = traced.graph
    if precision is not None:
        weighty = {v for v in graph.inputs if v.name in arrays}
        graph = lowered_precision(graph, weighty, precision)
    conditions = without_implied(hints.conditions)
    with assuming(Known(conditions)) if conditions else nullcontext():
        return compile_graph(
            graph,
            arrays,
            path,
            name,
            weights == "embedded",
            input_names,
            output_names,
            target or host(),
            conditions,
            gpus,
            tuning,
        )


def _tuning(tune: Any, device: str, target: Processor) -> float | dict[str, str]:
    """Seconds for measuring (0: nothing is), or the schedules that were found before, by kernel."""
    known = isinstance(tune, Sequence) and not isinstance(tune, (str, bytes))
    if known and all(isinstance(x, Mapping) and {"key", "schedule"} <= set(x) for x in tune):
        found: float | dict[str, str] = {x["key"]: x["schedule"] for x in tune}
    elif known:
        raise ValueError(
            'aot.compile: tune: expected the list "schedules" of a library\'s metadata, of which '
            'each entry has "key" and "schedule"'
        )
    else:
        found = seconds_of(tune, "aot.compile")
    if found and device != "cpu":
        raise ValueError("aot.compile: tune= is for CPUs: kernels of GPUs are not tuned")
    if isinstance(found, float) and found and target != host():
        raise ValueError(
            "aot.compile: tune= measures on this machine, and target= is another one: compile "
            'there, and pass the list "schedules" of that library\'s metadata'
        )
    return found


def _architectures(device: str, names: Sequence[str] | None) -> tuple[str, ...]:
    """What kernels are compiled for; empty for the CPU."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"aot.compile: device={device!r}, expected 'cpu' or 'cuda'")
    if device == "cpu":
        if names is not None:
            raise ValueError(
                'aot.compile: architectures= is for device="cuda"; for CPUs there is target='
            )
        return ()
    if names is None:
        return cuda.architectures(devices.emulates())
    cuda.check_architectures(names)
    return tuple(names)


def compile_graph(
    graph: Graph,
    arrays: Mapping[str, np.ndarray],
    path: Path,
    name: str,
    embedded: bool,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    target: Processor,
    conditions: Sequence[Condition] = (),
    gpus: Sequence[str] = (),
    tuning: float | Mapping[str, str] = 0.0,
) -> Compiled:
    """`compile` for a graph whose inputs named in `arrays` are weights; calls have to meet
    `conditions`.

    Args:
        gpus: the architectures of a CUDA library; none for one for CPUs.
        tuning: seconds for measuring schedules, or those that were found, by kernel.
    """
    stable = [i for i, v in enumerate(graph.inputs) if v.name in arrays]
    exact = Exactness.BITS if deterministic() else Exactness.NONE
    have_tf32 = all(cuda.Image(name, ()).machine[1:] >= HAVE_TF32 for name in gpus)
    gpu = Gpu(ordered=deterministic(), tf32=Tf32(*tf32()) if have_tf32 else EXACT)
    choices = None
    if isinstance(tuning, Mapping):
        choices = Choices(tuning, exact)
    elif tuning:
        choices, _ = measured(graph, target, stable, exact, tuning)
    chosen: Target[Any] = gpu_target(Unit(), gpu) if gpus else cpu_target(target, choices=choices)
    program, plan, _ = lowered(graph, chosen, stable, exact)
    if choices is not None:
        choices.check()
    table = tabulate(program, plan)
    data = [s for s in program.inputs if s.name not in arrays]
    _rename(data, program.outputs, input_names, output_names)
    names = {i: graph.inputs[i].name for i in stable}
    given = files.plain({name: arrays[name] for name in names.values()})
    read = tuple(i for i in stable if i in table.read)
    made = None  # GPUs run the prologue where the library runs
    if program.prologue and not gpus:
        made = files.prepared(
            prepare(program, plan, {i: arrays[name] for i, name in names.items()}),
            given,
            {names[i] for i in read},
            layout_of(program, plan),
        )
    metadata = _metadata(
        name, program, data, target, conditions, chosen.device, gpus, given, choices
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "weights"
        source.write_bytes((made or given).data if embedded else b"")
        placed = Weights(
            frozenset(stable),
            () if gpus else read,
            None if embedded and made else _stored(given, names),
            made and _stored(made, {i: names[i] for i in read}),
            source if embedded else None,
        )
        library = _Library(name, program, plan, table, placed, metadata, target, conditions)
        text = library.for_gpus(gpus, Path(folder)) if gpus else library.for_cpus()
        code = compile_object(text, target, pic=True)
    header_path, external = (
        path.with_suffix(".h"),
        None if embedded else path.with_suffix(".safetensors"),
    )
    _write(path, code, name, target)
    if external is not None:
        stored = made or given
        link.write_whole(external, stored.header + stored.data)
    link.write_whole(
        header_path,
        header_text(
            name,
            [_line(s) for s in data],
            [_line(s) for s in program.outputs],
            [f"{c} >= 0" for c in conditions],
            bool(gpus),
        ).encode(),
    )
    summary = summarize(graph, program, bounds(plan.size)[1], len(code))
    return Compiled(path, header_path, external, name, summary)


def _stored(file: files.File, names: Mapping[int, str]) -> Stored:
    """Args: names: of the weights, by position."""
    return Stored(file.header, len(file.data), {i: file.offset(n) for i, n in names.items()})


@dataclass(frozen=True)
class _Library:
    """What the text of a library is made of."""

    name: str
    program: Program
    plan: Plan
    table: Table
    weights: Weights
    metadata: str
    target: Processor
    conditions: Sequence[Condition]

    def for_cpus(self) -> str:
        return library_text(
            self.name,
            self.program,
            self.plan,
            self.table,
            self.weights,
            self.metadata,
            self.target,
            self.conditions,
        )

    def for_gpus(self, architectures: Sequence[str], folder: Path) -> str:
        """Args: folder: where the compiled kernels are put until the library is made."""
        unit = Unit()
        kernels, threads = written(self.table, unit), os.cpu_count() or 1
        pieces = unit.pieces(threads)
        code = cuda.Code(kernels, pieces, cuda.images(pieces, architectures, folder, threads))
        return cuda.library_text(
            self.name,
            self.program,
            self.plan,
            self.table,
            code,
            self.weights,
            self.metadata,
            self.target,
            self.conditions,
        )


def _check_arguments(path: Path, name: str, weights: str) -> None:
    if path.suffix not in KINDS:
        raise ValueError(f"aot.compile: path {path.name!r} must end in one of {', '.join(KINDS)}")
    if not name.isidentifier() or not name.isascii():
        raise ValueError(
            f"aot.compile: {name!r} cannot begin C function names: pass name= with letters, "
            "digits and _"
        )
    if weights not in ("embedded", "external"):
        raise ValueError(f"aot.compile: weights={weights!r}, expected 'embedded' or 'external'")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"aot.compile: the folder {path.parent} does not exist: make it first"
        )


def _check_example(arguments: Sequence[Any]) -> None:
    for i, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            raise TypeError(
                f"aot.compile: argument {i} of example is a NumPy array, which would become a "
                "constant: pass torch.from_numpy(array)"
            )


def _write(path: Path, code: bytes, name: str, target: Processor) -> None:
    if path.suffix == ".so":
        link.shared_library(code, path, target.triple)
    elif path.suffix == ".a":
        link.archive(code, path, exported(name))
    else:
        link.write_whole(path, code)


def _rename(
    inputs: Sequence[Slot],
    outputs: Sequence[Slot],
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> None:
    for slots, names, argument in (
        (inputs, input_names, "input_names"),
        (outputs, output_names, "output_names"),
    ):
        if names is not None and len(names) != len(slots):
            raise ValueError(
                f"aot.compile: {argument} has {len(names)} names, the model has {len(slots)}"
            )
        for slot, given in zip(slots, names or [], strict=False):
            slot.name = given
    for i, slot in enumerate(outputs):
        slot.name = slot.name or (f"output_{i}" if len(outputs) > 1 else "output")


def _line(slot: Slot) -> str:
    """One line for the header: name, element type and shape."""
    return f"{slot.name}: {slot.dtype.torch_name} [{', '.join(map(str, slot.shape))}]"


def _describe(slot: Slot) -> dict[str, object]:
    return {
        "name": slot.name,
        "dtype": slot.dtype.torch_name,
        "shape": [d if isinstance(d, int) else str(d) for d in slot.shape],
    }


def _metadata(
    name: str,
    program: Program,
    data: Sequence[Slot],
    machine: Processor,
    conditions: Sequence[Condition],
    device: str,
    gpus: Sequence[str],
    given: files.File,
    choices: Choices | None,
) -> str:
    return json.dumps(
        {
            "name": name,
            "abi_version": ABI_VERSION,
            "graphtorch": __version__,
            "target": machine.triple,
            "cpu": machine.cpu,
            "inputs": [_describe(s) for s in data],
            "outputs": [_describe(s) for s in program.outputs],
            "weights": list(given.tensors),
            "sizes": {
                s.name: {"min": s.min, "max": None if s.max >= UNBOUNDED else s.max}
                for s in program.symbols
            },
            "conditions": [f"{c} >= 0" for c in conditions],
            "device": device,
            **({"architectures": list(gpus)} if gpus else {}),
            **({"schedules": choices.used()} if choices else {}),
        }
    )


def summarize(graph: Graph, program: Program, arena: int, code: int) -> str:
    """What the compiler did, in one line."""
    return (
        f"compiler: {len(graph.nodes)} ops in, {len(list(flat(program.launches)))} kernels out "
        f"(+ {len(program.prologue)} that pack weights once), {arena:,} bytes of arena, "
        f"{code:,} bytes of object code"
    )
