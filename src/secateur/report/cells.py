"""Which runs are repeats of each other: equal in everything but the seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.card import Card, Latency, is_fraction
from secateur.report import units
from secateur.report.reading import RECIPE

_LOWER = ("loss", "perplexity", "bits_per_character", "error")
# What a recipe says of one run and not of what it is compared on, or what a result does not depend on.
_OWN = {"seed", "training.seed", "recover", "epochs", "recover_lr", "scratch_b_cap", "compare", "out", "data_dir",
        "latency_runs"}  # fmt: skip
_HOW = ("seed", "epochs")
_SPOKEN = {"finetune": "fine-tune", "scratch-e": "scratch-E", "scratch-b": "scratch-B", "none": "as cut"}


def higher_is_better(name: str) -> bool:
    """Whether more of the quality ``name`` is better: of all but losses, errors and the like."""
    return not any(name == low or name.endswith(f"_{low}") for low in _LOWER)


@dataclass(frozen=True)
class Outcome:
    """One network of one seed.

    Attributes:
        card: of the run it comes from.
        seed: of the run.
        value, dense: the quality of this network and of the dense one of the same run.
        macs: multiply-accumulates; zeros of unstructured methods are left out.
        latency, dense_latency: None where they were not measured.
        epochs: of the recovery.
    """

    card: Card
    seed: int
    value: float
    dense: float | None
    macs: int
    latency: Latency | None
    dense_latency: Latency | None
    epochs: float


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but the seed.

    Attributes:
        setting: equal for all cells that differ in the recovery only: what the paired comparison holds fixed.
        model, data, method, budget: as the cards say them.
        detail: in what else this setting differs from others of the same names, as words; mostly empty.
        recovery: its name, ``"none"`` for a network left as it was cut.
        way: equal for all cells that were recovered alike: its name and settings.
        variant: in what this recovery differs from another of the same name, such as ``lr 0.01``; mostly empty.
        quality: the name of the quality.
        outcomes: one for every seed, by seed.
        repeats: outcomes left out because there was one with the same seed before.
    """

    setting: str
    model: str
    data: str
    method: str
    budget: str
    detail: str
    recovery: str
    way: str
    variant: str
    quality: str
    outcomes: tuple[Outcome, ...]
    repeats: int = 0

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(outcome.seed for outcome in self.outcomes)

    @property
    def what(self) -> str:
        """Method, budget and detail: a row of a table whose model is known."""
        return ", ".join(filter(None, (self.method, self.budget, self.detail)))

    @property
    def how(self) -> str:
        """The recovery as words."""
        return spoken(self.recovery) + (f" ({self.variant})" if self.variant else "")

    @property
    def values(self) -> list[float]:
        """The quality of every seed, an accuracy in per cent."""
        return [scale(self.quality) * outcome.value for outcome in self.outcomes]

    @property
    def drops(self) -> list[float]:
        """The difference to the dense network of the same run, in points for an accuracy; of seeds that have one."""
        return [scale(self.quality) * (o.value - o.dense) for o in self.outcomes if o.dense is not None]


def spoken(recovery: str) -> str:
    """``finetune`` as ``fine-tune``, ``scratch-e`` as ``scratch-E``."""
    return _SPOKEN.get(recovery, recovery)


def scale(quality: str) -> int:
    """100 for a fraction that is shown in per cent, else 1."""
    return 100 if is_fraction(quality) else 1


def quality_of(cards: Sequence[Card]) -> str | None:
    """The quality that the runs are compared by: accuracy, or the first that most of them have."""
    count: dict[str, int] = {}
    for card in cards:
        for name in card.pruned.quality:
            count[name] = count.get(name, 0) + 1
    return max(count, key=lambda name: (name == "accuracy", count[name]), default=None)


