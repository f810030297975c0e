"""CTC loss against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare, same_error

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(8)
SCORES = RNG.standard_normal((7, 3, 5))
PADDED = np.array([[1, 1, 4, 2], [3, 2, -1, 99], [2, 4, 4, 4]])
JOINED = np.array([1, 1, 4, 2, 3, 2, 2])
CASES = {
    "padded": (SCORES, PADDED, (7, 6, 5), (4, 2, 1), {}),
    "joined": (SCORES, JOINED, (7, 6, 5), (4, 2, 1), {"reduction": "sum"}),
    "nothing to find": (SCORES, PADDED, (7, 0, 5), (0, 0, 2), {"reduction": "none"}),
    "no targets": (SCORES, PADDED[:, :0], (7, 6, 5), (0, 0, 0), {"reduction": "none"}),
    "another blank": (
        SCORES,
        np.array([[0, 1], [3, 3], [2, 0]]),
        (7, 6, 5),
        (2, 2, 2),
        {"blank": 4},
    ),
    "impossible": (SCORES, PADDED, (3, 6, 0), (4, 2, 1), {"reduction": "none"}),
    "impossible made zero": (SCORES, PADDED, (3, 6, 0), (4, 2, 1), {"zero_infinity": True}),
    "single": (SCORES[:, 0].copy(), PADDED[0], (6,), (3,), {"reduction": "none"}),
}


@pytest.mark.parametrize(
    ("scores", "targets", "steps", "lengths", "options"), CASES.values(), ids=CASES
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients(scores, targets, steps, lengths, options, dtype):
    if "joined" not in options and targets.ndim == 1 and len(lengths) == 1:
        targets = targets[: lengths[0]]

    def call(t, _, x):
        return t.nn.functional.ctc_loss(
            x.log_softmax(-1), t.tensor(targets), steps, lengths, **options
        )

    compare(call, [scores.astype(dtype)], tolerance=1e-4 if dtype == np.float32 else 1e-9)


def test_the_gradient_leaves_the_normalisation_out_as_pytorchs():
    compare(
        lambda t, _, x: t.nn.functional.ctc_loss(
            x, t.tensor(PADDED), t.tensor([7, 6, 5]), t.tensor([4, 2, 1])
        ),
        [SCORES.astype(np.float32)],
    )


REFUSED = {
    "too many steps": lambda t, x, y: (x, y, (8, 6, 5), (4, 2, 1)),
    "negative": lambda t, x, y: (x, y, (7, 6, -1), (4, 2, 1)),
    "negative target": lambda t, x, y: (x, y, (7, 6, 5), (4, 2, -1)),
    "few inputs": lambda t, x, y: (x, y, (7, 6), (4, 2, 1)),
    "few targets": lambda t, x, y: (x, y, (7, 6, 5), (4, 2)),
    "targets too short": lambda t, x, y: (x, y, (7, 6, 5), (5, 2, 1)),
    "targets of another batch": lambda t, x, y: (x, y[:2], (7, 6, 5), (4, 2, 1)),
    "joined targets": lambda t, x, y: (x, y.reshape(-1), (7, 6, 5), (4, 2, 1)),
    "floating lengths": lambda t, x, y: (x, y, t.ones(3), t.ones(3)),
    "tensor and tuple": lambda t, x, y: (x, y, t.tensor([7, 6, 5]), (4, 2, 1)),
    "an int": lambda t, x, y: (x[:, 0], y[0], 7, 4),
    "blank": lambda t, x, y: (x, y, (7, 6, 5), (4, 2, 1), 5),
    "reduction": lambda t, x, y: (x, y, (7, 6, 5), (4, 2, 1), 0, "median"),
    "targets of numbers": lambda t, x, y: (x, [1, 2], (7, 6, 5), (4, 2, 1)),
    "lengths of text": lambda t, x, y: (x, y, "765", (4, 2, 1)),
    "blank of text": lambda t, x, y: (x, y, (7, 6, 5), (4, 2, 1), "0"),
    "rank": lambda t, x, y: (x[0, 0], y, (7, 6, 5), (4, 2, 1)),
    "half": lambda t, x, y: (x.half(), y, (7, 6, 5), (4, 2, 1)),
    "integers": lambda t, x, y: (x.long(), y, (7, 6, 5), (4, 2, 1)),
    "empty": lambda t, x, y: (x[:, :0], y[:0], (), ()),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(arguments):
    same_error(
        lambda t: t.nn.functional.ctc_loss(*arguments(t, t.tensor(SCORES), t.tensor(PADDED)))
    )


def test_layer_trains():
    gt.manual_seed(0)
    model, loss = gt.nn.Linear(4, 5), gt.nn.CTCLoss(reduction="sum")
    optimizer = gt.optim.Adam(model.parameters(), lr=0.1)
    x, targets = gt.randn(6, 2, 4), gt.tensor([[1, 2], [3, 3]])
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        value = loss(model(x).log_softmax(2), targets, gt.tensor([6, 5]), gt.tensor([2, 2]))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0] / 2


def test_one_compiled_call_serves_all_lengths():
    compiled = gt.compile(gt.nn.CTCLoss(reduction="none"))
    scores = SCORES.astype(np.float32)
    for steps, lengths in (((7, 6, 5), (4, 2, 1)), ((7, 7, 2), (1, 0, 1))):
        given = (np.array(steps), np.array(lengths))
        found = compiled(gt.tensor(scores), gt.tensor(PADDED), *map(gt.tensor, given))
        want = torch.nn.functional.ctc_loss(
            *map(torch.tensor, (scores, PADDED, *given)), reduction="none"
        )
        np.testing.assert_allclose(found.numpy(), want.numpy(), 1e-5)
