"""Write the pages that follow from the registries and from stored results: `make docs`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import libraries_page
import rethinking_page
import round_trip_page
import types_page
import widths_page
import zoo_page

from secateur import data, models
from secateur.budget.presets import PRESETS
from secateur.methods import REGISTRY, Method
from secateur.scores import CRITERIA
from secateur.training import RECOVERIES

HERE = Path(__file__).parent


def rows(pairs: list[tuple[str, str]]) -> str:
    lines = ["| name | |", "| --- | --- |", *(f"| `{name}` | {text} |" for name, text in pairs)]
    return "\n".join(lines)


def options(cls: type[Method]) -> str:
    """The options of a method with their defaults."""
    found = [f"`{f.name}={f.default}`" for f in dataclasses.fields(cls)]
    return f"; options {', '.join(found)}" if found else ""


def main() -> None:
    sections = {
        "Methods": [(name, cls.summary + options(cls)) for name, cls in REGISTRY.items()],
        "Criteria": [(c.name, c.summary + ("; needs data" if c.needs_data else "")) for c in CRITERIA.values()],
        "Recoveries": list(RECOVERIES.items()),
        "Presets": [(name, f"for `{p.model}`") for name, p in PRESETS.items()],
        "Models": [(e.name, e.description) for e in (*models.names(), *models.sources())],
        "Data": [(e.name, e.description) for e in (*data.names(), *data.sources())],
    }
    text = "# Names\n\nWritten by `make docs` from the registries.\n"
    for title, pairs in sections.items():
        text += f"\n## {title}\n\n{rows(pairs)}\n"
    (HERE / "names.md").write_text(text, encoding="utf-8")
    libraries_page.write()
    rethinking_page.write()
    round_trip_page.write()
    types_page.write()
    widths_page.write()
    zoo_page.PAGE.write_text(zoo_page.page(*zoo_page.stored()), encoding="utf-8")


if __name__ == "__main__":
    main()
