"""What may be spent: a target on one metric."""

from __future__ import annotations

from dataclasses import dataclass

from secateur._errors import BudgetError, UnknownName
from secateur.graph import Cost

METRICS = ("macs", "params", "weights")
#: What a graph counts; single weights are no part of it.
COUNTED = ("macs", "params")


@dataclass(frozen=True, init=False, repr=False)
class Budget:
    """A target on multiply-accumulates or parameters, or, for methods that mask single weights, on these.

    ``Budget(macs=0.5)`` is half of the dense model's multiply-accumulates *remaining*; ``Budget(params=2_000_000)`` is
    an absolute number. Numbers up to 1 are fractions.

    Raises:
        BudgetError: not exactly one metric, or a number that is not positive.
    """

    metric: str
    target: float

    def __init__(self, **target: float):
        unknown = [name for name in target if name not in METRICS]
        if unknown:
            raise UnknownName("budget metric", unknown[0], METRICS)
        if len(target) != 1:
            raise BudgetError(
                f"a budget has exactly one target, got {len(target)}: Budget(macs=0.5) or Budget(params=1e6)"
            )
        metric, value = next(iter(target.items()))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0 or value != value:
            raise BudgetError(f"the {metric} budget must be a positive number, got {value!r}")
        object.__setattr__(self, "metric", metric)
        object.__setattr__(self, "target", value)

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``macs=50%``, ``macs=0.5``, ``params=2.5M`` or ``macs=1000000``.

        Raises:
            BudgetError: anything else.
        """
        metric, sign, value = text.replace(" ", "").partition("=")
        units = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
        last = value[-1:]
        try:
            number = float(value[:-1] if last == "%" or last in units else value)
            # Dividing, not multiplying by 0.01: 57 % has to be 0.57 to the last digit.
            number = number / 100 if last == "%" else number * units.get(last, 1.0)
        except ValueError:
            number = float("nan")
        if not sign or number != number:
            raise BudgetError(f"cannot read the budget {text!r}\nwrite macs=50%, macs=0.5, params=2.5M or macs=1000000")
        if value.endswith("%") and number > 1:
            raise BudgetError(f"the budget {text!r} is more than the dense model; a budget is what remains")
        return cls(**{metric: number})

    def limit(self, dense: Cost) -> float:
        """The target as an absolute number.

        Raises:
            BudgetError: more than the dense model has, or a target that units do not have.
        """
        if self.metric not in COUNTED:
            raise BudgetError(
                f"{self.metric} are for methods that mask single weights (magnitude, lottery)\n"
                "units are removed for a budget of macs or params: macs=50%"
            )
        base = getattr(dense, self.metric)
        limit = self.target * base if self.target <= 1 else self.target
        if limit > base:
            raise BudgetError(f"the budget asks for {limit:,.0f} {self.metric}, the dense model has only {base:,}")
        return limit

    def as_dict(self) -> dict[str, float]:
        return {self.metric: self.target}

    def __repr__(self) -> str:
        return f"Budget({self.metric}={self.target!r})"

    def __str__(self) -> str:
        value = f"{self.target:.4g} of the dense" if self.target <= 1 else f"{self.target:,.0f}"
        return f"{self.metric} = {value}"
