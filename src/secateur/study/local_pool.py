"""Jobs in processes of this machine: a fixed number of workers, each of which does one job after another."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from secateur.study.job import Event, Job

_WORKER = Path(__file__).with_name("worker.py")


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[str]
    job: Job | None = None
    listener: threading.Thread | None = None


class LocalPool:
    """Processes of this machine. They end with the process that started them, however it ends.

    Args:
        workers: how many.
        threads: of each.
        devices: identifiers of the GPUs; worker ``k`` sees only number ``k`` modulo their count. Empty for none.
    """

    def __init__(self, workers: int, threads: int = 1, devices: tuple[str, ...] = ()):
        self.capacity, self.threads, self.devices = workers, threads, devices
        self._news: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
        self._workers: list[_Worker | None] = [None] * workers

    def submit(self, job: Job) -> None:
        for place, worker in enumerate(self._workers):
            if worker is None or worker.job is None:
                if worker is None or worker.process.poll() is not None:
                    worker = self._workers[place] = self._start(place)
                worker.job = job
                assert worker.process.stdin is not None
                # A worker that has just died is reported as lost.
                with contextlib.suppress(OSError):
                    worker.process.stdin.write(json.dumps(job.as_dict()) + "\n")
                    worker.process.stdin.flush()
                return
        raise RuntimeError("all workers are busy")

    def poll(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                worker, line = self._news.get(timeout=0 if events else timeout)
            except queue.Empty:
                return events
            job = worker.job
            if job is None or worker not in self._workers:
                continue
            if line is None:
                self._workers[self._workers.index(worker)] = None
                events.append(Event(job.token, "lost", text=_cause(worker.process.wait())))
                _stop(worker)
                continue
            event = Event(**json.loads(line))
            if event.what != "progress":
                worker.job = None
            events.append(event)

    def cancel(self, token: str) -> None:
        for place, worker in enumerate(self._workers):
            if worker is not None and worker.job is not None and worker.job.token == token:
                self._workers[place] = None
                _stop(worker)

    def close(self) -> None:
        for place, worker in enumerate(self._workers):
            self._workers[place] = None
            if worker is not None:
                _stop(worker)

    def _start(self, place: int) -> _Worker:
        environment = {**os.environ, "SECATEUR_WORKER": str(place)}
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = str(self.threads)
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[place % len(self.devices)]
        # Isolated from the folder of the script (-P), or its neighbours would hide other packages.
        process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            # Ctrl-C is for the runner, which then says how to go on.
            start_new_session=True,
        )
        worker = _Worker(process)
        worker.listener = threading.Thread(target=self._listen, args=(worker,), daemon=True)
        worker.listener.start()
        return worker

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in worker.process.stdout:
                self._news.put((worker, line))
        self._news.put((worker, None))


def _stop(worker: _Worker) -> None:
    process = worker.process
    process.kill()
    process.wait()
    # A pipe must not be closed while somebody reads from it.
    if worker.listener is not None:
        worker.listener.join()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _cause(code: int) -> str:
    if code >= 0:
        return f"the worker process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (is there enough memory?)" if name == "SIGKILL" else ""
    return f"the worker process was ended by {name}{hint}"
