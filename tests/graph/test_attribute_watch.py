"""Whatever way code reads an attribute, it is heard; what it does not read is not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.graph.attribute_watch import listen


class Settings:
    def __init__(self) -> None:
        self.heads, self.depth = 4, 2


class Layer(nn.Module):
    def __init__(self, reads: Callable[[Any], Any], config: Any = None):
        super().__init__()
        self.reads, self.heads, self.sizes = reads, 4, (4, 8)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        self.reads(self)
        return x


READS: dict[str, Callable[[Any], Any]] = {
    "an attribute": lambda layer: layer.heads,
    "by its name": lambda layer: getattr(layer, "heads"),  # noqa: B009
    "whether it is there": lambda layer: hasattr(layer, "heads"),
    "in the dictionary": lambda layer: vars(layer)["heads"],
    "perhaps in the dictionary": lambda layer: layer.__dict__.get("heads"),
    "by a name put together": lambda layer: getattr(layer, "he" + "ads"[:3]),
}


def net(reads: Callable[[Any], Any], config: Any = None) -> nn.Sequential:
    return nn.Sequential(Layer(reads, config), Layer(lambda layer: None, config))


@pytest.mark.parametrize("way", READS)
def test_every_way_of_reading_is_heard_in_the_module_that_reads(way: str) -> None:
    model = net(READS[way])
    read = listen(model, {("0", "heads"), ("0", "sizes"), ("1", "heads")})
    assert not read
    for _ in range(50):  # so often that the interpreter takes its fast ways
        model(torch.zeros(1))
    assert read == {("0", "heads")}
    assert vars(model[0])["heads"] == 4
    assert [*vars(model[0])] == [*vars(Layer(READS[way]))]


def test_an_entry_of_a_tuple_is_read_with_it() -> None:
    model = net(lambda layer: layer.sizes[1])
    read = listen(model, {("0", "heads"), ("0", "sizes")})
    model(torch.zeros(1))
    assert read == {("0", "sizes")}


@pytest.mark.parametrize("settings", [Settings(), SimpleNamespace(heads=4, depth=2)], ids=["class", "namespace"])
def test_a_field_of_shared_settings_is_heard_for_one_module(settings: Any) -> None:
    model = net(lambda layer: layer.config.heads, settings)
    read = listen(model, {("0", "config.heads"), ("0", "config.depth"), ("1", "config.heads")})
    model(torch.zeros(1))
    assert read == {("0", "config.heads")}
    read.clear()
    assert settings.heads == 4
    assert not read, "the settings of others are not listened to"


def test_what_cannot_be_listened_for_counts_as_read() -> None:
    class Deciding(Layer):
        @property
        def width(self) -> int:
            return self.heads

        @width.setter
        def width(self, value: int) -> None:
            self.heads = value

    model = nn.Sequential(Deciding(lambda layer: None))
    vars(model[0])["width"] = 4
    missing = {("0", "width"), ("0", "nothing"), ("0", "config.heads")}
    assert listen(model, missing | {("0", "heads")}) == missing
