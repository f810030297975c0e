"""autocast, GradScaler and checkpoint against PyTorch."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)

CALLS = """
a @ b | torch.mm(a, b) | torch.matmul(a, v) | torch.addmm(a, a, b) | torch.bmm(c, c)
torch.baddbmm(c, c, c) | F.linear(a, b) | F.conv1d(c, c) | F.conv2d(c[None], c[None])
F.conv_transpose1d(c, c) | F.prelu(a, v[:1]) | F.scaled_dot_product_attention(c, c, c) | a.mv(v)
a + b | a.exp() | a.sum() | F.relu(a) | F.softmax(a, -1) | F.layer_norm(a, (4,))
a.prod() | a.trace() | F.mse_loss(a, b) | F.l1_loss(a, b) | F.smooth_l1_loss(a, b)
F.huber_loss(a, b) | F.cross_entropy(a, i) | F.nll_loss(a, i) | F.kl_div(a, b)
F.binary_cross_entropy_with_logits(a, b)
F.hinge_embedding_loss(a, b) | F.soft_margin_loss(a, b) | F.avg_pool3d(c[None], 1)
F.avg_pool2d(c, 1) | F.pad(c, (1, 1), mode="reflect") | F.pad(c, (1, 1)) | a.double() @ b.double()
torch.quantile(a, 0.5) | F.max_pool2d(c, 2) | torch.einsum("ij,jk->ik", a, b) | F.gelu(a)
(a @ b).float() @ b | nn.Linear(4, 4)(a) | nn.Conv1d(4, 2, 1)(c) | nn.CrossEntropyLoss()(a, i)
nn.Embedding(9, 2)(i)
"""


def listed(text: str) -> list[str]:
    return [e.strip() for line in text.strip().splitlines() for e in line.split(" | ")]


@pytest.mark.parametrize("call", listed(CALLS))
def test_dtypes(call: str) -> None:
    """The result's dtype for float32 and 16-bit arguments, in both 16-bit dtypes."""
    found = []
    for t in BOTH:
        dtypes = []
        for given, target in itertools.product(("float32", "bfloat16"), ("bfloat16", "float16")):
            r = np.random.default_rng(0)
            names = {
                n: t.tensor(r.random(s).astype(np.float32)).to(getattr(t, given))
                for n, s in (("a", (4, 4)), ("b", (4, 4)), ("c", (4, 4, 4)), ("v", (4,)))
            }
            names |= {"i": t.tensor([0, 2, 1, 3]), "torch": t, "F": t.nn.functional, "nn": t.nn}
            try:
                with t.autocast("cpu", dtype=getattr(t, target)):
                    dtypes.append(str(eval(call, names).dtype))
            except Exception as error:
                dtypes.append(type(error).__name__)
        found.append(dtypes)
    assert found[1] == found[0]


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"])
def test_dtypes_of_recurrent_layers(name: str) -> None:
    found = []
    for t in BOTH:
        layer, x = getattr(t.nn, name)(4, 2), t.ones(*(3,) * ("Cell" not in name), 3, 4)
        try:
            with t.autocast("cpu"):
                out = layer(x)
        except RuntimeError as error:
            if t is torch and "could not create a primitive descriptor" in str(error):
                pytest.skip("PyTorch's oneDNN has no bf16 LSTM for processors without AVX-512")
            raise
        found.append(str((out if isinstance(out, t.Tensor) else out[0]).dtype))
    assert found[1] == found[0]


def test_training_under_autocast() -> None:
    losses = []
    for t in BOTH:
        r = np.random.default_rng(0)
        net = t.nn.Sequential(t.nn.Linear(6, 8), t.nn.ReLU(), t.nn.Linear(8, 3))
        with t.no_grad():
            for p in net.parameters():
                p.copy_(t.tensor(r.standard_normal(tuple(p.shape)).astype(np.float32) / 3))
        optimizer = t.optim.SGD(net.parameters(), lr=0.1)
        scaler = t.amp.GradScaler("cpu", init_scale=1024.0)
        x, y = t.tensor(r.standard_normal((5, 6)).astype(np.float32)), t.tensor([0, 1, 2, 0, 1])
        run = []
        for _ in range(4):
            optimizer.zero_grad()
            with t.autocast("cpu"):
                out = net(x)
                loss = t.nn.functional.cross_entropy(out, y)
            assert "bfloat16" in str(out.dtype) and "float32" in str(loss.dtype)
            scaler.scale(loss).backward()
            assert "float32" in str(net[0].weight.grad.dtype)
            scaler.step(optimizer)
            scaler.update()
            run.append(loss.item())
        losses.append(run)
    np.testing.assert_allclose(losses[1], losses[0], 2e-2)


