"""Cases of transformers' `generate`: sampling, beams, penalties and caches, with models of `language`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libraries import language
from libraries.running import integers, rand

LONG = {"max_new_tokens": 6, "min_new_tokens": 3, "pad_token_id": 0, "eos_token_id": 2}
DRAWN: dict[str, Any] = {**LONG, "do_sample": True}
BEAMS: dict[str, Any] = {**LONG, "num_beams": 3, "do_sample": False}
WAYS: dict[str, dict[str, Any]] = {
    "sampled": {**DRAWN, "top_k": 0},
    "cooler": {**DRAWN, "temperature": 0.5, "top_k": 7, "num_return_sequences": 2},
    "nucleus": {**DRAWN, "temperature": 1.5, "top_p": 0.8, "repetition_penalty": 1.3},
    "cut": {**DRAWN, "min_p": 0.02, "typical_p": 0.9, "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3},
    "beams": {**BEAMS, "length_penalty": 0.3, "early_stopping": True, "num_return_sequences": 2},
    "patient": {**BEAMS, "length_penalty": 2.0, "early_stopping": "never", "no_repeat_ngram_size": 2},
    "drawn_beams": {**BEAMS, "do_sample": True, "temperature": 0.8, "no_repeat_ngram_size": 3},
    "ruled": {**LONG, "do_sample": False, "no_repeat_ngram_size": 2, "bad_words_ids": [[5], [7, 8]],
              "suppress_tokens": [11], "forced_eos_token_id": 2},
    "without_cache": {**LONG, "do_sample": False, "use_cache": False},
    "static": {**DRAWN, "cache_implementation": "static"},
    "static_beams": {**BEAMS, "cache_implementation": "static"},
    "looked_up": {**LONG, "do_sample": False, "prompt_lookup_num_tokens": 2},
    "guided": {**LONG, "do_sample": False, "guidance_scale": 1.5},
}
PLAIN = ("sampled", "cooler", "nucleus", "cut", "beams", "patient", "drawn_beams", "ruled", "without_cache")


def text(torch: Any) -> dict[str, Any]:
    """Two prompts, of which one is padded on the left."""
    prompt = integers(torch, 93, 2, 5, seed=3) + 3
    keep = torch.ones_like(prompt)
    keep[0, :2] = 0
    return {"input_ids": torch.where(keep > 0, prompt, 0), "attention_mask": keep}


def speech(torch: Any) -> dict[str, Any]:
    """Two spectrograms."""
    return {"input_features": rand(torch, 2, 16, 40)}


def add(name: str, ways: tuple[str, ...], inputs: Callable[[Any], dict[str, Any]] = text) -> None:
    """A case for a model of `language`: what it generates in each of the ways, and the scores."""

    def case(torch: Any) -> Any:
        model = language.MODELS[name](torch)
        found: dict[str, Any] = {}
        for way in ways:
            torch.manual_seed(11)
            made = model.generate(**inputs(torch), **WAYS[way], return_dict_in_generate=True, output_logits=True)
            found[way] = [made.sequences, made.logits[0]]
        return found

    CASES[name] = case


CASES: dict[str, Callable[[Any], Any]] = {}
for _name in language.GENERATING:
    add(_name, tuple(WAYS))
