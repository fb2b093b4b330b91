"""Cards to the page: one HTML file that holds everything it needs and asks nobody for anything."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from secateur._atomic import write_atomic
from secateur._errors import FileError, UsageError
from secateur.card import Card, parse_card
from secateur.report import summary, table, units
from secateur.report.cells import spoken
from secateur.report.comparison import Overview, beside_sheet, overview, verdict_sheet
from secateur.report.drops import drop_cells, drop_sheet
from secateur.report.figure import Figure
from secateur.report.gates import gate_figures
from secateur.report.palette import colours
from secateur.report.reading import read_runs
from secateur.report.recovery import recovery_figure
from secateur.report.scores import score_figure
from secateur.report.search import search_figures
from secateur.report.statistics import Paired
from secateur.report.widths import width_figure

_UNFOLDED = 6
"""Up to so many runs are shown in full; of more, each is folded under its name."""


def render(cards: Sequence[Card | Mapping[str, Any]], *, title: str | None = None) -> str:
    """Draw cards as one self-contained HTML page.

    Args:
        cards: one or more, as ``Card`` or in the form that they have on disk.
        title: the page's heading; by default what was pruned and how.

    Returns:
        The page as text (about 5 MB, nearly all of it the chart library). It works without a network.

    Raises:
        UsageError: there is no card.
        FileError: a card is not valid.
    """
    if not cards:
        raise UsageError("a report needs at least one card\ngive the directory of a run: secateur report out/")
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    parsed = [card if isinstance(card, Card) else parse_card(card, f"card {n}") for n, card in enumerate(cards, 1)]
    chosen = colours([card.method for card in parsed] + [c.name for card in parsed for c in card.comparisons])
    together = overview(parsed, chosen)
    # Where runs differ in how they were recovered, the cells know in what.
    own = [(o.card, cell) for cell in (together.cells if together else ()) for o in cell.outcomes]
    how = {id(card): cell.how for card, cell in own if _recovery(card) == cell.recovery}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_text("page.html.j2"))
    return template.render(
        title=title or _title(parsed),
        overview=_overview(together),
        folded=len(parsed) > _UNFOLDED,
        runs=[_run(f"run{n}", card, chosen, how.get(id(card))) for n, card in enumerate(parsed, 1)],
        colours=chosen,
        style=Markup(_text("page.css")),
        script=Markup(_text("page.js")),
        plotly=Markup(get_plotlyjs()),
    )


def write_report(run_dirs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Read ``card.json`` of each run and write one page.

    Args:
        run_dirs: directories of runs, or of studies (all runs in their subdirectory ``runs``).
        out: the file to write; by default ``report.html`` in the first of them.

    Returns:
        The path of the page.

    Raises:
        UsageError: no directory was given.
        FileError: cards are missing or broken (all of them are listed), or the page cannot be written.
    """
    page = render(read_runs(run_dirs))
    target = Path(out) if out is not None else Path(run_dirs[0]) / "report.html"
    try:
        return write_atomic(target, page)
    except OSError as error:
        raise FileError(
            f"{target} cannot be written: {error.strerror or error}\nname another file with --out"
        ) from None


def _text(name: str) -> str:
    return resources.files("secateur.report").joinpath(name).read_text(encoding="utf-8")


def _title(cards: Sequence[Card]) -> str:
    if len(cards) == 1:
        return f"{cards[0].model} pruned with {cards[0].method}"
    models = list(dict.fromkeys(card.model for card in cards))
    return f"{len(cards)} runs on {', '.join(models[:3])}{' …' if len(models) > 3 else ''}"


def _recovery(card: Card) -> str:
    return card.recovery.name if card.recovery else "none"


def _run(key: str, card: Card, chosen: Mapping[str, str], how: str | None) -> dict[str, Any]:
    """Everything that the template shows of one card."""
    colour = chosen[card.method]
    figures = [make(card, colour) for make in (width_figure, score_figure, recovery_figure)]
    figures += [*search_figures(card, colour), *gate_figures(card, colour)]
    return {
        "key": key,
        "card": card,
        "colour": colour,
        "recovery": how or spoken(_recovery(card)),
        "headline": summary.headline(card),
        "tiles": summary.tiles(card),
        "exactness": summary.exactness_line(card),
        "warnings": summary.warnings(card),
        "table": table.table_cells(card),
        "sheet": table.table_sheet(card),
        "figures": [(figure, _script_safe(figure)) for figure in figures if figure],
        "budget": units.listed(card.budget) or "none",
        "hardware": units.listed(card.hardware),
        "versions": ", ".join(f"{name} {version}" for name, version in card.versions.items()),
    }


def _overview(found: Overview | None) -> dict[str, Any] | None:
    """Everything that the template shows of all runs together."""
    if found is None:
        return None
    return {
        "key": "comparison",
        "seeds": _seeds(found),
        "found": found,
        "questions": [(what, list(pairs)) for what, pairs in itertools.groupby(found.pairs, key=_setting)],
        "table": drop_cells(found.rows),
        "sheet": drop_sheet(found.rows),
        "verdicts": verdict_sheet(found.pairs),
        "rivals": verdict_sheet([pair for _, pairs in found.rivals for pair in pairs]),
        "published": beside_sheet(found.beside),
        "sets": [(title, [(figure, _script_safe(figure)) for figure in figures]) for title, figures in found.figures],
    }


def _setting(pair: Paired) -> str:
    return f"{pair.first.model} on {pair.first.data}, {pair.first.what}"


def _seeds(found: Overview) -> str:
    seeds = sorted({seed for cell in found.cells for seed in cell.seeds})
    return ", ".join(map(str, seeds[:12])) + (f" and {len(seeds) - 12} more" if len(seeds) > 12 else "")


def _script_safe(figure: Figure) -> Any:
    """The plot as JSON that cannot close the script element it stands in."""
    from markupsafe import Markup

    text = json.dumps(figure.plot, allow_nan=False)
    for character, code in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(character, code)
    return Markup(text)
