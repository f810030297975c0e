"""Fractional max pooling against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import graphtorch as gt
from against_torch import compare, same_error

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(2)
IMAGE = RNG.standard_normal((2, 3, 9, 8)).astype(np.float32)
VOLUME = RNG.standard_normal((2, 2, 7, 6, 9)).astype(np.float32)
WITH_NAN = IMAGE.copy()
WITH_NAN[0, 0, 3, 4] = np.nan
CASES = {
    "size": (2, IMAGE, 2, {"output_size": (4, 5)}),
    "one size": (2, IMAGE, (3, 2), {"output_size": 3}),
    "ratio": (2, IMAGE, 2, {"output_ratio": (0.5, 0.7)}),
    "one position": (2, IMAGE, 2, {"output_size": (1, 4)}),
    "nan": (2, WITH_NAN, 3, {"output_size": 4}),
    "unbatched": (2, IMAGE[0].copy(), 2, {"output_size": 4}),
    "volume": (3, VOLUME, (2, 1, 3), {"output_size": (4, 5, 3)}),
    "volume ratio": (3, VOLUME, 2, {"output_ratio": (0.5, 0.6, 0.4)}),
}


@pytest.mark.parametrize(("n", "x", "kernel", "options"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pool(n, x, kernel, options, dtype):
    x = x.astype(dtype)
    channels = x.shape[-n - 1]
    samples = RNG.random((2 if x.ndim == n + 2 else 1, channels, n)).astype(dtype)

    def call(t, _, image):
        pool = getattr(t.nn, f"FractionalMaxPool{n}d")(
            kernel, **options, return_indices=True, _random_samples=t.tensor(samples)
        )
        return pool(image)

    if np.isnan(x).any():
        values, places = call(gt, None, gt.tensor(x))
        want, expected = call(torch, None, torch.tensor(x))
        np.testing.assert_array_equal(values.numpy(), want.numpy())
        np.testing.assert_array_equal(places.numpy(), expected.numpy())
        return
    compare(call, [x])


def test_draws_are_the_generators():
    x = gt.tensor(IMAGE)
    outs = []
    for _ in range(2):
        gt.manual_seed(4)
        outs.append(gt.nn.functional.fractional_max_pool2d(x, 2, output_size=4).numpy())
    np.testing.assert_array_equal(*outs)
    assert not np.array_equal(
        outs[0], gt.nn.functional.fractional_max_pool2d(x, 2, output_size=4).numpy()
    )


REFUSED = {
    "nothing given": {},
    "kernel": {"kernel_size": (7, 2), "output_size": (4, 4)},
    "kernel sizes": {"kernel_size": (2, 2, 2), "output_size": 4},
    "ratio": {"output_ratio": (0.5, 0.5, 0.5)},
    "rank": {"input": IMAGE[0, 0], "output_size": 4},
    "empty channels": {"input": IMAGE[:, :0], "output_size": 4},
    "integers": {"input": IMAGE.astype(np.int64), "output_size": 4},
    "few samples": {"output_size": 4, "_random_samples": np.ones((1, 3, 2), np.float32)},
    "samples a channel": {"output_size": 4, "_random_samples": np.ones((2, 3, 3), np.float32)},
    "rank of samples": {"output_size": 4, "_random_samples": np.ones((2, 3), np.float32)},
    "samples of numbers": {"output_size": 4, "_random_samples": [1.0]},
    "rank with samples": {
        "input": IMAGE[0, 0],
        "output_size": 4,
        "_random_samples": np.ones((2, 3, 2)),
    },
    "dtype of samples": {"output_size": 4, "_random_samples": np.ones((2, 3, 2))},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(options):
    given = {"input": IMAGE, "kernel_size": 2, **options}
    same_error(
        lambda t: t.nn.functional.fractional_max_pool2d(
            **{k: t.tensor(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        )
    )


@pytest.mark.parametrize(
    "options", [{}, {"output_size": 2, "output_ratio": 0.5}, {"output_ratio": 1.5}]
)
def test_layers_refuse(options):
    for n in (2, 3):
        same_error(lambda t, n=n: getattr(t.nn, f"FractionalMaxPool{n}d")(2, **options))
    same_error(lambda t: t.nn.FractionalMaxPool3d(0, 2))
