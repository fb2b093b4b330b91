"""From scores and a budget to a plan."""

from secateur.budget.allocate import RANKINGS as RANKINGS
from secateur.budget.allocate import plan as plan
from secateur.budget.budget import Budget as Budget
from secateur.budget.goal import Goal as Goal
from secateur.budget.presets import PRESETS as PRESETS
from secateur.budget.presets import preset_widths as preset_widths
