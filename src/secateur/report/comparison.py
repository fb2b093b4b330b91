"""What several runs say together: verdicts, the table of drops, charts, and the published rows beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from secateur.card import Card, Latency
from secateur.report import units
from secateur.report.cells import Cell, cells
from secateur.report.drops import DropRow, drop_rows
from secateur.report.figure import Figure, Sheet
from secateur.report.macs_latency import macs_latency_figure
from secateur.report.published import protocol_differences, published_rows
from secateur.report.published_tables import Row
from secateur.report.statistics import LEVEL, Paired, between_methods, comparisons, plus_minus, spread
from secateur.report.trade_off import trade_off_figure

_MAX_LINES = 5


@dataclass(frozen=True)
class Beside:
    """Cells of one setting beside a published row.

    Attributes:
        cell: any of the setting.
        row: the published one.
        figures: recovery as words, ours, theirs; one for every recovery that both have.
        differences: what was different; one that is of some recoveries only begins with their names.
    """

    cell: Cell
    row: Row
    figures: tuple[tuple[str, str, str], ...]
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """Everything on the page that is about more than one run.

    Attributes:
        cells: runs that are repeats of each other.
        pairs: the questions that the cells answer.
        rivals: methods against each other, with what they share in words.
        rows: of the table of drops.
        figures: charts, one set for every model and data set, with a heading of its own (empty for a single one).
        beside: published rows.
        notes: what to know before believing any of it.
        hardware, versions, reproduce: each distinct text once.
    """

    cells: tuple[Cell, ...]
    pairs: tuple[Paired, ...]
    rivals: tuple[tuple[str, tuple[Paired, ...]], ...]
    rows: tuple[DropRow, ...]
    figures: tuple[tuple[str, tuple[Figure, ...]], ...]
    beside: tuple[Beside, ...]
    notes: tuple[str, ...]
    hardware: tuple[str, ...]
    versions: tuple[str, ...]
    reproduce: tuple[str, ...]


def overview(cards: Sequence[Card], colours: Mapping[str, str]) -> Overview | None:
    """None for a single run, or where the cards hold no quality."""
    joined = cells(cards) if len(cards) > 1 else ()
    if not joined:
        return None
    pairs, rivals = comparisons(joined), between_methods(joined)
    return Overview(
        joined,
        pairs,
        rivals,
        drop_rows(joined),
        _figures(joined, dict(colours)),
        published(joined),
        _notes(cards, joined, bool(pairs or rivals)),
        _each(units.listed(card.hardware) for card in cards),
        _each(", ".join(f"{k} {v}" for k, v in card.versions.items()) for card in cards),
        _each(card.reproduce for card in cards),
    )


def published(joined: Sequence[Cell]) -> tuple[Beside, ...]:
    """The published rows of the same methods, networks and data; none for a quality that is no accuracy."""
    found: dict[tuple[str, int], list[tuple[Cell, Row]]] = {}
    for cell in joined:
        if cell.quality == "accuracy":
            for row in published_rows(cell.outcomes[0].card, cell.recovery):
                found.setdefault((cell.setting, id(row)), []).append((cell, row))
    return tuple(_beside(pairs[0][1], [cell for cell, _ in pairs]) for pairs in found.values())


def _beside(row: Row, own: Sequence[Cell]) -> Beside:
    figures = []
    named: dict[str, list[str]] = {}
    for cell in own:
        n = len(cell.outcomes)
        ours = f"{plus_minus(spread(cell.values))}\u00a0%, n = {n}"
        figures.append((cell.how, ours, row.figures[cell.recovery].text()))
        for difference in protocol_differences(cell.outcomes[0].card, row, cell.recovery, n):
            named.setdefault(difference, []).append(cell.how)
    differences = [d if len(who) == len(own) else f"{', '.join(who)}: {d}" for d, who in named.items()]
    return Beside(own[0], row, tuple(figures), tuple(differences))


def beside_sheet(rows: Sequence[Beside]) -> Sheet:
    """One line for every published figure."""
    columns = ("model", "data", "method", "budget", "recovery", "here", "published", "published, unpruned",
               "what remains there", "source", "differences")  # fmt: skip
    return Sheet(
        columns,
        tuple(
            (b.cell.model, b.cell.data, b.cell.method, b.cell.budget, how, ours, theirs, b.row.figures["dense"].text(),
             b.row.remains, b.row.source, "; ".join(b.differences))
            for b in rows
            for how, ours, theirs in b.figures
        ),
    )  # fmt: skip


def verdict_sheet(pairs: Sequence[Paired]) -> Sheet:
    """The paired differences, one line for every question."""
    lines = []
    for pair in pairs:
        found = pair.interval
        numbers = (None,) * 4 if found is None else tuple(
            round(v, 6) for v in (found.mean, found.std, found.low, found.high)
        )  # fmt: skip
        cell, same = pair.first, pair.first.method == pair.second.method
        setting = cell.what if same else f"{cell.budget}, {cell.how}"
        lines.append((cell.model, cell.data, setting, *pair.names, *numbers,
                      len(pair.differences), pair.verdict()))  # fmt: skip
    level = f"{100 * LEVEL:g} % CI"
    columns = ("model", "data", "setting", "first", "minus", "mean difference", "sample standard deviation",
               f"{level}, low", f"{level}, high", "n", "verdict")  # fmt: skip
    return Sheet(columns, tuple(lines))


def _figures(joined: Sequence[Cell], colours: dict[str, str]) -> tuple[tuple[str, tuple[Figure, ...]], ...]:
    subjects = list(dict.fromkeys((cell.model, cell.data) for cell in joined))
    found = []
    for number, (model, data) in enumerate(subjects, 1):
        own = [cell for cell in joined if (cell.model, cell.data) == (model, data)]
        after = "" if len(subjects) == 1 else f"-{number}"
        figures = [trade_off_figure(own, "macs", colours, f"macs{after}")]
        if timed_alike(own):
            figures.append(trade_off_figure(own, "latency", colours, f"latency{after}"))
            figures.append(macs_latency_figure(own, colours, f"macs-latency{after}"))
        title = f"{model} on {data}" if len(subjects) > 1 else ""
        found.append((title, tuple(figure for figure in figures if figure)))
    return tuple(found)


def timed_alike(joined: Sequence[Cell]) -> bool:
    """Whether all times were taken on one machine in one way, so that they may stand on one axis."""
    outcomes = [o for cell in joined for o in cell.outcomes if o.latency is not None]
    return len({(units.listed(o.card.hardware), _way(o.latency)) for o in outcomes}) == 1


def _way(latency: Latency | None) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(latency.settings.items())) if latency else ""


def _notes(cards: Sequence[Card], joined: Sequence[Cell], verdicts: bool) -> tuple[str, ...]:
    notes = []
    if verdicts:
        notes.append(
            "No evidence of a difference is not evidence of none: the interval says how large it may be, for other "
            "seeds and the same test examples. Each interval stands for itself: of many, about one in "
            f"{round(1 / (1 - LEVEL))} misses the true difference by chance."
        )
    for cell in joined:
        if cell.repeats:
            seeds = "once" if cell.repeats == 1 else f"{cell.repeats} times"
            notes.append(
                f"{cell.model}, {cell.what}, {cell.how}: a seed came again {seeds}; only its first run counts."
            )
    if any(o.latency for cell in joined for o in cell.outcomes) and not all(
        timed_alike([c for c in joined if (c.model, c.data) == (cell.model, cell.data)]) for cell in joined
    ):
        notes.append("Times are not drawn: they were not all taken, or on different machines or in different ways.")
    if any("times were taken while" in note for card in cards for note in card.notes):
        notes.append("Some times were taken while other runs were at work on the same machine; they are rough.")
    return tuple(notes)


def _each(texts: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text for text in texts if text))
    more = len(found) - _MAX_LINES
    return found if more <= 0 else (*found[:_MAX_LINES], f"and {more} more, each with its run below")
