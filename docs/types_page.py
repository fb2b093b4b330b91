"""From the stored result of ``python -m benchmarks.engine --types`` to the page on the types of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo_page

RESULT = zoo_page.RESULTS / "hf-types-cpu.json"
PAGE = Path(__file__).with_name("types-of-transformers.md")


def page(result: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        result: what ``python -m benchmarks.engine --types --no-peer --out FILE`` stored.
    """
    rows, total = result["rows"], result["models"]
    lines = [
        "# Every type of transformers",
        "",
        f"Written by `make docs` from `benchmarks/results/{RESULT.name}`.",
        "",
        f"`AutoModel` of transformers makes {result['protocol']['types_known']} types of model. {total} of them come "
        "out of their default configuration made small, with nothing written by hand (`benchmarks/hf_types.py`); the "
        "others need numbers, inputs or packages of their own, and nothing is said of them here. Nothing was written "
        "by hand for Secateur either.",
        "",
        f"- **{result['exact']} of {total}** are cut exactly: the smaller network equals the masked one to 1e-9.",
        f"- {result['reached_half']} of these come down to half of the MACs. The others have little that is free: the "
        "output is the stream itself, as no head follows, and the patches of an image weigh the most in a small one.",
        *zoo_page.outcome(result),
        "",
        *zoo_page.measured(result),
        "",
    ]
    for title, some in (
        ("Not at half of the MACs", [r for r in rows if not r["reached_half"]]),
        ("At half of the MACs or less", [r for r in rows if r["reached_half"]]),
    ):
        lines += [f"## {title} ({len(some)})", "", *zoo_page.table_without_peer(some, "hf-type:"), ""]
    return "\n".join(lines[:-1]) + "\n"


def stored() -> dict[str, Any]:
    """The newest stored result."""
    return json.loads(RESULT.read_text(encoding="utf-8"))


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(stored()), encoding="utf-8")
