"""The table: dense, right after the cut, recovered, and the same network trained from scratch."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.card import Card, Latency, is_fraction
from secateur.report import units
from secateur.report.figure import Sheet


@dataclass(frozen=True)
class Row:
    """One network of the table; ``method`` is the key of its colour, ``final`` marks the one that was handed out."""

    label: str
    method: str
    epochs: float | None
    macs: int
    params: int
    bytes: int | None
    latency: Latency | None
    quality: dict[str, float]
    final: bool = False


def table_rows(card: Card) -> tuple[Row, ...]:
    """Dense first, then what became of it, then the comparisons in the card's order."""
    dense, pruned = card.dense, card.pruned
    rows = [Row("dense", "dense", None, dense.macs, dense.params, dense.bytes, dense.latency_ms, dense.quality)]
    cuts = [point for point in card.history if point.event == "cut"]
    after = {name: cuts[-1].value(name) for name in quality_names(card)} if cuts else {}
    measured = {name: value for name, value in after.items() if value is not None}
    if measured and card.recovery:
        label = "right after the cut" if len(cuts) == 1 else f"right after the last of {len(cuts)} cuts"
        rows.append(
            Row(label, card.method, 0, pruned.macs, pruned.params, pruned.bytes, pruned.latency_ms, measured)
        )  # fmt: skip
    label, epochs = (f"recovered ({card.recovery.name})", card.recovery.epochs) if card.recovery else ("pruned", 0)
    rows.append(
        Row(label, card.method, epochs, pruned.macs, pruned.params, pruned.bytes, pruned.latency_ms, pruned.quality,
            final=True)
    )  # fmt: skip
    rows += [
        Row(c.name, c.name, c.epochs, c.macs, c.params, c.bytes, c.latency_ms, c.quality) for c in card.comparisons
    ]
    return tuple(rows)


def quality_names(card: Card) -> tuple[str, ...]:
    """Every quality in the card, accuracy first, then in the order of appearance."""
    names = dict.fromkeys([*card.dense.quality, *card.pruned.quality])
    for comparison in card.comparisons:
        names.update(dict.fromkeys(comparison.quality))
    return tuple(sorted(names, key=lambda name: name != "accuracy"))


def table_sheet(card: Card) -> Sheet:
    """The table with raw numbers, for the download."""
    names = quality_names(card)
    columns = ["network", "epochs", "MACs", "params", "bytes", "latency median (ms)", "latency IQR (ms)", "runs"]
    columns.append("speed-up")
    for name in names:
        columns += [name, f"{name} difference" + (" (points)" if is_fraction(name) else "")]
    rows = []
    for row in table_rows(card):
        time = row.latency
        cells = [row.label, row.epochs, row.macs, row.params, row.bytes]
        cells += [time.median, time.iqr, time.runs] if time else [None, None, None]
        cells.append(_speed_up(card, row))
        for name in names:
            value, base = row.quality.get(name), card.dense.quality.get(name)
            scale = 100 if is_fraction(name) else 1
            cells += [value, None if value is None or base is None else round(scale * (value - base), 6)]
        rows.append(tuple(cells))
    return Sheet(tuple(columns), tuple(rows))


def table_cells(card: Card) -> dict:
    """The table as texts: ``columns`` as (name, unit), ``rows`` as (row, cells), a cell as (figure, small print)."""
    names = quality_names(card)
    columns = [
        ("epochs", "after the cut"), ("MACs", "of dense"), ("params", "of dense"), ("size", "of dense"),
        ("latency", "ms, median ± IQR"), ("speed-up", "dense = 1"),
    ]  # fmt: skip
    for name in names:
        columns.append((units.spoken(name), "difference, points" if is_fraction(name) else "difference"))
    return {"columns": columns, "rows": [(row, _cells(card, row, names)) for row in table_rows(card)]}


def _cells(card: Card, row: Row, names: tuple[str, ...]) -> list[tuple[str, str]]:
    dense = card.dense
    cells = [
        (units.ABSENT if row.epochs is None else f"{row.epochs:g}", ""),
        (units.si(row.macs), units.share(row.macs, dense.macs)),
        (units.si(row.params), units.share(row.params, dense.params)),
        (units.si(row.bytes, "B"), units.share(row.bytes, dense.bytes)),
    ]
    if row.latency:
        median, iqr = units.milliseconds(row.latency.median), units.milliseconds(row.latency.iqr)
        cells.append((f"{median} ± {iqr}", f"n = {row.latency.runs} runs"))
    else:
        cells.append((units.ABSENT, "not measured"))
    cells.append((units.times(_speed_up(card, row)), ""))
    for name in names:
        value, base = row.quality.get(name), dense.quality.get(name)
        small = "" if row.method == "dense" or value is None else units.quality_change(name, base, value)
        cells.append((units.quality(name, value), small))
    return cells


def _speed_up(card: Card, row: Row) -> float | None:
    base = card.dense.latency_ms
    return round(base.median / row.latency.median, 4) if base and row.latency and row.latency.median else None
