"""Quality against cost: MACs, and measured time; a point a seed, means with bars, and the front of the best."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from secateur.report import units
from secateur.report.cells import Cell, Outcome, higher_is_better, scale
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import NEUTRAL
from secateur.report.scatter import HEIGHT, Mark, draw_marks, label, number_of_seeds, ranges, symbols_key

COSTS = {"macs": "MACs (millions)", "latency": "latency (ms, median)"}


def trade_off_marks(cells: Sequence[Cell], cost: str) -> tuple[Mark, ...]:
    """The dense network first, then every cell; without what was not measured.

    Args:
        cells: of one model and one data set.
        cost: ``"macs"`` (in millions) or ``"latency"`` (in milliseconds).
    """
    if not cells:
        return ()
    factor = scale(cells[0].quality)
    dense = {}
    for outcome in (o for cell in cells for o in cell.outcomes):
        x = _cost(outcome, cost, dense=True)
        if x is not None and outcome.dense is not None:
            dense.setdefault(outcome.card.seed, (x, factor * outcome.dense))
    marks = []
    if dense:
        x, y = zip(*dense.values(), strict=True)
        marks.append(Mark("dense", "dense", "dense", "", tuple(dense), x, y))
    for cell in cells:
        seen = [(o.seed, _cost(o, cost), factor * o.value) for o in cell.outcomes]
        points = [(seed, x, y) for seed, x, y in seen if x is not None]
        if points:
            seeds, x, y = zip(*points, strict=True)
            marks.append(Mark(*label(cell, cells), cell.method, cell.recovery, seeds, x, y))
    return tuple(marks)


def front(marks: Sequence[Mark], higher: bool = True) -> list[Mark]:
    """Those that no other equals at no more cost, by their means, from the cheapest on."""
    found: list[Mark] = []
    best = None
    for mark in sorted(marks, key=lambda m: (m.mean_x.mean, -m.mean_y.mean if higher else m.mean_y.mean)):
        y = mark.mean_y.mean
        if best is None or (y > best if higher else y < best):
            found.append(mark)
            best = y
    return found


def trade_off_figure(cells: Sequence[Cell], cost: str, colours: dict[str, str], name: str) -> Figure | None:
    """The chart, or None where nothing was measured of any cell."""
    marks = trade_off_marks(cells, cost)
    if not any(mark.method != "dense" for mark in marks):
        return None
    quality = cells[0].quality
    word, axis = units.spoken(quality), COSTS[cost]
    best = front(marks, higher_is_better(quality))
    key = f"Star: dense; {symbols_key(marks)}. Faint: one seed. Bar: ± one sample standard deviation."
    if len({mark.line for mark in marks}) < len(marks):
        key += " Thin line: the same at other budgets."
    if len(best) > 1:
        key += " Dotted: the front, better than all that cost less."
    alt = (
        f"{word} against {axis} of {len(marks)} networks; on the front: "
        + "; ".join(f"{m.label} with {m.mean_y.mean:.2f} at {m.mean_x.mean:.3g}" for m in best)
        + ". The table below holds every value."
    )
    unit = " (%)" if scale(quality) == 100 else ""
    sheet = Sheet(
        ("network", "method", "recovery", "seed", axis, f"{quality}{unit}"),
        tuple((m.label, m.method, m.recovery, s, x, round(y, 6)) for m in marks
              for s, x, y in zip(m.seeds, m.x, m.y, strict=True)),
    )  # fmt: skip
    title = f"{word.capitalize()} against {'MACs' if cost == 'macs' else 'measured latency'}"
    return Figure(name, title, key, alt, _draw(marks, best, quality, axis, colours), sheet, HEIGHT)


def _cost(outcome: Outcome, cost: str, dense: bool = False) -> float | None:
    if cost == "macs":
        return (outcome.card.dense.macs if dense else outcome.macs) / 1e6
    time = outcome.dense_latency if dense else outcome.latency
    return None if time is None else time.median


def _draw(marks: Sequence[Mark], best: Sequence[Mark], quality: str, axis: str, colours: dict[str, str]) -> dict:
    import plotly.graph_objects as go

    across, up = ranges(marks)
    figure = go.Figure(layout={"template": {}})
    unit = "%" if scale(quality) == 100 else ""
    figure.update_layout(
        height=HEIGHT, showlegend=False, margin={"l": 8, "r": 20, "t": 14, "b": 52},
        xaxis={
            "title": {"text": f"{axis}, {number_of_seeds(marks)} seeds"}, "range": across, "fixedrange": True,
            "zeroline": False,
        },
        yaxis={
            "title": {"text": escape(units.spoken(quality)) + (" (%)" if unit else "")}, "range": up,
            "fixedrange": True, "zeroline": False, "automargin": True,
        },
    )  # fmt: skip
    if len(best) > 1:
        figure.add_scatter(
            x=[m.mean_x.mean for m in best], y=[m.mean_y.mean for m in best], mode="lines", hoverinfo="skip",
            line={"color": NEUTRAL, "width": 1.5, "dash": "dot"}, name="front",
        )  # fmt: skip
    draw_marks(figure, marks, colours, ("M" if axis == COSTS["macs"] else "ms", unit))
    return figure.to_plotly_json()
