"""The graphs that tools/replay.py lowers: benchmark models, training steps, and every op record
once.

Models are those of tools/bench, samples of ops those of the tests.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import _venv

for _folder in ("tools/bench", "tests/helpers"):
    sys.path.insert(0, str(_venv.ROOT / _folder))

import numpy as np  # noqa: E402

import compile_time  # noqa: E402
import graphtorch as torch  # noqa: E402
import kernels  # noqa: E402
import op_samples  # noqa: E402
import symbolic  # noqa: E402
import zoo  # noqa: E402
from graphtorch import nn  # noqa: E402
from graphtorch._deferred import programs  # noqa: E402
from graphtorch.ir.graph import Graph  # noqa: E402
from graphtorch.ir.op import OPS  # noqa: E402
from graphtorch.ir.shape import Condition  # noqa: E402
from graphtorch.nn import functional as F  # noqa: E402
from zoo import convolutional, parts  # noqa: E402


class Recorded(NamedTuple):
    """A graph, as `backends.compile` takes it."""

    graph: Graph
    stable: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()


Make = Callable[[], Recorded]


# ------------------------------------------------------------------------------------------ models


def inference(
    make: Callable[[], nn.Module], given: Callable[[], Sequence[torch.Tensor]], *sizes: torch.Dim
) -> Make:
    """A model in eval mode, whose weights seldom change; `sizes` that the first axes may have."""

    def record() -> Recorded:
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            traced = torch.trace(
                model, *given(), dynamic={0: dict(enumerate(sizes))} if sizes else None
            )
        stable = (i for i, v in enumerate(traced.graph.inputs) if v.name in traced.parameters)
        return Recorded(traced.graph, tuple(stable), tuple(traced.conditions))

    return record


def of_zoo(name: str, small: bool) -> Make:
    """A model of tools/bench/zoo."""
    source = zoo.MODELS[name]
    return inference(
        lambda: source.build(torch, small),
        lambda: [torch.from_numpy(a) for a in source.arrays(small)],
    )


class Captured(BaseException):
    """Ends a call of a compiled function where its graph would become a program."""


def step(
    make: Callable[[], nn.Module],
    batch: Callable[[], Sequence[torch.Tensor]],
    loss: Callable[..., torch.Tensor] = F.cross_entropy,
    optimizer: Callable[..., Any] = torch.optim.SGD,
    **options: Any,
) -> Make:
    """The first training step of a model."""

    def record() -> Recorded:
        torch.manual_seed(0)
        model, data = make().train(), batch()
        compile_time.settle(model, *data)
        train = kernels.step_of(model, loss, optimizer(model.parameters(), lr=0.01, **options))
        return captured(torch.compile(train), data)

    return record


def captured(compiled: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> Recorded:
    """What a call of a `compiled` function records; nothing is computed."""
    seen: list[Recorded] = []

    def taken(
        graph: Graph,
        stable: Sequence[int] = (),
        conditions: Sequence[Condition] = (),
        *where: Any,
        **how: Any,
    ) -> Any:
        seen.append(Recorded(graph, tuple(stable), tuple(conditions)))
        raise Captured

    plain, programs.captured_program = programs.captured_program, taken
    try:
        compiled(*arguments)
    except Captured:
        pass
    finally:
        programs.captured_program = plain
    return seen[0]


class Gpt(nn.Module):
    """Characters to scores of the next ones, by causal attention."""

    def __init__(self, words: int = 64, width: int = 64, length: int = 32, layers: int = 2):
        super().__init__()
        self.word, self.place = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.out = nn.Linear(width, words)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        y = self.word(x) + self.place(torch.arange(length))
        for layer in self.layers:
            y = layer(y, src_mask=mask, is_causal=True)
        return self.out(y).transpose(1, 2)


def floats(*shape: int) -> Callable[[], list[torch.Tensor]]:
    return lambda: [torch.randn(*shape)]


def characters() -> list[torch.Tensor]:
    return list(torch.randint(0, 64, (2, 4, 32)))


def images(
    channels: int, size: int, classes: int = 10, count: int = 8
) -> Callable[[], list[torch.Tensor]]:
    return lambda: [torch.randn(count, channels, size, size), torch.randint(0, classes, (count,))]


def classified(block: Callable[[], nn.Module], channels: int) -> Callable[[], nn.Module]:
    """A block and a classifier on the means of its channels."""
    return lambda: nn.Sequential(block(), *parts.head(torch, channels))


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


def series() -> list[torch.Tensor]:
    return [torch.randn(8, 12, 64), torch.randint(0, 10, (8,))]


BATCH, LENGTH = torch.Dim("batch", min=1, max=256), torch.Dim("length", min=1, max=512)
MODELS: dict[str, Make] = {
    "tiny": inference(tiny, floats(4, 12)),
    "tiny_step": step(tiny, lambda: [torch.randn(4, 12), torch.randint(0, 3, (4,))]),
    "mlp_b1": inference(symbolic.mlp, floats(1, 1000)),
    "mlp_b64": inference(symbolic.mlp, floats(64, 1000)),
    "mlp_any": inference(symbolic.mlp, floats(64, 1000), BATCH),
    "mlp_step": step(
        symbolic.mlp, lambda: [torch.randn(64, 1000), torch.randn(64, 10)], F.mse_loss, momentum=0.9
    ),
    "lenet_b1": inference(symbolic.lenet, floats(1, 1, 32, 32)),
    "lenet_b64": inference(symbolic.lenet, floats(64, 1, 32, 32)),
    "lenet_any": inference(symbolic.lenet, floats(64, 1, 32, 32), BATCH),
    "lenet_step": step(symbolic.lenet, images(1, 32, count=64), optimizer=torch.optim.Adam),
    "rnn_step": step(lambda: symbolic.Recurrent("RNN"), series),
    "gru_b1": inference(lambda: symbolic.Recurrent("GRU"), floats(1, 50, 64)),
    "gru_step": step(lambda: symbolic.Recurrent("GRU"), series, optimizer=torch.optim.Adam),
    "lstm_any": inference(lambda: symbolic.Recurrent("LSTM"), floats(16, 50, 64), BATCH),
    "lstm_step": step(lambda: symbolic.Recurrent("LSTM"), series, optimizer=torch.optim.RMSprop),
    "encoder_any": inference(
        lambda: parts.encoder(torch, 1, 48, 4), floats(2, 24, 48), BATCH, LENGTH
    ),
    "softmax_any": inference(lambda: nn.Softmax(0), floats(24, 16, 3), LENGTH, BATCH),
    "gpt": inference(Gpt, lambda: characters()[:1]),
    "gpt_step": step(Gpt, characters, optimizer=torch.optim.AdamW),
    "encoder_step": step(
        lambda: parts.encoder(torch, 2, 96, 4), lambda: [torch.randn(4, 40, 96)] * 2, F.mse_loss
    ),
    "residual_step": step(
        classified(lambda: convolutional.bottleneck(torch, 16, 8, 2), 32),
        images(16, 20),
        momentum=0.9,
        weight_decay=1e-4,
    ),
    "mobile_step": step(
        classified(lambda: convolutional.inverted(torch, 16, 16, 1, 64), 16), images(16, 20)
    ),
    "dense_step": step(classified(lambda: convolutional.dense(torch, 32), 64), images(32, 14)),
    **{name: of_zoo(name, small=False) for name in (*zoo.STANDARD, "densenet121", "unet")},
    **{f"small_{name}": of_zoo(name, small=True) for name in zoo.ZOO},
}


# ------------------------------------------------------------------------------------------ ops


def graphs() -> dict[str, Make]:
    """Every graph by name: the models, and ``op_NAME`` for each record."""
    names = (name for name in OPS if name != "region")  # those are made by fusion
    return {
        **MODELS,
        **{f"op_{n}": lambda n=n: Recorded(chosen_samples()[n].graph()) for n in names},
    }


@functools.cache
def chosen_samples() -> dict[str, op_samples.Sample]:
    """For each op its own sample, in f32 where it takes that, or another one that it occurs in."""
    samples = list(op_samples.every())
    found: dict[str, op_samples.Sample] = {}
    for sample in samples:
        found.setdefault(sample.name.split()[0], sample)
    found = {name: narrow(sample) for name, sample in found.items() if name in OPS}
    left = set(OPS) - set(found) - {"region"}
    for sample in samples:
        occurring = {node.op.name for node in sample.graph().nodes} & left if left else set()
        found |= dict.fromkeys(occurring, sample)
        left -= occurring
    return found


def narrow(sample: op_samples.Sample) -> op_samples.Sample:
    """The sample with f32 in the place of f64; as it is where the op needs those."""
    arrays = tuple(a.astype(np.float32) if a.dtype == np.float64 else a for a in sample.arrays)
    changed = sample._replace(arrays=arrays)
    try:
        changed.graph()
    except (TypeError, RuntimeError, ValueError):
        return sample
    return changed


def named(patterns: Sequence[str]) -> dict[str, Make]:
    """The graphs whose names match one of `patterns`, all where there is none."""
    return {
        name: make
        for name, make in graphs().items()
        if not patterns or any(fnmatchcase(name, p) for p in patterns)
    }
