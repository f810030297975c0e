"""What is built on random numbers takes them as PyTorch does: parameters, dropout, loaders,
samples."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")

from same_numbers import bits, same  # noqa: E402  (needs torch)

LIBRARIES = (graphtorch, torch)


def both(make: Callable[[Any], Any], seed: int = 1) -> list[Any]:
    """What `make` gives with either library, whose states after it are equal."""
    found = []
    for library in LIBRARIES:
        library.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(make(library))
    np.testing.assert_array_equal(*[bits(library.get_rng_state()) for library in LIBRARIES])
    return found


MODULES: dict[str, Callable[[Any], Any]] = {
    "Linear": lambda nn: nn.Linear(7, 5),
    "Bilinear": lambda nn: nn.Bilinear(3, 4, 5),
    "Conv1d": lambda nn: nn.Conv1d(4, 6, 3, groups=2),
    "Conv2d": lambda nn: nn.Conv2d(3, 8, (3, 5)),
    "Conv3d": lambda nn: nn.Conv3d(2, 4, 2, bias=False),
    "ConvTranspose1d": lambda nn: nn.ConvTranspose1d(4, 6, 3),
    "ConvTranspose2d": lambda nn: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "ConvTranspose3d": lambda nn: nn.ConvTranspose3d(2, 3, 2),
    "Embedding": lambda nn: nn.Embedding(9, 4, 2),
    "EmbeddingBag": lambda nn: nn.EmbeddingBag(9, 4),
    "RNN": lambda nn: nn.RNN(3, 5, 2, bidirectional=True),
    "LSTM": lambda nn: nn.LSTM(3, 6, 2, proj_size=2),
    "GRU": lambda nn: nn.GRU(3, 5),
    "RNNCell": lambda nn: nn.RNNCell(3, 5),
    "LSTMCell": lambda nn: nn.LSTMCell(3, 5),
    "GRUCell": lambda nn: nn.GRUCell(3, 5),
    "MultiheadAttention": lambda nn: nn.MultiheadAttention(8, 2),
    "MultiheadAttention_kv": lambda nn: nn.MultiheadAttention(
        8, 2, kdim=5, vdim=6, add_bias_kv=True
    ),
    "TransformerEncoderLayer": lambda nn: nn.TransformerEncoderLayer(8, 2, 16),
    "TransformerDecoderLayer": lambda nn: nn.TransformerDecoderLayer(8, 2, 16),
    "Transformer": lambda nn: nn.Transformer(8, 2, 2, 2, 16),
    "BatchNorm2d": lambda nn: nn.BatchNorm2d(3),
    "LayerNorm": lambda nn: nn.LayerNorm(5),
    "PReLU": lambda nn: nn.PReLU(3),
    "AdaptiveLogSoftmaxWithLoss": lambda nn: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10]),
    "spectral_norm": lambda nn: nn.utils.parametrizations.spectral_norm(nn.Linear(20, 30)),
    "spectral_norm_old": lambda nn: nn.utils.spectral_norm(nn.Linear(20, 30)),
    "weight_norm": lambda nn: nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3)),
    "random_unstructured": lambda nn: nn.utils.prune.random_unstructured(
        nn.Linear(9, 8), "weight", 0.4
    ),
    "random_structured": lambda nn: nn.utils.prune.random_structured(
        nn.Linear(9, 8), "weight", 3, 1
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_initial_parameters(name: str) -> None:
    ours, theirs = both(lambda t: MODULES[name](t.nn).state_dict())
    assert list(ours) == list(theirs)
    for key in theirs:
        # roots and quotients of fans and norms are rounded in another order here and there
        same(ours[key], theirs[key], 3, 1.0 if "norm" in name else 0.05)


@pytest.mark.parametrize("lazy", ["LazyLinear", "LazyConv2d", "LazyConvTranspose1d"])
def test_lazy_parameters(lazy: str) -> None:
    def make(t: Any) -> Any:
        made = getattr(t.nn, lazy)(*([4] if lazy == "LazyLinear" else [4, 2]))
        made(t.ones({"LazyLinear": (2, 5), "LazyConv2d": (1, 3, 6, 6)}.get(lazy, (1, 3, 6))))
        return made.weight

    same(*both(make))


INIT: dict[str, Callable[[Any, Any], Any]] = {
    "uniform": lambda i, w: i.uniform_(w, -2, 3),
    "normal": lambda i, w: i.normal_(w, 1, 0.2),
    "trunc_normal": lambda i, w: i.trunc_normal_(w, std=0.02),
    "trunc_normal_tail": lambda i, w: i.trunc_normal_(w, 0.0, 1.0, 1.0, 3.0),
    "trunc_normal_inside": lambda i, w: i.trunc_normal_(w, 0.5, 1.0, -0.5, 1.2),
    "xavier_uniform": lambda i, w: i.xavier_uniform_(w, 1.3),
    "xavier_normal": lambda i, w: i.xavier_normal_(w),
    "kaiming_uniform": lambda i, w: i.kaiming_uniform_(w, 5**0.5),
    "kaiming_normal": lambda i, w: i.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    "orthogonal": lambda i, w: i.orthogonal_(w, 1.5),
    "sparse": lambda i, w: i.sparse_(w, 0.3),
}


@pytest.mark.parametrize("name", INIT)
@pytest.mark.parametrize("shape", [(5, 3), (20, 33)])
def test_init(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = both(lambda t: INIT[name](t.nn.init, t.empty(shape)))
    same(ours, theirs, 20 if name == "orthogonal" else 3, 1.0)


def arranged(t: Any, *shape: int) -> Any:
    return (t.arange(int(np.prod(shape))) * 7 % 23 - 11).float().reshape(shape) / 8


def attended(t: Any, **options: Any) -> Any:
    """An encoder layer's result in training: dropout draws in the order of the attention's
    memory."""
    layer = t.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, **options)
    return layer(
        arranged(t, 3, 5, 8), src_key_padding_mask=arranged(t, *((3, 5) if options else (5, 3))) > 0
    )


FUNCTIONAL: dict[str, Callable[[Any, Any], Any]] = {
    "dropout": lambda t, f: f.dropout(arranged(t, 3, 40), 0.3),
    "dropout_half": lambda t, f: f.dropout(arranged(t, 3, 40).double(), 0.5),
    "dropout_transposed": lambda t, f: f.dropout(arranged(t, 6, 7).t(), 0.4),
    "dropout_channels_last": lambda t, f: f.dropout(
        arranged(t, 2, 3, 4, 4).to(memory_format=t.channels_last), 0.4
    ),
    "dropout_bfloat16": lambda t, f: f.dropout(arranged(t, 50).bfloat16(), 0.2),
    "dropout1d": lambda t, f: f.dropout1d(arranged(t, 4, 9, 5), 0.3),
    "dropout2d": lambda t, f: f.dropout2d(arranged(t, 4, 9, 5, 2), 0.3),
    "dropout3d": lambda t, f: f.dropout3d(arranged(t, 4, 9, 5, 2, 2), 0.3),
    "alpha_dropout": lambda t, f: f.alpha_dropout(arranged(t, 30, 4), 0.3, True),
    "feature_alpha_dropout": lambda t, f: f.feature_alpha_dropout(arranged(t, 4, 9, 5), 0.3, True),
    "rrelu": lambda t, f: f.rrelu(arranged(t, 7, 11), training=True),
    "rrelu_all": lambda t, f: f.rrelu(-arranged(t, 40).abs(), 0.1, 0.9, training=True),
    "fractional_max_pool2d": lambda t, f: f.fractional_max_pool2d(arranged(t, 2, 3, 12, 12), 3, 4),
    "fractional_max_pool3d": lambda t, f: f.fractional_max_pool3d(
        arranged(t, 2, 3, 9, 9, 9), 2, output_ratio=0.5
    ),
    "encoder_layer": lambda t, f: attended(t),
    "encoder_layer_b": lambda t, f: attended(t, batch_first=True),
    "gumbel_softmax": lambda t, f: f.gumbel_softmax(arranged(t, 5, 20), 0.7),
    "gumbel_softmax_hard": lambda t, f: f.gumbel_softmax(arranged(t, 5, 20), 0.7, hard=True),
    "attention": lambda t, f: f.scaled_dot_product_attention(
        *[arranged(t, 2, 3, 7, 8)] * 3, dropout_p=0.25
    ),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functional(name: str) -> None:
    ours, theirs = both(lambda t: FUNCTIONAL[name](t, t.nn.functional))
    same(ours, theirs, 12, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda nn: nn.MultiheadAttention(8, 2, dropout=0.3),
        lambda nn: nn.TransformerEncoderLayer(8, 2, 16, 0.2),
        lambda nn: nn.TransformerDecoderLayer(8, 2, 16, 0.2),
        lambda nn: nn.LSTM(8, 5, 3, dropout=0.4),
        lambda nn: nn.GRU(8, 5, 2, dropout=0.4, bidirectional=True),
        lambda nn: nn.RReLU(),
    ],
    ids=["attention", "encoder", "decoder", "lstm", "gru", "rrelu"],
)
def test_layers_in_training(make: Callable[[Any], Any]) -> None:
    def run(t: Any) -> Any:
        layer, x = make(t.nn), arranged(t, 6, 3, 8).requires_grad_()
        name = type(layer).__name__
        given = [x] * (
            3 if name == "MultiheadAttention" else 2 if name.endswith("DecoderLayer") else 1
        )
        result = layer(*given)
        result = result[0] if isinstance(result, tuple) else result
        result.square().sum().backward()
        return result, x.grad

    for ours, theirs in zip(*both(run), strict=True):
        np.testing.assert_allclose(bits(ours), bits(theirs), rtol=2e-4, atol=2e-5)


LOADERS: dict[str, Callable[[Any, Any], Any]] = {
    "shuffled": lambda t, d: d.DataLoader(range(23), 4, shuffle=True),
    "in_order": lambda t, d: d.DataLoader(range(23), 4),
    "given": lambda t, d: d.DataLoader(
        range(23), 4, shuffle=True, generator=t.Generator().manual_seed(9)
    ),
    "replacement": lambda t, d: d.DataLoader(
        range(23), 4, sampler=d.RandomSampler(range(23), True, 70)
    ),
    "more": lambda t, d: d.DataLoader(
        range(9),
        4,
        sampler=d.RandomSampler(range(9), num_samples=20, generator=t.default_generator),
    ),
    "weighted": lambda t, d: d.DataLoader(
        range(9), 4, sampler=d.WeightedRandomSampler(list(range(9)), 30)
    ),
    "subset": lambda t, d: d.DataLoader(range(9), 2, sampler=d.SubsetRandomSampler([3, 5, 7, 8])),
}


@pytest.mark.parametrize("name", LOADERS)
def test_loaders(name: str) -> None:
    def epochs(t: Any) -> Any:
        loader = LOADERS[name](t, t.utils.data)
        return [
            t.cat([batch.double() + t.rand((), dtype=t.float64) for batch in loader])
            for _ in range(2)
        ]

    for ours, theirs in zip(*both(epochs), strict=True):
        same(ours, theirs)


def test_random_split() -> None:
    ours, theirs = both(
        lambda t: [s.indices for s in t.utils.data.random_split(range(30), [0.5, 0.3, 0.2])]
    )
    assert ours == theirs


class Draws(graphtorch.utils.data.Dataset):  # type: ignore[misc]
    """Numbers drawn in the worker."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return [random.random(), np.random.rand(), graphtorch.rand(()).item()]


