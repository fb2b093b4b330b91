"""Every type of model that transformers has, from its default configuration made small; nothing is downloaded.

Nobody has written these configurations by hand: in what a type has by default, the numbers that nearly all types name
alike become small ones, in its parts too, and inputs are made up from what the model says it takes. Types that do not
run so (they need other numbers, real inputs, or packages that are not installed) are left out. ``hf_types.txt`` has
those that do: ``python -m benchmarks.hf_types > types.txt`` finds them anew.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from benchmarks.engine_server import preload, watch
from benchmarks.library_models import wake
from secateur._errors import InputError
from secateur._optional import require

LISTED = Path(__file__).with_name("hf_types.txt")
#: A larger one is left out.
MOST_PARAMETERS = 40_000_000

_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "hidden_dim")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "depth")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads")
_INNER = ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "dim_ff")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
#: What becomes of a number of this name, whichever type has it.
SMALL: dict[str, int] = {
    **dict.fromkeys(_WIDTHS, 64),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys((*_HEADS, "encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys((*_INNER, "encoder_ffn_dim", "decoder_ffn_dim"), 96),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank", "num_mel_bins"), 16),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank"), 32),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 128),
    **dict.fromkeys(("image_size", "max_source_positions", "max_target_positions"), 64),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "bos_token_id"), 1),
    "qk_rope_head_dim": 8,
    "patch_size": 16,
    "vocab_size": 320,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
_IMAGES = {"image_size", "patch_size"}
_LATENT = {"q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"}
_OF_STAGES = {"hidden_dim", "embed_dim", "dim", "num_heads", "num_mel_bins", "head_dim"}
_SPECIAL = {"pad_token_id", "bos_token_id", "eos_token_id", "head_dim", "hidden_dim", "embed_dim"}
#: What is left as it is and how many layers there are, one after the other until a type runs.
_WAYS: tuple[tuple[set[str], int], ...] = (
    (set(), 2),
    ({"head_dim"}, 2),
    ({"head_dim"}, 4),
    ({"head_dim"}, 5),
    (_IMAGES, 2),
    (_IMAGES | _OF_STAGES, 2),
    ({"num_mel_bins"}, 2),
    ({"num_key_value_heads"}, 2),
    (_SPECIAL, 2),
    (_LATENT, 2),
    (set(SMALL) - {*_LAYERS, "encoder_layers", "decoder_layers", "vocab_size"}, 2),
    (set(SMALL) - {"num_hidden_layers", "num_layers"}, 2),
    (set(SMALL), 2),
)


def known() -> list[str]:
    """Every type of model that ``AutoModel`` of the installed transformers makes."""
    require("transformers", "hf")
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return list(MODEL_MAPPING_NAMES)


def listed() -> list[str]:
    """Those that a small configuration builds."""
    return LISTED.read_text(encoding="utf-8").split()


def _overrides(kind: Any, left: set[str], layers: int) -> dict[str, Any]:
    default = kind()
    known = {*default.to_dict(), *getattr(kind, "__dataclass_fields__", {})}
    found: dict[str, Any] = {}
    for name, small in SMALL.items():
        if name in known and name not in left:
            value = getattr(default, name, None)
            if type(value) is int or (value is None and name == "pad_token_id"):
                found[name] = layers if name in _LAYERS else small
    for name in getattr(kind, "sub_configs", None) or {}:
        part: Any = getattr(default, name, None)
        if hasattr(part, "to_dict") and (inner := _overrides(type(part), left, layers)):
            found[name] = {**inner, "model_type": part.model_type}
    return found


def build_type(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model of a type with seeded random weights in evaluation mode, and keyword inputs that it takes.

    Raises:
        InputError: no small configuration of it runs; the message has what each said.
    """
    transformers = require("transformers", "hf")
    transformers.logging.set_verbosity_error()
    said: list[str] = []
    for left, layers in _WAYS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                config = transformers.CONFIG_MAPPING[name](
                    **_overrides(transformers.CONFIG_MAPPING[name], left, layers)
                )
                model = _small_model(transformers, config)
                return model, _accepted(model, config)
        except Exception as error:
            # Whatever a type dislikes about one configuration, the next may suit.
            said.append(f"{type(error).__name__}: {' '.join(str(error).split())}"[:150])
    raise InputError(f"no small configuration of {name!r} runs\n" + "\n".join(dict.fromkeys(said)))


