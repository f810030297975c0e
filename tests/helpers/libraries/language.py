"""Cases of transformers: small models from random configurations, with loss, gradients and greedy
generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libraries.running import fill, integers, rand

Inputs = Callable[[Any], dict[str, Any]]
CASES: dict[str, Callable[[Any], Any]] = {}
MODELS: dict[str, Callable[[Any], Any]] = {}
GENERATING: list[str] = []  # names of those that write texts
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
IMAGES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
GPT = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 99,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PAIRS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 99,
}


def _tokens(torch: Any, *shape: int, seed: int = 0) -> Any:
    return integers(torch, 93, *shape, seed=seed) + 3


def text(torch: Any) -> dict[str, Any]:
    """Tokens and labels."""
    return {"input_ids": _tokens(torch, 2, 9), "labels": _tokens(torch, 2, 9, seed=1)}


def masked(torch: Any) -> dict[str, Any]:
    """Tokens of which some are padding, and labels."""
    return {**text(torch), "attention_mask": torch.tensor([[1] * 9, [1] * 6 + [0] * 3])}


def image(torch: Any) -> dict[str, Any]:
    """Two images."""
    return {"pixel_values": rand(torch, 2, 3, 32, 32)}


def both(torch: Any) -> dict[str, Any]:
    """Tokens and images that belong together."""
    return {"input_ids": _tokens(torch, 2, 7), **image(torch), "return_loss": True}


def speech(torch: Any) -> dict[str, Any]:
    """A spectrogram and what is said."""
    return {
        "input_features": rand(torch, 2, 16, 40),
        "decoder_input_ids": _tokens(torch, 2, 5),
        "labels": _tokens(torch, 2, 5, seed=1),
    }


def wave(torch: Any) -> dict[str, Any]:
    """A sound and its letters."""
    return {"input_values": rand(torch, 2, 1200), "labels": integers(torch, 16, 2, 3) + 3}


def pixels(torch: Any) -> dict[str, Any]:
    """An image with a class for each pixel."""
    return {"pixel_values": rand(torch, 1, 3, 32, 32), "labels": integers(torch, 8, 1, 32, 32)}


def add(
    name: str, model: str, inputs: Inputs, generates: bool = False, config: str = "", **options: Any
) -> None:
    """A case for a model class, whose configuration is ``<name of the family>Config``."""

    def build(torch: Any) -> Any:
        import transformers

        settings = getattr(
            transformers, config or model.split("For")[0].removesuffix("LMHeadModel") + "Config"
        )
        return fill(torch, getattr(transformers, model)(settings(**options))).eval()

    def case(torch: Any) -> Any:
        made = build(torch)
        out = made(**inputs(torch))
        tensors = {k: v for k, v in out.items() if isinstance(v, torch.Tensor)}
        loss = (
            out.loss
            if out.get("loss") is not None
            else sum((v.float() ** 2).mean() for v in tensors.values() if v.dtype.is_floating_point)
        )
        loss.backward()
        found = {
            "out": tensors,
            "loss": loss,
            "grad": {n: p.grad for n, p in made.named_parameters() if p.grad is not None},
        }
        if generates:
            start = _tokens(torch, 2, 5, seed=3)
            with torch.no_grad():
                found["generated"] = made.generate(
                    input_ids=start,
                    attention_mask=torch.ones_like(start),
                    max_new_tokens=6,
                    min_new_tokens=6,
                    do_sample=False,
                    pad_token_id=0,
                )
        return found

    CASES[name], MODELS[name] = case, build
    if generates:
        GENERATING.append(name)


def _detr(torch: Any) -> Any:
    import transformers

    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        num_queries=5,
        **{**PAIRS, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 99},
    )
    model = fill(torch, transformers.DetrForObjectDetection(config)).eval()
    out = model(pixel_values=rand(torch, 1, 3, 64, 64))
    (out.logits.square().mean() + out.pred_boxes.square().mean()).backward()
    return [out.logits, out.pred_boxes, [p.grad for p in model.parameters() if p.grad is not None]]


def saved(torch: Any) -> Any:
    """A model written to a folder and read again, also in another dtype."""
    import tempfile

    import transformers

    model = fill(torch, transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT))).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
        other = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return [again(_tokens(torch, 1, 4)).logits, str(next(other.parameters()).dtype)]


add("bert", "BertForMaskedLM", masked, **SMALL)
add("gpt2", "GPT2LMHeadModel", text, True, **GPT)
add("llama", "LlamaForCausalLM", text, True, **GROUPED)
add(
    "t5",
    "T5ForConditionalGeneration",
    text,
    True,
    d_model=32,
    d_ff=48,
    d_kv=8,
    num_layers=2,
    num_heads=4,
    vocab_size=99,
    decoder_start_token_id=0,
)
add("vit", "ViTForImageClassification", image, **IMAGES)
add("roberta", "RobertaForMaskedLM", masked, **SMALL)
add(
    "distilbert",
    "DistilBertForMaskedLM",
    masked,
    dim=32,
    n_layers=2,
    n_heads=4,
    hidden_dim=48,
    vocab_size=99,
    max_position_embeddings=64,
)
add("albert", "AlbertForMaskedLM", masked, embedding_size=16, **SMALL)
add(
    "deberta",
    "DebertaForMaskedLM",
    masked,
    relative_attention=True,
    pos_att_type=["c2p", "p2c"],
    **SMALL,
)
add(
    "deberta_v2",
    "DebertaV2ForMaskedLM",
    masked,
    relative_attention=True,
    pos_att_type=["c2p", "p2c"],
    position_buckets=8,
    **SMALL,
)
add("electra", "ElectraForMaskedLM", masked, embedding_size=16, **SMALL)
add(
    "gpt_neo",
    "GPTNeoForCausalLM",
    text,
    True,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    vocab_size=99,
    attention_types=[[["global", "local"], 1]],
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
)
add("gpt_neox", "GPTNeoXForCausalLM", text, True, **SMALL)
add("mistral", "MistralForCausalLM", text, True, sliding_window=4, **GROUPED)
add("mixtral", "MixtralForCausalLM", text, True, num_local_experts=4, **GROUPED)
add("qwen2", "Qwen2ForCausalLM", text, True, **GROUPED)
add("qwen3", "Qwen3ForCausalLM", text, True, head_dim=8, **GROUPED)
add("gemma", "GemmaForCausalLM", text, True, head_dim=8, **GROUPED)
add("gemma2", "Gemma2ForCausalLM", text, True, head_dim=8, **GROUPED)
add("phi", "PhiForCausalLM", text, True, **SMALL)
add("phi3", "Phi3ForCausalLM", text, True, pad_token_id=0, **SMALL)
add(
    "opt",
    "OPTForCausalLM",
    text,
    True,
    ffn_dim=48,
    word_embed_proj_dim=32,
    **{k: v for k, v in SMALL.items() if k != "intermediate_size"},
)
add("bloom", "BloomForCausalLM", text, True, hidden_size=32, n_layer=2, n_head=4, vocab_size=99)
add(
    "falcon",
    "FalconForCausalLM",
    text,
    True,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    vocab_size=99,
)
add("bart", "BartForConditionalGeneration", text, True, max_position_embeddings=64, **PAIRS)
add("pegasus", "PegasusForConditionalGeneration", text, True, max_position_embeddings=64, **PAIRS)
add("deit", "DeiTForImageClassification", image, **IMAGES)
add(
    "swin",
    "SwinForImageClassification",
    image,
    image_size=32,
    patch_size=2,
    embed_dim=16,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
)
add(
    "clip",
    "CLIPModel",
    both,
    config="CLIPConfig",
    vision_config=IMAGES,
    text_config={**SMALL, "max_position_embeddings": 16, "eos_token_id": 98},
)
add(
    "whisper",
    "WhisperForConditionalGeneration",
    speech,
    num_mel_bins=16,
    max_source_positions=20,
    max_target_positions=20,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=3,
    suppress_tokens=None,
    begin_suppress_tokens=None,
    **PAIRS,
)
add(
    "wav2vec2",
    "Wav2Vec2ForCTC",
    wave,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    vocab_size=20,
    conv_dim=(16, 16, 16),
    conv_stride=(5, 4, 4),
    conv_kernel=(10, 8, 4),
    num_feat_extract_layers=3,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
    mask_time_prob=0,
    ctc_loss_reduction="mean",
)
add(
    "segformer",
    "SegformerForSemanticSegmentation",
    pixels,
    num_encoder_blocks=2,
    depths=[1, 1],
    sr_ratios=[2, 1],
    hidden_sizes=[8, 16],
    patch_sizes=[7, 3],
    strides=[4, 2],
    num_attention_heads=[1, 2],
    mlp_ratios=[2, 2],
    decoder_hidden_size=16,
    num_labels=8,
)
add(
    "mamba",
    "MambaForCausalLM",
    text,
    True,
    hidden_size=32,
    num_hidden_layers=2,
    state_size=4,
    vocab_size=99,
    use_mambapy=False,
)
add(
    "resnet",
    "ResNetForImageClassification",
    image,
    embedding_size=8,
    hidden_sizes=[8, 16],
    depths=[1, 1],
)
add(
    "convnext",
    "ConvNextForImageClassification",
    image,
    hidden_sizes=[8, 16],
    depths=[1, 1],
    num_stages=2,
)
CASES.update(detr=_detr, saved=saved)
