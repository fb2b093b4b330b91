"""Sizes that say where they come from: attributes are bound and widths tied without a search."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur as sc
from secateur.graph import sources
from secateur.graph.capture import capture
from secateur.graph.probe import Prober
from secateur.graph.sourced import SourcedInt
from secateur.graph.sources import Call, Sources

TOKENS = torch.zeros(1, 6, 5)


class Net(nn.Module):
    """Three linear layers; what is between the first two belongs to the test."""

    def __init__(self, between: Callable[[Net, Tensor, Tensor], Tensor], wide: int = 12):
        super().__init__()
        self.first, self.aside = nn.Linear(5, 12), nn.Linear(5, wide)
        self.second, self.head = nn.Linear(12, 7), nn.Linear(7, 3)
        self.heads, self.width, self.borders, self.front = 4, 12, [5, 7], 5
        self.square = nn.Parameter(torch.randn(12, 12))
        self.words, self.mixed = [*range(1000)], [3, "three"]
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.between(self, self.first(x), self.aside(x))).relu())


def probed(net: nn.Module, x: Tensor = TOKENS) -> tuple[Prober, int]:
    """A prober that is done, and how many dry runs it made."""
    prober = Prober(capture(net, (x,)))
    prober.run()
    return prober, prober.findings.spent["runs"]


def require_exact(net: nn.Module, share: float = 0.6) -> sc.Plan:
    """Every group cut to a share of its units, and verified."""
    graph = sc.trace(net, TOKENS)
    kept = {name: max(1, round(width * share)) for name, width in graph.widths.items()}
    plan = sc.plan(graph, sc.score(graph, "l1"), kept)
    sc.cut(net, plan)
    assert sc.verify(net, plan, TOKENS).exact
    return plan


def swapped(net: Net, y: Tensor) -> Tensor:
    return torch.cat([y[..., net.front :], y[..., : net.front]], -1)


GIVEN: dict[str, tuple[str, Callable[[Net, Tensor, Tensor], Tensor]]] = {
    "view": ("heads", lambda net, y, z: y.view(1, 6, net.heads, -1).sin().view(1, 6, -1) + z),
    "view of a tuple": ("heads", lambda net, y, z: y.view((1, 6, net.heads, -1)).sin().flatten(2) + z),
    "reshape": ("width", lambda net, y, z: y.reshape(6, net.width).cos().unsqueeze(0) + z),
    "torch.reshape": ("width", lambda net, y, z: torch.reshape(y, (6, net.width)).cos().unsqueeze(0) + z),
    "expand": ("width", lambda net, y, z: y[:, :1].expand(1, 6, net.width) + z),
    "unflatten": ("heads", lambda net, y, z: y.unflatten(-1, (net.heads, -1)).sin().flatten(2) + z),
    "split": ("borders", lambda net, y, z: torch.cat(y.split(net.borders, dim=-1)[::-1], -1) * z),
    "torch.split": ("borders", lambda net, y, z: torch.cat(torch.split(y, net.borders, 2)[::-1], -1) * z),
    "split by name": ("borders", lambda net, y, z: torch.cat(y.split(split_size=net.borders, dim=-1)[::-1], -1) * z),
    "unflatten by name": ("heads", lambda net, y, z: y.unflatten(dim=-1, sizes=(net.heads, -1)).sin().flatten(2) + z),
    "narrow by name": (
        "front",
        lambda net, y, z: torch.cat([y.narrow(dim=-1, start=0, length=net.front).sin(), y[..., net.front :]], -1) + z,
    ),
    "new_zeros": ("width", lambda net, y, z: y * (y.new_zeros(1, 6, net.width) + z)),
    "zeros in a product": ("width", lambda net, y, z: y + torch.mm(y.new_zeros(6, net.width), net.square) + z),
    "narrow": (
        "front",
        lambda net, y, z: torch.cat([y.narrow(-1, 0, net.front).sin(), y[..., net.front :]], -1) + z,
    ),
    "slice": ("front", lambda net, y, z: swapped(net, y) * z),
}


@pytest.mark.parametrize("name", GIVEN)
def test_an_attribute_that_is_given_as_a_size_is_bound_at_once(name: str) -> None:
    attribute, between = GIVEN[name]
    net = Net(between)
    prober, runs = probed(net)
    assert attribute in {literal.attribute for literal in prober.findings.literals}
    assert runs <= 2, "one that fails would need two that pass behind it"
    assert prober.findings.free > 7, "more than the second layer can be cut"
    plan = require_exact(net)
    assert attribute in {size.attribute for size in plan.sizes}


TAKEN: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "shape": lambda net, y, z: z.reshape(1, 6, y.shape[-1]),
    "size of an axis": lambda net, y, z: z.reshape(1, 6, y.size(-1)),
    "size by name": lambda net, y, z: z.reshape(1, 6, y.size(dim=2)),
    "all sizes": lambda net, y, z: z.reshape(*y.size()[:2], y.size()[2]),
    "shape handed on": lambda net, y, z: z.view(y.shape),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_size_that_was_read_off_another_tensor_ties_the_two_widths(name: str) -> None:
    # The two never meet, so nothing but the size of one makes the other as long.
    net = Net(TAKEN[name])
    prober, runs = probed(net)
    assert runs == 3, "one that fails, and two that pass"
    widths = {group.name: group for group in prober.findings.groups if not group.locked}
    tied = next(group for group in widths.values() if any(m.tensor == "first.weight" for m in group.members))
    assert any(m.tensor == "aside.weight" for m in tied.members)
    require_exact(net)


SHARES: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "heads first": lambda net, y, z: z.reshape(1, 6, net.heads, y.shape[-1] // net.heads).sin().flatten(2) + y,
    "heads last": lambda net, y, z: z.reshape(1, 6, y.shape[-1] // net.heads, net.heads).sin().flatten(2) + y,
}


@pytest.mark.parametrize("name", SHARES)
def test_a_share_of_a_size_beside_its_divisor_is_the_whole(name: str) -> None:
    net = Net(SHARES[name])
    prober, _ = probed(net)
    assert [pair.axes for pairs in prober.recorded.pairs.values() for pair in pairs] == [(2, 3)]
    require_exact(net)


def test_one_attribute_is_one_size() -> None:
    net = Net(
        lambda net, y, z: y.reshape(6, net.width).unsqueeze(0) * z.reshape(6, net.width).unsqueeze(0).mean(-1, True)
    )
    prober, _ = probed(net)
    (pair,) = [pair for pairs in prober.recorded.pairs.values() for pair in pairs]
    assert pair.axes == (1,)
    assert pair.taken.size == 12
    plan = require_exact(net)
    assert {size.attribute for size in plan.sizes} >= {"width"}


def test_the_same_units_in_another_order_are_not_tied_to_one_another() -> None:
    def shuffled(net: Net, y: Tensor, z: Tensor) -> Tensor:
        n, t, c = y.shape
        return y.view(n, t, net.heads, c // net.heads).transpose(2, 3).reshape(n, t, c)

    prober, runs = probed(Net(shuffled))
    assert runs == 0
    assert max(group.width for group in prober.findings.groups if not group.locked) >= 4


@pytest.mark.parametrize("scale", [None, 0.5])
def test_a_width_that_an_attention_is_scaled_by_is_locked_at_once(scale: float | None) -> None:
    def attention(net: Net, y: Tensor, z: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(y, y, z, scale=scale)

    graph = sc.trace(Net(attention), TOKENS)
    prober, runs = probed(Net(attention))
    queries = graph["first"]
    assert bool(prober.recorded.scales) is (scale is None)
    if scale is None:
        assert queries.locked
        assert "the scale of the attention in the model [test_sources.py:" in queries.reason
        assert "worked out of a size" in queries.reason
        assert runs == 3
    else:
        assert not queries.locked


def test_a_sourced_number_is_the_number_that_it_is() -> None:
    seen: list[object] = []
    kept: dict[str, object] = {}

    def look(net: Net, y: Tensor, z: Tensor) -> Tensor:
        c = y.shape[-1]
        seen.extend([y.shape, c, net.heads, net.borders, net.words, net.mixed])
        kept["c"] = copy.deepcopy(c)
        assert c == 12
        assert c // net.heads == 3
        assert c // 5 == 2
        assert [*range(net.heads)] == [0, 1, 2, 3]
        return y.view(1, 6, c) + z

    net = Net(look)
    sc.trace(net, TOKENS)
    shape, c, heads, borders, words, mixed = seen[:6]
    assert type(shape) is torch.Size
    assert isinstance(c, SourcedInt)
    assert isinstance(heads, SourcedInt)
    assert isinstance(borders, list)
    assert all(isinstance(entry, SourcedInt) for entry in borders)
    # Long lists hold no sizes, nor do those of other things.
    assert isinstance(words, list)
    assert isinstance(mixed, list)
    assert type(words[5]) is type(mixed[0]) is int
    # A share says where it comes from, a rest or any other result does not.
    assert isinstance(c // heads, SourcedInt)
    assert type(c // 5) is type(c * 2) is type(heads // 2) is int
    assert type(pickle.loads(pickle.dumps(c))) is type(kept["c"]) is int
    # The user's own model was never touched.
    assert type(net.heads) is type(net.borders[0]) is int


def test_equal_parts_are_heard_by_name() -> None:
    prober, runs = probed(Net(lambda net, y, z: torch.cat(y.chunk(chunks=2, dim=-1), dim=-1) * z))
    assert runs == 0
    assert prober.findings.free > 7


def test_what_a_listener_does_not_understand_costs_dry_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def confused(_: Sources, call: Call) -> None:
        raise TypeError(call.args)

    net = Net(lambda net, y, z: y.roll(1, 1) * z)
    assert probed(net)[1] == 0
    widths = sc.trace(net, TOKENS).widths
    monkeypatch.setitem(sources._HEARD, "roll", confused)
    assert probed(net)[1] > 0
    assert sc.trace(net, TOKENS).widths == widths
    require_exact(net)


KEPT: dict[tuple[int, ...], list[int]] = {}


def folded(net: nn.Module, y: Tensor, z: Tensor) -> Tensor:
    """Heads in sizes that the code keeps for every shape, as einops does."""
    b, n, c = KEPT.setdefault(tuple(map(int, y.shape)), list(y.shape))
    return y.reshape(b, n, net.heads, c // net.heads).relu().reshape(b, n, c)


class Longer(Net):
    """The same sizes in other places: other labels, and its heads in a module that the other one lacks."""

    def __init__(self) -> None:
        super().__init__(folded)
        self.words = nn.Embedding(300, 5)
        self.inside = Net(folded)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.words(x) + self.inside(self.words(x)).mean(-1, keepdim=True))


def test_sizes_that_the_code_kept_since_another_trace_say_nothing():
    torch.manual_seed(0)
    tokens = torch.zeros(1, 6, dtype=torch.int64)
    KEPT.clear()
    alone = sc.trace(Net(folded), TOKENS).widths
    KEPT.clear()
    capture(Longer(), (tokens,))
    assert {type(n) for sizes in KEPT.values() for n in sizes} >= {SourcedInt}
    own = capture(Net(folded), (TOKENS,))
    taken = [system for pairs in own.pairs.values() for pair in pairs for system, _ in pair.taken.systems]
    assert all(int(system.max()) < own.ledger.count for system in taken)
    assert {literal.module for literal in own.ledger.literals} <= {"", "first", "aside", "second", "head"}
    assert sc.trace(Net(folded), TOKENS).widths == alone
    require_exact(Net(folded))
