"""The table of what was lost: methods by recoveries, difference to the dense network, mean ± deviation with n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.report.cells import Cell, scale
from secateur.report.figure import Sheet
from secateur.report.statistics import Spread, plus_minus, spread


@dataclass(frozen=True)
class DropRow:
    """One setting: the means of its dense network, right after the cut, and of each recovery.

    Attributes:
        cell: any of the setting.
        dense: the quality itself, an accuracy in per cent.
        cut: right after the cut, as a difference to dense.
        recoveries: by recovery as words, as a difference to dense.
        alone: by recovery, the quality itself, where the dense network has none: it has seen no data.
    """

    cell: Cell
    dense: Spread | None
    cut: Spread | None
    recoveries: dict[str, Spread | None]
    alone: dict[str, Spread | None]


def drop_rows(cells: Sequence[Cell]) -> tuple[DropRow, ...]:
    """A row for every setting, in the order of the cells."""
    rows = []
    for setting in dict.fromkeys(cell.setting for cell in cells):
        own = [cell for cell in cells if cell.setting == setting]
        outcomes = {o.seed: o for cell in own for o in cell.outcomes}
        name, factor = own[0].quality, scale(own[0].quality)
        dense = [factor * o.dense for o in outcomes.values() if o.dense is not None]
        cut = []
        for outcome in outcomes.values():
            after = [p.value(name) for p in outcome.card.history if p.event == "cut"]
            if after and after[-1] is not None and outcome.dense is not None:
                cut.append(factor * (after[-1] - outcome.dense))
        # What was left as it was cut stands in the column of the cut.
        recovered = [cell for cell in own if cell.recovery != "none" or not cut]
        alone = {} if dense else {cell.how: spread(cell.values) for cell in recovered}
        drops = {cell.how: spread(cell.drops) for cell in recovered}
        rows.append(DropRow(own[0], spread(dense), spread(cut), drops, alone))
    return tuple(rows)


def ways(rows: Sequence[DropRow]) -> tuple[str, ...]:
    """The columns: every recovery, in the order of appearance."""
    return tuple(dict.fromkeys(way for row in rows for way in row.recoveries))


def drop_cells(rows: Sequence[DropRow]) -> dict:
    """The table as texts: ``columns`` as (name, unit), ``rows`` as (row, cells), a cell as (figure, small print)."""
    per_cent = bool(rows) and scale(rows[0].cell.quality) == 100
    unit = "points to dense" if per_cent else "difference to dense"
    columns = [("dense", "%" if per_cent else ""), ("right after the cut", unit), *((way, unit) for way in ways(rows))]
    told = []
    for row in rows:
        found = [_dense(row.dense), (plus_minus(row.cut, sign=True), _n(row.cut))]
        for way in ways(rows):
            if itself := row.alone.get(way):
                found.append((plus_minus(itself), f"{_n(itself)}, {'%, ' if per_cent else ''}no dense to compare with"))
            else:
                drop = row.recoveries.get(way)
                found.append((plus_minus(drop, sign=True), _n(drop)))
        told.append((row, found))
    return {"columns": columns, "rows": told}


def drop_sheet(rows: Sequence[DropRow]) -> Sheet:
    """One line for every setting and recovery."""
    columns = ("model", "data", "method", "budget", "detail", "recovery", "difference to dense, mean",
               "sample standard deviation", "n", "dense, mean", "itself, mean")  # fmt: skip
    lines = []
    for row in rows:
        cell = row.cell
        for way, found in (("right after the cut", row.cut), *row.recoveries.items()):
            if found is not None:
                std = None if found.std is None else round(found.std, 6)
                lines.append((cell.model, cell.data, cell.method, cell.budget, cell.detail, way, round(found.mean, 6),
                              std, found.n, None if row.dense is None else round(row.dense.mean, 6), None))  # fmt: skip
        for way, itself in row.alone.items():
            if itself is not None:
                std = None if itself.std is None else round(itself.std, 6)
                lines.append((cell.model, cell.data, cell.method, cell.budget, cell.detail, way, None, std, itself.n,
                              None, round(itself.mean, 6)))  # fmt: skip
    return Sheet(columns, tuple(lines))


def _dense(found: Spread | None) -> tuple[str, str]:
    """Weights from a file are the same for every seed, which is no spread of zero."""
    same = found is not None and found.std == 0
    return (f"{found.mean:.2f}", "the same for all seeds") if found and same else (plus_minus(found), _n(found))


def _n(found: Spread | None) -> str:
    return "" if found is None else f"n = {found.n}"
