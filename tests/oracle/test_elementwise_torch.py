"""The function of each elementwise op is PyTorch's, at smooth points and at corners."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch
from elementwise_cases import Case, named, operands, points

torch = pytest.importorskip("torch")

CASES = [pytest.param(n, c, id=f"{n} {i}") for i, (n, c) in enumerate(named())]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_function(name: str, case: Case) -> None:
    for kind in ("smooth", "corners"):
        lists = operands(name, points(name, case, kind))
        expected, found = [
            case.function(package)(*[package.tensor(x) for x in lists])
            for package in (torch, graphtorch)
        ]
        assert str(found.dtype).split(".")[1] == str(expected.dtype).split(".")[1]
        np.testing.assert_allclose(found.numpy(), expected.numpy(), 3e-6, 1e-6)
