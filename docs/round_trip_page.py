"""From the stored result of ``python -m benchmarks.round_trip`` to the page on what plain transformers reads back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zoo_page

RESULT = zoo_page.RESULTS / "round-trip-cpu.json"
PAGE = Path(__file__).with_name("read-back-by-transformers.md")

#: What the reasons say, and what the table calls them.
_REASONS = (
    ("no field of", "no field"),
    ("no fields of", "no field"),
    ("computes something else", "a field means more"),
    ("only against", "against another"),
    ("single step", "one step"),
)


def _kind(reason: str) -> str:
    return next((name for words, name in _REASONS if words in reason), "another shape")


def _held(row: Mapping[str, Any]) -> str:
    kinds = Counter(map(_kind, row["held"].values()))
    return ", ".join(f"{name} {count}" for name, count in kinds.most_common())


def page(result: Mapping[str, Any]) -> str:
    """The page as Markdown.

    Args:
        result: what ``python -m benchmarks.round_trip --out FILE`` stored.
    """
    rows = [row for row in result["rows"] if row["end"] != "no head"]
    said = [row for row in rows if "macs" in row]
    silent = [row for row in rows if row["end"] == "nothing said"]
    lines = [
        "# What plain transformers reads back",
        "",
        f"Written by `make docs` from `benchmarks/results/{RESULT.name}`.",
        "",
        "`sc.plan(..., uniform=True)` keeps to widths that the configuration of a Hugging Face model can say: the cut "
        "model is written by `save_pretrained` and read by `from_pretrained` of plain transformers, without Secateur. "
        "Tried on the types of [types-of-transformers.md](types-of-transformers.md) that have a model with a head "
        f"which runs on the same inputs, {result['models']} of them; nothing is written by hand for a type. Half of "
        "the MACs was asked for, or the first of 60, 70, 80, 90 and 98 % that can be reached.",
        "",
        f"- **{result['read_back']} of {result['models']}** are read back and compute the same, "
        f"{result['reached_half']} of these at half of the MACs.",
        f"- Of {result['nothing_said']} the configuration says so little that not even 98 % can be reached.",
        f"- Computing something else: {result['differs']}. Cut wrongly: {result['wrong']}. Crashed: "
        f"{result['crashed']}. Over the time bound: {result['hung']}.",
        "",
        *zoo_page.measured(result),
        "",
        "A width is held back where *no field* says it alone, where *a field means more* than a width (the root of "
        "`hidden_size` scales an embedding, a number of heads gives the slopes of a bias), or where it goes only "
        "*against another*. `sc.save` and `sc.load` know no such limits.",
        "",
        f"## Read back ({result['read_back']})",
        "",
        "| type | model | MACs left | difference | fields | held back |",
        "| --- | --- | --: | --: | --- | --- |",
    ]
    for row in sorted(said, key=lambda row: (row["macs"] > 0.5, row["name"])):
        fields = ", ".join(f"`{field}`" for field in row["fields"])
        end = f"{row['difference']:.0e}" if row["end"] == "read back" else f"**{row['end']}**"
        cells = (f"`{row['name'].removeprefix('hf-type:')}`", f"`{row['model']}`", f"{row['macs']:.0%}", end)
        lines.append(f"| {' | '.join((*cells, fields, _held(row)))} |")
    lines += ["", f"## Not even 98 % ({len(silent)})", ""]
    lines += [f"- `{row['name'].removeprefix('hf-type:')}` (`{row['model']}`)" for row in silent]
    return "\n".join(lines) + "\n"


def stored() -> dict[str, Any]:
    """The newest stored result."""
    return json.loads(RESULT.read_text(encoding="utf-8"))


def write() -> None:
    """Write the page anew."""
    PAGE.write_text(page(stored()), encoding="utf-8")
