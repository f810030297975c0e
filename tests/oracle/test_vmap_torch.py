"""`vmap` against PyTorch's: values, and gradients where results are floating-point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch as peer

import graphtorch

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def whole(high: int, *shape: int) -> np.ndarray:
    return rng.integers(0, high, shape)


@dataclass
class Case:
    """`function(T, *tensors)` of one entry, T being the package."""

    function: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]
    in_dims: Any = 0
    out_dims: Any = 0
    gradients: bool = True
    options: dict[str, Any] = field(default_factory=dict)


X, Y, M = floats(4, 3), floats(4, 3), floats(4, 3, 3)
SPD = np.matmul(M, M.transpose(0, 2, 1)) + 3 * np.eye(3)
IMAGES, KERNELS = floats(3, 2, 4, 6, 6), floats(3, 4, 4, 3, 3)
I3 = whole(3, 4, 2)


def normal(T: Any, x: Any) -> Any:
    return (x - x.mean()) / x.std()


def in_place(T: Any, x: Any) -> Any:
    y = x.clone()
    y[0] = 0
    y[1:] *= x[:-1]
    y += 1
    return y


def views(T: Any, x: Any) -> Any:
    a, b = x.chunk(2, -1)
    return (
        T.cat([b, a.flip(0)], -1).movedim(0, 1).diagonal() + x.unfold(1, 2, 1).sum(-1).flatten()[:4]
    )


def loops(T: Any, x: Any) -> Any:
    total = T.zeros((), dtype=x.dtype)
    for row in x:
        total = total + (row * total.cos()).sum()
    return total


def attention(T: Any, q: Any, k: Any, v: Any) -> Any:
    return T.nn.functional.scaled_dot_product_attention(q, k, v)


def cubed(T: Any) -> Callable[..., Any]:
    return lambda x: (x.sin() * x**2).sum()


CASES: dict[str, Case] = {
    "add": Case(lambda T, x, y: x + y * 2, (X, Y)),
    "broadcast": Case(lambda T, x, y: x * y, (X, floats(4)), (0, 0)),
    "scalar": Case(lambda T, x: x.sum() * 3 - 1, (X,)),
    "shared": Case(lambda T, x, y: x * y, (X, floats(3)), (0, None)),
    "shared matrix": Case(lambda T, x, y: y @ x, (X, floats(2, 3)), (0, None)),
    "transposed": Case(lambda T, x, y: x - y, (X, floats(3, 4)), (0, 1)),
    "last": Case(lambda T, x: x.exp(), (floats(2, 3, 4),), -1, -1),
    "out in the middle": Case(lambda T, x: T.outer(x, x), (X,), 0, 1),
    "several results": Case(lambda T, x: (x, x.sum()), (X,), 0, (1, 0)),
    "where": Case(lambda T, x, y: T.where(x > y, x, y * 2), (X, Y)),
    "clamp": Case(lambda T, x: x.clamp(-0.5, 0.7), (X,)),
    "gelu": Case(lambda T, x: T.nn.functional.gelu(x) + x.tanh().relu(), (X,)),
    "complex": Case(lambda T, x, y: T.view_as_real(T.complex(x, y) ** 2), (X, Y)),
    "fft": Case(lambda T, x: T.fft.fft(x).abs(), (X,)),
    "sum dim": Case(lambda T, x: x.sum(-1), (M,)),
    "mean keepdim": Case(lambda T, x: x.mean(0, keepdim=True), (M,)),
    "std": Case(normal, (X,)),
    "prod": Case(lambda T, x: x.prod(0), (M,)),
    "amax": Case(lambda T, x: x.amax(1), (M,)),
    "max with indices": Case(lambda T, x: x.max(0), (M,)),
    "argmax": Case(lambda T, x: x.argmax(), (X,), gradients=False),
    "logsumexp": Case(lambda T, x: x.logsumexp(0), (M,)),
    "norm": Case(lambda T, x: T.linalg.vector_norm(x), (X,)),
    "cumsum": Case(lambda T, x: x.cumsum(0), (M,)),
    "cumprod": Case(lambda T, x: x.cumprod(0), (X,)),
    "cummax": Case(lambda T, x: x.cummax(0)[0], (M,)),
    "sort": Case(lambda T, x: x.sort(descending=True)[0], (X,)),
    "topk": Case(lambda T, x: x.topk(2)[0], (X,)),
    "median": Case(lambda T, x: x.median(), (X,)),
    "searchsorted": Case(
        lambda T, s, x: T.searchsorted(s, x), (np.sort(X, -1), Y), gradients=False
    ),
    "reshape": Case(lambda T, x: x.reshape(-1)[2:7].view(5, 1), (M,)),
    "transpose": Case(lambda T, x: x.t() - x.mT * 2, (M,)),
    "views": Case(views, (floats(4, 4, 4),)),
    "stack": Case(lambda T, x, y: T.stack([x, y, x]), (X, Y), (0, 0), 2),
    "cat of shared": Case(lambda T, x, y: T.cat([x, y]), (X, floats(2)), (0, None)),
    "split": Case(lambda T, x: x.split([1, 2]), (X,)),
    "pad": Case(lambda T, x: T.nn.functional.pad(x, (1, 2), value=0.5), (X,)),
    "pad reflect": Case(lambda T, x: T.nn.functional.pad(x, (1, 1), mode="reflect"), (M,)),
    "linspace": Case(
        lambda T, x: (
            T.linspace(x[0], x[1], 5, dtype=x.dtype),
            T.linspace(x[2], 3, 4, dtype=x.dtype),
        ),
        (X,),
        gradients=False,
    ),
    "logspace": Case(
        lambda T, x: T.logspace(x[0], 2, 5, base=2.0, dtype=x.dtype), (X,), gradients=False
    ),
    "roll": Case(lambda T, x: x.roll(1, 0), (M,)),
    "repeat": Case(lambda T, x: x.repeat(2, 1).tile(2), (X,)),
    "expand": Case(lambda T, x: x.expand(2, 3) * x[:2, None], (X,)),
    "tril": Case(lambda T, x: x.tril() + x.triu(1), (M,)),
    "diag": Case(lambda T, x: T.diag(x) + T.diag_embed(x), (X,)),
    "trace": Case(lambda T, x: x.diagonal().sum(), (M,)),
    "index": Case(lambda T, x: x[T.tensor([2, 0])], (M,)),
    "index by entry": Case(lambda T, x, i: x[i], (M, I3)),
    "two indices": Case(lambda T, x, i: x[i, i], (M, I3)),
    "index apart": Case(lambda T, x, i: x[i, :, i], (floats(4, 3, 2, 3), I3)),
    "index of shared": Case(lambda T, x, i: x[:, i], (floats(2, 3), I3), (None, 0)),
    "gather": Case(lambda T, x, i: x.gather(0, i), (X, I3)),
    "take_along_dim": Case(lambda T, x, i: T.take_along_dim(x, i[None], 1), (M, I3)),
    "scatter": Case(lambda T, x, i, s: x.scatter(0, i, s), (X, np.array([[0, 2, 1]] * 4), Y)),
    "scatter_add": Case(lambda T, x, i, s: T.scatter_add(x, 0, i, s), (X, whole(3, 4, 3), Y)),
    "index_add": Case(lambda T, x, s: x.index_add(0, T.tensor([0, 2, 0]), s), (M, M + 1)),
    "masked_fill": Case(lambda T, x: x.masked_fill(x > 0, 7.0), (X,)),
    "embedding": Case(
        lambda T, i, w: T.nn.functional.embedding(i, w), (I3, floats(3, 2)), (0, None)
    ),
    "own embedding": Case(lambda T, i, w: T.nn.functional.embedding(i, w), (I3, M)),
    "one_hot": Case(lambda T, i: T.nn.functional.one_hot(i, 3), (I3,), gradients=False),
    "dot": Case(lambda T, x, y: T.dot(x, y), (X, Y)),
    "mv": Case(lambda T, a, x: a @ x, (M, X)),
    "matmul": Case(lambda T, a, b: a @ b, (M, M + 1)),
    "batched matmul": Case(
        lambda T, a, b: T.bmm(a, b), (floats(4, 2, 3, 3), floats(2, 3, 5)), (0, None)
    ),
    "einsum": Case(lambda T, a, b: T.einsum("ij,jk,i->k", a, b, a[0]), (M, M)),
    "linear": Case(lambda T, x, w, b: T.nn.functional.linear(x, w, b), (X, M, Y)),
    "linear of shared": Case(
        lambda T, x, w, b: T.nn.functional.linear(x, w, b),
        (floats(4, 2, 3), floats(5, 3), floats(5)),
        (0, None, None),
    ),
    "inv": Case(lambda T, a: T.linalg.inv(a), (SPD,)),
    "solve": Case(lambda T, a, b: T.linalg.solve(a, b), (SPD, X)),
    "det": Case(lambda T, a: T.linalg.det(a), (SPD,)),
    "slogdet": Case(lambda T, a: T.linalg.slogdet(a)[1], (SPD,)),
    "cholesky": Case(lambda T, a: T.linalg.cholesky(a), (SPD,)),
    "eigvalsh": Case(lambda T, a: T.linalg.eigvalsh(a), (SPD,)),
    "eigvalsh upper": Case(lambda T, a: T.linalg.eigvalsh(a, UPLO="U"), (SPD,)),
    "svdvals": Case(lambda T, a: T.linalg.svdvals(a), (SPD,)),
    "matrix_exp": Case(lambda T, a: T.matrix_exp(a), (M,)),
    "conv2d": Case(
        lambda T, x, w: T.nn.functional.conv2d(x, w, padding=1),
        (IMAGES, floats(5, 4, 3, 3)),
        (0, None),
    ),
    "conv2d of its own": Case(
        lambda T, x, w: T.nn.functional.conv2d(x, w, stride=2), (IMAGES, KERNELS)
    ),
    "conv2d of filters": Case(
        lambda T, x, w: T.nn.functional.conv2d(x, w), (floats(2, 4, 6, 6), KERNELS), (None, 0)
    ),
    "conv1d in groups": Case(
        lambda T, x, w, b: T.nn.functional.conv1d(x, w, b, groups=2),
        (floats(3, 2, 4, 6), floats(3, 4, 2, 3), floats(3, 4)),
    ),
    "conv_transpose1d": Case(
        lambda T, x, w: T.nn.functional.conv_transpose1d(x, w, stride=2),
        (floats(3, 2, 4, 6), floats(3, 4, 2, 3)),
    ),
    "max_pool2d": Case(lambda T, x: T.nn.functional.max_pool2d(x, 2), (IMAGES,)),
    "avg_pool2d": Case(lambda T, x: T.nn.functional.avg_pool2d(x, 3, 2, 1), (IMAGES,)),
    "adaptive_avg_pool2d": Case(
        lambda T, x: T.nn.functional.adaptive_avg_pool2d(x, (3, 2)), (IMAGES,)
    ),
    "unfold": Case(lambda T, x: T.nn.functional.unfold(x, 3), (IMAGES,)),
    "interpolate": Case(lambda T, x: T.nn.functional.interpolate(x, scale_factor=2), (IMAGES,)),
    "softmax": Case(lambda T, x: x.softmax(0) - x.log_softmax(-1), (M,)),
    "layer_norm": Case(lambda T, x, w: T.nn.functional.layer_norm(x, (3,), w), (M, Y)),
    "batch_norm": Case(
        lambda T, x: T.nn.functional.batch_norm(x, None, None, training=True), (IMAGES,)
    ),
    "batch_norm given": Case(
        lambda T, x, m: T.nn.functional.batch_norm(x, m.detach(), m.detach().exp()),
        (IMAGES, floats(4)),
        (0, None),
    ),
    "group_norm": Case(lambda T, x, w: T.nn.functional.group_norm(x, 2, w), (IMAGES, floats(3, 4))),
    "cross_entropy": Case(lambda T, x, t: T.nn.functional.cross_entropy(x, t), (M, whole(3, 4, 3))),
    "cross_entropy none": Case(
        lambda T, x, t: T.nn.functional.cross_entropy(x, t, reduction="none"), (M, whole(3, 4, 3))
    ),
    "mse_loss": Case(lambda T, x, y: T.nn.functional.mse_loss(x, y), (X, Y)),
    "attention": Case(attention, (floats(3, 2, 4, 6), floats(3, 2, 5, 6), floats(3, 2, 5, 6))),
    "attention of shared": Case(
        attention, (floats(3, 2, 4, 6), floats(2, 5, 6), floats(2, 5, 6)), (0, None, None)
    ),
    "in place": Case(in_place, (X,)),
    "loops": Case(loops, (M,)),
    "nested": Case(lambda T, x, y: T.vmap(lambda a: T.vmap(lambda b: a * b.sin())(y))(x), (X, Y)),
    "nested dims": Case(lambda T, x, y: T.vmap(T.dot, in_dims=(None, 1))(x, y), (X, M)),
    "grad": Case(lambda T, x: T.func.grad(cubed(T))(x), (X,)),
    "grad of grad": Case(
        lambda T, x: T.func.grad(lambda x: T.func.grad(cubed(T))(x).sum())(x), (X,)
    ),
    "grad of a mapped function": Case(
        lambda T, x: T.func.grad(lambda x: T.vmap(lambda r: (r * r.sin()).sum())(x).prod())(x), (M,)
    ),
    "jacrev": Case(lambda T, x: T.func.jacrev(lambda x: x.sin() * x.sum())(x), (X,)),
    "jacfwd": Case(lambda T, x: T.func.jacfwd(lambda x: x.sin() * x.sum())(x), (X,)),
    "hessian": Case(lambda T, x: T.func.hessian(cubed(T))(x), (X,)),
    "vjp": Case(lambda T, x, v: T.func.vjp(lambda x: x.cos() * x.sum(), x)[1](v)[0], (X, Y)),
    "jvp": Case(lambda T, x, v: T.func.jvp(lambda x: x.cos() * x.sum(), (x,), (v,))[1], (X, Y)),
    "nest of results": Case(
        lambda T, x: {"a": x, "b": [x.sum(), (x * 2,)]}, (X,), 0, {"a": 1, "b": 0}
    ),
    "chunks": Case(lambda T, x: x * x.sum(), (X,), 0, 1, options={"chunk_size": 3}),
    "no batch in the result": Case(lambda T, x: (x, T.ones(2)), (X,), 0, 0),
    "result that all share": Case(lambda T, x: (x, T.ones(2)), (X,), 0, (0, None)),
    "empty batch": Case(lambda T, x: x * 2, (floats(0, 3),)),
}


def leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [x for k in sorted(tree) for x in leaves(tree[k])]
    if isinstance(tree, (tuple, list)):
        return [x for part in tree for x in leaves(part)]
    return [tree]


def run(T: Any, case: Case) -> tuple[list[np.ndarray], list[np.ndarray]]:
    tensors = [T.tensor(a) for a in case.arrays]
    inputs = [t.requires_grad_() for t in tensors if t.dtype.is_floating_point and case.gradients]
    mapped = T.vmap(lambda *x: case.function(T, *x), case.in_dims, case.out_dims, **case.options)
    results = leaves(mapped(*tensors))
    total = sum((r.double() ** 2 * (i + 1)).sum() for i, r in enumerate(results) if r.requires_grad)
    gradients = T.autograd.grad(total, inputs, allow_unused=True) if inputs else []
    return [r.detach().numpy() for r in results], [g.numpy() for g in gradients if g is not None]


@pytest.mark.parametrize("name", CASES)
def test_is_pytorchs(name: str) -> None:
    for ours, theirs in zip(run(graphtorch, CASES[name]), run(peer, CASES[name]), strict=True):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            np.testing.assert_allclose(a, b, 1e-7, 1e-9)


# ------------------------------------------------------------------------------------------ errors


def square(T: Any, generate: bool) -> Any:
    class Square(T.autograd.Function):
        generate_vmap_rule = generate

        @staticmethod
        def forward(x: Any) -> Any:
            return x * x

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0] * 2

    return Square


WRONG: dict[str, Callable[[Any, Any], Any]] = {
    "item": lambda T, x: T.vmap(lambda x: x.sum().item())(x),
    "float": lambda T, x: T.vmap(lambda x: float(x.sum()) * x)(x),
    "branch": lambda T, x: T.vmap(lambda x: x if x.sum() > 0 else -x)(x),
    "tolist": lambda T, x: T.vmap(lambda x: T.tensor(x.tolist()))(x),
    "numpy": lambda T, x: T.vmap(lambda x: T.tensor(x.numpy()))(x),
    "nonzero": lambda T, x: T.vmap(lambda x: x.nonzero())(x),
    "mask": lambda T, x: T.vmap(lambda x: x[x > 0])(x),
    "rand": lambda T, x: T.vmap(lambda x: x + T.rand(2))(x),
    "dropout": lambda T, x: T.vmap(lambda x: T.dropout(x, 0.5, True))(x),
    "write outside": lambda T, x: (lambda o: T.vmap(lambda x: o.add_(x))(x))(T.zeros(2)),
    "running statistics": lambda T, x: T.vmap(T.nn.BatchNorm1d(2))(T.ones(4, 3, 2)),
    "no tensor": lambda T, x: T.vmap(lambda x, a: x * a)(x, 2),
    "returns a number": lambda T, x: T.vmap(lambda x: 3)(x),
    "returns a string": lambda T, x: T.vmap(lambda x: (x, "a"))(x),
    "returns nothing": lambda T, x: T.vmap(lambda x: None)(x),
    "sizes": lambda T, x: T.vmap(lambda x, y: x + y)(x, T.ones(2, 2)),
    "in_dims None": lambda T, x: T.vmap(lambda x: x, in_dims=None)(x),
    "nothing mapped": lambda T, x: T.vmap(lambda x: x, in_dims=(None,))(x),
    "no arguments": lambda T, x: T.vmap(lambda: x)(),
    "no dimensions": lambda T, x: T.vmap(lambda x: x)(T.tensor(1.0)),
    "in_dim too large": lambda T, x: T.vmap(lambda x: x, in_dims=2)(x),
    "in_dims too short": lambda T, x: T.vmap(lambda x, y: x, in_dims=(0,))(x, x),
    "in_dims of another key": lambda T, x: T.vmap(lambda x: x["a"], in_dims=({"b": 0},))({"a": x}),
    "in_dims list": lambda T, x: T.vmap(lambda x: x, in_dims=[0])(x),
    "in_dims string": lambda T, x: T.vmap(lambda x: x, in_dims="a")(x),
    "in_dims of a string": lambda T, x: T.vmap(lambda x: x, in_dims=("a",))(x),
    "out_dims too short": lambda T, x: T.vmap(lambda x: (x, x), out_dims=(0,))(x),
    "out_dims None": lambda T, x: T.vmap(lambda x: (x, x), out_dims=(0, None))(x),
    "out_dim too large": lambda T, x: T.vmap(lambda x: x, out_dims=3)(x),
    "out_dims of a list": lambda T, x: T.vmap(lambda x: [x, x], out_dims=(0, 1))(x),
    "out_dims string": lambda T, x: T.vmap(lambda x: x, out_dims="a")(x),
    "randomness": lambda T, x: T.vmap(lambda x: x, randomness="foo")(x),
    "chunk_size": lambda T, x: T.vmap(lambda x: x, chunk_size=0)(x),
    "backward": lambda T, x: T.vmap(lambda x: (x * T.ones(2, requires_grad=True)).sum().backward())(
        x
    ),
    "function without a rule": lambda T, x: T.vmap(lambda x: square(T, False).apply(x))(x),
    "jacrev chunk_size": lambda T, x: T.func.jacrev(lambda x: x, chunk_size=0)(x),
    "jacrev of numbers": lambda T, x: T.func.jacrev(lambda x: 3)(x),
    "linearize": lambda T, x: T.func.linearize(lambda x: x.sin(), x)[1](T.ones(2)),
    "functionalize": lambda T, x: T.func.functionalize(lambda x: x, remove="all")(x),
    "strict and vectorized": lambda T, x: T.autograd.functional.jacobian(
        lambda x: x * 2, x, strict=True, vectorize=True
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_pytorchs(name: str) -> None:
    messages = []
    for T in (peer, graphtorch):
        with pytest.raises(Exception) as caught:
            WRONG[name](T, T.arange(6.0).reshape(3, 2))
        messages.append((caught.type, str(caught.value)))
    (theirs, said), (ours, say) = messages
    assert ours is theirs
    if said.startswith("vmap: ") and "randomness" not in said and "dynamic shape" not in said:
        assert say.startswith(said[:60])


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_a_function_with_a_gradient_of_its_own(T: Any) -> None:
    x, w = T.arange(6.0).reshape(3, 2).requires_grad_(), T.ones(2, requires_grad=True)
    y = T.vmap(lambda x: square(T, True).apply(x * w))(x)
    to_x, to_w = T.autograd.grad(y.sum(), (x, w), create_graph=True)
    assert to_x.tolist() == (2 * x).tolist() and to_w.tolist() == [40.0, 70.0]
    assert T.autograd.grad(to_x.sum(), w)[0].tolist() == [24.0, 36.0]


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_a_function_with_a_rule_of_its_own(T: Any) -> None:
    class Own(square(T, False)):  # type: ignore[misc]
        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Any) -> Any:
            assert (info.batch_size, info.randomness, in_dims) == (3, "same", (0,))
            return Own.apply(x).movedim(0, 1) * 2, 1

    x = T.arange(6.0).reshape(3, 2).requires_grad_()
    y = T.vmap(lambda x: Own.apply(x) + 1, randomness="same")(x)
    assert y.tolist() == (2 * x * x + 1).tolist()
    assert T.autograd.grad(y.sum(), x)[0].tolist() == (4 * x).tolist()


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_writes(T: Any) -> None:
    """Into an argument they are seen outside; into a tensor that all share they happen once."""
    x, counter = T.arange(6.0).reshape(2, 3), T.zeros(2)

    def step(r: Any) -> Any:
        counter.add_(1)
        r[0] = 7
        return r.mul_(2).sum()

    assert T.vmap(step, in_dims=1)(x).tolist() == [20.0, 22.0, 24.0]
    assert x.tolist() == [[14.0] * 3, [6.0, 8.0, 10.0]] and counter.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_history_of_writes(T: Any) -> None:
    w = T.tensor([2.0, 3.0], requires_grad=True)
    x = T.arange(6.0).reshape(3, 2)
    v = x.clone()
    T.vmap(lambda r: r.mul_(w))(v)
    assert T.autograd.grad(v.sum(), w)[0].tolist() == x.sum(0).tolist()
    u = w.expand(3, 2).clone()
    T.vmap(lambda r: r.mul_(r.detach() + 1))(u)
    assert T.autograd.grad(u.sum(), w)[0].tolist() == [9.0, 12.0]
    y = T.vmap(lambda r: r * w * 2)(x)
    with T.no_grad():
        w += 1
    y.sum().backward()  # reads x only
    z = T.vmap(lambda r: r * r * w)(y.detach().requires_grad_())
    with T.no_grad():
        w += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_what_is_shown(T: Any, capsys: Any) -> None:
    found = []

    def look(x: Any) -> Any:
        print(x)
        found.append(T.func.debug_unwrap(x).shape)
        return T.vmap(lambda y: (found.append(T.func.debug_unwrap(y, recurse=False).shape), y)[1])(
            x
        )

    T.vmap(look)(T.zeros(2, 1))
    assert capsys.readouterr().out == (
        "BatchedTensor(lvl=1, bdim=0, value=\n    tensor([[0.],\n            [0.]])\n)\n"
    )
    assert [tuple(s) for s in found] == [(2, 1), (1,)]


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_draws(T: Any) -> None:
    x = T.zeros(4, 3)
    for draw in (
        lambda x: x + T.rand(3),
        lambda x: T.nn.functional.dropout(x + 1),
        lambda x: T.randn_like(x),
        lambda x: x + T.randperm(3) + T.randint(9, (3,)),
    ):
        T.manual_seed(3)
        same = T.vmap(draw, randomness="same")(x) if draw(x[0]).sum() < 1e9 else x
        assert all(T.equal(row, same[0]) for row in same) or "like" in str(draw.__code__.co_names)
        different = T.vmap(draw, randomness="different")(x)
        assert len({tuple(r) for r in different.tolist()}) > 1
    T.manual_seed(5)
    drawn = T.vmap(lambda x: x + T.rand(3), randomness="different")(x)
    T.manual_seed(5)
    assert T.equal(drawn, T.rand(4, 3))


@pytest.mark.parametrize("name", ["jacobian", "hessian"])
def test_vectorized(name: str) -> None:
    results = []
    for T in (graphtorch, peer):
        x = T.tensor(X)
        function = (
            (lambda x: x.sin() * x.sum())
            if name == "jacobian"
            else (lambda x: (x.sin() * x**2).sum())
        )
        results.append(getattr(T.autograd.functional, name)(function, x, vectorize=True).numpy())
    np.testing.assert_allclose(*results, 1e-9)


PATTERNS: list[tuple[str, dict[str, int]]] = [
    ("a b c -> c a b", {}),
    ("a b c -> (a b) c", {}),
    ("a (b x) c -> x a b c", {"x": 3}),
    ("... c -> c ...", {}),
    ("a ... -> ... a", {}),
    ("a ... c -> c (a ...)", {}),
    ("a b c -> a 1 b () c", {}),
    ("a b c -> (a b c)", {}),
    ("a b (c d) -> a b c d", {}),
    ("a b c -> a b", {}),
    ("a b -> b a", {}),
    ("a b c -> a a c", {}),
    ("a b c", {}),
    ("a (b x) c -> a b x c", {"x": 2}),
    ("a b c -> a b c", {"z": 2}),
    ("a b c -> (a b c", {}),
    ("a b c -> ((a b) c)", {}),
    ("a 3 c -> a c", {}),
    ("(...) -> ...", {}),
    ("a b c -> a 5b c", {}),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: f"{p[0]} {p[1]}")
def test_rearrange(pattern: tuple[str, dict[str, int]]) -> None:
    found = []
    for T in (peer, graphtorch):
        try:
            found.append(
                T.func.rearrange(T.arange(24).reshape(2, 3, 4), pattern[0], **pattern[1]).tolist()
            )
        except Exception as error:  # PyTorch has an error of its own for sizes that do not fit
            own = type(error).__name__ == "DimensionBindError"
            found.append(ValueError if own else type(error))
    assert found[0] == found[1]


@pytest.mark.parametrize("T", [graphtorch, peer], ids=["graphtorch", "torch"])
def test_batch_norm_without_running_statistics(T: Any) -> None:
    net = T.nn.Sequential(T.nn.Linear(2, 3), T.nn.BatchNorm1d(3))
    assert T.func.replace_all_batch_norm_modules_(net) is net
    assert T.vmap(net)(T.randn(4, 5, 2)).shape == (4, 5, 3)
