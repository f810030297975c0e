"""Cases of transformers' `generate`: sampling, beams, penalties and caches, with models of
`language`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from libraries import language
from libraries.running import fill, integers, rand

LONG = {"max_new_tokens": 6, "min_new_tokens": 3, "pad_token_id": 0, "eos_token_id": 2}
GREEDY: dict[str, Any] = {**LONG, "do_sample": False}
DRAWN: dict[str, Any] = {**LONG, "do_sample": True}
BEAMS: dict[str, Any] = {**GREEDY, "num_beams": 3}
RULES: dict[str, Any] = {
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[5], [7, 8]],
    "suppress_tokens": [11],
    "forced_eos_token_id": 2,
}
WAYS: dict[str, dict[str, Any]] = {
    "sampled": {**DRAWN, "top_k": 0},
    "cooler": {**DRAWN, "temperature": 0.5, "top_k": 7, "num_return_sequences": 2},
    "nucleus": {**DRAWN, "temperature": 1.5, "top_p": 0.8, "repetition_penalty": 1.3},
    "cut": {**DRAWN, "min_p": 0.02, "typical_p": 0.9, "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3},
    "beams": {**BEAMS, "length_penalty": 0.3, "early_stopping": True, "num_return_sequences": 2},
    "patient": {
        **BEAMS,
        "length_penalty": 2.0,
        "early_stopping": "never",
        "no_repeat_ngram_size": 2,
    },
    "drawn beams": {**BEAMS, "do_sample": True, "temperature": 0.8, "no_repeat_ngram_size": 3},
    "ruled": {**GREEDY, **RULES},
    "without cache": {**GREEDY, "use_cache": False},
    "static cache": {**DRAWN, "cache_implementation": "static"},
    "beams in a static cache": {**BEAMS, "cache_implementation": "static"},
    "guided": {**GREEDY, "guidance_scale": 1.5},
}
PAIRS = frozenset({"t5", "bart", "pegasus"})  # an encoder and a decoder: they are not guided
KEEPS_A_STATE = frozenset({"mamba"})  # in the place of a cache
CASES: dict[str, Callable[[Any], Any]] = {}


def text(torch: Any, count: int = 2) -> dict[str, Any]:
    """Prompts, of which the first is padded on the left where there are two."""
    prompt = integers(torch, 93, count, 5, seed=3) + 3
    keep = torch.ones_like(prompt)
    if count > 1:
        keep[0, :2] = 0
    return {"input_ids": torch.where(keep > 0, prompt, 0), "attention_mask": keep}


def speech(torch: Any) -> dict[str, Any]:
    """Two spectrograms."""
    return {"input_features": rand(torch, 2, 16, 40)}


def ways(torch: Any, model: Any, inputs: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """What a model generates in each way after the same seed, and the logits of the first token."""
    found: dict[str, Any] = {}
    for way in names:
        torch.manual_seed(11)
        made = model.generate(
            **inputs, **WAYS[way], return_dict_in_generate=True, output_logits=True
        )
        found[way] = [made.sequences, made.logits[0]]
    return found


def assisted(torch: Any, name: str) -> Any:
    """Tokens that a draft proposes (the same model with other numbers), and that the prompt
    proposes."""
    model, draft = (language.MODELS[name](torch) for _ in range(2))
    with torch.no_grad():
        for p in draft.parameters():
            p.mul_(0.9)
    inputs = text(torch, 1)
    torch.manual_seed(11)
    return [
        model.generate(**inputs, **GREEDY, assistant_model=draft),
        model.generate(**inputs, **DRAWN, assistant_model=draft),
        model.generate(**inputs, **GREEDY, prompt_lookup_num_tokens=2),
    ]


def add(name: str) -> None:
    """A case for a model of `language`."""
    chosen = [w for w in WAYS if w != "guided" or name not in PAIRS]

    def case(torch: Any) -> Any:
        found = ways(torch, language.MODELS[name](torch), text(torch), chosen)
        if name not in PAIRS | KEEPS_A_STATE:
            found["assisted"] = assisted(torch, name)
        return found

    CASES[f"{name} generates"] = case


def whisper(torch: Any) -> Any:
    """Speech to text, which has a `generate` of its own."""
    model = language.MODELS["whisper"](torch)
    names = ("sampled", "cooler", "beams", "patient", "static cache")
    found = {}
    for way in names:
        torch.manual_seed(11)
        found[way] = model.generate(**speech(torch), **WAYS[way])
    return found


def pipelines(torch: Any) -> Any:
    """`pipeline` for classes of texts and for texts, with a tokenizer made here."""
    import tokenizers
    import transformers

    words = ["<pad>", "<unk>", "</s>", "the", "a", "cat", "dog", "sat", "ran", "on", "mat", "fast"]
    table = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    table.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    settings = {**language.SMALL, "vocab_size": len(words)}
    classes = transformers.BertForSequenceClassification(
        transformers.BertConfig(**settings, num_labels=3)
    )
    texts = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**{**language.GPT, "vocab_size": len(words), "bos_token_id": 2})
    )
    said = ["the cat sat on a mat", "the dog ran"]
    sort = transformers.pipeline(
        "text-classification", model=fill(torch, classes), tokenizer=tokenizer
    )
    go_on = transformers.pipeline("text-generation", model=fill(torch, texts), tokenizer=tokenizer)
    torch.manual_seed(5)
    written = go_on("the cat", max_new_tokens=5, do_sample=True, top_k=5)
    return [sort(said, top_k=None, batch_size=2), written]


for _name in language.GENERATING:
    add(_name)
CASES.update({"whisper generates": whisper, "pipelines": pipelines})
