"""How the scores of what stays and of what goes are spread, for the report: counts instead of thousands of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from secateur.surgery import Plan

BINS = 40
_FAR = 4.0
"""Times the threshold; scores beyond it share the last bin."""
_MOST_BELOW = 0.1


def unit_histogram(scores: Mapping[str, Tensor], plan: Plan, ranking: str) -> dict[str, Any] | None:
    """The scores of the units of all groups that were narrowed.

    Args:
        scores: by group, as the plan was made from.
        ranking: see ``sc.plan``. Scores that are not ranked as they are (``"raw"``) are divided by their own group's
            threshold, so that all groups share one axis, with the threshold at 1.

    Returns:
        See :func:`histogram`, with ``"what": "units"`` and whether the scores are ``relative``; None where nothing was
        narrowed.
    """
    raw = ranking == "raw"
    kept, removed = [], []
    for name, units in plan.keep.items():
        if name not in scores:
            continue
        values = scores[name].detach().double().cpu().numpy()
        stays = np.zeros(len(values), dtype=bool)
        stays[list(units)] = True
        if not raw:
            bar = values[~stays].max(initial=-np.inf)
            if not 0 < bar < np.inf:
                continue
            values = values / bar
        kept.append(values[stays])
        removed.append(values[~stays])
    return histogram(kept, removed, "units", relative=not raw)


def weight_histogram(sizes: Mapping[str, Tensor], keep: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The sizes of single weights, by tensor, and which of them stay (boolean, of the same shape)."""
    pairs = [(sizes[name].detach().double().cpu().numpy(), keep[name].bool().cpu().numpy()) for name in keep]
    return histogram([v[k] for v, k in pairs], [v[~k] for v, k in pairs], "weights", relative=False)


def histogram(kept: list[np.ndarray], removed: list[np.ndarray], what: str, relative: bool) -> dict[str, Any] | None:
    """Counts of scores in bins of equal width.

    Returns:
        ``low`` and ``high``, the outer edges of :data:`BINS` bins; ``kept`` and ``removed``, the counts, of which the
        last bin's include all scores beyond it; ``threshold``, the highest score that went, or None where more than a
        tenth of what stays lies below it; None where nothing went, or where all scores are the same.
    """
    stays, goes = (np.concatenate([v.ravel() for v in values]) if values else np.empty(0) for values in (kept, removed))
    if not len(goes):
        return None
    bar, everything = float(goes.max()), np.concatenate([stays, goes])
    low, high = min(0.0, float(everything.min())), float(everything.max())
    if bar > 0:
        high = min(high, _FAR * bar)
    if not high > low or not np.isfinite([low, high]).all():
        return None
    counts = [np.histogram(v.clip(low, high), BINS, (low, high))[0].tolist() for v in (stays, goes)]
    below = float((stays < bar).mean()) if len(stays) else 0.0
    return {
        "what": what,
        "relative": relative,
        "low": low,
        "high": high,
        "kept": counts[0],
        "removed": counts[1],
        "threshold": bar if below <= _MOST_BELOW else None,
    }
