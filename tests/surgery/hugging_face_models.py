"""Small models of transformers with random weights: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TEXT = {"vocab_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 32}
ENCODER = {**TEXT, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
DECODER = {**ENCODER, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

IMAGE = {k: v for k, v in ENCODER.items() if k not in TEXT} | {"num_hidden_layers": 2}

FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", DECODER),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", DECODER),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**DECODER, "head_dim": 16}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**DECODER, "head_dim": 8}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**DECODER, "head_dim": 16, "sliding_window": 8}),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", DECODER),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 3}),
    "bamba": (
        "BambaConfig",
        "BambaForCausalLM",
        {
            **DECODER,
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_n_groups": 2,
            "attn_layer_indices": [1],
        },
    ),
    "llava": (
        "LlavaConfig",
        "LlavaForConditionalGeneration",
        {
            "vision_config": {**IMAGE, "model_type": "clip_vision_model", "image_size": 16, "patch_size": 8},
            "text_config": {**DECODER, "model_type": "llama"},
            "image_token_id": 95,
        },
    ),
    "bert": ("BertConfig", "BertForSequenceClassification", ENCODER),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "vocab_size": 96,
            "n_layer": 2,
            "n_head": 4,
            "n_embd": 32,
            "n_positions": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {**TEXT, "hidden_size": 32, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32},
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "segformer": (
        "SegformerConfig",
        "SegformerForImageClassification",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "hidden_sizes": [16, 24],
            "num_attention_heads": [2, 3],
            "mlp_ratios": [4, 4],
            "sr_ratios": [2, 1],
            "patch_sizes": [3, 3],
            "strides": [2, 2],
            "decoder_hidden_size": 20,
        },
    ),
    "vit": (
        "ViTConfig",
        "ViTForImageClassification",
        {**IMAGE, "image_size": 16, "patch_size": 4},
    ),
}


def build(name: str) -> Any:
    """A model in evaluation mode whose every parameter is random, norms and biases too."""
    import transformers

    config, model, arguments = FAMILIES[name]
    torch.manual_seed(0)
    built = getattr(transformers, model)(getattr(transformers, config)(**arguments)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built


def inputs(name: str) -> dict[str, Tensor]:
    """Keyword inputs of the model."""
    image = {"pixel_values": torch.randn(1, 3, 16, 16)}
    if name in ("vit", "segformer"):
        return image
    tokens = {"input_ids": torch.randint(3, 95, (1, 9))}
    if name == "llava":
        tokens["input_ids"][:, 1:5] = 95
        return tokens | image
    return tokens | ({"decoder_input_ids": torch.randint(3, 96, (1, 5))} if name == "t5" else {})
