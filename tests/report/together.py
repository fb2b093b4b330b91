"""Cards of invented studies, and cells from bare numbers."""

from __future__ import annotations

import copy
from typing import Any

from secateur.card import Card, parse_card
from secateur.report.reading import RECIPE

FAST = {"finetune": {"lr": 0.001, "schedule": "constant"}}


def runs(
    raw: dict[str, Any],
    accuracies: dict[str, tuple[float, ...]],
    *,
    dense: float = 0.93,
    recipe: dict[str, Any] | None = None,
    **more: Any,
) -> list[Card]:
    """A card for every recovery and seed.

    Args:
        raw: a card to begin with; its own comparisons are left out.
        accuracies: of the recoveries, one a seed from 0 on.
        dense: accuracy of the dense network.
        recipe: what stands beside the cards.
        more: replaces entries of each card.
    """
    cards = []
    for recovery, values in accuracies.items():
        for seed, value in enumerate(values):
            one = {**copy.deepcopy(raw), "seed": seed, "comparisons": [], **copy.deepcopy(more)}
            one["dense"]["accuracy"], one["pruned"]["accuracy"] = dense, value
            one["recovery"] = {"name": recovery, "epochs": 40 if recovery == "finetune" else 160, "seed": seed}
            one["recovery"] |= FAST.get(recovery, {})
            one[RECIPE] = recipe or {}
            cards.append(parse_card(one))
    return cards
