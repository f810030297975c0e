"""``torch.compile``, ``torch.compiler`` and ``torch._dynamo`` beside PyTorch's."""

from __future__ import annotations

import copy
import importlib
import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
dynamo = pytest.importorskip("torch._dynamo")
inductor = pytest.importorskip("torch._inductor.config")

WITHOUT = {"load_compiled_function"}  # it reads what PyTorch's own compiler saved
# of the machine, or of the day
OWN_VALUE = {"compile_threads", "worker_start_method", "debug_dir_root"}


def test_every_name_of_the_compiler_module_is_there() -> None:
    assert set(torch.compiler.__all__) - WITHOUT <= set(graphtorch.compiler.__all__)


@pytest.mark.parametrize(
    "ours, theirs",
    [(graphtorch._dynamo.config, dynamo.config), (graphtorch._inductor.config, inductor)],
)
@pytest.mark.filterwarnings("ignore")
def test_options_have_pytorchs_values(ours: Any, theirs: Any) -> None:
    compared = 0
    for name, value in vars(ours).items():
        if (
            name.startswith("_")
            or callable(value)
            or isinstance(value, ModuleType)
            or name in OWN_VALUE
        ):
            continue
        if not hasattr(theirs, name) or name in ("Any", "annotations", "patch"):
            continue
        if isinstance(value, graphtorch._torch.options.Options):
            pairs = [(v, getattr(getattr(theirs, name), k, v)) for k, v in vars(value).items()]
        else:
            pairs = [(value, getattr(theirs, name))]
        for a, b in pairs:
            compared += 1
            assert a == b or isinstance(b, set), name
    assert compared > 20


def outcome(torch: Any, program: Any) -> Any:
    try:
        found = program(torch)
    except Exception as error:
        return type(error).__name__
    return found


def x(torch: Any) -> Any:
    return torch.tensor([1.0, 2.0])


def one(v: Any) -> Any:
    return v + 1


def flags(torch: Any) -> Any:
    apart = torch.compiler.disable(lambda: torch.compiler.is_compiling())

    @torch.compile(backend="eager")
    def f(v: Any) -> Any:
        return (
            torch.compiler.is_compiling(),
            torch.compiler.is_dynamo_compiling(),
            apart(),
            torch._dynamo.is_compiling(),
            torch.compiler.is_exporting(),
        )

    return f(x(torch)), f(x(torch)), torch.compiler.is_compiling()


def module(torch: Any) -> Any:
    net = torch.nn.Linear(2, 2)
    run = torch.compile(net, backend="eager")
    run.extra = 3
    run.eval()
    made = copy.deepcopy(run)
    return (
        type(run).__name__,
        list(run.state_dict()),
        repr(run),
        net.extra,
        net.training,
        run.training,
        list(made.state_dict()),
        type(pickle.loads(pickle.dumps(run))).__name__,
        made._orig_mod is net,
        [n for n, _ in run.named_modules()],
        [n for n, _ in run.named_parameters()],
        hasattr(run, "nothing"),
    )


def forms(torch: Any) -> Any:
    class Net:
        @torch.compile(backend="eager")
        def a(self, v: Any) -> Any:
            return v + 1

        @classmethod
        @torch.compile(backend="eager")
        def b(cls, v: Any) -> Any:
            return v + 2

        @staticmethod
        @torch.compile(backend="eager")
        def c(v: Any) -> Any:
            return v + 3

    net, v = Net(), x(torch)
    return [y.tolist() for y in (net.a(v), net.b(v), net.c(v), Net.b(v), Net.c(v))], Net.a.__name__


def installed(names: list[str]) -> list[str]:
    """Backends that PyTorch itself brings: OpenVINO's is there where OpenVINO is installed."""
    return [name for name in names if name != "openvino"]


PROGRAMS = [
    lambda torch: torch.compile(one, backend="nope"),
    lambda torch: torch.compile(one, mode="nope"),
    lambda torch: torch.compile(one, mode="default", options={}),
    lambda torch: torch.compile(5),
    lambda torch: torch.compile(classmethod(one)),
    lambda torch: torch.compile(one, disable=True) is one,
    lambda torch: torch.compile(one, backend="eager")(x(torch)).tolist(),
    lambda torch: torch.compile(one, backend="eager").__name__,
    lambda torch: torch.compile(one, backend="eager").__wrapped__ is one,
    lambda torch: installed(torch.compiler.list_backends()),
    lambda torch: installed(torch._dynamo.list_backends()),
    lambda torch: torch._dynamo.lookup_backend("nope"),
    lambda torch: torch.compiler.get_default_backend(),
    lambda torch: torch._dynamo.config.nothing,
    lambda torch: torch._inductor.list_mode_options(),
    lambda torch: torch.compiler.wrap_numpy(lambda a: a * 2)(x(torch)).tolist(),
    lambda torch: torch._dynamo.optimize("eager")(one)(x(torch)).tolist(),
    lambda torch: torch.compile(
        lambda v: torch._dynamo.graph_break(), backend="eager", fullgraph=True
    )(x(torch)),
    lambda torch: torch.compile(
        lambda v: torch.compiler.disable(one)(v), backend="eager", fullgraph=True
    )(x(torch)),
    lambda torch: [
        issubclass(getattr(torch._dynamo.exc, n), RuntimeError)
        for n in ("InvalidBackend", "Unsupported", "TorchDynamoException", "TorchRuntimeError")
    ],
    flags,
    module,
    forms,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_end_as_in_pytorch(program: Any) -> None:
    dynamo.reset()
    assert outcome(graphtorch, program) == outcome(torch, program)


def test_memory_that_nobody_else_holds_is_told_while_pytorchs_compiler_watches() -> None:
    """Its hook of evaluation (PEP 523), which threads that end may leave behind, makes callers hold
    on to arguments."""
    set_eval_frame = importlib.import_module("torch._C._dynamo.eval_frame").set_eval_frame
    before = set_eval_frame(False)
    try:
        array = np.ones(4, np.float32)
        held, alone = graphtorch.from_numpy(array), graphtorch.from_numpy(np.ones(4, np.float32))
        _ = held * 2, alone * 2
    finally:
        set_eval_frame(before)
    assert held._storage.host is array and alone._storage.host is None
