"""torch.distributions against PyTorch: values, gradients, shapes, texts and errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare, error_of
from graphtorch._deferred import running

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def checks() -> None:
    """PyTorch's compiler, where a test before used it, has turned the checks of PyTorch's arguments
    off."""
    torch.distributions.Distribution.set_default_validate_args(True)


rng = np.random.default_rng(0)
LOGITS, OTHER = (
    rng.normal(size=(2, 4, 3)).astype(np.float32),
    rng.normal(size=(4, 3)).astype(np.float32),
)
PROBS = rng.uniform(0.1, 0.9, (4, 3)).astype(np.float32)
LOC, SCALE = (
    rng.normal(size=(4, 3)).astype(np.float32),
    rng.uniform(0.5, 2, (3,)).astype(np.float32),
)

MADE: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...], np.ndarray]] = {
    "categorical logits": (
        lambda D, p: D.Categorical(logits=p),
        (LOGITS,),
        rng.integers(0, 3, (5, 2, 4)),
    ),
    "categorical probs": (lambda D, p: D.Categorical(p), (PROBS,), rng.integers(0, 3, (4,))),
    "bernoulli logits": (lambda D, p: D.Bernoulli(logits=p), (LOGITS,), rng.integers(0, 2, (4, 3))),
    "bernoulli probs": (lambda D, p: D.Bernoulli(p), (PROBS,), rng.integers(0, 2, (2, 4, 3))),
    "normal": (lambda D, m, s: D.Normal(m, s), (LOC, SCALE), rng.normal(size=(2, 4, 3))),
    "normal of a number": (lambda D, m: D.Normal(m, 2.0), (LOC,), rng.normal(size=(4, 3))),
    "one-hot": (
        lambda D, p: D.OneHotCategorical(logits=p),
        (LOGITS,),
        np.eye(3)[rng.integers(0, 3, (2, 4))],
    ),
    "one-hot probs": (
        lambda D, p: D.OneHotCategorical(p),
        (PROBS,),
        np.eye(3)[rng.integers(0, 3, (4,))],
    ),
    "independent": (
        lambda D, m, s: D.Independent(D.Normal(m, s), 1),
        (LOC, SCALE),
        rng.normal(size=(4, 3)),
    ),
    "independent twice": (
        lambda D, p: D.Independent(D.Independent(D.Bernoulli(p), 1), 1),
        (PROBS,),
        rng.integers(0, 2, (2, 4, 3)),
    ),
    "expanded": (
        lambda D, m, s: D.Normal(m, s).expand([2, 4, 3]),
        (LOC, SCALE),
        rng.normal(size=(4, 3)),
    ),
    "expanded categorical": (
        lambda D, p: D.Categorical(p).expand([2, 4]),
        (PROBS,),
        rng.integers(0, 3, (4,)),
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_log_probabilities_entropies_and_moments(name: str) -> None:
    make, parameters, value = MADE[name]

    def call(t: Any, _: Any, *given: Any) -> tuple[Any, ...]:
        d = make(t.distributions, *given)
        kind = t.int64 if name.startswith(("categorical", "expanded categorical")) else t.float32
        return (
            d.log_prob(t.tensor(value).to(kind)),
            d.entropy(),
            d.mean,
            d.variance,
            d.stddev,
            d.mode,
            d.perplexity(),
        )

    if "categorical" in name:  # whose mean is NaN: a gradient through it would be one too
        inner = call
        call = lambda *a: (*inner(*a)[:2], *(x.detach() for x in inner(*a)[2:]))  # noqa: E731
    compare(call, parameters, tolerance=1e-5)


@pytest.mark.parametrize("name", MADE)
def test_shapes_and_texts(name: str) -> None:
    make, parameters, _ = MADE[name]
    found = []
    for t in (torch, gt):
        d = make(t.distributions, *map(t.tensor, parameters))
        many, one = d.sample((7, 2)), d.sample()
        listed = d.enumerate_support() if d.has_enumerate_support else None
        short = d.enumerate_support(False) if d.has_enumerate_support else None
        found.append(
            (
                repr(d),
                repr(d.support),
                repr(d.arg_constraints),
                tuple(d.batch_shape),
                tuple(d.event_shape),
                d.has_rsample,
                d.has_enumerate_support,
                tuple(many.shape),
                tuple(one.shape),
                str(one.dtype),
                d.support.is_discrete,
                d.support.event_dim,
                None if listed is None else listed.tolist(),
                None if short is None else short.tolist(),
                bool(d.support.check(many).all()),
                one.requires_grad,
                bool(gt.isfinite(gt.from_numpy(d.log_prob(many).numpy())).all()),
            )
        )
    assert found[0] == found[1]


def test_divergences() -> None:
    def call(t: Any, _: Any, a: Any, b: Any, p: Any, q: Any, m: Any, s: Any) -> tuple[Any, ...]:
        D = t.distributions
        pairs = [
            (D.Categorical(logits=a), D.Categorical(logits=b)),
            (D.Bernoulli(p), D.Bernoulli(logits=b)),
            (D.Normal(m, s), D.Normal(b, 1.5)),
            (D.OneHotCategorical(p), D.OneHotCategorical(q)),
            (D.Independent(D.Normal(m, s), 1), D.Independent(D.Normal(b, s), 1)),
            (D.OneHotCategoricalStraightThrough(p), D.OneHotCategorical(q)),
        ]
        return tuple(D.kl_divergence(*pair) for pair in pairs)

    compare(call, (LOGITS, OTHER, PROBS, PROBS[::-1].copy(), LOC, SCALE), tolerance=1e-5)


def test_divergences_where_something_is_impossible() -> None:
    p, q = np.array([[[0.5, 0.5, 0], [1, 0, 0]], [[0.2, 0.8, 0], [0, 0.5, 0.5]]], np.float32)
    bits = [np.array([0, 0.5, 1, 0, 1], np.float32), np.array([0.5, 0, 1, 1, 0], np.float32)]
    for arrays in ((p, q), tuple(bits)):
        kind = "Categorical" if arrays[0].ndim == 2 else "Bernoulli"
        found = []
        for t in (torch, gt):
            D = t.distributions
            d = [getattr(D, kind)(t.tensor(a)) for a in arrays]
            found.append([D.kl_divergence(*d).numpy(), *(x.entropy().numpy() for x in d)])
        for theirs, ours in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, 1e-5, 1e-5)


def test_exponential_families() -> None:
    """Entropy and divergence by the log normalizer are those in closed form."""
    D = gt.distributions
    family = D.ExponentialFamily
    a, b = D.Normal(gt.tensor(LOC), gt.tensor(SCALE)), D.Normal(gt.tensor(LOC[::-1].copy()), 0.7)
    c, d = D.Bernoulli(gt.tensor(PROBS)), D.Bernoulli(logits=gt.tensor(OTHER))
    for p, q in ((a, b), (c, d)):
        np.testing.assert_allclose(
            family.entropy(p).detach().numpy(), p.entropy().numpy(), 1e-4, 1e-4
        )
        np.testing.assert_allclose(
            D.kl._exponential_families(p, q).detach().numpy(),
            D.kl_divergence(p, q).numpy(),
            1e-4,
            1e-4,
        )
    with pytest.raises(NotImplementedError, match="different exponential families"):
        D.kl_divergence(a, c)


def test_cumulative_and_its_inverse() -> None:
    u = np.linspace(0.05, 0.95, 3, dtype=np.float32)
    compare(
        lambda t, _, m, s, v: (
            t.distributions.Normal(m, s).cdf(v),
            t.distributions.Normal(m, s, validate_args=False).icdf(v),
        ),
        (LOC, SCALE, u),
        tolerance=1e-5,
    )


def test_gradients_flow_through_rsample_only() -> None:
    loc, scale = gt.zeros(3, requires_grad=True), gt.ones(3, requires_grad=True)
    d = gt.distributions.Normal(loc, scale)
    assert not d.sample().requires_grad
    z = d.rsample((5,))
    z.sum().backward()
    assert loc.grad.tolist() == [5, 5, 5]
    np.testing.assert_allclose(scale.grad.numpy(), z.detach().numpy().sum(0), 1e-5, 1e-5)
    logits = gt.zeros(2, 3, requires_grad=True)
    hot = gt.distributions.OneHotCategoricalStraightThrough(logits=logits)
    drawn = hot.rsample()
    assert drawn.detach().sum(-1).tolist() == [1, 1]
    (drawn * gt.arange(3.0)).sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), [[-1 / 3, 0, 1 / 3]] * 2, 1e-5, 1e-5)


def test_samples_are_the_streams_of_the_functions_behind_them() -> None:
    D, seed = gt.distributions, gt.manual_seed
    p, m, s = gt.tensor(PROBS), gt.tensor(LOC), gt.tensor(SCALE)
    seed(3)
    expected = [
        gt.multinomial(p / p.sum(-1, keepdim=True), 6, True).T.reshape(2, 3, 4),
        gt.normal(m, s.expand(4, 3)),
        gt.bernoulli(p),
    ]
    seed(3)
    drawn = [D.Categorical(p).sample((2, 3)), D.Normal(m, s).sample(), D.Bernoulli(p).sample()]
    assert all(gt.equal(a, b) for a, b in zip(expected, drawn, strict=True))
    seed(4)
    expected = m + gt.randn(2, 4, 3) * s
    seed(4)
    assert gt.equal(D.Normal(m, s).rsample((2,)), expected)


def test_same_random_numbers_as_pytorch() -> None:
    torch.manual_seed(0), gt.manual_seed(0)
    if torch.rand(3).tolist() != gt.rand(3).tolist():
        pytest.skip("the CPU stream is not PyTorch's yet")
    for make, parameters, _ in MADE.values():
        drawn = []
        for t in (torch, gt):
            t.manual_seed(7)
            drawn.append(make(t.distributions, *map(t.tensor, parameters)).sample((3,)).numpy())
        np.testing.assert_allclose(drawn[1], drawn[0], 1e-6, 1e-6)


WRONG: dict[str, Callable[[Any], Any]] = {
    "nan": lambda t: t.distributions.Normal(t.tensor([0.0, float("nan")]), 1.0),
    "negative scale": lambda t: t.distributions.Normal(0.0, t.tensor([[1.0, -1.0]])),
    "negative probability": lambda t: t.distributions.Categorical(t.tensor([-1.0, 2.0])),
    "nan logits": lambda t: t.distributions.Categorical(logits=t.tensor([float("nan"), 2.0])),
    "no parameter": lambda t: t.distributions.Categorical(),
    "both": lambda t: t.distributions.Bernoulli(0.3, 0.4),
    "no dimension": lambda t: t.distributions.Categorical(t.tensor(1.0)),
    "above one": lambda t: t.distributions.Bernoulli(t.tensor([0.2, 1.2])),
    "one-hot": lambda t: t.distributions.OneHotCategorical(logits=t.tensor([[0.0, float("nan")]])),
    "category": lambda t: t.distributions.Categorical(t.ones(3)).log_prob(t.tensor([3, 0])),
    "half": lambda t: t.distributions.Bernoulli(t.ones(3) * 0.5).log_prob(t.tensor(0.5)),
    "two ones": lambda t: t.distributions.OneHotCategorical(t.ones(3)).log_prob(
        t.tensor([1.0, 1.0, 0.0])
    ),
    "no tensor": lambda t: t.distributions.Normal(0.0, 1.0).log_prob(0.5),
    "batch shape": lambda t: t.distributions.Categorical(t.ones(4, 3)).log_prob(t.ones(5)),
    "event shape": lambda t: t.distributions.OneHotCategorical(t.ones(4, 3)).log_prob(t.ones(4, 2)),
    "list": lambda t: t.distributions.Normal([0.0], 1.0),
    "rsample": lambda t: t.distributions.Categorical(t.ones(3)).rsample(),
    "kl": lambda t: t.distributions.kl_divergence(
        t.distributions.Normal(0.0, 1.0), t.distributions.Categorical(t.ones(2))
    ),
    "too many dimensions": lambda t: t.distributions.Independent(
        t.distributions.Normal(0.0, 1.0), 1
    ),
    "default": lambda t: t.distributions.Distribution.set_default_validate_args(3),
    "unchecked": lambda t: t.distributions.OneHotCategorical(
        t.tensor([-1.0, 2.0]), validate_args=False
    ),
    "dependent": lambda t: t.distributions.Categorical.support.check(t.ones(1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors(name: str) -> None:
    said = []
    for t in (torch, gt):
        with pytest.raises(Exception) as caught:
            WRONG[name](t)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


def test_validation_can_be_turned_off() -> None:
    D = gt.distributions
    assert D.Normal(0.0, -1.0, validate_args=False).scale.item() == -1
    D.Distribution.set_default_validate_args(False)
    try:
        assert D.Categorical(gt.ones(3)).log_prob(gt.tensor(0)).item() == pytest.approx(-np.log(3))
        D.Bernoulli(gt.tensor([2.0]))
    finally:
        D.Distribution.set_default_validate_args(True)
    assert error_of(lambda: D.Bernoulli(gt.tensor([2.0]))) is ValueError


def test_a_sample_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking parameters is one run; a sample's log-probability is recorded behind it and not
    run."""
    runs = []
    run = running._run
    monkeypatch.setattr(running, "_run", lambda wanted: (runs.append(1), run(wanted))[1])
    x = gt.ones(4, 3) * 2
    d = gt.distributions.Normal(x * 3, x.exp())
    assert len(runs) == 1
    z = d.rsample()
    d.log_prob(z)
    assert len(runs) == 1
    z.add_(1)
    d.log_prob(z)
    assert len(runs) == 2  # it is another value now
    hot = gt.distributions.Independent(gt.distributions.OneHotCategorical(logits=x * 2), 1)
    hot.log_prob(hot.sample())
    assert len(runs) == 3


