"""Calls that fail by the values they are given: PyTorch's error, in the call or at the first
use."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphtorch as gt

torch = pytest.importorskip("torch")

NAN = float("nan")
OF_MATRICES: dict[str, Callable[[Any, Any], Any]] = {
    "inv": lambda t, m: t.linalg.inv(m),
    "method": lambda t, m: m.inverse(),
    "solve": lambda t, m: t.linalg.solve(m, t.ones(2)),
    "solve from the right": lambda t, m: t.linalg.solve(m, t.ones(2, 2), left=False),
    "inv_ex": lambda t, m: t.linalg.inv_ex(m, check_errors=True),
    "solve_ex": lambda t, m: t.linalg.solve_ex(m, t.ones(2), check_errors=True),
    "cholesky": lambda t, m: t.linalg.cholesky(m - t.eye(2)),
    "cholesky_ex": lambda t, m: t.linalg.cholesky_ex(m - t.eye(2), check_errors=True),
    "lu_factor": lambda t, m: t.linalg.lu_factor(m),
    "lu_factor_ex": lambda t, m: t.linalg.lu_factor_ex(m, check_errors=True),
    "cholesky_inverse": lambda t, m: t.cholesky_inverse(m),
    "matrix_power": lambda t, m: t.linalg.matrix_power(m, -2),
    "tensorsolve": lambda t, m: t.linalg.tensorsolve(m, t.ones(2)),
    "svd of NaN": lambda t, m: t.linalg.svd(m * NAN),
    "svdvals of NaN": lambda t, m: t.linalg.svdvals(m * NAN),
    "eigh of NaN": lambda t, m: t.linalg.eigh((m.sum() * NAN).expand(3, 3)),
    "det": lambda t, m: t.linalg.det(m),
    "pinv": lambda t, m: t.linalg.pinv(m),
}


def kind(call: Callable[[], Any]) -> str | None:
    try:
        call()
    except Exception as error:
        return type(error).__name__.lstrip("_")
    return None


def used(found: Any) -> None:
    for x in found if isinstance(found, tuple) else (found,):
        x.tolist()


@pytest.mark.parametrize("name", OF_MATRICES)
def test_matrices(name: str) -> None:
    call = OF_MATRICES[name]
    expected = kind(lambda: call(torch, torch.zeros(2, 2)))
    # of numbers of the program: in the call
    assert kind(lambda: call(gt, gt.zeros(2, 2))) == expected
    if "NaN" not in name and not name.startswith("cholesky"):
        assert kind(lambda: call(gt, gt.tensor([[0.0, 0.0], [0.0, 0.0]]))) == expected
    x = gt.tensor([1.0, 2.0])

    def late() -> None:
        used(call(gt, (x.unsqueeze(0) + x.unsqueeze(1)) * 0))

    assert kind(late) == expected
    compiled = gt.compile(lambda m: call(gt, m), fullgraph=True)
    assert kind(lambda: used(compiled(gt.zeros(2, 2)))) == expected


def test_the_error_of_a_call_can_be_caught_there() -> None:
    singular, fine = gt.tensor([[1.0, 1.0], [1.0, 1.0]]), gt.tensor([[2.0, 0.0], [0.0, 4.0]])
    before = fine * 2
    try:
        found = gt.linalg.inv(singular)
    except gt.linalg.LinAlgError as error:
        assert "test_failing_values_torch.py" in str(error)
        found = gt.linalg.inv(fine)
    assert found.tolist() == [[0.5, 0], [0, 0.25]] and before.tolist() == [[4, 0], [0, 8]]


AT_PLACES: dict[str, Callable[[Any, Any], Any]] = {
    "gather": lambda t, i: t.gather(t.ones(3), 0, i),
    "scatter": lambda t, i: t.zeros(3).scatter(0, i, 1.0),
    "scatter of a tensor": lambda t, i: t.zeros(3).scatter(0, i, t.ones(1)),
    "scatter_add": lambda t, i: t.zeros(3).scatter_add(0, i, t.ones(1)),
    "scatter_reduce": lambda t, i: t.zeros(3).scatter_reduce(0, i, t.ones(1), "prod"),
    "index_select": lambda t, i: t.index_select(t.ones(3), 0, i),
    "index_add": lambda t, i: t.zeros(3).index_add(0, i, t.ones(1)),
    "index_copy": lambda t, i: t.zeros(3).index_copy(0, i, t.ones(1)),
    "index_fill": lambda t, i: t.zeros(3).index_fill(0, i, 1.0),
    "take": lambda t, i: t.take(t.ones(3), i),
    "put": lambda t, i: t.ones(3).put(i, t.ones(1)),
    "index": lambda t, i: t.ones(3)[i],
    "index_put": lambda t, i: t.ones(3).index_put((i,), t.tensor(1.0)),
    "embedding": lambda t, i: t.nn.functional.embedding(i, t.ones(3, 2)),
    "one_hot": lambda t, i: t.nn.functional.one_hot(i, 3),
    "nll_loss": lambda t, i: t.nn.functional.nll_loss(t.ones(1, 3), i),
    "cross_entropy": lambda t, i: t.nn.functional.cross_entropy(t.ones(1, 3), i),
    "multi_margin_loss": lambda t, i: t.nn.functional.multi_margin_loss(t.ones(1, 3), i),
    "multilabel": lambda t, i: t.nn.functional.multilabel_margin_loss(
        t.ones(1, 3), t.stack([i, -i, -i], 1)
    ),
    "max_unpool": lambda t, i: t.nn.functional.max_unpool1d(t.ones(1, 1, 1), i.reshape(1, 1, 1), 2),
    "take_along_dim": lambda t, i: t.take_along_dim(t.ones(3), i, 0),
    "searchsorted": lambda t, i: t.searchsorted(t.ones(1), t.ones(1), sorter=i),
    "quantile": lambda t, i: t.quantile(t.ones(3), i.float()),
    "masked_scatter": lambda t, i: t.zeros(3).masked_scatter(i.expand(3) > 0, t.ones(2)),
    "poisson": lambda t, i: t.poisson(-i.float()),
}


@pytest.mark.parametrize("name", AT_PLACES)
def test_places_and_values(name: str) -> None:
    call = AT_PLACES[name]
    expected = kind(lambda: used(call(torch, torch.tensor([3]))))
    made = gt.tensor([3])
    assert kind(lambda: used(call(gt, made))) == expected
    assert kind(lambda: used(call(gt, made + 0))) == expected
    compiled = gt.compile(lambda i: call(gt, i), fullgraph=True)
    for _ in range(2):
        assert kind(lambda: used(compiled(made))) == expected


def test_checks_do_not_split_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphtorch._deferred import running

    runs = []
    run = running._run
    x = gt.tensor([[2.0, 0.5], [0.5, 1.0]])
    monkeypatch.setattr(running, "_run", lambda wanted: (runs.append(1), run(wanted))[1])
    for _ in range(3):
        x = gt.linalg.inv(gt.linalg.cholesky(x @ x.mT + gt.eye(2)))
    x.tolist()
    assert len(runs) == 1


def test_arguments() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calls: list[Callable[[Any], Any]] = [
            lambda t: t.tril_indices(-1, 2),
            lambda t: t.triu_indices(2, -1),
            lambda t: t.renorm(t.ones(2, 2), -1, 0, 1),
            lambda t: t.renorm(t.ones(2, 2), 1, 0, -1),
            lambda t: t.renorm(t.ones(2), 1, 0, 1),
            lambda t: t.binomial(t.tensor([-1.0]), t.tensor([0.5])),
        ]
        for call in calls:
            found = []
            for t in (torch, gt):
                try:
                    found.append(call(t).tolist())
                except RuntimeError as error:
                    found.append(str(error))
            assert found[0] == found[1]
