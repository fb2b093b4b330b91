"""One colour per method throughout a report, told apart by every kind of sight.

The eight colours are those of Okabe and Ito, "Color Universal Design" (2008). Black is left out because it vanishes on
a dark page, and yellow comes last because it is weak on a light one.
"""

from __future__ import annotations

from collections.abc import Iterable

BLUE = "#0072B2"
VERMILLION = "#D55E00"
GREEN = "#009E73"
ORANGE = "#E69F00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
YELLOW = "#F0E442"

NEUTRAL = "#8A8D91"
"""The dense network, locked groups and everything that is no method: a grey that shows on white and on black."""

GHOST = "rgba(138, 141, 145, 0.28)"
"""The dense bar behind a kept one."""

_FIXED = {"dense": NEUTRAL, "scratch-e": SKY, "scratch-b": PURPLE}
_FREE = (BLUE, VERMILLION, GREEN, ORANGE, YELLOW)


def colours(methods: Iterable[str]) -> dict[str, str]:
    """A colour for every method, in the order of first appearance; the baselines have theirs fixed.

    More than five methods share colours; labels tell them apart.
    """
    chosen = dict(_FIXED)
    for method in methods:
        if method not in chosen:
            chosen[method] = _FREE[(len(chosen) - len(_FIXED)) % len(_FREE)]
    return chosen