def test_in_a_compiled_call() -> None:
    @gt.compile
    def surprise(logits: Any, value: Any) -> Any:
        return -gt.distributions.Categorical(logits=logits).log_prob(value)

    x, v = gt.tensor(OTHER), gt.tensor([0, 2, 1, 1])
    for _ in range(2):
        np.testing.assert_allclose(
            surprise(x, v).numpy(),
            gt.nn.functional.cross_entropy(x, v, reduction="none").numpy(),
            1e-5,
            1e-5,
        )


def test_copies_and_pickles() -> None:
    d = gt.distributions.Normal(gt.tensor(LOC), gt.tensor(SCALE))
    z = d.sample()
    for other in (copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert gt.equal(other.log_prob(z), d.log_prob(z))


def test_own_distributions_and_divergences() -> None:
    for t in (torch, gt):
        D = t.distributions

        class Logistic(D.Distribution):
            arg_constraints = {"loc": D.constraints.real}  # noqa: RUF012
            support = D.constraints.real

            def __init__(self, loc: Any):
                self.loc = loc
                super().__init__(loc.shape)

        class Steep(Logistic):
            pass

        @D.register_kl(Logistic, Logistic)
        def between(p: Any, q: Any) -> Any:
            return p.loc - q.loc

        assert D.kl_divergence(Steep(t.tensor(3.0)), Logistic(t.tensor(1.0))).item() == 2
        assert repr(Steep(t.tensor(3.0))) == "Steep(loc: 3.0)"
        with pytest.raises(ValueError, match="to satisfy the constraint Real"):
            Steep(t.tensor(float("nan")))
