"""The configuration and the learning rates that PyTorch's schedules make of it."""

from __future__ import annotations

import pytest
import torch

from secateur._errors import UsageError
from secateur.training import TrainConfig
from secateur.training.schedule import build_optimiser, build_scheduler


def rates(config):
    optimiser = build_optimiser(config, [torch.nn.Parameter(torch.zeros(1))])
    scheduler = build_scheduler(config, optimiser)
    found = []
    for _ in range(config.epochs):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


def test_the_default_is_the_protocol_of_the_paper():
    found = rates(TrainConfig())
    assert found[:80] == [0.1] * 80
    assert found[80:120] == pytest.approx([0.01] * 40)
    assert found[120:] == pytest.approx([0.001] * 40)


def test_milestones_rescale_with_the_epochs():
    found = rates(TrainConfig(epochs=243))
    assert [i for i in range(1, 243) if found[i] != found[i - 1]] == [121, 182]
    assert rates(TrainConfig(epochs=1)) == [0.1]


def test_cosine_and_warmup():
    assert rates(TrainConfig(epochs=4, lr=1.0, schedule="cosine")) == pytest.approx(
        [1, 0.853553, 0.5, 0.146447], rel=1e-5
    )
    found = rates(TrainConfig(epochs=6, lr=1.0, schedule="cosine", warmup_epochs=2))
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 0.853553, 0.5, 0.146447], rel=1e-5)
    assert rates(TrainConfig(epochs=4, lr=1.0, schedule="constant", warmup_epochs=1)) == pytest.approx([0.5, 1, 1, 1])
    found = rates(TrainConfig(epochs=8, lr=1.0, warmup_epochs=2))
    assert found == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimisers(name, kind):
    optimiser = build_optimiser(
        TrainConfig(optimiser=name, lr=0.3, weight_decay=0.2), [torch.nn.Parameter(torch.ones(1))]
    )
    assert type(optimiser).__name__ == kind
    assert optimiser.param_groups[0]["lr"] == 0.3
    assert optimiser.param_groups[0]["weight_decay"] == 0.2


def test_all_problems_are_said_at_once():
    with pytest.raises(UsageError) as caught:
        TrainConfig(
            epochs=-1,
            optimiser="lion",
            lr=float("nan"),
            momentum=1.5,
            schedule="linear",
            milestones=(80, 120),
            batch_size=0,
            mixed_precision="int8",
            clip_grad_norm=0.0,
        )
    message = str(caught.value)
    for part in (
        "epochs=-1",
        "optimiser='lion'",
        "lr=nan",
        "momentum=1.5",
        "schedule='linear'",
        "milestones=(80, 120)",
        "batch_size=0",
        "mixed_precision='int8'",
        "clip_grad_norm=0.0",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lr": 0.0}, "trains nothing"),
        ({"nesterov": True, "optimiser": "adam"}, "nesterov"),
        ({"warmup_epochs": 160}, "leaves nothing"),
        ({"epochs": 4, "warmup_epochs": 3}, "inside warmup_epochs=3"),
        ({"epochs": 2.5}, "whole number"),
        ({"epochs": True}, "whole number"),
    ],
)
def test_what_does_not_fit_together(wrong, words):
    with pytest.raises(UsageError, match=words):
        TrainConfig(**wrong)
