"""Sparse COO tensors against PyTorch: expressions, their errors, printing, gradients of
look-ups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")


def names(t: Any) -> dict[str, Any]:
    i, v = t.tensor([[0, 1, 1, 0], [2, 0, 2, 2]]), t.tensor([3.0, 4.0, 5.0, 1.0])
    return {
        "torch": t,
        "i": i,
        "v": v,
        "s": t.sparse_coo_tensor(i, v, (2, 4)),
        "d": t.arange(8.0).reshape(2, 4),
        "u": t.sparse_coo_tensor(t.tensor([[1, 1]]), t.ones(2, 3), (5, 3)),
        "w": t.ones(4, 2),
    }


VALUES = """
s.to_dense() | u.to_dense() | s.coalesce().to_dense() | s.coalesce().indices()
s.coalesce().values() | s._nnz() | s.coalesce()._nnz() | s.is_coalesced() | u.sparse_dim()
u.dense_dim() | s.shape | s.numel() | s.type() | len(s) | str(s.layout) | str(d.layout)
s.is_sparse | d.is_sparse | s.stride()
s.is_contiguous() | (d + s) | (d - s) | (s + s).to_dense() | (s - s).to_dense() | (s * 2).to_dense()
(2 * s).to_dense() | (s * d).to_dense() | (d * s).to_dense() | (s * s).to_dense()
(s / 2).to_dense() | torch.add(d, s, alpha=2) | s.add(s, alpha=2).to_dense() | (-s).to_dense()
s.sqrt().to_dense() | s.abs().to_dense() | s.pow(2).to_dense() | torch.relu(s).to_dense() | s @ w
torch.mm(s, w) | torch.sparse.mm(s, w) | (torch.ones(3, 2) @ s) | s @ w[:, 0] | s.t().to_dense()
s.sum() | s.norm() | s.to(torch.float64).to_dense() | s.double().dtype == torch.float64
d.to_sparse().to_dense() | d.to_sparse()._nnz() | d.to_sparse(1)._nnz()
d.sparse_mask(s.coalesce()).to_dense() | d.clone().add_(s)
d.clone().sub_(s) | s.clone().add_(s).to_dense() | s.clone().mul_(2).to_dense()
s.clone().zero_()._nnz() | torch.zeros_like(s)._nnz() | s.detach().to_dense() | d.to_dense() is d
torch.sparse_coo_tensor(i, v).shape | torch.sparse_coo_tensor((2, 3)).to_dense()
torch.sparse.sum(s) | torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0]).to_dense()
(u + u).coalesce().values()
"""
ERRORS = """
s + d | s + 1 | s / d | u.indices() | u.values() | s.numpy() | s.exp() | s.view(8) | s.reshape(8)
s == s | s.max() | s.contiguous() | d.coalesce() | d.indices() | d.is_coalesced() | d._nnz()
d.clone().copy_(s) | s.tolist() | bool(s) | torch.sparse_coo_tensor(i, v[:2], (2, 4))
torch.sparse_coo_tensor(i, v, (2,)) | torch.ones_like(s) | d[:1] + s | s @ torch.ones(3, 2)
s.storage() | s.clone().add_(d) | torch.sparse_coo_tensor(i, v, (1, 1), check_invariants=True)
d.to_sparse(3)
"""


def listed(text: str) -> list[str]:
    return [e.strip() for line in text.strip().splitlines() for e in line.split("|")]


@pytest.mark.parametrize("expression", listed(VALUES))
def test_values(expression: str) -> None:
    theirs, ours = (eval(expression, names(t)) for t in (torch, graphtorch))
    if isinstance(theirs, torch.Tensor):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), 1e-6)
        assert str(ours.dtype) == str(theirs.dtype)
    else:
        assert ours == theirs


@pytest.mark.parametrize("expression", listed(ERRORS))
def test_errors(expression: str) -> None:
    with pytest.raises(Exception) as theirs:
        eval(expression, names(torch))
    with pytest.raises(theirs.type):
        eval(expression, names(graphtorch))


@pytest.mark.parametrize(
    "expression",
    [
        "s",
        "u",
        "s.coalesce()",
        "s.int()",
        "s.double()",
        "torch.sparse_coo_tensor((2, 3))",
        "d.to_sparse(1)",
    ],
)
def test_printing(expression: str) -> None:
    theirs, ours = (repr(eval(expression, names(t))) for t in (torch, graphtorch))
    assert ours == theirs


def gradients(t: Any, padding: int | None) -> list[Any]:
    """The gradient of a table after each of several backward passes that meet in it."""
    w, found = t.ones(5, 3, requires_grad=True), []
    look = t.nn.functional.embedding

    def pass_(sparse: bool, index: list[int], more: Any = 0) -> None:
        ((look(t.tensor(index), w, padding_idx=padding, sparse=sparse) * 2).sum() + more).backward()
        found.append((str(w.grad.layout), w.grad.to_dense().numpy()))

    pass_(True, [1, 1, 2])
    pass_(True, [3])  # sparse + sparse
    pass_(False, [0, 3])  # sparse + dense
    pass_(True, [4])  # dense + sparse
    w.grad = None
    pass_(True, [1, 2], (w * 3).sum())  # meet before they arrive
    w.grad = None
    # through an operation
    rows = look(t.tensor([1, 2, 1]), w * 2, padding_idx=padding, sparse=True)
    (rows * 2).sum().backward()
    return [*found, ("", w.grad.to_dense().numpy())]


@pytest.mark.parametrize("padding", [None, 1])
def test_gradients_of_look_ups(padding: int | None) -> None:
    found = [gradients(t, padding) for t in (torch, graphtorch)]
    for (layout, theirs), (ours_layout, ours) in zip(*found, strict=True):
        assert layout == ours_layout
        np.testing.assert_array_equal(ours, theirs)


def test_gradients_through_sparse_tensors() -> None:
    found = []
    for t in (torch, graphtorch):
        v, w = (
            t.tensor([1.0, 2.0, 3.0], requires_grad=True),
            t.arange(8.0).reshape(4, 2).requires_grad_(),
        )
        s = t.sparse_coo_tensor(t.tensor([[0, 1, 1], [2, 0, 2]]), v, (2, 4))
        ((t.sparse.mm(s, w) ** 2).sum() + (s.to_dense() * 2).sum()).backward()
        leaf = t.sparse_coo_tensor(
            t.tensor([[0, 1], [2, 0]]), t.ones(2), (2, 4), requires_grad=True
        )
        (leaf.to_dense() * 3).sum().backward()
        found.append([v.grad.numpy(), w.grad.numpy(), leaf.grad.to_dense().numpy()])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-6)


@pytest.mark.parametrize("reduce", ["sum", "mean", "amax", "amin", "prod", "other", "layout"])
def test_reduced_products(reduce: str) -> None:
    """Ties, NaN, and a row without entries; the gradient of a sparse leaf is sparse."""
    found = []
    for t in (torch, graphtorch):
        dense = t.tensor([[1.0, 0.0, 2.0], [0, 0, 0], [3, 0, 3], [float("nan"), 1, 0]])
        a = dense.to_sparse() if reduce == "layout" else dense.to_sparse_csr()
        a, b = a.requires_grad_(), t.tensor([[1.0, -2.0], [4, 0], [1, 5]], requires_grad=True)
        try:
            y = t.sparse.mm(a, b, "sum" if reduce == "layout" else reduce)
        except (RuntimeError, NotImplementedError) as error:
            found.append(type(error) if reduce != "layout" else "refused")
            continue
        weights = t.arange(8.0).reshape(4, 2)
        ga, gb = t.autograd.grad(y, (a, b), weights)
        assert str(ga.layout) == "torch.sparse_csr"
        found.append([x.detach().numpy() for x in (y, ga.values(), gb)])
    theirs, ours = found
    assert isinstance(ours, list) == (reduce in ("sum", "mean", "amax", "amin"))
    if not isinstance(ours, list):
        assert ours == theirs
        return
    for x, y in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(y, x, 1e-6)


def test_capture_says_what_to_do() -> None:
    def made() -> tuple[Any, Any]:
        table = graphtorch.nn.Parameter(graphtorch.ones(5, 3))
        optimizer = graphtorch.optim.SparseAdam([table])

        def step(index: Any) -> None:
            optimizer.zero_grad()
            graphtorch.nn.functional.embedding(index, table, sparse=True).sum().backward()
            optimizer.step()

        return table, step

    index = graphtorch.tensor([1, 2])
    with pytest.raises(RuntimeError, match="captured"):
        graphtorch.compile(made()[1], fullgraph=True)(index)
    (plain, step), (compiled, other) = made(), made()
    other = graphtorch.compile(other)  # goes on line by line
    for _ in range(3):
        step(index)
        other(index)
    assert graphtorch.equal(plain, compiled) and not graphtorch.equal(plain, graphtorch.ones(5, 3))


@pytest.mark.parametrize("padding", [None, 1])
def test_compiled_step_with_sparse_gradients(padding: int | None) -> None:
    table = graphtorch.nn.Parameter(graphtorch.ones(5, 3))
    optimizer = graphtorch.optim.SGD([table], lr=0.5)

    @graphtorch.compile
    def step(index: Any) -> Any:
        loss = graphtorch.nn.functional.embedding(index, table, padding, sparse=True).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for k in range(3):
        step(graphtorch.tensor([k, k, 1]))
    rest = [0.0, 1.0 if padding == 1 else -1.5, 0.0, 1.0, 1.0]
    np.testing.assert_array_equal(table.detach().numpy()[:, 0], rest)


@pytest.mark.parametrize("name", ["spmm", "dsmm"])
def test_older_names_of_the_product(name: str) -> None:
    def outcome(lib: Any) -> list[Any]:
        values = lib.tensor([2.0, 3.0], requires_grad=True)
        dense = lib.tensor([[1.0, 4.0], [2.0, -1.0]], requires_grad=True)
        sparse = lib.sparse_coo_tensor(lib.tensor([[0, 1], [1, 0]]), values, (2, 2))
        product = getattr(lib, name)(sparse, dense)
        (product * product).sum().backward()
        return [product.tolist(), values.grad.tolist(), dense.grad.tolist()]

    assert outcome(graphtorch) == outcome(torch)


def test_sparse_products_that_stay_sparse() -> None:
    """Rows without entries stay empty; entries that are given twice count twice."""
    dense = np.arange(8.0).reshape(2, 4) - 3

    def parts(found: Any) -> list[Any]:
        whole = found.to_dense().tolist()
        found = found.coalesce()
        return [found.indices().tolist(), found.values().tolist(), tuple(found.shape), whole]

    def outcome(lib: Any) -> list[Any]:
        places, values = lib.tensor([[0, 3, 3, 0], [1, 0, 0, 0]]), lib.tensor([2.0, 1.0, 4.0, -1.0])
        a = lib.sparse_coo_tensor(places, values.double(), (5, 2))
        x = lib.tensor(dense)
        more = lib.sparse_coo_tensor(lib.tensor([[1, 3], [2, 0]]), lib.ones(2).double(), (5, 4))
        return [
            parts(lib.hspmm(a, x)),
            parts(lib.smm(a, x)),
            parts(a.smm(x)),
            parts(lib.sspaddmm(more, a, x, beta=3, alpha=0.5)),
            lib.sspaddmm(more, a, x)._nnz(),
        ]

    assert outcome(graphtorch) == outcome(torch)
    with pytest.raises(RuntimeError, match="expected a sparse matrix"):
        graphtorch.hspmm(graphtorch.ones(2, 2), graphtorch.ones(2, 2))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        graphtorch.smm(graphtorch.eye(3).to_sparse(), graphtorch.ones(2, 2))
