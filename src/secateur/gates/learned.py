"""Gates that were learned, as a file: one serves any number of budgets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur._errors import FileError

KIND, SCHEMA = "secateur gates", 1
#: Far less than any difference of gates that means something, far more than the rounding of a score.
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class LearnedGates:
    """The gate of every unit, by group.

    Attributes:
        values: in [0, 1], shape ``[width]``.
        unclipped: the same after the last step of the optimiser and before it was clipped to [0, 1].
        facts: how they were learned, in JSON's kinds.
    """

    values: Mapping[str, Tensor]
    unclipped: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def widths(self) -> dict[str, int]:
        """Number of units of each group."""
        return {name: len(values) for name, values in self.values.items()}

    def scores(self, seed: int) -> dict[str, Tensor]:
        """One score per unit, no two of them equal: the gate, and far below it what settles ties.

        Many gates are exactly 0 or exactly 1. Of equal gates the one that was larger before it was clipped is worth
        more; what is still equal is put in an order drawn from ``seed``.

        Returns:
            float64, shape ``[width]``, by group.
        """
        if not self.values:
            return {}
        gates, before = (torch.cat(list(t.values())).double() for t in (self.values, self.unclipped))
        order = torch.randperm(len(gates), generator=torch.Generator().manual_seed(seed))
        for key in (before, gates):
            order = order[torch.sort(key[order], stable=True).indices]
        place = torch.empty(len(order), dtype=torch.float64)
        place[order] = torch.arange(len(order), dtype=torch.float64)
        scores = gates + _TIE * place / len(order)
        return dict(zip(self.values, scores.split(list(self.widths.values()))))

    def with_facts(self, **facts: Any) -> LearnedGates:
        """The same gates with more said of how they were learned."""
        return replace(self, facts={**self.facts, **facts})

    def to_json(self) -> str:
        """The file's text."""
        numbers = {
            part: {n: [float(v) for v in t] for n, t in kept.items()}
            for part, kept in (("gates", self.values), ("unclipped", self.unclipped))
        }
        return json.dumps({"kind": KIND, "schema": SCHEMA, **numbers, "facts": dict(self.facts)}, indent=1)

    @classmethod
    def read(cls, path: str | Path) -> LearnedGates:
        """Read what :meth:`to_json` wrote.

        Raises:
            FileError: the file cannot be read, is cut short, or holds something else.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FileError(
                f"the gates {path} cannot be read: {reason}\n"
                "secateur prune MODEL --method pruning-from-scratch --out DIR writes DIR/gates.json"
            ) from error
        try:
            data = json.loads(text)
            if data["kind"] != KIND or data["schema"] != SCHEMA:
                raise ValueError(f"it is {data['kind']!r} of schema {data['schema']}")
            values, unclipped = (
                {n: torch.tensor(v, dtype=torch.float32) for n, v in data[part].items()}
                for part in ("gates", "unclipped")
            )
            shapes = [{n: tuple(t.shape) for n, t in part.items()} for part in (values, unclipped)]
            if shapes[0] != shapes[1] or any(len(s) != 1 for s in shapes[0].values()):
                raise ValueError("gates and their values before clipping do not fit together")
            if not all(bool(((t >= 0) & (t <= 1)).all()) for t in values.values()):
                raise ValueError("gates have to lie in [0, 1]")
            if not all(bool(t.isfinite().all()) for t in unclipped.values()):
                raise ValueError("values before clipping have to be finite")
            return cls(values, unclipped, dict(data["facts"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(
                f"{path} is cut short or is no file of gates: {error}\nlearn them again, or name another file"
            ) from error
