"""From names to things: the model, the data and the batches that a command or a recipe speaks of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur._errors import InputError, UsageError
from secateur.data import DataSplits, Loader, load, loader, resizable
from secateur.models import build, default_input_shape, example_inputs
from secateur.training import TrainConfig, fit

_EVALUATION_BATCH = 100


@dataclass(frozen=True)
class Bench:
    """What a run works on.

    Attributes:
        model: the dense network, with its weights.
        source: how to build it again by name.
        data: the data set.
        example: one example, shape ``(1, channels, height, width)``.
        train: batches of the training split.
        test: batches of the test split, for reporting only.
    """

    model: nn.Module
    source: dict[str, Any]
    data: DataSplits
    example: Tensor
    train: Loader
    test: Loader


def parse_shape(text: str) -> tuple[int, ...]:
    """Read ``1x3x224x224``.

    Raises:
        InputError: it is not numbers with x between them.
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(f"cannot read the input shape {text!r}\nwrite sizes with x between them: 1x3x224x224")
    return shape


def build_model(
    name: str,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """The named model, and how to build it again."""
    model = build(name, num_classes=num_classes, in_channels=in_channels, pretrained=pretrained, weights=weights)
    return model, {"name": name, "num_classes": num_classes, "in_channels": in_channels}


def example_for(name: str, shape: tuple[int, ...] | None, model: nn.Module | None = None) -> Any:
    """One example input of the given shape, or of the model's usual one.

    Args:
        model: the built model, if there is one; those of transformers know what they take.

    Raises:
        UsageError: nobody knows the shape.
    """
    if model is not None and name.startswith("hf:"):
        return example_inputs(model, shape)
    if shape is None:
        usual = default_input_shape(name)
        if usual is None:
            raise UsageError(f"what does {name!r} take? say it with --input, for instance --input 1x3x224x224")
        shape = (1, *usual)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def set_up(
    name: str,
    data: str,
    *,
    data_dir: Path | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    limit: int | None = None,
    limit_test: int | None = None,
    shape: tuple[int, ...] | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> Bench:
    """Build the model for the data set, read the data, and make the batches.

    ``shape`` is that of the example input, by default one image of the data; photographs are resized to it.

    Raises:
        InputError: the data's images are of another shape.
    """
    size = shape[-1] if shape and resizable(data) else None
    splits = load(data, data_dir=data_dir, limit=limit, limit_test=limit_test, image_size=size)
    if shape and tuple(shape[1:]) != tuple(splits.input_shape):
        asked, found = ("x".join(map(str, sizes)) for sizes in (shape, (1, *splits.input_shape)))
        raise InputError(
            f"the input {asked} is not what the images of {data!r} are: {found}\n"
            "leave --input out, or name data of that size with --data"
        )
    torch.manual_seed(seed)
    model, source = build_model(
        name,
        weights=weights,
        pretrained=pretrained,
        num_classes=splits.num_classes,
        in_channels=splits.input_shape[0] if default_input_shape(name) is not None else None,
    )
    model.eval()
    train = loader(splits.train, batch_size, shuffle=True, seed=seed, augment=splits.augment)
    test = loader(splits.test, _EVALUATION_BATCH, shuffle=False)
    example = example_for(name, shape) if shape else splits.test[0][0].unsqueeze(0)
    return Bench(model, source, splits, example, train, test)


def train_dense(bench: Bench, config: TrainConfig, out: Path | None, progress: bool) -> None:
    """Train the dense network in place; resumes from the checkpoints in ``out``."""
    fit(
        bench.model,
        bench.train,
        config,
        checkpoint_dir=None if out is None else out / "checkpoints" / "dense",
        progress=progress,
    )
    bench.model.eval()
