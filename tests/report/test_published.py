"""Published rows: what is asserted and what is only remembered, and that no difference of protocol goes unnamed."""

from __future__ import annotations

from typing import Any

from report.together import runs
from secateur.card import Card
from secateur.report.cells import cells
from secateur.report.comparison import published
from secateur.report.published import protocol_differences, published_rows
from secateur.report.published_tables import REMEMBERED, ROWS

THE_PAPERS = {
    "optimiser": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "schedule": "step",
    "milestones": [0.5, 0.75], "gamma": 0.1, "warmup_epochs": 0, "label_smoothing": 0.0, "batch_size": 64,
    "mixed_precision": "no",
}  # fmt: skip


def _card(raw: dict[str, Any], recovery: str = "scratch-e", train: int = 160, **more: Any) -> Card:
    told = {"model": "cifar-resnet56", "data": "cifar10", "budget": {"preset": "resnet56-B"}, **more}
    (card,) = runs(raw, {recovery: (0.9275,)}, recipe={"train": train}, **told)
    assert card.recovery is not None
    for name, value in THE_PAPERS.items():
        card.recovery.settings.setdefault(name, value)
    return card


def _differences(card: Card, seeds: int = 5) -> tuple[str, ...]:
    assert card.recovery is not None
    (row,) = published_rows(card, card.recovery.name)
    return protocol_differences(card, row, card.recovery.name, seeds)


def test_figures_that_were_not_read_are_not_asserted():
    for row in ROWS:
        for figure in row.figures.values():
            assert figure.verified or REMEMBERED in figure.text()
            assert figure.verified or len(figure.text().split("\u00a0")[0].partition(".")[2]) == 1
        if row.data in ("cifar10", "cifar100") and row.source == REMEMBERED:
            assert not any(figure.verified for figure in row.figures.values())
    (resnet34,) = [r for r in ROWS if r.budget == {"preset": "resnet34-A"}]
    assert resnet34.figures["scratch-b"].text() == "73.08\u00a0%"
    assert resnet34.figures["dense"].text() == "about 73.3\u00a0% (as remembered, not verified)"


def test_the_papers_own_protocol_differs_in_the_scaling_of_images_alone(raw: dict[str, Any]):
    assert len(_differences(_card(raw))) == 1
    assert len(_differences(_card(raw, "finetune"))) == 1
    assert "ImageNet's mean" in _differences(_card(raw))[0]


def test_every_difference_is_named(raw: dict[str, Any]):
    card = _card(raw, study={"run": "x", "limit": 5000, "limit_test": 2000})
    assert card.recovery is not None
    object.__setattr__(card.recovery, "epochs", 30)
    card.recovery.settings.update(lr=0.05, batch_size=128, milestones=[0.3, 0.6], weight_decay=5e-4, nesterov=True)
    assert set(_differences(card, seeds=3)[1:]) == {
        "epochs: 30, there 160",
        "learning rate: 0.05, there 0.1",
        "nesterov: True, there False",
        "weight decay: 0.0005, there 0.0001",
        "batch size: 128, there 64",
        "learning rate drops at: 30\u00a0% and 60\u00a0%, there 50\u00a0% and 75\u00a0%",
        "training images: 5,000, there all",
        "test images: 2,000, there all",
        "number of seeds: 3, there 5",
    }
    card.recovery.settings.update(schedule="cosine")
    told = _differences(card)
    assert "schedule: cosine, there step" in told
    assert not any("drops" in difference for difference in told)


def test_fine_tuning_has_its_own_length_and_rate(raw: dict[str, Any]):
    card = _card(raw, "finetune", train=30)
    assert card.recovery is not None
    card.recovery.settings.update(lr=0.01)
    assert _differences(card)[1:] == (
        "epochs of the dense network: 30, there 160",
        "learning rate: 0.01, there 0.001",
    )


def test_scratch_b_is_as_long_as_the_rule_says(raw: dict[str, Any]):
    card = _card(raw, "scratch-b")
    assert card.recovery is not None
    told = 160 * card.dense.macs // card.pruned.macs
    assert _differences(card)[1:] == (f"epochs: 160, there {told}",)
    object.__setattr__(card.recovery, "epochs", told)
    assert len(_differences(card)) == 1


def test_another_budget_is_a_difference_and_another_network_no_row(raw: dict[str, Any]):
    card = _card(raw, budget={"macs": 0.5})
    rows = published_rows(card, "scratch-e")
    assert [row.budget["preset"] for row in rows] == ["resnet56-A", "resnet56-B"]
    told = protocol_differences(card, rows[0], "scratch-e", 5)
    assert "what remains: macs 50\u00a0%, there preset resnet56-A" in told
    assert published_rows(_card(raw, model="digits-resnet"), "scratch-e") == ()
    assert published_rows(_card(raw, data="cifar100"), "scratch-e") == ()
    assert published_rows(_card(raw), "retrain") == ()


def test_what_a_card_does_not_say_is_said_to_be_unknown(raw: dict[str, Any]):
    card = _card(raw)
    assert card.recovery is not None
    card.recovery.settings.clear()
    card.extra.clear()
    told = _differences(card)
    assert any(d.startswith("not recorded: optimiser, learning rate,") for d in told)
    assert "number of images: not recorded" in told


def test_recoveries_of_one_setting_stand_together(raw: dict[str, Any]):
    told = {"model": "cifar-resnet56", "data": "cifar10", "budget": {"preset": "resnet56-B"}}
    (found,) = published(cells(runs(raw, {"finetune": (0.92, 0.93), "scratch-e": (0.93, 0.94)}, **told)))
    assert [how for how, _, _ in found.figures] == ["fine-tune", "scratch-E"]
    assert found.figures[0][1] == "92.50 ± 0.71\u00a0%, n = 2"
    assert found.figures[0][2] == "about 92.7\u00a0% (as remembered, not verified)"
    assert "number of seeds: 2, there 5" in found.differences
    assert any(d.startswith("fine-tune: epochs of the dense network") for d in found.differences)