def test_workers() -> None:
    class Theirs(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return 6

        def __getitem__(self, i: int) -> Any:
            return [random.random(), np.random.rand(), torch.rand(()).item()]

    def collected(t: Any) -> Any:
        data = Draws() if t is graphtorch else Theirs()
        loader = t.utils.data.DataLoader(data, 2, num_workers=2, multiprocessing_context="fork")
        return [[float(x) for x in column] for batch in loader for column in batch]

    ours, theirs = both(collected)
    assert ours == theirs


def positive(t: Any, *shape: int) -> Any:
    return arranged(t, *shape).abs() + 0.3


DISTRIBUTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Bernoulli": lambda t, d: d.Bernoulli(positive(t, 5) / 2),
    "Beta": lambda t, d: d.Beta(positive(t, 5), 2.0),
    "Binomial": lambda t, d: d.Binomial(20, positive(t, 5) / 2),
    "Cauchy": lambda t, d: d.Cauchy(0.0, positive(t, 5)),
    "Categorical": lambda t, d: d.Categorical(positive(t, 3, 5)),
    "Chi2": lambda t, d: d.Chi2(positive(t, 5)),
    "ContinuousBernoulli": lambda t, d: d.ContinuousBernoulli(positive(t, 5) / 2),
    "Dirichlet": lambda t, d: d.Dirichlet(positive(t, 3, 5)),
    "Exponential": lambda t, d: d.Exponential(positive(t, 5)),
    "FisherSnedecor": lambda t, d: d.FisherSnedecor(positive(t, 5) + 1, 4.0),
    "Gamma": lambda t, d: d.Gamma(positive(t, 5), 2.0),
    "Geometric": lambda t, d: d.Geometric(positive(t, 5) / 2),
    "Gumbel": lambda t, d: d.Gumbel(0.0, positive(t, 5)),
    "HalfCauchy": lambda t, d: d.HalfCauchy(positive(t, 5)),
    "HalfNormal": lambda t, d: d.HalfNormal(positive(t, 5)),
    "InverseGamma": lambda t, d: d.InverseGamma(positive(t, 5), 2.0),
    "Kumaraswamy": lambda t, d: d.Kumaraswamy(positive(t, 5), 2.0),
    "Laplace": lambda t, d: d.Laplace(0.0, positive(t, 5)),
    "LogNormal": lambda t, d: d.LogNormal(0.0, positive(t, 5)),
    "LogisticNormal": lambda t, d: d.LogisticNormal(arranged(t, 5), positive(t, 5)),
    "LowRankMultivariateNormal": lambda t, d: d.LowRankMultivariateNormal(
        arranged(t, 5), arranged(t, 5, 2), positive(t, 5)
    ),
    "Multinomial": lambda t, d: d.Multinomial(10, positive(t, 5)),
    "MultivariateNormal": lambda t, d: d.MultivariateNormal(arranged(t, 5), t.eye(5) * 2),
    "NegativeBinomial": lambda t, d: d.NegativeBinomial(3.0, positive(t, 5) / 2),
    "Normal": lambda t, d: d.Normal(arranged(t, 5), positive(t, 5)),
    "OneHotCategorical": lambda t, d: d.OneHotCategorical(positive(t, 3, 5)),
    "Pareto": lambda t, d: d.Pareto(1.0, positive(t, 5)),
    "Poisson": lambda t, d: d.Poisson(positive(t, 5) * 9),
    "RelaxedBernoulli": lambda t, d: d.RelaxedBernoulli(t.tensor(0.5), positive(t, 5) / 2),
    "RelaxedOneHotCategorical": lambda t, d: d.RelaxedOneHotCategorical(
        t.tensor(0.5), positive(t, 5)
    ),
    "StudentT": lambda t, d: d.StudentT(positive(t, 5) + 2),
    "Uniform": lambda t, d: d.Uniform(-1.0, positive(t, 5)),
    "VonMises": lambda t, d: d.VonMises(arranged(t, 5), positive(t, 5)),
    "Weibull": lambda t, d: d.Weibull(positive(t, 5), 2.0),
    "Wishart": lambda t, d: d.Wishart(t.tensor(6.0), t.eye(3)),
    "MixtureSameFamily": lambda t, d: d.MixtureSameFamily(
        d.Categorical(positive(t, 5)), d.Normal(arranged(t, 5), positive(t, 5))
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str) -> None:
    for shape in ((), (7,)):
        ours, theirs = both(lambda t, s=shape: DISTRIBUTIONS[name](t, t.distributions).sample(s))
        np.testing.assert_allclose(bits(ours), bits(theirs), rtol=1e-5, atol=1e-6)
