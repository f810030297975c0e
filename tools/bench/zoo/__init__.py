"""Models in PyTorch's API, built with whichever library is passed in, and inputs for them.

`FIRST` are three of a beginner's, `STANDARD` four that are measured everywhere, `ZOO` twelve and
more of other kinds. Each has a small version of the same layers, for tests.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import attention, convolutional
from .parts import Library, Module

Arrays = tuple[np.ndarray, ...]


class Model(NamedTuple):
    """How a model is made of a library, and its inputs, in full and in small."""

    make: Callable[[Library, bool], Module]
    inputs: Callable[[np.random.Generator, bool], Arrays]

    def build(self, torch: Library, small: bool = False) -> Module:
        """For inference."""
        return self.make(torch, small).eval()

    def arrays(self, small: bool = False) -> Arrays:
        """The same numbers at each call."""
        return self.inputs(np.random.default_rng(0), small)


def floats(shape: Sequence[int], small: Sequence[int]) -> Callable[..., Arrays]:
    """One input of normal numbers."""
    return lambda rng, is_small: (
        rng.standard_normal(small if is_small else shape).astype(np.float32),
    )


def image(size: int, small: int = 32) -> Callable[..., Arrays]:
    return floats((1, 3, size, size), (1, 3, small, small))


def words(rng: np.random.Generator, small: bool) -> Arrays:
    return (rng.integers(0, 96 if small else 32128, (1, 12 if small else 128)),)


def word_and_past(rng: np.random.Generator, small: bool) -> Arrays:
    """What GPT-2 reads at the last step of a text of 128 words."""
    vocabulary, layers, heads, size, length = (
        (96, 2, 4, 8, 7) if small else (50257, 12, 12, 64, 127)
    )
    past = rng.standard_normal((layers, 2, 1, heads, length, size)).astype(np.float32)
    return rng.integers(0, vocabulary, (1, 1)), np.full((1, 1), length), past


FIRST = {
    "mlp": Model(convolutional.mlp, floats((1, 1000), (1, 30))),
    "lenet": Model(convolutional.lenet, floats((1, 1, 32, 32), (1, 1, 32, 32))),
    "resnet18": Model(convolutional.resnet18, image(224)),
}

STANDARD = {
    "resnet50": Model(convolutional.resnet50, image(224)),
    "mobilenetv2": Model(convolutional.mobilenetv2, image(224)),
    "vit_s16": Model(attention.vit_s16, image(224)),
    "bertbase": Model(attention.bertbase, floats((1, 128, 768), (1, 12, 32))),
}

ZOO = {
    "mobilenetv3": Model(convolutional.mobilenetv3, image(224)),
    "efficientnet_b0": Model(convolutional.efficientnet_b0, image(224)),
    "convnext_t": Model(convolutional.convnext_t, image(224)),
    "densenet121": Model(convolutional.densenet121, image(224)),
    "regnety": Model(convolutional.regnety, image(224)),
    "shufflenetv2": Model(convolutional.shufflenetv2, image(224)),
    "swin_t": Model(attention.swin_t, image(224, 56)),
    "unet": Model(convolutional.unet, image(128)),
    "yolo": Model(convolutional.yolo, image(320, 64)),
    "mobilevit": Model(attention.mobilevit, image(256)),
    "gpt2": Model(attention.gpt2, word_and_past),
    "t5_encoder": Model(attention.t5_encoder, words),
    "tcn": Model(convolutional.tcn, floats((8, 8, 1024), (2, 8, 64))),
}

MODELS = FIRST | STANDARD | ZOO


def lively(torch: Library, model: Module, inputs: Sequence[Any]) -> Module:
    """Give weights and running statistics values that keep activations near 1.

    With the library's own start a deep net's result is little more than its last bias, and an error
    before that would not show.
    """
    nn = torch.nn
    convolutions = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    for module in model.modules():
        if isinstance(module, (*convolutions, nn.Linear)):
            kind = "relu" if isinstance(module, convolutions) else "linear"
            nn.init.kaiming_normal_(module.weight, nonlinearity=kind)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    _measure_statistics(torch, model, inputs)
    return model.eval()


def _measure_statistics(torch: Library, model: Module, inputs: Sequence[Any]) -> None:
    """Set running statistics to those of a batch around `inputs`."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
    (x,) = inputs
    batch = x.expand(4, *x.shape[1:]) + 0.1 * torch.randn(4, *x.shape[1:])
    with torch.no_grad():
        model.train()(batch)
    for norm in norms:
        norm.momentum = 0.1


def with_weights_of(theirs: Module, mine: Module, tensor: Callable[[np.ndarray], Any]) -> Module:
    """`mine` with the weights of a model of another library, whose `tensor` makes tensors."""
    state = {k: tensor(v.numpy().copy()) for k, v in theirs.state_dict().items()}
    mine.load_state_dict(state)
    return mine


def flat(results: Any) -> list[Any]:
    """The tensors of what a model gives."""
    return [results] if hasattr(results, "shape") else [t for one in results for t in flat(one)]


def in_double(torch: Library, model: Module, inputs: Sequence[Any]) -> list[np.ndarray]:
    """What a model gives when it computes in float64."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        wide = (x.double() if x.is_floating_point() else x for x in inputs)
        return [t.numpy() for t in flat(exact(*wide))]


def error(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> float:
    """The largest error, relative to the largest number of each result."""
    if len(found) != len(exact):
        raise ValueError(f"{len(found)} results, {len(exact)} expected")
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, exact, strict=True)
    )
