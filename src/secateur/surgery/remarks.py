"""What is said of single layers, brought together for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

#: A layer's path, and a line about it.
Remark = tuple[str, str]

_FIGURE = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
#: Layers that are named; of more, the number is said.
_NAMED = 3


def merged(remarks: Iterable[Remark]) -> list[str]:
    """One line for all layers of which the same is said but for the figures; where these differ, from least to most."""
    kinds: dict[tuple[str, ...], list[tuple[str, list[str]]]] = {}
    for layer, line in remarks:
        parts = _FIGURE.split(line)
        kinds.setdefault(tuple(parts[::2]), []).append((layer, parts[1::2]))
    found = []
    for words, said in kinds.items():
        figures = [_range(column) for column in zip(*(of for _, of in said), strict=True)]
        line = "".join(part for pair in zip_longest(words, figures, fillvalue="") for part in pair)
        found.append(f"{line} ({_named(list(dict.fromkeys(layer for layer, _ in said)))})")
    return found


def _range(figures: Sequence[str]) -> str:
    least, most = min(figures, key=float), max(figures, key=float)
    return most if float(least) == float(most) else f"{least} to {most}"


def _named(layers: list[str]) -> str:
    names, more = ", ".join(layers[:_NAMED]), len(layers) - _NAMED
    return f"layer {names}" if len(layers) == 1 else f"{len(layers)} layers: {names}" + f" and {more} more" * (more > 0)
