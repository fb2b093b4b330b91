"""The bar with the time left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A context in which a run of several epochs shows one bar on standard error; silent unless that is a terminal.

    Args:
        wanted: ``False`` keeps silent in any case.
        epochs: of the whole run.
        done: epochs that an earlier, resumed run has behind it.
        loader: its length, where it has one, makes the time left known.
    """

    def __init__(self, wanted: bool, epochs: int, done: int, loader: Iterable[Any]):
        console = Console(stderr=True)
        self._epochs = epochs
        self._bar: Bar | None = None
        if wanted and console.is_terminal:
            batches = len(loader) if hasattr(loader, "__len__") else None  # pyright: ignore[reportArgumentType]
            left = TimeRemainingColumn()
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left)
            self._bar = Bar(*columns, console=console, transient=True)
            total = None if batches is None else epochs * batches
            self._task = self._bar.add_task("training", total=total, completed=done * (batches or 0))

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, epoch: int, losses: Sequence[float]) -> None:
        """One more batch; ``losses`` are those of this epoch that are known so far."""
        if self._bar is not None:
            text = f"epoch {epoch + 1}/{self._epochs}" + (f"  loss {losses[-1]:.3f}" if losses else "")
            self._bar.update(self._task, advance=1, description=text)
