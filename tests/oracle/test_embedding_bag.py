"""Bags of embeddings and the adaptive softmax against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare, same_error

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((6, 3)).astype(np.float32)
FLAT = np.array([1, 5, 2, 2, 4, 1, 0, 5])
ROWS = FLAT.reshape(2, 4)
STARTS = np.array([0, 3, 3, 7])  # the second bag is empty
FACTORS = RNG.standard_normal(8).astype(np.float32)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 5, -4])
@pytest.mark.parametrize(
    "starts", [None, STARTS, np.array([0, 2, 8])], ids=["rows", "offsets", "last offset"]
)
def test_modes(mode, padding, starts):
    include = starts is not None and len(starts) == 3

    def call(t, _, table):
        index = t.tensor(ROWS if starts is None else FLAT)
        offsets = None if starts is None else t.tensor(starts)
        return t.nn.functional.embedding_bag(
            index, table, offsets, mode=mode, padding_idx=padding, include_last_offset=include
        )

    compare(call, [TABLE])


def test_a_norm_changes_the_table_in_place():
    def call(t, _, table):
        leaf = table.detach().clone()
        out = t.nn.functional.embedding_bag(
            t.tensor(FLAT), leaf, t.tensor(STARTS), max_norm=0.7, norm_type=1.0
        )
        return out, leaf

    compare(call, [TABLE])


def test_gradients_scaled_by_frequency():
    """PyTorch 2.13 looks some frequencies up in the wrong place; this is what its documentation
    says."""
    table = gt.tensor(TABLE, requires_grad=True)
    bags = gt.nn.functional.embedding_bag(
        gt.tensor(ROWS), table, mode="sum", scale_grad_by_freq=True
    )
    bags.sum().backward()
    np.testing.assert_allclose(
        table.grad.numpy(), np.repeat(np.isin(np.arange(6), FLAT)[:, None], 3, 1)
    )


def test_factors_have_gradients():
    compare(
        lambda t, _, table, factors: t.nn.functional.embedding_bag(
            t.tensor(FLAT),
            table,
            t.tensor(STARTS),
            mode="sum",
            per_sample_weights=factors,
            padding_idx=2,
        ),
        [TABLE, FACTORS],
    )


def test_sparse_gradient():
    for t in (torch, gt):
        layer = t.nn.EmbeddingBag(6, 3, mode="sum", sparse=True, _weight=t.tensor(TABLE))
        layer(t.tensor(ROWS)).sum().backward()
        assert layer.weight.grad.is_sparse
        dense = layer.weight.grad.to_dense().numpy()
        np.testing.assert_array_equal(dense[:, 0], np.bincount(FLAT, minlength=6))


def test_nothing_at_all():
    nothing = gt.zeros(0, dtype=gt.int64)
    for mode in ("sum", "mean", "max"):
        out = gt.nn.functional.embedding_bag(
            nothing, gt.tensor(TABLE), gt.tensor([0, 0]), mode=mode
        )
        np.testing.assert_array_equal(out.numpy(), np.zeros((2, 3)))
        assert gt.nn.functional.embedding_bag(
            gt.tensor(FLAT), gt.tensor(TABLE), nothing, mode=mode
        ).shape == (0, 3)


def test_one_compiled_call_serves_all_offsets():
    layer = gt.nn.EmbeddingBag(6, 3, mode="max", _weight=gt.tensor(TABLE))
    compiled = gt.compile(layer)
    for starts in ([0, 3, 3, 7], [0, 1, 2, 5], [0, 8, 8, 8]):
        found = compiled(gt.tensor(FLAT), gt.tensor(starts))
        want = torch.nn.functional.embedding_bag(
            torch.tensor(FLAT), torch.tensor(TABLE), torch.tensor(starts), mode="max"
        )
        np.testing.assert_allclose(found.detach().numpy(), want.numpy(), 1e-6)


REFUSED = {
    "offsets of rows": lambda t: (t.tensor(ROWS), t.tensor(TABLE), t.tensor([0])),
    "no offsets": lambda t: (t.tensor(FLAT), t.tensor(TABLE)),
    "rank of offsets": lambda t: (t.tensor(FLAT), t.tensor(TABLE), t.tensor([[0]])),
    "rank of input": lambda t: (t.tensor(0), t.tensor(TABLE)),
    "rank of weight": lambda t: (t.tensor(ROWS), t.tensor(TABLE[0])),
    "first offset": lambda t: (t.tensor(FLAT), t.tensor(TABLE), t.tensor([1, 2])),
    "last offset": lambda t: (t.tensor(FLAT), t.tensor(TABLE), t.tensor([0, 9])),
    "indices": lambda t: (t.tensor([0.5]), t.tensor(TABLE), t.tensor([0])),
    "table": lambda t: (t.tensor(ROWS), t.tensor(TABLE).long()),
    "mode": lambda t: (t.tensor(ROWS), t.tensor(TABLE), None, None, 2, False, "median"),
    "max by frequency": lambda t: (t.tensor(ROWS), t.tensor(TABLE), None, None, 2, True, "max"),
    "max sparse": lambda t: (t.tensor(ROWS), t.tensor(TABLE), None, None, 2, False, "max", True),
    "factors of means": lambda t: (
        t.tensor(ROWS),
        t.tensor(TABLE),
        None,
        None,
        2,
        False,
        "mean",
        False,
        t.ones(2, 4),
    ),
    "shape of factors": lambda t: (
        t.tensor(ROWS),
        t.tensor(TABLE),
        None,
        None,
        2,
        False,
        "sum",
        False,
        t.ones(3),
    ),
    "dtype of factors": lambda t: (
        t.tensor(ROWS),
        t.tensor(TABLE),
        None,
        None,
        2,
        False,
        "sum",
        False,
        t.ones(2, 4).double(),
    ),
    "empty rows": lambda t: (t.zeros(2, 0).long(), t.tensor(TABLE)),
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_what_bags_refuse(arguments):
    same_error(lambda t: t.nn.functional.embedding_bag(*arguments(t)))


def test_flags_are_bools():
    same_error(lambda t: t.nn.functional.embedding_bag(t.tensor(ROWS), t.tensor(TABLE), sparse=[1]))
    x = np.ones((2, 3), np.float32)
    same_error(
        lambda t: t.nn.functional.scaled_dot_product_attention(*[t.tensor(x)] * 3, is_causal=[1])
    )


def test_layer():
    theirs, mine = (
        t.nn.EmbeddingBag(6, 3, max_norm=2.0, padding_idx=-1, mode="sum") for t in (torch, gt)
    )
    assert repr(mine) == repr(theirs)
    assert not mine.weight[5].any()
    same_error(lambda t: t.nn.EmbeddingBag(6, 3, padding_idx=6))
    same_error(lambda t: t.nn.EmbeddingBag(6, 3, _weight=t.ones(5, 3)))
    frozen = gt.nn.EmbeddingBag.from_pretrained(gt.tensor(TABLE), mode="max")
    assert not frozen.weight.requires_grad and frozen.mode == "max"


# adaptive softmax ---------------------------------------------------------------------------------


def adaptive(**options):
    torch.manual_seed(0)
    theirs, mine = (
        t.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10, 15], div_value=2.0, **options)
        for t in (torch, gt)
    )
    assert repr(mine) == repr(theirs)
    mine.load_state_dict({k: gt.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return theirs, mine


X = RNG.standard_normal((7, 8)).astype(np.float32)


@pytest.mark.parametrize(
    "target", [[0, 5, 12, 19, 3, 4, 15], [1, 2, 0, 3, 1, 2, 3]], ids=["all", "head only"]
)
def test_adaptive_softmax(target):
    compare(lambda t, module, x: tuple(module(x, t.tensor(target))), [X], *adaptive(head_bias=True))


def test_adaptive_softmax_without_a_batch_and_its_other_methods():
    theirs, mine = adaptive()
    compare(lambda t, module, x: tuple(module(x, t.tensor(11))), [X[0].copy()], theirs, mine)
    compare(lambda t, module, x: module.log_prob(x), [X], theirs, mine)
    np.testing.assert_array_equal(
        mine.predict(gt.tensor(X)).numpy(), theirs.predict(torch.tensor(X)).numpy()
    )


BAD_TARGETS = {
    "rank": lambda t: (t.ones(2, 8), t.tensor([[0, 1]])),
    "batch": lambda t: (t.ones(2, 8), t.tensor([0])),
    "input": lambda t: (t.ones(2, 2, 8), t.tensor([0, 1])),
    "single": lambda t: (t.ones(2, 8), t.tensor(0)),
    "too large": lambda t: (t.ones(2, 8), t.tensor([0, 20])),
    "negative": lambda t: (t.ones(2, 8), t.tensor([0, -1])),
}


@pytest.mark.parametrize("arguments", BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_what_the_adaptive_softmax_refuses(arguments):
    same_error(lambda t: t.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4])(*arguments(t)))


@pytest.mark.parametrize("cutoffs", [[], [5, 5], [0, 3], [3, 20], [7, 3], [2.5]])
def test_cutoffs(cutoffs):
    same_error(lambda t: t.nn.AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs))


def test_inside_a_compiled_call_a_class_out_of_range_is_pytorchs_error():
    compiled = gt.compile(adaptive()[1])
    compiled(gt.tensor(X[:2]), gt.tensor([3, 19]))
    for bad in (20, -1):
        with pytest.raises(RuntimeError, match="out of bounds"):
            compiled(gt.tensor(X[:2]), gt.tensor([3, bad])).loss.item()
