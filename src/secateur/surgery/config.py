"""The configuration of a Hugging Face model: its whole numbers, and the model that plain transformers builds of it."""

from __future__ import annotations

import contextlib
import copy
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.surgery.plan import ConfigField

Shapes = dict[str, tuple[int, ...]]


def is_hugging_face(model: nn.Module) -> bool:
    """Whether transformers made the class of this model."""
    # A model of transformers cannot be there unless transformers was imported already.
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


def shapes(model: nn.Module, buffers: bool = True) -> Shapes:
    """Shape of every parameter, and of every buffer."""
    found = {name: tuple(t.shape) for name, t in model.named_parameters()}
    return found | ({name: tuple(t.shape) for name, t in model.named_buffers()} if buffers else {})


def whole_numbers(config: Any, prefix: str = "") -> list[ConfigField]:
    """Every field, or entry of a list, that could be a width: a whole number from 2 on, also of sub-configurations."""
    found: list[ConfigField] = []
    for name, value in vars(config).items():
        if name.endswith("_id") or name.startswith("_"):
            continue
        if hasattr(value, "to_dict"):
            found += whole_numbers(value, f"{prefix}{name}.")
        elif type(value) is int and value > 1:
            found.append(ConfigField(prefix + name, None, value))
        elif isinstance(value, (list, tuple)):
            found += [ConfigField(prefix + name, i, v) for i, v in enumerate(value) if type(v) is int and v > 1]
    return found


def empty_fields(config: Any, prefix: str = "") -> list[str]:
    """Every field that holds nothing and might hold a width, ``head_dim`` too: many classes read it if it is there."""
    # Those that every configuration has say nothing of widths.
    common = vars(sys.modules["transformers"].PreTrainedConfig())
    own = {name: value for name, value in vars(config).items() if not name.startswith("_")}
    found = [f"{prefix}{name}" for name, value in own.items() if value is None and name not in common]
    found = [path for path in found if not path.endswith("_id")]
    if own.get("head_dim") is None and f"{prefix}head_dim" not in found:
        found.append(f"{prefix}head_dim")
    for name, value in own.items():
        if hasattr(value, "to_dict"):
            found += empty_fields(value, f"{prefix}{name}.")
    return found


def write_config(config: Any, fields: Iterable[ConfigField]) -> None:
    """Set fields in place."""
    for field in fields:
        *path, name = field.path.split(".")
        holder = config
        for part in path:
            holder = getattr(holder, part)
        value: Any = field.value
        if field.index is not None:
            entries = list(getattr(holder, name))
            entries[field.index] = field.value
            value = type(getattr(holder, name))(entries)
        setattr(holder, name, value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What transformers says while it builds a model that nobody will use."""
    logging: Any = sys.modules["transformers"].utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _read_back(config: Any) -> Any:
    """What ``from_pretrained`` makes of the file that ``save_pretrained`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        config.to_json_file(Path(folder) / "config.json")
        return type(config).from_pretrained(folder, local_files_only=True)


def rebuilt(model: nn.Module, fields: Iterable[ConfigField], device: str = "meta") -> nn.Module:
    """The model that ``from_pretrained`` builds before it reads weights, had ``save_pretrained`` written these fields.

    Raises:
        Exception: of any kind, where the configuration or the class refuses.
    """
    return built(type(model), model.config, fields, device)


def built(kind: type[nn.Module], settings: Any, fields: Iterable[ConfigField] = (), device: str = "meta") -> nn.Module:
    """A model of class ``kind`` from a configuration in which some fields are changed; see :func:`rebuilt`."""
    from transformers.initialization import no_init_weights

    with _quiet():
        changed = copy.deepcopy(settings)
        write_config(changed, fields)
        config = _read_back(changed)
        with torch.device(device), no_init_weights():
            model: Any = kind(config)  # type: ignore[call-arg]
        # Tying is left out together with the initialisation.
        model.tie_weights()
        return model
