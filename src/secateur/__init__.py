"""Secateur makes PyTorch networks really smaller, measurably faster, and says honestly what that cost."""

from secateur._errors import SecateurError as SecateurError
from secateur.budget import Budget as Budget
from secateur.budget import plan as plan
from secateur.card import Card as Card
from secateur.graph import Cost as Cost
from secateur.graph import PruningGraph as PruningGraph
from secateur.graph import lock as lock
from secateur.graph import register_rule as register_rule
from secateur.graph import select_channels as select_channels
from secateur.graph import trace as trace
from secateur.methods import methods as methods
from secateur.pipeline import Result as Result
from secateur.pipeline import prune as prune
from secateur.scores import score as score
from secateur.surgery import Plan as Plan
from secateur.surgery import cut as cut
from secateur.surgery import load as load
from secateur.surgery import mask as mask
from secateur.surgery import rebuild_optimizer as rebuild_optimizer
from secateur.surgery import save as save
from secateur.surgery import verify as verify

__version__ = "0.1.0"
__all__ = [
    "Budget",
    "Card",
    "Cost",
    "Plan",
    "PruningGraph",
    "Result",
    "SecateurError",
    "cut",
    "load",
    "lock",
    "mask",
    "methods",
    "plan",
    "prune",
    "rebuild_optimizer",
    "register_rule",
    "save",
    "score",
    "select_channels",
    "trace",
    "verify",
]
