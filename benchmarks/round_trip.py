"""Models of every type of transformers, cut with ``uniform=True``, written, and read back by plain transformers.

``python -m benchmarks.round_trip`` prints a line a type, and a last line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from benchmarks.engine_server import preload, watch
from benchmarks.hf_types import build_task, listed
from benchmarks.one_by_one import one_by_one
from benchmarks.zoo import select
from secateur import Budget, Plan, PruningGraph, cut, plan, score, trace, verify
from secateur._errors import BudgetError, InputError, SecateurError
from secateur.graph.luck import with_same_luck
from secateur.graph.trees import output_tensors

#: Shares of the MACs that are asked for, one after the other until one can be reached.
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.98)
#: Largest relative difference of two models of the same numbers in float32, which may use other kernels.
TOLERANCE = 1e-5


def _narrowest(graph: PruningGraph) -> tuple[Plan | None, str]:
    """The plan of the least share that widths alike can reach, and what hindered the first."""
    scores, hindered = score(graph, "l1"), ""
    for share in SHARES:
        try:
            return plan(graph, scores, Budget(macs=share), uniform=True), hindered
        except BudgetError as error:
            hindered = hindered or str(error)
    return None, hindered


def _difference(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """The largest difference of any number, relative to the largest of its tensor."""
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.numel():
            scale = float(a.double().abs().max())
            worst = max(worst, float((a.double() - b.double()).abs().max()) / (scale or 1.0))
    return worst


def _outputs(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return list(output_tensors(with_same_luck(model, (), inputs)))


def _work(name: str, channel: TextIO) -> None:
    """One type: what becomes of it is one line of JSON."""
    row: dict[str, Any] = {"name": name}

    def say(end: str, **more: Any) -> None:
        print(json.dumps({"event": "row", **row, "end": end, **more}), file=channel, flush=True)

    try:
        model, inputs = build_task(name.removeprefix("hf-type:"))
    except InputError:
        return say("no head")
    row["model"] = type(model).__name__
    graph = trace(model, inputs)
    start = time.perf_counter()
    made, hindered = _narrowest(graph)
    row["seconds"] = time.perf_counter() - start
    if made is None:
        return say("nothing said", why=hindered)
    row["macs"] = made.why["macs"] / made.why["dense_macs"]
    row["fields"], row["held"] = [str(field) for field in made.config], made.why["held"]
    proof = verify(model, made, inputs)
    row["error"] = proof.max_error
    if not proof.exact:
        return say("wrong")
    small: Any = cut(model, made)
    with tempfile.TemporaryDirectory() as folder:
        small.save_pretrained(folder)
        back: Any = type(small).from_pretrained(folder)
    row["difference"] = _difference(_outputs(small, inputs), _outputs(back.eval(), inputs))
    return say("read back" if row["difference"] <= TOLERANCE else "differs")


def _row(name: str) -> dict[str, Any]:
    events = watch(partial(_work, name))
    last = events[-1] if events else {"event": "worker-died", "last_words": "nothing"}
    if last["event"] == "row":
        return {key: value for key, value in last.items() if key != "event"}
    return {"name": name, "end": "hung" if "hung" in last["event"] else "crashed", "why": last.get("last_words")}


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """How many types ended how; those without a head are left out."""
    rows = [row for row in rows if row["end"] != "no head"]
    ends = Counter(row["end"] for row in rows)
    return {
        "models": len(rows),
        "read_back": ends["read back"],
        "reached_half": sum(row["end"] == "read back" and row["macs"] <= SHARES[0] for row in rows),
        "nothing_said": ends["nothing said"],
        "differs": ends["differs"],
        "wrong": ends["wrong"],
        "crashed": ends["crashed"],
        "hung": ends["hung"],
    }


def main(words: list[str] | None = None) -> int:
    """Run it; 0, or 2 where it could not start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.round_trip", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="types that match; repeatable")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the JSON here, after every type")
    asked = parser.parse_args(words)
    try:
        names = select([f"hf-type:{name}" for name in listed()], asked.only)
        preload(names, with_peer=False)
    except SecateurError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    one_by_one(
        names,
        _row,
        lambda row: row["end"] + (f" {row['macs']:.1%} of the MACs" if "macs" in row else ""),
        summary,
        ours=f"plan of uniform widths at the first of {SHARES} of the MACs that can be reached",
        reproduce="python -m benchmarks.round_trip",
        out=asked.out,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
