"""Numbers as a reader wants them: short, with their unit, with a real minus sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.card import Card, is_fraction

_NBSP = "\u00a0"
_MINUS = "\u2212"
ABSENT = "\u2013"


def signed(value: float, digits: int) -> str:
    """A difference with its sign; one that rounds to zero says so."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return f"±{text}"
    return f"{'+' if value > 0 else _MINUS}{text}"


def si(value: float | None, unit: str = "") -> str:
    """A count or a size with a decimal prefix and three significant digits: ``41.2 M``, ``3.41 MB``."""
    if value is None:
        return ABSENT
    scaled, prefix = float(value), ""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(scaled) < 999.5 or prefix == "T":
            break
        scaled /= 1000
    if prefix == "":
        number = f"{value:g}"
    else:
        number = f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f}"
    return f"{number}{_NBSP}{prefix}{unit}".rstrip(_NBSP)


def change(before: float, after: float) -> str:
    """The relative change in per cent: ``−50 %``; one decimal below ten."""
    if not before:
        return ABSENT
    percent = 100 * (after / before - 1)
    return f"{signed(percent, 1 if abs(percent) < 9.95 else 0)}{_NBSP}%"


def share(part: float | None, whole: float) -> str:
    """What remains, in per cent: ``50 %``."""
    return f"{100 * part / whole:.3g}{_NBSP}%" if part is not None and whole else ""


def milliseconds(value: float) -> str:
    """A time with three significant digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}" if value >= 1 else f"{value:.3g}"


def quality(name: str, value: float | None) -> str:
    """A quality as it is read: an accuracy in per cent with two decimals, all else as it stands."""
    if value is None:
        return ABSENT
    return f"{100 * value:.2f}{_NBSP}%" if is_fraction(name) else f"{value:.4g}"


def quality_change(name: str, before: float | None, after: float | None, digits: int = 2) -> str:
    """The difference: percentage points for an accuracy (without the word), the plain difference for all else."""
    if before is None or after is None:
        return ABSENT
    return signed(100 * (after - before), digits) if is_fraction(name) else signed(after - before, digits + 1)


def spoken(name: str) -> str:
    """A key as words: ``robust_accuracy`` to ``robust accuracy``."""
    return name.replace("_", " ")


def speed_up(card: Card) -> float | None:
    """Dense time over pruned time; above one is faster. None where either was not measured."""
    dense, pruned = card.dense.latency_ms, card.pruned.latency_ms
    return dense.median / pruned.median if dense and pruned and pruned.median else None


def times(factor: float | None) -> str:
    """A factor: ``1.62×``."""
    return ABSENT if factor is None else f"{factor:.2f}×"


def listed(value: Any) -> str:
    """A text as it is, a table as ``name value`` pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{spoken(str(k))} {v}" for k, v in value.items() if v not in (None, "", []))
    return str(value)


def remaining(budget: Mapping[str, Any]) -> str:
    """What a budget lets remain, as words: ``macs 50 %``, ``params 2.25 M``, ``preset vgg16-A``."""
    return listed({name: _amount(value) for name, value in budget.items()})


def _amount(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return share(value, 1) if isinstance(value, float) and 0 < value <= 1 else si(value)
