"""A search for widths and depths: its cost through time with the band, and its distributions over the candidates.

Reads what a run records under ``search``: the metric with its dense value and band, the candidates of every width and
depth, and for every epoch the expected and the actual cost; for some epochs the distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from secateur.card import Card
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import NEUTRAL

_NAMES = {"macs": "MACs", "params": "parameters"}
_ROW = 7
_LEAST_GROUP = 20


@dataclass(frozen=True)
class Track:
    """The distribution of one width or depth through the search.

    Attributes:
        name: the group or the stack.
        unit: what a candidate counts.
        counts: the candidates, ascending.
        chances: one list of probabilities an epoch that was recorded.
        chosen: place of the candidate that was built; None where its block was left out.
    """

    name: str
    unit: str
    counts: Sequence[int]
    chances: Sequence[Sequence[float]]
    chosen: int | None


def search_figures(card: Card, colour: str) -> list[Figure]:
    """The charts of a search; none for a card of another method."""
    found = card.extra.get("search")
    if not isinstance(found, Mapping) or not found.get("history"):
        return []
    made = [_cost(card, found, colour)]
    tracks = list(_tracks(found))
    return [*made, _distributions(found, tracks, colour)] if tracks else made


def _cost(card: Card, found: Mapping[str, Any], colour: str) -> Figure:
    import plotly.graph_objects as go

    history, dense, metric = found["history"], found["dense"], found["metric"]
    x = [point["epoch"] for point in history]
    figure = go.Figure(layout={"template": {}})
    share = {name: [100 * point[name] / dense for point in history] for name in ("expected", "actual")}
    figure.add_hrect(
        y0=100 * found["low"] / dense, y1=100 * found["high"] / dense, fillcolor=NEUTRAL, opacity=0.25, line_width=0
    )
    figure.add_hline(y=100 * found["wanted"] / dense, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    for name, line in (("expected", {"dash": "dot", "width": 2}), ("actual", {"width": 2.5})):
        figure.add_scatter(
            x=x, y=share[name], mode="lines+markers", name=name, marker={"size": 5, "color": colour},
            line={"color": colour, **line}, hovertemplate=f"epoch %{{x}}: {name} %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(
            x=x[-1], y=share[name][-1], text=name, showarrow=False, xanchor="left", xshift=8, font={"size": 12}
        )
    built = 100 * found["found"] / dense
    figure.add_scatter(
        x=[x[-1]], y=[built], mode="markers", name="built", marker={"symbol": "star", "size": 14, "color": colour},
        hovertemplate="built: %{y:.1f} %<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        height=340, showlegend=False, margin={"l": 8, "r": 76, "t": 8, "b": 52},
        xaxis={"title": {"text": f"epoch of the search (n = {len(x)})"}, "fixedrange": True, "zeroline": False},
        yaxis={
            "title": {"text": f"{_NAMES.get(metric, escape(str(metric)))} (% of the dense), seed {card.seed}"},
            "fixedrange": True, "zeroline": False, "rangemode": "tozero", "automargin": True,
        },
    )  # fmt: skip
    rows = tuple(
        (p["epoch"], p["temperature"], p["expected"], p["actual"], p.get("loss"), p.get("accuracy")) for p in history
    )
    sheet = Sheet(
        ("epoch", "temperature", f"expected ({metric})", f"actual ({metric})", "loss of the other half",
         "accuracy on the other half (fraction)"), rows,
    )  # fmt: skip
    key = (
        "Solid: the most likely architecture, whose cost decides the sign. Dotted: the expected cost, through which "
        "the gradient flows. Grey: the band around the budget. Star: what was built."
    )
    alt = (
        f"Cost by epoch of the search: the most likely architecture ends at {share['actual'][-1]:.1f} % of the dense "
        f"{metric}, the expected cost at {share['expected'][-1]:.1f} %; {built:.1f} % were built; the band goes from "
        f"{100 * found['low'] / dense:.1f} to {100 * found['high'] / dense:.1f} %."
    )
    return Figure("search-cost", "Cost through the search", key, alt, figure.to_plotly_json(), sheet, 340)


def _tracks(found: Mapping[str, Any]) -> Iterator[Track]:
    points = [point for point in found["history"] if "widths" in point]
    for kind, unit in (("depths", "blocks"), ("widths", "units")):
        for k, (name, counts) in enumerate(found[kind].items()):
            chances = [point[kind][k] for point in points]
            if chances:
                gone = kind == "widths" and name in found.get("left_out", ())
                yield Track(name, unit, counts, chances, None if gone else found["choice"][kind][k])


def _distributions(found: Mapping[str, Any], tracks: Sequence[Track], colour: str) -> Figure:
    import plotly.graph_objects as go

    epochs = [point["epoch"] for point in found["history"] if "widths" in point]
    figure = go.Figure(layout={"template": {}})
    z: list[list[float | None]] = []
    y: list[float] = []
    hover: list[list[str]] = []
    ticks: list[tuple[float, str]] = []
    at = 0.0
    for track in tracks:
        rows = len(track.counts)
        step = max(_ROW, _LEAST_GROUP / rows)
        for k, count in enumerate(track.counts):
            y.append(at + step * (k + 0.5))
            z.append([rows * chances[k] for chances in track.chances])
            hover.append([f"{escape(track.name)}: {count} {track.unit}, {chances[k]:.1%}" for chances in track.chances])
        place, built = rows / 2, f"0 / {track.counts[-1]}"
        if track.chosen is not None:
            place, built = track.chosen + 0.5, f"{track.counts[track.chosen]} / {track.counts[-1]}"
        figure.add_annotation(
            x=1, xref="paper", xanchor="left", xshift=6, y=at + step * place, showarrow=False, text=built,
            font={"size": 11},
        )  # fmt: skip
        ticks.append((at + step * rows / 2, track.name))
        at += step * rows
        # A row of nothing keeps neighbours apart.
        y.append(at + 2)
        z.append([None] * len(epochs))
        hover.append([""] * len(epochs))
        at += 4
    height = round(at) + 76
    shown = [value for line in z for value in line if value is not None]
    least, most = min(shown), max(*shown, min(shown) + 1e-3)
    figure.add_heatmap(
        x=epochs, y=y, z=z, zmin=least, zmax=most, text=hover, hovertemplate="epoch %{x}<br>%{text}<extra></extra>",
        colorscale=[[0, "rgba(138, 141, 145, 0.10)"], [1, colour]], hoverongaps=False,
        showscale=False,
    )  # fmt: skip
    figure.update_layout(
        height=height, showlegend=False, margin={"l": 8, "r": 72, "t": 8, "b": 52},
        xaxis={"title": {"text": f"epoch of the search (n = {len(epochs)} recorded)"}, "fixedrange": True,
               "zeroline": False, "showgrid": False},
        yaxis={"tickvals": [t for t, _ in ticks], "ticktext": [_short(name) for _, name in ticks],
               "range": [at, 0], "fixedrange": True, "automargin": True, "showgrid": False, "zeroline": False},
    )  # fmt: skip
    sheet = Sheet(
        ("group or stack", "epoch", "candidate", "counts", "probability", "built"),
        tuple(
            (track.name, epoch, count, track.unit, chances[k], "yes" if k == track.chosen else "no")
            for track in tracks
            for epoch, chances in zip(epochs, track.chances, strict=True)
            for k, count in enumerate(track.counts)
        ),
    )
    key = (
        "One band a width or depth, one row a candidate, the smallest on top. From pale to full colour: from "
        f"{least:.2g} to {most:.2g} times as likely as without any preference. On the right: what was built, of "
        "the most there is; 0 where the block is left out."
    )
    sure = sum(max(track.chances[-1]) > 0.5 for track in tracks)
    alt = (
        f"Probabilities of the candidates of {len(tracks)} widths and depths by epoch; in the end {sure} of them have "
        "a candidate of more than one half. The table below holds every value."
    )
    return Figure("search-widths", "What the search came to prefer", key, alt, figure.to_plotly_json(), sheet, height)


def _short(name: str) -> str:
    return escape(name if len(name) <= 34 else f"…{name[-33:]}")
