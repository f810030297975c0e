"""A compiled function gives what the plain one gives when what it reads in Python changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn

from ..helpers.both_ways import Compile, Plain, agrees, filled, vector


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.scale = 2.0
        self.register_buffer("shift", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * self.scale + self.shift


def agree(model: nn.Module, compiled: nn.Module, x: torch.Tensor) -> None:
    assert torch.allclose(compiled(x), model(x))


def test_module_changes_are_seen() -> None:
    model, x = Scaled().eval(), torch.ones(4, 3)
    compiled = torch.compile(model)
    with torch.no_grad():
        agree(model, compiled, x)
        agree(model, compiled, x)
        assert compiled.recorded == 1
        model.scale = 3.0
        agree(model, compiled, x)
        model.fc.weight = nn.Parameter(torch.ones(2, 3))
        agree(model, compiled, x)
        model.fc = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        agree(model, compiled, x)
        model.shift = torch.ones(2)
        agree(model, compiled, x)
        assert compiled.recorded == 5
        model.fc[0].weight.fill_(0.5)
        agree(model, compiled, x)
        assert compiled.recorded == 5


def test_assignments_that_change_nothing_record_nothing() -> None:
    model, x = Scaled(), torch.ones(4, 3)
    compiled = torch.compile(model)
    other = nn.Linear(2, 2)
    for _ in range(3):
        compiled(x)
        model.scale = 2.0
        other.bias = nn.Parameter(torch.zeros(2))
    assert compiled.recorded == 1


def test_weights_written_through_numpy_are_seen() -> None:
    model, x = nn.Linear(3, 2).eval(), torch.ones(4, 3)
    compiled = torch.compile(model)
    with torch.no_grad():
        agree(model, compiled, x)
        weights = model.weight.detach().numpy()
        weights[...] = 7.0
        agree(model, compiled, x)
        weights[...] = 8.0
        agree(model, compiled, x)


# ----------------------------------------------------------------------------------------- programs


def defaults(compile: Compile) -> Any:
    def f(x: Any, k: float = 2.0, options: Any = {"a": 1.0}) -> Any:  # noqa: B006
        return x * k + options["a"]

    run = compile(f)
    found = [run(vector(1))]
    f.__defaults__[1]["a"] = 7.0
    found.append(run(vector(1)))
    f.__defaults__ = (5.0, {"a": 0.0})
    return [*found, run(vector(1))]


def objects(compile: Compile) -> Any:
    outer = Plain(
        inner=Plain(a=2.0), listed=[Plain(a=1.0), Plain(a=3.0)], table={"w": 1.5, "v": 2.0}
    )

    def f(x: Any, extra: Any, name: str) -> Any:
        inner = outer.inner
        for one in outer.listed:
            x = x * one.a
        for _, v in outer.table.items():
            x = x + v
        return x * inner.a + extra.a * getattr(extra, name)

    run, found = compile(f), []
    extra, other = Plain(a=1.0, b=2.0), Plain(a=4.0, b=8.0)

    def look() -> None:
        found.extend([run(vector(1), extra, "b"), run(vector(1), other, "a")])

    look()
    outer.inner.a = 3.0
    look()
    outer.listed[1].a = 10.0
    look()
    outer.listed.append(outer.listed[0])
    look()
    outer.table["w"] = -1.0
    look()
    extra.b = 9.0
    look()
    outer.inner = Plain(a=0.5)
    look()
    return found


def functions(compile: Compile) -> Any:
    k = [2.0]
    steps: list[Any] = [lambda x: x * k[0], lambda x: x + 1]

    def f(x: Any) -> Any:
        def inner(y: Any) -> Any:
            return y * k[0] + sum(v * k[0] for v in [1.0, 2.0])

        for step in steps:
            x = step(x)
        return inner(x)

    run, found = compile(f), []
    found.append(run(vector(1)))
    k[0] = 5.0
    found.append(run(vector(1)))
    steps[1] = lambda x: x - 1
    found.append(run(vector(1)))
    steps.pop()
    return [*found, run(vector(1))]


def class_attributes(compile: Compile) -> Any:
    class Scale:
        k = 1.0

        def __init__(self) -> None:
            self._a = 2.0

        @property
        def a(self) -> float:
            return self._a

    one = Scale()
    run = compile(lambda x: x * Scale.k + one.k * one.a)
    found = [run(vector(1))]
    Scale.k = 4.0
    found.append(run(vector(1)))
    one.k = 9.0
    found.append(run(vector(1)))
    one._a = 3.0
    return [*found, run(vector(1))]


def methods_replaced(compile: Compile) -> Any:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * self.helper(2.0)

        def helper(self, k: float) -> float:
            return k

    model = Model()
    run = compile(model)
    found = [run(vector(1))]
    Model.helper = lambda self, k: k * 10  # type: ignore[method-assign, assignment]
    found.append(run(vector(1)))
    model.helper = lambda k: k * 100  # type: ignore[method-assign, assignment]
    found.append(run(vector(1)))
    Model.forward = lambda self, x: x * 0  # type: ignore[method-assign, assignment]
    return [*found, run(vector(1))]


def module_attributes(compile: Compile) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.listed, self.table = Plain(a=1.0), [1.0], {"k": 2.0}

        def forward(self, x: Any) -> Any:
            return x * self.config.a * self.listed[0] * self.table["k"]

    model = Model()
    run, found = compile(model), []
    found.append(run(vector(1)))
    model.config.a = 2.0
    found.append(run(vector(1)))
    model.listed[0] = 3.0
    found.append(run(vector(1)))
    model.table["k"] = 7.0
    return [*found, run(vector(1))]


def parameters_replaced(compile: Compile) -> Any:
    model = filled(nn.Linear(1, 1, bias=False))
    run = compile(model)
    found = [run(vector(1))]
    model._parameters["weight"] = nn.Parameter(torch.full((1, 1), 5.0))
    found.append(run(vector(1)))
    model.weight.data = torch.full((1, 1), 7.0)
    return [*found, run(vector(1))]


def parameters_tied(compile: Compile) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(vector(2)), nn.Parameter(vector(3))

        def forward(self, x: Any) -> Any:
            return x * self.a * self.b

    model, found = Model(), []
    run = compile(model)
    for change in (
        lambda: None,
        lambda: setattr(model, "b", model.a),
        lambda: setattr(model, "b", nn.Parameter(vector(4))),
    ):
        change()
        model.zero_grad()
        run(vector(1)).sum().backward()
        found.append([p.grad for p in model.parameters()])
    return found


def frozen_parameters(compile: Compile) -> Any:
    model = filled(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    run, found = compile(model), []
    for flag in (True, False, True, False):
        model[0].weight.requires_grad_(flag)
        model.zero_grad()
        run(torch.ones(1, 2)).sum().backward()
        found.append([p.grad is not None for p in model.parameters()])
    model.requires_grad_(False)
    return [*found, run(torch.ones(1, 2)).requires_grad]


def frozen_while_training(compile: Compile) -> Any:
    model = filled(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)), 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    run, found = compile(step), []
    for flag in (False, True, False):
        model[0].weight.requires_grad_(flag)
        found += [run(torch.ones(1, 2)), run(torch.ones(1, 2)), model[0].weight]
    return found


def hooks(compile: Compile) -> Any:
    model = filled(nn.Linear(1, 1, bias=False))
    run, found = compile(model), []

    def look() -> None:
        model.zero_grad()
        y = run(vector(1))
        y.sum().backward()
        found.extend([y, model.weight.grad])

    for make in (
        lambda: model.register_forward_hook(lambda m, i, o: o * 10),
        lambda: model.register_forward_pre_hook(lambda m, i: (i[0] * 2,)),
        lambda: model.weight.register_hook(lambda g: g * 10),
        lambda: nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 3),
    ):
        look()
        handle = make()
        look()
        look()
        handle.remove()
    look()
    return found


def hooks_of_a_backward_inside(compile: Compile) -> Any:
    model, seen = filled(nn.Linear(1, 1, bias=False)), []

    def f(x: Any) -> Any:
        model.zero_grad()
        h = model(x)
        h.register_hook(lambda g: g * 2)
        h.sum().backward()
        return h

    run = compile(f)
    for hook in (None, lambda g: g * 10, None):
        handle = None if hook is None else model.weight.register_hook(hook)
        for _ in range(2):
            run(vector(1))
            seen.append(model.weight.grad.clone())
        if handle is not None:
            handle.remove()
    return seen


def optimizer_options(compile: Compile) -> Any:
    model, late = filled(nn.Linear(1, 1, bias=False)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) * late).sum()
        loss.backward()
        optimizer.step()
        return loss

    run, found = compile(f), []

    def look() -> None:
        found.extend([run(vector(1)), model.weight.clone(), late.clone()])

    group = optimizer.param_groups[0]
    for name, value in (
        ("lr", 0.1),
        ("lr", 0.01),
        ("weight_decay", 0.5),
        ("momentum", 0.9),
        ("nesterov", True),
        ("maximize", True),
    ):
        group[name] = value
        look()
        look()
    optimizer.add_param_group({"params": [late], "lr": 0.3})
    look()
    state = copy.deepcopy(optimizer.state_dict())
    look()
    optimizer.load_state_dict(state)
    look()
    optimizer.state.clear()
    look()
    optimizer.param_groups[0]["params"].clear()
    look()
    return found


def another_optimizer(compile: Compile) -> Any:
    model = filled(nn.Linear(2, 2))
    now = Plain(
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1), loss=lambda y: y.square().sum()
    )

    def f(x: Any) -> Any:
        now.optimizer.zero_grad()
        loss = now.loss(model(x))
        loss.backward()
        now.optimizer.step()
        return loss

    run, x = compile(f), torch.ones(3, 2)
    found = [run(x) for _ in range(3)]
    now.optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    found += [run(x) for _ in range(3)]
    now.loss = lambda y: y.abs().sum()
    return found + [run(x) for _ in range(3)]


def a_scheduler_inside(compile: Compile) -> Any:
    model = filled(nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)

    def f(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        scheduler.step()
        return loss

    run = compile(f)
    return [run(torch.ones(3, 2)) for _ in range(6)] + [optimizer.param_groups[0]["lr"]]


def modes(compile: Compile) -> Any:
    model = nn.Linear(2, 2)
    run, made, x = compile(lambda x: model(x)), compile(lambda: torch.ones(2)), torch.ones(3, 2)
    found: list[Any] = [run(x).requires_grad]
    with torch.no_grad():
        found.append(run(x).requires_grad)
    with torch.inference_mode():
        found.append(run(x).is_inference())
    found += [run(x).requires_grad, run(x).is_inference(), str(made().dtype)]
    torch.set_default_dtype(torch.float64)
    found.append(str(made().dtype))
    torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found.append(str(run(x).dtype))
    return found


def arrays(compile: Compile) -> Any:
    held = np.ones(2, np.float32)
    copied, shared = (
        compile(lambda x: x * torch.tensor(held)),
        compile(lambda x: x * torch.from_numpy(held)),
    )
    given, found = compile(lambda x, a: x * torch.tensor(a)), []
    for number in (1.0, 5.0, 7.0):
        held[0] = number
        found.append([f(vector(1, 1)) for f in (copied, shared)] + [given(vector(1, 1), held)])
    return found


def tensors_by_name(compile: Compile) -> Any:
    world: dict[str, Any] = {"w": vector(2)}
    exec("def f(x):\n    return x * w", world)
    run = compile(world["f"])
    found = [run(vector(1))]
    world["w"].fill_(3.0)
    found.append(run(vector(1)))
    world["w"] = vector(4)
    found.append(run(vector(1)))
    world["w"].requires_grad_()
    run(vector(1)).sum().backward()
    found.append(world["w"].grad)
    world["w"] = world["w"] * 2  # a tensor with a history
    run(vector(1)).sum().backward()
    return [*found, run(vector(1)).requires_grad]


def written_past_setattr(compile: Compile) -> Any:
    model, found = filled(nn.Sequential(Scaled(), nn.Dropout(0.0), nn.LeakyReLU(0.5))), []
    run = compile(model)

    def call() -> None:
        found.append(run(vector(1, -2, 3)))

    for _ in range(2):
        call()
    model[0].__dict__["scale"] = 3.0
    call()
    model[0]._parameters.pop("extra", None)
    model[0].fc._parameters["bias"] = nn.Parameter(torch.ones(2))
    call()
    model[0]._buffers["shift"] = torch.full((2,), -5.0)
    call()
    model[2].__dict__["negative_slope"] = -0.5
    call()
    model._modules["1"] = nn.Tanh()
    call()
    handle = model[0].fc.register_forward_hook(lambda m, a, y: y * 2)
    call()
    model[0].fc._forward_hooks.clear()
    call()
    del handle
    model[0].__dict__["scale"] = True
    call()
    return found


def signed_zeros(compile: Compile) -> Any:
    one, f = Plain(k=0.0), compile(lambda x, k: 1 / (x * k))
    g = compile(lambda x: 1 / (x * one.k))
    found = [f(vector(1), 0.0), f(vector(1), -0.0), g(vector(1))]
    one.k = -0.0
    return [*found, g(vector(1)), f(vector(1), 0.0)]


def classes_of_tensors(compile: Compile) -> Any:
    def f(x: Any) -> Any:
        return x * 2 if isinstance(x, nn.Parameter) else x * 3

    run = compile(f)
    return [
        run(nn.Parameter(vector(1))),
        run(vector(1).requires_grad_()),
        run(nn.Parameter(vector(1))),
    ]


def hooks_at_the_end_of_the_graph(compile: Compile) -> Any:
    model, seen = filled(nn.Linear(2, 1)), []
    run = compile(model)

    def hooked(x: Any) -> Any:
        y = run(x)
        node = next(n for n, _ in model.weight.view_as(model.weight).grad_fn.next_functions)
        node.register_hook(lambda inputs, outputs: seen.append(outputs[0].sum().item()))
        y.sum().backward()
        return len(seen)

    found = []
    for _ in range(3):
        run(vector(1, 2)).sum().backward()
        found.append(len(seen))
    found.append(hooked(vector(1, 2)))
    run(vector(1, 2)).sum().backward()
    return [*found, len(seen), model.weight.grad]


PROGRAMS = [
    defaults,
    objects,
    functions,
    class_attributes,
    methods_replaced,
    module_attributes,
    parameters_replaced,
    parameters_tied,
    frozen_parameters,
    frozen_while_training,
    hooks,
    hooks_of_a_backward_inside,
    optimizer_options,
    another_optimizer,
    a_scheduler_inside,
    modes,
    arrays,
    tensors_by_name,
    written_past_setattr,
    signed_zeros,
    classes_of_tensors,
    hooks_at_the_end_of_the_graph,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_what_changes_in_python_is_seen(program: Callable[[Compile], Any]) -> None:
    agrees(program)
