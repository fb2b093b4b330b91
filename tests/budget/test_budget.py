"""What can be asked for, and how it may be written."""

from __future__ import annotations

import pytest

from secateur._errors import BudgetError, UnknownName
from secateur.budget import Budget
from secateur.graph import Cost

DENSE = Cost(macs=1000, params=200)


@pytest.mark.parametrize(
    ("text", "metric", "target"),
    [
        ("macs=50%", "macs", 0.5),
        ("macs=57%", "macs", 0.57),
        (" macs = 7 % ", "macs", 0.07),
        ("macs=100%", "macs", 1.0),
        ("macs=0.5", "macs", 0.5),
        ("macs=1", "macs", 1.0),
        ("macs=.25", "macs", 0.25),
        ("macs=1000000", "macs", 1e6),
        ("macs=1e6", "macs", 1e6),
        ("params=2.5M", "params", 2.5e6),
        ("params=300k", "params", 3e5),
        ("params=300K", "params", 3e5),
        ("macs=4G", "macs", 4e9),
        ("params=0.1%", "params", 0.001),
    ],
)
def test_parse(text: str, metric: str, target: float):
    assert Budget.parse(text) == Budget(**{metric: target})
    assert Budget.parse(text).as_dict() == {metric: target}


@pytest.mark.parametrize(
    "text",
    ["", "macs", "macs=", "macs=%", "macs=half", "50%", "macs=50%%", "macs=1MM", "macs=50 percent", "macs=nan", "=="],
)
def test_what_cannot_be_read_gets_an_example(text: str):
    with pytest.raises(BudgetError) as caught:
        Budget.parse(text)
    assert repr(text) in str(caught.value)
    assert "macs=50%" in str(caught.value)


@pytest.mark.parametrize("text", ["macs=0", "macs=0%", "macs=-5%", "params=-1", "macs=-inf"])
def test_nothing_and_less_than_nothing(text: str):
    with pytest.raises(BudgetError, match="must be a positive number"):
        Budget.parse(text)


def test_more_than_everything():
    with pytest.raises(BudgetError, match=r"'macs=120%' is more than the dense model; a budget is what remains"):
        Budget.parse("macs=120%")
    with pytest.raises(BudgetError, match="asks for 1,001 macs, the dense model has only 1,000"):
        Budget(macs=1001).limit(DENSE)
    with pytest.raises(BudgetError, match="the dense model has only 200"):
        Budget.parse("params=inf").limit(DENSE)


def test_metrics():
    with pytest.raises(UnknownName, match="did you mean 'macs'"):
        Budget(mac=0.5)
    with pytest.raises(UnknownName, match="budget metric 'weight'"):
        Budget.parse("weight=50%")
    with pytest.raises(BudgetError, match="exactly one target, got 2"):
        Budget(macs=0.5, params=0.5)
    with pytest.raises(BudgetError, match="exactly one target, got 0"):
        Budget()
    for value in (True, "0.5", None):
        with pytest.raises(BudgetError, match="positive number"):
            Budget(macs=value)  # pyright: ignore[reportArgumentType]


def test_limit():
    assert Budget(macs=0.25).limit(DENSE) == 250
    assert Budget(macs=250).limit(DENSE) == 250
    assert Budget(params=1).limit(DENSE) == 200
    assert Budget(params=2).limit(DENSE) == 2


def test_it_is_frozen_and_says_what_it_is():
    budget = Budget(macs=0.5)
    with pytest.raises(AttributeError):
        budget.target = 0.6  # type: ignore[misc]
    assert eval(repr(budget), {"Budget": Budget}) == budget
    assert str(budget) == "macs = 0.5 of the dense"
    assert str(Budget(params=2_500_000)) == "params = 2,500,000"
