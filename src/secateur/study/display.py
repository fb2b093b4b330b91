"""How a study stands, live on a terminal, and as a table at the end."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from secateur._errors import FileError
from secateur.card import Card, is_fraction
from secateur.report.cells import cells
from secateur.report.reading import read_runs
from secateur.report.statistics import comparisons, plus_minus, spread
from secateur.study.runner import Status
from secateur.study.stages import Stage

if TYPE_CHECKING:
    from secateur.study.study import Finished

_MOST_LINES = 12


class Display:
    """A context in which a study is shown: a live picture on a terminal, elsewhere a line for every stage that ends.

    Args:
        console: where to.
    """

    def __init__(self, console: Console):
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._told: dict[str, str] | None = None

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, status: Status) -> None:
        """Show it."""
        # Not by the store's order, and without what only waited for something that failed.
        states = {a: status.rows[a].state for a in status.plan.stages if status.rows[a].blocked_by is None}
        if self._told is not None:
            for address, state in states.items():
                if state != self._told.get(address) and state in ("done", "failed"):
                    self._console.print(_line(status, address), highlight=False)
        self._told = states
        if self._live is not None:
            self._live.update(_picture(status), refresh=True)


def duration(seconds: float | None) -> str:
    """``3 s``, ``12 min``, ``2 h 05 min``."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _name(stage: Stage) -> str:
    return {"dense": "train", "cut": "cut", "recover": "recover"}[stage.kind] + f" {stage.label}"


def _line(status: Status, address: str) -> Text:
    stage, row = status.plan.stages[address], status.rows[address]
    share = f"[{status.count('done')}/{len(status.plan.runs)} runs, {duration(status.seconds_left)} left] "
    if row.state == "done":
        return Text(f"{share}{_name(stage)}: {duration(row.seconds)}")
    return Text(f"{share}{_name(stage)}: FAILED: {_first_line(row.error)}", style="red")


def _picture(status: Status) -> Group:
    done, failed, total = status.count("done"), status.count("failed"), len(status.plan.runs)
    words = f"{done} of {total} runs" + (f", {failed} failed" if failed else "")
    words += f", {duration(status.seconds_left)} left"
    table = Table.grid(padding=(0, 1))
    running = [s for a, s in status.plan.stages.items() if status.rows[a].state == "running"]
    for stage in running[:_MOST_LINES]:
        share, text = status.progress.get(stage.address, (0.0, "another runner"))
        table.add_row(Text(_name(stage)), ProgressBar(total=1, completed=share, width=20), Text(text))
    if len(running) > _MOST_LINES:
        table.add_row(Text(f"and {len(running) - _MOST_LINES} more"), "", "")
    return Group(Text(words, style="bold"), ProgressBar(total=max(total, 1), completed=done, width=60), table)


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


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
    """The table at the end."""
    status, folder = done.status, done.folder
    console.print(done.study.title, style="italic", markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    for name in ("MACs left", "dense", "after the cut", "recovered", "time"):
        table.add_column(name, justify="right")
    for record in results(status, folder):
        name = Text(record["run"])
        if record["state"] == "done":
            cells = [_per_cent(record.get(k)) for k in ("macs", "dense_accuracy", "cut_accuracy", "accuracy")]
            table.add_row(name, *cells, duration(record["seconds"]))
        else:
            table.add_row(name, record["state"])
    console.print(table)
    _together(console, status, folder)
    roots = {a: r for a, r in status.rows.items() if r.state == "failed" and r.blocked_by is None}
    for address, row in roots.items():
        console.print(f"\nfailed: {_name(status.plan.stages[address])}", style="red", highlight=False, markup=False)
        console.print(row.error or "", markup=False, highlight=False)
    for note in done.study.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    console.print(
        f"{status.count('done')} of {len(status.plan.runs)} runs done, in {folder / 'runs'}",
        markup=False,
        highlight=False,
    )


def _together(console: Console, status: Status, folder: Path) -> None:
    """Mean and spread over the seeds, and what they allow to be said, where there is more than one run to compare."""
    cards: list[Card] = []
    for address in status.plan.runs:
        # A card that somebody broke is told about by the report; here it only leaves its run out.
        with contextlib.suppress(FileError):
            if status.rows[address].state == "done":
                cards += read_runs([folder / status.plan.stages[address].folder])
    joined = cells(cards)
    pairs = comparisons(joined)
    if not pairs and all(len(cell.outcomes) == 1 for cell in joined):
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model and data", "method and budget", "recovery"):
        table.add_column(name, overflow="fold")
    for name in ("n", joined[0].quality.replace("_", " "), "difference to dense"):
        table.add_column(name, justify="right")
    for cell in joined:
        table.add_row(
            Text(f"{cell.model} on {cell.data}"),
            Text(cell.what),
            Text(cell.how),
            str(len(cell.outcomes)),
            plus_minus(spread(cell.values)),
            plus_minus(spread(cell.drops), sign=True),
        )
    said = "in per cent and points" if is_fraction(joined[0].quality) else "as it stands"
    console.print(f"\nmean ± sample standard deviation over n seeds, {said}", style="italic", highlight=False)
    console.print(table)
    for what, questions in itertools.groupby(pairs, key=lambda p: f"{p.first.model} on {p.first.data}, {p.first.what}"):
        console.print(f"\n{what}", style="bold", markup=False, highlight=False)
        for pair in questions:
            console.print(f"  {pair.verdict()}", markup=False, highlight=False)
    if pairs:
        console.print()


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
