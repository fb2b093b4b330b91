"""A process that does one job after another: jobs come as lines of JSON, events go back as lines of JSON.

It is started by its path, not as a module, and imports nothing of the package before the first job: so it is there in
an instant, and a mistake in the package is an error of the job instead of a dead worker.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def perform(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> None:
    """Do a job; every outcome is an event, no exception leaves."""
    began = time.monotonic()
    token = job["token"]

    def progress(share: float, text: str) -> None:
        emit({"token": token, "what": "progress", "share": share, "text": text})

    try:
        for folder in (job["result"], job["work"]):
            Path(folder).mkdir(parents=True, exist_ok=True)
        _find(job["executor"])(job, progress)
    except Exception as error:
        emit({"token": token, "what": "failed", "text": _explain(error)})
    else:
        seconds = time.monotonic() - began
        emit({"token": token, "what": "finished", "seconds": seconds, "result": job["result"]})


def _find(name: str) -> Callable[..., None]:
    module, _, attribute = name.rpartition(":")
    if module.endswith(".py"):
        from secateur._user_code import user_function

        return user_function(name)
    return getattr(importlib.import_module(module), attribute)


def _explain(error: Exception) -> str:
    """An error that Secateur raises on purpose says all there is to say; of others the place matters."""
    # Not imported: an error of that kind can only come from where it was.
    known = getattr(sys.modules.get("secateur._errors"), "SecateurError", ())
    if isinstance(error, known):
        return str(error)
    trace = "".join(traceback.format_exception(error)[-6:])
    return f"{type(error).__name__}: {error}\n{trace}".strip()


@contextlib.contextmanager
def output_to(path: str) -> Any:
    """Everything that the process prints goes to the end of that file, also from code that is not Python."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(1), os.dup(2)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in enumerate(kept, 1):
            os.dup2(old, number)
            os.close(old)
        os.close(file)
        with contextlib.suppress(OSError):
            if not os.path.getsize(path):
                os.unlink(path)


def _read(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The runner is gone, however it went: whoever comes next takes the work up, so nobody else may go on with it.
    os._exit(0)


def main() -> None:
    """Work until standard input ends."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    # What is printed must not come between the events.
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: dict[str, Any]) -> None:
        with lock:
            events.write(json.dumps(event) + "\n")

    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        os.chdir(job["cwd"])
        with output_to(job["log"]):
            perform(job, emit)


if __name__ == "__main__":
    main()
