"""The recovery curve: quality by epoch, each cut as a vertical line, the dense network as a horizontal one."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from secateur.card import Card, HistoryPoint, is_fraction
from secateur.report import units
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import NEUTRAL, colours

_MAX_LABELS = 4
_KEYS = {
    "cut": "Vertical: a cut.",
    "dense": "Dashed: the dense network.",
    "rivals": "Thin: the same small network trained from scratch.",
}


@dataclass(frozen=True)
class CurvePoint:
    """One point: ``x`` is the epoch since the start of the run, ``epoch`` as it was recorded."""

    x: float
    stage: str
    epoch: float
    value: float | None
    event: str | None


def curve_quality(card: Card) -> str | None:
    """The quality to draw: the first of the dense network's that the run's own history holds, else the loss."""
    own = _own_history(card)
    for name in (*sorted(card.dense.quality, key=lambda n: n != "accuracy"), "accuracy", "loss"):
        if any(point.value(name) is not None for point in own):
            return name
    return None


def curve_points(card: Card, name: str) -> tuple[CurvePoint, ...]:
    """The history of the run itself on one axis of epochs, whether or not the count restarts with a stage."""
    points: list[CurvePoint] = []
    offset = 0.0
    before = None
    for point in _own_history(card):
        if before is not None and point.stage != before.stage and point.epoch < before.epoch:
            offset += before.epoch
        points.append(CurvePoint(offset + point.epoch, point.stage, point.epoch, point.value(name), point.event))
        before = point
    return tuple(points)


def _own_history(card: Card) -> tuple[HistoryPoint, ...]:
    rivals = {c.name for c in card.comparisons}
    return tuple(point for point in card.history if point.stage not in rivals)


def rival_points(card: Card, name: str) -> dict[str, tuple[CurvePoint, ...]]:
    """What the networks that the run is compared with went through, each from its own first epoch."""
    found = {}
    for rival in dict.fromkeys(c.name for c in card.comparisons):
        own = [p for p in card.history if p.stage == rival and p.value(name) is not None]
        if own:
            found[rival] = tuple(CurvePoint(p.epoch, p.stage, p.epoch, p.value(name), p.event) for p in own)
    return found


def recovery_figure(card: Card, colour: str) -> Figure | None:
    """The chart, or None for a card without a history of its own."""
    name = curve_quality(card)
    if name is None:
        return None
    points, rivals = curve_points(card, name), rival_points(card, name)
    cuts = [p for p in points if p.event == "cut"]
    last = next(p for p in reversed(points) if p.value is not None)
    word = units.spoken(name)
    alt = (
        f"Line of {word} over {points[-1].x:g} epochs with {len(cuts)} cut{'' if len(cuts) == 1 else 's'}, "
        f"ending at {units.quality(name, last.value)}"
    )
    if name in card.dense.quality:
        alt += f"; the dense network stands at {units.quality(name, card.dense.quality[name])}"
    sheet = Sheet(
        ("epoch since start", "stage", "epoch as recorded", name, "event"),
        tuple((p.x, p.stage, p.epoch, p.value, p.event) for line in (points, *rivals.values()) for p in line),
    )
    drawn = {"cut": bool(cuts), "dense": name in card.dense.quality, "rivals": bool(rivals)}
    key = " ".join(text for what, text in _KEYS.items() if drawn[what])
    return Figure("recovery", "Recovery", key, f"{alt}.", _draw(card, name, points, rivals, colour), sheet, 380)


def _draw(
    card: Card, name: str, points: tuple[CurvePoint, ...], rivals: dict[str, tuple[CurvePoint, ...]], colour: str
) -> dict:
    import plotly.graph_objects as go

    scale = 100 if is_fraction(name) else 1
    seen = [p for p in points if p.value is not None]
    hover = [
        f"<b>{escape(units.quality(name, p.value))}</b><br>{escape(p.stage)}, epoch {p.epoch:g}"
        + (f"<br>{escape(p.event)}" if p.event else "")
        for p in seen
    ]
    figure = go.Figure(layout={"template": {}})
    figure.add_scatter(
        x=[p.x for p in seen], y=[scale * p.value for p in seen if p.value is not None], mode="lines+markers",
        line={"color": colour, "width": 2.5}, marker={"size": 6}, customdata=hover,
        hovertemplate="%{customdata}<extra></extra>", cliponaxis=False,
    )  # fmt: skip
    for rival, line in rivals.items():
        tint = colours([card.method, *rivals])[rival]
        figure.add_scatter(
            x=[p.x for p in line], y=[scale * (p.value or 0) for p in line], mode="lines",
            line={"color": tint, "width": 1.5}, cliponaxis=False,
            hovertemplate=f"{escape(rival)}, epoch %{{x}}: %{{y:.2f}}<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(
            x=line[-1].x, y=scale * (line[-1].value or 0), text=escape(rival), showarrow=False,
            xanchor="right", yanchor="top", yshift=-8, font={"size": 12, "color": tint},
        )  # fmt: skip
    _cut_lines(figure, [p.x for p in points if p.event == "cut"])
    last = seen[-1]
    assert last.value is not None
    dense = card.dense.quality.get(name)
    # The label goes to the side of the curve's end on which the baseline is not.
    below = dense is not None and dense >= last.value
    figure.add_annotation(
        x=last.x, y=scale * last.value, xanchor="right", yanchor="top" if below else "bottom", showarrow=False,
        yshift=-10 if below else 10, text=f"<b>{escape(card.method)} {units.quality(name, last.value)}</b>",
        font={"size": 13},
    )  # fmt: skip
    if dense is not None:
        figure.add_hline(
            y=scale * dense, line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"dense {units.quality(name, dense)}", "font": {"size": 13}, "xanchor": "right",
                "yanchor": "bottom" if below or dense >= last.value else "top",
            },
        )  # fmt: skip
    unit = " (%)" if is_fraction(name) else ""
    figure.update_layout(
        height=380, showlegend=False, margin={"l": 8, "r": 20, "t": 34, "b": 52},
        xaxis={
            "title": {"text": f"epoch since the start of the run (n = {len(seen)} measurements)"},
            "fixedrange": True, "zeroline": False, "rangemode": "tozero",
        },
        yaxis={
            "title": {"text": f"{escape(units.spoken(name))}{unit}, one run, seed {card.seed}"},
            "fixedrange": True, "zeroline": False, "automargin": True,
        },
    )  # fmt: skip
    return figure.to_plotly_json()


def _cut_lines(figure, cuts: list[float]) -> None:
    for index, x in enumerate(cuts):
        text = "cut" if len(cuts) == 1 else f"cut {index + 1}"
        if len(cuts) > _MAX_LABELS:
            text = f"{len(cuts)} cuts" if index == 0 else ""
        figure.add_vline(
            x=x, line={"color": NEUTRAL, "width": 1.5},
            annotation={"text": text, "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center",
                        "font": {"size": 12}},
        )  # fmt: skip
