"""A process for every model, forked from one that has the libraries loaded, and watched.

A crash or a hang costs one model. Importing torch, timm and transformers takes seconds, so the parent does it once;
it computes nothing itself, because threads that a library starts do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, TextIO

from secateur._errors import UsageError
from secateur._optional import require

#: Seconds for one attempt of either side, for the proof, and for everything else between two lines of a worker.
ATTEMPT_S = 60.0
PROOF_S = 600.0
OTHER_S = 300.0
BOUNDS: dict[str, float] = {"ours-start": ATTEMPT_S, "peer-start": ATTEMPT_S, "proof-start": PROOF_S}

Event = dict[str, Any]


def preload(names: Iterable[str], with_peer: bool) -> None:
    """Import what the models need.

    Raises:
        MissingExtra: transformers or Torch-Pruning is asked for and not installed.
        UsageError: this system cannot fork.
    """
    if not hasattr(os, "fork"):
        raise UsageError("the benchmark forks a process for every model; this system cannot (use Linux or macOS)")
    families = {name.partition(":")[0] for name in names}
    if with_peer:
        require("torch_pruning", "bench")
    if families & {"hf", "hf-published", "hf-type"}:
        require("transformers", "hf")
    for module in ("torchvision", "timm", "torch.utils.flop_counter"):
        importlib.import_module(module)


def _child(job: Callable[[TextIO], None], channel: int, errors: IO[bytes]) -> None:
    """Run the job and end the process; whatever it prints goes to ``errors``, not among the lines of JSON."""
    code = 1
    try:
        # What the parent loaded is left out of the garbage collection, which would touch and so copy its pages.
        gc.freeze()
        os.setsid()
        os.dup2(errors.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        with os.fdopen(channel, "w") as lines:
            job(lines)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def _how(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


def watch(job: Callable[[TextIO], None], bounds: Mapping[str, float] = BOUNDS, other: float = OTHER_S) -> list[Event]:
    """Run ``job(channel)`` in a process of its own and collect the events that it writes to the channel.

    An event is a line of JSON with a key ``event`` of the form ``side-state``; ``bounds`` says how many seconds may
    pass after it (``other`` after one that is not there). A process that is overdue is killed. One that did not end
    by itself gets a last event: ``side-hung`` or ``side-died``, where ``side`` is what it was doing.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(job, writer, errors)
        os.close(writer)
        status: int | None = None
        try:
            events, doing, overdue = _listen(reader, bounds, other)
            if not overdue:
                status = os.waitpid(pid, 0)[1]
        finally:
            os.close(reader)
            if status is None:
                _end(pid)
        if overdue:
            events.append({"event": f"{doing}-hung", "bound_s": overdue})
        elif status:
            events.append({"event": f"{doing}-died", "how": _how(status), "last_words": _last_words(errors)})
    return events


def _end(pid: int) -> None:
    """End a child with all that it started; it leads a session of its own unless it has only just begun."""
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _listen(reader: int, bounds: Mapping[str, float], other: float) -> tuple[list[Event], str, float]:
    """Events up to the end of the lines or of the patience; what it was doing; the bound that it overran, or 0."""
    events: list[Event] = []
    rest, doing, bound = b"", "worker", other
    deadline = time.monotonic() + bound
    while True:
        if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return events, doing, bound
        data = os.read(reader, 1 << 16)
        if not data:
            return events, doing, 0.0
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            events.append(event)
            side, _, state = event["event"].partition("-")
            if state in ("start", "check"):
                doing = side
            elif state == "done":
                doing = "worker"
            if state != "traced":
                bound = bounds.get(event["event"], other)
                deadline = time.monotonic() + bound