#: What a model may be for, likeliest first: ``AutoModelForCausalLM`` and so on.
TASKS = (
    *("CausalLM", "Seq2SeqLM", "ImageTextToText", "ImageClassification", "SequenceClassification", "ObjectDetection"),
    *("SemanticSegmentation", "CTC", "AudioClassification", "SpeechSeq2Seq", "MaskedLM", "DepthEstimation"),
    *("ZeroShotObjectDetection", "UniversalSegmentation", "VideoClassification", "MaskedImageModeling", "PreTraining"),
    *("TextToWaveform", "MaskGeneration", "TimeSeriesPrediction", "KeypointDetection"),
)


def build_task(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model of a type with a head, for the first task that runs on the inputs of :func:`build_type`.

    Raises:
        InputError: there is none.
    """
    transformers = require("transformers", "hf")
    bare, inputs = build_type(name)
    config: Any = bare.config
    # The decoder of a pair by itself would leave out how it attends to the encoder.
    pairs_first = sorted(TASKS, key=lambda task: task != "Seq2SeqLM") if config.is_encoder_decoder else TASKS
    for task in pairs_first:
        try:
            torch.manual_seed(0)
            model: nn.Module = getattr(transformers, f"AutoModelFor{task}").from_config(config).eval()
            wake(model)
            with torch.no_grad():
                model(**inputs)
        except Exception:
            # No such model of this type, or one that takes other inputs.
            continue
        if type(model) is not type(bare):
            return model, inputs
    raise InputError(f"no model of {name!r} with a head runs on the inputs of the bare one")


def _small_model(transformers: Any, config: Any) -> nn.Module:
    with torch.device("meta"):
        size = sum(p.numel() for p in transformers.AutoModel.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size} parameters")
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    wake(model)
    return model


def _accepted(model: nn.Module, config: Any) -> dict[str, Tensor]:
    """The first inputs that a model takes."""
    said = "nothing"
    for inputs in _inputs(model, config):
        try:
            with torch.no_grad():
                model(**inputs)
            return inputs
        except Exception as error:
            said = str(error)
    raise ValueError(said)


def _inputs(model: Any, config: Any) -> Iterator[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 200, (1, 16), generator=generator)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    takes, main = inspect.signature(model.forward).parameters, getattr(model, "main_input_name", "input_ids")
    vision = getattr(config, "vision_config", config)
    size, channels = getattr(vision, "image_size", 64), getattr(vision, "num_channels", 3)
    size = size[0] if isinstance(size, (tuple, list)) else size if isinstance(size, int) else 64
    channels = channels if isinstance(channels, int) else 3
    if "grid_thw" in takes and "pixel_values" not in takes:
        patch = getattr(config, "patch_size", 14) ** 2 * getattr(config, "temporal_patch_size", 1)
        wide = patch * getattr(config, "in_channels", getattr(config, "in_chans", 3))
        yield {next(iter(takes)): some(16, wide), "grid_thw": torch.tensor([[1, 4, 4]])}
    if "past_values" in takes:
        yield {"past_values": some(1, getattr(config, "context_length", 32), getattr(config, "num_input_channels", 1))}
    if "bbox" in takes:
        yield {"input_ids": ids, "bbox": torch.randint(0, 100, (1, 16, 4), generator=generator).sort(-1).values}
        yield {"input_ids": ids, "bbox": torch.rand(1, 16, 8, generator=generator)}
    if main == "pixel_values":
        yield {"pixel_values": some(1, channels, size, size)}
        yield {"pixel_values": some(1, channels, 64, 64)}
        yield {"pixel_values": some(1, channels, size, size), "input_ids": ids}
        yield {"pixel_values": some(1, getattr(config, "num_frames", 8) or 8, 3, size, size)}
    elif main == "input_values":
        yield {"input_values": some(1, 4000)}
        yield {"input_values": some(1, 1, 4000)}
        yield {"input_values": some(1, 128, 128)}
    elif main == "input_features":
        bins = getattr(config, "num_mel_bins", 80)
        for shape in ((1, bins, 128), (1, 128, bins)):
            yield {"input_features": some(*shape)}
            yield {"input_features": some(*shape), "decoder_input_ids": ids}
    yield {"input_ids": ids}
    if "use_cache" in takes:
        yield {"input_ids": ids, "use_cache": False}
    yield {"input_ids": ids, "decoder_input_ids": ids[:, :8]}
    yield {"input_ids": ids, "pixel_values": some(1, channels, size, size)}
    yield {"pixel_values": some(1, channels, size, size)}


def _tried(name: str, channel: TextIO) -> None:
    print(json.dumps({"event": "build-start"}), file=channel, flush=True)
    build_type(name)
    print(json.dumps({"event": "build-done"}), file=channel, flush=True)


def main() -> int:
    """Print the types that a small configuration builds, each tried in a process of its own."""
    preload(["hf-type:"], with_peer=False)
    for name in known():
        if watch(partial(_tried, name))[-1:] == [{"event": "build-done"}]:
            print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
