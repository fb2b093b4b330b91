"""How many dry runs a probe takes, and what two different cuts show that one does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur.graph import findings
from secateur.graph.capture import capture
from secateur.graph.dry_run import Failure
from secateur.graph.probe import Prober
from secateur.graph.trace import trace
from secateur.scores import score

IMAGE = torch.zeros(1, 3, 4, 4)


class Heads(nn.Module):
    """Attention over 4 heads, whose number is in an attribute behind many others with the same value.

    It is added to something, so the number that arrives at ``unflatten`` does not say where it comes from.
    """

    def __init__(self, decoys: int, reads: int = 0):
        super().__init__()
        for k in range(decoys):
            setattr(self, f"decoy_{k}", 4)
        self.reads = [f"decoy_{k}" for k in range(reads)]
        self.heads = 4
        self.embed, self.qkv, self.out = nn.Linear(6, 32), nn.Linear(32, 96), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        sum(getattr(self, name) for name in self.reads)
        q, k, v = self.qkv(self.embed(x)).unflatten(-1, (3, self.heads + 0, 8)).permute(2, 0, 3, 1, 4)
        return self.out(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2))


def runs_of(model: nn.Module, *inputs: Tensor) -> tuple[int, Prober]:
    prober = Prober(capture(model, inputs))
    prober.run()
    return prober.findings.spent["runs"], prober


def test_attributes_that_the_code_does_not_read_cost_no_runs() -> None:
    few, plain = runs_of(Heads(0), torch.zeros(1, 7, 6))
    many, prober = runs_of(Heads(30), torch.zeros(1, 7, 6))
    reading, _ = runs_of(Heads(30, reads=10), torch.zeros(1, 7, 6))
    bound = {x.attribute for x in prober.findings.literals}
    assert "heads" in bound
    assert bound == {x.attribute for x in plain.findings.literals}
    # One that is tried without listening, and one that listens.
    assert many <= few + 2
    assert reading >= many + 9, "what is read has to be tried"


def test_a_name_that_is_unread_until_the_failure_would_fail_there_too() -> None:
    recorded = capture(Heads(30, reads=10), (torch.zeros(1, 7, 6),))
    prober = Prober(recorded)
    failure = prober.findings.dry_run(0)
    assert failure is not None
    proposals = [some for some in prober._literals(failure) if some]
    listening = prober.findings.listening(frozenset((x.module, x.attribute) for some in proposals for x in some))
    assert listening.dry_run(0) == failure
    unmoved = [some for some in proposals if listening.is_unmoved_by(some, failure.index)]
    assert len(unmoved) >= 20
    assert len(unmoved) < len(proposals)
    for some in unmoved:
        assert prober.findings.bind(some).dry_run(0) == failure


class Swapped(nn.Module):
    """Two shares of the channels change places; the code works out where one ends."""

    def __init__(self, width: int, end: Callable[[int], int]):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, width, 1), nn.Conv2d(width, 5, 1), nn.Linear(5, 4)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        end = self.end(y.shape[1])
        return self.head(self.second(torch.cat([y[:, end:], y[:, :end]], 1)).mean((2, 3)))


SHARES: dict[str, Callable[[int], int]] = {
    "half, rounded down": lambda width: width // 2,
    "half, rounded up": lambda width: (width + 1) // 2,
    "a quarter": lambda width: width // 4,
}


@pytest.mark.parametrize("share", SHARES)
def test_equal_shares_of_an_axis_suit_no_two_cuts(share: str) -> None:
    for width in range(4, 66, 4):
        prober = Prober(capture(Swapped(width, SHARES[share]), IMAGE))
        failures = [prober.findings.dry_run(seed) for seed in (0, 1)]
        assert any(failures), width
        prober.run()
        assert all(prober.findings.dry_run(seed) is None for seed in (0, 1)), width


def test_a_division_that_suits_one_cut_is_found_by_the_other() -> None:
    model = Swapped(8, SHARES["half, rounded down"])
    prober = Prober(capture(model, IMAGE))
    found: list[Failure | None] = [prober.findings.dry_run(seed) for seed in (0, 1)]
    assert found.count(None) == 1, "one of the two shows nothing"
    group = next(g for g in Prober(capture(model, IMAGE)).run().groups if g.name == "first")
    assert group.locked or group.width == 4


class Looking(nn.Module):
    """Looks at values, so it runs on real tensors; divides what it gives back, or what can be cut."""

    def __init__(self, divides_output: bool):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        self.divides_output = divides_output

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = y if self.divides_output else y.view(1, 4, 2, 4, 4).transpose(1, 2).reshape(1, 8, 4, 4)
        y = self.head(self.second(y))
        y = y if float(y.sum()) < 1e9 else -y
        return y.view(1, 2, 3, 4, 4) if self.divides_output else y


def test_a_division_of_what_no_cut_changes_needs_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    cut = findings.Findings.cut
    monkeypatch.setattr(findings.Findings, "cut", lambda self, seed, only=None: seeds.append(seed) or cut(self, seed))
    runs, prober = runs_of(Looking(divides_output=True), IMAGE)
    assert not prober.recorded.on_meta
    assert runs == 1
    assert seeds == [0]
    runs, prober = runs_of(Looking(divides_output=False), IMAGE)
    assert not prober.recorded.on_meta
    assert runs > 1
    assert 1 in seeds


class Scaled(nn.Module):
    """A number worked out of a width, and calls behind it that are counted."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 8), nn.Linear(8, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = self.second(y * y.shape[-1] ** -0.5)
        Scaled.calls += 1
        return self.head(y)


def test_a_run_that_asks_of_one_operation_ends_behind_it() -> None:
    prober = Prober(capture(Scaled(), torch.zeros(1, 3)))
    failure = prober.findings.dry_run(0)
    assert failure is not None
    assert failure.number
    groups = {g.name: k for k, g in enumerate(prober.findings.groups)}
    Scaled.calls = 0
    assert prober.findings.fails_alike(failure, [groups["first"]], 0)
    assert not prober.findings.fails_alike(failure, [groups["second"]], 0)
    assert Scaled.calls == 0
    locked = {g.name for g in prober.run().groups if g.locked}
    assert "first" in locked
    assert "second" not in locked


class Tables(nn.Module):
    """Positions that are computed and left, and a table of places of which the code takes the middle."""

    table: Tensor
    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)
        self.register_buffer("table", torch.randn(10, 4))
        self.register_buffer("frequencies", torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 4) to the same shape."""
        (self.frequencies * 2).cos()
        middle = self.table.size(0) // 2
        return self.b(self.a(x + self.table[middle - 1 : middle - 1 + x.size(1)]).relu())


def test_what_lies_on_buffers_alone_is_locked_and_costs_nothing_else():
    torch.manual_seed(0)
    model, x = Tables().eval(), torch.randn(1, 3, 4)
    graph = trace(model, x)
    assert graph.widths == {"a": 6}
    assert graph["frequencies"].reason == "lies on no parameter, only on frequencies"
    places = [g.reason for g in graph.groups if g.members[0].tensor == "table"]
    assert all(places)
    assert any("does not follow a cut" in reason for reason in places)
    assert set(score(graph, "l1")) == set(score(graph, "fpgm")) == {"a"}