def test_state_nests_and_decorates() -> None:
    for t in BOTH:
        a = t.ones(2, 2)

        @t.autocast("cpu")
        def product(x: Any, t: Any = t) -> Any:
            assert t.is_autocast_enabled("cpu") and not t.is_autocast_enabled()
            with t.autocast("cpu", enabled=False):
                assert (x @ x).dtype is t.float32
            return x @ x

        assert product(a).dtype is t.bfloat16 and (a @ a).dtype is t.float32
        assert not t.is_autocast_enabled("cpu") and t.get_autocast_dtype("cpu") is t.bfloat16
        with pytest.warns(UserWarning, match="CUDA is not available"), t.autocast("cuda"):
            assert (a @ a).dtype is t.float32
        with pytest.warns(UserWarning, match="target dtype is not supported"):
            t.autocast("cpu", dtype=t.float64)
        with pytest.raises(RuntimeError):
            t.autocast("nothing")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert not t.cuda.amp.GradScaler().is_enabled()
            with t.cuda.amp.autocast():
                assert (a @ a).dtype is t.float32


def test_compiled_functions_know_autocast() -> None:
    product = graphtorch.compile(lambda x: x @ x)
    a = graphtorch.ones(2, 2)
    assert product(a).dtype is graphtorch.float32
    with graphtorch.autocast("cpu"):
        assert product(a).dtype is graphtorch.bfloat16
    assert product(a).dtype is graphtorch.float32


def scaling(t: Any) -> list[Any]:
    """What a scaler does over good and overflowing steps, and what it refuses."""
    p = t.nn.Parameter(t.ones(2))
    optimizer = t.optim.SGD([p], lr=1.0)
    scaler = t.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    found: list[Any] = []
    for factor in (1.0, 1.0, float("inf"), 1.0, float("nan"), 1.0, 1.0, 1.0):
        optimizer.zero_grad()
        scaled = scaler.scale([(p * factor).sum(), (p.sum(),)])
        (scaled[0] + scaled[1][0]).backward()
        scaler.unscale_(optimizer)
        grad = p.grad.clone()
        scaler.step(optimizer)
        scaler.update()
        found.append((grad.tolist(), p.detach().tolist(), scaler.get_scale(), scaler.state_dict()))
    other = t.amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    found.append(other.state_dict())
    scaler.update(32.0)
    found.append(scaler.get_scale())
    for wrong in (
        lambda: t.amp.GradScaler("cpu", growth_factor=1.0),
        lambda: t.amp.GradScaler("cpu").update(),
        lambda: t.amp.GradScaler("cpu").unscale_(optimizer),
        lambda: scaler.scale(3),
        lambda: (scaler.unscale_(optimizer), scaler.unscale_(optimizer)),
        lambda: t.amp.GradScaler("cpu").load_state_dict({}),
        lambda: scaler.step(optimizer, closure=lambda: 0),
    ):
        with pytest.raises(Exception) as caught:
            wrong()
        found.append(caught.type)
    return found


def test_scaler() -> None:
    theirs, ours = (scaling(t) for t in BOTH)
    for a, b in zip(ours, theirs, strict=True):
        assert str(a) == str(b)


