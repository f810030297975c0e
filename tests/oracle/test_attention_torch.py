"""Attention and the Transformer classes against PyTorch."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare, error_of

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(5)


def array(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


Q, K, V = array(2, 4, 3, 8), array(2, 2, 5, 8), array(2, 2, 5, 6)
SEEN = RNG.random((3, 5)) > 0.4
SEEN[0] = False
SDPA = {
    "plain": ((Q[:, :2], K, V), {}),
    "scale, unbatched": ((Q[0, 0], K[0, 0], V[0, 0]), {"scale": 0.3}),
    "causal": ((Q[:, :2], K, V), {"is_causal": True}),
    "boolean mask": ((Q[:, :2], K, V, SEEN), {}),
    "added mask": ((Q[:, :2], K, V, array(2, 1, 3, 5)), {}),
    "grouped heads": ((Q, K, V, array(2, 4, 3, 5)), {"enable_gqa": True}),
    "more groups of keys": ((Q, K, V[:, :1]), {"enable_gqa": True}),
    "broadcast": ((Q[:, :2], K[:1], V[:, :1]), {}),
}


@pytest.mark.parametrize(("arrays", "options"), SDPA.values(), ids=SDPA)
def test_scaled_dot_product_attention(arrays, options):
    compare(lambda t, _, *x: t.nn.functional.scaled_dot_product_attention(*x, **options), arrays)


REFUSED = {
    "sizes": lambda t, q, k, v: (q, k[..., :7], v),
    "lengths": lambda t, q, k, v: (q, k, v[:, :, :4]),
    "dtypes": lambda t, q, k, v: (q, k.double(), v),
    "integers": lambda t, q, k, v: (q.long(), k.long(), v.long()),
    "rank": lambda t, q, k, v: (q[0, 0, 0], k, v),
    "mask dtype": lambda t, q, k, v: (q, k, v, t.ones(3, 5).int()),
    "mask shape": lambda t, q, k, v: (q, k, v, t.ones(3, 4)),
    "mask rank": lambda t, q, k, v: (q, k, v, t.ones(1, 2, 2, 3, 5) + t.ones(3, 1, 1, 1, 1)),
    "causal and mask": lambda t, q, k, v: (q, k, v, t.ones(3, 5), 0.0, True),
    "probability": lambda t, q, k, v: (q, k, v, None, 1.5),
    "not a tensor": lambda t, q, k, v: (q, [1], v),
    "mask of numbers": lambda t, q, k, v: (q, k, v, [1]),
    "text": lambda t, q, k, v: (q, k, v, None, "0"),
    "groups": lambda t, q, k, v: (t.ones(2, 3, 3, 8), k, v),
    "groups of unbatched": lambda t, q, k, v: (q[0, 0], k[0, 0], v[0, 0]),
}


@pytest.mark.parametrize("given", REFUSED.items(), ids=REFUSED)
def test_what_attention_refuses(given):
    name, operands = given

    def kind(t):
        q, k, v = (t.tensor(a) for a in (Q[:, :2], K, V))
        return error_of(
            lambda: t.nn.functional.scaled_dot_product_attention(
                *operands(t, q, k, v), enable_gqa="groups" in name
            )
        )

    assert kind(gt) is kind(torch)


def test_dropout_in_attention_keeps_the_mean_and_drops_shares():
    gt.manual_seed(0)
    q, k = (gt.zeros(1, 200, 4) for _ in range(2))
    v = gt.eye(200).unsqueeze(0)
    shares = gt.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.25) * 200
    kept = shares != 0
    assert abs(kept.float().mean().item() - 0.75) < 0.02
    np.testing.assert_allclose(shares[kept].numpy(), 1 / 0.75, rtol=1e-4)
    blind = gt.zeros(200, 200, dtype=gt.bool)
    assert (
        gt.nn.functional.scaled_dot_product_attention(q, k, v, blind, dropout_p=0.25) == 0
    ).all()


def pair(name, *args, **options):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, mine = (getattr(t.nn, name)(*args, **options) for t in (torch, gt))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    assert repr(mine) == repr(theirs)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(RNG.standard_normal(p.shape) * 0.3))
    mine.load_state_dict({k: gt.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return theirs, mine


X, Y = array(5, 2, 8), array(4, 2, 8)
PADDING = np.array([[False] * 5, [False, False, True, False, True]])
LATER = ~np.tri(5, dtype=bool)
HEADS = {
    "self": ({}, (X, X, X), {}),
    "self without weights": ({"bias": False}, (X, X, X), {"need_weights": False}),
    "cross": ({}, (Y, X, X), {"average_attn_weights": False}),
    "three tensors, batch first": ({"batch_first": True}, (Y, array(4, 5, 8), array(4, 5, 8)), {}),
    "unbatched": ({"batch_first": True}, (X[:, 0].copy(),) * 3, {}),
    "other sizes": ({"kdim": 3, "vdim": 7}, (Y, array(5, 2, 3), array(5, 2, 7)), {}),
    "more positions": (
        {"add_bias_kv": True, "add_zero_attn": True},
        (X, X, X),
        {"key_padding_mask": PADDING, "attn_mask": LATER, "need_weights": False},
    ),
    "padding": ({}, (Y, X, X), {"key_padding_mask": PADDING}),
    "mask of each head": ({}, (Y, X, X), {"attn_mask": array(4, 4, 5), "need_weights": False}),
    "causal": ({}, (X, X, X), {"attn_mask": LATER, "is_causal": True, "need_weights": False}),
    "causal and padding": (
        {},
        (X, X, X),
        {"attn_mask": LATER, "is_causal": True, "key_padding_mask": PADDING},
    ),
}


@pytest.mark.parametrize(("made", "arrays", "options"), HEADS.values(), ids=HEADS)
def test_multihead_attention(made, arrays, options):
    theirs, mine = pair("MultiheadAttention", 8, 2, **made)

    def call(t, module, *tensors):
        given = {k: t.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return module(*tensors, **given)

    compare(call, arrays, theirs, mine)


BAD_HEADS = {
    "query rank": lambda t, x: (x[0, 0], x, x),
    "key rank": lambda t, x: (x, x[0], x),
    "padding rank": lambda t, x: (x, x, x, t.ones(5).bool()),
    "padding shape": lambda t, x: (x, x, x, t.ones(2, 4).bool()),
    "padding dtype": lambda t, x: (x, x, x, t.ones(2, 5).int()),
    "mask rank": lambda t, x: (x, x, x, None, True, t.ones(5).bool()),
    "mask shape": lambda t, x: (x, x, x, None, True, t.ones(5, 4)),
    "mask of heads": lambda t, x: (x, x, x, None, True, t.ones(3, 5, 5)),
    "embedding": lambda t, x: (x[..., :6], x[..., :6], x[..., :6]),
    "key and value": lambda t, x: (x, x, x[:3]),
    "mask of numbers": lambda t, x: (x, x, x, None, True, [1]),
    "causal without mask": lambda t, x: (x, x, x, None, False, None, True, True),
}


@pytest.mark.parametrize("given", BAD_HEADS.values(), ids=BAD_HEADS)
def test_what_multihead_attention_refuses(given):
    def kind(t):
        module = t.nn.MultiheadAttention(8, 2)
        return error_of(lambda: module(*given(t, t.tensor(X))))

    assert kind(gt) is kind(torch)


@pytest.mark.parametrize("bad", [(8, 3), (0, 1), (8, 0)])
def test_sizes_that_do_not_divide(bad):
    mine, theirs = (error_of(lambda t=t: t.nn.MultiheadAttention(*bad)) for t in (gt, torch))
    assert mine is theirs


SMALL = {"d_model": 8, "nhead": 2, "dim_feedforward": 12, "dropout": 0.0}
LAYERS = {
    "encoder": ("TransformerEncoderLayer", {}, (X,), {"src_mask": LATER, "is_causal": True}),
    "encoder, gelu": (
        "TransformerEncoderLayer",
        {"activation": "gelu", "norm_first": True, "bias": False},
        (X,),
        {"src_key_padding_mask": PADDING},
    ),
    "decoder": (
        "TransformerDecoderLayer",
        {"norm_first": True},
        (Y, X),
        {"memory_key_padding_mask": PADDING},
    ),
    "decoder, batch first": (
        "TransformerDecoderLayer",
        {"batch_first": True, "layer_norm_eps": 0.1},
        (X, array(5, 3, 8)),
        {},
    ),
    "whole": (
        "Transformer",
        {"num_encoder_layers": 2, "num_decoder_layers": 1},
        (X, Y),
        {"src_key_padding_mask": PADDING, "tgt_mask": LATER[:4, :4], "tgt_is_causal": True},
    ),
}


@pytest.mark.parametrize(("name", "made", "arrays", "options"), LAYERS.values(), ids=LAYERS)
def test_transformer(name, made, arrays, options):
    theirs, mine = pair(name, **SMALL, **made)

    def call(t, module, *tensors):
        given = {k: t.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return module(*tensors, **given)

    compare(call, arrays, theirs, mine, 1e-3)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested")
@pytest.mark.parametrize(
    "padding",
    [[[0] * 5, [0, 0, 0, 1, 1]], [[0] * 5, [0, 1, 0, 0, 1]]],
    ids=["at the end", "anywhere"],
)
def test_encoder_leaves_padding_out_where_pytorch_does(padding):
    def run(t, layer, norm):
        encoder = t.nn.TransformerEncoder(layer, 2, norm).eval()
        with t.no_grad():
            return encoder(
                t.tensor(X).transpose(0, 1), src_key_padding_mask=t.tensor(padding).bool()
            ).numpy()

    theirs, mine = pair("TransformerEncoderLayer", **SMALL, batch_first=True)
    want, found = (run(t, m, t.nn.LayerNorm(8)) for t, m in ((torch, theirs), (gt, mine)))
    np.testing.assert_allclose(found, want, 1e-4, 1e-4)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_masks_and_custom_parts():
    mask = gt.nn.Transformer.generate_square_subsequent_mask(3)
    want = torch.nn.Transformer.generate_square_subsequent_mask(3)
    np.testing.assert_array_equal(mask.numpy(), want.numpy())
    model = gt.nn.Transformer(
        8, 2, custom_encoder=gt.nn.Identity(), num_decoder_layers=1, dim_feedforward=4
    )
    assert isinstance(model.encoder, gt.nn.Identity)
    with pytest.raises(RuntimeError, match="activation should be relu/gelu, not tanh"):
        gt.nn.TransformerEncoderLayer(8, 2, activation="tanh")
    with pytest.raises(RuntimeError, match="batch number of src and tgt must be equal"):
        gt.nn.Transformer(**{**SMALL, "dim_feedforward": 4})(gt.ones(3, 2, 8), gt.ones(3, 4, 8))
    with pytest.warns(UserWarning, match="norm_first was True"):
        gt.nn.TransformerEncoder(gt.nn.TransformerEncoderLayer(8, 2, norm_first=True), 1)
    assert mask[0, 1] == -math.inf


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_whole_modules_go_to_files_and_back(tmp_path):
    made = {
        "nhead": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "dim_feedforward": 4,
        "dropout": 0.0,
    }
    theirs = torch.nn.Transformer(8, **made)
    torch.save(theirs, tmp_path / "theirs.pt")
    mine = gt.load(tmp_path / "theirs.pt", weights_only=False)
    gt.save(mine, tmp_path / "mine.pt")
    back = torch.load(tmp_path / "mine.pt", weights_only=False)
    want = theirs(torch.tensor(X), torch.tensor(Y)).detach().numpy()
    np.testing.assert_allclose(mine(gt.tensor(X), gt.tensor(Y)).detach().numpy(), want, 1e-4, 1e-4)
    np.testing.assert_array_equal(back(torch.tensor(X), torch.tensor(Y)).detach().numpy(), want)


def test_choices_of_an_implementation_are_accepted_and_change_nothing():
    from_torch = {b.name: b.value for b in torch.nn.attention.SDPBackend.__members__.values()}
    assert {b.name: b.value for b in gt.nn.attention.SDPBackend} == from_torch
    backend = gt.nn.attention.SDPBackend.MATH
    assert repr(backend) == repr(torch.nn.attention.SDPBackend.MATH)
    q, k, v = map(gt.tensor, (Q[:, :2], K, V))
    with gt.nn.attention.sdpa_kernel([backend]):
        inside = gt.nn.functional.scaled_dot_product_attention(q, k, v)
    np.testing.assert_array_equal(
        inside.numpy(), gt.nn.functional.scaled_dot_product_attention(q, k, v).numpy()
    )
    for kernel in (gt.nn.attention.sdpa_kernel, torch.nn.attention.sdpa_kernel):
        with pytest.raises(AssertionError, match="instance of SDPBackend"), kernel("math"):
            pass
