"""What every ATen operation does to labels, one kind of operation a file."""

from secateur.graph.rules import (  # noqa: F401 - each registers its own
    attention,
    combinations,
    contractions,
    diagonals,
    experts,
    lookups,
    moves,
    norms,
    orders,
    positions,
    reparametrised,
    solves,
    spreads,
    transforms,
    windows,
    writes,
)
from secateur.graph.rules.registry import EXPLAINING as EXPLAINING
from secateur.graph.rules.registry import RULES as RULES
from secateur.graph.rules.registry import argument as argument
from secateur.graph.rules.registry import axes_of as axes_of
from secateur.graph.rules.registry import lookup as lookup
from secateur.graph.rules.registry import rule as rule
