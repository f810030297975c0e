"""Symbolic sizes: one recording, one compilation and one ONNX file serve every batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.backends.llvm import compiler

F = nn.functional
SIZES = (1, 2, 7, 64)


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(64, 3)

    def forward(self, x: Any) -> Any:
        return self.head(F.max_pool2d(F.relu(self.norm(self.conv(x))), 2).flatten(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.norm, self.output = nn.Linear(8, 24), nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        q, k, v = (
            self.inputs(self.norm(x)).reshape(*x.shape[:2], 2, 12).transpose(1, 2).chunk(3, -1)
        )
        scores = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
        return x + self.output((scores @ v).transpose(1, 2).reshape(x.shape))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 3))


def batch_norm() -> nn.Module:
    made = nn.Sequential(nn.BatchNorm1d(4), nn.Softmax(-1))
    for _ in range(3):
        made(torch.randn(8, 4) * 2 + 1)
    return made


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (mlp, (4,)),
    "cnn": (Cnn, (1, 8, 8)),
    "batch norm": (batch_norm, (4,)),
    "attention": (Attention, (5, 8)),
    "transformer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8)),
}


def model(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    return make().eval(), shape


def batch(low: int = 1, high: int | None = 64) -> torch.Dim:
    return torch.Dim("batch", min=low, max=high)


@pytest.mark.parametrize("name", list(MODELS))
def test_one_compilation_serves_every_batch(name):
    made, shape = model(name)
    compiled = torch.compile(made, dynamic={0: {0: batch()}})
    for n in SIZES:
        x = torch.randn(n, *shape)
        with torch.no_grad():
            want = made(x).numpy()  # x and the model by itself may compile too: before counting
            before = compiler.compiled_count
            found = compiled(x).numpy()
            assert compiler.compiled_count - before == (1 if n == SIZES[0] else 0)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    assert compiled.recorded == 1


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_gradients_serve_every_batch(name):
    made, shape = model(name)
    compiled = torch.compile(made, dynamic={0: {0: batch()}})

    def gradients(function, x):
        made.zero_grad()
        x.grad = None
        function(x).square().mean().backward()
        return [x.grad.numpy().copy(), *(p.grad.numpy().copy() for p in made.parameters())]

    for n in SIZES:
        x = torch.randn(n, *shape, requires_grad=True)
        for a, b in zip(gradients(compiled, x), gradients(made, x), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert compiled.recorded == 1


def losses(dynamic: bool) -> tuple[list[float], Any, list[int]]:
    made, shape = model("cnn")
    made.train()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)

    def step(x, target):
        optimizer.zero_grad()
        loss = F.cross_entropy(made(x), target)
        loss.backward()
        optimizer.step()
        return loss

    size = batch(2)
    run = torch.compile(step, dynamic={"x": {0: size}, "target": {0: size}}) if dynamic else step
    torch.manual_seed(1)
    found, counts = [], []
    for n in (7, 2, 64, 3, 7):
        found.append(run(torch.randn(n, *shape), torch.randint(0, 3, (n,))).item())
        counts.append(compiler.compiled_count)
    return found, run, counts


def test_a_training_step_serves_every_batch():
    found, step, counts = losses(True)
    assert found == pytest.approx(losses(False)[0], rel=1e-4)
    # the first call also makes the optimizer's state, which the second then finds
    assert step.recorded == 2 and counts[1] == counts[-1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean() + x.sum(0) / x.shape[0],
        lambda x: x.view(x.shape[0], -1).view(-1, 3),
        lambda x: torch.cat([x, x.flip(0)], 0)[1:],
        lambda x: x + torch.arange(x.shape[0]).reshape(-1, 1, 1) + torch.zeros(x.shape[0], 1, 1),
        lambda x: x.sort(0).values + x.cumsum(0) + x.argmax(0),
        lambda x: torch.softmax(x, 0).transpose(0, 1) * x.size(0),
        lambda x: F.pad(x, (0, 0, 0, 0, 1, 2)).logsumexp((0, 1)),
        lambda x: x.expand(2, *x.shape).std((0, 1)),
    ],
    ids=["mean", "view", "concat", "arange", "sort", "softmax", "pad", "std"],
)
def test_shape_arithmetic(function):
    compiled = torch.compile(function, dynamic={0: {0: batch()}})
    for n in SIZES:
        x = torch.randn(n, 2, 3)
        np.testing.assert_allclose(compiled(x).numpy(), function(x).numpy(), rtol=1e-5, atol=1e-5)
    assert compiled.recorded == 1


def test_several_sizes_and_none_special():
    height, width = torch.Dim("height", min=0), torch.Dim("width", min=0)
    made = nn.Conv2d(1, 2, 3, padding=1)
    compiled = torch.compile(
        lambda x: made(x).relu().sum(0), dynamic={0: {0: batch(0), 2: height, 3: width}}
    )
    for shape in ((2, 1, 5, 4), (1, 1, 1, 1), (3, 1, 17, 2), (0, 1, 3, 3), (2, 1, 0, 4)):
        x = torch.randn(*shape)
        want = made(x).relu().sum(0).detach().numpy() if x.numel() else np.zeros((2, *shape[2:]))
        np.testing.assert_allclose(compiled(x).detach().numpy(), want, rtol=1e-5, atol=1e-5)
    assert compiled.recorded == 1


def test_sizes_outside_the_range():
    compiled = torch.compile(lambda x: x + 1, dynamic={"x": {0: batch(2, 64)}})
    assert compiled(torch.ones(2)).tolist() == [2, 2]
    for n in (65, 1, 0):
        with pytest.raises(
            RuntimeError, match=rf"'x' has size {n} at axis 0, outside Dim\('batch', min=2"
        ):
            compiled(torch.ones(n))
    assert compiled.recorded == 1


def test_sizes_that_must_be_equal():
    size = batch()
    compiled = torch.compile(lambda x, y: x * y, dynamic={"x": {0: size}, "y": {0: size}})
    shapes = r"x has shape \[3\], y has shape \[4\]"
    message = rf"one Dim must be equal: {shapes}, with Dim 'batch' at axis 0 and 0"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=message):
            compiled(torch.ones(3), torch.ones(4))
        assert compiled(torch.ones(3), torch.ones(3)).tolist() == [1, 1, 1]
    by_size = torch.compile(lambda x, y: x * len(y), dynamic={"x": {0: size}, "y": {0: size}})
    with pytest.warns(UserWarning, match="size batch is needed as a number"):
        by_size(torch.ones(3), torch.ones(3))
    with pytest.raises(RuntimeError, match=r"must be equal: x has shape \[3\], y has shape \[4\]"):
        by_size(torch.ones(3), torch.ones(4))


def test_a_comparison_of_sizes_is_a_recording_for_each_outcome():
    def branches(x):
        return x if x.shape[0] > 3 else -x

    compiled = torch.compile(branches, dynamic={0: {0: batch()}})
    for n in (5, 2, 5, 4, 3, 64):
        assert compiled(torch.ones(n)).tolist() == branches(torch.ones(n)).tolist()
    assert compiled.recorded == 2
    with pytest.raises(RuntimeError, match=r"'x' has size 65 at axis 0, outside Dim\('batch'"):
        compiled(torch.ones(65))
    certain = torch.compile(branches, dynamic={0: {0: batch(4)}})
    assert certain(torch.ones(5)).tolist() == [1] * 5


@pytest.mark.parametrize("function", [lambda x: x * len(x), lambda x: sum(list(x))])
def test_a_size_that_python_needs(function):
    # a graph is to hold for all of them
    with pytest.raises(TypeError, match="size batch is symbolic here"):
        torch.trace(function, torch.ones(5), dynamic={0: {0: batch()}})
    compiled = torch.compile(function, dynamic={0: {0: batch()}})
    with pytest.warns(
        UserWarning, match="size batch is needed as a number.*recorded for each size instead"
    ):
        compiled(torch.ones(5))
    for n in (2, 5, 4, 3):
        assert compiled(torch.ones(n)).tolist() == function(torch.ones(n)).tolist()
    assert compiled.recorded == 4
    with pytest.raises(RuntimeError, match=r"'x' has size 65 at axis 0, outside Dim\('batch'"):
        compiled(torch.ones(65))


@pytest.mark.parametrize(
    "dynamic, error, message",
    [
        ({"y": {0: batch()}}, ValueError, "no argument 'y'"),
        ({1: {0: batch()}}, ValueError, "no argument 1"),
        ({0: {2: batch()}}, IndexError, "'x' of shape .* has no axis 2"),
        ({0: {0: 64}}, TypeError, "must be marked with a Dim, not int"),
        ({0: 64}, TypeError, "expected {axis: Dim}"),
    ],
)
def test_bad_dynamic(dynamic, error, message):
    with pytest.raises(error, match=message):
        torch.compile(lambda x: x + 1, dynamic=dynamic)(torch.ones(3, 3))
    with pytest.raises(error, match=message):
        torch.trace(lambda x: x + 1, torch.ones(3, 3), dynamic=dynamic)


def test_bad_dims():
    with pytest.raises(ValueError, match="identifier"):
        torch.Dim("batch size")
    with pytest.raises(ValueError, match="min"):
        torch.Dim("n", min=5, max=4)


@pytest.mark.parametrize("name", list(MODELS))
def test_one_onnx_file_serves_every_batch(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    made, shape = model(name)
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        made,
        (torch.randn(2, *shape),),
        path,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert (
        session.get_inputs()[0].shape == ["batch", *shape]
        and session.get_outputs()[0].shape[0] == "batch"
    )
    for n in SIZES:
        x = torch.randn(n, *shape)
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, made(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_a_traced_graph_assumes_of_its_sizes():
    dims = {0: {0: batch(), 1: torch.Dim("t", min=1)}}
    traced = torch.trace(
        lambda x: x[:, :3] * 2 if x.shape[1] > 4 else x, torch.ones(2, 6), dynamic=dims
    )
    assert [str(c) for c in traced.conditions] == ["t-5"]  # at least 0; of which t-3 >= 0 follows
    assert "[batch, 3]" in str(traced.graph)
    assert torch.trace(lambda x: x + 1, torch.ones(2, 6), dynamic=dims).conditions == ()
