"""The shipped contract: every method keeps it, and each clause catches the method that breaks it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from secateur.graph import PruningGraph
from secateur.methods import REGISTRY, Evidence, Method
from secateur.scores import Scores, score
from secateur.testing import check_method, contract


class Honest(Method):
    """Keeps every clause, and is not in the registry: what a third party would write."""

    name = "honest"
    summary = "squared weights"

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return {name: values**2 for name, values in score(graph, "l2").items()}


class TwoLines(Honest):
    summary = "two\nlines"


class NoSuchRanking(Honest):
    ranking = "best"


class LeavesOneOut(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        scores = super().judge(graph, evidence)
        scores.popitem()
        return scores


class NotANumber(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        scores = super().judge(graph, evidence)
        next(iter(scores.values()))[0] = float("nan")
        return scores


class OneTooMany(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return {name: torch.cat([v, v[:1]]) for name, v in super().judge(graph, evidence).items()}


class Cheats(Honest):
    """Makes what is removed look dearer than it is, and with it the cut cheaper."""

    share: ClassVar[float] = 0.5

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        honest = graph.meter

        def meter(metric: str, lanes: Any) -> Any:
            found = honest(metric, lanes)
            found._coefficients = found._coefficients * self.share
            return found

        graph.meter = meter  # type: ignore[method-assign]
        return super().judge(graph, evidence)


class Wasteful(Cheats):
    """Makes the cut look dearer than it is, so that less is kept than could be."""

    share = 1.2


class MovesAWeight(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        with torch.no_grad():
            next(graph.model.parameters()).mul_(1.001)
        return super().judge(graph, evidence)


class LeavesAHook(Honest):
    """What it leaves behind depends on the width, so that cut and masked model differ."""

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        conv = next(m for m in graph.model.modules() if isinstance(m, nn.Conv2d))
        conv.register_forward_hook(lambda module, args, output: output + output.shape[1])
        return super().judge(graph, evidence)


class RunsInTrainingMode(Honest):
    """The statistics of the batch norms move."""

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        for x, _ in evidence.data or ():
            graph.model(x)
        return super().judge(graph, evidence)


class LeavesGradients(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        for x, _ in evidence.data or ():
            graph.model.eval()(x).sum().backward()
        graph.model.train()
        return super().judge(graph, evidence)


class SpoilsTheData(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        for x, _ in evidence.data or ():
            x.zero_()
        return super().judge(graph, evidence)


class Unseeded(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        return {name: torch.rand(width) for name, width in graph.widths.items()}


class RemembersInTheInstance(Honest):
    calls = 0

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        self.calls += 1
        return {name: values * self.calls for name, values in super().judge(graph, evidence).items()}


class RemembersInTheClass(Honest):
    seen: ClassVar[dict[str, torch.Tensor]] = {}

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        for name, values in super().judge(graph, evidence).items():
            self.seen[name] = values if name not in self.seen else self.seen[name] + values
        return {name: self.seen[name] for name in graph.widths}


class ChangesItsMind(Honest):
    """The order of the units is turned round with every call of the process."""

    sign: ClassVar[list[float]] = [1.0]

    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        self.sign[0] = -self.sign[0]
        return {name: self.sign[0] * values for name, values in super().judge(graph, evidence).items()}


class GivesUp(Honest):
    def judge(self, graph: PruningGraph, evidence: Evidence) -> Scores:
        raise RuntimeError("cannot judge this")


@pytest.mark.parametrize("cls", REGISTRY.values(), ids=REGISTRY)
def test_every_method_of_the_registry_keeps_it(cls: type[Method]):
    check_method(cls)


BROKEN = {
    TwoLines: ["named"],
    NoSuchRanking: ["named"],
    LeavesOneOut: ["scores"],
    NotANumber: ["scores"],
    OneTooMany: ["scores"],
    Cheats: ["budget met"],
    Wasteful: ["budget met"],
    MovesAWeight: ["no cut", "nothing moves"],
    LeavesAHook: ["exact", "reload", "nothing moves"],
    RunsInTrainingMode: ["nothing moves"],
    LeavesGradients: ["nothing moves"],
    SpoilsTheData: ["nothing moves"],
    Unseeded: ["seed"],
    RemembersInTheInstance: ["no state"],
    RemembersInTheClass: ["no state"],
    ChangesItsMind: ["seed", "nested"],
    GivesUp: ["scores", "budget met"],
}


def test_every_clause_has_a_method_that_breaks_it():
    assert {clause for clauses in BROKEN.values() for clause in clauses} == set(contract.CLAUSES)


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_each_clause_catches_who_breaks_it(cls: type[Method]):
    for name in BROKEN[cls]:  # type: ignore[index]
        contract.CLAUSES[name](contract.Case(Honest, "plain"))
        with pytest.raises((AssertionError, RuntimeError, ValueError)):
            contract.CLAUSES[name](contract.Case(cls, "plain"))


def test_the_report_names_method_clause_and_network():
    with pytest.raises(AssertionError) as caught:
        check_method(GivesUp)
    message = str(caught.value)
    assert message.startswith("GivesUp breaks the contract of a method:\n")
    assert "- clause 'scores' on the residual network: RuntimeError: cannot judge this" in message
    assert "'named'" not in message


def test_a_method_outside_the_registry_can_be_checked():
    check_method(Honest)
