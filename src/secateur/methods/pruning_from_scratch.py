"""Pruning from scratch.

Paper: Wang, Zhang, Xie, Zhou, Su, Zhang, Hu, "Pruning from Scratch", AAAI 2020, arXiv 1909.12579.
Idea: nothing has to be trained before it is pruned: which widths are good shows in a network of random weights.
Here: one scalar gate per channel, behind its norm and before the activation, is learned on the frozen random network
under ``cross-entropy + penalty * (mean |gate| - target)^2``, by Adam, and clipped to [0, 1] after every step. One
threshold over all gates, found by bisection on the exact cost, gives the widths; the weights are thrown away, and a
network of these widths is trained from new ones (``recover="scratch-b"``; ``"scratch-e"`` for equal epochs).
Differs: the threshold never leaves more than the budget, where the paper stops within 0.1 % of it, and no group falls
below its floor, where the published code could empty one. Equal gates are ranked by their values before clipping, then
by chance from the seed. A tenth of every class is held out to choose the epoch by, where the paper takes the last
5,000 images. Any network can be widened before (``expand``); budgets are shares of the network as it was given.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from secateur._errors import FileError, UnknownName, UsageError
from secateur.budget import Goal, nothing_to_cut, threshold, write_widths
from secateur.gates import PLACES, LearnedGates
from secateur.graph import Group, PruningGraph
from secateur.methods.gate_learning import GateLearning
from secateur.methods.pfs_settings import SETTINGS, Setting
from secateur.methods.protocol import Evidence, Law, Method
from secateur.scores import Scores
from secateur.surgery import Plan
from secateur.surgery.plan import fingerprint

WEIGHTS = {"random": "drawn anew in a copy", "given": "as they come"}


@dataclass(frozen=True)
class PruningFromScratch(Method):
    """Find widths by gates on a frozen random network.

    Args:
        setting: a network of the paper, for all options below that are not given: see :data:`SETTINGS`.
        gated: names or patterns of the groups that get gates, with commas between; the others stay whole.
        place: where the gates sit, one of :data:`secateur.gates.PLACES`.
        penalty: the paper's gamma: 0.5 on CIFAR-10, 0.05 on ImageNet.
        target: the paper's r, the mean that gates are pulled to: 0.2 on CIFAR-10, 0.5 on ImageNet. The epoch whose
            gates are taken is the best of those in which at most this share of the gates is not zero.
        epochs: of gate learning: 10 on CIFAR-10, 1 on ImageNet.
        lr: Adam's, constant.
        held_out: share of the training data to choose the epoch by.
        expand: how many times as wide the gated groups are while gates are learned, from 1 on.
        expand_rest: the same for groups without gates: the paper's output multiplier of the mobile networks.
        gates: a file of gates that were learned before (``gates.json`` of a run); nothing is learned then.
        weights: ``random`` draws new ones in a copy before the gates are learned; ``given`` takes them as they come.

    Raises:
        UsageError: numbers out of range or unknown words, all of them at once.
    """

    setting: str | None = None
    gated: str | None = None
    place: str | None = None
    penalty: float | None = None
    target: float | None = None
    epochs: int | None = None
    lr: float = 0.01
    held_out: float = 0.1
    expand: float | None = None
    expand_rest: float | None = None
    gates: str | None = None
    weights: str = "random"

    name: ClassVar[str] = "pruning-from-scratch"
    summary: ClassVar[str] = "learns gates on a frozen random network; they only say how wide it should be (Wang 2020)"
    ranking: ClassVar[str] = "raw"
    trains: ClassVar[bool] = True
    starts_untrained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.setting is not None and self.setting not in SETTINGS:
            raise UnknownName("setting of pruning-from-scratch", self.setting, SETTINGS)
        chosen = self.chosen
        problems = []
        for name, known in (("place", PLACES), ("weights", WEIGHTS)):
            value = chosen.place if name == "place" else self.weights
            if value not in known:
                problems.append(f"{name}={value!r} is not known; choose from {', '.join(known)}")
        if chosen.penalty < 0:
            problems.append(f"penalty={chosen.penalty:g} has to be 0 or more")
        if not 0 <= chosen.target <= 1:
            problems.append(f"target={chosen.target:g} is a mean of gates, from 0 to 1")
        if chosen.epochs < 1:
            problems.append(f"epochs={chosen.epochs} has to be 1 or more")
        if not self.lr > 0:
            problems.append(f"lr={self.lr:g} has to be above 0")
        if not 0 <= self.held_out < 1:
            problems.append(f"held_out={self.held_out:g} is a share of the training data, from 0 to below 1")
        for name in ("expand", "expand_rest"):
            if not 1 <= getattr(chosen, name) <= 16:
                problems.append(f"{name}={getattr(chosen, name):g} has to be from 1 to 16")
        if problems:
            raise UsageError("\n".join(["these options of pruning-from-scratch do not work:", *problems]))
        if self.gates is not None:
            # Of the instance only: with a file there is nothing to train.
            object.__setattr__(self, "trains", False)

    @property
    def chosen(self) -> Setting:
        """The setting with what was given in its place."""
        base = SETTINGS[self.setting] if self.setting is not None else Setting("any model")
        given = {f.name: getattr(self, f.name, None) for f in dataclasses.fields(Setting)}
        if self.gated is not None:
            given["gated"] = tuple(part.strip() for part in self.gated.split(",") if part.strip())
        return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})

    @property
    def redraws(self) -> bool:
        return self.weights == "random"

    def schedule(self) -> Mapping[str, Any]:
        return {
            "epochs": self.chosen.epochs,
            "optimiser": "adam",
            "lr": self.lr,
            "schedule": "constant",
            "weight_decay": 0.0,
            "warmup_epochs": 0,
            "label_smoothing": 0.0,
            "clip_grad_norm": None,
        }

    def widened(self, graph: PruningGraph) -> Mapping[str, int]:
        if self.gates is not None:
            had = LearnedGates.read(self.gates).facts.get("widened", {})
            return {name: width for name, width in had.items() if name in graph.widths}
        chosen, gated = self.chosen, {g.name for g in self.gated_groups(graph)}
        wider = {
            # Decimal factors: without the nudge 40 * 1.1 could truncate to 43.
            g.name: int(g.width * (chosen.expand if g.name in gated else chosen.expand_rest) + 1e-9)
            for g in graph.prunable
            if g.kind == "channel"
        }
        return {name: width for name, width in wider.items() if width > graph.widths[name]}

    def gated_groups(self, graph: PruningGraph) -> list[Group]:
        """The groups that get gates.

        Raises:
            UsageError: nothing of the network can be cut.
            UnknownName: a pattern fits none of its groups.
        """
        patterns, found = self.chosen.gated, []
        if not graph.prunable:
            raise UsageError(nothing_to_cut(graph, set()))
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(g.name, pattern) for g in graph.prunable):
                fits = f"the setting {self.setting!r} is for {self.chosen.model}" if self.setting else ""
                raise UnknownName("group to gate", pattern, [g.name for g in graph.prunable], hint=fits)
        for group in graph.prunable:
            if any(fnmatch.fnmatchcase(group.name, pattern) for pattern in patterns):
                found.append(group)
        return found

    def feasible(self, graph: PruningGraph, goal: Goal) -> None:
        if self.spend(graph, goal, Evidence()) is None:
            goal.widths(graph, self.ranking)

    def law(self, graph: PruningGraph, widths: Mapping[str, int]) -> Law:
        chosen = self.chosen
        groups = self.gated_groups(graph)
        return GateLearning(graph, groups, chosen.place, chosen.penalty, chosen.target, self.held_out)

    def law_towards(self, graph: PruningGraph, goal: Goal, epochs: int) -> Law:
        return self.law(graph, {})

    def learned(self, graph: PruningGraph, evidence: Evidence) -> LearnedGates | None:
        """The gates of this run or of the file that was named, if there are any yet.

        Raises:
            FileError: the file cannot be read, or is of another network.
        """
        if isinstance(evidence.law, GateLearning):
            return evidence.law.learned
        if self.gates is None:
            return None
        found = LearnedGates.read(self.gates)
        widths, problems = graph.widths, []
        for name, width in found.widths.items():
            if name not in widths:
                problems.append(f"there is no group {name} here that can be cut")
            elif width != widths[name]:
                problems.append(f"{name} has {widths[name]} units, the file {width}")
        mark = found.facts.get("fingerprint")
        if not problems and mark != fingerprint(graph.model):
            problems.append(f"its fingerprint is {mark}, this network's {fingerprint(graph.model)}")
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise FileError(
                f"the gates of {self.gates} were learned on another network: {'; '.join(problems[:5])}{more}\n"
                "learn them on this one: leave the option gates out"
            )
        return found

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        gates = self.learned(graph, evidence)
        if gates is not None:
            return gates.scores(evidence.seed)
        return {g.name: torch.ones(g.width, dtype=torch.float64) for g in self.gated_groups(graph)}

    def spend(self, graph: PruningGraph, goal: Goal, evidence: Evidence) -> Plan | None:
        if goal.budget is None or goal.uniform or goal.ranking not in (None, self.ranking):
            return None
        scores = self.judge(graph, evidence)
        return threshold(
            graph,
            scores,
            goal.budget,
            base=goal.base,
            round_to=goal.round_to,
            protect=goal.protect,
            floor=goal.floor,
        )

    def files(self, graph: PruningGraph, plan: Plan, evidence: Evidence) -> Mapping[str, str]:
        gates = self.learned(graph, evidence)
        more = {}
        if gates is not None:
            wider = {} if plan.base is None else plan.base.why["widened"]
            more["gates.json"] = gates.with_facts(widened=wider, seed=evidence.seed).to_json() + "\n"
        return {"widths.json": write_widths(graph, plan), **more}

    def notes(self, evidence: Evidence) -> list[str]:
        if isinstance(evidence.law, GateLearning):
            return [f"{self.name}: {evidence.law.told()}"]
        return [] if self.gates is None else [f"{self.name}: the gates were read from {self.gates}"]

    def record(self, evidence: Evidence) -> Mapping[str, Any]:
        if not isinstance(evidence.law, GateLearning):
            return {}
        gates = evidence.law.learned
        means = {name: round(float(values.mean()), 6) for name, values in gates.values.items()}
        return {"gates": {**gates.facts, "mean": means}}
