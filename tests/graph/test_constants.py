"""Tensors that modules hold without having registered them: which are constants, and how they follow a cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur._errors import PlanError, UnknownName
from secateur.gates.elastic import Elastic
from secateur.graph.clone import Mould
from secateur.surgery import make_plan, widen


class Positions(nn.Module):
    """Positions as many tutorials keep them."""

    def __init__(self, longest: int = 20, width: int = 8) -> None:
        super().__init__()
        self.words, self.a, self.b = nn.Linear(4, width), nn.Linear(width, 6), nn.Linear(6, 5)
        places = torch.arange(longest)[:, None] * torch.arange(1, width + 1)
        self.table = torch.sin(places / 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 4) to (batch, tokens, 5)."""
        return self.b(self.a(self.words(x) + self.table[: x.shape[1]]).relu())


WORDS = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
KEPT = {"words": [0, 2, 3, 7], "a": [1, 5]}


def test_a_table_of_positions_is_cut_with_the_stream():
    torch.manual_seed(0)
    model = Positions()
    graph = sc.trace(model, WORDS)
    assert graph.widths == {"words": 8, "a": 6}
    plan = make_plan(graph, KEPT)
    assert sc.verify(model, plan, WORDS).exact
    small = sc.cut(model, plan)
    assert torch.equal(small.table, model.table[:, [0, 2, 3, 7]])
    assert small.table.data_ptr() != model.table.data_ptr()
    assert torch.equal(copy.deepcopy(small)(WORDS), small(WORDS))
    # What was cut can be cut again.
    again = sc.trace(small, WORDS)
    assert sc.verify(small, make_plan(again, {"words": [1, 2]}), WORDS).exact


def test_what_it_is_tied_to_is_explained():
    text = str(sc.trace(Positions(), WORDS).explain("table"))
    assert text.startswith("table: constant of shape (20, 8)")
    assert "words.weight[0]" in text


def test_a_cut_model_is_restored_into_a_fresh_one(tmp_path: Path):
    torch.manual_seed(0)
    model = Positions()
    small = sc.cut(model, make_plan(sc.trace(model, WORDS), KEPT))
    sc.save(small, tmp_path / "small")
    assert torch.equal(sc.load(tmp_path / "small", model=Positions())(WORDS), small(WORDS))


@pytest.mark.parametrize("make", [lambda: Positions(width=4), lambda: Positions(longest=5)])
def test_a_plan_for_other_sizes_is_refused(make: Callable[[], Positions]):
    model = Positions()
    plan = make_plan(sc.trace(model, WORDS), KEPT)
    model.table = make().table
    if model.table.shape[1] == 4:
        with pytest.raises(PlanError, match=r"the plan keeps entry 7 of axis 1 of table, .* shape \(20, 4\)"):
            sc.cut(model, plan)
    else:
        # How many positions there are is nothing that was cut.
        assert sc.cut(model, plan).table.shape == (5, 4)
    model.table = torch.ones(20)
    with pytest.raises(PlanError, match=r"table, .* shape \(20,\)"):
        sc.cut(model, plan)


def test_networks_that_run_narrower_or_are_widened_take_it_along():
    torch.manual_seed(0)
    model = Positions()
    graph = sc.trace(model, WORDS)
    narrow = sc.cut(model, make_plan(graph, {"words": range(4)}))
    with Elastic(graph, {"words": [4, 8]}).at({"words": 4}):
        assert torch.allclose(model(WORDS), narrow(WORDS))
    assert model.table.shape == (20, 8)
    wide = sc.cut(model, widen(graph, {"words": 16}))
    assert torch.equal(wide.table, model.table.repeat_interleave(2, 1))


