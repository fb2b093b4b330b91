"""The result file of the engine benchmark: written whole after every model, and taken up again by ``--resume``."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine_contestants import BUDGET, PEER_RATIO
from benchmarks.engine_server import ATTEMPT_S, PROOF_S
from benchmarks.engine_summary import summary
from secateur._atomic import write_atomic
from secateur._errors import FileError
from secateur.measure import hardware, versions

#: Rises when rows of two versions of this benchmark cannot stand in one table.
SCHEMA = 2
ROOT = Path(__file__).resolve().parents[1]
#: The code that decides what a row says.
CODE = ("src/secateur/graph", "src/secateur/surgery", "src/secateur/scores", "src/secateur/budget", "benchmarks")


def _digest() -> str:
    """A hash of the code that decides what a row says."""
    digest = hashlib.sha256()
    for folder in CODE:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _commit() -> str | None:
    """The commit that stands here, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def conditions(repeats: int, threads: int, with_peer: bool, reproduce: str) -> dict[str, Any]:
    """What a result is measured on and how: ``hardware``, ``versions``, ``protocol``."""
    found = {**versions()}
    for package in ("transformers", "torch-pruning"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return {
        "hardware": {**hardware(), "threads": threads},
        "versions": found,
        "protocol": {
            "schema": SCHEMA,
            "code": _digest(),
            "repeats": repeats,
            "threads": threads,
            "peer": with_peer,
            "ours": f"trace + l1 scores + plan at macs={BUDGET} (or the least that is possible) + cut",
            "theirs": f"MagnitudePruner, L1 importance, pruning_ratio={PEER_RATIO}, not global; constructor + step",
            "bound_s": ATTEMPT_S,
            "proof_bound_s": PROOF_S,
            "commit": _commit(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "reproduce": reproduce,
        },
    }


#: Parts of the protocol that may differ between the runs whose rows stand together.
_FREE = ("commit", "date", "reproduce")


def load_rows(path: Path, now: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of an earlier run by name; none if the file does not exist.

    Args:
        now: the :func:`conditions` of this run, which must be those of the file.

    Raises:
        FileError: not a result of this benchmark, or one under other conditions (all that differ are named).
    """
    if not path.exists():
        return {}
    way_out = "give --out another file, or leave --resume out to start this one anew"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        schema = stored["protocol"].get("schema")
        if schema != SCHEMA:
            raise FileError(f"{path} has schema {schema}, this version of the benchmark writes {SCHEMA}\n{way_out}")
        rows = {row["name"]: row for row in stored["rows"]}
        summary(list(rows.values()))
        pairs = [("hardware cpu", stored["hardware"]["cpu"], now["hardware"]["cpu"])]
        for part in ("versions", "protocol"):
            keys = [k for k in {**stored[part], **now[part]} if k not in _FREE]
            pairs += [(f"{part} {k}", stored[part].get(k), now[part].get(k)) for k in keys]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise FileError(f"{path} is not a result of this benchmark ({what})\n{way_out}") from error
    differ = [f"- {what}: {old!r} there, {new!r} now" for what, old, new in pairs if old != new]
    if differ:
        raise FileError("\n".join([f"{path} was measured under other conditions:", *differ, way_out]))
    return rows


def store(path: Path, rows: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> dict[str, Any]:
    """Write the result whole, in one step; returns it."""
    result = {**summary(rows), **now}
    write_atomic(path, json.dumps(result, indent=1) + "\n")
    return result
