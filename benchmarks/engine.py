"""The engine beside Torch-Pruning: ``python -m benchmarks.engine [--quick | --published | --types | --libraries]
[--only PATTERN] [--out FILE [--resume]]``.

Every model runs in a process of its own, both sides in turn, so that a crash or a hang costs one row. The last line
of the output is a JSON object with everything that the table says; see README.md in this folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import hf_types
from benchmarks.engine_server import Event, preload, watch
from benchmarks.engine_store import conditions, load_rows, store
from benchmarks.engine_summary import model_row, summary
from benchmarks.engine_table import line, show
from benchmarks.engine_worker import work
from benchmarks.library_models import package_versions
from benchmarks.zoo import QUICK, libraries, names, published, select, types
from secateur._errors import SecateurError, UsageError

#: What there is besides the zoo.
SELECTIONS = {"published": published, "types": types, "libraries": libraries}


def run_model(name: str, repeats: int, threads: int, with_peer: bool) -> dict[str, Any]:
    """The row of one model. Where one side takes the process down, the other runs again alone."""
    sides: tuple[str, ...] = ("ours", "peer") if with_peer else ("ours",)
    events = watch(partial(work, name, repeats, threads, sides))
    broken = _broken(events)
    if broken and with_peer:
        # The whole second run stands for the other side, so that its turns were made under one set of conditions.
        other = "ours" if broken == "peer" else "peer"
        again = watch(partial(work, name, repeats, threads, (other,)))
        events = [e for e in events if e["event"].startswith(f"{broken}-")] + again
    return model_row(name, events)


def _broken(events: Sequence[Event]) -> str:
    """The side that the process went down with, if it was one of them."""
    side, _, state = events[-1]["event"].partition("-") if events else ("", "", "")
    return side if side in ("ours", "peer") and state in ("hung", "died") else ""


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description="the engine beside Torch-Pruning")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--published", action="store_true", help="transformers in published sizes instead of the zoo")
    parser.add_argument("--types", action="store_true", help="every type of transformers that a small one builds")
    parser.add_argument("--libraries", action="store_true", help="networks of other libraries, as far as installed")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="models that match; repeatable")
    parser.add_argument("--no-peer", action="store_true", help="run Secateur alone")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each side (default 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="store the JSON here, after every model")
    parser.add_argument("--resume", action="store_true", help="do not run again what FILE has already")
    asked = parser.parse_args(words)
    problems = []
    if asked.repeats < 1:
        problems.append(f"--repeats is {asked.repeats}; it takes 1 or more")
    selections = [f"--{name}" for name in ("quick", *SELECTIONS) if getattr(asked, name)]
    if len(selections) > 1:
        problems.append(f"{' and '.join(selections)} are {len(selections)} selections; give one")
    if asked.threads < 1:
        problems.append(f"--threads is {asked.threads}; it takes 1 or more")
    if asked.out is not None and not asked.out.resolve().parent.is_dir():
        problems.append(f"--out {asked.out}: there is no folder {asked.out.parent}; create it first")
    if asked.resume and asked.out is None:
        problems.append("--resume takes up the file of --out; name it with --out FILE")
    if problems:
        raise UsageError("\n".join(problems))
    return asked


def _reproduce(asked: argparse.Namespace) -> str:
    words = ["python", "-m", "benchmarks.engine", *(["--quick"] if asked.quick else [])]
    words += [f"--{name}" for name in SELECTIONS if getattr(asked, name)]
    for pattern in asked.only:
        words += ["--only", shlex.quote(pattern)]
    words += ["--no-peer"] if asked.no_peer else []
    return " ".join([*words, "--repeats", str(asked.repeats), "--threads", str(asked.threads)])


def main(words: list[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where it could not start."""
    console = Console(width=None if sys.stdout.isatty() else 150, emoji=False)
    try:
        asked = _arguments(words)
        zoo = next((known() for name, known in SELECTIONS.items() if getattr(asked, name)), None) or names()
        todo = select(list(QUICK) if asked.quick else zoo, asked.only)
        now = conditions(asked.repeats, asked.threads, not asked.no_peer, _reproduce(asked))
        if asked.types:
            now["protocol"]["types_known"] = len(hf_types.known())
        if asked.libraries:
            now["versions"].update(package_versions())
        done = load_rows(asked.out, now) if asked.resume else {}
        todo = [name for name in todo if name not in done]
        preload(todo, not asked.no_peer)
    except SecateurError as error:
        Console(stderr=True, emoji=False).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    load = {"before": list(os.getloadavg())}
    now["hardware"]["load_average"] = load
    result = {**summary(list(done.values())), **now}
    for k, name in enumerate(todo, 1):
        done[name] = run_model(name, asked.repeats, asked.threads, not asked.no_peer)
        console.print(f"[{k}/{len(todo)}] {line(done[name])}", markup=False, highlight=False)
        load["after"] = list(os.getloadavg())
        rows = [done[n] for n in [*(n for n in zoo if n in done), *(n for n in done if n not in zoo)]]
        result = store(asked.out, rows, now) if asked.out is not None else {**summary(rows), **now}
    show(console, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
