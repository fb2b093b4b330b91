"""MACs against measured time: shows where fewer multiply-accumulates are not faster."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.report.cells import Cell
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import NEUTRAL
from secateur.report.scatter import HEIGHT, Mark, draw_marks, number_of_seeds, ranges
from secateur.report.trade_off import COSTS

_KEY = (
    "Star: dense. Dashed: its time in proportion to the MACs; above it a network is slower than its MACs promise. "
    "Faint: one seed. Bar: ± one sample standard deviation."
)


def macs_latency_marks(cells: Sequence[Cell]) -> tuple[Mark, ...]:
    """The dense network and every cut (its recoveries share the time), MACs in millions and milliseconds."""
    dense: dict[int, tuple[float, float]] = {}
    cuts: dict[str, tuple[Cell, dict[int, tuple[float, float]]]] = {}
    for cell in cells:
        for outcome in cell.outcomes:
            if outcome.latency is None or outcome.dense_latency is None:
                continue
            dense.setdefault(outcome.seed, (outcome.card.dense.macs / 1e6, outcome.dense_latency.median))
            seeds = cuts.setdefault(cell.setting, (cell, {}))[1]
            seeds.setdefault(outcome.seed, (outcome.macs / 1e6, outcome.latency.median))
    if not cuts:
        return ()
    shown = [cell for cell, _ in cuts.values()]
    marks = [_mark("dense", "dense", "dense", dense)]
    for cell, seeds in cuts.values():
        several = sum(c.method == cell.method for c in shown) > 1
        line = ", ".join(filter(None, (cell.method, cell.detail)))
        marks.append(_mark(cell.what if several else cell.method, line, cell.method, seeds))
    return tuple(marks)


def _mark(label: str, line: str, method: str, seeds: dict[int, tuple[float, float]]) -> Mark:
    x, y = zip(*seeds.values(), strict=True)
    return Mark(label, line, method, "finetune", tuple(seeds), x, y)


def macs_latency_figure(cells: Sequence[Cell], colours: dict[str, str], name: str) -> Figure | None:
    """The chart, or None where no time was measured."""
    marks = macs_latency_marks(cells)
    if not marks:
        return None
    dense = marks[0]
    rate = dense.mean_y.mean / dense.mean_x.mean if dense.mean_x.mean else 0.0
    slower = [m.label for m in marks[1:] if m.mean_y.mean >= dense.mean_y.mean]
    alt = f"Latency against MACs of the dense network and {len(marks) - 1} cut ones. " + (
        f"Not faster than dense: {'; '.join(slower)}." if slower else "All cut networks are faster than the dense one."
    )
    sheet = Sheet(
        ("network", "method", "seed", COSTS["macs"], COSTS["latency"]),
        tuple((m.label, m.method, s, x, y) for m in marks for s, x, y in zip(m.seeds, m.x, m.y, strict=True)),
    )
    return Figure(name, "MACs against measured latency", _KEY, alt, _draw(marks, rate, colours), sheet, HEIGHT)


def _draw(marks: Sequence[Mark], rate: float, colours: dict[str, str]) -> dict:
    import plotly.graph_objects as go

    across, up = ranges(marks, from_zero=True)
    figure = go.Figure(layout={"template": {}})
    figure.update_layout(
        height=HEIGHT, showlegend=False, margin={"l": 8, "r": 20, "t": 14, "b": 52},
        xaxis={
            "title": {"text": f"{COSTS['macs']}, {number_of_seeds(marks)} seeds"}, "range": across,
            "fixedrange": True, "zeroline": False,
        },
        yaxis={
            "title": {"text": COSTS["latency"]}, "range": up, "fixedrange": True, "zeroline": False,
            "automargin": True,
        },
    )  # fmt: skip
    ends = [max(0.0, across[0]), marks[0].mean_x.mean]
    figure.add_scatter(
        x=ends, y=[rate * x for x in ends], mode="lines", hoverinfo="skip", name="in proportion",
        line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
    )  # fmt: skip
    draw_marks(figure, marks, colours, ("M", "ms"))
    return figure.to_plotly_json()
