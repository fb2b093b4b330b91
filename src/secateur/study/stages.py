"""A run as a chain of stages, each addressed by what determines its result.

dense (model, data, training, seed) -> cut (dense, method, budget ...) -> recovery (cut, how, seed). Runs that agree
on a stage share it: the address is the SHA-256 of everything that the result depends on, so equal stages are one
stage, in one study or in two. Where files lie, how many workers there are and how long it took are no part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
"""Part of every address: raised when the same settings come to mean something else."""

KINDS = ("dense", "cut", "recover")
_LONGEST_LABEL = 100


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text.

    Raises:
        ValueError: a number that is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Stage:
    """One piece of work whose result is a folder.

    Attributes:
        kind: one of :data:`KINDS`.
        settings: everything of this stage that its result depends on; plain JSON.
        needs: addresses of the stages whose results it reads.
        label: for people; it is no part of the address.
        where: paths and the like that say where to find things; no part of the address either.
        effort: expected length in arbitrary units that are the same for all stages (epochs), for the time left.
        address: SHA-256, 64 hexadecimal digits.
    """

    kind: str
    settings: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    label: str = ""
    where: Mapping[str, Any] = field(default_factory=dict, compare=False)
    effort: float = field(default=1.0, compare=False)
    address: str = field(init=False)

    def __post_init__(self) -> None:
        content = {"schema": SCHEMA, "kind": self.kind, "settings": self.settings, "needs": list(self.needs)}
        object.__setattr__(self, "address", hashlib.sha256(canonical(content).encode()).hexdigest())

    def __hash__(self) -> int:
        return hash(self.address)

    @property
    def folder(self) -> str:
        """Where the result goes, relative to the study's folder."""
        name = re.sub(r"[^A-Za-z0-9.=_-]+", "-", self.label).strip("-.")[:_LONGEST_LABEL] or self.kind
        if self.kind == "recover":
            return f"runs/{name}-{self.address[:8]}"
        return f"stages/{self.kind}-{name}-{self.address[:12]}"

    def as_dict(self) -> dict[str, Any]:
        """What ``stage.json`` in the result's folder says."""
        return {
            "schema": SCHEMA,
            "address": self.address,
            "kind": self.kind,
            "label": self.label,
            "settings": dict(self.settings),
            "needs": list(self.needs),
        }


@dataclass(frozen=True)
class StudyPlan:
    """All stages of a study, each once, those that are needed before those that need them.

    Attributes:
        stages: by address.
        runs: addresses of the last stage of every run, in the order of the recipe.
    """

    stages: dict[str, Stage]
    runs: tuple[str, ...]

    @classmethod
    def of(cls, chains: Iterable[Sequence[Stage]]) -> StudyPlan:
        """Join chains of stages; equal stages become one."""
        stages: dict[str, Stage] = {}
        runs: dict[str, None] = {}
        for chain in chains:
            for stage in chain:
                stages.setdefault(stage.address, stage)
            runs.setdefault(chain[-1].address)
        return cls(stages, tuple(runs))

    def counts(self) -> dict[str, int]:
        """How many stages there are of each kind."""
        return {kind: sum(s.kind == kind for s in self.stages.values()) for kind in KINDS}
