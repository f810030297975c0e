"""Every distribution of torch.distributions against PyTorch: values, gradients, divergences,
transforms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def checks() -> None:
    """PyTorch's compiler, where a test before used it, has turned the checks of PyTorch's arguments
    off."""
    torch.distributions.Distribution.set_default_validate_args(True)


rng = np.random.default_rng(5)


def floats(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def positive(*shape: int, low: float = 0.6, high: float = 4.0) -> np.ndarray:
    return floats(rng.uniform(low, high, shape))


def normal(*shape: int) -> np.ndarray:
    return floats(rng.normal(size=shape))


def unit(*shape: int) -> np.ndarray:
    return floats(rng.uniform(0.1, 0.9, shape))


def counts(high: int, *shape: int) -> np.ndarray:
    return floats(rng.integers(0, high, shape))


def simplex(*shape: int) -> np.ndarray:
    x = rng.uniform(0.2, 1, shape)
    return floats(x / x.sum(-1, keepdims=True))


def covariance(*shape: int) -> np.ndarray:
    a = rng.normal(size=(*shape, shape[-1]))
    return floats(a @ np.swapaxes(a, -1, -2) + 2 * np.eye(shape[-1]))


def factor(*shape: int) -> np.ndarray:
    return floats(np.linalg.cholesky(covariance(*shape)))


def corr_factor(*shape: int) -> np.ndarray:
    found = np.linalg.cholesky(covariance(*shape).astype(np.float64))
    return floats(found / np.sqrt(np.square(found).sum(-1, keepdims=True)))


def ordered(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    low = normal(*shape)
    return low, low + positive(*shape)


Made = tuple[Callable[..., Any], tuple[np.ndarray, ...], np.ndarray]
LOW, HIGH = ordered(4, 3)

MADE: dict[str, Made] = {
    "Beta": (lambda D, a, b: D.Beta(a, b), (positive(4, 3), positive(3)), unit(2, 4, 3)),
    "Binomial": (lambda D, p: D.Binomial(7, p), (unit(4, 3),), counts(8, 2, 4, 3)),
    "Binomial logits": (lambda D, p: D.Binomial(5, logits=p), (normal(4, 3),), counts(6, 4, 3)),
    "Cauchy": (lambda D, m, s: D.Cauchy(m, s), (normal(4, 3), positive(3)), normal(2, 4, 3)),
    "Chi2": (lambda D, d: D.Chi2(d), (positive(4, 3),), positive(2, 4, 3)),
    "ContinuousBernoulli": (
        lambda D, p: D.ContinuousBernoulli(p),
        (unit(4, 3) * 0.5,),
        unit(2, 4, 3),
    ),
    "ContinuousBernoulli half": (
        lambda D, p: D.ContinuousBernoulli(p),
        (floats([0.4995, 0.5, 0.5005, 0.3]),),
        unit(2, 4),
    ),
    "ContinuousBernoulli logits": (
        lambda D, p: D.ContinuousBernoulli(logits=p),
        (normal(4, 3),),
        unit(4, 3),
    ),
    "Dirichlet": (lambda D, a: D.Dirichlet(a), (positive(4, 3),), simplex(2, 4, 3)),
    "Exponential": (lambda D, r: D.Exponential(r), (positive(4, 3),), positive(2, 4, 3)),
    "FisherSnedecor": (
        lambda D, a, b: D.FisherSnedecor(a, b),
        (positive(4, 3, high=9.0), positive(3, high=9.0)),
        positive(2, 4, 3),
    ),
    "Gamma": (lambda D, a, r: D.Gamma(a, r), (positive(4, 3), positive(3)), positive(2, 4, 3)),
    "GeneralizedPareto": (
        lambda D, m, s, c: D.GeneralizedPareto(m, s, c, validate_args=False),
        tuple(
            a.astype(np.float32)
            for a in (normal(4, 3), positive(3), positive(4, 3, low=0.1, high=0.9))
        ),
        positive(2, 4, 3, low=4, high=6).astype(np.float32),
    ),
    "Geometric": (lambda D, p: D.Geometric(p), (unit(4, 3),), counts(8, 2, 4, 3)),
    "Geometric logits": (lambda D, p: D.Geometric(logits=p), (normal(4, 3),), counts(8, 2, 4, 3)),
    "Gumbel": (lambda D, m, s: D.Gumbel(m, s), (normal(4, 3), positive(3)), normal(2, 4, 3)),
    "HalfCauchy": (lambda D, s: D.HalfCauchy(s), (positive(4, 3),), positive(2, 4, 3)),
    "HalfNormal": (lambda D, s: D.HalfNormal(s), (positive(4, 3),), positive(2, 4, 3)),
    "InverseGamma": (
        lambda D, a, r: D.InverseGamma(a, r),
        (positive(4, 3), positive(3)),
        positive(2, 4, 3),
    ),
    "Kumaraswamy": (
        lambda D, a, b: D.Kumaraswamy(a, b),
        (positive(4, 3), positive(3)),
        unit(2, 4, 3),
    ),
    "LKJCholesky": (lambda D, c: D.LKJCholesky(3, c), (positive(4),), corr_factor(2, 4, 3)),
    "Laplace": (lambda D, m, s: D.Laplace(m, s), (normal(4, 3), positive(3)), normal(2, 4, 3)),
    "LogNormal": (
        lambda D, m, s: D.LogNormal(m, s),
        (normal(4, 3), positive(3, high=1.0)),
        positive(2, 4, 3),
    ),
    "LogisticNormal": (
        lambda D, m, s: D.LogisticNormal(m, s),
        (normal(4, 3), positive(3)),
        simplex(2, 4, 4),
    ),
    "LowRankMultivariateNormal": (
        lambda D, m, w, d: D.LowRankMultivariateNormal(m, w, d),
        (normal(4, 3), normal(4, 3, 2), positive(3)),
        normal(2, 4, 3),
    ),
    "MixtureSameFamily": (
        lambda D, w, m, s: D.MixtureSameFamily(D.Categorical(w), D.Normal(m, s)),
        (simplex(4, 3), normal(4, 3), positive(3)),
        normal(2, 4),
    ),
    "MixtureSameFamily of vectors": (
        lambda D, w, m, s: D.MixtureSameFamily(D.Categorical(w), D.Independent(D.Normal(m, s), 1)),
        (simplex(4, 3), normal(4, 3, 2), positive(3, 2)),
        normal(5, 4, 2),
    ),
    "Multinomial": (
        lambda D, p: D.Multinomial(6, p),
        (simplex(4, 3),),
        floats(rng.multinomial(6, [0.2, 0.3, 0.5], (2, 4))),
    ),
    "Multinomial logits": (
        lambda D, p: D.Multinomial(4, logits=p),
        (normal(4, 3),),
        floats(rng.multinomial(4, [0.2, 0.3, 0.5], (4,))),
    ),
    "MultivariateNormal covariance": (
        lambda D, m, c: D.MultivariateNormal(m, c),
        (normal(4, 3), covariance(3)),
        normal(2, 4, 3),
    ),
    "MultivariateNormal precision": (
        lambda D, m, c: D.MultivariateNormal(m, precision_matrix=c),
        (normal(3), covariance(4, 3)),
        normal(2, 4, 3),
    ),
    "MultivariateNormal factor": (
        lambda D, m, c: D.MultivariateNormal(m, scale_tril=c),
        (normal(4, 3), factor(4, 3)),
        normal(4, 3),
    ),
    "NegativeBinomial": (
        lambda D, n, p: D.NegativeBinomial(n, p),
        (positive(4, 3), unit(3)),
        counts(9, 2, 4, 3),
    ),
    "NegativeBinomial logits": (
        lambda D, n, p: D.NegativeBinomial(n, logits=p),
        (positive(4, 3), normal(3)),
        counts(9, 2, 4, 3),
    ),
    "Pareto": (
        lambda D, s, a: D.Pareto(s, a),
        (positive(4, 3, high=1.0), positive(3)),
        positive(2, 4, 3, low=1.0),
    ),
    "Poisson": (lambda D, r: D.Poisson(r), (positive(4, 3),), counts(9, 2, 4, 3)),
    "RelaxedBernoulli": (
        lambda D, t, p: D.RelaxedBernoulli(t, p),
        (positive(), unit(4, 3)),
        unit(2, 4, 3),
    ),
    "RelaxedBernoulli logits": (
        lambda D, t, p: D.RelaxedBernoulli(t, logits=p),
        (positive(), normal(4, 3)),
        unit(2, 4, 3),
    ),
    "RelaxedOneHotCategorical": (
        lambda D, t, p: D.RelaxedOneHotCategorical(t, p),
        (positive(), simplex(4, 3)),
        simplex(2, 4, 3),
    ),
    "RelaxedOneHotCategorical logits": (
        lambda D, t, p: D.RelaxedOneHotCategorical(t, logits=p),
        (positive(), normal(4, 3)),
        simplex(2, 4, 3),
    ),
    "StudentT": (
        lambda D, d, m, s: D.StudentT(d, m, s),
        (positive(4, 3), normal(4, 3), positive(3)),
        normal(2, 4, 3),
    ),
    "TransformedDistribution": (
        lambda D, m, s: D.TransformedDistribution(
            D.Normal(m, s), [D.TanhTransform(), D.AffineTransform(1.0, -2.0)]
        ),
        (normal(4, 3), positive(3)),
        unit(2, 4, 3),
    ),
    "TransformedDistribution of vectors": (
        lambda D, m, s: D.TransformedDistribution(
            D.Independent(D.Normal(m, s), 1), [D.AffineTransform(0.5, 2.0, 1), D.ExpTransform()]
        ),
        (normal(4, 3), positive(3)),
        positive(2, 4, 3),
    ),
    "Uniform": (lambda D, a, b: D.Uniform(a, b), (LOW, HIGH), LOW + (HIGH - LOW) * unit(4, 3)),
    "VonMises": (lambda D, m, k: D.VonMises(m, k), (normal(4, 3), positive(3)), normal(2, 4, 3)),
    "Weibull": (
        lambda D, s, c: D.Weibull(s, c),
        (positive(4, 3), positive(3, low=1.1)),
        positive(2, 4, 3),
    ),
    "Wishart": (
        lambda D, d, c: D.Wishart(d, c),
        (positive(4, low=3.5, high=7.0), covariance(4, 3)),
        covariance(2, 4, 3),
    ),
    "Wishart precision": (
        lambda D, d, c: D.Wishart(d, precision_matrix=c),
        (positive(4, low=3.5, high=7.0), covariance(3)),
        covariance(4, 3),
    ),
}
QUANTITIES = (
    "log_prob",
    "entropy",
    "cdf",
    "icdf",
    "mean",
    "mode",
    "variance",
    "stddev",
    "perplexity",
)
# of which both have NaN, whose gradient says nothing, or a step, which has none
SMOOTH = ("log_prob", "entropy", "cdf", "icdf", "mean", "variance")


def quantity(t: Any, name: str, made: Made, given: Any) -> Any:
    """The quantity, or the type of the error that asking for it raises."""
    d = made[0](t.distributions, *given)
    try:
        if name in ("log_prob", "cdf"):
            return getattr(d, name)(t.tensor(made[2]))
        if name == "icdf":
            shape = tuple(d.batch_shape) + tuple(d.event_shape)
            count = int(np.prod(shape))
            return d.icdf(t.tensor(np.linspace(0.1, 0.8, count).reshape(shape)))
        found = getattr(d, name)
        return found() if name in ("entropy", "perplexity") else found
    except NotImplementedError as error:
        return type(error)


@pytest.mark.parametrize("quantity_name", QUANTITIES)
@pytest.mark.parametrize("name", MADE)
def test_values_and_gradients(name: str, quantity_name: str) -> None:
    made = MADE[name]
    found = [quantity(t, quantity_name, made, [t.tensor(a) for a in made[1]]) for t in (torch, gt)]
    if isinstance(found[0], type):
        assert found[1] is found[0]
        return
    theirs, mine = (x.detach().numpy() for x in found)
    np.testing.assert_allclose(mine, theirs, 1e-5, 1e-5)
    assert mine.shape == theirs.shape and str(found[0].dtype) == str(found[1].dtype)
    # PyTorch has no derivative of the incomplete gamma function by its first argument
    by_concentration = quantity_name == "cdf" and name in ("Gamma", "Chi2", "InverseGamma")
    if quantity_name in SMOOTH and np.isfinite(theirs).all() and not by_concentration:
        compare(
            lambda t, _, *given: quantity(t, quantity_name, made, given), made[1], tolerance=1e-5
        )


@pytest.mark.parametrize("name", MADE)
def test_values_in_f32(name: str) -> None:
    make, parameters, value = MADE[name]
    for quantity_name in ("log_prob", "entropy", "mean"):
        short = make, parameters, value.astype(np.float32)
        found = [
            quantity(t, quantity_name, short, [t.tensor(a.astype(np.float32)) for a in parameters])
            for t in (torch, gt)
        ]
        if not isinstance(found[0], type):
            assert str(found[0].dtype) == str(found[1].dtype)
            np.testing.assert_allclose(found[1].numpy(), found[0].numpy(), 2e-5, 2e-5)


@pytest.mark.parametrize("name", MADE)
def test_shapes_and_texts(name: str) -> None:
    make, parameters, _ = MADE[name]
    found = []
    for t in (torch, gt):
        d = make(t.distributions, *map(t.tensor, parameters))
        wide = d.expand((2, *d.batch_shape))
        many, one, grown = d.sample((7, 2)), d.sample(), wide.sample((3,))
        found.append(
            (
                repr(d),
                repr(wide),
                repr(d.support),
                repr(d.arg_constraints),
                tuple(d.batch_shape),
                tuple(d.event_shape),
                d.has_rsample,
                d.has_enumerate_support,
                tuple(many.shape),
                tuple(one.shape),
                tuple(grown.shape),
                str(one.dtype),
                d.support.is_discrete,
                d.support.event_dim,
                d.support.check(many).all().item(),
                one.requires_grad,
                tuple(d.log_prob(many).shape),
                tuple(wide.log_prob(grown).shape),
                name == "TransformedDistribution" or np.isfinite(d.log_prob(many).numpy()).all(),
            )
        )
    assert found[0] == found[1]


@pytest.mark.parametrize("name", MADE)
def test_log_probabilities_of_the_expanded(name: str) -> None:
    make, parameters, value = MADE[name]

    def call(t: Any, _: Any, *given: Any) -> Any:
        d = make(t.distributions, *given)
        return d.expand((5, 1, *d.batch_shape)).log_prob(t.tensor(value))

    compare(call, parameters, tolerance=1e-5)


def moments(name: str) -> tuple[Any, np.ndarray]:
    make, parameters, _ = MADE[name]
    gt.manual_seed(11)
    d = make(gt.distributions, *map(gt.tensor, parameters))
    return d, d.sample((100_000,)).numpy().astype(np.float64)


@pytest.mark.parametrize("name", MADE)
def test_moments_of_many_samples(name: str) -> None:
    """Mean and variance, within five standard errors, where the four moments behind them exist; the
    distribution function otherwise."""
    d, drawn = moments(name)
    try:
        mean, variance = d.mean.detach().numpy().astype(np.float64), d.variance.detach().numpy()
    except NotImplementedError:
        assert name.split()[0] in (
            "TransformedDistribution",
            "RelaxedBernoulli",
            "RelaxedOneHotCategorical",
            "LogisticNormal",
            "LKJCholesky",
        )
        assert np.isfinite(drawn).all()
        return
    heavy = {
        "Cauchy",
        "HalfCauchy",
        "FisherSnedecor",
        "GeneralizedPareto",
        "InverseGamma",
        "Pareto",
        "StudentT",
        "LogNormal",
    }
    if name.split()[0] in heavy:
        try:
            below = d.cdf(gt.tensor(floats(np.quantile(drawn, 0.3, axis=0)))).numpy()
        except NotImplementedError:
            assert np.isfinite(drawn).all()
            return
        np.testing.assert_allclose(below, 0.3, atol=0.01)
        return
    if name == "VonMises":
        mean, drawn = 0 * mean, (drawn - mean + math.pi) % (2 * math.pi) - math.pi
        np.testing.assert_allclose(1 - np.cos(drawn).mean(0), variance, atol=0.01)
        return
    centered = drawn - drawn.mean(0)
    spread = np.square(centered).mean(0)
    error = np.sqrt(spread / len(drawn))
    assert (np.abs(drawn.mean(0) - mean) <= 5 * error + 1e-6).all()
    error = np.sqrt(np.maximum(np.square(np.square(centered)).mean(0) - spread**2, 0) / len(drawn))
    assert (np.abs(spread - variance) <= 5 * error + 1e-6).all()


# -------------------------------------------------------------------------------------- divergences


def pairs() -> dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]]:
    unit_low = floats(rng.uniform(0.1, 0.3, (4, 3)))
    made: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
        name: MADE[name][:2] for name in MADE if name not in ("VonMises",)
    }
    made |= {
        "Bernoulli": (lambda D, p: D.Bernoulli(p), (unit(4, 3),)),
        "Categorical": (lambda D, p: D.Categorical(p), (simplex(4, 3),)),
        "Normal": (lambda D, m, s: D.Normal(m, s), (normal(4, 3), positive(3))),
        "OneHotCategorical": (lambda D, p: D.OneHotCategorical(p), (simplex(4, 3),)),
        "Independent": (
            lambda D, m, s: D.Independent(D.Normal(m, s), 1),
            (normal(4, 3), positive(3)),
        ),
        "Uniform inside": (lambda D, a: D.Uniform(a, a + 0.5), (unit_low,)),
        "Uniform right": (lambda D, a: D.Uniform(a + 1.5, a + 2.5), (unit_low,)),
        "Uniform wide": (lambda D, a: D.Uniform(a - 9, a + 9), (unit_low,)),
        "Normal from a number": (lambda D, m: D.Normal(m, 1.3), (normal(4, 3),)),
        "Beta other": (lambda D, a: D.Beta(a, 2.0), (positive(4, 3),)),
        "Gamma other": (lambda D, a: D.Gamma(a, 0.7), (positive(4, 3),)),
        "Pareto other": (lambda D, a: D.Pareto(0.3, a), (positive(4, 3),)),
        "Poisson other": (lambda D, a: D.Poisson(a), (positive(4, 3),)),
        "Laplace other": (lambda D, m: D.Laplace(m, 1.7), (normal(4, 3),)),
        "Gumbel other": (lambda D, m: D.Gumbel(m, 1.7), (normal(4, 3),)),
        "MultivariateNormal other": (
            lambda D, m, c: D.MultivariateNormal(m, scale_tril=c),
            (normal(4, 3), factor(4, 3)),
        ),
        "LowRankMultivariateNormal other": (
            lambda D, m, w, d: D.LowRankMultivariateNormal(m, w, d),
            (normal(4, 3), normal(4, 3, 1), positive(4, 3)),
        ),
        "LogNormal other": (lambda D, m: D.LogNormal(m, 1.7), (normal(4, 3),)),
        "Wishart other": (
            lambda D, d, c: D.Wishart(d, c),
            (positive(4, low=3.5, high=7.0), covariance(3)),
        ),
        "Dirichlet other": (lambda D, a: D.Dirichlet(a), (positive(4, 3),)),
    }
    return made


PAIRS = pairs()


@pytest.mark.parametrize("name", PAIRS)
def test_divergences_from(name: str) -> None:
    """To every other one: values and gradients, or the same error."""
    make, parameters = PAIRS[name]
    compared = 0
    for make_other, others in PAIRS.values():

        def call(t: Any, _: Any, *given: Any, make_other: Any = make_other) -> Any:
            p, q = (
                make(t.distributions, *given[: len(parameters)]),
                make_other(t.distributions, *given[len(parameters) :]),
            )
            return t.distributions.kl_divergence(p, q)

        found = []
        for t in (torch, gt):
            try:
                found.append(call(t, None, *map(t.tensor, (*parameters, *others))).detach().numpy())
            except Exception as error:
                found.append(type(error))
        if isinstance(found[0], type):
            assert found[1] is found[0]
            continue
        np.testing.assert_allclose(found[1], found[0], 2e-5, 2e-5)
        assert found[1].shape == found[0].shape
        if np.isfinite(found[0]).all() and found[0].dtype == np.float64:
            compare(call, (*parameters, *others), tolerance=3e-5)
            compared += 1
    never = {
        "Cauchy",
        "FisherSnedecor",
        "GeneralizedPareto",
        "Multinomial",
        "StudentT",
        "NegativeBinomial",
        "LKJCholesky",
        "MixtureSameFamily",
        "RelaxedBernoulli",
        "RelaxedOneHotCategorical",
        "Weibull",
        "TransformedDistribution",
        "Kumaraswamy",
        "InverseGamma",
        "Chi2",
        "HalfCauchy",
        "Wishart",
        "LogisticNormal",
    }
    assert compared or name.split()[0] in never


def test_all_pairs_that_pytorch_has_are_registered() -> None:
    def names(t: Any, table: Any) -> set[tuple[str, str]]:
        return {(p.__name__, q.__name__) for p, q in table if p.__module__.startswith(t.__name__)}

    theirs = names(torch, torch.distributions.kl._KL_REGISTRY)
    assert theirs <= names(gt, gt.distributions.kl._table)


# --------------------------------------------------------------------------------------- transforms

NUMBERS, VECTORS = normal(2, 4, 3), normal(4, 3)
TRANSFORMS: dict[str, tuple[Callable[[Any], Any], np.ndarray]] = {
    "exp": (lambda D: D.ExpTransform(), NUMBERS),
    "power": (lambda D: D.PowerTransform(2.5), positive(4, 3)),
    "sigmoid": (lambda D: D.SigmoidTransform(), NUMBERS),
    "softplus": (lambda D: D.SoftplusTransform(), NUMBERS),
    "tanh": (lambda D: D.TanhTransform(), NUMBERS),
    "abs": (lambda D: D.AbsTransform(), NUMBERS),
    "affine": (lambda D: D.AffineTransform(1.5, -2.0), NUMBERS),
    "affine vectors": (lambda D: D.AffineTransform(1.5, 2.0, 1), NUMBERS),
    "corr": (lambda D: D.CorrCholeskyTransform(), NUMBERS),
    "softmax": (lambda D: D.SoftmaxTransform(), VECTORS),
    "sticks": (lambda D: D.StickBreakingTransform(), VECTORS),
    "lower": (lambda D: D.LowerCholeskyTransform(), normal(2, 3, 3)),
    "definite": (lambda D: D.PositiveDefiniteTransform(), normal(2, 3, 3)),
    "reshape": (lambda D: D.ReshapeTransform((4, 3), (2, 6)), NUMBERS),
    "compose": (
        lambda D: D.ComposeTransform([D.AffineTransform(0.5, 2.0), D.StickBreakingTransform()]),
        VECTORS,
    ),
    "independent": (lambda D: D.IndependentTransform(D.ExpTransform(), 1), NUMBERS),
    "identity": (lambda D: D.identity_transform, NUMBERS),
    "cat": (lambda D: D.CatTransform([D.ExpTransform(), D.TanhTransform()], -1, [1, 2]), NUMBERS),
    "stack": (
        lambda D: D.StackTransform([D.ExpTransform(), D.TanhTransform(), D.identity_transform], -1),
        NUMBERS,
    ),
    "cumulative": (lambda D: D.CumulativeDistributionTransform(D.Normal(0.5, 2.0)), NUMBERS),
    "inverse": (lambda D: D.ExpTransform().inv, positive(4, 3)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    make, x = TRANSFORMS[name]

    def call(t: Any, _: Any, given: Any) -> Any:
        transform = make(t.distributions)
        y = transform(given)
        results = [y, transform.inv(y)]
        if transform.bijective:
            results.append(transform.log_abs_det_jacobian(given, y))
        return tuple(results)

    compare(call, (x,), tolerance=2e-5)
    said = []
    for t in (torch, gt):
        f = make(t.distributions)
        try:
            sign = float(f.sign)
        except NotImplementedError:
            sign = math.nan
        said.append(
            (
                repr(f),
                repr(f.inv),
                repr(f.domain),
                repr(f.codomain),
                f.bijective,
                str(sign),
                tuple(f.forward_shape(x.shape)),
                f.inv.inv is f,
                f == make(t.distributions),
                f == t.distributions.ExpTransform(),
                f.domain.event_dim,
                f.codomain.event_dim,
            )
        )
    assert said[0] == said[1]


def test_cached_pairs() -> None:
    for t in (torch, gt):
        f = t.distributions.ExpTransform(cache_size=1)
        x = t.tensor(NUMBERS)
        y = f(x)
        assert f(x) is y and f.inv(y) is x and f.inv(y + 0) is not x
        assert f.with_cache(0).inv(y) is not x
        with pytest.raises(ValueError, match="cache_size must be 0 or 1"):
            t.distributions.ExpTransform(cache_size=2)


SETS = (
    "real",
    "positive",
    "nonnegative",
    "unit_interval",
    "simplex",
    "corr_cholesky",
    "lower_cholesky",
    "positive_definite",
    "real_vector",
    "boolean",
    "nonnegative_integer",
    "positive_semidefinite",
)


@pytest.mark.parametrize("name", SETS)
def test_transforms_to_constraints(name: str) -> None:
    found = []
    for t in (torch, gt):
        constraint, x = getattr(t.distributions.constraints, name), t.tensor(VECTORS[:3])
        for registry in (t.distributions.biject_to, t.distributions.transform_to):
            try:
                made = registry(constraint)
                y = made(x)
                found.append(
                    (repr(made), np.round(y.numpy(), 4).tolist(), constraint.check(y).all().item())
                )
            except NotImplementedError as error:
                found.append(str(error))
    assert found[:2] == found[2:]


def test_transforms_to_bounds_and_parts() -> None:
    found = []
    for t in (torch, gt):
        D = t.distributions
        c = D.constraints
        parts = [c.greater_than(2.0), c.less_than(-1.0), c.interval(1.0, 3.0)]
        for constraint in (
            *parts,
            c.half_open_interval(0.0, 2.0),
            c.cat(parts, -1),
            c.stack(parts, -1),
            c.independent(c.positive, 1),
        ):
            made = D.biject_to(constraint)
            y = made(t.tensor(VECTORS))
            found.append(
                (
                    repr(made),
                    repr(constraint),
                    np.round(y.numpy(), 4).tolist(),
                    constraint.check(y).numpy().tolist(),
                )
            )
    assert found[: len(found) // 2] == found[len(found) // 2 :]


CHECKED: dict[str, np.ndarray] = {
    "lower_triangular": np.stack([np.tril(normal(3, 3)), normal(3, 3)]),
    "lower_cholesky": np.stack([factor(3), -factor(3)]),
    "corr_cholesky": np.stack([corr_factor(3), factor(3)]),
    "square": normal(2, 3, 3),
    "symmetric": np.stack([covariance(3), covariance(3)]),
    "positive_definite": np.stack([covariance(3), covariance(3) - 9 * np.eye(3)]),
    "positive_semidefinite": np.stack([covariance(3), covariance(3) - 9 * np.eye(3)]),
}


@pytest.mark.parametrize("name", CHECKED)
def test_constraints_of_matrices(name: str) -> None:
    found = [
        (repr(c), c.event_dim, c.check(t.tensor(CHECKED[name])).numpy().tolist())
        for t in (torch, gt)
        for c in [getattr(t.distributions.constraints, name)]
    ]
    assert found[0] == found[1]


def test_multinomial_and_mixture_constraints() -> None:
    found = []
    for t in (torch, gt):
        c = t.distributions.constraints
        counted = c.multinomial(4)
        mixed = c.MixtureSameFamilyConstraint(c.independent(c.positive, 1))
        found.append(
            (
                repr(counted),
                counted.check(t.tensor([[1.0, 3], [5, 0], [-1, 2]])).tolist(),
                repr(mixed),
                mixed.event_dim,
                mixed.is_discrete,
                mixed.check(t.tensor([[1.0, 3], [5, 0]])).tolist(),
            )
        )
    assert found[0] == found[1]


# ------------------------------------------------------------------------------------------ errors

WRONG: dict[str, Callable[[Any], Any]] = {
    "gamma": lambda D: D.Gamma(torch_like(D)([-1.0]), 1.0),
    "uniform": lambda D: D.Uniform(1.0, 0.0),
    "multinomial counts": lambda D: D.Multinomial(torch_like(D)([2]), torch_like(D)([0.5, 0.5])),
    "no matrix": lambda D: D.MultivariateNormal(torch_like(D)([0.0])),
    "not definite": lambda D: D.MultivariateNormal(
        torch_like(D)([0.0, 0.0]), torch_like(D)([[1.0, 2.0], [2.0, 1.0]])
    ),
    "one dimension": lambda D: D.MultivariateNormal(torch_like(D)([0.0]), torch_like(D)([1.0])),
    "wishart df": lambda D: D.Wishart(0.5, torch_like(D)([[1.0, 0.0], [0.0, 1.0]])),
    "wishart none": lambda D: D.Wishart(3.0),
    "lkj": lambda D: D.LKJCholesky(1),
    "geometric": lambda D: D.Geometric(torch_like(D)([0.0])),
    "dirichlet": lambda D: D.Dirichlet(torch_like(D)(1.0)),
    "value outside": lambda D: D.Gamma(1.0, 1.0).log_prob(torch_like(D)([-1.0])),
    "count outside": lambda D: D.Binomial(3, torch_like(D)([0.5])).log_prob(torch_like(D)([4.0])),
    "not whole": lambda D: D.Poisson(2.0).log_prob(torch_like(D)([0.5])),
    "mixture": lambda D: D.MixtureSameFamily(D.Normal(0.0, 1.0), D.Normal(0.0, 1.0)),
    "mixture sizes": lambda D: D.MixtureSameFamily(
        D.Categorical(torch_like(D)([0.5, 0.5])), D.Normal(torch_like(D)([0.0, 1.0, 2.0]), 1.0)
    ),
    "transforms": lambda D: D.TransformedDistribution(D.Normal(0.0, 1.0), 3),
    "transform list": lambda D: D.TransformedDistribution(D.Normal(0.0, 1.0), [3]),
    "reshape": lambda D: D.ReshapeTransform((2,), (3,)),
    "inhomogeneous": lambda D: D.Binomial(torch_like(D)([2.0, 3.0]), 0.5).entropy(),
    "poisson entropy": lambda D: D.Poisson(2.0).entropy(),
    "register": lambda D: D.biject_to.register(3, None)(lambda c: c),
    "continuous": lambda D: D.ContinuousBernoulli(torch_like(D)([1.5]), validate_args=True),
    "rsample": lambda D: D.Poisson(1.0).rsample(),
    "lowrank": lambda D: D.LowRankMultivariateNormal(
        torch_like(D)([0.0]), torch_like(D)([1.0]), torch_like(D)([1.0])
    ),
}


def torch_like(D: Any) -> Callable[..., Any]:
    return (torch if D is torch.distributions else gt).tensor


@pytest.mark.parametrize("name", WRONG)
def test_errors(name: str) -> None:
    said = []
    for t in (torch, gt):
        with pytest.raises(Exception) as caught:
            WRONG[name](t.distributions)
        said.append((caught.type, str(caught.value).replace("graphtorch", "torch")))
    assert said[0] == said[1]


# ----------------------------------------------------------------------------------------- compiled


def test_log_probabilities_compile() -> None:
    for name, (make, parameters, value) in MADE.items():
        given, v = [gt.tensor(a) for a in parameters], gt.tensor(value)
        compiled = gt.compile(
            lambda v, *a, make=make: make(gt.distributions, *a).log_prob(v), fullgraph=True
        )
        expected = make(gt.distributions, *given).log_prob(v).numpy()
        for _ in range(2):
            np.testing.assert_allclose(
                compiled(v, *given).numpy(), expected, 1e-5, 1e-5, err_msg=name
            )


DRAWN = {
    "Gamma",
    "Beta",
    "Dirichlet",
    "StudentT",
    "VonMises",
    "Poisson",
    "Binomial",
    "Wishart",
    "Gumbel",
    "MultivariateNormal",
    "NegativeBinomial",
    "LKJCholesky",
    "RelaxedBernoulli",
}
SAMPLED = [n for n in MADE if n.split()[0] in DRAWN]


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_compile(name: str) -> None:
    make, parameters, _ = MADE[name]
    given = [gt.tensor(a).requires_grad_() for a in parameters]

    def draw(*a: Any) -> Any:
        d = make(gt.distributions, *a)
        return (d.rsample if d.has_rsample else d.sample)((2,))

    # how often VonMises draws depends on the numbers
    compiled, found = gt.compile(draw, fullgraph=name.split()[0] != "VonMises"), []
    for function in (draw, compiled):
        gt.manual_seed(4)
        for _ in range(2):
            result = function(*given)
        if result.requires_grad:
            gradients = gt.autograd.grad(result.square().sum(), given, allow_unused=True)
            found.append(
                [result.detach().numpy(), *(g.numpy() for g in gradients if g is not None)]
            )
        else:
            found.append([result.numpy()])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-4, 1e-5)
