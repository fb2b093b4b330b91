"""Stages that take no time worth speaking of: what the runner does with them is what is tested.

Imported by workers, so it imports nothing of the package.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def execute(job: dict[str, Any], progress: Callable[[float, str], None]) -> None:
    """Count to ``steps`` with a checkpoint after each, then leave what was read and a number."""
    settings, where = job["settings"], job["where"]
    note(where, "start", job)
    if settings.get("fail") and not Path(where["mended"]).exists():
        raise ValueError(f"stage {job['label']} went wrong on purpose")
    if settings.get("die") and deaths(where) < settings["die"]:
        note(where, "die", job)
        os.kill(os.getpid(), signal.SIGKILL)
    checkpoint = Path(job["work"]) / "step"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(first, settings["steps"]):
        time.sleep(where["seconds"])
        note(where, f"step{step}", job)
        temporary = checkpoint.with_name(f"step.{os.getpid()}")
        temporary.write_text(str(step + 1))
        os.replace(temporary, checkpoint)
        progress((step + 1) / settings["steps"], f"step {step + 1}")
    read = {kind: json.loads((Path(folder) / "result.json").read_text()) for kind, folder in job["needs"].items()}
    value = {"settings": settings, "read": read, "steps": int(checkpoint.read_text())}
    (Path(job["result"]) / "result.json").write_text(json.dumps(value, sort_keys=True))


def note(where: dict[str, Any], what: str, job: dict[str, Any]) -> None:
    """One line to the journal; short lines are appended as a whole."""
    line = json.dumps({"what": what, "label": job["label"], "time": time.time(), "pid": os.getpid()}) + "\n"
    descriptor = os.open(where["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def deaths(where: dict[str, Any]) -> int:
    """How often a worker died so far."""
    return sum('"die"' in line for line in Path(where["journal"]).read_text().splitlines())
