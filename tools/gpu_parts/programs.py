"""Programs as anybody writes them, for PyTorch and for graphtorch under its name: nets, data,
training.

Weights and data come from NumPy, so that both begin at the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.zoo import attention, convolutional

Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


def mlp(torch: Any, width: int = 64, classes: int = 10) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(32, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.GELU(),
        nn.LayerNorm(width),
        nn.Linear(width, classes),
    )


def lenet(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


def convnet(torch: Any) -> Any:
    """Blocks with batch norm and a residual connection, as in ResNets."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, inside: int, outside: int, stride: int):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outside),
                nn.ReLU(),
                nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outside),
            )
            self.short = nn.Conv2d(inside, outside, 1, stride, bias=False)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.short(x))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1),
        Block(16, 16, 1),
        Block(16, 32, 2),
        Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def gpt(
    torch: Any,
    vocabulary: int = 65,
    width: int = 64,
    heads: int = 4,
    layers: int = 2,
    context: int = 32,
) -> Any:
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            rows, length, _ = x.shape
            parts = self.qkv(self.first(x)).split(width, dim=2)
            q, k, v = (p.view(rows, length, heads, width // heads).transpose(1, 2) for p in parts)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).contiguous().view(rows, length, width))
            return x + self.narrow(functional.gelu(self.wide(self.second(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.places(
                torch.arange(tokens.shape[1], device=tokens.device)
            )
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)).view(-1, vocabulary)

    return Model()


def bert(torch: Any, small: bool) -> Any:
    """BERT-base (Devlin et al., 2019), norms first, that tells texts apart by their first token."""
    nn = torch.nn
    words, places, width = (64, 16, 32) if small else (30522, 512, 768)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(words, width), nn.Embedding(places, width)
            self.encoder, self.head = attention.bertbase(torch, small), nn.Linear(width, 10)

        def forward(self, tokens: Any) -> Any:
            places = torch.arange(tokens.shape[1], device=tokens.device)
            return self.head(self.encoder(self.tokens(tokens) + self.places(places))[:, 0])

    return Model()


@dataclass(frozen=True)
class Program:
    """A net, batches for it, and the optimizer's maker.

    Attributes:
        batches: inputs and labels, from a seed on.
    """

    model: Callable[[Any], Any]
    batches: Batches
    optimizer: Callable[[Any, Any], Any]


def images(rows: int, *shape: int) -> Batches:
    """Batches of normal numbers with a label of ten each."""

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(1)
        while True:
            yield rng.standard_normal((rows, *shape)).astype(np.float32), rng.integers(0, 10, rows)

    return batches


def labelled(rows: int, length: int, vocabulary: int) -> Batches:
    """Batches of tokens with a label of ten each."""

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(3)
        while True:
            yield rng.integers(0, vocabulary, (rows, length)), rng.integers(0, 10, rows)

    return batches


def texts(rows: int, context: int, vocabulary: int = 65) -> Batches:
    """Batches of tokens, each to be told from those before."""

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(2)
        while True:
            tokens = rng.integers(0, vocabulary, (rows, context + 1))
            yield tokens[:, :-1].copy(), tokens[:, 1:].reshape(-1)

    return batches


def sgd(torch: Any, parameters: Any) -> Any:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def slow_sgd(torch: Any, parameters: Any) -> Any:
    """Roundings that differ do not become other losses in a few steps of a deep net."""
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4)


def adamw(torch: Any, parameters: Any) -> Any:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)


def zoo(small: bool, pictures: Sequence[int], tokens: Sequence[int]) -> dict[str, Program]:
    """Nets that everybody knows, with batches of these shapes."""
    rows, length = tokens
    return {
        f"{name} {pictures[0]}": Program(
            functools.partial(net, small=small), images(*pictures), slow_sgd
        )
        for name, net in (
            ("resnet50", convolutional.resnet50),
            ("mobilenetv2", convolutional.mobilenetv2),
        )
    } | {
        f"bert-base {rows}x{length}": Program(
            functools.partial(bert, small=small),
            labelled(rows, length, 64 if small else 30522),
            adamw,
        )
    }


SMALL = {
    "mlp": Program(mlp, images(16, 32), sgd),
    "lenet": Program(lenet, images(8, 1, 28, 28), sgd),
    "convnet": Program(convnet, images(4, 3, 16, 16), sgd),
    "gpt": Program(gpt, texts(2, 32), adamw),
    **zoo(True, (2, 3, 32, 32), (2, 12)),
}
LARGE = {
    "mlp 1024": Program(lambda torch: mlp(torch, 1024), images(1024, 32), adamw),
    "lenet 256": Program(lenet, images(256, 1, 28, 28), sgd),
    "convnet 64": Program(convnet, images(64, 3, 32, 32), sgd),
    "gpt 6x384": Program(
        lambda torch: gpt(torch, width=384, heads=6, layers=6, context=256), texts(16, 256), adamw
    ),
    **zoo(False, (64, 3, 224, 224), (16, 128)),
}
FULL = {
    "gpt 12x768": Program(
        lambda torch: gpt(torch, 50304, 768, 12, 12, 1024), texts(8, 1024, 50304), adamw
    ),
}


class Training:
    """A program at its first step, on a device, with the weights that every library begins at."""

    def __init__(self, torch: Any, program: Program, device: str):
        self._torch = torch
        self._device = device
        self._batches = program.batches()
        self.model = program.model(torch)
        rng = np.random.default_rng(0)
        with torch.no_grad():
            for p in self.model.parameters():
                scale = 0.5 / max(1, p.numel() // p.shape[0]) ** 0.5 if p.dim() > 1 else 0.02
                value = rng.standard_normal(tuple(p.shape)) * scale + (1.0 if p.dim() == 1 else 0.0)
                p.copy_(torch.tensor(value.astype(np.float32)))
        self.model = self.model.to(device)
        self._optimizer = program.optimizer(torch, self.model.parameters())
        self._taken: Callable[[Any, Any], Any] = self._step
        self.batch = self.next_batch()

    def next_batch(self) -> tuple[Any, Any]:
        x, y = next(self._batches)
        return (self._torch.tensor(x).to(self._device), self._torch.tensor(y).to(self._device))

    def step(self, batch: tuple[Any, Any]) -> Any:
        """The loss, and one step of the optimizer."""
        return self._taken(*batch)

    def compile_net(self, **options: Any) -> None:
        """From now on the net is one compiled function; `options` are those of `torch.compile`."""
        self.model = self._torch.compile(self.model, **options)

    def compile_step(self) -> None:
        """From now on a step is one compiled function: the net, its gradient and the optimizer."""
        self._taken = self._torch.compile(self._step)

    def _step(self, x: Any, y: Any) -> Any:
        self._optimizer.zero_grad()
        loss = self._torch.nn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self._optimizer.step()
        return loss

    def losses(self, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            found.append(self.step(self.batch).item())
            self.batch = self.next_batch()
        return found
