"""Cases of models of transformers as files: an ONNX file for ONNX Runtime, and a library with a C
interface.

Batch and length may vary; both are run at sizes other than those they were made with. On PyTorch
the model itself says what should come out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from libraries import language
from libraries.running import fill

NAMES = ["input_ids", "attention_mask"]
# the models' code asks whether there is one token alone
SIZES = ((1, 2), (2, 9), (3, 5), (1, 17), (5, 12))
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertForMaskedLM", "BertConfig", language.SMALL),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**language.GPT, "use_cache": False}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**language.GROUPED, "use_cache": False}),
}


def batch(count: int, length: int) -> list[np.ndarray]:
    """Tokens, and masks that end at different places."""
    tokens = np.random.default_rng(count * 100 + length).integers(3, 96, (count, length))
    ends = length - np.arange(count) % (length - 1)
    return [tokens, (np.arange(length) < ends[:, None]).astype(np.int64)]


def logits_of(torch: Any, name: str) -> Any:
    """A model as a module of two tensors with one result."""
    import transformers

    model, config, options = MODELS[name]

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(transformers, model)(getattr(transformers, config)(**options))

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    return fill(torch, Logits()).eval()


def by_onnx_runtime(
    torch: Any, model: Any, example: tuple[Any, ...], folder: str
) -> list[np.ndarray]:
    """What ONNX Runtime computes of the exported file, at each of the sizes."""
    import onnxruntime

    axes = {name: {0: "batch", 1: "length"} for name in NAMES}
    place = f"{folder}/model.onnx"
    torch.onnx.export(
        model, example, place, input_names=NAMES, output_names=["logits"], dynamic_axes=axes
    )
    session = onnxruntime.InferenceSession(place)
    return [session.run(None, dict(zip(NAMES, batch(*s), strict=True)))[0] for s in SIZES]


def by_library(torch: Any, model: Any, example: tuple[Any, ...], folder: str) -> list[np.ndarray]:
    """What a library compiled ahead of time computes, at each of the sizes."""
    import graphtorch

    sizes = {0: torch.Dim("batch", min=1, max=64), 1: torch.Dim("length", min=2, max=64)}
    place = f"{folder}/model.so"
    graphtorch.aot.compile(model, example, place, dynamic={0: sizes, 1: sizes}, input_names=NAMES)
    library = graphtorch.aot.load(place)
    results = (library(*map(torch.from_numpy, batch(*s))) for s in SIZES)
    return [np.asarray(r[0] if isinstance(r, (tuple, list)) else r) for r in results]


def add(name: str) -> None:
    """A case for one of the models."""

    def case(torch: Any) -> Any:
        model = logits_of(torch, name)
        if not hasattr(torch, "aot"):
            wanted = [model(*map(torch.from_numpy, batch(*s))) for s in SIZES]
            return {"onnx": wanted, "library": wanted}
        example = tuple(map(torch.from_numpy, batch(2, 9)))
        with tempfile.TemporaryDirectory() as folder:
            return {
                "onnx": by_onnx_runtime(torch, model, example, folder),
                "library": by_library(torch, model, example, folder),
            }

    CASES[f"{name} exported"] = case


CASES: dict[str, Callable[[Any], Any]] = {}
for _name in MODELS:
    add(_name)
