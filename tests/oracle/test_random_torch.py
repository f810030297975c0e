"""Same seed, same numbers: every function that draws, against PyTorch, and the generators' states
after it.

Normal numbers in f32 are equal to the bit where PyTorch computes with AVX2; on other processors it
takes the functions of the C library, which are at times rounded the other way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch._random.streams import computes_with_avx2

torch = pytest.importorskip("torch")

from same_numbers import bits, same  # noqa: E402  (needs torch)

ROUNDINGS = 0 if computes_with_avx2() else 3  # that normal numbers may be apart
SIZES = [(0,), (1,), (15,), (16,), (17,), (31,), (1000,), (3, 4, 5), ()]
FLOATS = ["float32", "float64", "float16", "bfloat16"]
INTEGERS = ["int64", "int32", "int16", "int8", "uint8", "bool"]
DOUBLE = ("float64", "complex128")
COMPLEX = ["complex64", "complex128"]
Draw = Callable[[Any, Any], Any]  # of a library and its dtype's name and options


def check(
    draw: Callable[[Any, dict[str, Any]], Any],
    steps: float = 0.0,
    least: float = 0.05,
    seed: int = 5,
) -> None:
    """`draw` from the global generators and from ones given; twice, so that what is kept is
    used."""
    for given in (False, True):
        results, states = [], []
        for library in (graphtorch, torch):
            generator = (
                library.Generator().manual_seed(seed) if given else library.manual_seed(seed)
            )
            options = {"generator": generator} if given else {}
            results.append([draw(library, options) for _ in range(2)])
            states.append(bits(generator.get_state()))
        for ours, theirs in zip(*results, strict=True):
            same(ours, theirs, steps, least)
        np.testing.assert_array_equal(*states)


def filling(name: str, *args: Any) -> Callable[[str, tuple[int, ...]], Draw]:
    return lambda dtype, size: (
        lambda library, options: getattr(library.zeros(size, dtype=getattr(library, dtype)), name)(
            *args, **options
        )
    )


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
def test_rand_and_randn(dtype: str) -> None:
    for size in SIZES:
        for name, steps in (("rand", 0), ("randn", 2 if dtype in DOUBLE else ROUNDINGS)):
            check(
                lambda t, o, s=size, n=name: getattr(t, n)(s, dtype=getattr(t, dtype), **o), steps
            )
            check(
                lambda t, o, s=size, n=name: getattr(t, n)(
                    s, out=t.zeros(s, dtype=getattr(t, dtype)), **o
                ),
                steps,
            )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("name", "args", "steps"),
    [
        ("uniform_", (), 0),
        ("uniform_", (-0.1, 0.7), 0),
        ("uniform_", (0.0, 0.3), 0),
        ("normal_", (), ROUNDINGS),
        ("normal_", (1.5, 0.25), ROUNDINGS),
        ("exponential_", (), 2),
        ("exponential_", (2.5,), 2),
        ("geometric_", (0.3,), 0),
        ("cauchy_", (), 2),
        ("cauchy_", (1.0, 3.0), 2),
        ("log_normal_", (), 2),
        ("log_normal_", (0.5, 0.1), 2),
        ("bernoulli_", (), 0),
        ("bernoulli_", (0.2,), 0),
        ("random_", (), 0),
        ("random_", (7,), 0),
        ("random_", (-3, 9), 0),
    ],
)
def test_filling(name: str, args: tuple[Any, ...], steps: float, dtype: str) -> None:
    for size in SIZES:
        check(filling(name, *args)(dtype, size), steps)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype: str) -> None:
    for size in SIZES:
        check(filling("random_")(dtype, size))
        check(filling("random_", 2)(dtype, size))
        check(filling("bernoulli_", 0.4)(dtype, size))
        if dtype != "bool":
            check(filling("random_", 3, 100)(dtype, size))
            check(filling("geometric_", 0.5)(dtype, size))
            check(lambda t, o, s=size: t.randint(5, 90, s, dtype=getattr(t, dtype), **o))


@pytest.mark.parametrize(
    "bounds",
    [
        (0, 1),
        (0, 2**28 - 1),
        (0, 2**28),
        (-5, 2**31),
        (0, 2**32),
        (-3, 2**40),
        (0, 2**62),
        (-(2**63), 2**63 - 1),
    ],
)
def test_wide_integers(bounds: tuple[int, int]) -> None:
    check(lambda t, o: t.randint(*bounds, (40,), **o))


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", "float64", "int16"])
def test_permutations(dtype: str) -> None:
    for n in (0, 1, 2, 17, 1000):
        check(lambda t, o, n=n: t.randperm(n, dtype=getattr(t, dtype), **o))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_in_the_order_of_memory(dtype: str) -> None:
    def views(library: Any) -> list[Any]:
        new = lambda *s: library.zeros(s, dtype=getattr(library, dtype))  # noqa: E731
        return [
            new(6, 7).t(),
            new(4, 3, 5)[:, :2].permute(2, 0, 1),
            new(6, 6).t()[:, ::2],
            new(40)[::2],
            new(2, 3, 4, 5).to(memory_format=library.channels_last),
            new(1, 20, 1).transpose(0, 1),
        ]

    for i in range(6):
        for name, args, steps in (
            ("uniform_", (-1, 2), 0),
            ("normal_", (), 2),
            ("bernoulli_", (0.3,), 0),
            ("exponential_", (), 2),
            ("random_", (50,), 0),
        ):
            check(lambda t, o, i=i, n=name, a=args: getattr(views(t)[i], n)(*a, **o), steps)
        check(lambda t, o, i=i: t.rand_like(views(t)[i], **o))
        check(lambda t, o, i=i: t.randn_like(views(t)[i], **o), 2)
        check(lambda t, o, i=i: t.randint_like(views(t)[i], 3, 90))
        check(lambda t, o, i=i: t.randint_like(views(t)[i], high=90, dtype=t.int64))
        check(lambda t, o, i=i: t.bernoulli(views(t)[i] + 0.3, **o))


@pytest.mark.parametrize("dtype", FLOATS)
def test_chances(dtype: str) -> None:
    def chances(t: Any, n: int) -> Any:
        return (t.arange(n).to(getattr(t, dtype)) % 7) / 7

    for n in (1, 16, 100):
        check(lambda t, o, n=n: t.bernoulli(chances(t, n), **o))
        check(lambda t, o, n=n: t.bernoulli(chances(t, n), 0.6, **o))
        check(lambda t, o, n=n: t.zeros(n).bernoulli_(chances(t, n), **o))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype: str) -> None:
    for n in (3, 40):

        def mean(t: Any, n: int = n) -> Any:
            return t.arange(n).to(getattr(t, dtype)) + 1

        check(lambda t, o: t.normal(mean(t), 0.5, **o), 2, n)
        check(lambda t, o: t.normal(2.0, mean(t), **o), 2, n)
        check(lambda t, o: t.normal(mean(t), mean(t), **o), 2, n)
        check(lambda t, o, n=n: t.normal(1.0, 3.0, (n,), dtype=getattr(t, dtype), **o), 2, 3)


@pytest.mark.parametrize("dtype", FLOATS)
def test_multinomial(dtype: str) -> None:
    def weights(t: Any, *shape: int) -> Any:
        return ((t.arange(int(np.prod(shape))) % 5).to(getattr(t, dtype)) + 0.5).reshape(shape)

    for shape in ((4,), (3, 6), (2, 100)):
        for count, replacement in ((1, False), (1, True), (3, False), (20, True)):
            check(
                lambda t, o, s=shape, c=count, r=replacement: t.multinomial(
                    weights(t, *s), c, r, **o
                )
            )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples(dtype: str) -> None:
    def line(t: Any, low: float, high: float) -> Any:
        return t.linspace(low, high, 60, dtype=getattr(t, dtype))

    check(lambda t, o: t._standard_gamma(line(t, 0.05, 8), **o), 4)
    check(lambda t, o: t.poisson(line(t, 0, 9), **o))
    check(lambda t, o: t.poisson(line(t, 10, 500), **o))
    check(lambda t, o: t.binomial(t.round(line(t, 0, 90)), line(t, 0, 1), **o))
    check(lambda t, o: t.binomial(t.round(line(t, 500, 9000)), line(t, 0.05, 0.95), **o))
    check(lambda t, o: t._sample_dirichlet(line(t, 0.1, 3).reshape(6, 10), **o), 4)


def test_states_are_exchanged() -> None:
    """In both directions, before and after draws, with a number kept and without."""
    for steps in (0, 1, 2, 700):
        for kept in (False, True):
            ours, theirs = graphtorch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
            for library, generator in ((graphtorch, ours), (torch, theirs)):
                library.rand(steps, generator=generator)
                if kept:
                    library.randn(1, generator=generator)
            copy = torch.Generator()
            copy.set_state(torch.from_numpy(ours.get_state().numpy()))
            back = graphtorch.Generator()
            back.set_state(graphtorch.from_numpy(theirs.get_state().numpy()))
            assert back.initial_seed() == copy.initial_seed() == 7
            for n in (1, 30):
                same(graphtorch.randn(n, generator=back), torch.randn(n, generator=copy), 2)


def test_global_state() -> None:
    torch.manual_seed(3)
    graphtorch.manual_seed(3)
    assert graphtorch.initial_seed() == torch.initial_seed()
    with graphtorch.random.fork_rng(), torch.random.fork_rng():
        same(graphtorch.rand(5), torch.rand(5))
    same(graphtorch.rand(5), torch.rand(5))
    graphtorch.set_rng_state(graphtorch.from_numpy(torch.get_rng_state().numpy()))
    same(graphtorch.rand(5), torch.rand(5))
    for seed in (-1, 2**63 + 5, 0):
        same(
            graphtorch.rand(3, generator=graphtorch.Generator().manual_seed(seed)),
            torch.rand(3, generator=torch.Generator().manual_seed(seed)),
        )
    assert graphtorch.Generator().initial_seed() == torch.Generator().initial_seed()
