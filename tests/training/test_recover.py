"""The recoveries of Liu et al. 2019, against the epochs that the paper's own nets give."""

from __future__ import annotations

import pytest

from secateur._errors import UnknownName, UsageError
from secateur.training import TrainConfig, recovery

BASE = TrainConfig()


def cifar_resnet(stages):
    """MACs of a CIFAR ResNet with parameter-free shortcuts from the first-conv widths of its blocks."""
    macs = 3 * 16 * 9 * 32 * 32 + 64 * 10
    before = 16
    for width, side, firsts in zip((16, 32, 64), (32, 16, 8), stages, strict=True):
        for first in firsts:
            macs += 9 * side * side * (before * first + first * width)
            before = width
    return macs


R56 = cifar_resnet([[16] * 9, [32] * 9, [64] * 9])
R56_A = cifar_resnet([[14] * 7 + [16, 14], [32] + [28] * 8, [64] + [57] * 7 + [64]])
R56_B = cifar_resnet([[6] * 7 + [16, 16], [32] + [22] * 6 + [32, 22], [64] + [57] * 7 + [64]])
R110 = cifar_resnet([[16] * 18, [32] * 18, [64] * 18])
R110_A = cifar_resnet([[8] * 17 + [16], [32] * 18, [64] * 18])
R110_B = cifar_resnet([[8] * 17 + [16], [32] + [19] * 17, [64] + [44] * 17])


def test_the_nets_are_the_papers():
    assert R56 == 125_485_696
    assert R110 == 252_887_680
    reductions = [round(100 * (1 - a / b), 1) for a, b in [(R56_A, R56), (R56_B, R56), (R110_A, R110), (R110_B, R110)]]
    assert reductions == [10.4, 27.6, 15.9, 38.7]


@pytest.mark.parametrize(
    ("dense", "pruned", "epochs"),
    [
        (313_201_664, 206_146_048, 243),
        (R56, R56_A, 178),
        (R56, R56_B, 220),
        (R110, R110_A, 190),
        (R110, R110_B, 260),
    ],
    ids=["VGG-16-A", "R56-A", "R56-B", "R110-A", "R110-B"],
)
def test_scratch_b_spends_the_compute_of_the_dense_run(dense, pruned, epochs):
    plan = recovery("scratch-b", BASE, dense, pruned)
    assert plan.reinitialise
    assert plan.config.epochs == epochs
    assert plan.config.milestone_epochs == (epochs // 2, epochs * 3 // 4)
    assert plan.config.lr == 0.1


def test_scratch_b_floors_without_rounding_errors_and_may_be_capped():
    assert recovery("scratch-b", BASE, 3 * 10**15, 10**15).config.epochs == 480
    assert recovery("scratch-b", BASE, 100, 30, epochs=90, cap=2).config.epochs == 180
    assert recovery("scratch-b", BASE, 100, 64, epochs=90, cap=2).config.epochs == 140


def test_scratch_e_is_the_base_run():
    plan = recovery("scratch-e", BASE, 200, 100)
    assert (plan.config, plan.reinitialise) == (BASE, True)
    assert recovery("scratch-e", BASE, 200, 100, epochs=12).config.epochs == 12


def test_finetune_is_short_slow_and_constant():
    base = TrainConfig(epochs=200, schedule="cosine", warmup_epochs=5, weight_decay=5e-4, seed=3)
    plan = recovery("finetune", base, 200, 100)
    assert not plan.reinitialise
    assert plan.config == TrainConfig(epochs=40, lr=0.001, schedule="constant", weight_decay=5e-4, seed=3)
    assert recovery("finetune", base, 200, 100, epochs=2).config.epochs == 2


def test_none_trains_nothing():
    plan = recovery("none", TrainConfig(warmup_epochs=5), 200, 100)
    assert plan.config.epochs == 0
    assert not plan.reinitialise


def test_bad_questions():
    with pytest.raises(UnknownName, match="did you mean 'finetune'"):
        recovery("fine-tune", BASE, 2, 1)
    with pytest.raises(UsageError) as caught:
        recovery("scratch-b", BASE, 100, 0, epochs=0, cap=0.5)
    assert all(part in str(caught.value) for part in ("MACs", "epochs=0", "cap=0.5"))
