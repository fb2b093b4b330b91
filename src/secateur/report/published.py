"""Published rows beside ours, with every difference of protocol named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from secateur.card import Card
from secateur.report import units
from secateur.report.published_tables import ROWS, Protocol, Row
from secateur.report.reading import RECIPE

_WORDS = {"lr": "learning rate", "batch_size": "batch size", "milestones": "learning rate drops at",
          "gamma": "each drop by a factor of"}  # fmt: skip


def published_rows(card: Card, recovery: str) -> tuple[Row, ...]:
    """The published rows of the same method, network and data that have a figure for the recovery.

    Those of the same budget alone where there are any; else all of them, whose budget is then one of the differences.
    """
    data = card.data.split(" ")[0]
    rows = [r for r in ROWS if (r.method, r.model, r.data) == (card.method, card.model, data) and recovery in r.figures]
    return tuple([r for r in rows if _asks(r, card)] or rows)


def protocol_differences(card: Card, row: Row, recovery: str, seeds: int) -> tuple[str, ...]:
    """Everything that was different here from how the published figure came about, as far as the card says it.

    Args:
        card: one of the runs.
        row: of :func:`published_rows`.
        recovery: of the run itself or of one of its comparisons.
        seeds: how many runs there are.
    """
    found = list(row.differs)
    if not _asks(row, card):
        asked = units.remaining(card.budget) or "no budget"
        found.append(f"what remains: {asked}, there {row.remains}")
    elif not row.equivalent:
        found.append(f"the budget is {units.remaining(row.budget)}; there {row.remains}")
    found += _length(card, row.protocol, recovery) + _training(card, row.protocol, recovery) + _data(card)
    if seeds != row.protocol.seeds:
        found.append(f"number of seeds: {seeds}, there {row.protocol.seeds}")
    return tuple(found)


def _asks(row: Row, card: Card) -> bool:
    return all(_same(card.budget.get(k), v) for k, v in row.budget.items())


def _length(card: Card, protocol: Protocol, recovery: str) -> list[str]:
    found = []
    rivals = [c.epochs for c in card.comparisons if c.name == recovery]
    own = card.recovery is not None and card.recovery.name == recovery
    ours = card.recovery.epochs if own and card.recovery is not None else next(iter(rivals), None)
    theirs = protocol.epochs(recovery, card)
    if ours is None and recovery != "none":
        found.append("epochs: not recorded")
    elif ours is not None and theirs is not None and ours != theirs:
        found.append(f"epochs: {ours:g}, there {theirs}")
    recipe = card.extra.get(RECIPE) or {}
    if protocol.base_epochs is not None and recovery in ("finetune", "none"):
        dense = recipe.get("train")
        if isinstance(dense, int) and dense != protocol.base_epochs:
            found.append(f"epochs of the dense network: {dense}, there {protocol.base_epochs}")
        elif dense is None and not recipe.get("pretrained"):
            found.append("epochs of the dense network: not recorded")
    return found


def _training(card: Card, protocol: Protocol, recovery: str) -> list[str]:
    """Settings of the recovery; those that the paper's schedule does not use are left out."""
    theirs = {**protocol.base, **(protocol.finetune if recovery == "finetune" else {})}
    if recovery == "none":
        return []
    if not theirs:
        return ["learning rate, schedule and batch size there: not known here"]
    if theirs.get("schedule") == "constant":
        theirs = {k: v for k, v in theirs.items() if k not in ("milestones", "gamma")}
    own = card.recovery is not None and card.recovery.name == recovery
    ours = card.recovery.settings if own and card.recovery is not None else {}
    found, unknown = [], []
    for name, value in theirs.items():
        word = _WORDS.get(name, units.spoken(name))
        if name in ("milestones", "gamma") and ours.get("schedule", "step") != "step":
            continue
        if name not in ours:
            unknown.append(word)
        elif not _same(ours[name], value):
            found.append(f"{word}: {_setting(ours[name])}, there {_setting(value)}")
    return found + ([f"not recorded: {', '.join(unknown)}"] if unknown else [])


def _data(card: Card) -> list[str]:
    study = card.extra.get("study")
    told = {**(card.extra.get(RECIPE) or {}), **(study if isinstance(study, Mapping) else {})}
    found = [
        f"{words}: {told[key]:,}, there all"
        for key, words in (("limit", "training images"), ("limit_test", "test images"))
        if isinstance(told.get(key), int) and told[key]
    ]
    return found if told else ["number of images: not recorded"]


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, (tuple, list)):
        return (
            isinstance(ours, (tuple, list))
            and len(ours) == len(theirs)
            and all(_same(a, b) for a, b in zip(ours, theirs, strict=True))
        )
    if isinstance(theirs, (int, float)) and isinstance(ours, (int, float)):
        # A third of the epochs is written with four digits.
        return math.isclose(ours, theirs, rel_tol=5e-4)
    return ours == theirs


def _setting(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return " and ".join(f"{100 * v:.3g}\u00a0%" if isinstance(v, float) else str(v) for v in value) or "no point"
    return f"{value:g}" if isinstance(value, float) else str(value)
