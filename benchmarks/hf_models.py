"""Hugging Face transformers of the engine's zoo, built from small configurations: nothing is downloaded.

Small means few layers and narrow ones; every kind of wiring of the real models is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from secateur._optional import require

_TEXT = {"vocab_size": 512, "num_hidden_layers": 2, "max_position_embeddings": 128}
_ENCODER = {**_TEXT, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
_DECODER = {
    **_TEXT,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_VISION = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "image_size": 32,
    "patch_size": 8,
}

#: The backbone of a detector from a configuration.
_NO_DOWNLOAD = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}

#: Name: (class of the configuration, class of the model, arguments of the configuration, kind of input).
FAMILIES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", _ENCODER, "text"),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"vocab_size": 512, "n_layers": 2, "n_heads": 4, "dim": 64, "hidden_dim": 128, "max_position_embeddings": 128},
        "text",
    ),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", _ENCODER, "text"),
    "deberta-v2": (
        "DebertaV2Config",
        "DebertaV2ForSequenceClassification",
        {
            **_ENCODER,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "max_relative_positions": 32,
        },
        "text",
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": 512, "n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 128},
        "text",
    ),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {**_TEXT, "hidden_size": 64, "num_attention_heads": 4, "ffn_dim": 128, "word_embed_proj_dim": 64},
        "text",
    ),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _ENCODER, "text"),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _DECODER, "text"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _DECODER, "text"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_DECODER, "head_dim": 16}, "text"),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {**_DECODER, "head_dim": 16, "sliding_window": 8}, "text"),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {**_DECODER, "head_dim": 16, "sliding_window": 8}, "text"),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _DECODER, "text"),
    "falcon": (
        "FalconConfig",
        "FalconForCausalLM",
        {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "multi_query": True},
        "text",
    ),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", {**_DECODER, "num_local_experts": 4}, "text"),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {**_DECODER, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
        "text",
    ),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
        "text",
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
        "text-to-text",
    ),
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {
            "vocab_size": 512,
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "num_mel_bins": 16,
            "max_source_positions": 32,
            "max_target_positions": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        "speech",
    ),
    "clip": (
        "CLIPConfig",
        "CLIPModel",
        {
            "text_config": {**_ENCODER, "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0},
            "vision_config": _VISION,
            "projection_dim": 32,
        },
        "text-and-image",
    ),
    "vit": (
        "ViTConfig",
        "ViTForImageClassification",
        _VISION,
        "image",
    ),
    "swin": (
        "SwinConfig",
        "SwinForImageClassification",
        {"image_size": 64, "patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "image",
    ),
    "segformer": (
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32},
        "image",
    ),
    "detr": (
        "DetrConfig",
        "DetrForObjectDetection",
        {
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "num_queries": 10,
        },
        "image",
    ),
}


#: Those whose classes have a published size of at most 150 million parameters as their default.
PUBLISHED: tuple[str, ...] = (
    *("bert", "distilbert", "roberta", "gpt2", "opt", "t5", "whisper", "clip", "vit", "swin", "segformer", "detr"),
)


def build_hf(name: str, published: bool = False) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model with seeded random weights in evaluation mode, and keyword inputs that it takes.

    Args:
        published: in the size that its configuration has by default, which is a published one.

    Raises:
        MissingExtra: transformers is not installed.
    """
    transformers = require("transformers", "hf")
    config_class, model_class, arguments, kind = FAMILIES[name]
    if published:
        arguments = {}
    if name == "detr":
        backbone = transformers.ResNetConfig(out_features=["stage4"]) if published else _small_resnet(transformers)
        # Its configuration names no size of images, but keeps what it does not know; only the inputs read it.
        arguments = {**arguments, **_NO_DOWNLOAD, "backbone_config": backbone, "image_size": 480 if published else 64}
    config = getattr(transformers, config_class)(**arguments)
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).eval()
    return model, _INPUTS[kind](config)


def _small_resnet(transformers: Any) -> Any:
    return transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], out_features=["stage4"]
    )


def _tokens(config: Any, length: int = 16) -> Tensor:
    return torch.randint(3, 500, (1, length), generator=torch.Generator().manual_seed(0))


def _image(config: Any) -> Tensor:
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", 64)
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _speech(config: Any) -> dict[str, Tensor]:
    features = torch.randn(
        1, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.Generator().manual_seed(0)
    )
    return {"input_features": features, "decoder_input_ids": _tokens(config, 8)}


_INPUTS: dict[str, Callable[[Any], dict[str, Tensor]]] = {
    "text": lambda config: {"input_ids": _tokens(config)},
    "text-to-text": lambda config: {"input_ids": _tokens(config), "decoder_input_ids": _tokens(config, 8)},
    "speech": _speech,
    "image": lambda config: {"pixel_values": _image(config)},
    "text-and-image": lambda config: {"input_ids": _tokens(config), "pixel_values": _image(config)},
}
