"""A study's folder as one small file of results: ``python -m benchmarks.study_results STUDY --recipe F --out FILE``.

The file holds every run, mean and sample deviation over the seeds, the paired differences with their verdicts, and the
published rows beside them; hardware and versions come from the cards. Weights, plans and pages stay where they are.
The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur._atomic import write_atomic
from secateur.report import units
from secateur.report.cells import Cell, cells, scale
from secateur.report.comparison import published
from secateur.report.reading import read_runs
from secateur.report.statistics import Paired, Spread, between_methods, comparisons, spread


def collected(study: Path, machines: bool = False, **more: Any) -> dict[str, Any]:
    """The results of a study whose runs are done.

    Args:
        study: its folder.
        machines: the runs may come from more than one machine, which the result then says.
        more: what the folder does not say: ``recipe``, ``commit``, ``title`` …

    Raises:
        FileError: cards are missing or broken.
        ValueError: the runs come from more than one kind of machine or version.
    """
    folders = sorted(path.parent for path in study.glob("runs/*/card.json"))
    cards = [read_runs([folder])[0] for folder in folders]
    seconds = {id(card): _seconds(folder) for card, folder in zip(cards, folders, strict=True)}
    joined = cells(cards)
    return {
        **more,
        "hardware": _only("hardware", [card.hardware for card in cards], machines),
        "versions": _only("versions", [dict(card.versions) for card in cards]),
        "runs": [_run(cell, number, seconds) for cell in joined for number in range(len(cell.outcomes))],
        "cells": [_cell(cell) for cell in joined],
        "recoveries": [_paired(pair, pair.first.what) for pair in comparisons(joined)],
        "methods": [_paired(pair, shared) for shared, pairs in between_methods(joined) for pair in pairs],
        "published": [
            {
                "method": b.cell.method,
                "budget": _plain(b.cell.budget),
                "figures": [[_plain(text) for text in line] for line in b.figures],
                "unpruned there": _plain(b.row.figures["dense"].text()),
                "remains there": _plain(b.row.remains),
                "source": b.row.source,
                "differences": [_plain(text) for text in b.differences],
            }
            for b in published(joined)
        ],
    }


def _run(cell: Cell, number: int, seconds: Mapping[int, float | None]) -> dict[str, Any]:
    outcome = cell.outcomes[number]
    card = outcome.card
    cut = next((p.value(cell.quality) for p in card.history if p.event == "cut"), None)
    return {
        **_named(cell),
        "seed": outcome.seed,
        "epochs": outcome.epochs,
        "macs": outcome.macs,
        "dense macs": card.dense.macs,
        "params": card.pruned.params,
        "dense params": card.dense.params,
        "max error": card.exactness.max_error,
        "exact": card.exactness.exact,
        f"{cell.quality}, dense": outcome.dense,
        f"{cell.quality}, cut": cut,
        cell.quality: outcome.value,
        "seconds": seconds[id(card)],
        "created": card.created,
    }


def _named(cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "data": cell.data,
        "method": cell.method,
        "budget": _plain(cell.budget),
        "detail": cell.detail,
        "recovery": cell.how,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        **_named(cell),
        "quality": cell.quality,
        "value": _spread(spread(cell.values)),
        "minus dense": _spread(spread(cell.drops)),
        "dense": _spread(spread([v - d for v, d in zip(cell.values, cell.drops, strict=True)])),
        "cut": _spread(spread(_cuts(cell))),
        "macs left": [round(o.macs / o.card.dense.macs, 4) for o in cell.outcomes],
        "epochs": [o.epochs for o in cell.outcomes],
    }


def _cuts(cell: Cell) -> list[float]:
    found = [next((p.value(cell.quality) for p in o.card.history if p.event == "cut"), None) for o in cell.outcomes]
    return [scale(cell.quality) * v for v in found if v is not None]


def _spread(found: Spread | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"mean": round(found.mean, 6), "std": None if found.std is None else round(found.std, 6), "n": found.n}


def _paired(pair: Paired, about: str) -> dict[str, Any]:
    found = pair.interval
    bounds = None if found is None else [round(v, 6) for v in (found.mean, found.low, found.high)]
    first, second = pair.names
    return {
        "about": _plain(about),
        "first": first,
        "minus": second,
        "seeds": list(pair.seeds),
        "differences": [round(d, 6) for d in pair.differences],
        "mean, low, high": bounds,
        "finding": pair.finding,
        "verdict": _plain(pair.verdict()),
    }


def _plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def _seconds(folder: Path) -> float | None:
    try:
        return json.loads((folder / "stage.json").read_bytes()).get("seconds")
    except (OSError, ValueError):
        return None


def _only(what: str, values: Sequence[Any], several: bool = False) -> Any:
    texts = list(dict.fromkeys(units.listed(value) if isinstance(value, Mapping) else str(value) for value in values))
    if len(texts) > 1 and several:
        return "; or ".join(texts)
    if len(texts) > 1:
        raise ValueError(f"the runs differ in their {what}: " + "; ".join(texts))
    return values[0] if values else None


def main(words: list[str] | None = None) -> int:
    """Read a study and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_results", description="a study as one file")
    parser.add_argument("study", type=Path, help="the folder that `secateur run` wrote")
    parser.add_argument("--recipe", required=True, help="the study file, as the reproduce line names it")
    parser.add_argument("--commit", required=True, help="of the code that ran")
    parser.add_argument("--note", action="append", default=[], help="what to know; repeatable")
    parser.add_argument("--machines", action="store_true", help="let the runs come from several machines, and say so")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the JSON goes")
    asked = parser.parse_args(words)
    line = f"secateur run {asked.recipe} --workers 1"
    found = collected(
        asked.study, asked.machines, recipe=asked.recipe, reproduce=line, commit=asked.commit, notes=asked.note
    )
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(asked.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps({"runs": len(found["runs"]), "cells": len(found["cells"]), "out": str(asked.out)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
