"""How a study stands, live on a terminal, elsewhere a line for every stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from secateur.study.runner import Status
from secateur.study.stages import Stage

if TYPE_CHECKING:
    pass

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


def stage_name(stage: Stage) -> str:
    return {"dense": "train", "cut": "cut", "recover": "recover"}[stage.kind] + f" {stage.label}"


def _line(status: Status, address: str) -> Text:
    stage, row = status.plan.stages[address], status.rows[address]
    share = f"[{status.count('done')}/{len(status.plan.runs)} runs, {duration(status.seconds_left)} left] "
    if row.state == "done":
        return Text(f"{share}{stage_name(stage)}: {duration(row.seconds)}")
    return Text(f"{share}{stage_name(stage)}: FAILED: {_first_line(row.error)}", style="red")


def _picture(status: Status) -> Group:
    done, failed, total = status.count("done"), status.count("failed"), len(status.plan.runs)
    words = f"{done} of {total} runs" + (f", {failed} failed" if failed else "")
    words += f", {duration(status.seconds_left)} left"
    table = Table.grid(padding=(0, 1))
    running = [s for a, s in status.plan.stages.items() if status.rows[a].state == "running"]
    for stage in running[:_MOST_LINES]:
        share, text = status.progress.get(stage.address, (0.0, "another runner"))
        table.add_row(Text(stage_name(stage)), ProgressBar(total=1, completed=share, width=20), Text(text))
    if len(running) > _MOST_LINES:
        table.add_row(Text(f"and {len(running) - _MOST_LINES} more"), "", "")
    return Group(Text(words, style="bold"), ProgressBar(total=max(total, 1), completed=done, width=60), table)


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]