class Holding(nn.Module):
    """Holds tensors of every sort beside one that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("known", torch.ones(6))
        self.own, self.moved = torch.rand(6), torch.rand(6)
        self.alias, self.learned = self.known, torch.rand(6, requires_grad=True)
        self.whole, self.number = torch.arange(6), torch.tensor(2.0)
        self.last, self.idle = torch.rand(6), torch.rand(7)
        self.fill()

    def fill(self) -> None:
        self.filled = torch.rand(6)

    def refill(self) -> None:
        self.refilled = torch.rand(6)

    def _apply(self, fn: Any, recurse: bool = True) -> Holding:
        self.moved = fn(self.moved)
        return super()._apply(fn, recurse)

    @property
    def newest(self) -> Tensor:
        return self.last

    @newest.setter
    def newest(self, value: Tensor) -> None:
        self.last = value

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) * self.own + self.moved + self.filled * self.number + self.known
        self.newest = y.detach()
        return self.b(y.relu())


def test_only_what_is_set_when_a_module_is_built_is_a_constant():
    model = Holding()
    model.refill()
    model.set_from_outside = torch.rand(6)
    assert [*Mould(model).constants] == ["own", "moved", "idle", "filled"]
    x = torch.randn(2, 4)
    model(x)
    graph = sc.trace(model, x)
    assert {m.tensor for m in graph["a"].members} - {"a.weight", "a.bias", "b.weight"} == {
        *("known", "own", "moved", "filled")
    }
    assert graph.widths == {"a": 6}
    plan = make_plan(graph, {"a": [0, 4]})
    assert sc.verify(model, plan, x).exact
    small = sc.cut(model, plan)
    assert small.own.shape == small.moved.shape == small.filled.shape == small.alias.shape == (2,)
    assert small.alias is small.known
    assert small.last.shape == (2, 6)


def test_one_that_does_not_run_is_no_part_of_the_graph():
    graph = sc.trace(Holding(), torch.randn(2, 4))
    assert "idle" not in str(graph)
    with pytest.raises(UnknownName, match="idle"):
        graph.explain("idle")


def test_one_that_two_modules_hold_is_cut_once():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Positions()
            self.one_again = Positions()
            self.one_again.table = self.one.table
            self.one_again.words = self.one.words

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.one_again(x)

    torch.manual_seed(0)
    model = Two()
    plan = make_plan(sc.trace(model, WORDS), {"one.words": [1, 2, 5]})
    assert sc.verify(model, plan, WORDS).exact
    small = sc.cut(model, plan)
    assert small.one.table is small.one_again.table
    assert small.one.table.shape == (20, 3)


def test_one_that_a_feature_is_worked_out_of_follows_too():
    """A basis to project on: its columns are units, as a buffer's would be."""

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.basis, self.head = torch.randn(4, 9), nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x @ self.basis).relu())

    torch.manual_seed(0)
    model, x = Projected(), torch.randn(2, 4)
    graph = sc.trace(model, x)
    plan = sc.plan(graph, sc.score(graph, "l2"), {"basis": 4})
    assert sc.verify(model, plan, x).exact
    assert sc.cut(model, plan).basis.shape == (4, 4)


HOLDERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "list": lambda mix, shift: [mix, shift],
    "tuple": lambda mix, shift: (mix, shift),
    "dictionary": lambda mix, shift: {0: mix, 1: shift},
    "both": lambda mix, shift: [{"of": mix, "what": 3}, {"of": (shift,)}],
}


