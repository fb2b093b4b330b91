"""Jobs as tasks of a Ray cluster. All machines have to see the study's folder under the same path.

Only the runner opens the store; tasks read and write folders. Ray starts a task again when its process or its machine
is lost, and the training in it goes on from its last checkpoint, which lies in the study's folder.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur._errors import UsageError
from secateur._optional import require
from secateur.study.job import Event, Job

_RETRIES = 5


def _perform(job: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """What runs on the cluster; returns the last event of the job."""
    sys.path[:] = [*paths, *(p for p in sys.path if p not in paths)]
    from secateur.study.worker import output_to, perform

    if not Path(job["result"]).parent.is_dir():
        text = f"this machine does not see {Path(job['result']).parent}: a study on a cluster needs a shared folder"
        return {"token": job["token"], "what": "failed", "text": text}
    if Path(job["cwd"]).is_dir():
        os.chdir(job["cwd"])
    # An attempt whose machine is lost may leave files behind, or even be alive somewhere.
    job = {**job, "result": f"{job['result']}.{uuid.uuid4().hex[:8]}"}
    last: dict[str, Any] = {}

    def keep(event: dict[str, Any]) -> None:
        if event["what"] != "progress":
            last.update(event)

    with output_to(job["log"]):
        perform(job, keep)
    return last


def _knock(address: str | None) -> None:
    """Ray itself asks for minutes before it gives up."""
    host, sign, port = (address or "").removeprefix("ray://").rpartition(":")
    if sign and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


class RayPool:
    """Tasks on a Ray cluster.

    Args:
        address: of a running cluster; ``None`` takes RAY_ADDRESS, or starts Ray on this machine alone.
        threads: CPUs of each task.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: there is no cluster at that address.
    """

    def __init__(self, address: str | None = None, threads: int = 1):
        ray = require("ray", "cluster")
        self.threads = threads
        self._ray = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            address = address or os.environ.get("RAY_ADDRESS")
            try:
                _knock(address)
                ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
            except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                raise UsageError(f"there is no Ray cluster at {address or 'this machine'}: {error}") from None
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        remote: Callable[..., Any] = ray.remote(
            num_cpus=threads, num_gpus=gpus, max_retries=_RETRIES, retry_exceptions=False, max_calls=1 if gpus else 0
        )
        self._gpus = gpus
        self._task: Any = remote(_perform)
        self._running: dict[Any, str] = {}

    @property
    def capacity(self) -> int:
        found = self._ray.cluster_resources()
        slots = found.get("GPU", 0) if self._gpus else found.get("CPU", 0) / self.threads
        # While machines come and go there may be none for a moment.
        return max(1, int(slots))

    def submit(self, job: Job) -> None:
        self._running[self._task.remote(job.as_dict(), [p for p in sys.path if p])] = job.token

    def poll(self, timeout: float) -> list[Event]:
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        events = []
        for reference in ready:
            token = self._running.pop(reference)
            try:
                events.append(Event(**self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                events.append(Event(token, "lost", text=str(error).strip() or type(error).__name__))
        return events

    def cancel(self, token: str) -> None:
        for reference in [r for r, t in self._running.items() if t == token]:
            del self._running[reference]
            self._ray.cancel(reference, force=True)

    def close(self) -> None:
        for token in list(self._running.values()):
            self.cancel(token)
        if self._mine:
            self._ray.shutdown()
