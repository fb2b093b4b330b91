"""From the events of the workers to the figures of the engine benchmark: pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]


def geomean(values: Iterable[float]) -> float | None:
    """The geometric mean of positive numbers; ``None`` of none."""
    logs = [math.log(v) for v in values]
    return math.exp(statistics.fmean(logs)) if logs else None


def _side(events: Sequence[Event], side: str) -> tuple[str | None, str | None, list[Event]]:
    """Status and error of one side, and its finished turns. The first turn that went wrong decides."""
    done = [e for e in events if e["event"] == f"{side}-done"]
    ends = [e for e in events if e["event"] in (f"{side}-hung", f"{side}-died")]
    for event in (*done, *ends):
        if event["event"] == f"{side}-hung":
            return "hung", f"no end after {event['bound_s']:g} s", done
        if event["event"] == f"{side}-died":
            return "crashed", f"the process ended with code {event['code']}: {event['last_words']}", done
        if event["status"] != "pruned":
            return event["status"], event.get("error"), done
    return ("pruned" if done else None), None, done


def _median(events: Sequence[Event], key: str) -> float | None:
    values = [e[key] for e in events if e.get(key) is not None]
    return statistics.median(values) if values else None


def model_row(name: str, events: Sequence[Event]) -> dict[str, Any]:
    """One row of the table.

    ``ours_status`` is ``exact``, ``wrong`` (the smaller network does not run, gives another shape, or is not the
    masked network), ``unchanged``, ``crashed`` or ``hung``. ``peer_status`` is ``pruned`` (runs, right shape, fewer
    MACs), ``unchanged``, ``wrong shape``, ``forward failed``, ``crashed``, ``hung`` or ``not run``.

    Seconds are medians. Ours scores nothing, so ``peer_s`` leaves out what the peer spent on its scores and
    ``peer_scored_s`` has it; ``*_cpu_s`` are processor seconds, which other work on the machine moves less. The ratios
    are how many times longer than ours the peer took; they stand only where both sides did the job.
    """
    status, error, turns = _side(events, "ours")
    peer_status, peer_error, peer_turns = _side(events, "peer")
    proofs = [e for e in events if e["event"] == "proof-done"]
    proof = proofs[-1] if proofs else None
    if status == "pruned":
        status = "exact" if proof is not None and proof["exact"] else "wrong"
        error = None if status == "exact" else (proof or {}).get("error") or "not equal to the masked network"
    elif status in ("wrong shape", "forward failed"):
        status = "wrong"
    if status is None:
        status, error, _ = _side(events, "worker")
    ours_s, scored_s = _median(turns, "seconds"), _median(peer_turns, "seconds")
    bare = [e["seconds"] - e["scoring"] for e in peer_turns if e.get("seconds") is not None]
    bare_cpu = [e["cpu"] - e["scoring_cpu"] for e in peer_turns if e.get("cpu") is not None]
    peer_s = statistics.median(bare) if bare else None
    ours_cpu_s, peer_cpu_s = _median(turns, "cpu"), statistics.median(bare_cpu) if bare_cpu else None
    both = status == "exact" and peer_status == "pruned"
    return {
        "name": name,
        "ours_s": ours_s,
        "peer_s": peer_s,
        "peer_scored_s": scored_s,
        "ratio": peer_s / ours_s if both and ours_s and peer_s else None,
        "ratio_scored": scored_s / ours_s if both and ours_s and scored_s else None,
        "ours_cpu_s": ours_cpu_s,
        "peer_cpu_s": peer_cpu_s,
        "ratio_cpu": peer_cpu_s / ours_cpu_s if both and ours_cpu_s and peer_cpu_s else None,
        "ours_status": status or "crashed",
        "ours_error": error,
        "ours_max_error": proof["max_error"] if proof else None,
        "ours_macs_ratio": _median(turns, "macs_ratio"),
        "ours_turns_s": [e["seconds"] for e in turns if "seconds" in e],
        "peer_status": peer_status or "not run",
        "peer_error": peer_error,
        "peer_macs_ratio": _median(peer_turns, "macs_ratio"),
        "peer_turns_s": bare,
        "load_average": next((e["load"] for e in reversed(events) if "load" in e), None),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All rows and what they come to. Speed-ups are over the models that both sides can do."""
    compared = [r for r in rows if r["ratio"] is not None]

    def count(status: str) -> int:
        return sum(r["ours_status"] == status for r in rows)

    return {
        "models": [dict(r) for r in rows],
        "geomean_speedup": geomean(r["ratio"] for r in compared),
        "geomean_speedup_scored": geomean(r["ratio_scored"] for r in compared),
        "geomean_speedup_cpu": geomean(r["ratio_cpu"] for r in compared if r["ratio_cpu"] is not None),
        "compared": len(compared),
        "slower_on": [r["name"] for r in compared if r["ratio"] < 1],
        "exact": count("exact"),
        "wrong": count("wrong"),
        "unchanged": count("unchanged"),
        "crashed": count("crashed"),
        "hung": count("hung"),
        "peer_pruned": sum(r["peer_status"] == "pruned" for r in rows),
    }
