"""Widths as a file: what a search for widths gives, and from which a fresh network is built.

A file of widths stands where the name of a preset can stand: ``preset="out/widths.json"``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur._errors import FileError, UsageError
from secateur.graph import PruningGraph
from secateur.surgery import Plan

KIND, SCHEMA = "secateur widths", 1
_WAY = (
    "take the widths.json of a run: secateur prune MODEL --method pruning-from-scratch --out DIR writes DIR/widths.json"
)


@dataclass(frozen=True)
class Configuration:
    """The width of every group.

    Attributes:
        widths: what it should be.
        of: what it was in the network that the widths were chosen in; more than the network at hand has where that
            one was expanded before.
        macs, params: what a network of these widths costs.
    """

    widths: Mapping[str, int]
    of: Mapping[str, int]
    macs: int
    params: int

    def expansion(self, graph: PruningGraph) -> dict[str, int]:
        """The groups that have to be wider than they are before these widths can be cut out of them."""
        have = graph.widths
        return {name: width for name, width in self.of.items() if width > have.get(name, width)}

    def for_graph(self, graph: PruningGraph, name: str) -> dict[str, int]:
        """The widths, for a graph that has these groups.

        Args:
            name: of the file, for the message.

        Raises:
            UsageError: the graph is of another architecture.
        """
        have = graph.widths
        problems = [f"- {g} of the file is no group here" for g in self.widths if g not in have]
        problems += [f"- {g} is not in the file" for g in have if g not in self.widths]
        problems += [
            f"- {g} has {have[g]} units where the file was made for {self.of[g]}"
            for g in self.widths
            if g in have and have[g] != self.of[g]
        ]
        if problems:
            more = [f"and {len(problems) - 5} more"] if len(problems) > 5 else []
            title = f"the widths of {name} are for another network than this:"
            raise UsageError("\n".join([title, *problems[:5], *more, f"name the model that they are for, or {_WAY}"]))
        return dict(self.widths)


def write_widths(graph: PruningGraph, plan: Plan) -> str:
    """The text of the file that says a plan's widths."""
    cost = graph.cost(plan.widths)
    data = {
        "kind": KIND,
        "schema": SCHEMA,
        "widths": plan.widths,
        "of": graph.widths,
        "macs": cost.macs,
        "params": cost.params,
        "budget": plan.why.get("budget"),
        "base": {"macs": plan.why.get("dense_macs"), "params": plan.why.get("dense_params")},
    }
    return json.dumps(data, indent=1) + "\n"


def is_widths(preset: str) -> bool:
    """Whether what stands for a preset is a file of widths."""
    return preset.endswith(".json")


def read_widths(path: str | Path) -> Configuration:
    """Read what :func:`write_widths` wrote.

    Raises:
        FileError: the file cannot be read, is cut short, or holds something else.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["kind"] != KIND or data["schema"] != SCHEMA:
            raise ValueError(f"it is {data['kind']!r} of schema {data['schema']}")
        widths, of = ({str(n): w for n, w in data[part].items()} for part in ("widths", "of"))
        if set(widths) != set(of):
            raise ValueError("its two lists of groups differ")
        wrong = [n for n, w in widths.items() if type(w) is not int or type(of[n]) is not int or not 1 <= w <= of[n]]
        if wrong:
            raise ValueError(f"{wrong[0]} should have {widths[wrong[0]]!r} of {of[wrong[0]]!r} units")
        return Configuration(widths, of, int(data["macs"]), int(data["params"]))
    except OSError as error:
        raise FileError(f"the widths {path} cannot be read: {error.strerror or error}\n{_WAY}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is cut short or is no file of widths: {error}\n{_WAY}") from error
