"""What a study says at its end: every run, means and spreads, verdicts, and what failed."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secateur._errors import FileError
from secateur.card import Card, is_fraction
from secateur.report.cells import Cell, cells
from secateur.report.reading import read_runs
from secateur.report.statistics import between_methods, comparisons, plus_minus, spread
from secateur.study.display import duration, stage_name
from secateur.study.runner import Status

if TYPE_CHECKING:
    from secateur.study.study import Finished


def results(status: Status, folder: Path) -> list[dict[str, Any]]:
    """One record per run: name, state, folder, seconds of its own last stage, error, and the figures of its card."""
    found = []
    for address in status.plan.runs:
        stage, row = status.plan.stages[address], status.rows[address]
        record: dict[str, Any] = {"run": stage.label, "state": row.state, "address": address}
        if row.state == "done":
            record |= {"folder": str(folder / stage.folder), "seconds": row.seconds, **_figures(folder / stage.folder)}
        elif row.error:
            record["error"] = row.error
        found.append(record)
    return found


def _figures(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / "card.json").read_bytes())
    except (OSError, ValueError):
        return {}
    after_cut = next((p.get("accuracy") for p in card["history"] if p.get("event") == "cut"), None)
    return {
        "macs": card["pruned"]["macs"] / max(card["dense"]["macs"], 1),
        "params": card["pruned"]["params"] / max(card["dense"]["params"], 1),
        "dense_accuracy": card["dense"].get("accuracy"),
        "cut_accuracy": after_cut,
        "accuracy": card["pruned"].get("accuracy"),
    }


def summary(console: Console, done: Finished) -> None:
    """The tables at the end."""
    status, folder = done.status, done.folder
    console.print(done.study.title, style="bold", markup=False, highlight=False)
    for note in done.study.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    told = _cards(status, folder)
    joined = cells([card for card, _ in told.values()])
    _every_run(console, joined, {id(card): seconds for card, seconds in told.values()})
    _together(console, joined)
    for address in status.plan.runs:
        if address not in told:
            said = status.rows[address].state if status.rows[address].state != "done" else "no readable card"
            console.print(f"{said}: {status.plan.stages[address].label}", markup=False, highlight=False)
    roots = {a: r for a, r in status.rows.items() if r.state == "failed" and r.blocked_by is None}
    for address, row in roots.items():
        console.print(
            f"\nfailed: {stage_name(status.plan.stages[address])}", style="red", highlight=False, markup=False
        )
        console.print(row.error or "", markup=False, highlight=False)
    console.print(
        f"\n{status.count('done')} of {len(status.plan.runs)} runs done, in {folder / 'runs'}",
        markup=False,
        highlight=False,
    )


def _cards(status: Status, folder: Path) -> dict[str, tuple[Card, float | None]]:
    """The cards of the runs that are done, by address, with the seconds of their own last stage."""
    found: dict[str, tuple[Card, float | None]] = {}
    for address in status.plan.runs:
        # A card that somebody broke is told about by the report; here it only leaves its run out.
        with contextlib.suppress(FileError):
            if status.rows[address].state == "done":
                (card,) = read_runs([folder / status.plan.stages[address].folder])
                found[address] = card, status.rows[address].seconds
    return found


def _every_run(console: Console, joined: Sequence[Cell], seconds: Mapping[int, float | None]) -> None:
    for subject, own in _by_subject(joined):
        _heading(console, f"{subject}: every run")
        table = _table("method and budget", "recovery", right=("seed", "MACs", "dense", "cut", "now", "time"))
        for cell, what in _once(own):
            for n, outcome in enumerate(cell.outcomes):
                card, quality = outcome.card, cell.quality
                cut = next((p.value(quality) for p in card.history if p.event == "cut"), None)
                # What a run was only compared with has no time of its own.
                alone = card.recovery is None or card.recovery.name == cell.recovery
                table.add_row(
                    Text("" if n else what),
                    Text("" if n else cell.how),
                    str(outcome.seed),
                    f"{100 * outcome.macs / max(card.dense.macs, 1):.1f}%",
                    *(_figure(quality, value) for value in (outcome.dense, cut, outcome.value)),
                    duration(seconds.get(id(card))) if alone else "-",
                )
        console.print(table)


def _together(console: Console, joined: Sequence[Cell]) -> None:
    """Mean and spread over the seeds, and what they allow to be said, where there is more than one run to compare."""
    pairs, rivals = comparisons(joined), between_methods(joined)
    if not pairs and all(len(cell.outcomes) == 1 for cell in joined):
        return
    said = "in per cent and points" if is_fraction(joined[0].quality) else "as it stands"
    for subject, own in _by_subject(joined):
        _heading(console, f"{subject}: mean ± sample standard deviation over n seeds, {said}")
        quality = own[0].quality.replace("_", " ")
        table = _table("method and budget", "recovery", right=("n", quality, "minus dense"))
        for cell, what in _once(own):
            mean, drop = plus_minus(spread(cell.values)), plus_minus(spread(cell.drops), sign=True)
            table.add_row(Text(what), Text(cell.how), str(len(cell.outcomes)), mean, drop)
        console.print(table)
    asked = itertools.groupby(pairs, key=lambda p: f"{p.first.model} on {p.first.data}, {p.first.what}")
    for what, questions in (*((w, tuple(q)) for w, q in asked), *rivals):
        console.print(f"\n{what}", style="bold", markup=False, highlight=False)
        for pair in questions:
            console.print(f"  {pair.verdict()}", markup=False, highlight=False)


def _heading(console: Console, text: str) -> None:
    console.print(f"\n{text}", style="italic", markup=False, highlight=False)


def _table(*left: str, right: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _by_subject(joined: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """The cells of each model and data set, with the words for both."""
    named = [(f"{cell.model} on {cell.data}", cell) for cell in joined]
    for subject in dict.fromkeys(name for name, _ in named):
        yield subject, [cell for name, cell in named if name == subject]


def _once(own: Sequence[Cell]) -> Iterator[tuple[Cell, str]]:
    """Each cell with its method and budget, where the line above does not say the same."""
    before = ""
    for cell in own:
        # A table breaks lines at protected spaces too.
        what = cell.what.replace("\u00a0%", "%")
        yield cell, "" if what == before else what
        before = what


def _figure(quality: str, value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}%" if is_fraction(quality) else f"{value:.4g}"
