"""Random numbers, as PyTorch's module of this name: the global generator's seed and state.

Numbers are PyTorch's own: on CPUs its stream is a Mersenne Twister, one a generator, and what draws
from it takes as many words in the same order. The stream depends on the program only, whenever its
operations run.
"""

from __future__ import annotations

from ._random import fill as _fill  # noqa: F401  (its methods)
from ._random.factories import (
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from ._random.generator import (
    Generator,
    default_generator,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_random_stream,
    set_rng_state,
)

__all__ = [
    "Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed",
    "manual_seed", "seed", "set_random_stream", "set_rng_state",
]  # fmt: skip

PUBLIC = {
    f.__name__: f
    for f in (
        manual_seed,
        seed,
        initial_seed,
        get_rng_state,
        set_rng_state,
        set_random_stream,
        rand,
        randn,
        randint,
        randperm,
        normal,
        rand_like,
        randn_like,
        randint_like,
    )
}
