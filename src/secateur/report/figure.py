"""What a chart file hands to the page: the drawing, and the data behind it as a sheet."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Cell = str | int | float | None


@dataclass(frozen=True)
class Sheet:
    """The data of a figure or table: column names with units, and rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def csv(self) -> str:
        """Comma-separated values after RFC 4180; an absent value is empty."""
        out = io.StringIO(newline="")
        writer = csv.writer(out)
        writer.writerow(self.columns)
        writer.writerows([[_harmless(cell) for cell in row] for row in self.rows])
        return out.getvalue()

    def data_uri(self) -> str:
        """The CSV as a link target that needs no network."""
        return "data:text/csv;charset=utf-8," + quote(self.csv(), safe="")


@dataclass(frozen=True)
class Figure:
    """One chart on the page.

    Attributes:
        name: short, for the id and the name of the download.
        title: the heading.
        key: how to read it, one line under the heading.
        alt: what the chart shows, in words, for whoever cannot see it.
        plot: the plotly figure as plain data (``data``, ``layout``); its texts are already escaped.
        sheet: the data behind it.
        height: pixels.
    """

    name: str
    title: str
    key: str
    alt: str
    plot: dict[str, Any]
    sheet: Sheet
    height: int


def _harmless(cell: Cell) -> Cell:
    # A spreadsheet runs a text that starts like a formula, and a card may come from a stranger.
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