def parts(t: Any) -> tuple[Any, Any, Any]:
    r = np.random.default_rng(0)
    make = [t.tensor(r.standard_normal(s).astype(np.float32)) for s in ((4, 3), (3, 3), (3, 3))]
    return make[0], t.nn.Parameter(make[1]), t.nn.Parameter(make[2])


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(reentrant: bool) -> None:
    found = []
    for t in BOTH:
        checkpoint = t.utils.checkpoint.checkpoint
        x, w1, w2 = parts(t)
        x.requires_grad_()
        runs = []

        def part(h: Any, w: Any, t: Any = t, runs: Any = runs) -> Any:
            runs.append(1)
            return t.tanh(h @ w), None, 7

        hidden, nothing, number = checkpoint(part, x * 2, w1, use_reentrant=reentrant)
        assert nothing is None and number == 7
        out = checkpoint(lambda h, w2=w2: (h @ w2).relu(), hidden, use_reentrant=reentrant)
        (out**2).sum().backward()
        assert len(runs) == 2
        found.append([g.grad.numpy() for g in (x, w1, w2)])
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-5, 1e-6)


def test_checkpoint_gradients_of_all_kinds() -> None:
    for t in BOTH:
        checkpoint, grad = t.utils.checkpoint.checkpoint, t.autograd.grad
        x, w, _ = parts(t)
        x.requires_grad_()
        out = checkpoint(lambda h, k, w=w, t=t: t.sin(h @ w) * k, x, k=2.0, use_reentrant=False)
        (first,) = grad(out.sum(), x, create_graph=True)
        (second,) = grad((first**2).sum(), w)
        plain = t.sin(x @ w) * 2.0
        (first_,) = grad(plain.sum(), x, create_graph=True)
        (second_,) = grad((first_**2).sum(), w)
        np.testing.assert_allclose(first.detach().numpy(), first_.detach().numpy(), 1e-5, 1e-6)
        np.testing.assert_allclose(second.numpy(), second_.numpy(), 1e-5, 1e-5)
        with pytest.raises(RuntimeError, match=r"When use_reentrant=True, .* is incompatible"):
            grad(checkpoint(t.sin, x, use_reentrant=True).sum(), x)
        loss = checkpoint(t.sin, x, use_reentrant=False).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("cast", [True, False])
def test_checkpoint_repeats_random_numbers_and_casts(reentrant: bool, cast: bool) -> None:
    for t in BOTH:
        x = t.ones(1000, requires_grad=True)
        seen = []

        def drop(h: Any, t: Any = t, seen: Any = seen) -> Any:
            seen.append((h.reshape(-1, 1) @ h[:1].reshape(1, 1)).dtype)
            return t.nn.functional.dropout(h, 0.5, True)

        with t.autocast("cpu", enabled=cast):
            out = t.utils.checkpoint.checkpoint(drop, x * 1, use_reentrant=reentrant)
        t.rand(3)
        state = t.get_rng_state()
        out.sum().backward()
        assert t.equal(x.grad, out.detach()) and 300 < int((out != 0).sum()) < 700
        assert seen == [t.bfloat16 if cast else t.float32] * 2
        assert t.equal(t.get_rng_state(), state)


def test_checkpoint_sequential_and_errors() -> None:
    for t in BOTH:
        module = t.utils.checkpoint
        x, w1, _ = parts(t)
        layers = t.nn.Sequential(*[t.nn.Linear(3, 3) for _ in range(5)])
        out = module.checkpoint_sequential(layers, 2, x.requires_grad_(), use_reentrant=False)
        assert t.allclose(out, layers(x))
        out.sum().backward()
        assert all(p.grad is not None for p in layers.parameters())
        with pytest.raises(ValueError):
            module.checkpoint_sequential(layers, 9, x, use_reentrant=False)
        with pytest.raises(ValueError, match="Unexpected keyword arguments"):
            module.checkpoint(t.sin, x, use_reentrant=True, k=2)
        with pytest.raises(ValueError, match="only supported when use_reentrant=False"):
            module.checkpoint(t.sin, x, use_reentrant=True, debug=True)
        with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
            assert not module.checkpoint(t.sin, w1.detach(), use_reentrant=True).requires_grad
        with pytest.warns(UserWarning, match="use_reentrant parameter should be passed"):
            module.checkpoint(t.sin, x)
        flip = iter([t.sin, lambda h: h[:1]])
        with pytest.raises(RuntimeError, match=r"torch\.utils\.checkpoint"):
            module.checkpoint(
                lambda h, flip=flip: next(flip)(h), x, use_reentrant=False
            ).sum().backward()
