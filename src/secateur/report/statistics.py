"""Mean, spread and paired differences over seeds, and what they allow to be said."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from secateur.card import is_fraction
from secateur.report import units
from secateur.report.cells import Cell, higher_is_better, scale

LEVEL = 0.95
FEWEST = 3
"""Seeds below which there is no verdict."""

_INHERIT = ("inheriting the weights helps", "training from scratch is better")
PAIRS = {
    ("finetune", "scratch-e"): _INHERIT,
    ("finetune", "scratch-b"): _INHERIT,
    ("retrain", "scratch-e"): ("keeping the initial weights helps", "fresh random weights are better"),
    ("scratch-b", "scratch-e"): (
        "training from scratch for longer helps",
        "training from scratch for fewer epochs is better",
    ),
}
"""The questions: which recovery minus which, what it means when that is above zero, and what when below."""

# Differences of accuracies carry the rounding of the subtraction.
_ZERO = 1e-9


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of ``n`` values; ``std`` is None for a single one."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Interval:
    """The mean of paired differences with its two-sided t confidence interval; None below two pairs."""

    mean: float
    low: float
    high: float
    std: float
    n: int


@dataclass(frozen=True)
class Paired:
    """One recovery minus another, or one method minus another, over the seeds that both have, with all else equal.

    Attributes:
        first, second: the cells.
        seeds: that both have.
        differences: first minus second, one a seed, in points for an accuracy.
    """

    first: Cell
    second: Cell
    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def interval(self) -> Interval | None:
        return interval(self.differences)

    @property
    def finding(self) -> str:
        """``first``, ``second`` (which is better), ``none`` (no evidence), ``constant`` (no spread) or ``few``."""
        found = self.interval
        if found is None or found.n < FEWEST:
            return "few"
        if found.std == 0:
            return "constant" if found.mean else "none"
        if found.low <= 0 <= found.high:
            return "none"
        return "first" if (found.mean > 0) == higher_is_better(self.first.quality) else "second"

    @property
    def names(self) -> tuple[str, str]:
        """What is compared: two recoveries, or two methods."""
        if self.first.method == self.second.method:
            return self.first.how, self.second.how
        return _judge(self.first), _judge(self.second)

    def _better(self) -> tuple[str, str]:
        """What it means when the first is better, and what when the second is."""
        known = PAIRS.get((self.first.recovery, self.second.recovery))
        one, other = self.names
        return known or (f"{one} is better than {other}", f"{other} is better than {one}")

    def _nothing(self) -> str:
        one, other = self.names
        if self.first.method != self.second.method:
            return f"no evidence of a difference between {one} and {other}"
        return f"no evidence that {self._better()[0]}"

    def verdict(self) -> str:
        """The finding in plain words with the numbers it rests on."""
        n, (one, other) = len(self.differences), self.names
        names = f"{one} minus {other}"
        found, unit = self.interval, " points" if is_fraction(self.first.quality) else ""
        if found is None or found.n < FEWEST:
            told = f": {', '.join(_number(d) for d in self.differences)}{unit}" if n else ""
            return f"n = {n}: too few seeds for a verdict ({FEWEST} or more), {names}{told}"
        digits = _digits(found)
        mean, low, high = (units.signed(v, digits) for v in (found.mean, found.low, found.high))
        helps, harms = self._better()
        if found.std == 0:
            same = f"{names}: {mean}{unit} with every seed, so there is no interval"
            if not found.mean:
                return f"{self._nothing()}, n = {n} ({same})"
            better = helps if (found.mean > 0) == higher_is_better(self.first.quality) else harms
            return f"with every seed alike {better}, n = {n} ({same})"
        why = f"n = {n} ({names}: {mean}{unit}, {100 * LEVEL:g} % CI {low} to {high})"
        if self.finding == "none":
            return f"{self._nothing()}, {why}"
        by = f"{abs(found.mean):.{digits}f}{unit}"
        return f"{helps if self.finding == 'first' else harms} by {by}, {why}"


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and *sample* standard deviation; None for no values."""
    n = len(values)
    if not n:
        return None
    mean = math.fsum(values) / n
    return Spread(mean, None if n < 2 else math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)