class Tables(nn.Module):
    """Mixes features by tables that lie in lists, tuples or dictionaries."""

    def __init__(self, holder: str) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 5)
        self.tables = HOLDERS[holder](torch.randn(8, 8), torch.randn(8))

    def both(self) -> tuple[Tensor, Tensor]:
        """The matrix and the vector."""
        if isinstance(self.tables[0], dict):
            return self.tables[0]["of"], self.tables[1]["of"][0]
        return self.tables[0], self.tables[1]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 4) to (batch, tokens, 5)."""
        mix, shift = self.both()
        return self.b((self.a(x) @ mix + shift).relu())


@pytest.mark.parametrize("holder", HOLDERS)
def test_tables_in_lists_and_dictionaries_are_cut_too(holder: str):
    torch.manual_seed(0)
    model = Tables(holder)
    graph = sc.trace(model, WORDS)
    assert sorted(graph.widths.values()) == [8, 8]
    names = [g.name for g in graph.groups if not g.locked]
    plan = make_plan(graph, {names[0]: [0, 3, 4], names[1]: [1, 2]})
    assert sc.verify(model, plan, WORDS).exact
    small = sc.cut(model, plan)
    mix, shift = small.both()
    assert torch.equal(mix, model.both()[0][[0, 3, 4]][:, [1, 2]])
    assert torch.equal(shift, model.both()[1][[1, 2]])
    assert type(small.tables) is type(model.tables)
    assert model.both()[0].shape == (8, 8)
    first = sc.cut(model, make_plan(graph, {names[0]: range(4), names[1]: range(3)}))
    with Elastic(graph, {names[0]: [4, 8], names[1]: [3, 8]}).at({names[0]: 4, names[1]: 3}):
        assert torch.allclose(model(WORDS), first(WORDS))
        assert type(model.tables) is type(first.tables)
    assert model.both()[0].shape == (8, 8)


class Remembering(nn.Module):
    """Fills dictionaries when it runs, and reads others that nobody fills."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 5)
        self.scales = {"of a": torch.rand(8), "of all": torch.tensor(3.0)}
        self.cache: dict[int, Tensor] = {}
        self.caches: list[dict[int, Tensor]] = [{}, {}]
        self.settings: dict[str, Tensor] = {}
        self.places = {"order": torch.arange(8)}
        self.calls = {"so far": torch.tensor(2.0)}
        self.set("of b", torch.rand(5))

    def set(self, name: str, value: Tensor) -> None:
        """Called from outside, too."""
        self.settings[name] = value

    def slope(self, n: int) -> Tensor:
        """One number a feature and position."""
        if n not in self.cache:
            self.cache[n] = torch.linspace(1, 2, n)[:, None] * self.a.bias
        for known in self.caches:
            known.setdefault(n, self.cache[n] * 2)
        return self.cache[n] + self.caches[1][n]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 4) to (batch, tokens, 5)."""
        seen = [0]
        seen[0] = x.shape[1]
        self.places["order"] = self.places["order"].to(x.device)
        self.calls["so far"] += 1
        y = self.a(x) * self.scales["of a"] * self.scales.get("of all", 1.0)
        return self.b(y.relu() + self.slope(seen[0])) * self.settings["of b"]


@pytest.mark.filterwarnings("ignore:.*requires_grad=True.*")
def test_dictionaries_that_the_code_fills_are_empty_in_a_copy_and_others_are_whole():
    torch.manual_seed(0)
    model = Remembering()
    with torch.no_grad():
        model(WORDS)
    assert [*Mould(model).constants] == ["scales.of a", "settings.of b"]
    graph = sc.trace(model, WORDS)
    assert graph.widths == {"a": 8}
    plan = make_plan(graph, {"a": [0, 4, 5]})
    assert sc.verify(model, plan, WORDS).exact
    small = sc.cut(model, plan)
    assert (small.cache, small.caches) == ({}, [{}, {}])
    assert small.scales["of a"].shape == (3,)
    assert small.scales["of all"] == 3
    assert torch.equal(small.places["order"], model.places["order"])
    assert small.calls["so far"] == 3
    assert torch.equal(small.settings["of b"], model.settings["of b"])
    assert len(model.cache) == 1
    small(WORDS)
    assert small.cache[7].shape == (7, 3)


def test_a_class_without_source_keeps_its_tables_and_forgets_what_it_may_have_filled():
    names: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(
        "class Written(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)\n"
        "        self.kept, self.known = {}, {}\n"
        "    def forward(self, x):\n"
        "        if 0 not in self.known:\n"
        "            self.known[0] = torch.ones(6)\n"
        "        return self.b(self.a(x) * self.known[0])\n",
        names,
    )
    model = names["Written"]()
    model(WORDS)
    model.kept["by whom"] = torch.ones(3)
    small = sc.cut(model, make_plan(sc.trace(model, WORDS), {}))
    assert small.known == {}
    assert torch.equal(small.kept["by whom"], torch.ones(3))


def test_containers_that_hold_themselves_are_no_trouble():
    model = Tables("list")
    model.tables.append(model.tables)
    plan = make_plan(sc.trace(model, WORDS), {})
    small = sc.cut(model, plan)
    assert small.tables[2] is small.tables


def test_what_compile_made_of_a_module_stays_behind():
    torch.manual_seed(0)
    model = Positions()
    model.a.compile(backend="eager")
    model.compile(backend="eager")
    plan = make_plan(sc.trace(model, WORDS), KEPT)
    assert sc.verify(model, plan, WORDS).exact
    small = sc.cut(model, plan)
    assert small._compiled_call_impl is small.a._compiled_call_impl is None
    assert model._compiled_call_impl is not None
    assert small(WORDS).shape == (2, 7, 5)
