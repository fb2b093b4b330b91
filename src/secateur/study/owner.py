"""Who works on a stage, and whether that process still lives."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other one that had or will have its number.

    Attributes:
        machine: the computer (and, in a container, which one) whose process numbers these are.
        pid: the number of the process.
        started: when the kernel started it, in its own units; empty where that cannot be read.
        mark: different for every owner, also within one process.
    """

    machine: str
    pid: int
    started: str
    mark: str

    @classmethod
    def this_process(cls) -> Owner:
        return cls(_machine(), os.getpid(), _start_time(os.getpid()) or "", uuid.uuid4().hex[:12])

    @classmethod
    def parse(cls, text: str) -> Owner:
        """The inverse of ``str(owner)``."""
        machine, pid, started, mark = text.split("|")
        return cls(machine, int(pid), started, mark)

    def __str__(self) -> str:
        return f"{self.machine}|{self.pid}|{self.started}|{self.mark}"

    def is_dead(self) -> bool:
        """Whether it has certainly ended. False also where that cannot be known, as on another machine."""
        if os.name != "posix" or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        # A zombie answers to its number until its parent asks after it.
        started = _start_time(self.pid)
        return _is_zombie(self.pid) or (started is not None and bool(self.started) and started != self.started)


def _machine() -> str:
    parts = [socket.gethostname().replace("|", "-")]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            parts.append(os.readlink(place) if place.endswith("/pid") else Path(place).read_text().strip())
    return "/".join(parts)


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat after the name of the command, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] == "Z"
