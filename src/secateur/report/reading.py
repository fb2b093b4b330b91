"""From folders to cards; what a card does not say of how its run was asked for comes from the recipe beside it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from secateur._errors import FileError
from secateur.card import Card, read_card

RECIPE = "recipe"
"""The name under which the recipe stands in a card's ``extra``."""


def read_runs(folders: Iterable[str | Path]) -> list[Card]:
    """The cards of runs and studies, each with its recipe (dotted names to values) in ``extra["recipe"]``.

    Args:
        folders: of runs, or of studies, which stand for all runs in their subfolder ``runs``, by name.

    Raises:
        FileError: cards are missing or broken; all of them are listed.
    """
    cards, problems = [], []
    for folder in (run for given in folders for run in _runs(Path(given))):
        try:
            card = read_card(folder / "card.json")
        except FileError as error:
            problems.append(str(error))
            continue
        cards.append(replace(card, extra={**card.extra, RECIPE: _recipe(folder)}))
    if problems:
        raise FileError("\n".join(problems))
    return cards


def _runs(folder: Path) -> list[Path]:
    found = sorted(card.parent for card in folder.glob("runs/*/card.json"))
    return found if found and not (folder / "card.json").exists() else [folder]


def _recipe(folder: Path) -> dict[str, object]:
    # A card is evidence without its recipe too: it may have been copied alone, or the recipe edited since.
    try:
        raw = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(_dotted(raw))


def _dotted(table: dict[str, object], before: str = "") -> Iterable[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{key}.")
        else:
            yield before + key, value