def interval(differences: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Mean of paired differences with the t interval of n - 1 degrees of freedom (that of a paired t-test).

    Returns:
        None for fewer than two. Equal differences give an interval without width.
    """
    found = spread(differences)
    if found is None or found.std is None:
        return None
    if max(differences) - min(differences) < _ZERO:
        mean = 0.0 if abs(found.mean) < _ZERO else found.mean
        return Interval(mean, mean, mean, 0.0, found.n)
    from scipy.special import stdtrit

    half = float(stdtrit(found.n - 1, 0.5 + level / 2)) * found.std / math.sqrt(found.n)
    return Interval(found.mean, found.mean - half, found.mean + half, found.std, found.n)


def paired(first: Cell, second: Cell) -> Paired:
    """The differences between two cells over their common seeds."""
    ours = {o.seed: o.value for o in first.outcomes}
    theirs = {o.seed: o.value for o in second.outcomes}
    seeds = tuple(seed for seed in ours if seed in theirs)
    factor = scale(first.quality)
    return Paired(first, second, seeds, tuple(factor * (ours[s] - theirs[s]) for s in seeds))


def comparisons(cells: Sequence[Cell]) -> tuple[Paired, ...]:
    """Every pair of cells that differ in the recovery only and that :data:`PAIRS` asks about."""
    return tuple(
        paired(first, second)
        for first in cells
        for one, other in PAIRS
        if first.recovery == one
        for second in cells
        if second.recovery == other and second.setting == first.setting
    )


def between_methods(cells: Sequence[Cell]) -> tuple[tuple[str, tuple[Paired, ...]], ...]:
    """Every pair of cells that differ in the method and its options only: what they share, in words, and the pairs.

    The one with the better mean comes first.
    """
    alike: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        alike.setdefault((_but_for_the_method(cell), cell.way), []).append(cell)
    found = []
    for own in alike.values():
        pairs = [_better_first(paired(a, b)) for a, b in itertools.combinations(own, 2) if a.method != b.method]
        if pairs:
            # A method that was recovered in one way only does not say in which.
            how = max((cell.how for cell in own), key=len)
            words = (f"{own[0].model} on {own[0].data}", own[0].budget, how)
            found.append((", ".join(filter(None, words)), tuple(pairs)))
    return tuple(found)


def _better_first(pair: Paired) -> Paired:
    """So that a verdict and the sign of its difference agree; of equal ones the first stays first."""
    ahead = math.fsum(pair.differences) * (1 if higher_is_better(pair.first.quality) else -1)
    return paired(pair.second, pair.first) if ahead < 0 else pair


def _but_for_the_method(cell: Cell) -> str:
    said = json.loads(cell.setting)
    return json.dumps({k: v for k, v in said.items() if k.partition(".")[0] not in ("method", "options", "ranking")})


def _judge(cell: Cell) -> str:
    return f"{cell.method} ({cell.detail})" if cell.detail else cell.method


def plus_minus(found: Spread | None, digits: int = 2, sign: bool = False) -> str:
    """``93.41 ± 0.12``; a single value alone."""
    if found is None:
        return units.ABSENT
    mean = units.signed(found.mean, digits) if sign else f"{found.mean:.{digits}f}"
    return mean if found.std is None else f"{mean} ± {found.std:.{digits}f}"


def _number(value: float) -> str:
    return units.signed(value, 2)


def _digits(found: Interval) -> int:
    """Two, or as many as it takes that a bound which is not zero does not look like it."""
    for digits in (2, 3, 4):
        if all(not bound or float(f"{bound:.{digits}f}") for bound in (found.low, found.high)):
            return digits
    return 4
