"""Channel widths: the dense bar as a ghost behind the kept one, coupled layers under one bracket."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import groupby

from secateur.card import Card, GroupWidth
from secateur.report.figure import Figure, Sheet
from secateur.report.palette import GHOST, NEUTRAL

MAX_ROWS = 60
"""With more producing layers than this a group gets one row and the number of its layers, not one row a layer."""


@dataclass(frozen=True)
class WidthRow:
    """One bar: a layer of a group, or a whole group where ``layers`` is more than one."""

    label: str
    layers: int
    group: GroupWidth


def width_rows(card: Card) -> tuple[WidthRow, ...]:
    """The bars in network order; layers of one group stand together."""
    num_layers = sum(max(1, len(g.members)) for g in card.groups)
    rows: list[WidthRow] = []
    for group in card.groups:
        if len(group.members) > 1 and num_layers <= MAX_ROWS:
            rows += [WidthRow(member, 1, group) for member in group.members]
        else:
            rows.append(WidthRow(group.name, max(1, len(group.members)), group))
    return tuple(rows)


def width_sheet(card: Card) -> Sheet:
    """One row a group: the data behind the chart."""
    return Sheet(
        ("group", "kind", "dense width (units)", "kept (units)", "locked", "reason", "coupled layers"),
        tuple(
            (g.name, g.kind, g.width, g.kept, "yes" if g.locked else "no", g.reason, "; ".join(g.members))
            for g in card.groups
        ),
    )


def width_figure(card: Card, colour: str) -> Figure | None:
    """The chart, or None for a card that records no groups."""
    if not card.groups:
        return None
    rows = width_rows(card)
    kinds = sorted({g.kind for g in card.groups})
    unit = f"{kinds[0]}s" if len(kinds) == 1 else f"units ({', '.join(f'{k}s' for k in kinds)})"
    height = 72 + 26 * len(rows)
    kept, width = sum(g.kept for g in card.groups), sum(g.width for g in card.groups)
    num_locked = sum(g.locked for g in card.groups)
    alt = (
        f"Horizontal bars, one for each layer, of {len(card.groups)} groups in network order: "
        f"{kept} of {width} {unit} kept, {num_locked} groups locked. The table below holds every value."
    )
    key = "Filled: kept. Pale: dense."
    if any(len(g.members) > 1 for g in card.groups):
        key += " A bracket ties layers that can only be cut together."
    if num_locked:
        key += " Hatched: locked, with the reason."
    plot = _draw(rows, unit, colour, height)
    return Figure("widths", "Widths before and after", key, alt, plot, width_sheet(card), height)


def _draw(rows: tuple[WidthRow, ...], unit: str, colour: str, height: int) -> dict:
    import plotly.graph_objects as go

    at = list(range(len(rows)))
    widest = max(1, max(row.group.width for row in rows))
    hover = [_hover(row) for row in rows]
    figure = go.Figure(layout={"template": {}})
    figure.add_bar(
        y=at, x=[r.group.width for r in rows], orientation="h", width=0.86, name="dense", marker_color=GHOST,
        customdata=hover, hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    figure.add_bar(
        y=at, x=[r.group.kept for r in rows], orientation="h", width=0.5, name="kept", hoverinfo="skip",
        marker={
            "color": [NEUTRAL if r.group.locked else colour for r in rows],
            "pattern": {"shape": ["/" if r.group.locked else "" for r in rows], "size": 5, "solidity": 0.35},
        },
    )  # fmt: skip
    for index, row in zip(at, rows, strict=True):
        figure.add_annotation(
            x=row.group.width, y=index, text=_bar_label(row), xanchor="left", xshift=6, showarrow=False,
            font={"size": 11, "color": NEUTRAL} if row.group.locked else {"size": 11},
        )  # fmt: skip
    start = 0
    for _, run in groupby(rows, key=lambda row: id(row.group)):
        size = len(list(run))
        if size > 1:
            _bracket(figure, start, start + size - 1)
        start += size
    num_groups = len({id(row.group) for row in rows})
    figure.update_layout(
        barmode="overlay", height=height, showlegend=False, margin={"l": 8, "r": 8, "t": 4, "b": 52},
        xaxis={
            "title": {"text": f"width in {escape(unit)} (n = {num_groups} groups)"},
            "range": [0, widest * 1.32], "fixedrange": True, "zeroline": False, "showgrid": False,
        },
        yaxis={
            "tickvals": at, "ticktext": [_tick(row) for row in rows], "range": [len(rows) - 0.4, -0.6],
            "fixedrange": True, "automargin": True, "showgrid": False, "ticklabelstandoff": 14,
        },
    )  # fmt: skip
    return figure.to_plotly_json()


def _bracket(figure, first: int, last: int) -> None:
    """A bracket left of the axis, from the first to the last of the coupled layers."""
    top, bottom = first - 0.36, last + 0.36
    line = {"color": NEUTRAL, "width": 1.5}
    # On the paper and not on the axis: a shape that is tied to the x axis is clipped at its edge.
    common = {"type": "line", "xref": "paper", "yref": "y", "xsizemode": "pixel", "xanchor": 0, "line": line}
    figure.add_shape(x0=-10, x1=-10, y0=top, y1=bottom, **common)
    figure.add_shape(x0=-10, x1=-5, y0=top, y1=top, **common)
    figure.add_shape(x0=-10, x1=-5, y0=bottom, y1=bottom, **common)


def _short(text: str, limit: int) -> str:
    return escape(text if len(text) <= limit else f"…{text[1 - limit :]}")


def _tick(row: WidthRow) -> str:
    return _short(row.label, 34)


def _bar_label(row: WidthRow) -> str:
    group = row.group
    if group.locked:
        reason = group.reason if len(group.reason) <= 44 else f"{group.reason[:43]}…"
        text = f"{group.width} locked" + (f": {escape(reason)}" if reason else "")
    else:
        text = f"<b>{group.kept}</b> / {group.width}"
    return text + (f"  [ {row.layers} coupled layers" if row.layers > 1 else "")


def _hover(row: WidthRow) -> str:
    group = row.group
    lines = [f"<b>{escape(group.name)}</b>", f"{group.kept} of {group.width} {escape(group.kind)}s kept"]
    if group.locked:
        lines.append(f"locked: {escape(group.reason) or 'no reason recorded'}")
    if len(group.members) > 1:
        shown = [escape(m) for m in group.members[:12]]
        more = len(group.members) - len(shown)
        lines.append("coupled:<br>   " + "<br>   ".join(shown) + (f"<br>   and {more} more" if more else ""))
    return "<br>".join(lines)
