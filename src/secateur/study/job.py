"""What passes between the runner and whoever does the work, here or on another machine: plain JSON in, events out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from secateur.study.stages import Stage


@dataclass(frozen=True)
class Job:
    """One attempt at a stage.

    Attributes:
        token: of the claim.
        kind, settings, where, label: of the stage.
        needs: finished folders of the stages that it needs, by kind.
        result: folder for the result, which exists and is empty.
        work: folder for checkpoints; it may hold those of an earlier attempt, and is the same for all attempts.
        busy: how many stages may run beside this one on the same machine; times measured meanwhile are rough.
        threads: how many the work may use.
        cwd: the folder that relative paths in the settings start from.
        executor: ``module:function`` or ``file.py:function`` that does the work.
        log: the file that everything printed meanwhile goes to.
    """

    token: str
    kind: str
    settings: Mapping[str, Any]
    where: Mapping[str, Any]
    label: str
    needs: Mapping[str, str]
    result: str
    work: str
    busy: int
    threads: int
    cwd: str
    executor: str
    log: str

    @classmethod
    def of(cls, stage: Stage, **rest: Any) -> Job:
        return cls(kind=stage.kind, settings=dict(stage.settings), where=dict(stage.where), label=stage.label, **rest)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Progress = Callable[[float, str], None]
"""Called with the share of the work that is done, in [0, 1], and what is going on, for instance ``epoch 3/12``."""


class Executor(Protocol):
    """Does the work of a stage: fills the folder ``result``, keeps what it resumes from in the folder ``work``.

    Args:
        job: as :meth:`Job.as_dict` gives it.
    """

    def __call__(self, job: dict[str, Any], progress: Progress) -> None: ...


@dataclass(frozen=True)
class Event:
    """News of a job.

    Attributes:
        token: which one.
        what: ``progress``, ``finished``, ``failed`` (an error) or ``lost`` (the process or the machine is gone).
        seconds: how long the work took, once it is finished.
        share: how much of the work is done, in [0, 1].
        text: what is going on, or what went wrong.
        result: the folder with the result, once it is finished.
    """

    token: str
    what: str
    seconds: float = 0.0
    share: float = 0.0
    text: str = ""
    result: str = ""


class Pool(Protocol):
    """Where jobs run."""

    @property
    def capacity(self) -> int:
        """How many jobs can run at the same time, now."""
        ...

    @property
    def threads(self) -> int:
        """How many threads each may use."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a job; the call returns at once."""
        ...

    def poll(self, timeout: float) -> list[Event]:
        """What happened since the last call; waits up to ``timeout`` seconds for something."""
        ...

    def cancel(self, token: str) -> None:
        """Stop a job that is for nothing; no events of it follow."""
        ...

    def close(self) -> None:
        """Stop everything at once."""
        ...
