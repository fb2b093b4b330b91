"""From the stored result of ``python -m benchmarks.engine --libraries`` to the page on networks of other libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import zoo_page

RESULT = zoo_page.RESULTS / "libraries-cpu.json"
PAGE = Path(__file__).with_name("other-libraries.md")
PREFIX = "library:"


def page(result: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        result: what ``python -m benchmarks.engine --libraries --no-peer --out FILE`` stored.
    """
    rows, total = result["rows"], result["models"]
    by_package = {package: list(some) for package, some in groupby(rows, _package)}
    lines = [
        "# Networks of other libraries",
        "",
        f"Written by `make docs` from `benchmarks/results/{RESULT.name}`.",
        "",
        f"{total} networks of {len(by_package)} packages besides torchvision, timm and transformers, most of them "
        "small ones of their kind (`benchmarks/library_models.json` says how each is made). They were collected to "
        "find what Secateur could not do; what they showed is in `docs/LOG.md`. Nothing was written for one of them.",
        "",
        f"- **{result['exact']} of {total}** are cut exactly: the smaller network equals the masked one to 1e-9.",
        f"- {result['reached_half']} of these come down to half of the MACs.",
        *zoo_page.outcome(result),
        "",
        *zoo_page.measured(result),
        "",
    ]
    for package, some in by_package.items():
        exact = sum(row["ours_status"] == "exact" for row in some)
        lines += [f"## {package} ({exact} of {len(some)} exact)", ""]
        lines += [*zoo_page.table_without_peer(some, f"{PREFIX}{package}."), ""]
    return "\n".join(lines[:-1]) + "\n"


def _package(row: Mapping[str, Any]) -> str:
    return row["name"].removeprefix(PREFIX).partition(".")[0]


def stored() -> dict[str, Any]:
    """The newest stored result."""
    return json.loads(RESULT.read_text(encoding="utf-8"))


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(stored()), encoding="utf-8")
