"""The summary card: what was saved, whether it is faster, what it cost. It says plainly what did not work."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.card import Card, is_fraction
from secateur.report import units
from secateur.report.table import quality_names


@dataclass(frozen=True)
class Tile:
    """One figure of the summary: ``-50 %``, ``MACs``, ``41 M to 20 M``; ``good`` is None where there is no verdict."""

    value: str
    label: str
    detail: str
    good: bool | None = None


def tiles(card: Card) -> tuple[Tile, ...]:
    """MACs, time, each quality, parameters and size, in the order in which they are read."""
    dense, pruned = card.dense, card.pruned
    found = [
        Tile(units.change(dense.macs, pruned.macs), "MACs", _arrow(units.si(dense.macs), units.si(pruned.macs))),
        _time_tile(card),
    ]
    for name in quality_names(card):
        before, after = dense.quality.get(name), pruned.quality.get(name)
        if before is None:
            found.append(Tile(units.quality(name, after), units.spoken(name), "dense: none to compare with"))
            continue
        label = f"points of {units.spoken(name)}" if is_fraction(name) else units.spoken(name)
        detail = _arrow(units.quality(name, before), units.quality(name, after))
        found.append(Tile(units.quality_change(name, before, after, 1), label, detail))
    found.append(
        Tile(
            units.change(dense.params, pruned.params),
            "parameters",
            _arrow(units.si(dense.params), units.si(pruned.params))
            + f"; {_arrow(units.si(dense.bytes, 'B'), units.si(pruned.bytes, 'B'))}",
        )
    )
    return tuple(found)


def headline(card: Card) -> str:
    """The card in one sentence: ``−50 % MACs, 1.60× faster on this CPU, −0.4 points``."""
    parts = [f"{units.change(card.dense.macs, card.pruned.macs)} MACs", _verdict(card)]
    for name in quality_names(card)[:1]:
        difference = units.quality_change(name, card.dense.quality.get(name), card.pruned.quality.get(name), 1)
        if difference != units.ABSENT:
            parts.append(f"{difference} {'points' if is_fraction(name) else units.spoken(name)}")
    return ", ".join(parts)


def warnings(card: Card) -> tuple[str, ...]:
    """The card's notes, and what the figures themselves give away."""
    found = list(card.notes)
    factor = units.speed_up(card)
    said = any("time did not" in note for note in found)
    if factor is not None and not is_faster(card) and card.pruned.macs < card.dense.macs and not said:
        fell = units.change(card.dense.macs, card.pruned.macs)
        found.append(f"MACs fell ({fell}) but time did not ({units.times(factor)}) on this machine.")
    if not card.exactness.exact:
        found.append("The cut network does not equal the masked one: do not use it.")
    return tuple(found)


def exactness_line(card: Card) -> str:
    """``cut = masked: max error 3e-16, exact in float64``, or that it is not."""
    exactness = card.exactness
    if exactness.exact:
        return f"cut = masked: max error {exactness.max_error:.2g}, exact in {exactness.dtype}"
    return f"cut ≠ masked: max error {exactness.max_error:.2g} in {exactness.dtype}, not exact"


def is_faster(card: Card) -> bool:
    """Whether the pruned network is faster by more than the spread: the two middle halves do not overlap."""
    dense, pruned = card.dense.latency_ms, card.pruned.latency_ms
    return bool(dense and pruned and pruned.median + pruned.iqr / 2 < dense.median - dense.iqr / 2)


def _place(card: Card) -> str:
    latency = card.pruned.latency_ms
    device = str(latency.settings.get("device", "")) if latency else ""
    kind = device.partition(":")[0].lower()
    return {"cpu": "this CPU", "cuda": "this GPU", "mps": "this GPU"}.get(kind, "this machine")


def _verdict(card: Card) -> str:
    factor = units.speed_up(card)
    if factor is None:
        return "time not measured"
    if is_faster(card):
        return f"{units.times(factor)} faster on {_place(card)}"
    if factor > 1:
        return f"not measurably faster: {units.times(factor)} on {_place(card)}"
    return f"not faster: {units.times(factor)} on {_place(card)}"


def _time_tile(card: Card) -> Tile:
    dense, pruned, factor = card.dense.latency_ms, card.pruned.latency_ms, units.speed_up(card)
    if not (dense and pruned and factor is not None):
        return Tile(units.ABSENT, "time not measured", "")
    detail = (
        f"{units.milliseconds(dense.median)} ± {units.milliseconds(dense.iqr)} → "
        f"{units.milliseconds(pruned.median)} ± {units.milliseconds(pruned.iqr)}\u00a0ms"
    )
    runs = f"n = {dense.runs}" if dense.runs == pruned.runs else f"n = {dense.runs} and {pruned.runs}"
    label = _verdict(card).replace(units.times(factor), "").replace(":  on", " on").strip()
    return Tile(units.times(factor), label, f"{detail}, {runs}", good=is_faster(card))


def _arrow(before: str, after: str) -> str:
    return f"{before}\u00a0→\u00a0{after}"
