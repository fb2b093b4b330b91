"""Gates while they are learned: how many are open, their mean against its target, and the mean of every group.

Reads what a run records under ``gates``: the target, the epoch whose gates were taken, and for every epoch the share
of gates that are not zero, their mean, the accuracy on the held-out data if there are any, and the mean of every group.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from secateur.card import Card
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import NEUTRAL

_LINES = {
    "open": ("not zero", {"width": 2.5}),
    "mean": ("mean gate", {"width": 2, "dash": "dot"}),
    "accuracy": ("held-out accuracy", {"width": 1.5, "dash": "dash"}),
}
_LEAST_GAP = 6.0


def gate_figures(card: Card, colour: str) -> list[Figure]:
    """The charts of gate learning; none for a card of another method, or of gates that were read from a file."""
    found = card.extra.get("gates")
    if not isinstance(found, Mapping) or not found.get("history"):
        return []
    made = [_through_time(card, found, colour)]
    return [*made, _groups(found, colour)] if "means" in found["history"][-1] else made


def _through_time(card: Card, found: Mapping[str, Any], colour: str) -> Figure:
    import plotly.graph_objects as go

    history, target, chosen = found["history"], found["target"], found["chosen_epoch"]
    x = [point["epoch"] for point in history]
    seen = {key: [100 * p[key] for p in history] for key in _LINES if all(key in p for p in history)}
    figure = go.Figure(layout={"template": {}})
    figure.add_hline(y=100 * target, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    figure.add_vline(x=chosen, line={"color": NEUTRAL, "width": 1.5})
    ends = _apart({key: values[-1] for key, values in seen.items()})
    for key, values in seen.items():
        name, line = _LINES[key]
        tint = NEUTRAL if key == "accuracy" else colour
        figure.add_scatter(
            x=x, y=values, mode="lines+markers", name=name, marker={"size": 5, "color": tint},
            line={"color": tint, **line}, hovertemplate=f"epoch %{{x}}: {name} %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(
            x=x[-1], y=ends[key], text=name, showarrow=False, xanchor="left", xshift=8, font={"size": 12}
        )
    figure.update_layout(
        height=340, showlegend=False, margin={"l": 8, "r": 124, "t": 8, "b": 52},
        xaxis={"title": {"text": f"epoch of gate learning (n = {len(x)})"}, "fixedrange": True, "zeroline": False},
        yaxis={
            "title": {"text": f"gates, accuracy (%), seed {card.seed}"},
            "fixedrange": True, "zeroline": False, "range": [0, 104], "automargin": True,
        },
    )  # fmt: skip
    sheet = Sheet(
        ("epoch", "gates that are not zero (fraction)", "mean gate", "accuracy on held-out data (fraction)", "taken"),
        tuple((p["epoch"], p["open"], p["mean"], p.get("accuracy"), "yes" if p["epoch"] == chosen else "no")
              for p in history),
    )  # fmt: skip
    key = f"Solid: gates that are not zero. Dotted: their mean, pulled to {target:g}, the dashed grey line. " + (
        "Grey: accuracy on the held-out data. " if "accuracy" in seen else ""
    )
    alt = (
        f"Gates by epoch: in the end {100 * history[-1]['open']:.1f} % are not zero and their mean is "
        f"{history[-1]['mean']:.3f}, for a target of {target:g}; those of epoch {chosen} were taken."
    )
    title, key = "Gates while they are learned", f"{key}Vertical: the epoch whose gates were taken."
    return Figure("gates", title, key, alt, figure.to_plotly_json(), sheet, 340)


def _groups(found: Mapping[str, Any], colour: str) -> Figure:
    import plotly.graph_objects as go

    history = found["history"]
    x, names = [p["epoch"] for p in history], list(history[-1]["means"])
    z = [[p["means"][name] for p in history] for name in names]
    last = [row[-1] for row in z]
    figure = go.Figure(layout={"template": {}})
    hover = [[f"{escape(name)}: mean gate {v:.3f}" for v in row] for name, row in zip(names, z)]
    figure.add_heatmap(
        x=x, y=list(range(len(names))), z=z, zmin=0, zmax=1, text=hover, ygap=2, showscale=False,
        hovertemplate="epoch %{x}<br>%{text}<extra></extra>",
        colorscale=[[0, "rgba(138, 141, 145, 0.10)"], [1, colour]],
    )  # fmt: skip
    for k, value in enumerate(last):
        figure.add_annotation(
            x=1, xref="paper", xanchor="left", xshift=6, y=k, text=f"{value:.2f}", showarrow=False, font={"size": 11}
        )
    height = 20 * len(names) + 76
    figure.update_layout(
        height=height, showlegend=False, margin={"l": 8, "r": 48, "t": 8, "b": 52},
        xaxis={"title": {"text": f"epoch of gate learning (n = {len(x)})"}, "fixedrange": True, "zeroline": False,
               "showgrid": False},
        yaxis={"tickvals": list(range(len(names))), "ticktext": [_short(name) for name in names],
               "range": [len(names) - 0.5, -0.5], "fixedrange": True, "automargin": True, "showgrid": False,
               "zeroline": False},
    )  # fmt: skip
    sheet = Sheet(
        ("group", "epoch", "mean gate"),
        tuple((name, epoch, value) for name, row in zip(names, z) for epoch, value in zip(x, row, strict=True)),
    )
    low, high = names[last.index(min(last))], names[last.index(max(last))]
    key = "One row a group, from pale (all gates 0) to full colour (all gates 1). On the right: after the last epoch."
    alt = (
        f"Mean gate of {len(names)} groups by epoch; after the last one from {min(last):.3f} ({low}) to "
        f"{max(last):.3f} ({high}). The table below holds every value."
    )
    return Figure("gate-groups", "Gates by group", key, alt, figure.to_plotly_json(), sheet, height)


def _apart(ends: Mapping[str, float]) -> dict[str, float]:
    """Heights of labels, in the order of the lines' ends and far enough from one another to be read."""
    placed: dict[str, float] = {}
    lowest = 0.0
    for key, value in sorted(ends.items(), key=lambda item: item[1]):
        placed[key] = lowest = max(value, lowest)
        lowest += _LEAST_GAP
    return placed


def _short(name: str) -> str:
    return escape(name if len(name) <= 34 else f"…{name[-33:]}")
