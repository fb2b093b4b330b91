"""The Gumbel law over counts: every width has a distribution over a few candidates, of which two are tried at a time.

Paper: Dong, Yang, "Network Pruning via Transformable Architecture Search", NeurIPS 2019, arXiv 1905.09717. With logits
``a`` and Gumbel noise ``g``, the perturbed logits are ``(log softmax(a) + g) / tau``. Two different candidates are
drawn from their softmax; how they are drawn is not differentiated, the weights are: a softmax over the two perturbed
logits. All laws of a network lie in one tensor of shape ``[laws, candidates]``, padded with minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur._errors import UsageError
from secateur.graph import Group

#: So that a multinomial draw has something to draw where all but one candidate have no probability left.
_LEAST = 1e-7


def parse_ratios(text: str) -> tuple[float, ...]:
    """Read ``0.3,0.5,1``: shares of a width, each in (0, 1], none twice. In ascending order.

    Raises:
        UsageError: anything else, all of it at once.
    """
    problems, found = [], []
    for part in text.split(","):
        try:
            ratio = float(part)
        except ValueError:
            problems.append(f"{part.strip()!r} is not a number")
            continue
        if not 0 < ratio <= 1:
            problems.append(f"{part.strip()} is out of (0, 1]")
        elif ratio in found:
            problems.append(f"{part.strip()} is there twice")
        found.append(ratio)
    if problems:
        raise UsageError(
            "\n".join([f"these candidate ratios do not work: {text!r}", *problems, "write them as in 0.3,0.5,0.7,1"])
        )
    return tuple(sorted(found))


def candidates(group: Group, ratios: Iterable[float], round_to: int = 1, floor: float = 0.0) -> tuple[int, ...]:
    """The counts that the ratios mean for a group, rounded down as in the released code, ascending, none twice.

    Args:
        round_to: counts snap down to multiples of this; in a group narrower than twice this, of a quarter of its width.
        floor: least share of the group.
    """
    step = round_to if group.kind == "channel" else 1
    if step > 1 and group.width < 2 * step:
        step = max(1, group.width // 4)
    least = max(group.least, math.ceil(floor * group.width), 1)
    counts = set()
    for ratio in ratios:
        count = int(group.width * ratio + 1e-9)
        counts.add(group.width if ratio == 1 else min(group.width, max(count // step * step, -(-least // step) * step)))
    return tuple(sorted(counts))


@dataclass(frozen=True)
class Pair:
    """Two candidates of one law, the smaller first, and their weights, which add up to one.

    ``low == high`` is a choice that was made; its weights are of no account.
    """

    low: int
    high: int
    weights: Tensor | None = None

    @property
    def single(self) -> bool:
        return self.low == self.high


def padded(sizes: Sequence[int], scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Logits from N(0, scale^2), shape ``[laws, most candidates]``; those that a law has not are minus infinity."""
    logits = torch.randn(len(sizes), max(sizes, default=0), generator=generator) * scale
    for row, size in zip(logits, sizes):
        row[size:] = -torch.inf
    return logits


def gumbel(logits: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Perturbed logits ``(log softmax(logits) + g) / temperature`` with ``g = -log(-log u)``, of the same shape."""
    # -log u is exponential; -log of that is Gumbel, and never infinite.
    noise = -torch.empty_like(logits).exponential_(generator=generator).clamp_min(1e-30).log()
    return (logits.log_softmax(-1) + noise) / temperature


def two_of(perturbed: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Two different candidates of every law, and the softmax over their perturbed logits.

    Args:
        perturbed: shape ``[laws, candidates]``, with at least two finite ones each.

    Returns:
        Indices, ascending, and weights, both of shape ``[laws, 2]``; a gradient flows through the weights alone.
    """
    with torch.no_grad():
        probabilities = perturbed.softmax(-1) + _LEAST * perturbed.isfinite()
        chosen = torch.multinomial(probabilities, 2, replacement=False, generator=generator).sort(1).values
    return chosen, perturbed.gather(1, chosen).softmax(1)
