"""What the scatter charts over several runs share: their points, and labels that keep out of each other's way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from secateur.report.cells import Cell, spoken
from secateur.report.palette import NEUTRAL
from secateur.report.statistics import Spread, spread

HEIGHT = 460
SYMBOLS = {"finetune": "circle", "scratch-e": "square", "scratch-b": "diamond", "retrain": "triangle-up", "none": "x"}
OTHER_SYMBOL = "hexagon"
_LINE = 15
_SIDE = 0.42


@dataclass(frozen=True)
class Mark:
    """One cell on a chart: where each seed lies and where their means lie.

    Attributes:
        label: all that tells it apart.
        line: what it has in common with its like at other costs; drawn next to the cheapest of them.
        method, recovery: for colour and symbol; method ``dense`` is the baseline.
        seeds: of the points.
        x, y: one value a seed.
    """

    label: str
    line: str
    method: str
    recovery: str
    seeds: tuple[int, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]

    @property
    def mean_x(self) -> Spread:
        return _some(spread(self.x))

    @property
    def mean_y(self) -> Spread:
        return _some(spread(self.y))


def _some(found: Spread | None) -> Spread:
    assert found is not None
    return found


def label(cell: Cell, cells: Sequence[Cell]) -> tuple[str, str]:
    """All that tells a cell apart from the others, and the same without the budget.

    What is equal in all cells is said in the title or in a table.
    """
    own = [c for c in cells if c.method == cell.method]
    how = [cell.how] if len({(c.recovery, c.variant) for c in cells}) > 1 else []
    detail = [cell.detail] if cell.detail and len({c.detail for c in own}) > 1 else []
    budget = [cell.budget] if len({c.budget for c in own}) > 1 else []
    return ", ".join([cell.method, *budget, *detail, *how]), ", ".join([cell.method, *detail, *how])


def draw_marks(figure: Any, marks: Sequence[Mark], colours: dict[str, str], hover: tuple[str, str]) -> None:
    """A faint point a seed, the mean with error bars of one sample deviation, the dense network as a star.

    Args:
        figure: of plotly.
        hover: the units of x and y.
    """
    for line in _lines(marks).values():
        if len(line) > 1:
            figure.add_scatter(
                x=[m.mean_x.mean for m in line], y=[m.mean_y.mean for m in line], mode="lines", hoverinfo="skip",
                line={"color": colours[line[0].method], "width": 1}, opacity=0.4, name=line[0].line,
            )  # fmt: skip
    for mark in marks:
        colour = NEUTRAL if mark.method == "dense" else colours[mark.method]
        symbol = "star" if mark.method == "dense" else SYMBOLS.get(mark.recovery, OTHER_SYMBOL)
        x, y, name = mark.mean_x, mark.mean_y, escape(mark.label)
        if len(mark.x) > 1:
            figure.add_scatter(
                x=mark.x, y=mark.y, mode="markers", cliponaxis=False, name=mark.label,
                marker={"color": colour, "symbol": symbol, "size": 6, "opacity": 0.35},
                customdata=list(mark.seeds),
                hovertemplate=f"{name}, seed %{{customdata}}<br>%{{x:.4g}} {hover[0]}, %{{y:.4g}} {hover[1]}"
                "<extra></extra>",
            )  # fmt: skip
        figure.add_scatter(
            x=[x.mean], y=[y.mean], mode="markers", cliponaxis=False, name=mark.label,
            marker={"color": colour, "symbol": symbol, "size": 16 if symbol == "star" else 11},
            error_y=_bar(y, colour), error_x=_bar(x, colour),
            hovertemplate=f"<b>{name}</b>, n = {y.n}<br>%{{x:.4g}} {hover[0]}, %{{y:.4g}} {hover[1]}<extra></extra>",
        )  # fmt: skip
    _write_labels(figure, marks)


def _bar(found: Spread, colour: str) -> dict[str, Any]:
    return {"type": "data", "array": [found.std or 0], "visible": bool(found.std), "color": colour, "thickness": 1.5,
            "width": 5}  # fmt: skip


def ranges(marks: Sequence[Mark], from_zero: bool = False) -> tuple[list[float], list[float]]:
    """Axis ranges with room for the labels, which stand left of the marks."""
    found = []
    for values in ([v for m in marks for v in m.x], [v for m in marks for v in _ends(m)]):
        low, high = min(values), max(values)
        span = (high - low) or abs(high) * 0.1 or 1.0
        found.append((low, high, span))
    (left, right, width), (bottom, top, height) = found
    across = [left - _SIDE * width, right + 0.08 * width]
    up = [bottom - 0.12 * height, top + 0.12 * height]
    return across, [0.0, up[1]] if from_zero else up


def _ends(mark: Mark) -> list[float]:
    mean, std = mark.mean_y.mean, mark.mean_y.std or 0
    return [*mark.y, mean - std, mean + std]


def _lines(marks: Sequence[Mark]) -> dict[str, list[Mark]]:
    """The marks of each line, from the cheapest on."""
    found: dict[str, list[Mark]] = {}
    for mark in sorted(marks, key=lambda m: m.mean_x.mean):
        found.setdefault(mark.line, []).append(mark)
    return found


def _write_labels(figure: Any, marks: Sequence[Mark]) -> None:
    """Left of the cheapest of each line, pushed down with a thin line where they would lie on each other."""
    across, up = figure.layout.xaxis.range, figure.layout.yaxis.range
    pixels = (HEIGHT - 70) / (up[1] - up[0])
    near = 0.3 * (across[1] - across[0])
    placed: list[tuple[float, float]] = []
    first = [line[0] for line in _lines(marks).values()]
    for mark in sorted(first, key=lambda m: -m.mean_y.mean):
        x, y = mark.mean_x.mean, mark.mean_y.mean
        wanted = at = (up[1] - y) * pixels
        while any(abs(px - x) < near and abs(py - at) < _LINE for px, py in placed):
            at += 1
        placed.append((x, at))
        # In one column, left of everything that lies about here.
        about = [m for m in marks if abs(m.mean_x.mean - x) < near / 2]
        left = min(v for m in about for v in (*m.x, m.mean_x.mean - (m.mean_x.std or 0)))
        figure.add_annotation(
            x=x, y=y, text=escape(mark.line), axref="x", ax=left - 0.02 * (across[1] - across[0]), ay=at - wanted,
            xanchor="right", arrowhead=0, arrowwidth=1, arrowcolor=NEUTRAL, standoff=7, font={"size": 12},
        )  # fmt: skip


def symbols_key(marks: Sequence[Mark]) -> str:
    """Which symbol is which recovery, as words."""
    words = {"circle": "circle", "square": "square", "diamond": "diamond", "triangle-up": "triangle", "x": "cross",
             OTHER_SYMBOL: "hexagon"}  # fmt: skip
    used = dict.fromkeys(m.recovery for m in marks if m.method != "dense")
    return ", ".join(f"{words[SYMBOLS.get(r, OTHER_SYMBOL)]}: {spoken(r)}" for r in used)


def number_of_seeds(marks: Sequence[Mark]) -> str:
    """``n = 3`` or ``n = 1 to 3`` for the axis."""
    counts = sorted({len(m.seeds) for m in marks if m.method != "dense"})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
