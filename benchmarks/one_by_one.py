"""Networks looked at one after another: a line each, a last line of JSON, and a file that is whole after every one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine_store import conditions
from secateur._atomic import write_atomic

Row = dict[str, Any]


def one_by_one(
    names: Sequence[str],
    look: Callable[[str], Row],
    told: Callable[[Row], str],
    summary: Callable[[list[Row]], dict[str, Any]],
    ours: str,
    reproduce: str,
    out: Path | None,
) -> None:
    """Look at all of them, with one thread.

    Args:
        look: gives the row of a network.
        told: a row in words.
        summary: of all rows so far.
        ours: what is done with each, for the protocol.
        reproduce: the command.
        out: where the JSON is stored.
    """
    now = conditions(1, 1, with_peer=False, reproduce=reproduce)
    now["protocol"]["ours"] = ours
    load = now["hardware"]["load_average"] = {"before": list(os.getloadavg())}
    rows: list[Row] = []
    for k, name in enumerate(names, 1):
        rows.append(row := look(name))
        print(f"[{k}/{len(names)}] {name}: {told(row)}", flush=True)
        load["after"] = list(os.getloadavg())
        if out is not None:
            write_atomic(out, json.dumps({**summary(rows), **now, "rows": rows}, indent=1) + "\n")
    print(json.dumps({**summary(rows), **now, "rows": rows}))
