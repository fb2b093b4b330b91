"""Models of transformers: ``hf:DIR`` (a folder with ``config.json``, with or without weights) or ``hf:NAME``."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur._errors import FileError, InputError, UsageError, WeightsError
from secateur._optional import require
from secateur.models.pretrained import published_weights

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def build_hugging_face(
    name: str, num_classes: int | None = None, in_channels: int | None = None, pretrained: bool = False
) -> nn.Module:
    """The model that ``config.json`` names, with the weights beside it if there are any.

    Args:
        name: a folder, or the name of a model on the hub. The latter's configuration has to be in the local cache
            unless ``pretrained``.
        pretrained: fetch the published weights of a hub name.

    Raises:
        FileError: no such folder, and no such name in the cache.
        UsageError: a configuration that plain transformers cannot build.
        WeightsError: weights that are no safetensors, could not be fetched or do not fit.
    """
    transformers = require("transformers", "hf")
    config = _config(name, pretrained)
    if in_channels is not None and in_channels != getattr(config, "num_channels", in_channels):
        config.num_channels = in_channels
    if num_classes is not None:
        config.num_labels = num_classes
    kind = _class(transformers, config)
    if pretrained and not Path(name).is_dir():
        with published_weights(f"hf:{name}"), _quiet(transformers):
            return kind.from_pretrained(name, config=config, **_safe(num_classes))
    if not has_weights(name):
        _no_pickle(name)
        try:
            with _quiet(transformers):
                return kind(config)
        except Exception as error:
            raise UsageError(f"'hf:{name}' cannot be built: {type(error).__name__}: {error}") from error
    try:
        with _quiet(transformers):
            model, found = kind.from_pretrained(
                name, config=config, local_files_only=True, output_loading_info=True, **_safe(num_classes)
            )
    except Exception as error:
        raise WeightsError(f"the weights in {name!r} could not be loaded: {type(error).__name__}: {error}") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise WeightsError(
            f"the weights in {name!r} lack {len(missing)} of {kind.__name__}: {', '.join(missing[:5])}\n"
            "transformers would make them up\nsave them too, or name in config.json the class they are of"
        )
    return model


def has_weights(name: str) -> bool:
    """Whether a folder holds safetensors weights beside its ``config.json``."""
    return any((Path(name) / file).is_file() for file in _SAFETENSORS)


def _safe(num_classes: int | None) -> dict[str, Any]:
    return {"use_safetensors": True, "trust_remote_code": False, "ignore_mismatched_sizes": num_classes is not None}


def _no_pickle(name: str) -> None:
    if any((Path(name) / file).is_file() for file in _PICKLES):
        raise WeightsError(
            f"the weights in {name!r} are a pickle, which may run code when it is read\n"
            "load it once with transformers and write it again with save_pretrained: that is safetensors"
        )


def _config(name: str, pretrained: bool) -> Any:
    """The configuration of a folder, of the local cache, or of the hub."""
    transformers = require("transformers", "hf")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileError(f"the folder {name!r} has no config.json\nmodel.save_pretrained(folder) writes one")
        try:
            with _quiet(transformers):
                return transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise UsageError(f"{name}/config.json cannot be used: {type(error).__name__}: {error}") from error
    try:
        with _quiet(transformers):
            return transformers.AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if not pretrained:
            raise FileError(
                f"'hf:{name}' is neither a folder with a config.json nor in the local cache of transformers\n"
                "give the folder that save_pretrained wrote, or fetch the model by name with --pretrained"
            ) from error
    with published_weights(f"hf:{name}"), _quiet(transformers):
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)


def _class(transformers: Any, config: Any) -> Any:
    """The class that the configuration names, or the bare model of its family."""
    for name in getattr(config, "architectures", None) or ():
        found = getattr(transformers, name, None)
        if found is None:
            raise UsageError(
                f"this transformers ({transformers.__version__}) has no {name}, which config.json asks for"
            )
        return found
    try:
        return transformers.AutoModel._model_mapping[type(config)]
    except KeyError:
        raise UsageError(f"transformers has no model for a {type(config).__name__}") from None


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No reports and bars about what is loaded: what went wrong is raised."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def hugging_face_input_shape(name: str) -> tuple[int, ...] | None:
    """(channels, height, width) of one image, or ``None`` where the model takes something else.

    Raises:
        FileError: no such folder, and no such name in the cache.
    """
    transformers = require("transformers", "hf")
    config = _config(name, pretrained=False)
    if _class(transformers, config).main_input_name != "pixel_values":
        return None
    return _image_shape(config)


def _image_shape(config: Any) -> tuple[int, int, int]:
    holder = getattr(config, "vision_config", config)
    size = getattr(holder, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    return getattr(holder, "num_channels", 3), height, width


def example_inputs(model: Any, shape: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    """Keyword inputs that a model of transformers takes: one text, image or recording.

    Args:
        model: a ``PreTrainedModel``.
        shape: of the main input, batch first; by default the model's own dummy text, the image size of its
            configuration, or the longest recording that it takes.

    Raises:
        InputError: the model's main input is of an unknown kind and no ``shape`` is given.
    """
    config, main = model.config, model.main_input_name
    takes = inspect.signature(model.forward).parameters
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {main: _main_input(model, main, shape, generator)}
    if "pixel_values" in takes and main != "pixel_values" and hasattr(config, "vision_config"):
        found["pixel_values"] = torch.randn((1, *_image_shape(config)), generator=generator)
    if "decoder_input_ids" in takes and getattr(config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = _tokens(config, (found[main].shape[0], 8), generator)
    return found


def _main_input(model: Any, main: str, shape: tuple[int, ...] | None, generator: torch.Generator) -> Tensor:
    config = model.config
    if main == "input_ids":
        # The dummies of the class are several texts with padding, and some models only take one at a time.
        return model.dummy_inputs["input_ids"][:1] if shape is None else _tokens(config, shape, generator)
    if shape is None and main == "pixel_values":
        shape = (1, *_image_shape(config))
    if shape is None and main == "input_features" and hasattr(config, "num_mel_bins"):
        # Whisper halves the length once, and takes nothing shorter or longer.
        shape = (1, config.num_mel_bins, 2 * getattr(config, "max_source_positions", 128))
    if shape is None and main == "input_values":
        shape = (1, 16_000)
    if shape is None:
        raise InputError(
            f"{type(model).__name__} takes {main!r}, and nothing says of what shape\ngive it with --input, batch first"
        )
    return torch.randn(shape, generator=generator)


def _tokens(config: Any, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random tokens; the first few of a vocabulary are often the special ones."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    vocabulary = getattr(text, "vocab_size", 100)
    return torch.randint(min(5, vocabulary - 1), vocabulary, shape, generator=generator)
