"""The engine beside Torch-Pruning: ``python -m benchmarks.engine [--quick] [--repeats N] [--threads N] [--out FILE]``.

Every model runs in a process of its own, both sides in turn, so that a crash or a hang costs one row. The last line
of the output is a JSON object with everything that the table says; see README.md in this folder.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.engine_contestants import require_peer
from benchmarks.engine_models import MODELS, QUICK
from benchmarks.engine_summary import model_row, summary
from secateur._atomic import write_atomic
from secateur._errors import SecateurError, UsageError
from secateur.measure import hardware, versions

#: Seconds for one attempt of either side, and for everything else that a worker does between two lines.
ATTEMPT_S = 60.0
OTHER_S = 300.0


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no message"


def _watch(process: subprocess.Popen[str], errors: IO[bytes]) -> list[dict[str, Any]]:
    """Collect a worker's events; one that is overdue is killed, and the last event says what it was doing."""
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    events: list[dict[str, Any]] = []
    doing = ""
    while True:
        bound = ATTEMPT_S if doing in ("ours", "peer") else OTHER_S
        try:
            line = lines.get(timeout=bound)
        except queue.Empty:
            process.kill()
            process.wait()
            events.append({"event": f"{doing or 'worker'}-hung", "bound_s": bound})
            return events
        if line is None:
            if process.wait():
                events.append(
                    {
                        "event": f"{doing or 'worker'}-died",
                        "code": process.returncode,
                        "last_words": _last_words(errors),
                    }
                )
            return events
        event = json.loads(line)
        events.append(event)
        side, _, state = event["event"].partition("-")
        doing = side if state == "start" else ""


def run_model(name: str, repeats: int, threads: int) -> dict[str, Any]:
    """The row of one model. Where the peer takes the process down, ours runs again without it."""
    events: list[dict[str, Any]] = []
    for extra in ([], ["--no-peer"]):
        command = [sys.executable, "-m", "benchmarks.engine_worker", name]
        command += ["--repeats", str(repeats), "--threads", str(threads), *extra]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        root = Path(__file__).resolve().parents[1]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=root
            ) as process,
        ):
            try:
                found = _watch(process, errors)
            finally:
                process.kill()
        # A second run repeats all of ours, so that its turns stand under one set of conditions.
        events = [e for e in events if e["event"].startswith("peer")] + found
        if found[-1]["event"] not in ("peer-hung", "peer-died"):
            break
    return model_row(name, events)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _commit() -> str | None:
    """The commit that stands here, marked where files differ from it."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def show(console: Console, result: dict[str, Any]) -> None:
    """The table and the sentence under it."""
    table = Table(title="trace + plan + cut, median seconds")
    for head in ("model", "ours", "peer", "times", "ours is", "error", "MACs", "the peer is", "MACs"):
        table.add_column(head, justify="left" if head in ("model", "ours is", "the peer is") else "right")
    for r in result["models"]:
        table.add_row(
            r["name"],
            _seconds(r["ours_s"]),
            _seconds(r["peer_s"]),
            _number(r["ratio"], ".1f"),
            r["ours_status"],
            _number(r["ours_max_error"], ".0e"),
            _number(r["ours_macs_ratio"], ".2f"),
            r["peer_status"],
            _number(r["peer_macs_ratio"], ".2f"),
        )
    console.print(table)
    for r in result["models"]:
        for side in ("ours", "peer"):
            if r[f"{side}_error"]:
                console.print(f"{r['name']}, {side}: {r[f'{side}_error']}", style="dim", markup=False)
    total = len(result["models"])
    console.print(f"exact: {result['exact']} of {total}; the peer pruned {result['peer_pruned']} of {total}")
    if result["geomean_speedup"] is not None:
        console.print(
            f"over the {result['compared']} that both can do, the peer takes {result['geomean_speedup']:.2f} times as "
            "long (geometric mean, its scores left out; "
            f"{result['geomean_speedup_scored']:.2f} with them; "
            f"{result['geomean_speedup_cpu'] or 0:.2f} in processor time); "
            f"ours is slower on: {', '.join(result['slower_on']) or 'none'}"
        )


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description="the engine beside Torch-Pruning")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each side")
    parser.add_argument("--out", type=Path, help="also store the JSON here")
    asked = parser.parse_args(words)
    problems = []
    if asked.repeats < 1:
        problems.append(f"--repeats is {asked.repeats}; it takes 1 or more")
    if asked.threads < 1:
        problems.append(f"--threads is {asked.threads}; it takes 1 or more")
    if asked.out is not None and not asked.out.resolve().parent.is_dir():
        problems.append(f"--out {asked.out}: there is no folder {asked.out.parent}; create it first")
    if problems:
        raise UsageError("\n".join(problems))
    return asked


def main(words: list[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where it could not start."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        asked = _arguments(words)
        require_peer()
    except SecateurError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False)
        return 2
    torch.set_num_threads(asked.threads)
    load = {"before": list(os.getloadavg())}
    rows = []
    for name in QUICK if asked.quick else MODELS:
        row = run_model(name, asked.repeats, asked.threads)
        rows.append(row)
        console.print(
            f"{name}: ours {_seconds(row['ours_s'])} {row['ours_status']}, "
            f"peer {_seconds(row['peer_s'])} {row['peer_status']}",
            markup=False,
        )
    load["after"] = list(os.getloadavg())
    result = summary(rows)
    result["hardware"] = {**hardware(), "load_average": load}
    result["versions"] = {**versions(), "torch-pruning": importlib.metadata.version("torch-pruning")}
    result["protocol"] = {
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "repeats": asked.repeats,
        "threads": asked.threads,
        "bound_s": ATTEMPT_S,
        "input": [1, 3, 224, 224],
        "reproduce": f"python -m benchmarks.engine{' --quick' if asked.quick else ''} --repeats {asked.repeats} "
        f"--threads {asked.threads}",
    }
    show(console, result)
    if asked.out is not None:
        write_atomic(asked.out, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
