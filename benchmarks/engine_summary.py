"""From the events of the workers to the figures of the engine benchmark: pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.engine_contestants import BUDGET

Event = Mapping[str, Any]

#: What may become of ours; every row has exactly one.
STATUSES = ("exact", "wrong", "unchanged", "crashed", "hung")
#: A plan may miss half by what is lost in counting.
HALF = BUDGET * (1 + 1e-9)
#: Both sides did about the same job where neither leaves more of the multiply-accumulates than this.
ALIKE = 0.6


def geomean(values: Iterable[float]) -> float | None:
    """The geometric mean of positive numbers; ``None`` of none."""
    logs = [math.log(v) for v in values]
    return math.exp(statistics.fmean(logs)) if logs else None


def _side(events: Sequence[Event], *sides: str) -> tuple[str | None, str | None]:
    """Status and error of one side. The first thing that went wrong decides."""
    status = None
    for event in events:
        side, _, state = event["event"].partition("-")
        if side not in sides:
            continue
        if state == "hung":
            return "hung", f"no end after {event['bound_s']:g} s"
        if state == "died":
            return "crashed", f"the process ended ({event['how']}): {event['last_words']}"
        if state == "done":
            if event["status"] != "pruned":
                return event["status"], event.get("error")
            status = "pruned"
    return status, None


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _ours_status(events: Sequence[Event], proof: Event | None) -> tuple[str, str | None]:
    status, error = _side(events, "ours")
    if status == "pruned":
        if proof is not None and proof["exact"]:
            return "exact", None
        if proof is not None:
            return "wrong", proof.get("error") or "not equal to the masked network"
        # Nothing was found wrong, but nothing was proven either: the proof itself hung or died.
        status, error = _side(events, "proof", "worker")
        return status or "crashed", f"the proof: {error or 'did not run'}"
    if status in ("wrong shape", "wrong cost", "forward failed"):
        return "wrong", f"{status}: {error}"
    if status is None:
        status, error = _side(events, "build", "worker")
        return status or "crashed", f"the network itself: {error or 'no event'}"
    return status, error


def _ratio(peer: float | None, ours: float | None) -> float | None:
    return peer / ours if peer and ours else None


def model_row(name: str, events: Sequence[Event]) -> dict[str, Any]:
    """One row of the table.

    ``ours_status`` is ``exact``, ``wrong`` (the smaller network does not run, gives other shapes, does not have the
    parameters that were foretold, or is not the masked network), ``unchanged``, ``crashed`` or ``hung``.
    ``peer_status`` is ``pruned`` (runs, right shapes, smaller), ``unchanged``, ``wrong shape``, ``forward failed``,
    ``crashed``, ``hung`` or ``not run``.

    Seconds are medians of the whole job; ``*_unscored_s`` leave out what was spent on the scores, and ``*_cpu_s`` are
    processor seconds, which other work on the machine moves less. The ratios are how many times longer than ours the
    peer took; they stand only where both sides did the job.
    """
    turns = [e for e in events if e["event"] == "ours-done" and "seconds" in e]
    peer_turns = [e for e in events if e["event"] == "peer-done" and "seconds" in e]
    proof = next((e for e in reversed(events) if e["event"] == "proof-done"), None)
    restored = next((e for e in events if e["event"] == "restore-done"), None)
    status, error = _ours_status(events, proof)
    peer_status, peer_error = _side(events, "peer")
    first: Event = turns[0] if turns else {}
    row: dict[str, Any] = {
        "name": name,
        "ours_status": status,
        "ours_error": error,
        "traced": any(e["event"] == "ours-traced" for e in events),
        "ours_max_error": proof["max_error"] if proof else None,
        "restored": restored["restored"] if restored else None,
        "restore_error": restored["error"] if restored else None,
        "ours_macs_ratio": first.get("macs_ratio"),
        "ours_macs_foretold": first.get("macs_foretold"),
        "ours_params_ratio": first.get("params_ratio"),
        "reached_half": (first.get("macs_foretold") or math.inf) <= HALF,
        **{key: first.get(key) for key in ("groups", "units", "locked", "warnings")},
        "peer_status": peer_status or "not run",
        "peer_error": peer_error,
        "peer_macs_ratio": next((e["macs_ratio"] for e in peer_turns if "macs_ratio" in e), None),
        "peer_params_ratio": next((e["params_ratio"] for e in peer_turns if "params_ratio" in e), None),
    }
    for side, done in (("ours", turns), ("peer", peer_turns)):
        row[f"{side}_s"] = _median(e["seconds"] for e in done)
        row[f"{side}_unscored_s"] = _median(e["seconds"] - e["scoring"] for e in done)
        row[f"{side}_cpu_s"] = _median(e["cpu"] for e in done)
        row[f"{side}_turns_s"] = [e["seconds"] for e in done]
    names = turns[-1].get("stages", {}) if turns else {}
    row["ours_stages_s"] = {s: _median(e["stages"][s] for e in turns) for s in names}
    both = status == "exact" and peer_status == "pruned"
    for ratio, key in (("ratio", "s"), ("ratio_unscored", "unscored_s"), ("ratio_cpu", "cpu_s")):
        row[ratio] = _ratio(row[f"peer_{key}"], row[f"ours_{key}"]) if both else None
    for key, source in (("macs", "macs"), ("params", "params"), ("memory_mib", "memory_mib"), ("load_average", "load")):
        row[key] = next((e[source] for e in reversed(events) if source in e), None)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all rows come to, and the rows. Speed-ups are over the models that both sides can do."""
    compared = [r for r in rows if r["ratio"] is not None]
    alike = [r for r in compared if max(r["ours_macs_ratio"] or 0, r["peer_macs_ratio"] or 0) <= ALIKE]
    counts = {status: sum(r["ours_status"] == status for r in rows) for status in STATUSES}
    return {
        "models": len(rows),
        "traced": sum(r["traced"] for r in rows),
        **counts,
        "reached_half": sum(r["reached_half"] and r["ours_status"] == "exact" for r in rows),
        "restored": sum(bool(r["restored"]) for r in rows),
        "peer_pruned": sum(r["peer_status"] == "pruned" for r in rows),
        "compared": len(compared),
        "geomean_speedup": geomean(r["ratio"] for r in compared),
        "geomean_speedup_unscored": geomean(r["ratio_unscored"] for r in compared if r["ratio_unscored"]),
        "geomean_speedup_cpu": geomean(r["ratio_cpu"] for r in compared if r["ratio_cpu"]),
        "alike": len(alike),
        "geomean_speedup_alike": geomean(r["ratio"] for r in alike),
        "slower_on": [r["name"] for r in compared if r["ratio"] < 1],
        "rows": [dict(r) for r in rows],
    }
