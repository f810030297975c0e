"""What hooks for saved tensors see, and what nodes of the autograd graph tell, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt
import graphtorch.autograd.graph

torch = pytest.importorskip("torch")


def _operands(t: Any) -> tuple[Any, Any, Any]:
    x = (t.arange(9.0).reshape(3, 3) * 0.1 + 0.05).requires_grad_()
    w = (t.arange(9.0).reshape(3, 3).T * 0.2 + 0.1).requires_grad_()
    return x, w, t.full((3, 3), 0.5)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "product": lambda t, x, w, c: x * w,
    "constant": lambda t, x, w, c: x * c,
    "number": lambda t, x, w, c: x * 2,
    "square": lambda t, x, w, c: x * x,
    "power": lambda t, x, w, c: x**2,
    "exp": lambda t, x, w, c: x.exp(),
    "sin": lambda t, x, w, c: x.sin(),
    "relu": lambda t, x, w, c: x.relu(),
    "tanh": lambda t, x, w, c: x.tanh(),
    "matmul": lambda t, x, w, c: x @ w,
    "sum": lambda t, x, w, c: (x + w).sum(0),
    "views": lambda t, x, w, c: x.t().reshape(9),
    "softmax": lambda t, x, w, c: x.softmax(0),
    "linear": lambda t, x, w, c: t.nn.functional.linear(x, w),
    "conv": lambda t, x, w, c: t.nn.functional.conv1d(x[None], w[:, :, None]),
    "where": lambda t, x, w, c: t.where(c > 0.4, x, w),
    "norm": lambda t, x, w, c: x.norm(),
    "embedding": lambda t, x, w, c: t.nn.functional.embedding(t.tensor([0, 1]), x),
    "mse": lambda t, x, w, c: t.nn.functional.mse_loss(x, c),
    "std": lambda t, x, w, c: x.std(),
    "in place": lambda t, x, w, c: x.exp().mul_(2),
    "chain": lambda t, x, w, c: ((x @ w).relu() * c).exp(),
}


def _counted(t: Any, of: Callable[..., Any], hooks: bool) -> list[Any]:
    x, w, c = _operands(t)
    packed: list[Any] = []
    unpacked: list[int] = []

    def pack(tensor: Any) -> Any:
        packed.append(sorted(tensor.shape))
        assert not t.is_grad_enabled()
        # which must show in the gradient
        return tensor * 0.5 if tensor.is_floating_point() else tensor

    def unpack(tensor: Any) -> Any:
        unpacked.append(1)
        return tensor

    if hooks:
        with t.autograd.graph.saved_tensors_hooks(pack, unpack):
            y = of(t, x, w, c)
    else:
        y = of(t, x, w, c)
    y.sum().backward()
    grads = [None if v.grad is None else v.grad.flatten().tolist() for v in (x, w)]
    return [packed, len(unpacked), *grads]


@pytest.mark.parametrize("name", OPERATIONS)
def test_hooks_see_what_is_read_and_gradients_follow_them(name: str) -> None:
    mine, other = [_counted(t, OPERATIONS[name], True) for t in (gt, torch)]
    assert mine[:2] == other[:2]
    for a, b in zip(mine[2:], other[2:], strict=True):
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, rel=1e-5)


def _function(t: Any) -> Any:
    class Doubled(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            result = a * 2
            ctx.save_for_backward(a, None, result)
            return result

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            a, nothing, result = ctx.saved_tensors
            assert nothing is None
            return g * a + result

    return Doubled


def _own_functions(t: Any) -> list[Any]:
    x = t.ones(2, requires_grad=True)
    seen: list[str] = []
    with t.autograd.graph.saved_tensors_hooks(
        lambda s: (seen.append("p"), s * 3)[1], lambda s: (seen.append("u"), s)[1]
    ):
        y = _function(t).apply(x)
    y.sum().backward()
    return [seen, x.grad.tolist()]


def _blocks(t: Any) -> list[Any]:
    graph, (x, w, _) = t.autograd.graph, _operands(t)
    seen: list[str] = []

    def hooks(mark: str) -> Any:
        return graph.saved_tensors_hooks(lambda s: (seen.append(mark), s)[1], lambda s: s)

    with hooks("outer"):
        with hooks("inner"):
            x * w
        x.exp()
        with graph.save_on_cpu():
            y = (x * w).sum()
    y.backward()
    with graph.disable_saved_tensors_hooks("none here"):
        refused = _error(lambda: hooks("x").__enter__())
    with hooks("y"):
        refused_too = _error(lambda: graph.disable_saved_tensors_hooks("not either").__enter__())
    return [seen, x.grad.flatten().tolist() == w.flatten().tolist(), refused, refused_too]


def _error(of: Callable[[], Any]) -> Any:
    try:
        of()
    except Exception as error:
        return type(error).__name__, str(error)[:60]
    return None


def _mistakes(t: Any) -> list[Any]:
    graph, (x, w, _) = t.autograd.graph, _operands(t)

    def under(pack: Any, unpack: Any) -> Any:
        with graph.saved_tensors_hooks(pack, unpack):
            y = x * w
        y.sum().backward()

    y = x.exp()
    y.sum().backward()
    found = [
        _error(lambda: under(lambda s: s.add_(1), lambda s: s)),
        _error(lambda: under(lambda s: s, lambda s: 5)),
        _error(lambda: y.grad_fn._saved_result),
    ]
    return [*found, hasattr((x + 1).grad_fn, "_saved_self")]


def _twice(t: Any) -> list[Any]:
    x, w, _ = _operands(t)
    with t.autograd.graph.saved_tensors_hooks(lambda s: s.double(), lambda s: s.float() * 2):
        y = (x.exp() * w + x**3).sum()
    (g,) = t.autograd.grad(y, x, create_graph=True)
    (h,) = t.autograd.grad(g.sum(), x)
    return [*g.flatten().tolist(), *h.flatten().tolist()]


def _written(t: Any) -> list[Any]:
    graph = t.autograd.graph
    a = t.ones(2, requires_grad=True)
    with graph.allow_mutation_on_saved_tensors():
        b = a.clone()
        out = (b**2).sum() + _function(t).apply(b).sum()
        b.sin_()
        out.backward()
        nested = _error(lambda: graph.allow_mutation_on_saved_tensors().__enter__())
    c = a.clone()
    with graph.saved_tensors_hooks(lambda s: s.clone(), lambda s: s):
        out = (c**2).sum()
    c.sin_()
    out.backward()
    return [a.grad.tolist(), nested]


def _nodes(t: Any) -> list[Any]:
    graph, (x, w, _) = t.autograd.graph, _operands(t)
    y, z, p = x.exp(), x * w, x.pow(2)
    product, affine = x @ w, t.addmm(x, x, w)
    seen: list[str] = []
    raw = y.grad_fn._raw_saved_result
    raw.register_hooks(
        lambda s: (seen.append("p"), s * 0 + 2)[1], lambda s: (seen.append("u"), s)[1]
    )
    again = _error(lambda: raw.register_hooks(lambda s: s, lambda s: s))
    y.sum().backward()
    edge = graph.get_gradient_edge(z)
    root = z.sum()
    return [
        t.equal(z.grad_fn._saved_other, w),
        p.grad_fn._saved_self is x,
        y.grad_fn is y.grad_fn,
        t.equal(product.grad_fn._saved_mat2, w),
        t.equal(affine.grad_fn._saved_mat1, x),
        seen,
        again,
        x.grad.flatten().tolist(),
        z.grad_fn.name(),
        [f.name() for f, _ in z.grad_fn.next_functions],
        z.grad_fn._sequence_nr() > y.grad_fn._sequence_nr(),
        isinstance(z.grad_fn, graph.Node),
        [t.equal(a, b) for a, b in zip(z.grad_fn(t.ones(3, 3)), (w, x), strict=True)],
        t.autograd.grad(root, edge, retain_graph=True)[0].tolist(),
        t.equal(t.autograd.grad(graph.get_gradient_edge(root), x)[0], w),
    ]


def _several(t: Any) -> list[Any]:
    calls: list[Any] = []
    leaves = [t.ones(2, requires_grad=True) for _ in range(4)]
    a, b, c, d = leaves

    def note(found: Any) -> None:
        calls.append([g is not None for g in found] if isinstance(found, (tuple, list)) else "one")

    for mode in ("all", "any"):
        handle = t.autograd.graph.register_multi_grad_hook(leaves, note, mode=mode)
        (a * b).sum().backward()
        (a * b * c * d).sum().backward()
        handle.remove()
        (a * b).sum().backward()
    return calls


@pytest.mark.parametrize(
    "of",
    [_own_functions, _blocks, _mistakes, _twice, _written, _nodes, _several],
    ids=lambda f: f.__name__[1:],
)
@pytest.mark.filterwarnings("ignore")
def test_alike(of: Callable[[Any], Any]) -> None:
    mine, other = of(gt), of(torch)
    for a, b in zip(mine, other, strict=True):
        assert a == (pytest.approx(b, rel=1e-5) if isinstance(b, float) else b)


def test_compiled_functions_inside_run_line_by_line() -> None:
    x = gt.ones(3, requires_grad=True)
    compiled = gt.compile(lambda v: (v.exp() * 2).sum())
    for _ in range(3):
        compiled(x)
    seen: list[Any] = []
    with gt.autograd.graph.saved_tensors_hooks(lambda s: (seen.append(1), s)[1], lambda s: s):
        y = compiled(x)
    assert len(seen) == 1
    y.backward()
    with pytest.raises(RuntimeError, match="outside of the captured function"):
        gt.trace(lambda v: _inside(v), x.detach())


def _inside(v: Any) -> Any:
    with gt.autograd.graph.save_on_cpu():
        return v * 2


def test_what_is_unpacked_has_to_fit() -> None:
    x = gt.ones(3, requires_grad=True)
    with gt.autograd.graph.saved_tensors_hooks(lambda s: s, lambda s: s[:1]):
        y = x.exp()
    with pytest.raises(RuntimeError, match="give back what was packed"):
        y.sum().backward()
