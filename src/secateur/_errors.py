"""Every error that Secateur raises on purpose.

    SecateurError
    ├── UsageError          what was asked for does not fit together (names, numbers, inputs)
    │   ├── UnknownName     a model, data set, method, criterion or preset that does not exist
    │   ├── BudgetError     a budget that is malformed or cannot be reached
    │   └── InputError      example inputs that the model does not take
    ├── DataError           a data set that is missing, cut short or has labels out of range
    ├── WeightsError        weights whose keys or shapes do not match the model
    ├── FileError           a saved file that is missing, truncated or tampered with
    ├── PlanError           a plan that does not belong to this model
    ├── VerifyError         the cut model is not the masked model
    ├── TrainingError       training went wrong (a loss that is not a number)
    └── MissingExtra        an optional dependency that is not installed

A message holds the fact, the user's own words and the way out; it fits on one screen. The command line prints it
without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_KNOWN = 24


class SecateurError(Exception):
    """The root of the tree: catch this to catch everything that Secateur raises on purpose."""


class UsageError(SecateurError):
    """What was asked for does not fit together."""


class UnknownName(UsageError):
    """A name that does not exist; the message lists what does, nearest first.

    Args:
        kind: what was looked up, for instance ``"method"``.
        name: what the user wrote.
        known: the names that exist.
        hint: one more line with another way out.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = ""):
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        lines = [f"unknown {kind} {name!r}"]
        if near:
            lines.append(f"did you mean {' or '.join(repr(n) for n in near)}?")
        more = f" and {len(known) - _MOST_KNOWN} more" if len(known) > _MOST_KNOWN else ""
        lines.append(f"known: {', '.join(known[:_MOST_KNOWN])}{more}" if known else f"no {kind} is known")
        if hint:
            lines.append(hint)
        super().__init__("\n".join(lines))


class BudgetError(UsageError):
    """A budget that is malformed or cannot be reached."""


class InputError(UsageError):
    """Example inputs that the model does not take."""


class DataError(SecateurError):
    """A data set that is missing, cut short or has labels out of range."""


class WeightsError(SecateurError):
    """Weights whose keys or shapes do not match the model."""


class FileError(SecateurError):
    """A saved file that is missing, truncated or tampered with."""


class PlanError(SecateurError):
    """A plan that does not belong to this model."""


class VerifyError(SecateurError):
    """The cut model is not the masked model."""


class TrainingError(SecateurError):
    """Training went wrong."""


class MissingExtra(SecateurError):
    """An optional dependency that is not installed."""