def cells(cards: Sequence[Card]) -> tuple[Cell, ...]:
    """Runs and the networks they are compared with (``comparisons`` of a card), joined over their seeds.

    Args:
        cards: with their recipes where :func:`secateur.report.reading.read_runs` read them. Without one, runs whose
            options differ and whose budget does not cannot be told apart.

    Returns:
        In the order of first appearance; empty where no card has a quality.
    """
    name = quality_of(cards)
    if name is None:
        return ()
    found: dict[tuple[str, str], dict[int, Outcome]] = {}
    about: dict[tuple[str, str], tuple[Card, dict[str, Any], dict[str, Any], str]] = {}
    repeats: dict[tuple[str, str], int] = {}
    # A run of its own comes before the same network as another run's comparison.
    networks = [own for card in cards for own in _own(card, name)] + [o for card in cards for o in _rivals(card, name)]
    for recovery, how, outcome in networks:
        setting = _setting(outcome.card)
        key = _text(setting), _text({"": recovery, **how})
        about.setdefault(key, (outcome.card, setting, how, recovery))
        if outcome.seed in found.setdefault(key, {}):
            repeats[key] = repeats.get(key, 0) + 1
        else:
            found[key][outcome.seed] = outcome
    made = []
    order = list(dict.fromkeys(setting for setting, _ in found))
    for key in sorted(found, key=lambda k: order.index(k[0])):
        card, setting, how, recovery = about[key]
        same = [s for c, s, _, _ in about.values() if _names(c) == _names(card)]
        ways = [h for k, (_, _, h, r) in about.items() if k[0] == key[0] and r == recovery]
        outcomes = tuple(found[key][seed] for seed in sorted(found[key]))
        made.append(
            Cell(
                key[0], *_names(card), _differing(setting, same), recovery, key[1], _differing(how, ways), name,
                outcomes, repeats.get(key, 0),
            )
        )  # fmt: skip
    return tuple(made)


def _own(card: Card, name: str) -> list[tuple[str, dict[str, Any], Outcome]]:
    value = card.pruned.quality.get(name)
    if value is None:
        return []
    recovery, epochs, how = "none", 0.0, {}
    if card.recovery is not None:
        recovery, epochs = card.recovery.name, card.recovery.epochs
        how = {k: v for k, v in card.recovery.settings.items() if k not in _HOW}
        how |= _length(recovery, epochs) | _cap(card, recovery)
    outcome = Outcome(
        card, card.seed, value, card.dense.quality.get(name), card.pruned.macs, card.pruned.latency_ms,
        card.dense.latency_ms, epochs,
    )  # fmt: skip
    return [(recovery, how, outcome)]


def _rivals(card: Card, name: str) -> list[tuple[str, dict[str, Any], Outcome]]:
    dense = card.dense.quality.get(name)
    return [
        (c.name, _length(c.name, c.epochs) | _cap(card, c.name), Outcome(card, card.seed, c.quality[name], dense,
         c.macs, c.latency_ms or card.pruned.latency_ms, card.dense.latency_ms, c.epochs))
        for c in card.comparisons if name in c.quality
    ]  # fmt: skip


def _length(recovery: str, epochs: float) -> dict[str, Any]:
    # Scratch-B is as long as the cut is deep, and a method may cut a little deeper with another seed.
    return {} if recovery == "scratch-b" else {"epochs": epochs}


def _cap(card: Card, recovery: str) -> dict[str, Any]:
    most = (card.extra.get(RECIPE) or {}).get("scratch_b_cap")
    return {} if recovery != "scratch-b" or most is None else {"at most": f"{most:g} times the epochs"}


def _names(card: Card) -> tuple[str, str, str, str]:
    return card.model, card.data, card.method, units.remaining(card.budget) or "no budget"


def _setting(card: Card) -> dict[str, Any]:
    recipe = card.extra.get(RECIPE) or {}
    asked = {k: v for k, v in recipe.items() if k not in _OWN and not k.startswith("budget.")}
    study = card.extra.get("study") or {}
    data = {k: study.get(k) for k in ("data_files", "limit", "limit_test")} if isinstance(study, Mapping) else {}
    options = card.extra.get("options")
    # As the recipe says them, so that a card alone and one with its recipe are told apart by the same words.
    set_to = {f"options.{k}": v for k, v in options.items()} if isinstance(options, Mapping) else {}
    named = {"model": card.model, "data": card.data, "method": card.method, "budget": card.budget}
    return {**set_to, **asked, **data, **named}


def _differing(one: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    """What of one is not the same in all."""
    names = [k for k in dict.fromkeys(k for o in others for k in o) if len({_text(o.get(k)) for o in others}) > 1]
    return ", ".join(
        f"{k.partition('.')[2] or k} {str(one[k])[:40]}".replace("_", " ") for k in names if one.get(k) is not None
    )


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
