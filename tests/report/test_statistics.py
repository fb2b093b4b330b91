"""Means, deviations, intervals and verdicts, against numbers worked out by hand and against scipy's paired t-test."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scipy import stats

from report.together import runs
from secateur.report.cells import Cell, cells, higher_is_better
from secateur.report.statistics import Paired, between_methods, comparisons, interval, plus_minus, spread


def _pairs(raw: dict[str, Any], **accuracies: tuple[float, ...]) -> tuple[Paired, ...]:
    return comparisons(cells(runs(raw, {k.replace("_", "-"): v for k, v in accuracies.items()})))


def test_mean_and_sample_deviation():
    found = spread([2, 4, 4, 4, 5, 5, 7, 9])
    assert found is not None
    assert found.mean == 5
    assert found.std == pytest.approx((32 / 7) ** 0.5), "n - 1, not n"
    assert found.n == 8
    alone = spread([3.0])
    assert alone is not None
    assert (alone.mean, alone.std, alone.n) == (3.0, None, 1)
    assert spread([]) is None
    assert plus_minus(alone) == "3.00"
    assert plus_minus(spread([1, 3])) == "2.00 ± 1.41"
    assert plus_minus(None) == "\u2013"


def test_interval_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3).
    found = interval([1, 2, 3])
    assert found is not None
    assert (found.mean, found.std, found.n) == (2, 1, 3)
    assert found.high - 2 == pytest.approx(4.302653 / 3**0.5, abs=1e-5)
    assert found.low == pytest.approx(4 - found.high)
    assert interval([1]) is None
    assert interval([]) is None


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_interval_is_that_of_the_paired_t_test(n: int):
    draw = random.Random(n)
    first, second = ([draw.gauss(93, 0.3) for _ in range(n)] for _ in range(2))
    found = interval([a - b for a, b in zip(first, second, strict=True)])
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_equal_differences_have_no_spread_and_no_nan(raw: dict[str, Any]):
    found = interval([0.1 + 0.2, 0.3, 0.3])
    assert found is not None
    assert (found.std, found.low, found.high) == (0, found.mean, found.mean)
    (same,) = _pairs(raw, finetune=(0.90, 0.91, 0.92), scratch_e=(0.90, 0.91, 0.92))
    assert same.finding == "none"
    assert same.verdict() == (
        "no evidence that inheriting the weights helps, n = 3 "
        "(fine-tune minus scratch-E: ±0.00 points with every seed, so there is no interval)"
    )
    (better,) = _pairs(raw, finetune=(0.91, 0.92, 0.93), scratch_e=(0.90, 0.91, 0.92))
    assert better.finding == "constant"
    assert better.verdict().startswith("with every seed alike inheriting the weights helps, n = 3")
    assert "nan" not in better.verdict().lower()


def test_verdicts(raw: dict[str, Any]):
    (unclear,) = _pairs(raw, finetune=(0.900, 0.910, 0.905, 0.9, 0.9), scratch_e=(0.905, 0.905, 0.905, 0.9, 0.9))
    assert unclear.finding == "none"
    assert unclear.verdict() == (
        "no evidence that inheriting the weights helps, n = 5 "
        "(fine-tune minus scratch-E: ±0.00 points, 95 % CI \u22120.44 to +0.44)"
    )
    # 1.0, 1.1, 1.2 points: mean 1.1, half width 0.1 * 4.302653 / sqrt(3) = 0.248.
    (helps,) = _pairs(raw, finetune=(0.91, 0.911, 0.912), scratch_e=(0.90, 0.90, 0.90))
    assert helps.verdict() == (
        "inheriting the weights helps by 1.10 points, n = 3 "
        "(fine-tune minus scratch-E: +1.10 points, 95 % CI +0.85 to +1.35)"
    )
    (harms,) = _pairs(raw, finetune=(0.90, 0.90, 0.90), scratch_b=(0.91, 0.911, 0.912))
    assert harms.verdict().startswith(
        "training from scratch is better by 1.10 points, n = 3 (fine-tune minus scratch-B:"
    )
    (longer,) = _pairs(raw, scratch_b=(0.91, 0.911, 0.912), scratch_e=(0.90, 0.90, 0.90))
    assert longer.verdict().startswith("training from scratch for longer helps by 1.10 points")


def test_too_few_seeds(raw: dict[str, Any]):
    (two,) = _pairs(raw, finetune=(0.91, 0.92), scratch_e=(0.90, 0.90))
    assert two.verdict() == (
        "n = 2: too few seeds for a verdict (3 or more), fine-tune minus scratch-E: +1.00, +2.00 points"
    )
    # Seeds that only one of them has are no pairs.
    (one,) = _pairs(raw, finetune=(0.91, 0.92, 0.93, 0.94), scratch_e=(0.90,))
    assert one.seeds == (0,)
    assert one.finding == "few"


def test_three_questions_for_three_recoveries(raw: dict[str, Any]):
    found = _pairs(raw, finetune=(0.91,) * 3, scratch_e=(0.9,) * 3, scratch_b=(0.92,) * 3)
    asked = [(p.first.recovery, p.second.recovery) for p in found]
    assert asked == [("finetune", "scratch-e"), ("finetune", "scratch-b"), ("scratch-b", "scratch-e")]


def test_a_bound_that_is_not_zero_does_not_look_like_it(raw: dict[str, Any]):
    (found,) = _pairs(raw, finetune=(0.90004, 0.90006, 0.90008), scratch_e=(0.90, 0.90, 0.90))
    assert found.finding == "first"
    assert "CI +0.001 to +0.011" in found.verdict()


def test_less_of_a_loss_is_better(raw: dict[str, Any]):
    assert not higher_is_better("bits_per_character")
    assert not higher_is_better("robust_loss")
    assert higher_is_better("robust_accuracy")
    cards = runs(raw, {"finetune": (0.1, 0.2, 0.3), "scratch-e": (0.5, 0.7, 0.6)})
    for card in cards:
        for part in (card.dense, card.pruned):
            part.quality["perplexity"] = 100 * part.quality.pop("accuracy")
    (found,) = comparisons(cells(cards))
    assert found.finding == "first"
    assert "points" not in found.verdict()


def _only(found: tuple[Cell, ...]) -> Cell:
    (cell,) = found
    return cell


def test_repeats_are_runs_that_differ_in_the_seed_alone(raw: dict[str, Any]):
    one = runs(raw, {"finetune": (0.91, 0.92)}, recipe={"seed": 0, "training.seed": 0, "options.penalty": 1e-4})
    assert _only(cells(one)).seeds == (0, 1)
    assert _only(cells(one)).values == pytest.approx([91, 92])
    assert _only(cells(one)).drops == pytest.approx([-2, -1])
    other = runs(raw, {"finetune": (0.91, 0.92)}, recipe={"options.penalty": 1e-5})
    assert [cell.detail for cell in cells(one + other)] == ["penalty 0.0001", "penalty 1e-05"]
    budget = runs(raw, {"finetune": (0.91, 0.92)}, budget={"macs": 0.7})
    assert [cell.budget.replace("\u00a0", " ") for cell in cells(one + budget)] == [
        "macs 50 %, round to 1",
        "macs 70 %",
    ]
    twice = _only(cells(one + one[:1]))
    assert (twice.seeds, twice.repeats) == ((0, 1), 1)


def test_recoveries_of_one_name_are_told_apart(raw: dict[str, Any]):
    slow = runs(raw, {"finetune": (0.91, 0.92)})
    fast = runs(raw, {"finetune": (0.90, 0.91)})
    for card in fast:
        assert card.recovery is not None
        card.recovery.settings["lr"] = 0.01
    assert [cell.how for cell in cells(slow + fast)] == ["fine-tune (lr 0.001)", "fine-tune (lr 0.01)"]


def test_scratch_b_may_take_another_number_of_epochs_with_another_seed(raw: dict[str, Any]):
    first, second = runs(raw, {"scratch-b": (0.91, 0.92)})
    assert first.recovery is not None
    object.__setattr__(first.recovery, "epochs", 317)
    assert _only(cells([first, second])).seeds == (0, 1)


def test_comparisons_within_a_card_count_as_runs(raw: dict[str, Any]):
    rivals = {"comparisons": raw["comparisons"]}
    cards = runs(raw, {"finetune": (0.91, 0.92, 0.93)}, **rivals)
    assert [(cell.recovery, cell.seeds) for cell in cells(cards)] == [
        ("finetune", (0, 1, 2)),
        ("scratch-e", (0, 1, 2)),
        ("scratch-b", (0, 1, 2)),
    ]
    assert len(comparisons(cells(cards))) == 3


def test_cards_without_a_quality_have_no_cells(raw: dict[str, Any]):
    del raw["pruned"]["accuracy"]
    raw["comparisons"] = []
    card = runs({**raw, "pruned": {**raw["pruned"], "accuracy": 0.5}}, {"finetune": (0.5,)})[0]
    card.pruned.quality.clear()
    assert cells([card]) == ()


def test_a_cap_on_scratch_b_is_no_other_setting(raw: dict[str, Any]):
    cards = runs(raw, {"finetune": (0.90, 0.91, 0.92)})
    cards += runs(raw, {"scratch-b": (0.91, 0.91, 0.93)}, recipe={"scratch_b_cap": 2})
    cards += runs(raw, {"scratch-b": (0.92, 0.92, 0.93)})
    joined = cells(cards)
    assert [c.how for c in joined if c.recovery == "scratch-b"] == [
        "scratch-B (at most 2 times the epochs)",
        "scratch-B",
    ]
    assert len(comparisons(joined)) == 2


def test_methods_are_compared_where_all_else_is_equal(raw: dict[str, Any]):
    cards = runs(raw, {"finetune": (0.90, 0.91, 0.92), "none": (0.5, 0.5, 0.5)}, method="l1")
    cards += runs(raw, {"finetune": (0.93, 0.92, 0.94), "none": (0.5, 0.6, 0.4)}, method="thinet")
    cards += runs(raw, {"finetune": (0.99, 0.99, 0.99)}, method="random", budget={"macs": 0.7})
    (tuned, (one,)), (cut, (other,)) = between_methods(cells(cards))
    assert tuned == "cifar-resnet20 on cifar10 (test, 10 000 images), macs 50\u00a0%, round to 1, fine-tune"
    assert cut.endswith("as cut")
    assert one.differences == pytest.approx((3, 1, 2)), "the one with the better mean comes first"
    found = stats.ttest_rel((93, 92, 94), (90, 91, 92)).confidence_interval(0.95)
    low, high = (f"{abs(v):.2f}" for v in found)
    assert one.verdict() == (
        f"no evidence of a difference between thinet and l1, n = 3 "
        f"(thinet minus l1: +2.00 points, 95 % CI \u2212{low} to +{high})"
    )
    assert other.verdict().startswith("no evidence of a difference between l1 and thinet, n = 3")
    sure = runs(raw, {"finetune": (0.931, 0.941, 0.952)}, method="thinet") + cards[:3]
    ((_, (pair,)),) = between_methods(cells(sure))
    assert pair.verdict().startswith("thinet is better than l1 by 3.13 points, n = 3 (thinet minus l1: +3.13 points")


def test_methods_are_not_compared_across_learning_rates(raw: dict[str, Any]):
    cards = runs(raw, {"finetune": (0.90, 0.91, 0.92)}, method="l1")
    other = runs(raw, {"finetune": (0.93, 0.92, 0.94)}, method="thinet")
    for card in other:
        assert card.recovery is not None
        card.recovery.settings["lr"] = 0.01
    assert between_methods(cells(cards + other)) == ()


def test_options_belong_to_the_method(raw: dict[str, Any]):
    cards = runs(raw, {"finetune": (0.90, 0.91, 0.92)}, method="l1", recipe={"ranking": "layer"})
    recipe = {"ranking": "raw", "options.penalty": 0.1}
    cards += runs(raw, {"finetune": (0.93, 0.92, 0.94)}, method="slimming", recipe=recipe)
    assert len(between_methods(cells(cards))) == 1
    cards += runs(raw, {"finetune": (0.93, 0.92, 0.94)}, method="slimming", recipe={**recipe, "options.penalty": 1.0})
    ((_, pairs),) = between_methods(cells(cards))
    assert [pair.names for pair in pairs] == [("slimming (penalty 0.1)", "l1"), ("slimming (penalty 1.0)", "l1")]
    different = runs(raw, {"finetune": (0.93, 0.92, 0.94)}, method="sfp", recipe={"protect": ["conv1"]})
    assert between_methods(cells(cards[:3] + different)) == ()
