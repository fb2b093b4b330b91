"""The distribution of the scores or gates that decided: what stayed, what went, and the threshold between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.card import Card
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import NEUTRAL

HEIGHT = 320


@dataclass(frozen=True)
class Scores:
    """What a card says of the scores.

    Attributes:
        what: ``units`` or ``weights``.
        relative: whether each score was divided by the threshold of its group.
        edges: of the bins, one more than counts.
        kept, removed: counts; the last bin also holds all beyond it.
        threshold: None where there is none that parts them.
    """

    what: str
    relative: bool
    edges: tuple[float, ...]
    kept: tuple[int, ...]
    removed: tuple[int, ...]
    threshold: float | None


def scores_of(card: Card) -> Scores | None:
    """The ``scores`` of a card, or None where it has none that can be drawn."""
    said = card.extra.get("scores")
    if not isinstance(said, Mapping):
        return None
    kept, removed = _counts(said.get("kept")), _counts(said.get("removed"))
    low, high = _number(said.get("low")), _number(said.get("high"))
    if low is None or high is None or low >= high or said.get("what") not in ("units", "weights"):
        return None
    if not kept or len(kept) != len(removed):
        return None
    step = (high - low) / len(kept)
    edges = tuple(low + step * n for n in range(len(kept) + 1))
    return Scores(said["what"], bool(said.get("relative")), edges, kept, removed, _number(said.get("threshold")))


def _counts(value: Any) -> tuple[int, ...]:
    fine = isinstance(value, list | tuple) and all(type(v) is int and v >= 0 for v in value)
    return tuple(value) if fine else ()


def _number(value: Any) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fine else None


def score_figure(card: Card, colour: str) -> Figure | None:
    """The chart, or None for a card without scores."""
    found = scores_of(card)
    if found is None:
        return None
    stayed, went = sum(found.kept), sum(found.removed)
    axis = f"score of {_a(found.what)}" + (", over the threshold of its group" if found.relative else "")
    key = "Coloured: what stayed. Grey: what went. The last bar holds everything above as well."
    alt = f"Histogram of the scores of {stayed:,} {found.what} that stayed and {went:,} that went"
    if found.threshold is not None:
        key += " Line: the threshold."
        alt += f"; the threshold is {found.threshold:.3g}"
    else:
        key += " No single threshold parts them."
    sheet = Sheet(
        (f"{axis}, from", "to", f"{found.what} that stayed", f"{found.what} that went"),
        tuple(
            (round(low, 9), round(high, 9), kept, removed)
            for low, high, kept, removed in zip(
                found.edges[:-1], found.edges[1:], found.kept, found.removed, strict=True
            )
        ),
    )
    return Figure("scores", "What decided", key, f"{alt}.", _draw(found, axis, stayed + went, colour), sheet, HEIGHT)


def _a(what: str) -> str:
    return {"units": "a unit", "weights": "a weight (its size)"}[what]


def _draw(found: Scores, axis: str, total: int, colour: str) -> dict:
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": {}})
    step = found.edges[1] - found.edges[0]
    middles = [edge + step / 2 for edge in found.edges[:-1]]
    # Many weights are tiny and few are large: without a scale of powers the large ones could not be seen.
    powers = max(map(max, (found.kept, found.removed))) > 200
    for name, counts, tint in (("went", found.removed, NEUTRAL), ("stayed", found.kept, colour)):
        figure.add_bar(
            x=middles, y=list(counts), width=0.92 * step, name=name, marker={"color": tint, "line": {"width": 0}},
            opacity=0.75 if powers else 1.0,
            hovertemplate=f"%{{y:,}} {found.what} {name}<br>score about %{{x:.3g}}<extra></extra>",
        )  # fmt: skip
    if found.threshold is not None:
        # Within the plot and towards its middle: above it, at the ends, stands how many went and stayed.
        right = found.threshold > (found.edges[0] + found.edges[-1]) / 2
        figure.add_vline(
            x=found.threshold, line={"color": NEUTRAL, "width": 1.5, "dash": "dash"},
            annotation={"text": f"threshold {found.threshold:.3g}", "yref": "paper", "y": 1, "yanchor": "top",
                        "xanchor": "right" if right else "left", "font": {"size": 12}},
        )  # fmt: skip
    figure.update_layout(
        height=HEIGHT, showlegend=False, barmode="overlay" if powers else "stack",
        margin={"l": 8, "r": 20, "t": 34, "b": 52},
        xaxis={"title": {"text": axis}, "fixedrange": True, "zeroline": False,
               "range": [found.edges[0], found.edges[-1]]},
        yaxis={"title": {"text": f"{found.what} (n = {total:,})"}, "fixedrange": True, "zeroline": False,
               "automargin": True, "type": "log" if powers else "linear"},
    )  # fmt: skip
    for name, tint, counts, side in (("stayed", colour, found.kept, "right"), ("went", NEUTRAL, found.removed, "left")):
        figure.add_annotation(
            xref="paper", yref="paper", x=1 if side == "right" else 0, y=1, yanchor="bottom", xanchor=side,
            text=f"<b>{sum(counts):,} {name}</b>", showarrow=False, font={"size": 12, "color": tint},
        )  # fmt: skip
    return figure.to_plotly_json()
