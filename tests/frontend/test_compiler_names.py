"""``torch.compile``'s arguments, ``torch.compiler``, ``torch._dynamo`` and ``torch._inductor``."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn

from ..helpers.both_ways import filled, vector


@torch.compile
def of_the_module(x: Any) -> Any:
    return x * 2


def test_arguments_are_checked_as_pytorch_checks_them() -> None:
    def f(x: Any) -> Any:
        return x + 1

    for name in ("eager", "aot_eager", "inductor", "cudagraphs", None):
        assert torch.compile(f, backend=name)(vector(1)).item() == 2
    for mode in ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"):
        assert torch.compile(f, mode=mode)(vector(1)).item() == 2
    assert torch.compile(f, options={"max_autotune": True})(vector(1)).item() == 2
    assert torch.compile(f, disable=True) is f and torch.compile(disable=True)(f) is f
    with pytest.raises(torch._dynamo.exc.InvalidBackend, match="Invalid backend: 'nope'"):
        torch.compile(f, backend="nope")
    with pytest.raises(
        RuntimeError, match="Unrecognized mode=nope, should be one of: default, lite"
    ):
        torch.compile(f, mode="nope")
    with pytest.raises(RuntimeError, match="Either mode or options"):
        torch.compile(f, mode="default", options={})
    for wrong in (5, "x", classmethod(lambda kind, x: x)):
        with pytest.raises(AssertionError, match="A callable function is expected"):
            torch.compile(wrong)
    with pytest.warns(UserWarning, match="backend 'mine' is not called"):

        def mine(graph: Any, inputs: Any) -> Any:
            raise AssertionError

        assert torch.compile(f, backend=mine)(vector(1)).item() == 2


def test_decorators_methods_generators_recursion() -> None:
    class Net:
        k = 3.0

        @torch.compile
        def method(self, x: Any) -> Any:
            return x * self.k

        @classmethod
        @torch.compile(dynamic=True)
        def of_class(cls, x: Any) -> Any:
            return x * cls.k

        @staticmethod
        @torch.compile(fullgraph=True, backend="eager")
        def static(x: Any) -> Any:
            return x - 1

        @property
        @torch.compile
        def double(self) -> Any:
            return vector(self.k) * 2

    @torch.compile
    def factorial(n: int, x: Any) -> Any:
        return x if n == 0 else factorial(n - 1, x) * n

    @torch.compile
    def parts(x: Any) -> Iterator[Any]:
        for i in range(3):
            yield x * i

    net = Net()
    for k in (3.0, 3.0, 4.0):
        Net.k = k
        assert net.method(vector(1)).item() == Net.of_class(vector(1)).item() == k
        assert net.static(vector(k)).item() == k - 1 and net.double.item() == 2 * k
        assert factorial(4, vector(1)).item() == 24
        assert [y.item() for y in parts(vector(1))] == [0, 1, 2]
    assert Net.method(net, vector(2)).item() == 8 and Net.method.__name__ == "method"


def test_classes_are_compiled_by_their_calls() -> None:
    @torch.compile
    class Scale:
        def __init__(self, k: float):
            self.k = k

        def __call__(self, x: Any) -> Any:
            return x * self.k

    one = Scale(2.0)
    assert isinstance(one, Scale) and one(vector(3)).item() == 6
    one.k = 3.0
    assert [one(vector(3)).item() for _ in range(2)] == [9, 9]


def test_exceptions_leave_behind_what_the_plain_call_leaves() -> None:
    log: list[float] = []

    def f(x: Any, limit: float) -> Any:
        x.add_(1)
        if limit > 1:
            log.append(limit)
            raise KeyError(limit)
        return x * 2

    for run in (f, torch.compile(f)):
        x = vector(1)
        for limit in (0.0, 2.0, 0.0, 2.0):
            if limit > 1:
                with pytest.raises(KeyError):
                    run(x, limit)
            else:
                run(x, limit)
        assert x.item() == 5
    assert log == [2.0] * 4


def test_compiled_modules_are_the_modules_they_wrap() -> None:
    net = filled(nn.Linear(2, 2))
    run = torch.compile(net)
    assert type(run) is torch._dynamo.OptimizedModule is torch._dynamo.eval_frame.OptimizedModule
    assert list(run.state_dict()) == ["_orig_mod.weight", "_orig_mod.bias"]
    assert repr(run).startswith("OptimizedModule(\n  (_orig_mod): Linear(")
    assert run._orig_mod is net and run.weight is net.weight and run.in_features == 2
    run.scale = 3
    assert net.scale == 3 and "scale" not in run.__dict__
    del run.scale
    assert not hasattr(net, "scale")
    run.eval()
    assert not net.training and not run.training
    net.train()
    assert run.training
    run.weight = nn.Parameter(torch.ones(2, 2))
    assert run(vector(1, 1)).tolist() == net(vector(1, 1)).tolist() == [2.5, 2.5]
    seen: list[int] = []
    handle = run.register_forward_hook(lambda *a: seen.append(1))
    run(vector(1, 1))
    handle.remove()
    run(vector(1, 1))
    assert seen == [1]
    for made in (copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert type(made) is type(run) and made._orig_mod is not net
        made._orig_mod.bias.data.fill_(0)
        assert made(vector(1, 1)).tolist() == [2, 2] and run(vector(1, 1)).tolist() == [2.5, 2.5]
        made.load_state_dict(run.state_dict())
        assert made(vector(1, 1)).tolist() == [2.5, 2.5]


def test_functions_are_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(of_the_module)) is of_the_module
    assert copy.deepcopy(of_the_module) is of_the_module
    assert of_the_module._torchdynamo_orig_callable is of_the_module.__wrapped__


def test_what_is_disabled_is_not_replayed() -> None:
    calls: list[bool] = []

    @torch.compiler.disable
    def noted(x: Any) -> Any:
        calls.append(torch.compiler.is_compiling())
        return x + len(calls)

    def f(x: Any) -> Any:
        return noted(x * 2), torch.compiler.is_compiling(), torch._dynamo.is_compiling()

    run = torch.compile(f)
    for i in range(5):
        y, *flags = run(vector(1))
        assert y.item() == 3 + i and flags == [True, True]
    assert calls == [False] * 5 and not torch.compiler.is_compiling()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="disable"):
        torch.compile(f, fullgraph=True)(vector(1))

    def broken(x: Any) -> Any:
        torch._dynamo.graph_break()
        return x + 1

    assert torch.compile(broken)(vector(1)).item() == 2
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        torch.compile(broken, fullgraph=True)(vector(1))
    net = torch.compiler.disable(nn.Linear(1, 1), recursive=False)
    assert torch.compile(lambda x: net(x))(vector(1)).shape == (1,)
    assert not torch.trace(
        lambda x: x * (2 if torch.compiler.is_exporting() else 3), vector(1)
    ).parameters


def test_stances() -> None:
    count: list[int] = []

    def f(x: Any) -> Any:
        if torch.compiler.is_compiling():
            return x * 2
        count.append(1)
        return x * 2

    run = torch.compile(f)
    with torch.compiler.set_stance("force_eager"):
        assert run(vector(1)).item() == 2 and len(count) == 1 and run.recorded == 0
    detected = pytest.raises(RuntimeError, match="Detected recompile")
    with torch.compiler.set_stance("fail_on_recompile"), detected:
        run(vector(1))
    run(vector(1))
    assert run.recorded == 1
    with torch.compiler.set_stance("eager_on_recompile"):
        assert run(vector(1)).item() == 2 and len(count) == 1
        assert run(vector(1, 2)).tolist() == [2, 4] and len(count) == 2

    @torch.compiler.set_stance("force_eager")
    def outside() -> Any:
        return run(vector(3))

    assert outside().item() == 6 and len(count) == 3
    with pytest.raises(RuntimeError, match=r"invalid torch\.compile stance 'nope'"):
        torch.compiler.set_stance("nope")
    torch.compiler.set_stance("force_eager")
    run(vector(1))
    torch.compiler.set_stance("default")
    assert len(count) == 4
    torch.compiler.reset()
    assert not run.graphs and run(vector(1)).item() == 2 and run.recorded == 2


def test_names_that_leave_code_as_it_is() -> None:
    def f(x: Any) -> Any:
        return x + 1

    for name in ("allow_in_graph", "assume_constant_result", "nested_compile_region"):
        assert getattr(torch.compiler, name)(f) is f
    assert torch.compiler.substitute_in_graph(len)(f) is f
    assert torch.compiler.list_backends() == [
        "cudagraphs",
        "inductor",
        "openvino",
        "openxla",
        "tvm",
    ]
    torch.compiler.cudagraph_mark_step_begin()
    assert torch.compiler.save_cache_artifacts() is None
    wrapped = torch.compiler.wrap_numpy(lambda a: a.cumsum())
    assert wrapped(vector(1, 2)).tolist() == torch.compile(wrapped)(vector(1, 2)).tolist() == [1, 3]
    x = vector(1, 2)
    torch._dynamo.mark_dynamic(x, 0)
    torch._dynamo.maybe_mark_dynamic(x, 0)
    torch._dynamo.mark_static(x)
    assert torch._dynamo.optimize("eager", nopython=True)(f)(x).tolist() == [2, 3]
    torch._dynamo.utils.counters.clear()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    found = torch._dynamo.explain(f)(x)
    assert (found.graph_count, found.graph_break_count) == (1, 0) and "Graph Count: 1" in str(found)
    with pytest.raises(RuntimeError, match="Invalid backend"):
        torch._dynamo.lookup_backend("nope")

    @torch._dynamo.register_backend
    def my_backend(graph: Any, inputs: Any) -> Any:
        return graph

    assert torch.compile(f, backend="my_backend")(x).tolist() == [2, 3]


def test_options_are_read_set_and_patched() -> None:
    dynamo, inductor = torch._dynamo.config, torch._inductor.config
    assert dynamo.suppress_errors is False and inductor.triton.cudagraphs is False
    changes = {"triton.cudagraphs": True, "max_autotune": True}
    with dynamo.patch(suppress_errors=True), inductor.patch(changes):
        assert dynamo.suppress_errors and inductor.triton.cudagraphs and inductor.max_autotune
    assert (
        not dynamo.suppress_errors and not inductor.triton.cudagraphs and not inductor.max_autotune
    )

    @dynamo.patch("cache_size_limit", 64)
    def limit() -> int:
        return dynamo.cache_size_limit

    assert limit() == 64 and dynamo.cache_size_limit == 8
    dynamo.anything, inductor.triton.anything = 1, 2
    assert dynamo.anything == 1 and "triton.anything" in torch._inductor.list_options()
    assert torch._inductor.list_mode_options("max-autotune")["max_autotune"]
    with pytest.raises(AttributeError):
        _ = dynamo.nothing_of_this_name


PROGRAM = """
import torch, torch._dynamo, torch._inductor.config as config
import torch._dynamo.config
from torch._dynamo.utils import counters
torch._dynamo.config.suppress_errors = True
torch._dynamo.reset()
config.fx_graph_cache = True
torch._inductor.config.coordinate_descent_tuning = True
from torch.compiler import is_compiling
model = torch.compile(torch.nn.Linear(2, 1), mode="reduce-overhead")
torch.compiler.cudagraph_mark_step_begin()
optimized = isinstance(model, torch._dynamo.eval_frame.OptimizedModule)
print(optimized, is_compiling(), model(torch.ones(2)).shape)
"""


def test_programs_find_them_under_the_name_torch(tmp_path: Any) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    command = [sys.executable, "-m", "graphtorch", "run", str(path)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.strip() == "True False torch.Size([1])", found.stderr
